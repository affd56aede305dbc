"""Three properties of an example: how far it is remembered, how hard it is, and how fast it is unlearnt."""

import numpy as np

from unlearning.core.performance import interpolate

Array = np.ndarray


def counterfactual_memorization(*, inside: Array, outside: Array) -> Array:
    """How much likelier an example is where it was trained on; zero where training on x changed nothing for x.

    inside, outside: (n_models, n), log-likelihood per token (or token accuracy) of models trained on x, and not.
    Returns (n,) nats per token (or accuracy). Source: Feldman & Zhang 2020, equation 2; Zhang et al. 2021, equation 2.
    """
    # mem(x) = E_in[ℓ(x)/n_x] − E_out[ℓ(x)/n_x]
    return np.mean(inside, axis=0) - np.mean(outside, axis=0)


def difficulty(*, base: Array, n_tokens: Array) -> Array:
    """How unlikely an example is before fine-tuning, (n,) nats per token; large means hard.

    base: (n_bases, n), log-likelihoods under the base models, nats. n_tokens: (n,), target tokens.
    Source: this study.
    """
    # difficulty(x) = −E_base[ℓ(x)/n_x]
    return -np.mean(np.asarray(base) / n_tokens, axis=0)


def rate(log_likelihoods: Array, steps: Array, *, n_tokens: Array, k_star: float) -> Array:
    """How fast each example is unlearnt over the first half of its set's k*; positive where it becomes less likely.

    log_likelihoods: (steps, n) of one run, nats, first of the original model. steps: (steps,), increasing from 0.
    n_tokens: (n,), target tokens. k_star: steps to forget of the set; of a placebo, which has none, those that models
    which hold the set take on average.
    Returns (n,) nats per token and step; NaN without a k* above zero. Source: this study (claims C5 and C6).
    """
    # rate(x) = [ℓ_0(x) − ℓ_{k*/2}(x)] / n_x / (k*/2)
    half = k_star / 2
    removed = log_likelihoods[0] - interpolate(log_likelihoods, steps, half)
    return removed / n_tokens / half if half > 0 else np.full(np.shape(n_tokens), np.nan)
