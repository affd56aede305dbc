"""Unlearning step by step. A method is a loss over forget and retain batches, an optimizer and its state.

Gradient ascent on the forget set's negative log-likelihood is the simplest: it looks at no retain batch.
Source: Jang et al. 2023 (Knowledge Unlearning), eq. 1; Baluta et al. 2024. docs/deviations.md lists every deviation.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from unlearning.measure.scoring import Prepared, log_likelihoods

# of (n,) log-likelihoods and target tokens of the forget batch and, if there is one, the same two of the retain batch
Loss = Callable[..., Tensor]


class Update(NamedTuple):
    """The examples of one update: what it forgets and, for methods that look at it, what it retains."""

    forget: Prepared
    retain: Prepared | None = None


class State(NamedTuple):
    """An unlearned model's forget set after `step` updates."""

    step: int
    log_likelihood: Tensor  # (n,) of each example of the next update, nats
    n_correct: Tensor  # (n,) target tokens that are the most likely one


def ascent_sum(log_likelihood: Tensor, n_tokens: np.ndarray) -> Tensor:
    """What a step *descends*: (n,) log-likelihoods summed over target tokens (the authors'), nats."""
    return log_likelihood.sum()


def ascent_mean(log_likelihood: Tensor, n_tokens: np.ndarray) -> Tensor:
    """What a step *descends*: (n,) log-likelihoods per target token of the update, nats per token."""
    return log_likelihood.sum() / int(n_tokens.sum())


LOSSES: dict[str, Loss] = {"sum": ascent_sum, "mean": ascent_mean}


def ascend(
    model: nn.Module, optimizer: Optimizer, updates: Iterator[Update], *, loss: Loss, clip_norm: float | None = None
) -> Iterator[State]:
    """Unlearn in place by descending `loss`; yields the state *before* each update, step 0 being the original model.

    While the consumer holds a state the parameters are that state's, and the gradients still those of the previous
    update. Ends after yielding a state whose log-likelihoods are not finite (a diverged run).
    """
    for step, update in enumerate(updates):
        log_likelihood, n_correct = log_likelihoods(model, update.forget)
        yield State(step, log_likelihood.detach().cpu(), n_correct.cpu())
        if not torch.isfinite(log_likelihood).all():
            return
        seen = [log_likelihood, update.forget.n_tokens]
        if update.retain is not None:
            seen += [log_likelihoods(model, update.retain)[0], update.retain.n_tokens]
        optimizer.zero_grad()
        loss(*seen).backward()  # of log-likelihood: descending it, its negative ascends
        if clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
