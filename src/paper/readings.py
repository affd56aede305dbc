"""What the reading notebooks print and draw: means over models with intervals, and sentences. Imports no torch.

Values of runs come in, means over models with Student's interval go out: `mean`, `low`, `high`, `n` (models).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from paper import summaries
from paper.study import Study
from unlearning.core import stats

MEMORIZED_SHARE = 0.5  # of the exposure at θ0 that has to be the instance's own, not its generator's


def intervals(runs: pd.DataFrame, value: str, *, by: Sequence[str], confidence: float = 0.95) -> pd.DataFrame:
    """Mean of a run's value over models with its t interval, one row for each combination of `by`.

    Args:
        runs: one row a run; columns `by` and `value`; a NaN is no run. With a column `reason`, which says why a
            value is missing, the result has one, too.
        value: column averaged, in its own unit.
        by: columns that name a row of the result; their order of appearance is kept.
        confidence: two-sided.
    """
    rows = []
    for key, group in runs.groupby(list(by), sort=False, observed=True) if len(runs) else []:
        found = stats.t_interval(group[value], confidence=confidence)
        reasons = group.loc[group[value].isna(), "reason"].value_counts() if "reason" in group else {}
        why = "; ".join(f"{n} of {len(group)}: {reason}" for reason, n in reasons.items())
        rows.append((*key, found.estimate, found.low, found.high, found.n, why))
    table = pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "n", "reason"])
    return table if "reason" in runs else table.drop(columns="reason")


def read_scores(path: str | Path) -> pd.DataFrame:
    """A `log_likelihoods` table with plain text columns (they are stored as categories); empty if there is none."""
    if not Path(path).exists():
        return pd.DataFrame(columns=["model", "left_out", "example_id", "n_tokens", "log_likelihood"])
    table = pd.read_parquet(path)
    text = [name for name in table.columns if isinstance(table[name].dtype, pd.CategoricalDtype)]
    return table.astype(dict.fromkeys(text, str))


def words(row: pd.Series | stats.Interval, unit: str, *, digits: int = 2) -> str:
    """A mean in a sentence: '0.21 [0.15, 0.27] nats (n = 16)', or what is missing, in words."""
    if isinstance(row, stats.Interval):
        mean, low, high, n = row.estimate, row.low, row.high, row.n
    else:
        mean, low, high, n = row["mean"], row["low"], row["high"], int(row["n"])
    if not np.isfinite(mean):
        return "nothing to average"
    limits = f"[{low:.{digits}f}, {high:.{digits}f}]" if np.isfinite(low) else "(no interval)"
    return f"{mean:.{digits}f} {limits} {unit} (n = {n})".replace("-", "−")


def shown(table: pd.DataFrame, digits: int = 2) -> pd.DataFrame:
    """A table for reading: rounded, counts without decimals, what is missing as a dash."""
    table = table.copy()
    for name in table.columns:
        if pd.api.types.is_float_dtype(table[name]):
            whole = (table[name].dropna() % 1 == 0).all()
            table[name] = [f"{v:.{0 if whole else digits}f}" if np.isfinite(v) else "–" for v in table[name]]
    return table.reset_index(drop=True)


def number(value: float, spec: str = ".2f") -> str:
    """A number in a sentence; 'unknown' for NaN."""
    return f"{value:{spec}}".replace("-", "−") if np.isfinite(value) else "unknown"


def listed(names: Sequence[str], nothing: str = "none") -> str:
    """Names in a sentence: 'a, b'; `nothing` for none of them."""
    return ", ".join(map(str, names)) or nothing


def write(table: pd.DataFrame, name: str, folder: str | Path = "results/tables") -> None:
    """Write a derived table as `folder/name.csv`, six significant digits; an empty one keeps its header."""
    path = Path(folder) / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")


def paired(values: pd.Series, *, confidence: float) -> stats.Interval:
    """Interval of the mean of a value (or a paired difference) over models."""
    return stats.t_interval(values.to_numpy(dtype=float), confidence=confidence)


def ordered(names: Sequence[str], *, first: Sequence[str]) -> list[str]:
    """`names` with those of `first` at the front, in their order."""
    return [*(n for n in first if n in names), *(n for n in names if n not in first)]


def censored_intervals(runs: pd.DataFrame, *, confidence: float) -> pd.DataFrame:
    """Mean k* by set; with a censored run in it a lower bound without limits.

    Args:
        runs: one row a run: forget_set, k_star (steps, NaN if censored), last_step.

    Returns:
        forget_set, mean, low, high, n, censored (count).
    """
    filled = runs.assign(k_star=runs["k_star"].fillna(runs["last_step"]))
    table = intervals(filled, "k_star", by=["forget_set"], confidence=confidence)
    table["censored"] = table["forget_set"].map(runs["k_star"].isna().groupby(runs["forget_set"]).sum()).astype(int)
    table.loc[table["censored"] > 0, ["low", "high"]] = np.nan
    return table


def split_censored(runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs that got there, and the others with their last step in place of k*."""
    there = runs["k_star"].notna()
    return runs[there], runs[~there].assign(k_star=runs["last_step"])


def flat(table: pd.DataFrame) -> pd.DataFrame:
    """A pivoted table with its index as columns and two-level names joined by a space."""
    table = table.copy()
    table.columns = [" ".join(map(str, name)) if isinstance(name, tuple) else name for name in table.columns]
    return table.reset_index()


def run_table(study: Study) -> pd.DataFrame:
    """`summaries.run_table`, with its columns also where there is no run."""
    table = summaries.run_table(study)
    if len(table):
        return table
    keys = ["name", "arm", "forget_set", "trained_with", "method", "model", "role", "status", "last_step"]
    return pd.DataFrame(columns=[*keys, *summaries.RUN_UNITS, "generator_0"])
