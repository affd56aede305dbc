"""Controls of the measurement: calibration of the floor, stand-ins, exposure by rank, membership inference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from paper.study import Array, Run, Study, floor_of, reference_of
from unlearning.core import genex, performance, stand_ins

STATES = ("θ0", "k*", "2k*")
OUT = "out"  # a model that never held the set, attacked as if it were in question
READINGS = ("population", "checkpoint", "original")
LEAST_POPULATION = 10  # never-trained examples of a length, below which exposure by rank says nothing


def calibration(study: Study, trained_with: str, forget_set: str, *, confidence: float) -> pd.DataFrame:
    """Models with and without a set, at θ0, each against the average of the models without it.

    A model without the set is left out of its own average, and of the spread that gives its floor.

    Returns:
        forget_set, trained_with, side (in | out), model, exposure (set mean, nats), share_outside (of the set's
        examples, the floor; NaN with one model to take it from), auc (in against all out, per example; NaN on the out
        side). No row with fewer than two models without the set, or none with it.
    """
    table, ids = study.references[trained_with], study.members(forget_set)
    inside, outside = (
        table.loc[[m for m in side if m in table.index], ids]
        for side in (study.inside(forget_set), study.outside(forget_set))
    )
    names = ["forget_set", "trained_with", "side", "model", "exposure", "share_outside", "auc"]
    if len(outside) < 2 or not len(inside):
        return pd.DataFrame(columns=names)
    others = {("in", m): outside for m in inside.index} | {("out", m): outside.drop(index=m) for m in outside.index}
    exposure = {(side, m): table.loc[m, ids] - rest.mean() for (side, m), rest in others.items()}
    never = np.concatenate([g for (side, _), g in exposure.items() if side == "out"])
    rows = []
    for (side, model), g in exposure.items():
        area = stand_ins.auc(positives=g, negatives=never) if side == "in" else np.nan
        share = _share_outside(g, others[side, model], confidence)
        rows.append((forget_set, trained_with, side, model, g.mean(), share, area))
    return pd.DataFrame(rows, columns=names)


def _share_outside(exposure: pd.Series, others: pd.DataFrame, confidence: float) -> float:
    """Of one model's examples, outside the floor that the others' spread gives."""
    if len(others) < 2:
        return float("nan")
    floor = genex.noise_floor(reference_sd=others.std(ddof=1), n_unlearned=1, n_reference=len(others),
                                confidence=confidence)  # fmt: skip
    return float(np.mean(np.abs(exposure) > floor))


def partner_calibration(study: Study, partners: pd.DataFrame, *, trained_with: str, confidence: float) -> pd.DataFrame:
    """Exact partners against the computed reference: the best that unlearning can do, and still not zero.

    Returns:
        like `calibration`, side `partner`.
    """
    rows = []
    for (model, name), table in partners.groupby(["model", "left_out"], sort=True):
        ids = study.members(name)
        floor = floor_of(study, trained_with, name, examples=ids, confidence=confidence)
        reference = reference_of(study, trained_with, name, model=model, examples=ids)
        g = table.set_index("example_id")["log_likelihood"].reindex(ids).to_numpy() - reference
        rows.append((name, trained_with, "partner", model, g.mean(), np.mean(np.abs(g) > floor), np.nan))
    names = ["forget_set", "trained_with", "side", "model", "exposure", "share_outside", "auc"]
    return pd.DataFrame(rows, columns=names)


def scores_by_run(folder: Path) -> dict[tuple[int, str], pd.DataFrame]:
    """(model, role) -> step × example log-likelihoods of one ascent stage, nats; NaN where not scored."""
    rows = pd.read_parquet(folder / "log_likelihoods.parquet", columns=["model", "role", "step", "example_id",
                                                                       "log_likelihood"])  # fmt: skip
    rows = rows.drop_duplicates(["model", "role", "step", "example_id"])
    return {
        key: part.astype({"example_id": str}).pivot(index="step", columns="example_id", values="log_likelihood")
        for key, part in rows.groupby(["model", "role"], observed=True)
    }


def kind_of(study: Study, forget_set: str) -> str:
    """Kind of a forget set: natural, canary, secret or own."""
    return str(study.examples.loc[study.members(forget_set)[0], "kind"])


def stand_in(study: Study, run: Run, scores: pd.DataFrame) -> pd.DataFrame:
    """Where each reading of relative exposure would have stopped a run, against k*.

    Args:
        study: the tables.
        run: an in-model's run with k*.
        scores: its step × example log-likelihoods, never-trained examples included.

    Returns:
        reading, stop (steps; NaN: would not have stopped while it was followed), steps_off (stop − k*), exposure_left
        (GenEx at the stop, nats: > 0 stopped too early).
    """
    rows = []
    for reading in READINGS:
        steps, values = _reading(study, run, scores, reading)
        stop = genex.steps_to_forget(values, steps) if len(values) else np.nan
        left = performance.interpolate(run.exposure.mean(axis=1), run.steps, stop)
        rows.append((reading, stop, stop - run.k_star, left))
    return pd.DataFrame(rows, columns=["reading", "stop", "steps_off", "exposure_left"])


def _reading(study: Study, run: Run, scores: pd.DataFrame, reading: str) -> tuple[Array, Array]:
    """Steps, and the set's relative exposure at them."""
    if reading == "original":
        start = run.log_likelihoods[0]
        values = stand_ins.relative_exposure_original(unlearned=run.log_likelihoods, original=start)
        return run.steps, values.mean(axis=1)
    if reading == "checkpoint":
        if study.base.empty:
            return np.empty(0), np.empty(0)
        base = study.base.loc[int(study.design.loc[run.model, "base"] > 0), run.examples].to_numpy()
        return run.steps, stand_ins.relative_exposure_checkpoint(unlearned=run.log_likelihoods, base=base).mean(axis=1)
    never = followed(study, run, scores)
    steps = np.intersect1d(never.index, run.steps)
    if not len(steps) or not never.shape[1]:
        return np.empty(0), np.empty(0)
    values = stand_ins.relative_exposure_population(
        forget_set=run.log_likelihoods[np.searchsorted(run.steps, steps)],
        n_tokens=run.n_tokens,
        never_trained=never.loc[steps].to_numpy(),
        never_trained_n_tokens=study.examples.loc[never.columns, "n_tokens"].to_numpy(),
    )
    return steps, values


def followed(study: Study, run: Run, scores: pd.DataFrame) -> pd.DataFrame:
    """Step × never-trained examples of the set's kind that were scored all along, nats."""
    never = [x for x in study.members(f"never-{kind_of(study, run.forget_set)}") if x in scores]
    if not never:
        return pd.DataFrame()
    counts = scores[never].notna().sum()
    return scores[list(counts.index[counts == counts.max()])].dropna()


def states(study: Study, run: Run, scores: pd.DataFrame, never: Sequence[str]) -> dict[str, pd.Series]:
    """Log-likelihoods at θ0 (from the references' table), k* and 2k*: the nearest step scored in full, within one."""
    ids = [*run.examples, *never]
    found = {"θ0": study.references[run.trained_with].loc[run.model, ids]}
    full = scores.index[scores.reindex(columns=ids).notna().all(axis=1)]
    for name, target in (("k*", run.k_star), ("2k*", 2 * run.k_star)):
        near = full[np.abs(full - target) <= 1] if np.isfinite(target) else full[:0]
        if len(near):
            found[name] = scores.loc[near[np.argmin(np.abs(near - target))], ids]
    return found


def exposure_by_rank(study: Study, run: Run, scores: pd.DataFrame, *, extrapolate: bool) -> pd.DataFrame:
    """Carlini exposure of a set at θ0, k*, 2k*, among never-trained examples of the same generator and length.

    Args:
        study: the tables.
        run: a run on a set whose generator can be drawn from (canary, secret).
        scores: its step × example log-likelihoods, never-trained examples included.
        extrapolate: fit the skew normal too (a tenth of a second each).

    Returns:
        state, bits (by rank, mean over the set), bits_extrapolated (skew normal, median over the
        set), at_ceiling (share of it),
        population (smallest number of never-trained examples of a length), ceiling (bits, of the largest), covered
        (share of the set that has enough never-trained examples of its length).
    """
    never = study.members(f"never-{kind_of(study, run.forget_set)}")
    lengths, rows = study.examples.loc[never, "n_tokens"].to_numpy(), []
    for state, values in states(study, run, scores, never).items():
        own, others, parts = values[run.examples].to_numpy(), values[never].to_numpy(), []
        for length in np.unique(run.n_tokens):
            same = others[lengths == length]
            if len(same) >= LEAST_POPULATION:
                parts.append(_ranks(own[run.n_tokens == length], same, extrapolate))
        if parts:
            bits, extrapolated, top, population = (np.concatenate(p) for p in zip(*parts, strict=True))
            means = bits.mean(), np.median(extrapolated), top.mean()
            rows.append((state, *means, population.min(), np.log2(population.max() + 1), len(bits) / len(own)))
    names = ["state", "bits", "bits_extrapolated", "at_ceiling", "population", "ceiling", "covered"]
    return pd.DataFrame(rows, columns=names)


def _ranks(own: Array, never: Array, extrapolate: bool) -> tuple[Array, Array, Array, Array]:
    both = {"log_likelihoods": own, "never_trained": never}
    return (
        stand_ins.exposure_by_rank(**both),
        stand_ins.exposure_by_skew_normal(**both) if extrapolate else np.full(len(own), np.nan),
        stand_ins.at_ceiling(**both),
        np.full(len(own), len(never)),
    )


def membership(study: Study, run: Run) -> pd.DataFrame:
    """Likelihood-ratio attack on a run's set at θ0, k*, 2k*: members under it against the same examples in out-models.

    Returns:
        state, distance (|AUC − 0.5|), tpr (at 1 % false positives); no row with fewer than two other models a side.
    """
    table = study.references[run.trained_with]
    inside = table.loc[[m for m in study.inside(run.forget_set) if m in table.index and m != run.model], run.examples]
    outside = table.loc[[m for m in study.outside(run.forget_set) if m in table.index], run.examples]
    names = ["state", "distance", "tpr"]
    if len(inside) < 2 or len(outside) < 3:
        return pd.DataFrame(columns=names)
    non_members, rows = np.concatenate(_left_out(inside, outside)), []
    for state, multiple in zip(STATES, (0.0, 1.0, 2.0), strict=True):
        at = performance.interpolate(run.log_likelihoods, run.steps, _last(run, multiple))
        if np.isfinite(at).all():
            populations = {"inside": inside.to_numpy(), "outside": outside.to_numpy()}
            members = stand_ins.likelihood_ratio_score(log_likelihoods=at, **populations)
            both = {"positives": members, "negatives": non_members}
            rows.append((state, abs(stand_ins.auc(**both) - 0.5), stand_ins.tpr_at_fpr(**both)))
    return pd.DataFrame(rows, columns=names)


def membership_of_out_models(study: Study, trained_with: str, forget_set: str) -> pd.DataFrame:
    """The same attack on each out-model of a set, as if it were in question: what it gives where nothing was learnt.

    Models differ in more than one set, so that |AUC − 0.5| of a single model is not near zero by chance.

    Returns:
        model, state (OUT), distance, tpr, as `membership`; no row with fewer than two in-models or four out-models.
    """
    table, ids = study.references[trained_with], study.members(forget_set)
    inside, outside = (
        table.loc[[m for m in side if m in table.index], ids]
        for side in (study.inside(forget_set), study.outside(forget_set))
    )
    names = ["model", "state", "distance", "tpr"]
    if len(inside) < 2 or len(outside) < 4:
        return pd.DataFrame(columns=names)
    scores, rows = _left_out(inside, outside), []
    for i, model in enumerate(outside.index):
        both = {"positives": scores[i], "negatives": np.concatenate(scores[:i] + scores[i + 1 :])}
        rows.append((model, OUT, abs(stand_ins.auc(**both) - 0.5), stand_ins.tpr_at_fpr(**both)))
    return pd.DataFrame(rows, columns=names)


def _left_out(inside: pd.DataFrame, outside: pd.DataFrame) -> list[Array]:
    """(n,) likelihood-ratio scores of each out-model, itself left out of the population (frames: model × example)."""
    return [
        stand_ins.likelihood_ratio_score(
            log_likelihoods=outside.loc[m].to_numpy(),
            inside=inside.to_numpy(),
            outside=outside.drop(index=m).to_numpy(),
        )
        for m in outside.index
    ]


def membership_table(study: Study) -> pd.DataFrame:
    """The attack on every in-model, and on the out-models of each set under every arm: arm, forget_set, model, …"""
    runs = study.select()
    trained = {(run.arm, run.forget_set): run.trained_with for run in runs}
    out = [
        membership_of_out_models(study, opt, name).assign(arm=arm, forget_set=name)
        for (arm, name), opt in trained.items()
    ]
    return pd.concat([table_of(runs, [membership(study, run) for run in runs]), *out], ignore_index=True)


def stand_in_errors(stand_ins: pd.DataFrame) -> pd.DataFrame:
    """How far from k* each reading stops, over the runs in which every reading stops.

    Args:
        stand_ins: the rows of `stand_in` under arm, forget_set, model.

    Returns:
        by reading: error (mean |steps off|), runs (compared), missed (runs in which this one did not stop); a reading
        that was never to be had is left out.
    """
    off = stand_ins.pivot(index=["arm", "forget_set", "model"], columns="reading", values="steps_off").abs()
    off = off.dropna(axis=1, how="all")
    every = off.dropna()
    return pd.DataFrame({"error": every.mean(), "runs": len(every), "missed": off.isna().sum()})


def _last(run: Run, multiple: float) -> float:
    """The step at a multiple of k*; 2 k* is one whole step, so its last state may lie a little short of it."""
    if multiple == 0:
        return 0.0
    step = multiple * run.k_star
    return min(step, float(run.steps[-1])) if abs(step - run.steps[-1]) <= 1 else step


def table_of(runs: Sequence[Run], rows: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of each run under its keys: arm, forget_set, model, …"""
    keyed = [t.assign(arm=r.arm, forget_set=r.forget_set, model=r.model) for r, t in zip(runs, rows, strict=True)]
    keyed = [t for t in keyed if len(t)]
    if not keyed:
        return pd.DataFrame(columns=["arm", "forget_set", "model"])
    table = pd.concat(keyed, ignore_index=True)
    first = ["arm", "forget_set", "model"]
    return table[first + [c for c in table if c not in first]]
