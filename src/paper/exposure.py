"""How exposed a set is after each step, and whether the measure can be trusted: floor, controls, stand-ins, attacks."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from paper import look, marks, words
from paper.look import Look
from paper.runs import Array, Run, Study, floor_of, outside_scores, reference_of
from unlearning.core import genex, performance, stand_ins

STATES = ("θ0", "k*", "2k*")
OUT = "out"  # a model that never held the set, attacked as if it were in question
READINGS = ("population", "checkpoint", "original")
SIDES = {"out": "never\nheld it", "partner": "exact\npartner", "in": "hold it\n(θ0)"}
LEAST_POPULATION = 10  # never-trained examples of a length, below which exposure by rank says nothing
EXCHANGEABLE = ("canary", "secret")  # kinds whose generator draws as many never-trained examples as one wants
CALIBRATION = ["forget_set", "trained_with", "side", "model", "exposure", "share_outside", "auc"]
KEYS = ["arm", "forget_set", "model"]
Looks = Mapping[str, Look]


def by_run(runs: Sequence[Run], table: Callable[[Run], pd.DataFrame]) -> pd.DataFrame:
    """The rows that `table` gives for each run, under its arm, forget_set, model."""
    tables = [table(run).assign(arm=run.arm, forget_set=run.forget_set, model=run.model) for run in runs]
    rows = pd.concat([t for t in tables if len(t)] or [pd.DataFrame(columns=KEYS)], ignore_index=True)
    return rows[KEYS + [name for name in rows if name not in KEYS]]


def along(runs: Sequence[Run], values: Callable[[Run], pd.Series]) -> pd.DataFrame:
    """(models, all steps) of a value of each run by step; NaN where a run was not scored."""
    return pd.DataFrame({run.model: values(run) for run in runs}).T.sort_index(axis=1)


def set_exposure(run: Run) -> pd.Series:
    """By step: mean exposure of the set, nats."""
    return pd.Series(run.exposure.mean(axis=1), run.steps)


# GenEx along the steps


def set_floor(study: Study, run: Run, *, confidence: float) -> float:
    """Half-width of the noise floor of one run's *set mean*, nats: t · s · √(1 + 1/K), s over the references' means."""
    means = outside_scores(study, run).mean(axis=1)
    sd = means.std(ddof=1, keepdims=True) if len(means) > 1 else np.zeros(1)
    one = {"n_unlearned": 1, "n_reference": len(means), "confidence": confidence, "shrink": False}
    return float(genex.noise_floor(reference_sd=sd, **one)[0])


def steps_figure(study: Study, runs: Sequence[Run], looks: Looks, *, confidence: float) -> Figure | str:
    """GenEx against unlearning step, a panel a set: runs thin, mean thick, floor grey, generator part dotted."""
    names = [name for name in study.forget_sets if any(run.forget_set == name for run in runs)]
    if not names:
        return "no run of this arm"
    fig, axes = _panels(len(names), 4 if len(names) in (7, 8) else 3, height_in=1.35 if len(names) > 3 else 1.9)
    for ax, name in zip(axes, names, strict=True):
        some, style = [run for run in runs if run.forget_set == name], looks[name].solid
        _band(ax, set_floor(study, some[0], confidence=confidence))
        exposure = along(some, set_exposure)
        marks.runs_and_mean(ax, exposure.columns, exposure, style)
        generator = along(some, lambda run: run.generator_part).dropna(axis=1).mean()
        ax.plot(generator.index, generator, color=look.INK, lw=1.1, ls=(0, (1, 1)))
        k_star = [run.k_star for run in some]
        ax.plot(k_star, np.zeros(len(k_star)), "|", color=style.colour, ms=7, mew=0.9, zorder=5)
        ax.set_title(name, color=style.colour, loc="left", pad=2)
    return fig


def _panels(n: int, columns: int, *, height_in: float) -> tuple[Figure, list[Axes]]:
    # n axes of GenEx by step, `columns` side by side
    columns = min(columns, n)
    fig, grid = look.grid(-(-n // columns), columns, height_in=height_in)
    axes = list(grid.flat)
    for i, ax in enumerate(axes):
        ax.set_visible(i < n)
        ax.set_ylabel("" if i % columns else "GenEx, nats")
        ax.set_xlabel(("step" if columns > 3 else "unlearning step") if i + columns >= n else "")
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(5))
    return fig, axes[:n]


def _band(ax: Axes, floor: float) -> None:
    if np.isfinite(floor):
        ax.axhspan(-floor, floor, color=look.FLOOR, lw=0, zorder=0)
    marks.zero_line(ax)


def k_star_figure(runs: pd.DataFrame, arms: Sequence[str], looks: Looks, *, confidence: float) -> Figure | str:
    """Steps to forget: every run, and the mean with its interval; a panel an arm, a row a set."""
    panels = {}
    for arm, rows in ((arm, runs[runs["arm"] == arm]) for arm in arms):
        there = rows["k_star"].notna()
        last = rows[~there].assign(k_star=rows["last_step"])  # censored: at least this
        panels[arm] = words.k_star_intervals(rows, confidence=confidence), rows[there], last
    order = [name for name in looks if name in set(runs["forget_set"])]
    return marks.forests(panels, value="k_star", order=order, looks=looks, xlabel="steps to forget, k*")


def ensemble_by_step(study: Study, runs: Sequence[Run]) -> pd.DataFrame:
    """GenEx of all in-models against all out-models, at the steps that every run was scored at, means over the set:
    step; log_mean and mean_log (nats); effective_models (the smaller number of the two sides); n_models."""
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


# Controls


def calibration(study: Study, trained_with: str, forget_set: str, *, confidence: float) -> pd.DataFrame:
    """Models with and without a set, at θ0, each against the average of the models without it.

    A model without the set is left out of its own average and floor. CALIBRATION: side in | out; exposure (set mean,
    nats); share_outside (of the set, the floor; NaN with one model to take it from); auc (in against all out, by
    example). No row with fewer than two models without the set, or none with it.
    """
    inside, outside = _sides(study, trained_with, forget_set)
    rows = []
    if len(outside) >= 2 and len(inside):
        never = np.concatenate([values - outside.drop(index=m).mean() for m, values in outside.iterrows()])
        for side, model in [*(("in", m) for m in inside.index), *(("out", m) for m in outside.index)]:
            rest = outside.drop(index=model, errors="ignore")
            g = study.references[trained_with].loc[model, rest.columns] - rest.mean()
            one = {"n_unlearned": 1, "n_reference": len(rest), "confidence": confidence}
            share = np.mean(np.abs(g) > genex.noise_floor(reference_sd=rest.std(ddof=1), **one))
            area = stand_ins.auc(positives=g, negatives=never) if side == "in" else np.nan
            rows.append((forget_set, trained_with, side, model, g.mean(), share if len(rest) > 1 else np.nan, area))
    return pd.DataFrame(rows, columns=CALIBRATION)


def _sides(study: Study, trained_with: str, forget_set: str) -> list[pd.DataFrame]:
    # model × example of the set at θ0, nats: models trained on it, and models that are not
    table, ids = study.references[trained_with], study.members(forget_set)
    return [table.loc[study.models(forget_set, trained_with, inside=side), ids] for side in (True, False)]


def partner_calibration(study: Study, partners: pd.DataFrame, *, confidence: float) -> pd.DataFrame:
    """Exact partners against the computed reference, the best that unlearning can do; as `calibration`."""
    rows = []
    for (trained_with, model, name), table in partners.groupby(["trained_with", "model", "left_out"]):
        ids = study.members(name)
        floor = floor_of(study, trained_with, name, examples=ids, confidence=confidence)
        reference = reference_of(study, trained_with, name, model=model, examples=ids)
        g = table.set_index("example_id")["log_likelihood"].reindex(ids).to_numpy() - reference
        rows.append((name, trained_with, "partner", model, g.mean(), np.mean(np.abs(g) > floor), np.nan))
    return pd.DataFrame(rows, columns=CALIBRATION)


def calibration_figure(outside: pd.DataFrame, looks: Looks, *, limit: float) -> Figure | str:
    """Share of a set outside the floor by side, a panel a training; dashed: what claim C1 allows the out side."""
    if not len(outside):
        return "it takes three models that never held a set"
    named = outside.assign(side=outside["side"].map(SIDES))
    panels = {f"trained with {name}": table for name, table in named.groupby("trained_with", sort=False)}
    kw = {"ylabel": "outside the floor, share of the set", "joined": False}
    fig = marks.by_place(panels, "side", order=list(looks), looks=looks, places=list(SIDES.values()), **kw)
    for ax in fig.axes:
        ax.axhline(limit, color=look.INK, lw=0.7, ls="--")
    return fig


def placebo_figure(study: Study, looks: Looks, *, confidence: float) -> Figure | str:
    """Exposure (above) and held-out lost (below): models that hold the set, and models that never saw it, in grey."""
    keys = sorted({(run.forget_set, run.arm) for run in study.select(role="placebo")})
    keys = [(name, arm) for name, arm in keys if study.select(arm=arm, forget_set=name)]
    if not keys:
        return "no placebo was run"
    fig, axes = look.grid(2, len(keys), height_in=1.4, sharex="col", sharey="row")
    for (above, below), (name, arm) in zip(axes.T, keys, strict=True):
        never, inside = (study.select(arm=arm, forget_set=name, role=role) for role in ("placebo", "in"))
        for some, style in ((never, Look(look.GREY, (0, (1, 1)))), (inside, looks[name].solid)):
            for ax, value in ((above, set_exposure), (below, lambda run: pd.Series(run.lost(run.steps), run.steps))):
                table = along(some, value)
                marks.runs_and_mean(ax, table.columns, table, style)
        _band(above, set_floor(study, inside[0], confidence=confidence))
        marks.zero_line(below)
        above.set_title(f"{name}\n{arm}", loc="left", color=looks[name].colour, fontsize=7)
        below.set_xlabel("unlearning step")
        below.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes[0, 0].set_ylabel("GenEx, nats")
    axes[1, 0].set_ylabel("held-out lost,\nnats per token")
    return fig


def placebo_cost(study: Study, *, confidence: float) -> pd.DataFrame:
    """Held-out lost at the in-models' mean k*, nats per token: arm, forget_set, role (placebo | in), estimate, …"""
    rows = []
    for arm, name in dict.fromkeys((run.arm, run.forget_set) for run in study.select(role="placebo")):
        inside, never = (study.select(arm=arm, forget_set=name, role=role) for role in ("in", "placebo"))
        mean = pd.Series([run.k_star for run in inside], dtype=float).mean()
        rows += [(arm, name, "placebo", float(run.lost(mean))) for run in never]
        rows += [(arm, name, "in", float(run.lost(run.k_star))) for run in inside]
    table = pd.DataFrame(rows, columns=["arm", "forget_set", "role", "lost"])
    return words.intervals(table, "lost", by=["arm", "forget_set", "role"], confidence=confidence)


# Stand-ins for a retrained model


def stops(study: Study, run: Run) -> pd.DataFrame:
    """Where each reading of relative exposure would have stopped a run, against k*.

    reading; stop (steps; NaN: not while the run was followed); steps_off (stop − k*); exposure_left (GenEx at the stop,
    nats: > 0 stopped too early).
    """
    scores, never, values = run.log_likelihoods, run.followed, {}
    original = stand_ins.relative_exposure_original(unlearned=scores, original=scores[0])
    values["original"] = run.steps, original.mean(axis=1)
    if not study.base.empty:
        base = study.base.loc[int(study.design.loc[run.model, "base"] > 0), run.examples].to_numpy()
        values["checkpoint"] = (
            run.steps,
            stand_ins.relative_exposure_checkpoint(unlearned=scores, base=base).mean(axis=1),
        )
    if len(steps := never.index.intersection(run.scores.index)):
        both = {"forget_set": run.scores.loc[steps].to_numpy(), "never_trained": never.loc[steps].to_numpy()}
        lengths = study.examples.loc[never.columns, "n_tokens"].to_numpy()
        kw = {"n_tokens": run.n_tokens, "never_trained_n_tokens": lengths}
        values["population"] = steps, stand_ins.relative_exposure_population(**both, **kw)
    rows = []
    for reading in READINGS:
        at, relative = values.get(reading, ((), ()))
        stop = genex.steps_to_forget(relative, at) if len(at) else np.nan
        left = performance.interpolate(run.exposure.mean(axis=1), run.steps, stop)
        rows.append((reading, stop, stop - run.k_star, left))
    return pd.DataFrame(rows, columns=["reading", "stop", "steps_off", "exposure_left"])


def stops_figure(stopped: pd.DataFrame, value: str, looks: Looks, *, confidence: float) -> Figure | str:
    """steps_off or exposure_left by set, a panel a reading."""
    label = {"steps_off": "steps off k*", "exposure_left": "GenEx left at the stop, nats"}[value]
    order, panels = [name for name in looks if name in set(stopped["forget_set"])], {}
    for reading, rows in stopped.groupby("reading", sort=False) if len(stopped) else ():
        panels[reading] = words.intervals(rows, value, by=["forget_set"], confidence=confidence), rows, None
    return marks.forests(panels, value=value, order=order, looks=looks, xlabel=label, lines=(0.0,))


def stop_errors(stopped: pd.DataFrame) -> pd.DataFrame:
    """By reading, where it was to be had: error (mean |steps off|) over the runs in which every reading stops, their
    number (runs), and how many runs this one did not stop (missed)."""
    off = stopped.pivot(index=KEYS, columns="reading", values="steps_off").abs().dropna(axis=1, how="all")
    every = off.dropna()
    return pd.DataFrame({"error": every.mean(), "runs": len(every), "missed": off.isna().sum()})


# Exposure among never-trained examples


def ranks(study: Study, forget_set: str, states: Mapping[str, pd.Series], *, extrapolate: bool = False) -> pd.DataFrame:
    """Carlini exposure of a set whose generator can be drawn from, among never-trained examples of its length.

    states: name -> log-likelihoods by example, nats (`full_states`). extrapolate: fit the skew normal too, a tenth of a
    second each. Gives, by state: bits (by rank, mean over the set); bits_extrapolated (median); at_ceiling (share of
    the set); population (the smallest of a length); ceiling (bits, of the largest); covered (share with a population).
    """
    own, never = study.members(forget_set), study.members(f"never-{study.kind(forget_set)}")
    n_tokens, rows = study.examples["n_tokens"], []
    mine, others = (n_tokens[ids].groupby(n_tokens[ids]).groups for ids in (own, never))
    for state, values in states.items():
        found = []
        for length, ids in mine.items():
            both = {
                "log_likelihoods": values[ids].to_numpy(),
                "never_trained": values[others.get(length, [])].to_numpy(),
            }
            population = np.full(len(ids), len(both["never_trained"]))
            if population[0] >= LEAST_POPULATION:
                beyond = stand_ins.exposure_by_skew_normal(**both) if extrapolate else np.full(len(ids), np.nan)
                found.append((stand_ins.exposure_by_rank(**both), beyond, stand_ins.at_ceiling(**both), population))
        if found:
            bits, beyond, top, population = np.concatenate(found, axis=1)
            means = bits.mean(), np.median(beyond), top.mean()
            rows.append((state, *means, population.min(), np.log2(population.max() + 1), len(bits) / len(own)))
    names = ["state", "bits", "bits_extrapolated", "at_ceiling", "population", "ceiling", "covered"]
    return pd.DataFrame(rows, columns=names)


def full_states(study: Study, run: Run) -> dict[str, pd.Series]:
    """State -> log-likelihoods of the set and its never-trained examples: θ0, and the full scores nearest k*, 2k*."""
    ids = [*study.members(run.forget_set), *study.members(f"never-{study.kind(run.forget_set)}")]
    found = {STATES[0]: study.references[run.trained_with].loc[run.model, ids]}
    full = run.scores.join(run.never).reindex(columns=ids).dropna()
    for name, target in zip(STATES[1:], (run.k_star, 2 * run.k_star), strict=True):
        near = np.abs(full.index - target)
        if (near <= 1).any():
            found[name] = full.iloc[np.argmin(near)]
    return found


def ranks_figure(ranked: pd.DataFrame, arms: Sequence[str], looks: Looks, *, confidence: float) -> Figure | str:
    """Exposure by rank at θ0, k*, 2k*, a panel an arm; dashed: what a never-trained example has; dotted: ceilings."""
    if not len(ranked):
        return "no run on examples with enough never-trained ones of their length"
    fig = _by_state(ranked, "bits", STATES, arms, looks, confidence, ylabel="exposure by rank, bits")
    for ax in fig.axes:
        ax.axhline(1 / np.log(2), color=look.INK, lw=0.8, ls="--", zorder=1)
        for ceiling in ranked["ceiling"].unique():
            ax.axhline(ceiling, color=look.INK, lw=0.8, ls=":", zorder=1)
    return fig


def _by_state(
    table: pd.DataFrame, value: str, states, arms: Sequence[str], looks: Looks, confidence: float, **kw
) -> Figure:
    # mean of a column by state, a panel an arm, three at most
    means = words.intervals(table, value, by=["arm", "forget_set", "state"], confidence=confidence)
    panels = {arm: means[means["arm"] == arm] for arm in arms if (means["arm"] == arm).any()}
    return marks.by_place(dict([*panels.items()][:3]), "state", order=list(looks), looks=looks, places=states, **kw)


# Membership inference


def attack(study: Study, trained_with: str, forget_set: str, model: int, states: Mapping[str, Array]) -> pd.DataFrame:
    """Likelihood-ratio attack on a set's examples in a model, against the same examples in out-models.

    The model is left out of the populations. states: name -> (n,) log-likelihoods of the set, nats. Gives, by state:
    distance (|AUC − 0.5|) and tpr (at 1 % false positives); no row with fewer than two other in-models or three other
    out-models.
    """
    inside, every = _sides(study, trained_with, forget_set)
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
    found = {}
    for state, step in zip(STATES, (0.0, run.k_star, 2 * run.k_star), strict=True):
        # 2 k* was scored at a whole step, so the last state may lie a little short of it
        step = min(step, run.steps[-1]) if abs(step - run.steps[-1]) <= 1 else step
        at = performance.interpolate(run.log_likelihoods, run.steps, step)
        found |= {state: at} if np.isfinite(at).all() else {}
    return found


def attacks(study: Study) -> pd.DataFrame:
    """The attack on every in-model, and, for scale, on the out-models of each set: arm, forget_set, model, state, …"""
    held = study.select()
    tables = [by_run(held, lambda run: attack(study, run.trained_with, run.forget_set, run.model, set_states(run)))]
    for arm, name, trained_with in dict.fromkeys((run.arm, run.forget_set, run.trained_with) for run in held):
        for model, values in _sides(study, trained_with, name)[1].iterrows():
            found = attack(study, trained_with, name, model, {OUT: values})
            tables.append(found.assign(arm=arm, forget_set=name, model=model))
    return pd.concat(tables, ignore_index=True)


def attacks_figure(
    table: pd.DataFrame, value: str, arms: Sequence[str], looks: Looks, *, confidence: float
) -> Figure | str:
    """distance or tpr by state, a panel an arm."""
    if not len(table):
        return "the attack takes two other models that hold the set, and three that do not"
    label = {"distance": "|AUC − 0.5|", "tpr": "TPR at 1 % FPR"}[value]
    return _by_state(table, value, [*STATES, OUT], arms, looks, confidence, ylabel=label, joined=False)
