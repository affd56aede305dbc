"""One ascent, followed: what is measured at which step, and k* found on the way.

At step 0 only the forget set is scored: what training wrote holds the rest. Nothing is scored that no reading uses.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import floor, nan

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unlearning.core.genex import steps_to_forget
from unlearning.data.groups import Group
from unlearning.data.tables import log_likelihood_rows, performance_row, token_rows
from unlearning.measure.ascent import LOSSES, Update, ascend
from unlearning.measure.optimizers import update_statistics
from unlearning.measure.scoring import (
    Prepared,
    Scores,
    bleu,
    example_lengths,
    log_likelihoods,
    prepare,
    score,
    score_tokens,
)


@dataclass
class Trajectory:
    """The examples on which an ascent is watched, and what was measured of them."""

    forget: Group
    heldout: Group
    retain: Group
    retained: Group  # of other sets of the kind that the model holds
    population: Group  # never trained, of the forget set's generator
    heldout_fixed: int
    followed: int
    bleu_sentences: int
    bleu_tokens: int
    tokenizer: PreTrainedTokenizerBase
    bleu_tokenizer: str = "13a"  # sacrebleu's
    facts: dict = field(default_factory=dict)  # the row of the run
    scores: list[tuple[int, Group, Scores]] = field(default_factory=list)  # by step and group
    splits: dict[tuple[int, str], tuple[Scores, float]] = field(default_factory=dict)  # with BLEU, by step and split
    tokens: dict[int, np.ndarray] = field(default_factory=dict)  # of the forget set, by step
    prepared: dict[tuple[str, ...], Prepared] = field(default_factory=dict)

    def log_likelihoods(self, key: dict) -> pd.DataFrame:
        """The log_likelihoods table of this run."""
        return pd.concat([log_likelihood_rows({**key, "step": s}, g, x) for s, g, x in self.scores])

    def performance(self, key: dict) -> pd.DataFrame:
        """The performance table of this run."""
        splits = self.splits.items()
        return pd.DataFrame([performance_row({**key, "step": s}, n, x, bleu=b) for (s, n), (x, b) in splits])

    def by_token(self, key: dict) -> pd.DataFrame:
        """The tokens table of this run; no row for a placebo."""
        rows = [token_rows({**key, "step": step}, self.forget, found) for step, found in self.tokens.items()]
        return pd.concat(rows) if rows else pd.DataFrame()

    def score(self, model: PreTrainedModel, group: Group) -> Scores:
        """Score a group; it is collated the first time only."""
        ids = tuple(group.ids)
        if ids not in self.prepared:
            self.prepared[ids] = prepare(group.encoded, model.config)
        return score(model, self.prepared[ids])

    def sentences(self, model: PreTrainedModel, step: int) -> None:
        """Score all held-out sentences, and keep each."""
        found = self.score(model, self.heldout)
        self.scores.append((step, self.heldout, found))
        self.splits[step, "heldout"] = found, nan
        self.splits[step, "heldout_fixed"] = found.first(self.heldout_fixed), nan

    def along(self, model: PreTrainedModel, step: int, *, population: int) -> None:
        """Score the fixed held-out sentences and the first `population` never-trained examples."""
        if (step, "heldout_fixed") not in self.splits:
            fixed = self.score(model, self.heldout.first(self.heldout_fixed))
            self.splits[step, "heldout_fixed"] = fixed, nan
            never = self.population.first(population)
            if never.ids:
                self.scores.append((step, never, self.score(model, never)))

    def around(self, model: PreTrainedModel, step: int) -> None:
        """Score everything at a step next to k*; a population in full takes the place of its first examples."""
        self.sentences(model, step)
        self.scores = [row for row in self.scores if row[0] != step or row[1].ids[:1] != self.population.ids[:1]]
        if self.population.ids:
            self.scores.append((step, self.population, self.score(model, self.population)))
        for name, group in {"retain": self.retain, "retained": self.retained}.items():
            if group.ids:
                self.splits[step, name] = self.score(model, group), nan

    def nearest(self, model: PreTrainedModel, step: int) -> None:
        """At the whole step nearest to k*: translations, and the forget set by token."""
        some = self.heldout.first(self.bleu_sentences)
        quality = bleu(model, self.tokenizer, some.encoded, max_new_tokens=self.bleu_tokens, words=self.bleu_tokenizer)
        translated = self.splits[step, "heldout"][0].first(self.bleu_sentences)
        self.splits[step, "heldout_bleu"] = translated, quality
        self.each_token(model, step)

    def each_token(self, model: PreTrainedModel, step: int) -> None:
        """Score the forget set by token."""
        self.tokens[step] = score_tokens(model, prepare(self.forget.encoded, model.config))


def follow(
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    run: Trajectory,
    *,
    reference: np.ndarray,
    arm: dict,
    settings: dict,
    steps: int | None,
    seed: int,
) -> None:
    """Ascend on the forget set until 2 k* (or `k_max`, or `steps`, or divergence) and fill in what is measured.

    reference: (n,) nats; the run exposure is the forget set's log-likelihood minus it, and k* its first zero.
    settings: the `unlearn` block. steps: fixed number of steps (placebo), or None.
    """
    status, last = ("censored", settings["k_max"]) if steps is None else ("placebo", steps)
    k_star, exposure, sizes, every = nan, [], {}, settings["follow_every"]
    states: dict[int, dict[str, Tensor]] = {}  # of the last step, and of followed ones that may lie next to k*/2
    first = _FirstUpdate(model, run.heldout.first(run.heldout_fixed))
    n_tokens = example_lengths(run.forget.encoded)[:, 1]
    updates = ascent_updates(run.forget, model, settings["batch"], seed=seed)
    method = {"loss": LOSSES[arm["loss"]], "clip_norm": arm.get("clip_norm")}
    for step, log_likelihood, n_correct in ascend(model, optimizer, updates, **method):
        if step == 1:
            first.compare(model)
        if step in (1, 5):
            sizes[step] = update_statistics(optimizer)
        if settings["batch"] == "whole":  # the update's own forward pass has scored the set
            scores = Scores(log_likelihood.numpy(), n_correct.numpy().astype(np.int32), n_tokens)
        else:
            scores = run.score(model, run.forget)
        if not np.isfinite(scores.log_likelihood).all():
            status = "diverged"
            break
        run.scores.append((step, run.forget, scores))
        exposure.append(float((scores.log_likelihood - reference).mean()))
        if status == "censored" and exposure[-1] <= 0:
            k_star = steps_to_forget(np.array(exposure), np.arange(step + 1))
            status, last = "reached", max(step + 1, round(2 * k_star))
            sizes["k"] = update_statistics(optimizer) if step else (nan, nan)
            _score_around(model, run, step, k_star, states, every)
            states = {}
        if step and step % every == 0 and not step > settings["beyond"] * k_star:
            run.along(model, step, population=run.followed if status != "placebo" else 0)
        if step >= last:
            run.along(model, step, population=0)
            if status == "reached":
                run.each_token(model, step)
            break
        if status == "censored":
            states = {s: x for s, x in states.items() if s % every == 0 and s >= (step - 1) / 2 - every}
            states[step] = copy.deepcopy(model.state_dict())
    rate = optimizer.param_groups[0]["lr"]
    run.facts = {"learning_rate": rate, "status": status, "k_star": k_star, "last_step": len(exposure) - 1}
    for name in (1, 5, "k"):
        run.facts[f"update_rms_{name}"], run.facts[f"clipped_{name}"] = sizes.get(name, (nan, nan))
    run.facts |= first.facts


def _score_around(
    model: PreTrainedModel, run: Trajectory, step: int, k_star: float, states: dict[int, dict[str, Tensor]], every: int
) -> None:
    """Score the whole steps on both sides of k*, of which `step` is the later, and followed ones around k*/2."""
    near = round(k_star)
    run.around(model, step)
    if near == step:
        run.nearest(model, step)
    below = floor(k_star / 2 / every) * every
    for other in sorted({step - 1, below, below + every} & states.keys() - {0, step} | {step - 1} & states.keys()):
        earlier = copy.deepcopy(model)
        earlier.load_state_dict(states[other])
        if other == step - 1:
            run.around(earlier, other)
            if near == other:
                run.nearest(earlier, other)
        else:
            run.sentences(earlier, other)


class _FirstUpdate:
    """Predicted against observed change of held-out loss by the first update, and the cosine of the gradients."""

    def __init__(self, model: PreTrainedModel, heldout: Group):
        self.heldout = prepare(heldout.encoded, model.config)
        self.before = [p.detach().clone() for p in model.parameters()]
        loss = self._loss(model)
        self.loss, self.gradient = float(loss.detach()), torch.autograd.grad(loss, list(model.parameters()))
        self.facts = {"predicted_change": nan, "observed_change": nan, "cosine": nan}  # two in nats per token

    def _loss(self, model: PreTrainedModel) -> Tensor:
        return -log_likelihoods(model, self.heldout)[0].sum() / int(self.heldout.n_tokens.sum())

    def compare(self, model: PreTrainedModel) -> None:
        """Call at step 1, while the parameters' gradients are still those of the first update."""
        parameters = list(model.parameters())
        # predicted: Δθ · ∇L(held-out), to first order
        moves = zip(parameters, self.before, self.gradient, strict=True)
        predicted = sum(float(((p.detach() - b) * g).sum()) for p, b, g in moves)
        # the step descends the forget set's log-likelihood: its gradient is minus that of the loss L(F)
        dot = -sum(float((p.grad * g).sum()) for p, g in zip(parameters, self.gradient, strict=True))
        norms = [sum(float(t.square().sum()) for t in g) ** 0.5 for g in ([p.grad for p in parameters], self.gradient)]
        with torch.no_grad():
            observed = float(self._loss(model)) - self.loss
        self.facts = dict(zip(self.facts, (predicted, observed, dot / (norms[0] * norms[1])), strict=True))


def ascent_updates(forget: Group, model: PreTrainedModel, batch: str | int, *, seed: int) -> Iterator[Update]:
    """Updates without end: the whole set each time, or `batch` examples of it, reshuffled in each pass."""
    if batch == "whole":
        fixed = Update(prepare(forget.encoded, model.config))
        while True:
            yield fixed
    generator = np.random.default_rng(seed)
    while True:
        order = generator.permutation(len(forget.ids))
        for start in range(0, len(order), int(batch)):
            rows = order[start : start + int(batch)]
            yield Update(prepare([forget.encoded[i] for i in rows], model.config))
