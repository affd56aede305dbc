"""How exposed a set is after each step, and whether the measure can be trusted: floor, controls, stand-ins, attacks.

A family of forget sets has one colour, and its draws are points; tables of runs have its name beside the set's.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from paper import look, marks, words
from paper.look import Look, Looks
from paper.runs import Array, Run, Study, by_run, floor_among, outside_scores, reference_of
from unlearning.core import genex, performance, stand_ins
from unlearning.data import kinds

STATES = ("θ0", "k*", "2k*")
OUT = "out"  # a model that never held the set, attacked as if it were in question
READINGS = ("population", "checkpoint", "original")
SIDES = {"out": "never\nheld it", "partner": "exact\npartner", "in": "hold it\n(θ0)"}
OUTCOMES = {"k_star": "steps to forget, k*", "lost_100": "held-out lost at k*, nats per token"}
LEAST_POPULATION = 10  # never-trained examples of a length, below which exposure by rank says nothing
EXCHANGEABLE = tuple(name for name, kind in kinds.KINDS.items() if kind["exchangeable"])
CALIBRATION = ["forget_set", "trained_with", "side", "model", "exposure", "share_outside", "auc"]


def along(runs: Sequence[Run], values: Callable[[Run], pd.Series]) -> pd.DataFrame:
    """(runs, all steps) of a value of each run by step; NaN where a run was not scored."""
    return pd.DataFrame({(run.forget_set, run.model): values(run) for run in runs}).T.sort_index(axis=1)


def set_floor(study: Study, run: Run) -> float:
    """Half-width of the noise floor of one run's *set mean*, nats: t · s · √(1 + 1/K), s over the references' means."""
    means = outside_scores(study, run).mean(axis=1, keepdims=True)
    return float(floor_among(study, means, shrink=False)[0])


def steps_figure(study: Study, arm: str, looks: Looks) -> Figure | str:
    """GenEx against unlearning step, a panel a family: runs of all of its draws thin, their mean thick, the floor of a
    run's set mean grey, the generator part dotted, a tick at each run's k*."""
    names = [name for name in study.families if study.select(arm=arm, family=name)]
    if not names:
        return "no run of this arm"
    fig, axes = _panels(len(names), 4 if len(names) in (7, 8) else 3, height_in=1.35 if len(names) > 3 else 1.9)
    for ax, name in zip(axes, names, strict=True):
        some, style = study.select(arm=arm, family=name), looks[name].solid
        _band(ax, np.mean([set_floor(study, run) for run in {run.forget_set: run for run in some}.values()]))
        marks.runs_and_mean(ax, along(some, lambda run: run.set_exposure), style)
        generator = along(some, lambda run: run.generator_part).dropna(axis=1).mean()
        ax.plot(generator, color=look.INK, lw=1.1, ls=(0, (1, 1)))
        ax.plot([run.k_star for run in some], [0.0] * len(some), "|", color=style.colour, ms=7, mew=0.9, zorder=5)
        ax.set_title(name, color=style.colour, loc="left", pad=2, fontsize=8)
    return fig


def _panels(n: int, columns: int, *, height_in: float) -> tuple[Figure, list[Axes]]:
    # n axes of GenEx by step, `columns` side by side
    columns = min(columns, n)
    fig, grid = look.grid(-(-n // columns), columns, height_in=height_in)
    for i, ax in enumerate(grid.flat):
        ax.set_visible(i < n)
        step = "step" if columns > 3 else "unlearning step"
        ax.set(ylabel="" if i % columns else "GenEx, nats", xlabel=step if i + columns >= n else "")
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(5))
    return fig, list(grid.flat)[:n]


def _band(ax: Axes, floor: float) -> None:
    if np.isfinite(floor):
        ax.axhspan(-floor, floor, color=look.FLOOR, lw=0, zorder=0)
    marks.zero_line(ax)


def outcome_means(study: Study, inside: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """k* and held-out lost there (quantity: OUTCOMES) of families, as `marks.family_means`, and of draws, as
    `words.means`, with their repetitions and level: log-likelihood per token under models that never saw them, nats.
    inside: rows of `run_table`."""
    by, found = ["arm", "trained_with", "family"], ([], [])
    for quantity in OUTCOMES:
        how = {"confidence": study.confidence, "bound": "last_step" if quantity == "k_star" else None}
        found[0].append(marks.family_means(inside, quantity, by=by, **how).assign(quantity=quantity))
        found[1].append(words.means(inside, quantity, by=[*by, "forget_set"], **how).assign(quantity=quantity))
    families, draws = (pd.concat(tables, ignore_index=True) for tables in found)
    times, n_tokens = study.examples.groupby("forget_set")["repetitions"].first(), study.examples["n_tokens"]
    keys = list(draws[["forget_set", "trained_with"]].itertuples(index=False, name=None))
    outside = {key: study.held_by(*key, inside=False).mean() for key in set(keys)}
    levels = [outside[key].sum() / n_tokens[outside[key].index].sum() for key in keys]
    return families, draws.assign(repetitions=draws["forget_set"].map(times), level=levels)


def outcomes_figure(draws: pd.DataFrame, looks: Looks, arms: Sequence[str], families: pd.DataFrame | None = None):
    """k* (left) and held-out lost there (right), a row an arm: every draw a point with its interval over models, an
    open triangle where that is a bound. families: they stand side by side, their mean a line, its interval a box. Not
    given: the ladder, against the level of each draw, with a line fitted to those that stood once in training."""
    arms = [arm for arm in arms if (draws["arm"] == arm).any()]
    shown = look.only(looks, set(draws.loc[draws["arm"].isin(arms), "family"]))
    if not arms:
        return "there is no run to show"
    fig, axes = look.grid(len(arms), 2, height_in=2.2, sharex=True)
    for (i, arm), (j, (quantity, label)) in product(enumerate(arms), enumerate(OUTCOMES.items())):
        ax, key = axes[i, j], {"arm": arm, "quantity": quantity}
        table = _rows(draws, key).dropna(subset="estimate")
        for at, (name, style) in enumerate(shown.items()):
            rows = table[table["family"] == name]
            where = at + 0.76 * (np.arange(len(rows)) + 0.5) / max(len(rows), 1) - 0.38
            least = (rows["censored"] > 0).to_numpy()
            for some, more in ((~least, {}), (least, {"marker": "^", "mfc": "white", "mec": style.colour})):
                kw = {"ms": 3.2, "elinewidth": 0.7, "capsize": 0, "mew": 0.4} | more
                marks.intervals(ax, (rows["level"] if families is None else where)[some], rows[some], style, **kw)
            ax.plot([], [], label=name, **style.point_kw)
            for mean in () if families is None else _rows(families, key | {"family": name}).itertuples():
                ax.hlines(mean.estimate, at - 0.45, at + 0.45, color=style.colour, lw=1.4, zorder=5)
                ax.fill_between([at - 0.45, at + 0.45], mean.low, mean.high, color=style.colour, alpha=0.18, lw=0)
        once = table[table["repetitions"] == 1].sort_values("level")
        if families is None and once["level"].nunique() > 2:
            line = np.polyval(np.polyfit(once["level"], once["estimate"], 1), once["level"])
            ax.plot(once["level"], line, color=look.INK, lw=0.8, ls="--", zorder=1)
        ax.set_ylabel(look.wrapped(label, 20))
        ax.set_title("" if j else f"arm {arm}", loc="left")
        (marks.loss_scale if j else marks.step_scale)(ax)
    for ax in axes[-1] if families is None else ():
        ax.set_xlabel("nats per token, never seen")
    for ax in axes.flat if families is not None else ():
        ax.set_xticks(range(len(shown)), list(shown), rotation=40, ha="right", rotation_mode="anchor")
        ax.grid(axis="x", visible=False)
    if families is None:
        marks.legend(fig, marks.labelled(axes.flat, looks))
    return fig


def _rows(table: pd.DataFrame, key: Mapping[str, str]) -> pd.DataFrame:
    return table[np.all([table[column] == value for column, value in key.items()], axis=0)]


def estimators(study: Study, arm: str, family: str) -> pd.DataFrame:
    """GenEx by step of each draw's in-models against its out-models by both estimators, nats, mean over draws and
    examples; effective_models: the smaller number of the two sides. At the steps that all runs share."""
    some, tables = study.select(arm=arm, family=family), []
    steps = sorted(set.intersection(*(set(run.steps) for run in some)))
    for name, first in {run.forget_set: run for run in some}.items():
        inside = [run.scores.loc[steps].to_numpy() for run in some if run.forget_set == name]
        both = {"unlearned": np.stack(inside, axis=1), "reference": outside_scores(study, first)}
        table = {e: genex.generalized_exposure(**both, estimator=e).mean(axis=-1) for e in genex.ESTIMATORS}
        effective = np.minimum(*(genex.effective_models(side) for side in both.values())).mean(axis=-1)
        tables.append(pd.DataFrame({"step": steps} | table | {"effective_models": effective}))
    return pd.concat(tables).groupby("step").mean().reset_index()


def estimators_figure(ensembles: Mapping[tuple[str, str], pd.DataFrame], looks: Looks) -> Figure | str:
    """Both estimators by step, a panel an (arm, family)."""
    if not ensembles:
        return "no run of the headline's families and arms"
    fig, axes = _panels(len(ensembles), 2, height_in=1.5)
    for ax, ((arm, name), table) in zip(axes, ensembles.items(), strict=True):
        marks.zero_line(ax)
        ax.plot(table["step"], table["mean_log"], lw=2.0, color=looks[name].colour)
        ax.plot(table["step"], table["log_mean"], lw=1.0, color=look.GREY, ls="--")
        ax.set_title(f"{name}, {arm}", loc="left", color=looks[name].colour)
    return fig


def calibration(study: Study, trained_with: str, forget_set: str) -> pd.DataFrame:
    """Models with and without a set (side: in | out), at θ0, each against the average of the *other* models without it.
    exposure of the set, nats; share_outside the floor; auc: in against all out, by example. No row with fewer than two
    models without the set, or none with it."""
    inside, outside = (study.held_by(forget_set, trained_with, inside=side) for side in (True, False))
    never, rows = outside.to_numpy(), []
    if len(outside) >= 2 and len(inside):
        others = [np.delete(never, i, axis=0) for i in range(len(never))]
        left_out = np.concatenate([at - rest.mean(axis=0) for at, rest in zip(never, others, strict=True)])
        for side, table, rests in (("in", inside, [never] * len(inside)), ("out", outside, others)):
            for model, at, rest in zip(table.index, table.to_numpy(), rests, strict=True):
                g = at - rest.mean(axis=0)
                share = np.mean(np.abs(g) > floor_among(study, rest)) if len(rest) > 1 else np.nan
                area = stand_ins.auc(positives=g, negatives=left_out) if side == "in" else np.nan
                rows.append((forget_set, trained_with, side, model, g.mean(), share, area))
    return pd.DataFrame(rows, columns=CALIBRATION)


def partner_calibration(study: Study, partners: pd.DataFrame) -> pd.DataFrame:
    """Exact partners, the best that unlearning can do, against both references of their models; as `calibration`, with
    column `reference`."""
    rows = []
    for (trained_with, model, name), table in partners.groupby(["trained_with", "model", "left_out"]):
        ids, outside = study.members(name), study.held_by(name, trained_with, inside=False)
        exact = table.set_index("example_id")["log_likelihood"].reindex(ids).to_numpy()
        floor, fitted = floor_among(study, outside.to_numpy()), reference_of(study, trained_with, name, model, ids)
        for reference, values in {study.reference: fitted, "out-average": outside.mean().to_numpy()}.items():
            g = exact - values
            outer = np.mean(np.abs(g) > floor)
            rows.append((name, trained_with, "partner", model, g.mean(), outer, np.nan, reference))
    return pd.DataFrame(rows, columns=[*CALIBRATION, "reference"])


def placebo_figure(study: Study, pairs: Sequence[tuple[str, str]], looks: Looks) -> Figure | str:
    """Exposure (above) and held-out lost (below) of (arm, family) pairs: models that hold the sets, and models that
    never saw them, in grey."""
    pairs = [(arm, name) for arm, name in pairs if study.select(arm=arm, family=name, role="placebo")]
    if not pairs:
        return "no placebo was run"
    fig, axes = look.grid(2, len(pairs), height_in=1.4, sharex="col", sharey="row")
    for (above, below), (arm, name) in zip(axes.T, pairs, strict=True):
        never, inside = (study.select(arm=arm, family=name, role=role) for role in ("placebo", "in"))
        for some, style in ((never, Look(look.GREY, (0, (1, 1)))), (inside, looks[name].solid)):
            marks.runs_and_mean(above, along(some, lambda run: run.set_exposure), style)
            marks.runs_and_mean(below, along(some, _lost_along), style)
        _band(above, np.mean([set_floor(study, run) for run in never]))
        marks.zero_line(below)
        above.set_title(f"{name}\n{arm}", loc="left", color=looks[name].colour, fontsize=7)
        below.set_xlabel("unlearning step")
        below.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes[0, 0].set_ylabel("GenEx, nats")
    axes[1, 0].set_ylabel("held-out lost,\nnats per token")
    return fig


def _lost_along(run: Run) -> pd.Series:
    return pd.Series(run.lost(run.steps), run.steps).dropna()


def stops(study: Study, run: Run) -> pd.DataFrame:
    """Where each reading of relative exposure would have stopped a run: stop (steps; NaN: not while followed),
    steps_off (stop − k*), exposure_left (GenEx at the stop, nats)."""
    scores, never = run.log_likelihoods, run.followed
    base = study.base.loc[int(study.design.loc[run.model, "base"] > 0), run.examples].to_numpy()
    values = {"original": stand_ins.relative_exposure_original(unlearned=scores, original=scores[0]),
              "checkpoint": stand_ins.relative_exposure_checkpoint(unlearned=scores, base=base)}  # fmt: skip
    means = {reading: pd.Series(relative.mean(axis=1), run.steps) for reading, relative in values.items()}
    if never.size and len(steps := never.index.intersection(run.scores.index)):
        both = {"forget_set": run.scores.loc[steps].to_numpy(), "never_trained": never.loc[steps].to_numpy()}
        lengths = study.examples.loc[never.columns, "n_tokens"].to_numpy()
        both |= {"n_tokens": run.n_tokens, "never_trained_n_tokens": lengths}
        means["population"] = pd.Series(stand_ins.relative_exposure_population(**both), steps)
    found = {reading: genex.steps_to_forget(at, at.index) for reading, at in means.items()}
    stop = pd.Series(found, dtype=float).reindex(READINGS).rename_axis("reading")
    left = [performance.interpolate(run.set_exposure, run.steps, at) for at in stop]
    found = {"family": run.family, "stop": stop, "steps_off": stop - run.k_star, "exposure_left": left}
    return pd.DataFrame(found).reset_index()


def ranks(study: Study, forget_set: str, states: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Carlini exposure of a set whose generator can be drawn from, among never-trained examples of its length.
    states: name -> log-likelihoods by example, nats. Gives, by state: bits (mean over the set); at_ceiling (share of
    it); population (the smallest of a length); ceiling (bits, of the largest); covered (share with a population)."""
    own, never = study.members(forget_set), study.never_trained(forget_set)
    n_tokens, rows = study.examples["n_tokens"], []
    mine, others = (n_tokens[ids].groupby(n_tokens[ids]).groups for ids in (own, never))
    lengths = [length for length in mine if len(others.get(length, [])) >= LEAST_POPULATION]
    for state, values in states.items() if lengths else ():
        found = []
        for length in lengths:
            at, never = (values[ids[length]].to_numpy() for ids in (mine, others))
            both = {"log_likelihoods": at, "never_trained": never}
            bits, top = stand_ins.exposure_by_rank(**both), stand_ins.at_ceiling(**both)
            found.append(pd.DataFrame({"bits": bits, "top": top}))
        of_set, sizes = pd.concat(found), [len(others[length]) for length in lengths]
        known = min(sizes), np.log2(max(sizes) + 1), len(of_set) / len(own)
        rows.append((state, *of_set[["bits", "top"]].mean(), *known))
    names = ["state", "bits", "at_ceiling", "population", "ceiling", "covered"]
    return pd.DataFrame(rows, columns=names)


def full_states(study: Study, run: Run) -> dict[str, pd.Series]:
    """State -> log-likelihoods of the set and its never-trained examples: θ0, and the full scores nearest k*."""
    full = run.scores.join(run.never, how="inner").dropna()
    off = np.abs(full.index - run.k_star)
    near = {STATES[1]: full.iloc[np.argmin(off)]} if (off <= 1).any() else {}
    return {STATES[0]: study.references[run.trained_with].loc[run.model, [*run.scores, *run.never]]} | near


def attack(study: Study, trained_with: str, forget_set: str, model: int, states: Mapping[str, Array]) -> pd.DataFrame:
    """Likelihood-ratio attack on a set's examples in a model, against the same examples in out-models; the model is
    left out of the populations. Gives, by state (log-likelihoods of the set, nats): family, distance (|AUC − 0.5|) and
    tpr (at 1 % false positives); no row with fewer than two other in-models or three out-models."""
    sides, rows = [study.held_by(forget_set, trained_with, inside=side) for side in (True, False)], []
    held, never = (side.to_numpy()[side.index != model] for side in sides)
    if len(held) >= 2 and len(never) >= 3:
        others = _never_scores(study, trained_with, forget_set, model if model in sides[0].index else -1)
        for state, at in states.items():
            both = {"positives": _ratio(at, held, never), "negatives": others[sides[1].index != model]}
            told = abs(stand_ins.auc(**both) - 0.5), stand_ins.tpr_at_fpr(**both)
            rows.append((study.family(forget_set), state, *told))
    return pd.DataFrame(rows, columns=["family", "state", "distance", "tpr"])


@cache
def _never_scores(study: Study, trained_with: str, forget_set: str, without: int) -> Array:
    # out-model × example: the attack's score of each, itself left out of the population, and an in-model of the other
    held, never = (study.held_by(forget_set, trained_with, inside=side) for side in (True, False))
    held, never = held.to_numpy()[held.index != without], never.to_numpy()
    return np.array([_ratio(at, held, np.delete(never, i, axis=0)) for i, at in enumerate(never)])


def _ratio(log_likelihoods: Array, inside: Array, outside: Array) -> Array:
    scored = {"log_likelihoods": np.asarray(log_likelihoods), "inside": inside, "outside": outside}
    return stand_ins.likelihood_ratio_score(**scored)


def set_states(run: Run) -> dict[str, Array]:
    """State -> (n,) log-likelihoods of the set, nats, interpolated; those that the run got to."""
    last, wanted = run.steps[-1], (0.0, run.k_star, 2 * run.k_star)
    # 2 k* was scored at a whole step, so the last state may lie a little short of it
    steps = [min(step, last) if abs(step - last) <= 1 else step for step in wanted]
    found = [performance.interpolate(run.log_likelihoods, run.steps, step) for step in steps]
    return {state: at for state, at in zip(STATES, found, strict=True) if np.isfinite(at).all()}


def attacks(study: Study) -> pd.DataFrame:
    """The attack on every in-model, and, for scale, on the out-models of each set: arm, forget_set, model, state, …"""
    held = study.select()
    tables = [by_run(held, lambda run: attack(study, run.trained_with, run.forget_set, run.model, set_states(run)))]
    arms = pd.DataFrame([(run.arm, run.trained_with, run.forget_set) for run in held]).drop_duplicates()
    for (trained_with, name), rows in arms.groupby([1, 2], sort=False) if len(arms) else ():
        never = study.held_by(name, trained_with, inside=False).iterrows()
        found = {model: attack(study, trained_with, name, model, {OUT: values}) for model, values in never}
        found = pd.concat(found, names=["model", None]).reset_index("model").assign(forget_set=name)
        tables += [found.assign(arm=arm) for arm in rows[0]]
    return pd.concat(tables, ignore_index=True)
