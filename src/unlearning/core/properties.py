"""Two properties of an example: how far training on it is remembered, and how hard it is without that."""

import numpy as np

Array = np.ndarray


def counterfactual_memorization(*, inside: Array, outside: Array) -> Array:
    """mem(x): mean over in-models minus mean over out-models; zero where training on x changed nothing for x.

    Args:
        inside: (n_models, n) log-likelihood per token (or token accuracy) of models trained on x.
        outside: (n_models, n) the same of models that were not.

    Returns:
        (n,) nats per token (or accuracy).

    Source: Feldman & Zhang 2020, equation 2; Zhang et al. 2021, equation 2.
    """
    return np.mean(inside, axis=0) - np.mean(outside, axis=0)


def difficulty(*, base: Array, n_tokens: Array) -> Array:
    """Mean negative log-likelihood per token under the bases, nats per token; (n_bases, n), (n,) -> (n,)."""
    return -np.mean(np.asarray(base) / n_tokens, axis=0)
