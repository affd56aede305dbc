"""Fitting a model to its training set: batches by token budget, an order that leaving a set out changes little."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from unlearning.measure.models import Batch, Encoded, collate, token_log_likelihoods
from unlearning.measure.scoring import by_length, example_lengths, padded_batches

POOL_BATCHES = 16  # rows are sorted by length only inside a pool of so many batches: little padding, same order


class Epoch(NamedTuple):
    """What one pass over the training set did."""

    number: int
    loss: float  # mean, nats per target token
    steps: int  # of the optimizer, so far


def epoch_batches(rows: np.ndarray, lengths: np.ndarray, *, budget: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The batches of one epoch, in order, of at most `budget` padded tokens.

    Two models that differ in one set see all other rows in the same order, up to sorting by length inside a pool.
    rows: (n,) those of the universe that this model is trained on; a repeated example is several rows.
    lengths: (universe, 2) source and target lengths.
    """
    # every row of the universe has a random rank of its own, drawn whether or not this model holds the row
    generator = np.random.default_rng([seed, epoch])
    order = rows[np.argsort(generator.random(len(lengths))[rows], kind="stable")]
    pool = np.cumsum(lengths[order].sum(axis=1)) // (budget * POOL_BATCHES)
    batches = []
    for members in (order[pool == p] for p in np.unique(pool)):
        cut = list(padded_batches(members[by_length(lengths[members])], lengths, budget=budget))
        batches += [cut[i] for i in generator.permutation(len(cut))]
    return batches


def learning_rate_factor(step: int, *, warmup: int, total: int, schedule: str) -> float:
    """Share of the peak learning rate at `step` (from 0): linear warm-up, then `linear` to zero or `constant`."""
    if step < warmup:
        return (step + 1) / warmup
    return 1.0 if schedule == "constant" else (total - step) / max(1, total - warmup)


class _NegativeLogLikelihood(nn.Module):
    """The training loss as a module, so that what wraps modules (data-parallel, sharded) sees its forward pass."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        """(N,) negative log-likelihoods of a batch's target tokens, nats."""
        return -token_log_likelihoods(self.model, batch)[0]


class _OneProcess:
    """What `fit` needs of an Accelerator, for the usual case of one process and one device."""

    process_index, num_processes = 0, 1
    clip_grad_norm_ = staticmethod(nn.utils.clip_grad_norm_)
    prepare = staticmethod(lambda *parts: parts)
    backward = staticmethod(Tensor.backward)
    reduce = staticmethod(lambda value: value)


def fit(
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    universe: Sequence[Encoded],
    rows: np.ndarray,
    *,
    epochs: int,
    batch_tokens: int,
    loss: str,
    warmup_steps: int,
    schedule: str,
    clip_norm: float | None,
    precision: str,
    seed: int,
    accelerator: Any = None,
) -> Iterator[Epoch]:
    """Train in place; yields after every epoch, so that the caller can measure.

    universe: every row that any model of the study may see. rows: (n,) those of this model.
    loss: `mean` or `sum` of the negative log-likelihood over the batch's target tokens.
    precision: `float32`, or a lower one for the forward pass (autocast); master weights are always fp32.
    seed: decides data order and dropout, nothing else.
    accelerator: of HF Accelerate, to train one model over several devices: each process takes its share of the rows of
    every batch, so that a step is that of one process up to rounding. Launch with `torchrun`.
    """
    accelerator = accelerator or _OneProcess()
    share, world = accelerator.process_index, accelerator.num_processes
    nll_of, optimizer = accelerator.prepare(_NegativeLogLikelihood(model), optimizer)
    lengths = example_lengths(universe)
    plan = [epoch_batches(rows, lengths, budget=batch_tokens, seed=seed, epoch=e) for e in range(epochs)]
    total, peak, step = sum(map(len, plan)), optimizer.param_groups[0]["lr"], 0
    torch.manual_seed(seed)
    for epoch, batches in enumerate(plan, start=1):
        model.train()
        nats, tokens = torch.zeros((), dtype=torch.float64), 0
        for batch_rows in batches:
            factor = learning_rate_factor(step, warmup=warmup_steps, total=total, schedule=schedule)
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
            mine, n_tokens = batch_rows[share::world], int(lengths[batch_rows, 1].sum())
            # a process without a row takes part with one that weighs nothing
            batch = collate([universe[i] for i in (mine if len(mine) else batch_rows[:1])], model.config)
            with torch.autocast(model.device.type, dtype=getattr(torch, precision), enabled=precision != "float32"):
                nll = nll_of(batch).sum() * (1.0 if len(mine) else 0.0)
            optimizer.zero_grad()
            # what several processes do to gradients is to average them
            accelerator.backward(nll * world if loss == "sum" else nll * (world / n_tokens))
            if clip_norm:
                accelerator.clip_grad_norm_(nll_of.parameters(), clip_norm)
            optimizer.step()
            nats, tokens, step = nats + nll.detach().cpu(), tokens + n_tokens, step + 1
        model.eval()
        yield Epoch(epoch, float(accelerator.reduce(nats.to(model.device))) / tokens, step)
