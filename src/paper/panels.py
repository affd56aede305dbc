"""From runs to the arrays that figures draw: trajectories on common steps, the floor of a set mean, the trade-off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from paper.study import Array, Run, Study
from paper.summaries import reference_matrix
from unlearning.core import genex, performance

SHARES = np.linspace(0.0, 1.5, 25)  # of k*, for the trade-off: runs are followed closely to 1.5 k*


def aligned(runs: Sequence[Run], steps: Sequence[Array], values: Sequence[Array]) -> tuple[Array, Array]:
    """One row a run on the union of all steps; NaN where a run was not scored.

    Args:
        runs: of one set and arm.
        steps: for each run, (n_steps,).
        values: for each run, (n_steps,).

    Returns:
        (all_steps,) and (n_runs, all_steps).
    """
    every = np.unique(np.concatenate([np.asarray(s, dtype=int) for s in steps]))
    table = np.full((len(runs), len(every)), np.nan)
    for row, at, value in zip(table, steps, values, strict=True):
        row[np.searchsorted(every, at)] = value
    return every, table


def set_floor(study: Study, run: Run, *, confidence: float) -> float:
    """Half-width of the noise floor of one run's *set mean*, nats: t · s · √(1 + 1/K), s over the references' means."""
    means = reference_matrix(study, run).mean(axis=1)
    if len(means) < 2:
        return float("nan")
    sd = np.array([means.std(ddof=1)])
    floor = genex.noise_floor(
        reference_sd=sd, n_unlearned=1, n_reference=len(means), confidence=confidence, shrink=False
    )
    return float(floor[0])


def exposure_panel(study: Study, runs: Sequence[Run], *, confidence: float) -> dict:
    """The arguments of `plots_study.exposure_panel` for the runs of one set and arm."""
    steps, exposure = aligned(runs, [r.steps for r in runs], [r.exposure.mean(axis=1) for r in runs])
    generator = None
    if all(len(r.generator_part) for r in runs):
        at, parts = aligned(runs, [r.generator_steps for r in runs], [r.generator_part for r in runs])
        generator = np.full_like(exposure, np.nan)
        generator[:, np.searchsorted(steps, at)] = parts
    return {
        "steps": steps,
        "exposure": exposure,
        "generator": generator,
        "floor": set_floor(study, runs[0], confidence=confidence),
        "k_star": np.array([r.k_star for r in runs]),
    }


def lost_along(run: Run, steps: ArrayLike, split: str = "heldout_fixed") -> Array:
    """Performance of θ0 minus that at each of many fractional steps, nats per token; NaN where not measured."""
    steps = np.asarray(steps, dtype=float)
    scored = run.performance[split].dropna() if split in run.performance else pd.Series(dtype=float)
    if not len(scored) or scored.index[0] != 0:
        return np.full(len(steps), np.nan)
    known = performance.followed_at(scored.index, steps)
    return np.where(known, scored.iloc[0] - np.interp(steps, scored.index, scored), np.nan)


def steps_table(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a run and step: arm, forget_set, model, role, step, exposure, generator_part (nats), lost (held-out)."""
    rows = []
    for run in runs:
        generator = dict(zip(run.generator_steps, run.generator_part, strict=True))
        lost = lost_along(run, run.steps)
        for step, value, cost in zip(run.steps, run.exposure.mean(axis=1), lost, strict=True):
            row = (run.arm, run.forget_set, run.model, run.role, int(step), value, generator.get(step, np.nan))
            rows.append((*row, cost))
    names = ["arm", "forget_set", "model", "role", "step", "exposure", "generator_part", "lost"]
    return pd.DataFrame(rows, columns=names)


def gap_to_references(study: Study, run: Run, split: str = "heldout") -> float:
    """Performance of the model's reference minus that of θ0, nats per token; NaN where it was not measured."""
    table = study.performance.get(run.trained_with)
    if table is None or split not in table or table[split].isna().any() or run.model not in table.index:
        return float("nan")
    design = study.design.loc[table.index]
    row, column = list(table.index).index(run.model), list(design.columns).index(run.forget_set)
    reference = genex.predicted_reference(table[[split]].to_numpy(), design.to_numpy(), model=row, column=column)
    return float(reference[0] - table.loc[run.model, split])


def trade_off(study: Study, runs: Sequence[Run]) -> tuple[Array, Array]:
    """Exposure and performance lost to the references, at the shares SHARES of each run's k*.

    A run without k* is drawn to its last step and has to be left out of means: its share is not known.

    Returns:
        (n_runs, n_shares) nats, (n_runs, n_shares) nats per token.
    """
    exposure, lost = [], []
    for run in runs:
        end = run.k_star if np.isfinite(run.k_star) else run.steps[-1] / SHARES[-1]
        mean = run.exposure.mean(axis=1)
        exposure.append([performance.interpolate(mean, run.steps, share * end) for share in SHARES])
        lost.append(gap_to_references(study, run) + lost_along(run, SHARES * end))
    return np.array(exposure, dtype=float), np.array(lost, dtype=float)


def trade_off_panel(study: Study, runs: Mapping[str, Sequence[Run]]) -> dict:
    """What one panel of the trade-off holds, for the runs of each set of an arm.

    Returns:
        curves and censored: set -> (exposure, lost) of `trade_off`, of runs with and without k*; base: set -> point;
        references: table of points; at: index of k* in SHARES.
    """
    curves, censored, base, references = {}, {}, {}, []
    for name, some in runs.items():
        exposure, lost = trade_off(study, some)
        there = np.array([np.isfinite(run.k_star) for run in some])
        for group, mask in ((curves, there), (censored, ~there)):
            if mask.any():
                group[name] = exposure[mask], lost[mask]
        base[name] = base_point(study, some)
        references.append(reference_points(study, some[0].trained_with, name))
    at = int(np.argmin(np.abs(SHARES - 1)))
    return {"curves": curves, "censored": censored, "base": base, "references": pd.concat(references), "at": at}


def reference_points(study: Study, trained_with: str, forget_set: str) -> pd.DataFrame:
    """The out-models as points of the trade-off, each against the average of the others.

    Returns:
        model, exposure (nats), lost (nats per token).
    """
    scores, table = study.references[trained_with], study.performance.get(trained_with)
    outside = [m for m in study.outside(forget_set) if m in scores.index]
    means = scores.loc[outside, study.members(forget_set)].mean(axis=1).to_numpy()
    known = table is not None and "heldout" in table
    heldout = table.loc[outside, "heldout"].to_numpy() if known else np.full(len(outside), np.nan)
    n = max(len(outside) - 1, 1)
    return pd.DataFrame(
        {
            "model": outside,
            "exposure": means - (means.sum() - means) / n,
            "lost": (heldout.sum() - heldout) / n - heldout,
        }
    )


def base_point(study: Study, runs: Sequence[Run]) -> tuple[float, float]:
    """What going back to the base would give: mean exposure (nats) and loss to the references (nats per token)."""
    base = study.performance.get("base")
    if study.base.empty or base is None or "heldout" not in base:
        return float("nan"), float("nan")
    exposure, lost = [], []
    for run in runs:
        own = int(study.design.loc[run.model, "base"] > 0)
        trained = study.performance[run.trained_with].loc[run.model, "heldout"]
        exposure.append(np.mean(study.base.loc[own, run.examples].to_numpy() - run.reference))
        lost.append(gap_to_references(study, run) + trained - base.loc[own, "heldout"])
    return float(np.mean(exposure)), float(np.mean(lost))


def placebo_lost(study: Study, shares: Sequence[float]) -> pd.DataFrame:
    """Held-out lost by ascent on a set that a model never saw, after shares of the in-models' mean k*.

    Returns:
        arm, forget_set, model, share, lost (nats per token).
    """
    rows = []
    for run in study.select(role="placebo"):
        k_star = [r.k_star for r in study.select(arm=run.arm, forget_set=run.forget_set)]
        if np.isfinite(k_star).any():
            mean = float(np.nanmean(k_star))
            rows += [(run.arm, run.forget_set, run.model, s, run.lost_at(s * mean)) for s in shares]
    return pd.DataFrame(rows, columns=["arm", "forget_set", "model", "share", "lost"])


def retained_lost(study: Study) -> pd.DataFrame:
    """What is lost at k* elsewhere: on held-out, on the core sample, on other sets of the same kind that were kept.

    Returns:
        arm, forget_set, model, where (held-out | core sample | same kind), lost (nats per token), reason why there is
        no value.
    """
    rows = []
    for run in study.select():
        kept = [split for split in run.performance if split.startswith("retained:")]
        where = {"held-out": ["heldout_fixed"], "core sample": ["retain"], "same kind": kept}
        for name, splits in where.items():
            lost = float(np.mean([run.lost_at(run.k_star, split) for split in splits])) if splits else np.nan
            reason = "k* not reached" if np.isnan(run.k_star) else "not scored on both sides of k*"
            reason = reason if splits else "the model holds no other set of the kind"
            rows.append((run.arm, run.forget_set, run.model, name, lost, reason if np.isnan(lost) else ""))
    return pd.DataFrame(rows, columns=["arm", "forget_set", "model", "where", "lost", "reason"])


def bleu_table(study: Study) -> pd.DataFrame:
    """BLEU of greedy translations of held-out sentences at θ0, k* and 2k* (the whole steps scored in full).

    Returns:
        arm, forget_set, model, state, bleu (0 to 100); empty where it was not measured.
    """
    rows = [
        (run.arm, run.forget_set, run.model, state, run.bleu_at(multiple * run.k_star if multiple else 0))
        for run in study.select()
        for state, multiple in {"θ0": 0, "k*": 1, "2k*": 2}.items()
    ]
    return pd.DataFrame(rows, columns=["arm", "forget_set", "model", "state", "bleu"]).dropna(subset=["bleu"])
