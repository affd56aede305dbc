"""How exposed a set is after each step, and whether the measure can be trusted: floor, controls, stand-ins, attacks."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from paper import look, marks
from paper.look import Look, Looks
from paper.runs import BY, Array, Run, Study, by_run, floor_among, outside_scores, reference_of
from unlearning.core import genex, performance, stand_ins
from unlearning.data import kinds

STATES = ("θ0", "k*", "2k*")
OUT = "out"  # a model that never held the set, attacked as if it were in question
READINGS = ("population", "checkpoint", "original")
SIDES = {"out": "never\nheld it", "partner": "exact\npartner", "in": "hold it\n(θ0)"}
LEAST_POPULATION = 10  # never-trained examples of a length, below which exposure by rank says nothing
EXCHANGEABLE = tuple(name for name, kind in kinds.KINDS.items() if kind["exchangeable"])
CALIBRATION = ["forget_set", "trained_with", "side", "model", "exposure", "share_outside", "auc"]


def along(runs: Sequence[Run], values: Callable[[Run], pd.Series]) -> pd.DataFrame:
    """(models, all steps) of a value of each run by step; NaN where a run was not scored."""
    return pd.DataFrame({run.model: values(run) for run in runs}).T.sort_index(axis=1)


def set_floor(study: Study, run: Run) -> float:
    """Half-width of the noise floor of one run's *set mean*, nats: t · s · √(1 + 1/K), s over the references' means."""
    means = outside_scores(study, run).mean(axis=1, keepdims=True)
    return float(floor_among(study, means, shrink=False)[0])


def steps_figure(study: Study, runs: Sequence[Run], looks: Looks) -> Figure | str:
    """GenEx against unlearning step, a panel a set: runs thin, mean thick, floor grey, generator part dotted."""
    names = [name for name in study.forget_sets if any(run.forget_set == name for run in runs)]
    if not names:
        return "no run of this arm"
    fig, axes = _panels(len(names), 4 if len(names) in (7, 8) else 3, height_in=1.35 if len(names) > 3 else 1.9)
    for ax, name in zip(axes, names, strict=True):
        some, style = [run for run in runs if run.forget_set == name], looks[name].solid
        _band(ax, set_floor(study, some[0]))
        marks.runs_and_mean(ax, along(some, lambda run: run.set_exposure), style)
        generator = along(some, lambda run: run.generator_part).dropna(axis=1).mean()
        ax.plot(generator, color=look.INK, lw=1.1, ls=(0, (1, 1)))
        ax.plot([run.k_star for run in some], [0.0] * len(some), "|", color=style.colour, ms=7, mew=0.9, zorder=5)
        ax.set_title(name, color=style.colour, loc="left", pad=2)
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


def ensemble_by_step(study: Study, runs: Sequence[Run]) -> pd.DataFrame:
    """GenEx of all in-models against all out-models at the steps they share, by both estimators, nats, mean over the
    set; effective_models: the smaller number of the two sides."""
    steps = sorted(set.intersection(*(set(run.steps) for run in runs)))
    inside = np.stack([run.scores.loc[steps].to_numpy() for run in runs], axis=1)  # (steps, models, n)
    both = {"unlearned": inside, "reference": outside_scores(study, runs[0])}
    table = {e: genex.generalized_exposure(**both, estimator=e).mean(axis=-1) for e in genex.ESTIMATORS}
    effective = np.minimum(*(genex.effective_models(side) for side in both.values())).mean(axis=-1)
    return pd.DataFrame({"step": steps} | table | {"effective_models": effective, "n_models": len(runs)})


def estimators_figure(ensembles: Mapping[tuple[str, str], pd.DataFrame], looks: Looks) -> Figure | str:
    """Both estimators by step, a panel a (forget set, arm)."""
    if not ensembles:
        return "no run of the headline's sets and arms"
    fig, axes = _panels(len(ensembles), 2, height_in=1.5)
    for ax, ((name, arm), table) in zip(axes, ensembles.items(), strict=True):
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
    rows = []
    if len(outside) >= 2 and len(inside):
        never = np.concatenate([values - outside.drop(index=m).mean() for m, values in outside.iterrows()])
        for model, values in pd.concat([inside, outside]).iterrows():
            side, rest = "in" if model in inside.index else "out", outside.drop(index=model, errors="ignore")
            g = values - rest.mean()
            share = np.mean(np.abs(g) > floor_among(study, rest.to_numpy())) if len(rest) > 1 else np.nan
            area = stand_ins.auc(positives=g, negatives=never) if side == "in" else np.nan
            rows.append((forget_set, trained_with, side, model, g.mean(), share, area))
    return pd.DataFrame(rows, columns=CALIBRATION)


def partner_calibration(study: Study, partners: pd.DataFrame) -> pd.DataFrame:
    """Exact partners against the computed reference, the best that unlearning can do; as `calibration`."""
    rows = []
    for (trained_with, model, name), table in partners.groupby(["trained_with", "model", "left_out"]):
        ids = study.members(name)
        exact = table.set_index("example_id")["log_likelihood"].reindex(ids).to_numpy()
        g = exact - reference_of(study, trained_with, name, model, ids)
        floor = floor_among(study, study.held_by(name, trained_with, inside=False).to_numpy())
        rows.append((name, trained_with, "partner", model, g.mean(), np.mean(np.abs(g) > floor), np.nan))
    return pd.DataFrame(rows, columns=CALIBRATION)


def placebo_figure(study: Study, looks: Looks) -> Figure | str:
    """Exposure (above) and held-out lost (below): models that hold the set, and models that never saw it, in grey."""
    keys = sorted({(run.forget_set, run.arm) for run in study.select(role="placebo")})
    keys = [(name, arm) for name, arm in keys if study.select(arm=arm, forget_set=name)]
    if not keys:
        return "no placebo was run"
    fig, axes = look.grid(2, len(keys), height_in=1.4, sharex="col", sharey="row")
    for (above, below), (name, arm) in zip(axes.T, keys, strict=True):
        never, inside = (study.select(arm=arm, forget_set=name, role=role) for role in ("placebo", "in"))
        for some, style in ((never, Look(look.GREY, (0, (1, 1)))), (inside, looks[name].solid)):
            marks.runs_and_mean(above, along(some, lambda run: run.set_exposure), style)
            marks.runs_and_mean(below, along(some, lambda run: pd.Series(run.lost(run.steps), run.steps)), style)
        _band(above, set_floor(study, inside[0]))
        marks.zero_line(below)
        above.set_title(f"{name}\n{arm}", loc="left", color=looks[name].colour, fontsize=7)
        below.set_xlabel("unlearning step")
        below.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes[0, 0].set_ylabel("GenEx, nats")
    axes[1, 0].set_ylabel("held-out lost,\nnats per token")
    return fig


def stops(study: Study, run: Run) -> pd.DataFrame:
    """Where each reading of relative exposure would have stopped a run: stop (steps; NaN: not while followed),
    steps_off (stop − k*), exposure_left (GenEx at the stop, nats)."""
    scores, never = run.log_likelihoods, run.followed
    base = study.base.loc[int(study.design.loc[run.model, "base"] > 0), run.examples].to_numpy()
    values = {"original": stand_ins.relative_exposure_original(unlearned=scores, original=scores[0]),
              "checkpoint": stand_ins.relative_exposure_checkpoint(unlearned=scores, base=base)}  # fmt: skip
    means = {reading: pd.Series(relative.mean(axis=1), run.steps) for reading, relative in values.items()}
    if len(steps := never.index.intersection(run.scores.index)):
        both = {"forget_set": run.scores.loc[steps].to_numpy(), "never_trained": never.loc[steps].to_numpy()}
        lengths = study.examples.loc[never.columns, "n_tokens"].to_numpy()
        both |= {"n_tokens": run.n_tokens, "never_trained_n_tokens": lengths}
        means["population"] = pd.Series(stand_ins.relative_exposure_population(**both), steps)
    found = {reading: genex.steps_to_forget(at, at.index) for reading, at in means.items()}
    stop = pd.Series(found, dtype=float).reindex(READINGS).rename_axis("reading")
    left = [performance.interpolate(run.set_exposure, run.steps, at) for at in stop]
    return pd.DataFrame({"stop": stop, "steps_off": stop - run.k_star, "exposure_left": left}).reset_index()


def stop_errors(stopped: pd.DataFrame) -> pd.DataFrame:
    """By reading that was to be had: error (mean |steps off|) over the runs in which every reading stops, their number
    (runs), and how many runs this one did not stop (missed)."""
    off = stopped.pivot(index=BY, columns="reading", values="steps_off").abs().dropna(axis=1, how="all")
    every = off.dropna()
    return pd.DataFrame({"error": every.mean(), "runs": len(every), "missed": off.isna().sum()})


def ranks(study: Study, forget_set: str, states: Mapping[str, pd.Series], *, extrapolate: bool = False) -> pd.DataFrame:
    """Carlini exposure of a set whose generator can be drawn from, among never-trained examples of its length.
    states: name -> log-likelihoods by example, nats. extrapolate: fit the skew normal too. Gives, by state: bits (mean
    over the set); bits_extrapolated (median); at_ceiling (share of the set); population (the smallest of a length);
    ceiling (bits, of the largest); covered (share with a population)."""
    own, never = study.members(forget_set), study.never_trained(forget_set)
    n_tokens, rows = study.examples["n_tokens"], []
    mine, others = (n_tokens[ids].groupby(n_tokens[ids]).groups for ids in (own, never))
    lengths = [length for length in mine if len(others.get(length, [])) >= LEAST_POPULATION]
    for state, values in states.items() if lengths else ():
        found = []
        for length in lengths:
            at, never = (values[ids[length]].to_numpy() for ids in (mine, others))
            both = {"log_likelihoods": at, "never_trained": never}
            beyond = stand_ins.exposure_by_skew_normal(**both) if extrapolate else np.nan
            bits, top = stand_ins.exposure_by_rank(**both), stand_ins.at_ceiling(**both)
            found.append(pd.DataFrame({"bits": bits, "beyond": beyond, "top": top}))
        of_set, sizes = pd.concat(found), [len(others[length]) for length in lengths]
        means = of_set["bits"].mean(), of_set["beyond"].median(), of_set["top"].mean()
        rows.append((state, *means, min(sizes), np.log2(max(sizes) + 1), len(of_set) / len(own)))
    names = ["state", "bits", "bits_extrapolated", "at_ceiling", "population", "ceiling", "covered"]
    return pd.DataFrame(rows, columns=names)


def full_states(study: Study, run: Run) -> dict[str, pd.Series]:
    """State -> log-likelihoods of the set and its never-trained examples: θ0, and the full scores nearest k*, 2k*."""
    ids = [*study.members(run.forget_set), *study.never_trained(run.forget_set)]
    full = run.scores.join(run.never).reindex(columns=ids).dropna()
    off = {state: np.abs(full.index - n * run.k_star) for state, n in zip(STATES[1:], (1, 2), strict=True)}
    near = {state: full.iloc[np.argmin(steps)] for state, steps in off.items() if (steps <= 1).any()}
    return {STATES[0]: study.references[run.trained_with].loc[run.model, ids]} | near


def attack(study: Study, trained_with: str, forget_set: str, model: int, states: Mapping[str, Array]) -> pd.DataFrame:
    """Likelihood-ratio attack on a set's examples in a model, against the same examples in out-models; the model is
    left out of the populations. Gives, by state (log-likelihoods of the set, nats): distance (|AUC − 0.5|) and tpr (at
    1 % false positives); no row with fewer than two other in-models or three out-models."""
    inside, every = (study.held_by(forget_set, trained_with, inside=side) for side in (True, False))
    inside, outside = (side.drop(index=model, errors="ignore") for side in (inside, every))
    rows = []
    if len(inside) >= 2 and len(outside) >= 3:
        others = np.concatenate([_ratio(every.loc[m], inside, every.drop(index=m)) for m in outside.index])
        for state, at in states.items():
            both = {"positives": _ratio(at, inside, outside), "negatives": others}
            rows.append((state, abs(stand_ins.auc(**both) - 0.5), stand_ins.tpr_at_fpr(**both)))
    return pd.DataFrame(rows, columns=["state", "distance", "tpr"])


def _ratio(log_likelihoods: Array, inside: pd.DataFrame, outside: pd.DataFrame) -> Array:
    populations = {"inside": inside.to_numpy(), "outside": outside.to_numpy()}
    return stand_ins.likelihood_ratio_score(log_likelihoods=np.asarray(log_likelihoods), **populations)


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
    for arm, name, trained_with in dict.fromkeys((run.arm, run.forget_set, run.trained_with) for run in held):
        for model, values in study.held_by(name, trained_with, inside=False).iterrows():
            found = attack(study, trained_with, name, model, {OUT: values})
            tables.append(found.assign(arm=arm, forget_set=name, model=model))
    return pd.concat(tables, ignore_index=True)
