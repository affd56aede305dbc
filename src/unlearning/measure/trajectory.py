"""One ascent, followed: what is measured at which step, k* found on the way, the states around it scored in full."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import nan

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unlearning.core.genex import steps_to_forget
from unlearning.data.groups import Group
from unlearning.data.tables import log_likelihood_rows, performance_row
from unlearning.measure.ascent import LOSSES, Update, ascend
from unlearning.measure.optimizers import update_statistics
from unlearning.measure.scoring import Prepared, Scores, bleu, example_lengths, log_likelihoods, prepare, score


@dataclass
class Trajectory:
    """The examples on which an ascent is watched, and what was measured of them."""

    forget: Group
    heldout: Group
    retain: Group
    population: Group  # never trained, of the forget set's generator
    retained: dict[str, Group]  # other sets of the kind that the model holds
    heldout_fixed: int
    followed: int
    bleu_sentences: int
    bleu_tokens: int
    tokenizer: PreTrainedTokenizerBase
    facts: dict = field(default_factory=dict)  # the row of the run
    scores: list[tuple[int, Group, Scores]] = field(default_factory=list)  # by step and group
    splits: dict[tuple[int, str], tuple[Scores, float]] = field(default_factory=dict)  # with BLEU, by step and split
    prepared: dict[tuple[str, ...], Prepared] = field(default_factory=dict)

    def log_likelihoods(self, key: dict) -> pd.DataFrame:
        """The log_likelihoods table of this run."""
        return pd.concat([log_likelihood_rows({**key, "step": s}, g, x) for s, g, x in self.scores])

    def performance(self, key: dict) -> pd.DataFrame:
        """The performance table of this run."""
        splits = self.splits.items()
        return pd.DataFrame([performance_row({**key, "step": s}, n, x, bleu=b) for (s, n), (x, b) in splits])

    def score(self, model: PreTrainedModel, group: Group) -> Scores:
        """Score a group; it is collated the first time only."""
        ids = tuple(group.ids)
        if ids not in self.prepared:
            self.prepared[ids] = prepare(group.encoded, model.config)
        return score(model, self.prepared[ids])

    def along(self, model: PreTrainedModel, step: int, *, rest: bool, population: int) -> None:
        """Score what is followed: the fixed held-out sentences and, if `rest`, what is retained, and a population."""
        groups = {"heldout_fixed": self.heldout.first(self.heldout_fixed)}
        if rest:
            groups |= {"retain": self.retain} | {f"retained:{name}": group for name, group in self.retained.items()}
        self.add(model, step, groups)
        never = self.population.first(population if rest else 0)
        if never.ids:  # more of them take the place of fewer
            self.scores = [row for row in self.scores if row[0] != step or row[1].ids[:1] != never.ids[:1]]
            self.scores.append((step, never, self.score(model, never)))

    def add(self, model: PreTrainedModel, step: int, groups: dict[str, Group]) -> None:
        """Score splits that are not scored at this step yet."""
        for name, group in groups.items():
            if (step, name) not in self.splits:
                self.splits[step, name] = self.score(model, group), nan

    def in_full(self, model: PreTrainedModel, step: int) -> None:
        """Score everything, translations too."""
        self.add(model, step, {"heldout": self.heldout})
        self.along(model, step, rest=True, population=len(self.population.ids))
        some = self.heldout.first(self.bleu_sentences)
        quality = bleu(model, self.tokenizer, some.encoded, max_new_tokens=self.bleu_tokens)
        self.splits[step, "heldout_bleu"] = self.score(model, some), quality


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
    k_star, exposure, sizes, previous = nan, [], {}, None
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
        if status != "reached" or step <= settings["beyond"] * k_star:
            run.along(model, step, rest=step % settings["follow_every"] == 0, population=run.followed)
        if status == "censored" and exposure[-1] <= 0:
            k_star = steps_to_forget(np.array(exposure), np.arange(step + 1))
            status, last = "reached", max(step + 1, round(2 * k_star))
            run.in_full(model, step)
            if previous:  # k* lies between two states: the one before it is scored as well
                sizes["k"] = update_statistics(optimizer)
                before = copy.deepcopy(model)
                before.load_state_dict(previous)
                run.in_full(before, step - 1)
                del before
        if step >= last:
            run.in_full(model, step)
            break
        previous = copy.deepcopy(model.state_dict()) if status == "censored" else None
    rate = optimizer.param_groups[0]["lr"]
    run.facts = {"learning_rate": rate, "status": status, "k_star": k_star, "last_step": len(exposure) - 1}
    for name in (1, 5, "k"):
        run.facts[f"update_rms_{name}"], run.facts[f"clipped_{name}"] = sizes.get(name, (nan, nan))
    run.facts |= first.facts


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
