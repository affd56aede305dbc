"""Numbers in tables and sentences: means over models with their intervals, and what is said where there are none.

Values of runs come in; means over models with Student's interval go out, as `estimate`, `low`, `high`, `n` (models).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from unlearning.core import stats
from unlearning.data import tables


def intervals(runs: pd.DataFrame, value: str, *, by: Sequence[str], confidence: float) -> pd.DataFrame:
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
    table = pd.DataFrame(rows, columns=[*by, "estimate", "low", "high", "n", "reason"])
    return table if "reason" in runs else table.drop(columns="reason")


def number(value: float, form: str = ".3g", nothing: str = "unknown") -> str:
    """A number for a reader: three significant digits unless `form` says otherwise, a real minus sign."""
    form = ".0f" if form == ".3g" and abs(value) >= 1000 else form
    return f"{value:{form}}".replace("-", "−") if np.isfinite(value) else nothing


def interval(row, form: str = ".3g", nothing: str = "–") -> str:
    """'0.21 [0.15, 0.27]' of whatever has estimate, low and high; a lower bound where its reason says so."""
    if not np.isfinite(row.estimate):
        return nothing
    text = number(row.estimate, form)
    if np.isfinite(row.low):
        return f"{text} [{number(row.low, form)}, {number(row.high, form)}]"
    return f"≥ {text}" if "lower bound" in str(getattr(row, "reason", "")) else text


def mean(row, unit: str, form: str = ".2f") -> str:
    """A mean in a sentence: '0.21 [0.15, 0.27] nats (n = 16)', or what is missing, in words."""
    if not np.isfinite(row.estimate):
        return "nothing to average"
    limits = "" if np.isfinite(row.low) else " (no interval)"
    return f"{interval(row, form)}{limits} {unit} (n = {row.n:.0f})"


def listed(names: Sequence[str], nothing: str = "none") -> str:
    """Names in a sentence: 'a, b'; `nothing` for none of them."""
    return ", ".join(map(str, names)) or nothing


def ordered(names: Sequence[str], *, first: Sequence[str]) -> list[str]:
    """`names` with those of `first` at the front, in their order."""
    return [*(n for n in first if n in names), *(n for n in names if n not in first)]


def shown(table: pd.DataFrame, digits: int = 2) -> pd.DataFrame:
    """A table for reading: rounded, whole numbers without decimals, a dash for what is missing, no two-level names."""
    table = table.copy()
    table.columns = [" ".join(map(str, name)) if isinstance(name, tuple) else name for name in table.columns]
    table = table.reset_index() if table.index.names != [None] else table
    for name in table.columns[[pd.api.types.is_float_dtype(dtype) for dtype in table.dtypes]]:
        whole = (table[name].dropna() % 1 == 0).all()
        table[name] = [number(value, f".{0 if whole else digits}f", "–") for value in table[name]]
    return table.reset_index(drop=True)


def write(table: pd.DataFrame, name: str) -> None:
    """Write a derived table as results/tables/<name>.csv; an empty one keeps its header."""
    tables.write_csv(table, Path("results/tables") / f"{name}.csv")


def k_star_intervals(runs: pd.DataFrame, *, confidence: float) -> pd.DataFrame:
    """Mean k* by set; with a censored run in it a lower bound without limits.

    Args:
        runs: one row a run: forget_set, k_star (steps, NaN if censored), last_step.

    Returns:
        forget_set, estimate, low, high, n, censored (count).
    """
    filled = runs.assign(k_star=runs["k_star"].fillna(runs["last_step"]))
    table = intervals(filled, "k_star", by=["forget_set"], confidence=confidence)
    table["censored"] = table["forget_set"].map(runs["k_star"].isna().groupby(runs["forget_set"]).sum()).astype(int)
    table.loc[table["censored"] > 0, ["low", "high"]] = np.nan
    return table
