"""Contrasts of kinds of data: the unit is a draw of a kind, each unlearned by a few models, some of them shared.

A draw is one forget set. Values come one a run (a draw unlearned by a model), in any unit, which is that of estimates
and limits; variances are in its square. `side`: +1 or −1 for the two kinds, or +1 throughout for a mean over draws.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain, combinations
from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

Array = np.ndarray
EXACT = 200_000  # labellings that are enumerated at most


@dataclass(frozen=True)
class Contrast:
    """Mean over draws of side +1 minus that of side −1 (or the mean, with one side), and what its interval rests on.

    Limits, se and df are NaN where `reason` says why. variances: draw, model, cell, reference, sentences, total.
    """

    estimate: float
    low: float = np.nan
    high: float = np.nan
    se: float = np.nan
    df: float = np.nan
    variances: Mapping[str, float] = field(default_factory=dict)
    n_draws: tuple[int, int] = (0, 0)  # of side +1, of side −1
    n_models: int = 0
    n_runs: int = 0
    reason: str = ""


def two_way(
    values: ArrayLike, *, draw: ArrayLike, model: ArrayLike, side: ArrayLike,
    confidence: float = 0.95, reference: float = 0.0, sentences: float = 0.0,
) -> Contrast:  # fmt: skip
    """The contrast with an interval that holds for other draws and for other models.

    Draws count alike, whatever the number of their models, and so do the models of a draw. A run without a value (NaN)
    is left out, and with its last run a draw.
    values: (n,). draw, model: (n,) names. side: (n,) of ±1, one for each draw (ValueError for a draw on both).
    reference, sentences: variances of the contrast (`reference_variance`, `sentence_variance`) that neither the spread
    of draws nor that of models shows.
    Source: two-way cluster-robust variance, Cameron, Gelbach & Miller 2011; degrees of freedom, Satterthwaite 1946.
    """
    values, side = np.asarray(values, dtype=float), np.asarray(side, dtype=float)
    here = np.isfinite(values)
    if not here.any() or len(np.unique(side)) > len(np.unique(side[here])):
        return Contrast(np.nan, reason="no run of one kind has a value" if here.any() else "no run has a value")
    s, m = (np.unique(np.asarray(names)[here], return_inverse=True)[1] for names in (draw, model))
    values, side = values[here], side[here]
    weight = contrast_weights(s, side)
    n = np.array([len(np.unique(s[side == sign])) for sign in (1, -1)])
    models, cap, of = m.max() + 1, int(np.sum(np.maximum(n - 1, 0))), np.where(side > 0, 0, 1)
    # c_j = w_j (y_j − mean of its kind), w_j = ±1/(n k): n draws of the kind, k models of the draw
    centre = np.array([np.sum(np.abs(weight) * values, where=side == sign) for sign in (1, -1)])
    c = weight * (values - centre[of])
    found = {"estimate": float(weight @ values), "n_draws": tuple(int(x) for x in n), "n_models": int(models)}
    found |= {"n_runs": len(values)}
    if (n[n > 0] < 2).any():
        return Contrast(**found, reason="one draw of a kind: how much draws differ is not known")
    if models < 2:
        return Contrast(**found, reason="one model: how much models differ is not known")
    # V_draw = Σ_kinds n/(n−1) Σ_s (Σ_{j in s} c_j)²;  V_model = M/(M−1) Σ_m (Σ_{j in m} c_j)²;  V_cell = Σ_j c_j²
    correction = np.bincount(s, 1 / np.bincount(s)[s] * (n / np.maximum(n - 1, 1))[of])
    v_draw = float(np.sum(correction * np.bincount(s, c) ** 2))
    v_model = float(models / (models - 1) * np.sum(np.bincount(m, c) ** 2))
    v_cell = float(np.sum(c**2))
    # V = max(V_draw + V_model − V_cell, V_draw, V_model) + V_ref + V_sentences
    total = max(v_draw + v_model - v_cell, v_draw, v_model) + reference + sentences
    # df of V_draw: (Σ 1/n)² / Σ 1/(n²(n−1)), 2(n−1) for equal numbers; with (V_model − V_cell)+ by Satterthwaite
    drawn = n[n > 0].astype(float)
    df_draw, more = np.sum(1 / drawn) ** 2 / np.sum(1 / (drawn**2 * (drawn - 1))), max(v_model - v_cell, 0.0)
    spread = v_draw**2 / df_draw + more**2 / (models - 1)
    df = min(float(cap), (v_draw + more) ** 2 / spread) if spread > 0 else float(cap)
    # estimate ± t(df) √V
    se = float(np.sqrt(total))
    half = special.stdtrit(df, (1 + confidence) / 2) * se
    parts = {"draw": v_draw, "model": v_model, "cell": v_cell, "reference": reference, "sentences": sentences}
    limits = {"low": found["estimate"] - half, "high": found["estimate"] + half, "se": se, "df": df}
    return Contrast(**found, **limits, variances=parts | {"total": total})


def contrast_weights(draw: ArrayLike, side: ArrayLike) -> Array:
    """(n,) weight of each run in the contrast: side / (draws of its side · models of its draw). No unit.

    draw: (n,) names. side: (n,) of ±1. ValueError where a draw stands on both sides.
    """
    side = np.asarray(side, dtype=float)
    first, s = np.unique(np.asarray(draw), return_index=True, return_inverse=True)[1:]
    if np.any(side != side[first][s]):
        raise ValueError("a draw stands on one side of a contrast")
    of_side = {sign: np.sum(side[first] == sign) for sign in np.unique(side)}
    return side / (np.array([of_side[sign] for sign in side]) * np.bincount(s)[s])


def p_beyond(contrast: Contrast, *, delta: float = 0.0) -> float:
    """Two-sided p of |contrast| ≤ delta, in its unit; NaN without an interval. Source: Student 1908."""
    # t = (|estimate| − δ) / se;  below α exactly where the interval at 1 − α lies beyond ±δ
    excess = abs(contrast.estimate) - delta
    return _two_sided(excess, contrast)


def p_inside(contrast: Contrast, *, low: float, high: float) -> float:
    """p of lying outside [low, high]; below α exactly where the interval at 1 − α lies inside.

    In the contrast's unit; NaN without an interval. Source: two one-sided tests, Schuirmann 1987.
    """
    nearer = min(contrast.estimate - low, high - contrast.estimate)
    return _two_sided(nearer, contrast)


def _two_sided(excess: float, contrast: Contrast) -> float:
    if contrast.se == 0:
        return 0.0 if excess > 0 else 1.0
    return float(np.minimum(1.0, 2 * stats.t.sf(excess / contrast.se, contrast.df)))


class Permutation(NamedTuple):
    """p of a permutation test, over how many labellings, and whether these are all that there are."""

    p: float
    labellings: int
    exact: bool


def permutation_p(draw_means: ArrayLike, side: ArrayLike, *, drawn: int = 20_000, seed: int = 0) -> Permutation:
    """Two-sided p of no difference between the kinds: which draws bear which label is permuted.

    Exact over all C(n, k) labellings if these are at most `EXACT`, else over `drawn` random ones (exact is False).
    draw_means: (n,), one a draw, any unit. side: (n,) of ±1. NaN with an empty side. Source: Fisher 1935.
    """
    values, side = np.asarray(draw_means, dtype=float), np.asarray(side)
    values, side = values[np.isfinite(values)], side[np.isfinite(values)]
    n, k = len(values), int(np.sum(side > 0))
    if not 0 < k < n:
        return Permutation(np.nan, 0, False)
    count, exact = comb(n, k), comb(n, k) <= EXACT
    if exact:
        chosen = np.fromiter(chain.from_iterable(combinations(range(n), k)), int, count * k).reshape(count, k)
    else:
        rng = np.random.default_rng(seed)
        chosen = np.argsort(rng.random((drawn, n)), axis=1)[:, :k]
    # share of labellings with |mean(+) − mean(−)| at least as large; equal ones differ by rounding
    sums, total = values[chosen].sum(axis=1), values.sum()
    observed = values[side > 0].sum()
    distance = np.abs(sums / k - (total - sums) / (n - k))
    least = abs(observed / k - (total - observed) / (n - k)) * (1 - 1e-10) - 1e-300
    larger = int(np.sum(distance >= least))
    return Permutation(larger / count if exact else (1 + larger) / (1 + drawn), count if exact else drawn, exact)


def reference_variance(
    set_means: ArrayLike, *, design: ArrayLike, base: ArrayLike, per_nat: ArrayLike, side: ArrayLike
) -> float:
    """Variance of the contrast by that part of the references' error which the draws of a kind share.

    A draw's reference is (nearly) the mean over the models without it. What a model's likelihood of *all* sets of a
    kind is off by enters the references of all its draws, so that the spread of draws does not show it. Of a kind with
    one draw, the whole error counts.
    set_means: (M, S) mean log-likelihood of each draw under each trained model, nats. design: (M, S) of ±1, 1 where
    the model holds it. base: (M,) of ±1. per_nat: (S,) change of a draw's value if its reference is one nat higher,
    for k* minus one over the nats that the set's mean falls in its last step. side: (S,) of ±1.
    Returns the square of the values' unit; 0 where it cannot be told (M < 4). Source: this study; error propagation.
    """
    y, design, side = (np.asarray(x, dtype=float) for x in (set_means, design, side))
    models, base, scale = len(y), np.asarray(base, dtype=float), np.asarray(per_nat, dtype=float)
    if models < 4:
        return 0.0
    # e = residuals of each set mean on 1, base and its own column;  Σ = eᵀe / (M − 3)
    x = np.stack([np.broadcast_to(column, (y.shape[1], models)) for column in (1.0, base, design.T)], axis=-1)
    residuals = y - np.einsum("smc,scn,ns->ms", x, np.linalg.pinv(x), y, optimize=True)
    covariance = residuals.T @ residuals / (models - 3)
    # Cov(r_s, r_t) = (2/M)² · |out(s) ∩ out(t)| · Σ_st, through per_nat to the outcome
    without = (design < 0).astype(float)
    moved = (2 / models) ** 2 * (without.T @ without) * covariance * np.outer(scale, scale)
    # V_ref = mean of the pairs inside + · + mean of those inside − · − 2 mean of those across; what is a draw's own is
    # in the spread of draws, where there is one
    n = {sign: np.sum(side == sign) for sign in (1, -1)}
    own = np.where(np.where(side > 0, n[1], n[-1]) > 1, np.diag(moved), 0.0)
    np.fill_diagonal(moved, np.diag(moved) - own)
    inside = sum(moved[np.ix_(side == s, side == s)].sum() / max(k * (k - 1), 1) for s, k in n.items())
    across = moved[np.ix_(side > 0, side < 0)].mean() if min(n.values()) else 0.0
    return float(max(inside - 2 * across, 0.0))


def sentence_variance(nats: ArrayLike, *, n_tokens: ArrayLike, weights: ArrayLike) -> float:
    """Variance of a contrast of losses per token by which held-out sentences it was measured on.

    What a single run's loss differs by sentence is in the spread of draws too, so that it counts twice: little.
    nats: (runs, sentences) lost. n_tokens: (sentences,). weights: (runs,) of the contrast (`contrast_weights`).
    Returns (nats per token)²; 0 for fewer than two sentences. Source: ratio estimator, Cochran 1977, section 6.
    """
    tokens, n = np.asarray(n_tokens, dtype=float), np.size(n_tokens)
    if n < 2:
        return 0.0
    # θ = Σ d_i / Σ T_i with d_i = Σ_j w_j nats_ji;  V = n/(n−1) Σ (d_i − θ T_i)² / (Σ T_i)²
    d = np.asarray(weights, dtype=float) @ np.asarray(nats, dtype=float)
    return float(n / (n - 1) * np.sum((d - d.sum() / tokens.sum() * tokens) ** 2) / tokens.sum() ** 2)


class Power(NamedTuple):
    """What a design can show: probabilities that the interval lies beyond +margin, and inside ±margin."""

    beyond: float
    inside: float
    se: float
    df: float


def power(
    effect: float, *, margin: float, n_draws: int, n_models: int, sd: Mapping[str, float], pool: int,
    weights: tuple[float, ...] = (1.0, -1.0), confidence: float = 0.95,
) -> Power:  # fmt: skip
    """What `two_way` would find with n_draws draws a kind, each unlearned by n_models of a pool of models.

    effect, margin: in the unit of the values. sd: by component, in that unit: draw, model (its effect on one kind) and
    residual of a single run; reference and sentences of the contrast itself. Missing ones are 0. weights: of the kinds
    in the contrast. Models are assigned evenly.
    Source: this study; the t interval over a χ² estimate of the variance, integrated by its quantiles.
    """
    sd = {name: sd.get(name, 0.0) for name in ("draw", "model", "residual", "reference", "sentences")}
    runs = n_draws * n_models
    times = np.full(min(pool, runs), runs // min(pool, runs))  # runs of a kind by model
    times[: runs - times.sum()] += 1
    # V = Σ w² [σ_draw²/n + σ_model² Σ_m t_m²/(nk)² + σ_residual²/(nk)] + what is known of reference and sentences
    by_model = sd["model"] ** 2 * np.sum(times**2) / runs**2
    chance = np.sum(np.square(weights)) * (sd["draw"] ** 2 / n_draws + by_model + sd["residual"] ** 2 / runs)
    fixed, df = sd["reference"] ** 2 + sd["sentences"] ** 2, len(weights) * (n_draws - 1)
    if df < 1:
        return Power(np.nan, np.nan, float(np.sqrt(chance + fixed)), df)
    # half = t √(V_chance χ²/df + V_fixed) over the quantiles of χ²; the estimate is normal around the effect
    estimated = chance * stats.chi2.ppf((np.arange(2000) + 0.5) / 2000, df) / df + fixed
    half, true = stats.t.ppf((1 + confidence) / 2, df) * np.sqrt(estimated), max(np.sqrt(chance + fixed), 1e-300)
    below = stats.norm.cdf((np.maximum(margin - half, 0.0) - effect) / true)
    above = stats.norm.cdf((-np.maximum(margin - half, 0.0) - effect) / true)
    beyond = stats.norm.sf((margin + half - effect) / true)
    return Power(float(beyond.mean()), float((below - above).mean()), float(true), df)
