"""What each column of the balanced design does: main effects by least squares, and the influence matrix."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

Array = np.ndarray


@dataclass(frozen=True)
class MainEffects:
    """Least squares on a ±1 design with intercept; `effects` are half the change from −1 to +1, nats."""

    intercept: Array  # (n,)
    effects: Array  # (C, n)
    residual_sd: Array  # (n,), NaN without degrees of freedom
    standard_error: Array  # (C, n), NaN without degrees of freedom
    df: int


def main_effects(log_likelihoods: Array, design: Array) -> MainEffects:
    """How each column of the design moves each example, all columns at once; ValueError where they are confounded.

    log_likelihoods: (M, n), nats, one row a model. design: (M, C) of ±1.
    Source: Box, Hunter & Hunter 2005, two-level factorial designs.
    """
    y, design = np.asarray(log_likelihoods, dtype=float), np.asarray(design, dtype=float)
    if len(y) != len(design):
        raise ValueError(f"{len(y)} models in the table, {len(design)} rows in the design")
    x = np.column_stack([np.ones(len(design)), design])
    if np.linalg.matrix_rank(x) < x.shape[1]:
        raise ValueError(f"{x.shape[1] - 1} columns cannot be told apart in {len(x)} models")
    # β = argmin ‖y − Xβ‖²;  s² = ‖y − Xβ‖² / df;  se(β_c) = s · √[(XᵀX)⁻¹]_cc
    coefficients = np.linalg.lstsq(x, y, rcond=None)[0]
    df = len(x) - x.shape[1]
    squares = np.sum((y - x @ coefficients) ** 2, axis=0)
    residual_sd = np.sqrt(squares / df) if df > 0 else np.full(y.shape[1], np.nan)
    scale = np.sqrt(np.diag(np.linalg.inv(x.T @ x)))[1:]
    return MainEffects(coefficients[0], coefficients[1:], residual_sd, np.outer(scale, residual_sd), df)


@dataclass(frozen=True)
class Influence:
    """Change of each outcome when a column goes from −1 to +1, with its limits; arrays (C, outcomes)."""

    effect: Array
    low: Array
    high: Array
    df: int


def influence_matrix(outcomes: Array, design: Array, *, confidence: float = 0.95) -> Influence:
    """By how much training on each column's set raises each outcome, with two-sided t limits for each cell.

    outcomes: (M, outcomes), one value a model, such as a set's mean ℓ, nats. design: (M, C) of ±1.
    Returns (C, outcomes), in the unit of the outcomes; limits NaN without residual degrees of freedom.
    Source: Feldman & Zhang 2020, influence, for sets in place of examples.
    """
    fit = main_effects(outcomes, design)
    # 2 β ± t · 2 se(β): a column goes from −1 to +1, hence the two
    quantile = stats.t.ppf((1 + confidence) / 2, fit.df) if fit.df > 0 else np.nan
    half = 2 * quantile * fit.standard_error
    return Influence(2 * fit.effects, 2 * fit.effects - half, 2 * fit.effects + half, fit.df)
