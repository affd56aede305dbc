"""How fast examples are unlearnt, against how far they are memorized and how hard they are.

Memorization and difficulty in nats per token, rates in nats per token and step. What also holds in models that never
saw a set (placebo) is no effect of memorization: in-models stand beside them, on the same examples. Figure functions
return a figure, or in words why there is none; they draw the families of `looks`, in its order.
"""

from collections.abc import Sequence
from functools import cache
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paper import look, marks
from paper.look import Looks
from paper.runs import BY, Array, Run, Study, by_run
from unlearning.core import properties, stats

RHOS = {
    "rate_mem": "rate with memorization",
    "rate_difficulty": "rate with difficulty",
    "rate_mem_given_difficulty": "rate with memorization, difficulty held fixed",
    "rate_difficulty_given_mem": "rate with difficulty, memorization held fixed",
    "mem_difficulty": "memorization with difficulty",
}
DRAWN = {"rate_mem": "memorization", "rate_difficulty": "difficulty"}  # quantity -> panel
SIDES = {"in": "in-models", "placebo": "never saw it"}


def halves(study: Study, trained_with: str, forget_set: str) -> tuple[list[int], list[int]]:
    """The models in two halves, each with in- and out-models and both base models, as evenly as the numbers allow."""
    sides = [study.models(forget_set, trained_with, inside=inside) for inside in (True, False)]
    ordered = [sorted(side, key=lambda m: (study.design["base"].get(m, 0), m)) for side in sides]
    return [m for side in ordered for m in side[::2]], [m for side in ordered for m in side[1::2]]


def _mem(study: Study, per_token: pd.DataFrame, forget_set: str) -> Array:
    # (n,) of a model × example table, in its unit; NaN without an in- and an out-model
    holds = study.design.loc[per_token.index, forget_set] > 0
    if holds.nunique() < 2:
        return np.full(per_token.shape[1], np.nan)
    sides = {"inside": per_token[holds].to_numpy(), "outside": per_token[~holds].to_numpy()}
    return properties.counterfactual_memorization(**sides)


def hardness(study: Study, examples: Sequence[str]) -> Array:
    """(n,) difficulty under the base models; NaN where they were not scored."""
    n_tokens = study.examples["n_tokens"].loc[examples].to_numpy()
    return properties.difficulty(base=study.base.reindex(columns=examples).to_numpy(), n_tokens=n_tokens)


def example_properties(study: Study, trained_with: str, scores: pd.DataFrame) -> pd.DataFrame:
    """One row an example of a forget set: how far it is memorized, by all models, and how difficult it is.

    scores: the long table of this optimizer's models (model, example_id, n_tokens, log_likelihood, n_correct). Gives
    trained_with, family, forget_set, example_id, n_tokens, mem, mem_accuracy (the same of token accuracy), difficulty.
    """
    tables, columns = [], {"mem": "log_likelihood", "mem_accuracy": "n_correct"}
    shares = scores.assign(**{name: scores[column] / scores["n_tokens"] for name, column in columns.items()})
    wide = {name: shares.pivot(index="model", columns="example_id", values=name) for name in columns}
    for forget_set in study.forget_sets:
        examples = [x for x in study.members(forget_set) if x in wide["mem"]]
        keys = {"trained_with": trained_with, "family": study.family(forget_set), "forget_set": forget_set}
        keys |= {"example_id": examples, "n_tokens": study.examples["n_tokens"].loc[examples].to_numpy()}
        keys |= {name: _mem(study, wide[name][examples], forget_set) for name in columns}
        tables.append(pd.DataFrame(keys | {"difficulty": hardness(study, examples)}))
    return pd.concat(tables, ignore_index=True)


def example_rates(study: Study) -> pd.DataFrame:
    """One row an example and run, in-model or placebo: BY, role, family, example_id, n_tokens, mem, difficulty, rate.

    mem comes from the half of the models that the run is not in. A placebo has no k* of its own: its rate is taken over
    as many steps as that of the set's in-models in the arm, on average.
    """
    k_stars: dict[tuple, list] = {}
    for run in study.select():
        k_stars.setdefault((run.arm, run.forget_set), []).append(run.k_star)
    means = {key: pd.Series(values, dtype=float).mean() for key, values in k_stars.items()}

    @cache
    def of_set(trained_with: str, name: str) -> tuple[dict[int, Array], Array]:  # by model mem; difficulty
        ids, (first, second) = study.members(name), halves(study, trained_with, name)
        per_token = study.references[trained_with][ids] / study.examples["n_tokens"].loc[ids]
        mem = [_mem(study, per_token.loc[half], name) for half in (first, second)]
        mem = dict.fromkeys(second, mem[0]) | dict.fromkeys(first, mem[1])
        return mem, hardness(study, ids)

    def table(run: Run) -> pd.DataFrame:
        mem, difficulty = of_set(run.trained_with, run.forget_set)
        k_star = run.k_star if run.role == "in" else means.get((run.arm, run.forget_set), np.nan)
        speed = properties.rate(run.log_likelihoods, run.steps, n_tokens=run.n_tokens, k_star=k_star)
        found = {"role": run.role, "family": run.family, "example_id": run.examples, "n_tokens": run.n_tokens}
        found |= {"mem": mem[run.model], "difficulty": difficulty, "rate": speed}
        return pd.DataFrame(found)

    columns = ["role", "family", "example_id", "n_tokens", "mem", "difficulty", "rate"]
    return by_run([*study.select(), *study.select(role="placebo")], table, columns)


def correlations_by_model(rates: pd.DataFrame) -> pd.DataFrame:
    """Rank correlations inside each run, length always held fixed: arm, forget_set, model, role, and RHOS."""
    rows, rho = [], stats.partial_rank_correlation
    for key, x in rates.groupby([*BY, "role"], sort=False) if len(rates) else []:
        tokens, mem, hard, speed = x[["n_tokens", "mem", "difficulty", "rate"]].to_numpy(dtype=float).T
        rows.append((
            *key, rho(speed, mem, given=tokens), rho(speed, hard, given=tokens),
            rho(speed, mem, given=np.c_[tokens, hard]), rho(speed, hard, given=np.c_[tokens, mem]),
            rho(mem, hard, given=tokens),
        ))  # fmt: skip
    return pd.DataFrame(rows, columns=[*BY, "role", *RHOS])


def z_by_side(study: Study, by_model: pd.DataFrame) -> pd.DataFrame:
    """Fisher's z of the correlations, one row a run, quantity and side: BY, family, quantity, side, z (no unit).

    side: in, placebo, or difference, an in-model minus the mean of the models that never saw the set.
    """
    long = by_model.melt([*BY, "role"], list(RHOS), "quantity", "z").rename(columns={"role": "side"})
    long = long.assign(z=stats.fisher_z(long["z"]), family=long["forget_set"].map(study.family))
    keys = ["arm", "forget_set", "quantity"]
    unseen = long[long["side"] == "placebo"].groupby(keys)["z"].mean().rename("unseen").reset_index()
    net = long[long["side"] == "in"].merge(unseen, on=keys)
    return pd.concat([long, net.assign(z=net["z"] - net["unseen"], side="difference").drop(columns="unseen")])


def by_draw(by_side: pd.DataFrame) -> pd.DataFrame:
    """What each draw says: arm, forget_set, family, quantity (of RHOS), z_in (mean over its in-models), z_placebo (over
    models that never saw it, on the same examples) and their difference; NaN where there are no such runs."""
    mean = by_side.groupby(["arm", "forget_set", "family", "quantity", "side"], sort=False)["z"].mean().unstack("side")
    names = {"in": "z_in", "placebo": "z_placebo", "difference": "difference"}
    return mean.reindex(columns=list(names)).rename(columns=names).rename_axis(columns=None).reset_index()


def correlation_table(by_side: pd.DataFrame, *, identifiable: float, confidence: float = 0.95) -> pd.DataFrame:
    """Every arm and family: arm, family, quantity, side, estimate, low, high, draws, n, unit, reason.

    in and placebo are correlations, the difference is one of z; with one draw, whose placebos are too few, it has no
    limits. A correlation with the other variable held fixed is 'not identifiable' where |ρ(mem, difficulty)| of the
    in-models is above that.
    """
    table = marks.family_means(by_side, "z", by=["arm", "family", "quantity", "side"], confidence=confidence)
    net, limits = table["side"] == "difference", ["estimate", "low", "high"]
    table.loc[~net, limits] = np.tanh(table.loc[~net, limits])
    table.loc[net & (table["draws"] < 2), limits[1:]] = np.nan
    close = table[(table["quantity"] == "mem_difficulty") & (table["side"] == "in")]
    close = table[["arm", "family"]].merge(close[["arm", "family", "estimate"]], how="left")["estimate"]
    unknown = table["quantity"].str.contains("given") & (close.abs() > identifiable)
    why = "not identifiable: memorization and difficulty correlate at " + close.map("{:+.2f}".format)
    lacking = np.where(table["low"].isna(), "too few draws, models or placebos for an interval", "")
    return table.assign(reason=np.where(unknown, why, lacking))


def rate_points(rates: pd.DataFrame, arms: Sequence[str], looks: Looks) -> Figure | str:
    """Rate of every example, mean over its models, against memorization: in-models on the left, models that never saw
    the set on the right; a row an arm."""
    arms = [arm for arm in arms if (rates["arm"] == arm).any()]
    if not arms:
        return "there are no runs to take rates from"
    mean = rates.groupby(["arm", "family", "role", "example_id"])[["mem", "rate"]].mean().reset_index()
    fig, axes = look.grid(len(arms), 2, height_in=1.8, sharex=True, sharey="row")
    for row, arm in zip(axes, arms, strict=True):
        for ax, (side, label) in zip(row, SIDES.items(), strict=True):
            for name, style in looks.items():
                points = mean[(mean["arm"] == arm) & (mean["family"] == name) & (mean["role"] == side)]
                ax.plot(points["mem"], points["rate"], ms=2.2, alpha=0.4, mew=0, **style.point_kw)
            ax.set_title(f"{label}, arm {arm}", loc="left", fontsize=7)
        row[0].set_ylabel("rate, nats per\ntoken and step")
    for ax in axes[-1]:
        ax.set_xlabel("memorization, nats per token")
    marks.legend(fig, {name: Line2D([], [], ms=4, **style.point_kw) for name, style in looks.items()})
    return fig


def correlation_forest(table: pd.DataFrame, draws: pd.DataFrame, arms: Sequence[str], looks: Looks) -> Figure | str:
    """Correlation of the rate with memorization and with difficulty by family, faint points its draws; a row an arm.
    Full marks: in-models; open ones: models that never saw the set, on the same examples."""
    fig, panels = _by_property(table, draws, arms, looks, xlabel="rank correlation with the rate")
    for ax, means, each in panels:
        for side, shift in zip(SIDES, (-0.18, 0.2), strict=True):
            for at, (name, style) in enumerate(looks.items()):
                points = np.tanh(each.loc[each["family"] == name, f"z_{side}"])
                ax.plot(points, [at + shift + 0.13] * len(points), ".", color=style.colour, ms=3, alpha=0.5, mew=0)
                mine = means[(means["family"] == name) & (means["side"] == side)]
                face = {} if side == "in" else {"mfc": "white", "mec": style.colour, "mew": 1.0}
                marks.intervals(ax, [at + shift] * len(mine), mine, style, flat=True, ms=4, **face)
        marks.name_rows(ax, list(looks))
    if panels:
        shown = {label: Line2D([], [], ls="none", marker="o", color=look.INK, ms=4, mfc=face)
                 for label, face in zip(SIDES.values(), (look.INK, "white"), strict=True)}  # fmt: skip
        marks.legend(fig, shown)
    return fig


def difference_forest(
    table: pd.DataFrame, draws: pd.DataFrame, arms: Sequence[str], looks: Looks, *, margin: float
) -> Figure | str:
    """In-models minus those that never saw the set, difference of z, by family and faint by draw; a row an arm; grey:
    ± margin."""
    table, label = table[table["side"] == "difference"], "in-models minus placebo,\ndifference of Fisher's z"
    fig, panels = _by_property(table, draws, arms, looks, xlabel=label)
    for ax, means, each in panels:
        ax.axvspan(-margin, margin, color=look.FLOOR, lw=0, zorder=0)
        marks.forest(ax, means, each, "difference", looks)
    return fig


def _by_property(
    table: pd.DataFrame, draws: pd.DataFrame, arms: Sequence[str], looks: Looks, *, xlabel: str
) -> tuple[Figure | str, list]:
    # axes, a row an arm, a column a property of examples, each with its rows of both tables
    table = table.dropna(subset="estimate")
    arms = [arm for arm in arms if (table["arm"] == arm).any()]
    if not arms:
        return "there are no runs to correlate", []
    fig, axes = look.grid(len(arms), 2, height_in=0.6 + 0.2 * max(len(looks), 5), sharex=True, sharey=True)
    panels = []
    for (i, arm), (j, quantity) in product(enumerate(arms), enumerate(DRAWN)):
        some = (rows[(rows["arm"] == arm) & (rows["quantity"] == quantity)] for rows in (table, draws))
        panels.append((axes[i, j], *some))
        axes[i, j].set_title(f"{DRAWN[quantity]}, arm {arm}", loc="left", fontsize=7)
        axes[-1, j].set_xlabel(xlabel)
        marks.zero_line(axes[i, j], vertical=True)
    return fig, panels
