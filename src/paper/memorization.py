"""How fast examples are unlearnt, against how far they are memorized, how hard and how often seen.

Memorization and difficulty in nats per token, rates in nats per token and step. Figure functions return a figure, or
in words why there is none; they draw the sets of `looks`, in its order.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from paper import look, marks, words
from paper.look import Looks
from paper.runs import BY, Array, Run, Study, by_run
from unlearning.core import genex, properties, stats

RHOS = {
    "rate_mem": "rate with memorization",
    "rate_difficulty": "rate with difficulty",
    "rate_mem_given_difficulty": "rate with memorization, difficulty held fixed",
    "rate_difficulty_given_mem": "rate with difficulty, memorization held fixed",
    "mem_difficulty": "memorization with difficulty",
    "k_star_mem": "the example's k* with memorization (partly by construction)",
}
DRAWN = {"memorization": ("rate_mem", "rate_mem_given_difficulty"),
         "difficulty": ("rate_difficulty", "rate_difficulty_given_mem")}  # fmt: skip
BY_REPETITION = {"k_star": "steps to forget, k*", "lost_100": "held-out lost at k*, nats per token"}


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
    trained_with, forget_set, example_id, n_tokens, mem, mem_accuracy (the same of token accuracy), difficulty.
    """
    tables, columns = [], {"mem": "log_likelihood", "mem_accuracy": "n_correct"}
    shares = scores.assign(**{name: scores[column] / scores["n_tokens"] for name, column in columns.items()})
    wide = {name: shares.pivot(index="model", columns="example_id", values=name) for name in columns}
    for forget_set in study.forget_sets:
        examples = [x for x in study.members(forget_set) if x in wide["mem"]]
        found = {"n_tokens": study.examples["n_tokens"].loc[examples]}
        found |= {name: _mem(study, wide[name][examples], forget_set) for name in columns}
        found["difficulty"] = hardness(study, examples)
        keys = {"trained_with": trained_with, "forget_set": forget_set, "example_id": examples}
        tables.append(pd.DataFrame(keys | found))
    return pd.concat(tables, ignore_index=True)


def example_rates(study: Study) -> pd.DataFrame:
    """One row an example and in-run: its rate and k*; mem from the half of the models that the run is not in."""

    def table(run: Run) -> pd.DataFrame:
        other = next(h for h in halves(study, run.trained_with, run.forget_set) if run.model not in h)
        per_token = study.references[run.trained_with].loc[other, run.examples] / run.n_tokens
        found = {"example_id": run.examples, "n_tokens": run.n_tokens, "mem": _mem(study, per_token, run.forget_set)}
        speed = properties.rate(run.log_likelihoods, run.steps, n_tokens=run.n_tokens, k_star=run.k_star)
        found |= {"difficulty": hardness(study, run.examples), "rate": speed}
        return pd.DataFrame(found | {"k_star": genex.steps_to_forget(run.exposure, run.steps)})

    return by_run(study.select(), table, ["example_id", "n_tokens", "mem", "difficulty", "rate", "k_star"])


def correlations_by_model(rates: pd.DataFrame) -> pd.DataFrame:
    """Rank correlations inside each model and set, length always held fixed: arm, forget_set, model, and RHOS."""
    rows, rho = [], stats.partial_rank_correlation
    for key, x in rates.groupby(BY) if len(rates) else []:
        tokens, mem, hard, speed, own = x[["n_tokens", "mem", "difficulty", "rate", "k_star"]].to_numpy().T
        rows.append((
            *key, rho(speed, mem, given=tokens), rho(speed, hard, given=tokens),
            rho(speed, mem, given=np.c_[tokens, hard]), rho(speed, hard, given=np.c_[tokens, mem]),
            rho(mem, hard, given=tokens), rho(own, mem, given=tokens),
        ))  # fmt: skip
    return pd.DataFrame(rows, columns=[*BY, *RHOS])


def correlation_table(by_model: pd.DataFrame, *, identifiable: float, confidence: float = 0.95) -> pd.DataFrame:
    """Mean correlation over models of every arm and set: arm, forget_set, quantity, unit, estimate to n, reason.

    A correlation with the other variable held fixed is 'not identifiable' where |ρ(mem, difficulty)| > identifiable.
    """
    rows = []
    for (arm, forget_set), group in by_model.groupby(["arm", "forget_set"]):
        together = stats.mean_correlation(group["mem_difficulty"]).estimate
        for quantity in RHOS:
            found = stats.mean_correlation(group[quantity], confidence=confidence)
            reason = "" if found.n > 1 else "fewer than two models have it"
            if "given" in quantity and abs(together) > identifiable:
                reason = f"not identifiable: memorization and difficulty correlate at {together:+.2f}"
            limits = (found.estimate, found.low, found.high, found.n)
            rows.append((arm, forget_set, quantity, "rank correlation", *limits, reason))
    names = ["arm", "forget_set", "quantity", "unit", "estimate", "low", "high", "n", "reason"]
    return pd.DataFrame(rows, columns=names)


def strata(study: Study, arm: str) -> dict[str, list[str]]:
    """Kind -> its sets with runs in the arm, one a number of repetitions, fewest first; kinds with one left out."""
    there = {run.forget_set for run in study.select(arm=arm)}
    sets = study.examples[study.examples["forget_set"].isin(there)].drop_duplicates("forget_set")
    sets = sets.sort_values("repetitions", kind="stable").drop_duplicates(["kind", "repetitions"])
    found = {str(kind): list(group["forget_set"]) for kind, group in sets.groupby("kind")}
    return {kind: names for kind, names in found.items() if len(names) > 1}


def lost_at_removed(run: Run, nats: float) -> float:
    """Held-out lost against θ0, nats per token, once the set's mean ℓ has fallen by so many nats; NaN if never."""
    removed = (run.log_likelihoods[0] - run.log_likelihoods).mean(axis=1)
    return float(run.lost(genex.steps_to_forget(nats - removed, run.steps)))


def at_equal_level(study: Study, arm: str, sets: Sequence[str], measure: Callable[[Run, float], float]) -> pd.DataFrame:
    """`measure` of each run, given the smallest exposure at θ0 of those of the sets that its model holds: forget_set,
    model, value."""
    some = [run for run in study.select(arm=arm) if run.forget_set in sets]
    level: dict[int, float] = {}
    for run in some:
        level[run.model] = min(float(run.exposure[0].mean()), level.get(run.model, np.inf))
    rows = [(run.forget_set, run.model, measure(run, level[run.model])) for run in some]
    return pd.DataFrame(rows, columns=["forget_set", "model", "value"])


def repetition(study: Study, inside: pd.DataFrame, looks: Looks) -> Figure | str:
    """Steps and loss against how often a set stood in training: a row an arm, a line a kind, faint points the runs."""
    kinds = {arm: list(strata(study, arm)) for arm in dict.fromkeys(inside["arm"]) if strata(study, arm)}
    if not kinds:
        return "no arm has two sets of one kind that differ in repetitions"
    how = study.examples.drop_duplicates("forget_set").set_index("forget_set")[["kind", "repetitions"]]
    runs = inside.join(how, on="forget_set")
    fig, axes = look.grid(len(kinds), 2, height_in=1.75, sharex=True)
    for row, (arm, names) in zip(axes, kinds.items(), strict=True):
        row[0].set_title(f"arm {arm}", loc="left")
        for ax, (column, label) in zip(row, BY_REPETITION.items(), strict=True):
            for i, kind in enumerate(names):
                rows = runs[(runs["arm"] == arm) & (runs["kind"] == kind)]
                rows = rows.assign(at=np.log2(rows["repetitions"]) + 0.16 * (i - (len(names) - 1) / 2))
                means = words.means(rows, column, by=["forget_set", "at"], confidence=study.confidence)
                middle = means.groupby("at")["estimate"].mean()
                ax.plot(middle, lw=1.0, label=look.KINDS[kind][0], **looks[kind].line_kw)
                for name, points in rows.groupby("forget_set", sort=False):
                    faint = {"color": looks[name].colour, "ms": 3, "alpha": 0.5, "mew": 0}
                    ax.plot(points["at"] + 0.07, points[column], ".", **faint)
                    mine = means[means["forget_set"] == name]
                    marks.intervals(ax, mine["at"], mine, looks[name])
            ax.set_ylabel(look.wrapped(label, 24))
        marks.loss_scale(row[1])
    times = sorted({t for names in kinds.values() for t in runs.loc[runs["kind"].isin(names), "repetitions"]})
    axes[-1, 0].set_xticks(np.log2(times), times)
    for ax in axes[-1]:
        ax.set_xlabel("repetitions in training")
    marks.legend(fig, marks.labelled(axes[:, 0], looks))
    return fig


def rate_points(rates: pd.DataFrame, arms: Sequence[str], looks: Looks) -> Figure | str:
    """Rate of every example, mean over its models, against memorization and difficulty; a row an arm."""
    if not arms:
        return "there are no runs to take rates from"
    mean = rates.groupby(["arm", "forget_set", "example_id"])[["mem", "difficulty", "rate"]].mean().reset_index()
    fig, axes = look.grid(len(arms), 2, height_in=1.7, sharex="col")
    for row, arm in zip(axes, arms, strict=True):
        for ax, column in zip(row, ("mem", "difficulty"), strict=True):
            for name, style in looks.items():
                points = mean[(mean["arm"] == arm) & (mean["forget_set"] == name)]
                ax.plot(points[column], points["rate"], ms=3, alpha=0.65, mew=0, label=name, **style.point_kw)
        row[0].set_title(f"arm {arm}", loc="left")
        row[0].set_ylabel("rate, nats per\ntoken and step")
    for ax, label in zip(axes[-1], ("memorization", "difficulty"), strict=True):
        ax.set_xlabel(f"{label}, nats per token")
    marks.legend(fig, marks.labelled(axes[:, 0], looks))
    return fig


def rho_forest(table: pd.DataFrame, arms: Sequence[str], looks: Looks, *, margin: float) -> Figure | str:
    """Mean within-model correlation of the rate by set: full marks as it is, open ones with the other held fixed, where
    that is identifiable; the grey band is ± `margin`."""
    if not arms:
        return "there are no runs to correlate"
    fig, axes = look.grid(len(arms), 2, height_in=0.6 + 0.17 * max(len(looks), 6), sharex=True, sharey=True)
    known = table[~table["reason"].str.startswith("not identifiable")].set_index(["arm", "quantity", "forget_set"])
    for row, arm in zip(axes, arms, strict=True):
        for ax, (what, quantities) in zip(row, DRAWN.items(), strict=True):
            ax.axvspan(-margin, margin, color=look.FLOOR, lw=0, zorder=0)
            marks.zero_line(ax, vertical=True)
            for quantity, shift, filled in zip(quantities, (-0.15, 0.2), (True, False), strict=True):
                for at, (name, style) in enumerate(looks.items()):
                    face = {} if filled else {"mfc": "white", "mec": style.colour, "mew": 1.0}
                    if (key := (arm, quantity, name)) in known.index:
                        marks.intervals(ax, [at + shift], known.loc[[key]], style, flat=True, ms=4, **face)
            marks.name_rows(ax, list(looks))
            ax.set_title(f"{what}, arm {arm}", loc="left", fontsize=7)
            ax.set_xlim(-1.08, 1.08)
    for ax in axes[-1]:
        ax.set_xlabel("rank correlation with the rate")
    return fig
