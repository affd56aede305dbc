"""One ascent, followed: what is measured at which step, k* found on the way, the states around it scored in full."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unlearning.core.genex import steps_to_forget
from unlearning.data.groups import Group
from unlearning.data.tables import log_likelihood_rows, performance_row
from unlearning.measure.ascent import State, ascend
from unlearning.measure.optimizers import update_statistics
from unlearning.measure.scoring import Prepared, Scores, bleu, example_lengths, log_likelihoods, prepare, score


@dataclass(frozen=True)
class Probes:
    """The examples on which an ascent is watched."""

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


@dataclass
class Trajectory:
    """What was measured: scores by step and group, performance by step and split, and the run's facts."""

    facts: dict = field(default_factory=dict)
    scores: list[tuple[int, Group, Scores]] = field(default_factory=list)
    splits: list[tuple[int, str, Scores, float]] = field(default_factory=list)

    def log_likelihoods(self, key: dict) -> pd.DataFrame:
        """The log_likelihoods table of this run."""
        return pd.concat([log_likelihood_rows({**key, "step": s}, g, x) for s, g, x in self.scores])

    def performance(self, key: dict) -> pd.DataFrame:
        """The performance table of this run."""
        rows = [performance_row({**key, "step": s}, n, x, bleu=b) for s, n, x, b in self.splits]
        return pd.DataFrame(rows)

    def run(self, key: dict) -> pd.DataFrame:
        """The one row of the runs table."""
        return pd.DataFrame([{**key, **self.facts}])


def follow(
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    probes: Probes,
    *,
    reference: np.ndarray,
    method: dict,
    settings: dict,
    steps: int | None,
    seed: int,
) -> Trajectory:
    """Ascend on the forget set until 2 k* (or `k_max`, or `steps`, or divergence) and measure on the way.

    Args:
        reference: (n,) nats; the run exposure is the forget set's log-likelihood minus it, and k* its first zero.
        method: reduction (`loss`), `clip_norm`, `learning_rate`.
        settings: `k_max`, `beyond`, `follow_every`, `batch`.
        steps: fixed number of steps (placebo), or None.
    """
    updates = ascent_updates(probes.forget, model, settings["batch"], seed=seed)
    states = ascend(model, optimizer, updates, reduction=method["loss"], clip_norm=method.get("clip_norm"))
    whole = settings["batch"] == "whole"
    watch = _Watch(probes, settings, reference, last=settings["k_max"] if steps is None else steps)
    watch.placebo = steps is not None
    first = _FirstUpdate(model, probes.heldout.first(probes.heldout_fixed))
    for state in states:
        if state.step == 1:
            first.compare(model)
        if state.step in (1, 5):
            watch.note_update(state.step, optimizer)
        scores = _as_scores(state, probes.forget) if whole else watch.score(model, probes.forget)
        if not watch.measure(model, optimizer, state.step, scores):
            break
    watch.result.facts = {"learning_rate": method["learning_rate"], **watch.facts(), **first.facts()}
    return watch.result


class _Watch:
    """Decides what is measured at a step; holds the previous state so that both sides of k* can be scored."""

    def __init__(self, probes: Probes, settings: dict, reference: np.ndarray, *, last: int):
        self.probes, self.settings, self.reference, self.last = probes, settings, reference, last
        self.result = Trajectory()
        self.exposure: list[float] = []
        self.k_star, self.status, self.placebo = float("nan"), "censored", False
        self.previous: dict | None = None
        self.updates: dict = {}
        self.prepared: dict[tuple[str, ...], Prepared] = {}

    def score(self, model: PreTrainedModel, group: Group) -> Scores:
        """Score a group; it is collated the first time it is asked for."""
        ids = tuple(group.ids)
        if ids not in self.prepared:
            self.prepared[ids] = prepare(group.encoded, model.config)
        return score(model, self.prepared[ids])

    def note_update(self, name: int | str, optimizer: torch.optim.Optimizer) -> None:
        self.updates[name] = update_statistics(optimizer)

    def measure(self, model, optimizer, step: int, scores: Scores) -> bool:
        """Record state `step`; False ends the run."""
        if not np.isfinite(scores.log_likelihood).all():
            self.status = "diverged"
            return False
        self.result.scores.append((step, self.probes.forget, scores))
        self.exposure.append(float((scores.log_likelihood - self.reference).mean()))
        crossed = not self.placebo and self.status == "censored" and self.exposure[-1] <= 0
        near = step <= self.settings["beyond"] * self.k_star if self.status == "reached" else True
        if near:
            self._along(model, step)
        if crossed:
            self._cross(model, optimizer, step)
        if step >= self.last:
            self._in_full(model, step)
            return False
        if self.status == "censored" and not self.placebo:
            self.previous = copy.deepcopy(model.state_dict())
        return True

    def _cross(self, model, optimizer, step: int) -> None:
        self.k_star = steps_to_forget(np.array(self.exposure), np.arange(step + 1))
        self.status, self.last = "reached", max(step + 1, round(2 * self.k_star))
        if step > 0:
            self.note_update("k", optimizer)
        self._in_full(model, step)
        if step > 0:
            before = copy.deepcopy(model)
            before.load_state_dict(self.previous)
            self._in_full(before, step - 1)
        self.previous = None

    def _along(self, model, step: int) -> None:
        probes, add = self.probes, self._split
        add(model, step, "heldout_fixed", probes.heldout.first(probes.heldout_fixed))
        if step % self.settings["follow_every"]:
            return
        add(model, step, "retain", probes.retain)
        for name, group in probes.retained.items():
            add(model, step, f"retained:{name}", group)
        self._population(model, step, probes.followed)

    def _in_full(self, model, step: int) -> None:
        probes = self.probes
        groups = {"heldout": probes.heldout, "heldout_fixed": probes.heldout.first(probes.heldout_fixed)}
        groups |= {"retain": probes.retain} | {f"retained:{name}": group for name, group in probes.retained.items()}
        for name, group in groups.items():
            self._split(model, step, name, group)
        self._population(model, step, len(probes.population.ids))
        translated = probes.heldout.first(probes.bleu_sentences)
        quality = bleu(model, probes.tokenizer, translated.encoded, max_new_tokens=probes.bleu_tokens)
        self.result.splits.append((step, "heldout_bleu", self.score(model, translated), quality))

    def _split(self, model, step: int, name: str, group: Group) -> None:
        if any(done[:2] == (step, name) for done in self.result.splits):
            return
        self.result.splits.append((step, name, self.score(model, group), float("nan")))

    def _population(self, model, step: int, n: int) -> None:
        group = self.probes.population.first(n)
        if not group.ids:
            return
        self.result.scores = [r for r in self.result.scores if r[0] != step or r[1].ids[:1] != group.ids[:1]]
        self.result.scores.append((step, group, self.score(model, group)))

    def facts(self) -> dict:
        """Columns of the runs table that this watch knows."""
        status = "placebo" if self.placebo and self.status != "diverged" else self.status
        facts = {"status": status, "k_star": self.k_star, "last_step": len(self.exposure) - 1}
        for name in (1, 5, "k"):
            size, clipped = self.updates.get(name, (float("nan"), float("nan")))
            facts |= {f"update_rms_{name}": size, f"clipped_{name}": clipped}
        return facts


class _FirstUpdate:
    """Predicted against observed change of held-out loss by the first update, and the cosine of the gradients."""

    def __init__(self, model: PreTrainedModel, heldout: Group):
        self.heldout = prepare(heldout.encoded, model.config)
        self.before = [p.detach().clone() for p in model.parameters()]
        self.loss, self.gradient = self._loss_and_gradient(model)
        self.values = (float("nan"),) * 3

    def _loss_and_gradient(self, model: PreTrainedModel) -> tuple[float, list[torch.Tensor]]:
        loss = self._loss(model)
        return float(loss.detach()), list(torch.autograd.grad(loss, list(model.parameters())))

    def _loss(self, model: PreTrainedModel) -> torch.Tensor:
        return -log_likelihoods(model, self.heldout)[0].sum() / int(self.heldout.n_tokens.sum())

    def compare(self, model: PreTrainedModel) -> None:
        """Call at step 1, while the parameters' gradients are still those of the first update."""
        parameters = list(model.parameters())
        moved = sum(
            float(((p.detach() - b) * g).sum()) for p, b, g in zip(parameters, self.before, self.gradient, strict=True)
        )
        # the step descends the forget set's log-likelihood: its gradient is minus that of the loss L(F)
        dot = -sum(float((p.grad * g).sum()) for p, g in zip(parameters, self.gradient, strict=True))
        norms = [_norm(p.grad for p in parameters), _norm(self.gradient)]
        with torch.no_grad():
            after = float(self._loss(model))
        self.values = (moved, after - self.loss, dot / (norms[0] * norms[1]))

    def facts(self) -> dict:
        """predicted_change and observed_change in nats per token of held-out loss; cosine."""
        return dict(zip(("predicted_change", "observed_change", "cosine"), self.values, strict=True))


def _norm(tensors: Iterable[torch.Tensor]) -> float:
    return sum(float(t.square().sum()) for t in tensors) ** 0.5


def ascent_updates(forget: Group, model: PreTrainedModel, batch: str | int, *, seed: int) -> Iterator[Prepared]:
    """The examples of each update, without end: the whole set each time, or `batch` of it, reshuffled in each pass."""
    if batch == "whole":
        fixed = prepare(forget.encoded, model.config)
        while True:
            yield fixed
    generator = np.random.default_rng(seed)
    while True:
        order = generator.permutation(len(forget.ids))
        for start in range(0, len(order), int(batch)):
            yield prepare([forget.encoded[i] for i in order[start : start + int(batch)]], model.config)


def _as_scores(state: State, forget: Group) -> Scores:
    lengths = _target_lengths(forget.encoded)
    return Scores(state.log_likelihood.numpy(), state.n_correct.numpy().astype(np.int32), lengths)


def _target_lengths(encoded: Sequence) -> np.ndarray:
    return example_lengths(encoded)[:, 1]
