"""Numbers in tables and sentences: means over models with their intervals, and what is said where there are none.

Values of runs come in; means over models with Student's interval go out, as `estimate`, `low`, `high`, `n` (models).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from unlearning.core import stats
from unlearning.data import tables


def means(
    runs: pd.DataFrame, value: str, *, by: Sequence[str], confidence: float, bound: str | None = None
) -> pd.DataFrame:
    """Mean of a run's value over models with its t interval, a row a combination of `by`, in order of appearance.

    A NaN is no run, unless `bound` names the column of what it is at least (a censored run's last step): a mean with
    such runs (counted as `censored`) has no limits. With a column `reason` why a value is missing, reasons are counted.
    """
    rows = []
    for key, group in runs.groupby(list(by), sort=False, observed=True) if len(runs) else []:
        lost, values = group[value].isna(), group[value].fillna(group[bound]) if bound else group[value]
        found = stats.t_interval(values, confidence=confidence)
        limits = (np.nan, np.nan) if bound and lost.any() else (found.low, found.high)
        reasons = group.loc[lost, "reason"].value_counts() if "reason" in group else {}
        why = "; ".join(f"{n} of {len(group)}: {reason}" for reason, n in reasons.items())
        rows.append((*key, found.estimate, *limits, found.n, lost.sum(), why))
    table = pd.DataFrame(rows, columns=[*by, "estimate", "low", "high", "n", "censored", "reason"])
    return table.drop(columns=[*([] if bound else ["censored"]), *([] if "reason" in runs else ["reason"])])


def number(value: float, form: str = ".3g", nothing: str = "unknown") -> str:
    """A number for a reader: three significant digits unless `form` says otherwise, a real minus sign, ∞."""
    form = ".0f" if form == ".3g" and abs(value) >= 1000 else form
    said = "∞" if value > 0 else "-∞"
    return nothing if np.isnan(value) else (said if np.isinf(value) else f"{value:{form}}").replace("-", "−")


def interval(row, form: str = ".3g") -> str:
    """'0.21 [0.15, 0.27]' of whatever has estimate, low and high; a bound where its reason says so; or a dash."""
    reason = str(getattr(row, "reason", ""))
    sign = "≥ " if "a lower bound" in reason else "≤ " if "an upper bound" in reason else ""
    text = number(row.estimate, form, "–")
    text = text if text == "–" else sign + text
    return text if np.isnan(row.low) else f"{text} [{number(row.low, form)}, {number(row.high, form)}]"


def mean(row, unit: str, form: str = ".2f") -> str:
    """A mean in a sentence: '0.21 [0.15, 0.27] nats (n = 16)', or what is missing, in words."""
    if not np.isfinite(row.estimate):
        return "nothing to average"
    limits = "" if np.isfinite(row.low) else " (no interval)"
    return f"{interval(row, form)}{limits} {unit} (n = {row.n:.0f})"


def joined(names: Sequence[str], nothing: str = "none") -> str:
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
    for name in table.select_dtypes("float"):
        whole = (table[name].dropna() % 1 == 0).all()
        table[name] = [number(value, f".{0 if whole else digits}f", "–") for value in table[name]]
    return table.reset_index(drop=True)


def write(table: pd.DataFrame, name: str) -> None:
    """Write a derived table as results/tables/<name>.csv; an empty one keeps its header."""
    tables.write_csv(table, Path("results/tables") / f"{name}.csv")
