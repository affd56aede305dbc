"""What is measured in place of generalized exposure: relative exposure, exposure by rank, membership inference.

Log-likelihoods ℓ(x) as in `genex`: nats, over target tokens, end of sequence included. n: examples.
"""

import numpy as np
from scipy import special, stats

Array = np.ndarray


def relative_exposure_population(
    *, forget_set: Array, n_tokens: Array, never_trained: Array, never_trained_n_tokens: Array
) -> Array:
    """RelEx by population: how much likelier F is than never-trained examples of its generator and length; set level.

    Zero: the set is as likely as examples of its kind that nobody trained on.
    forget_set: (..., n), never_trained: (..., p), log-likelihoods under one model, nats; (n,) and (p,) target tokens.
    Returns (...) nats per token. Source: what the authors' code invites (their formula is not public); mean of logs.
    """
    # each example against those of its own length, or the nearest: w_xy = 1 / (number of nearest) where y is one
    distance = np.abs(np.subtract.outer(np.asarray(n_tokens), np.asarray(never_trained_n_tokens)))
    weights = (distance == distance.min(axis=1, keepdims=True)).astype(float)
    weights /= weights.sum(axis=1, keepdims=True)
    # RelEx = mean_x [ℓ(x)/n_x − Σ_y w_xy ℓ(y)/n_y]
    expected = (np.asarray(never_trained) / never_trained_n_tokens) @ weights.T
    return np.mean(np.asarray(forget_set) / n_tokens - expected, axis=-1)


def relative_exposure_checkpoint(*, unlearned: Array, base: Array) -> Array:
    """RelEx by checkpoint: (..., n) and (n,) nats; zero: the model is back at its base. Source: the authors' code."""
    # ℓ_k(x) − ℓ_base(x)
    return np.asarray(unlearned, dtype=float) - np.asarray(base, dtype=float)


def relative_exposure_original(*, unlearned: Array, original: Array) -> Array:
    """RelEx by original model: (..., n) and (n,) nats; zero at step 0 by definition. Source: the authors' code."""
    # ℓ_k(x) − ℓ_θ0(x)
    return np.asarray(unlearned, dtype=float) - np.asarray(original, dtype=float)


def exposure_by_rank(*, log_likelihoods: Array, never_trained: Array) -> Array:
    """Exposure of x among R, the never-trained examples and x itself. Ties share their mean rank.

    Large: x is likelier than examples of its generator and length that nobody trained on, whose own exposure is about
    1/ln 2 = 1.44 bits, not 0. Ceiling: log2 |R|, at rank 1 (see `at_ceiling`).
    log_likelihoods: (..., n) of the examples, never_trained: (p,), under the same model, nats.
    Returns (..., n) bits. Source: Carlini et al. 2019, section 4.2.
    """
    ordered, values = np.sort(never_trained), np.asarray(log_likelihoods)
    likelier = len(ordered) - np.searchsorted(ordered, values, side="right")
    tied = len(ordered) - likelier - np.searchsorted(ordered, values, side="left")
    # exposure(x) = log2 |R| − log2 rank(x)
    return np.log2(len(ordered) + 1) - np.log2(1 + likelier + tied / 2)


def at_ceiling(*, log_likelihoods: Array, never_trained: Array) -> Array:
    """(..., n) of bool: none of the (p,) never-trained is as likely, nats: a bound. Source: Carlini et al. 2019."""
    return np.asarray(log_likelihoods) > np.max(never_trained)


def exposure_by_skew_normal(*, log_likelihoods: Array, never_trained: Array, ceiling: float = np.inf) -> Array:
    """Exposure beyond rank 1, extrapolated by a skew normal fitted to the never-trained examples.

    log_likelihoods: (..., n) of the examples, never_trained: (p,), nats. ceiling: the largest value there can be, bits,
    log2 of the number of canaries that the generator can draw.
    Returns (..., n) bits, at most `ceiling`. Source: Carlini et al. 2019, section 4.3 (distribution modelling).
    """
    # exposure(x) = −log2 P(NLL ≤ NLL(x)) under the fitted distribution
    shape, location, scale = stats.skewnorm.fit(-np.asarray(never_trained, dtype=float))
    z = (-np.asarray(log_likelihoods, dtype=float) - location) / scale
    return np.minimum(-_skew_normal_log_cdf(z, shape) / np.log(2), ceiling)


def _skew_normal_log_cdf(z: Array, shape: float) -> Array:
    # log ∫ 2 φ(t) Φ(shape · t) dt over t = z − u, u from 0: as a logarithm, since scipy's cancels in the tail, and
    # the order of examples would be lost there
    u = np.geomspace(1e-8, 1e2, 4000)
    t = np.ravel(z)[:, None] - np.concatenate([[0.0], u])
    log_density = np.log(2) + stats.norm.logpdf(t) + special.log_ndtr(shape * t)
    width = np.diff(np.concatenate([[0.0], u]))
    area = np.logaddexp(log_density[:, 1:], log_density[:, :-1]) + np.log(width / 2)
    return np.minimum(special.logsumexp(area, axis=1), 0.0).reshape(np.shape(z))


def likelihood_ratio_score(*, log_likelihoods: Array, inside: Array, outside: Array) -> Array:
    """Log-ratio of the densities of ℓ(x) as member and as non-member; positive: looks like a member.

    log_likelihoods: (..., n) under the attacked model, which is none of the others; inside: (n_in, n) under models
    trained on x, outside: (n_out, n) under models that were not; nats.
    Returns (..., n) nats. Source: Carlini et al. 2022, likelihood-ratio attack, section V (global variance).
    """

    # log N(ℓ(x); μ_x, σ²), without the constant; σ² pooled over examples: a few models do not tell each example's own
    def log_density(population: Array) -> Array:
        sd = max(np.sqrt(np.mean(np.var(population, axis=0, ddof=1))), 1e-9)
        return -np.log(sd) - ((log_likelihoods - np.mean(population, axis=0)) / sd) ** 2 / 2

    return log_density(inside) - log_density(outside)


def auc(*, positives: Array, negatives: Array) -> float:
    """Area under the ROC curve of scores of any shape and unit: a share; 0.5: no telling apart.

    Source: Mann & Whitney 1947.
    """
    # P(positive > negative) + P(equal) / 2, by ranks
    positives, negatives = np.ravel(positives), np.ravel(negatives)
    ranks = stats.rankdata(np.concatenate([positives, negatives]))[: len(positives)]
    least = len(positives) * (len(positives) + 1) / 2
    return float((ranks.sum() - least) / (len(positives) * len(negatives)))


def tpr_at_fpr(*, positives: Array, negatives: Array, fpr: float = 0.01) -> float:
    """Share of positives above the lowest threshold that at most `fpr` of the negatives exceed; scores of any shape.

    Source: Carlini et al. 2022, section III.
    """
    negatives = np.sort(np.ravel(negatives))[::-1]
    threshold = negatives[int(np.floor(fpr * len(negatives) + 1e-9))] if fpr < 1 else -np.inf
    return float(np.mean(np.ravel(positives) > threshold))
