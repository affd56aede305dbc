"""Generalized exposure: many models against many, and one run against what its model would have been.

A log-likelihood is ℓ(x) = Σ_t log p(y_t | y_<t, source) in nats, over the target's tokens, end of sequence
included. Functions work per example; where one averages over examples, its first line says so.
Axes: `n_models`, `n_examples` (n), `steps`; leading axes written `...` are free.
"""

import numpy as np
from scipy import special, stats

from unlearning.core.effects import main_effects

Array = np.ndarray

ESTIMATORS = ("log_mean", "mean_log")


def generalized_exposure(*, unlearned: Array, reference: Array, estimator: str = "log_mean") -> Array:
    """Log-ratio of an example's expected likelihood after unlearning to that under retraining.

    Zero: in likelihood, unlearning is indistinguishable from never having seen the example.
    Positive: still exposed. Negative: over-unlearned, which is as detectable. Swapping flips the sign.
    The definition takes the mean of probabilities (log_mean); the mean of logs (mean_log) is unbiased for any number of
    models, and verdicts use it.

    unlearned: (..., n_models, n_examples) of unlearned in-models, reference: (n_models, n_examples) of out-models;nats.
    estimator: one of ESTIMATORS (ValueError for another).
    Returns (..., n_examples) nats. Source: Baluta et al. 2024, generalized exposure.
    """
    # log_mean:  g(x) = log E[p_unlearned(x)] − log E[p_reference(x)]
    # mean_log:  g(x) = E[ℓ_unlearned(x)] − E[ℓ_reference(x)]
    return _expected(unlearned, estimator) - _expected(reference, estimator)


def _expected(log_likelihoods: Array, estimator: str) -> Array:
    if estimator == "mean_log":
        return np.mean(log_likelihoods, axis=-2)
    if estimator == "log_mean":  # the largest term is taken out first, so that ℓ = −1e4 does not underflow
        return special.logsumexp(log_likelihoods, axis=-2) - np.log(np.shape(log_likelihoods)[-2])
    raise ValueError(f"unknown estimator {estimator!r}; choose one of {', '.join(ESTIMATORS)}")


def effective_models(log_likelihoods: Array) -> Array:
    """How many models carry a log-mean-exp, from 1 (one decides) to n_models.

    log_likelihoods: (..., n_models, n_examples), nats. Returns (..., n_examples), a number of models.
    Source: Kish 1965, effective sample size.
    """
    # (Σ w)² / Σ w² with w = p(x), in logarithms
    log_weights = np.asarray(log_likelihoods, dtype=float)
    total = special.logsumexp(log_weights, axis=-2)
    return np.exp(2 * total - special.logsumexp(2 * log_weights, axis=-2))


def shrunk_sd(sd: Array, *, df: int) -> tuple[Array, float]:
    """Per-example sd drawn towards the set's pooled value, as far as the spread of the variances warrants.

    Equal true variances give d₀ = ∞, the pooled value for all.
    sd: (n_examples,), sample sd over models, nats. df: degrees of freedom d of each.
    Returns (n_examples,) shrunk sd, nats, and its degrees of freedom d₀ + d (may be infinite).
    Source: Smyth 2004, empirical Bayes for many variances with few replicates, section 6.2.
    """
    # s̃² = (d₀ s₀² + d s²) / (d₀ + d), the prior s₀², d₀ fitted to the moments of log s² over the set
    variance = np.asarray(sd, dtype=float) ** 2
    positive = variance[variance > 0]
    if len(positive) < 3:
        return np.sqrt(variance), float(df)
    centred = np.log(positive) - special.digamma(df / 2) + np.log(df / 2)
    excess = np.var(centred, ddof=1) - special.polygamma(1, df / 2)
    if excess <= 0:
        return np.full_like(variance, np.sqrt(np.mean(variance))), np.inf
    prior_df = 2 * _inverse_trigamma(excess)
    prior = np.exp(np.mean(centred) + special.digamma(prior_df / 2) - np.log(prior_df / 2))
    return np.sqrt((prior_df * prior + df * variance) / (prior_df + df)), float(prior_df + df)


def _inverse_trigamma(value: float) -> float:
    x = 0.5 + 1 / value
    for _ in range(50):  # Newton's method of Smyth 2004, appendix; convex, so it converges from this start
        trigamma = special.polygamma(1, x)
        change = trigamma * (1 - trigamma / value) / special.polygamma(2, x)
        x += change
        if abs(change) < 1e-12 * x:
            break
    return float(x)


def noise_floor(
    *, reference_sd: Array, n_unlearned: int, n_reference: int, confidence: float = 0.95, shrink: bool = True
) -> Array:
    """Half-width of what a perfect unlearner's exposure may be by chance.

    reference_sd: (n_examples,), sample sd s_x over the reference models, nats. n_unlearned: models averaged on
    that side, 1 for a single run. n_reference: reference models. confidence: two-sided. shrink: `shrunk_sd` first.
    Returns (n_examples,) nats; infinite where fewer than two references leave it unknown.
    Source: this study; a prediction interval of normal theory.
    """
    if n_reference < 2:
        return np.full(np.shape(reference_sd), np.inf)
    df = n_reference - 1
    sd, df = shrunk_sd(reference_sd, df=df) if shrink else (np.asarray(reference_sd, dtype=float), float(df))
    # t · s_x · √(1/K_unlearned + 1/K_reference)
    level = (1 + confidence) / 2
    quantile = stats.t.ppf(level, df) if np.isfinite(df) else stats.norm.ppf(level)
    return quantile * sd * np.sqrt(1 / n_unlearned + 1 / n_reference)


def instance_part(*, exposure: Array, generator_part: Array) -> Array:
    """What is left of exposure when what the generator's never-trained examples show is taken away.

    exposure: (..., n_examples) of the forget set, generator_part: (...), mean exposure D of never-trained examples of
    its generator, nats. Returns (..., n_examples) nats. Source: this study.
    """
    return np.asarray(exposure) - np.asarray(generator_part)[..., None]


def worst_case(*, unlearned: Array, reference: Array, confidence: float = 0.95) -> float:
    """The most exposed example of the set, surely: the largest lower limit of |GenEx(x)|, all n limits valid at once.

    An estimate for likelihood events of the paper's ε, not a certificate: compare two halves of the references.
    unlearned: (n_unlearned, n_examples), reference: (n_reference, n_examples), log-likelihoods, nats.
    confidence: of all n intervals together (Bonferroni).
    Returns nats, zero or above; NaN with fewer than two models on a side. Source: Welch 1947 (limits); this study.
    """
    (k_u, n), k_r = np.shape(unlearned), len(reference)
    if min(k_u, k_r) < 2:
        return float("nan")
    # max over x of max(0, |d| − t(1 − α/2n) · se), se and its degrees of freedom by Welch
    v_u, v_r = np.var(unlearned, axis=0, ddof=1) / k_u, np.var(reference, axis=0, ddof=1) / k_r
    spread = np.maximum(v_u**2 / (k_u - 1) + v_r**2 / (k_r - 1), np.finfo(float).tiny)
    df = np.maximum((v_u + v_r) ** 2 / spread, 1.0)
    quantile = stats.t.ppf(1 - (1 - confidence) / (2 * n), df)
    difference = np.abs(generalized_exposure(unlearned=unlearned, reference=reference, estimator="mean_log"))
    return float(np.max(np.maximum(0.0, difference - quantile * np.sqrt(v_u + v_r))))


def predicted_reference(log_likelihoods: Array, design: Array, *, model: int, column: int) -> Array:
    """What `model` would give, not trained on the set of `column`: its own row with that column at −1.

    So the other sets that it holds, and its base, count.
    log_likelihoods: (M, n) of all trained models, nats. design: (M, C) of ±1, the base column included.
    model: row of the design. column: index of the forget set's column.
    Returns (n,) nats. Source: this study.
    """
    # ℓ̂(x) = β_0(x) + Σ_c d_c β_c(x), d the model's row with d_column = −1
    fit = main_effects(log_likelihoods, design)
    row = np.array(design, dtype=float)[model]
    row[column] = -1.0
    return fit.intercept + row @ fit.effects


def run_exposure(*, unlearned: Array, reference: Array) -> Array:
    """Exposure of one run against what its model would have been; zero and sign as in `generalized_exposure`.

    unlearned: (..., n), log-likelihoods of one model along its steps; reference: (n,), its reference; nats.
    Returns (..., n) nats. Source: this study; generalized exposure of one model a side.
    """
    # g(x) = ℓ_unlearned(x) − ℓ_reference(x)
    return np.asarray(unlearned, dtype=float) - np.asarray(reference, dtype=float)


def steps_to_forget(exposure: Array, steps: Array) -> Array | float:
    """First zero crossing k*, linearly interpolated between steps; NaN where it is censored (never reached).

    What starts at or under zero needs no step. A step that is not finite (divergence) ends the run there.
    exposure: (steps,) set mean or (steps, n) per example, nats. steps: (steps,), increasing.
    Returns a number, or (n,), in steps. Source: this study.
    """
    exposure, steps = np.asarray(exposure, dtype=float), np.asarray(steps, dtype=float)
    if exposure.ndim == 1:
        return float(steps_to_forget(exposure[:, None], steps)[0])
    # k* = i + g_i / (g_i − g_{i+1}) · (step_{i+1} − step_i) at the first i + 1 with g ≤ 0
    alive = np.logical_and.accumulate(np.isfinite(exposure), axis=0)
    crossed = alive & (np.where(alive, exposure, np.inf) <= 0)
    after = np.argmax(crossed, axis=0)
    before, column = np.maximum(after - 1, 0), np.arange(exposure.shape[1])
    high, low = exposure[before, column], exposure[after, column]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(after > 0, high / (high - low), 0.0)
    k_star = steps[before] + share * (steps[after] - steps[before])
    return np.where(crossed.any(axis=0), k_star, np.nan)


def steps_to_share_inside(exposure: Array, steps: Array, *, floor: Array, share: float = 0.95) -> float:
    """First step (k95) at which at most 1 − share of the set lies above the noise floor; NaN if none.

    exposure: (steps, n) run exposure, nats. steps: (steps,). floor: (n,) half-width of the noise floor, nats.
    Returns a step. Source: this study.
    """
    exposure = np.asarray(exposure, dtype=float)
    above = np.mean(~(exposure <= floor), axis=1)  # a NaN counts as above
    reached = np.flatnonzero(above <= 1 - share + 1e-12)
    return float(np.asarray(steps)[reached[0]]) if len(reached) else float("nan")
