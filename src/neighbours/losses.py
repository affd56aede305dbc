"""Losses of the field's usual methods, for the study's loop (`ascent.ascend`): what a step *descends*.

A loss is given the (n,) log-likelihoods of the forget batch, nats, differentiable, and its (n,) target tokens; one that
looks at a retain batch is given these two of that as well. What else it needs it is made with.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from unlearning.measure.ascent import Loss, ascent_mean
from unlearning.measure.models import Batch, target_states
from unlearning.measure.scoring import Prepared


def gradient_difference(*, forget: float = 1.0, retain: float = 1.0) -> Loss:
    """GradDiff: ascent on the forget batch and descent on the retain batch, nats per token; `retain` = 0: ascent.

    forget, retain: weights without unit. Source: Liu et al. 2022, Continual learning and private unlearning.
    """

    def loss(of_forget: Tensor, n_forget: np.ndarray, of_retain: Tensor, n_retain: np.ndarray) -> Tensor:
        # J = w_F Σℓ(F)/N_F − w_R Σℓ(R)/N_R
        return forget * ascent_mean(of_forget, n_forget) - retain * ascent_mean(of_retain, n_retain)

    return loss


def retain_only(_: Tensor, __: np.ndarray, of_retain: Tensor, n_retain: np.ndarray) -> Tensor:
    """Fine-tuning on retain data alone, nats per token: what is not rehearsed may fade. Source: textbook."""
    # J = −Σℓ(R)/N_R
    return -ascent_mean(of_retain, n_retain)


def nothing(of_forget: Tensor, _: np.ndarray) -> Tensor:
    """Zero, with a gradient of zero: only the optimizer's noise moves the model."""
    return 0.0 * of_forget.sum()


def npo(original: Tensor, *, beta: float) -> Loss:
    """Negative preference optimisation: ascent that leaves an example alone as it falls below the original model.

    The gradient is that of ascent with weight 2σ(β[ℓ − ℓ₀]) on each example: 1 at the start, 0 in the end. β → 0: plain
    ascent, by example. original: (n,) ℓ₀, log-likelihoods of the same batch under the original model, nats.
    beta: 1/nats, above 0. Source: Zhang et al. 2024, Negative preference optimization, equation 3.
    """

    def loss(of_forget: Tensor, _: np.ndarray) -> Tensor:
        # J = −2/β · mean_x log σ(−β [ℓ(x) − ℓ₀(x)])
        return -2 / beta * functional.logsigmoid(-beta * (of_forget - original)).mean()

    return loss


def simnpo(*, beta: float, gamma: float = 0.0) -> Loss:
    """NPO without an original model: the weight of an example fades with its own log-likelihood per token.

    β → 0 with γ = 0: plain ascent on ℓ/n, by example. beta: 1/(nats per token), above 0. gamma: a margin, no unit.
    Source: Fan et al. 2024, Simplicity prevails, equation 4.
    """

    def loss(of_forget: Tensor, n_tokens: np.ndarray) -> Tensor:
        # J = −2/β · mean_x log σ(−β ℓ(x)/n_x − γ)
        per_token = of_forget / torch.as_tensor(n_tokens, device=of_forget.device)
        return -2 / beta * functional.logsigmoid(-beta * per_token - gamma).mean()

    return loss


def kl_to_original(
    model: PreTrainedModel, original: PreTrainedModel, retain: Iterator[Prepared], *, weight: float = 1.0
) -> Loss:
    """Ascent held back by the divergence from the original model on retain data, nats per token; weight 0: ascent.

    original: a copy of the model as it was. retain: batches, one a step. weight: no unit.
    Source: Maini et al. 2024, TOFU, section 4 (KL minimisation).
    """

    def loss(of_forget: Tensor, n_tokens: np.ndarray) -> Tensor:
        # J = Σℓ(F)/N_F + w · mean over retain tokens of KL(p_original ‖ p_model)
        moved = [divergence(token_logits(original, b).detach(), token_logits(model, b)) for b in next(retain).batches]
        return ascent_mean(of_forget, n_tokens) + weight * torch.cat(moved).mean()

    return loss


def divergence(original: Tensor, logits: Tensor) -> Tensor:
    """KL(p_original ‖ p) at each position, (N,) nats, zero or above, from (N, vocabulary) logits of both."""
    # Σ_v p₀(v) [log p₀(v) − log p(v)]
    target, own = original.log_softmax(-1), logits.log_softmax(-1)
    return functional.kl_div(own, target, reduction="none", log_target=True).sum(-1)


def token_logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    """(N, vocabulary) logits at the target positions of a batch, differentiable."""
    return model.get_output_embeddings()(target_states(model, batch.to(model.device))).float()
