"""How strange is an input to a model? Gradients under a label that nobody was trained on, and two older scores.

Higher scores mean stranger. No true label is looked at, no reference, and nothing is unlearned yet.
Source: Lee et al. 2022 (arXiv 2206.08255); features as in its precursor (arXiv 2008.08030).
"""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from neighbours import convex
from neighbours.losses import token_logits
from unlearning.errors import StudyError
from unlearning.measure.models import Encoded, collate

Array = np.ndarray
LEAST = 1e-30  # squared norm of a gradient that is zero


def gradient_features(model: PreTrainedModel, examples: Sequence[Encoded]) -> Array:
    """(n, tensors) log of the squared gradient norm per parameter tensor, under a uniform label at each position.

    The loss is a mean over positions, so that length alone decides nothing. One backward pass an example.
    """
    parameters, rows = list(model.parameters()), []
    for example in examples:
        # J(x) = −mean_t mean_v log p(v | y_<t, source);  feature_j = log ‖∂J/∂W_j‖²
        loss = -token_logits(model, collate([example], model.config)).log_softmax(-1).mean()
        rows.append([float(g.square().sum()) for g in torch.autograd.grad(loss, parameters)])
    return np.log(np.maximum(rows, LEAST))


def gradient_score(features: Array) -> Array:
    """(n,) log of the squared norm of the whole gradient: one score that needs no labelled example. From log features.

    Source: Huang et al. 2021 in spirit; the sum is a simplification of what Lee et al. do.
    """
    return np.logaddexp.reduce(features, axis=1)


@torch.no_grad()
def encoder_features(model: PreTrainedModel, examples: Sequence[Encoded]) -> Array:
    """(n, width) mean of the encoder's last states over the source's tokens. StudyError: the model has no encoder."""
    if not model.config.is_encoder_decoder:
        raise StudyError("Frozen features come from an encoder; this model has none. Take an encoder-decoder model.")
    rows = []
    for example in examples:
        inputs = collate([example], model.config).to(model.device).inputs
        states = model.get_encoder()(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        rows.append(states.last_hidden_state[0].mean(dim=0).double().cpu().numpy())
    return np.array(rows)


def mahalanobis(features: Array, inside: Array, *, ridge: float = 1e-3) -> Array:
    """(n,) squared distance from the mean of in-distribution features in their covariance; about the width for such.

    features: (n, width), inside: (m, width). ridge: of the mean variance, added to each. Source: Lee et al. 2018.
    """
    covariance = np.cov(inside, rowvar=False)
    covariance += ridge * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    away = features - inside.mean(axis=0)
    # (z − μ)ᵀ Σ⁻¹ (z − μ)
    return np.einsum("nd,nd->n", away, np.linalg.solve(covariance, away.T).T)


def cross_validated(features: Array, strange: Array, *, penalty: float, folds: int, seed: int) -> Array:
    """(n,) log-odds of being strange by a logistic regression that did not see the example: the supervised detector.

    features: (n, p). strange: (n,) of bool. Half of the examples and more train it; it needs labelled strange ones.
    """
    part = np.random.default_rng(seed).permutation(len(features)) % folds
    scores = np.empty(len(features))
    for fold in range(folds):
        train, mean = part != fold, features[part != fold].mean(axis=0)
        scaled = (features - mean) / np.maximum(features[train].std(axis=0), 1e-9)
        x = torch.from_numpy(np.column_stack([scaled, np.ones(len(scaled))]))
        y = torch.from_numpy(strange.astype(float))
        loss = convex.logistic(x[train], y[train], penalty=penalty)
        scores[~train] = (x[~train] @ convex.minimiser(loss, torch.zeros(x.shape[1], dtype=x.dtype))).numpy()
    return scores
