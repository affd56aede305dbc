"""Tables made of runs: one row a run, one row a step of an ensemble, one row a quantity of a set and arm."""

import numpy as np
import pandas as pd

from paper.study import Array, Run, Study, floor_of
from unlearning.core import effects, genex, performance
from unlearning.core.stats import t_interval

KEYS = ("name", "arm", "forget_set", "trained_with", "method", "model", "role", "status")
SHARES = (0.25, 0.5, 0.75, 1.0)

RUN_UNITS = {
    "k_star": "steps",
    "k95": "steps",
    "exposure_0": "nats",
    "instance_0": "nats",
    "instance_share": "share of exposure",
    "lost_25": "nats per token",
    "lost_50": "nats per token",
    "lost_75": "nats per token",
    "lost_100": "nats per token",
    "lost_k95": "nats per token",
    "lost_to_references": "nats per token",
    "lost_retain": "nats per token",
    "lost_bleu": "BLEU",
    "share_inside": "share of the set",
    "share_exposed": "share of the set",
    "rms": "nats",
}


def run_table(study: Study) -> pd.DataFrame:
    """One row a run; NaN where a censored run has no value.

    Columns: the keys; status; k_star and k95 in steps; exposure_0, generator_0 and instance_0 at θ0 in nats and
    instance_share of them; lost_25 … lost_100, held-out lost at that percentage of k* against θ0, lost_k95,
    lost_retain, lost_to_references (full held-out at k* against the references), nats per token; lost_bleu, of
    translations at the whole step nearest to k*, against θ0; at k* share_inside and share_exposed of the noise floor
    and rms exposure in nats; and the other columns of runs.csv.
    """
    rows = [run_row(study, run) for run in study.runs]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=[*KEYS, *RUN_UNITS, "last_step"])


def run_row(study: Study, run: Run) -> dict:
    """One row of `run_table`."""
    start = float(run.exposure[0].mean())
    generator = float(run.generator_part[0]) if len(run.generator_part) else float("nan")
    row = {key: getattr(run, key) for key in KEYS}
    row |= {"k_star": run.k_star, "k95": run.k95, "exposure_0": start, "generator_0": generator}
    row |= {"instance_0": start - generator, "instance_share": (start - generator) / start if start else np.nan}
    row |= {f"lost_{share:.0%}".rstrip("%"): run.lost_at(share * run.k_star) for share in SHARES}
    row |= {"lost_k95": run.lost_at(run.k95), "lost_retain": run.lost_at(run.k_star, "retain")}
    row |= {"lost_bleu": run.bleu_at(0) - run.bleu_at(run.k_star)}
    row |= {"lost_to_references": lost_to_references(study, run)} | spread_at(run, run.k_star)
    other = {k: v for k, v in run.record.items() if k not in row and k not in ("track", "k_star")}
    return row | other


def spread_at(run: Run, step: float) -> dict[str, float]:
    """Share of the set inside and above the noise floor, and root mean square exposure (nats), at a step."""
    exposure = performance.interpolate(run.exposure, run.steps, step)
    if not np.isfinite(exposure).all():
        return dict.fromkeys(("share_inside", "share_exposed", "rms"), float("nan"))
    return {
        "share_inside": float(np.mean(np.abs(exposure) <= run.floor)),
        "share_exposed": float(np.mean(exposure > run.floor)),
        "rms": float(np.sqrt(np.mean(exposure**2))),
    }


def lost_to_references(study: Study, run: Run, split: str = "heldout") -> float:
    """Performance of the model's reference (not trained on the set) minus its own at k*, nats per token."""
    table = study.performance.get(run.trained_with)
    if table is None or split not in table or split not in run.performance:
        return float("nan")
    design, table = study.design.loc[table.index], table.dropna(subset=[split])
    if len(design) != len(table) or run.model not in table.index:
        return float("nan")
    row, column = list(table.index).index(run.model), list(design.columns).index(run.forget_set)
    reference = genex.predicted_reference(table[[split]], design, model=row, column=column)[0]
    scored = run.performance[split].dropna()
    at = performance.interpolate(scored.to_numpy(), scored.index.to_numpy(), run.k_star)
    return float(performance.performance_lost(unlearned=at, reference=reference))


def at_k_star(runs: list[Run], *, multiple: float = 1.0) -> Array:
    """(runs that got there, n) log-likelihoods at a multiple of each run's own k*, nats, interpolated."""
    rows = [performance.interpolate(r.log_likelihoods, r.steps, multiple * r.k_star) for r in runs]
    rows = [row for row in rows if np.isfinite(row).all()]
    return np.array(rows) if rows else np.empty((0, len(runs[0].examples) if runs else 0))


def ensemble_by_step(study: Study, *, arm: str, forget_set: str, confidence: float = 0.95) -> pd.DataFrame:
    """GenEx of all in-models against all out-models, at the steps that every run was scored at.

    Columns: step; log_mean and mean_log, mean GenEx over the set by estimator, nats; effective_models (smallest over
    both sides, mean over the set); share_inside the noise floor (by mean_log); generator and instance part (mean_log,
    as known at run level), nats; n_models.
    """
    runs = study.select(arm=arm, forget_set=forget_set)
    if not runs:
        return pd.DataFrame()
    outside = reference_matrix(study, runs[0])
    floor = floor_of(study, runs[0].trained_with, forget_set, examples=runs[0].examples, confidence=confidence,
                     runs=len(runs))  # fmt: skip
    common = set.intersection(*(set(r.steps) for r in runs))
    rows = []
    for step in sorted(common):
        inside = np.array([r.log_likelihoods[list(r.steps).index(step)] for r in runs])
        both = {"unlearned": inside, "reference": outside}
        by_name = {e: genex.generalized_exposure(**both, estimator=e) for e in genex.ESTIMATORS}
        effective = np.minimum(genex.effective_models(inside), genex.effective_models(outside))
        parts = [performance.interpolate(r.generator_part, r.generator_steps, step) for r in runs]
        generator = float(np.mean(parts))
        instance = genex.instance_part(exposure=by_name["mean_log"], generator_part=generator)
        rows.append({"step": int(step)} | {e: float(v.mean()) for e, v in by_name.items()} | {
            "effective_models": float(effective.mean()),
            "share_inside": float(np.mean(np.abs(by_name["mean_log"]) <= floor)),
            "generator": generator, "instance": float(instance.mean()),
            "n_models": len(runs)})  # fmt: skip
    return pd.DataFrame(rows)


def reference_matrix(study: Study, run: Run) -> Array:
    """(n_out, n) log-likelihoods of the out-models on the run's examples, nats."""
    table = study.references[run.trained_with]
    return table.loc[[m for m in study.outside(run.forget_set) if m in table.index], run.examples].to_numpy()


def set_table(study: Study, runs: pd.DataFrame, *, confidence: float = 0.95) -> pd.DataFrame:
    """Every quantity of every set and arm: arm, forget_set, quantity, estimate, low, high, unit, n, reason.

    What is known at θ0 has the interval of the regression (`at_start`), all else Student's over models. An estimate
    that is missing, only a bound or without an interval has its reason in words.
    """
    rows = []
    for (arm, forget_set), group in runs[runs["role"] == "in"].groupby(["arm", "forget_set"]):
        key = {"arm": arm, "forget_set": forget_set}
        start = at_start(study, group["trained_with"].iloc[0], forget_set, confidence=confidence)
        for quantity, unit in RUN_UNITS.items():
            found = start.loc[quantity].to_dict() if quantity in start.index else None
            found = found or _interval_row(group, quantity, confidence)
            if quantity in ("instance_0", "instance_share") and quantity not in start.index:
                found["reason"] = "no never-trained examples of its kind"
            rows.append(key | {"quantity": quantity, "unit": unit} | found)
        shared = _reference_row(study, arm, forget_set, start)
        rows.append(key | {"quantity": "k_star_reference", "unit": "steps"} | shared)
        for quantity, value, n in _worst_cases(study, arm, forget_set, confidence):
            reason = "" if np.isfinite(value) else "fewer than two models on a side"
            rows.append({"arm": arm, "forget_set": forget_set, "quantity": quantity, "estimate": value,
                         "low": np.nan, "high": np.nan, "unit": "nats", "n": n, "reason": reason})  # fmt: skip
    columns = ["arm", "forget_set", "quantity", "estimate", "low", "high", "unit", "n", "reason"]
    return pd.DataFrame(rows, columns=columns)


def at_start(study: Study, trained_with: str, forget_set: str, *, confidence: float = 0.95) -> pd.DataFrame:
    """Exposure of the original models, and its instance part, from the regression that makes the references.

    Twice the main effect of the set's column, over all models. Runs of a set share that regression, so that the
    spread of their exposures at θ0 says nothing about its error.

    Returns:
        rows exposure_0 and instance_0 (nats) and instance_share (a ratio: no interval); estimate, low, high, n
        (models), reason. Without never-trained examples of the kind: exposure_0 alone.
    """
    table = study.references[trained_with]
    design = study.design.loc[table.index]
    kind = study.examples.loc[study.members(forget_set)[0], "kind"]
    never = [x for x in study.members(f"never-{kind}") if x in table]
    outcomes = {"exposure_0": table[study.members(forget_set)].mean(axis=1)}
    if never:
        outcomes["instance_0"] = outcomes["exposure_0"] - table[never].mean(axis=1)
    found = effects.influence_matrix(pd.DataFrame(outcomes).to_numpy(), design.to_numpy(), confidence=confidence)
    column = design.columns.get_loc(forget_set)
    limits = {"estimate": found.effect[column], "low": found.low[column], "high": found.high[column]}
    rows = pd.DataFrame({**limits, "n": len(table), "reason": ""}, index=list(outcomes))
    if not found.df:
        rows["reason"] = "no column of the design is free: no interval"
    if never:
        share = rows.loc["instance_0", "estimate"] / rows.loc["exposure_0", "estimate"]
        rows.loc["instance_share"] = [share, np.nan, np.nan, len(table), "a ratio of two estimates: no interval"]
    return rows


def _reference_row(study: Study, arm: str, forget_set: str, start: pd.DataFrame) -> dict:
    """By how many steps the mean k* moves if the reference that all runs share is off by its half-width.

    Half-width of the reference's own interval, over the nats that a run's mean exposure falls in the last step before
    k*. The reference is one side of exposure_0, the in-models are the other, as many: its interval is 1/√2 as wide.
    """
    runs = [r for r in study.select(arm=arm, forget_set=forget_set) if r.k_star > r.steps[0]]
    half = (start.loc["exposure_0", "high"] - start.loc["exposure_0", "low"]) / 2 / np.sqrt(2)
    falls = []
    for run in runs:
        before = max(run.k_star - 1, run.steps[0])
        falls.append(performance.interpolate(run.exposure.mean(axis=1), run.steps, before) / (run.k_star - before))
    moved = half / np.mean(falls) if falls else np.nan
    reason = "" if np.isfinite(moved) else "no run got there, or the reference has no interval"
    return {"estimate": moved, "low": np.nan, "high": np.nan, "n": len(runs), "reason": reason}


def _interval_row(group: pd.DataFrame, quantity: str, confidence: float) -> dict:
    values, censored = group[quantity].copy(), int(group[quantity].isna().sum())
    reason = ""
    if quantity in ("k_star", "k95") and censored:
        values = values.fillna(group["last_step"])
        reason = f"{censored} of {len(group)} runs censored: the estimate is a lower bound"
    elif censored:
        reason = f"over the {len(group) - censored} of {len(group)} runs that have it"
    interval = t_interval(values, confidence=confidence)
    bound = bool(reason) and quantity in ("k_star", "k95")
    if interval.n == 0:
        reason = "no run got there, or it was not measured"
    elif interval.n == 1:
        reason = reason or "one run has no interval"
    low, high = (np.nan, np.nan) if bound else (interval.low, interval.high)
    return {"estimate": interval.estimate, "low": low, "high": high, "n": interval.n, "reason": reason}


def _worst_cases(study: Study, arm: str, forget_set: str, confidence: float) -> list[tuple[str, float, int]]:
    runs = study.select(arm=arm, forget_set=forget_set)
    outside = reference_matrix(study, runs[0])
    cases = {"worst_case_theta0": np.array([r.log_likelihoods[0] for r in runs]),
             "worst_case_k_star": at_k_star(runs)}  # fmt: skip
    rows = [(name, _worst(values, outside, confidence), len(values)) for name, values in cases.items()]
    halves = _worst(outside[::2], outside[1::2], confidence)
    return [*rows, ("worst_case_two_groups_of_references", halves, len(outside))]


def _worst(unlearned: Array, reference: Array, confidence: float) -> float:
    if min(len(unlearned), len(reference)) < 2:
        return float("nan")
    return genex.worst_case(unlearned=unlearned, reference=reference, confidence=confidence)
