"""Intervals over models of one set, correlations, and verdicts. Contrasts of kinds of sets: `draws`.

Values come one a model, (n_models,), in any unit, which is that of estimates and limits; p is a probability.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

VERDICTS = ("supported", "small", "equivalent", "contradicted", "inconclusive")
NOT_BORNE_OUT, NOT_COMPUTED = "not borne out", "not computed"  # of a claim of several parts; without an interval


@dataclass(frozen=True)
class Interval:
    """A mean over models with two-sided limits, in the unit of the values; NaN for fewer than two."""

    estimate: float
    low: float
    high: float
    n: int


def _finite(values: ArrayLike) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    return values[np.isfinite(values)]


def t_interval(values: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Two-sided interval of the mean of (n_models,) values in their unit, without NaN. Source: Student 1908."""
    values = _finite(values)
    if len(values) == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    mean = float(values.mean())
    if len(values) == 1:
        return Interval(mean, np.nan, np.nan, 1)
    # mean ± t(n − 1) · s / √n
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return Interval(mean, float(mean - half), float(mean + half), len(values))


def holm(p_values: ArrayLike, *, n_tests: int | None = None) -> np.ndarray:
    """Holm's adjusted p. A NaN (a test that could not be made) stays NaN and counts as a test all the same.

    p_values: (n,) of the family. n_tests: size of the family as it was planned; len(p_values) by default.
    Returns (n,) probabilities. Source: Holm 1979.
    """
    p_values = np.asarray(p_values, dtype=float)
    n_tests = n_tests or len(p_values)
    # p̃_(i) = max over j ≤ i of min(1, (n − j + 1) p_(j))
    adjusted, order = np.full(len(p_values), np.nan), np.argsort(p_values, kind="stable")
    order = order[np.isfinite(p_values[order])]
    steps = np.minimum(1.0, (n_tests - np.arange(len(order))) * p_values[order])
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted


def partial_rank_correlation(a: ArrayLike, b: ArrayLike, *, given: ArrayLike | None = None) -> float:
    """Spearman's ρ of a and b with the ranks of `given` regressed out; in [−1, 1], NaN where one is constant.

    a, b: (n_examples,). given: (n_examples,) or (n_examples, n_given); constant columns change nothing.
    Source: Spearman 1904; Kendall & Stuart, partial correlation by residuals.
    """
    a, b = (np.asarray(v, dtype=float) for v in (a, b))
    given = np.empty((len(a), 0)) if given is None else np.asarray(given, dtype=float).reshape(len(a), -1)
    here = np.isfinite(a) & np.isfinite(b) & np.isfinite(given).all(axis=1)
    if here.sum() < 3 + given.shape[1]:
        return float("nan")
    # r(x, y) of the residuals x, y of rank(a), rank(b) on 1 and the ranks of `given`
    ranks = [stats.rankdata(column[here]) for column in (a, b, *given.T)]
    others = np.column_stack([np.ones(here.sum()), *ranks[2:]])
    x, y = (v - others @ np.linalg.lstsq(others, v, rcond=None)[0] for v in ranks[:2])
    scale = np.linalg.norm(x) * np.linalg.norm(y)
    smallest = 1e-8 * here.sum() ** 2  # what rounding leaves of a constant
    return float(np.clip(x @ y / scale, -1, 1)) if scale > smallest else float("nan")


def fisher_z(correlation: ArrayLike) -> np.ndarray:
    """z of correlations of any shape, no unit; kept finite at ±1. Source: Fisher 1921."""
    # z = atanh ρ
    return np.arctanh(np.clip(np.asarray(correlation, dtype=float), -1 + 1e-9, 1 - 1e-9))


def verdict(interval, *, delta: float, direction: int) -> str:
    """One of VERDICTS, or 'not computed' without limits.

    supported: the interval lies beyond the margin, on the side of `direction`; contradicted: on the other side.
    small: it lies inside ±delta and excludes zero (real, and under what counts). equivalent: inside, with zero.
    inconclusive: anything else.
    interval: what has `low` and `high`, infinite where the estimate is a bound. delta: the smallest difference that
    counts, ≥ 0, in their unit.
    direction: +1 supports upwards, −1 downwards, 0 either way ('affects').
    Source: this study; equivalence by an interval inside the margin as in Schuirmann 1987.
    """
    low, high = interval.low, interval.high
    if np.isnan(low) or np.isnan(high):
        return NOT_COMPUTED
    if low > delta:
        return "contradicted" if direction < 0 else "supported"
    if high < -delta:
        return "contradicted" if direction > 0 else "supported"
    if low >= -delta and high <= delta:
        return "equivalent" if low <= 0 <= high else "small"
    return "inconclusive"


def verdict_of_parts(verdicts: Collection[str]) -> str:
    """What a claim of several parts comes to: all must be supported, and one that is not real enough is enough.

    verdicts: (n,) words without unit, one of each part, as `verdict` gives them. One part speaks for itself.
    Source: this study.
    """
    words = list(verdicts)
    if len(words) == 1:
        return words[0]
    if set(words) & {"small", "equivalent", "contradicted"}:
        return NOT_BORNE_OUT
    if set(words) == {"supported"}:
        return "supported"
    return NOT_COMPUTED if NOT_COMPUTED in words else "inconclusive"
