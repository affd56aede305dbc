"""The study's own code at work, just as its stages call it."""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from benchmarks.workloads import Workload, tokens
from unlearning.measure.ascent import State, ascend
from unlearning.data.groups import Group
from unlearning.measure.models import collate, token_log_likelihoods
from unlearning.measure.optimizers import make_optimizer
from unlearning.measure.scoring import prepare, score
from unlearning.measure.training import fit
from unlearning.measure.trajectory import ascent_updates


def train(
    model: PreTrainedModel,
    work: Workload,
    *,
    epochs: int = 1,
    precision: str = "float32",
    after_step: Callable[[], None] | None = None,
) -> None:
    """Train in place by `fit`."""
    optimizer = make_optimizer(model.parameters(), "adamw", work.training)
    if after_step:
        optimizer.register_step_post_hook(lambda *_: after_step())
    settings = work.fit_settings(epochs=epochs)
    for _ in fit(model, optimizer, work.train, np.arange(len(work.train)), precision=precision, **settings):
        pass


def unlearn(model: PreTrainedModel, work: Workload, *, each: Callable[[State], None] | None = None) -> None:
    """`work.steps` updates on the whole forget set; held-out examples are scored after every one.

    The forget set's scores come with each update's forward pass. The one after the last update is made for them alone.
    """
    forget = Group([str(i) for i in range(len(work.forget))], work.forget)
    watched = prepare(work.heldout[: work.watched], model.config)
    optimizer = make_optimizer(model.parameters(), "adamw", work.method)
    updates = ascent_updates(forget, model, "whole", seed=0)
    for state in ascend(model, optimizer, updates, reduction=work.method["loss"]):
        if state.step:
            score(model, watched)
        if each:
            each(state)
        if state.step == work.steps:
            break


def largest_projection(work: Workload) -> int:
    """Most positions that the vocabulary projection sees at once, while the study trains, ascends and scores."""
    model, largest = work.new_model(), 0

    def note(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal largest
        largest = max(largest, inputs[0].numel() // inputs[0].shape[-1])

    hook = model.get_output_embeddings().register_forward_hook(note)
    score(model, work.heldout)
    train(model, work.small())
    unlearn(model, dataclasses.replace(work, steps=1))
    hook.remove()
    return largest


def flops_per_token(work: Workload, *, batches: int = 6) -> float:
    """Floating-point operations of training per real token, forward and backward, those on padding included."""
    model, flops, real = work.new_model(), 0, 0
    for rows in work.batches()[:batches]:
        examples = [work.train[i] for i in rows]
        with FlopCounterMode(display=False) as counter:
            token_log_likelihoods(model, collate(examples, model.config))[0].sum().backward()
        flops, real = flops + counter.get_total_flops(), real + tokens(examples)
    return flops / real
