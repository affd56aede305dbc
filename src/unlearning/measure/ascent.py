"""Gradient ascent on a forget set's negative log-likelihood: the loss of one example, a step, a generator of steps.

Source: Jang et al. 2023 (Knowledge Unlearning), eq. 1; Baluta et al. 2024. Every deviation from the
authors' code stands in the README.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from unlearning.measure.scoring import Prepared, log_likelihoods


@dataclass(frozen=True)
class State:
    """An unlearned model's forget set after `step` updates.

    Attributes:
        log_likelihood: (n,) of each example of the update, nats.
        n_correct: (n,) target tokens that are the most likely one.
    """

    step: int
    log_likelihood: Tensor
    n_correct: Tensor


def ascent_loss(log_likelihood: Tensor, n_tokens: Tensor, *, reduction: str) -> Tensor:
    """The quantity a step *descends*: log-likelihood of the forget set, so that its negative log-likelihood ascends.

    Args:
        log_likelihood: (n,) per example, nats.
        n_tokens: (n,) target tokens.
        reduction: `sum` over target tokens (the authors') or `mean` per target token.
    """
    return log_likelihood.sum() if reduction == "sum" else log_likelihood.sum() / int(n_tokens.sum())


def ascend(
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    updates: Iterator[Prepared],
    *,
    reduction: str,
    clip_norm: float | None = None,
) -> Iterator[State]:
    """Unlearn in place; yields the state *before* each update, step 0 being the original model.

    The yielded log-likelihoods come from the update's own forward pass. While the consumer holds a state the
    parameters are that state's, and the gradients still those of the previous update.

    Args:
        updates: the examples of each update, in batches of like length whose gradients add up.

    Ends after yielding a state whose log-likelihoods are not finite (a diverged run).
    """
    for step, examples in enumerate(updates):
        log_likelihood, n_correct = log_likelihoods(model, examples)
        yield State(step, log_likelihood.detach().cpu(), n_correct.cpu())
        if not torch.isfinite(log_likelihood).all():
            return
        optimizer.zero_grad()
        n_tokens = torch.from_numpy(examples.n_tokens)
        ascent_loss(log_likelihood, n_tokens, reduction=reduction).backward()
        if clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
