"""This study's code at work, called as its stages call it. Each function sets up and returns what is timed."""

from collections.abc import Callable
from itertools import islice, repeat
from pathlib import Path

import numpy as np
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from benchmarks.clock import Timed, timed
from benchmarks.work import SEED, Work, tokens
from unlearning.measure import models, scoring
from unlearning.measure.ascent import LOSSES, Update, ascend
from unlearning.measure.optimizers import make_optimizer
from unlearning.measure.training import fit

Hook = Callable[[PreTrainedModel], None] | None  # called after every step


def train(work: Work, *, precision: str = "float32", vocabulary: int = 0, epochs: int = 1, hook: Hook = None) -> Timed:
    """Train a model by `fit`, at a constant learning rate. The result: the model."""
    model = work.new_model(vocabulary)
    optimizer = make_optimizer(model.parameters(), "adamw", work.training)
    if hook:
        optimizer.register_step_post_hook(lambda *_: hook(model))
    settings = {name: work.training[name] for name in ("batch_tokens", "loss", "clip_norm")}
    settings |= {"schedule": "constant", "warmup_steps": 0, "epochs": epochs, "precision": precision, "seed": SEED}

    def action() -> PreTrainedModel:
        list(fit(model, optimizer, work.train, np.arange(len(work.train)), **settings))
        return model

    return timed(epochs * tokens(work.train), action)


def unlearn(work: Work) -> Timed:
    """Updates on the whole forget set; held-out examples are scored after each.

    The result: the forget set's log-likelihood, summed, after each update. It comes with the forward pass of the next
    update; the one after the last is made for it alone.
    """
    model = work.trained_model()
    optimizer = make_optimizer(model.parameters(), "adamw", work.ascent)
    watched = scoring.prepare(work.heldout[: work.watched], model.config)

    def action() -> list[float]:
        updates, found = repeat(Update(scoring.prepare(work.forget, model.config))), []
        for state in islice(ascend(model, optimizer, updates, loss=LOSSES[work.ascent["loss"]]), work.steps + 1):
            if state.step:
                scoring.score(model, watched)
                found.append(float(state.log_likelihood.double().sum()))
        return found

    return timed(work.steps, action)


def score(work: Work, *, vocabulary: int = 0) -> Timed:
    """The log-likelihood of every held-out example, batches made within the time. A larger vocabulary is untrained."""
    model = work.new_model(vocabulary).eval() if vocabulary else work.trained_model()
    return timed(len(work.heldout), lambda: scoring.score(model, work.heldout).log_likelihood)


def translate(work: Work) -> Timed:
    """BLEU of greedy translations: one batch, sorted by length."""
    model, tokenizer, examples = work.trained_model(), work.load_tokenizer(), work.heldout[: work.decoded]
    return timed(len(examples), lambda: scoring.bleu(model, tokenizer, examples, max_new_tokens=work.width))


def make_start(work: Work, *, epochs: int = 4) -> None:
    """Train the start model, if it is not there: a random one would not end its translations as a real one does."""
    if not Path(work.start).exists():
        models.save_model(train(work, epochs=epochs)().result, work.start)


def flops_per_token(work: Work, *, batches: int = 6) -> float:
    """Floating-point operations of training per real token, forward and backward, those on padding included."""
    model, flops, real = work.new_model(), 0, 0
    for rows in work.batches()[:batches]:
        examples = [work.train[i] for i in rows]
        with FlopCounterMode(display=False) as counter:
            models.token_log_likelihoods(model, models.collate(examples, model.config))[0].sum().backward()
        flops, real = flops + counter.get_total_flops(), real + tokens(examples)
    return flops / real
