"""Before anything is timed: do all arms compute the same? Identical batches, float32, equal to 1e-5 relative."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from benchmarks import ours, peers
from benchmarks.workloads import Workload
from unlearning.measure import models
from unlearning.measure.scoring import bleu, score

TOLERANCE = 1e-5
STEPS, ASCENT_STEPS = (1, 5, 20), (0, 1, 5)
BLEU_TOLERANCE = 0.1  # BLEU points: where two tokens are as likely, another batch may round to the other one

Train = Callable[[PreTrainedModel, Workload, int, list[np.ndarray], Callable[[], None]], object]


def _ours(model, work, epochs, batches, after_step):
    ours.train(model, work, epochs=epochs, after_step=after_step)  # makes the same batches itself


def _plain(model, work, epochs, batches, after_step):
    peers.train_plain(model, work, batches, after_step=after_step)


def _fixed(model, work, epochs, batches, after_step):
    peers.train_plain(model, work, batches, width=work.width, after_step=after_step)


def _trainer(model, work, epochs, batches, after_step):
    peers.train_trainer(model, work, batches, after_step=after_step)


TRAINING: dict[str, Train] = {"ours": _ours, "plain loop": _plain, "fixed padding": _fixed, "Trainer": _trainer}


def check(work: Workload, training: Mapping[str, Train] = TRAINING) -> pd.DataFrame:
    """One row a comparison: what, arm, step, its value, the value of the first arm, relative difference, equal."""
    checks = [training_losses(work, training), ascents(work), scores(work), translations(work), projection(work)]
    return pd.concat(checks, ignore_index=True)


def training_losses(work: Workload, training: Mapping[str, Train] = TRAINING) -> pd.DataFrame:
    """Loss on held-out examples, by one and the same yardstick, after so many training steps."""
    epochs = math.ceil(STEPS[-1] / len(work.batches()))
    batches = work.batches(epochs=epochs)[: STEPS[-1]]
    yardstick = peers.full_batches(work.heldout[:64], width=None)
    found = {}
    for arm, train in training.items():
        model, losses = work.new_model(), _Losses(yardstick)
        train(model, work, epochs, batches, lambda model=model, losses=losses: losses.note(model))
        found[arm] = losses.found
    return _table("loss after training steps", STEPS, found)


class _Losses:
    """The yardstick, applied after some of the steps."""

    def __init__(self, batches: list[dict[str, torch.Tensor]]):
        self.batches, self.steps, self.found = batches, 0, []

    def note(self, model: PreTrainedModel) -> None:
        self.steps += 1
        if self.steps in STEPS:
            self.found.append(-float(peers.full_log_likelihoods(model, self.batches).double().sum()))


def ascents(work: Workload) -> pd.DataFrame:
    """Log-likelihood of the forget set, summed, after so many ascent steps."""
    work = dataclasses.replace(work, steps=ASCENT_STEPS[-1])
    our: list[float] = []
    ours.unlearn(work.trained_model(), work, each=lambda state: our.append(float(state.log_likelihood.double().sum())))
    found = {"ours": [our[k] for k in ASCENT_STEPS]}
    for arm, fixed in {"Trainer": True, "Trainer, to the longest": False}.items():
        model = work.trained_model()
        first = peers.full_log_likelihoods(model, peers.full_batches(work.forget, width=work.width))
        sums = [first.double().sum()]
        peers.unlearn_trainer(model, work, fixed=fixed, each=lambda x, sums=sums: sums.append(x.double().sum()))
        found[arm] = [float(sums[k]) for k in ASCENT_STEPS]
    return _table("forget set after ascent steps", ASCENT_STEPS, found)


def scores(work: Workload) -> pd.DataFrame:
    """The log-likelihood of every held-out example; the row shows that which differs most."""
    model = work.trained_model()
    our = score(model, work.heldout).log_likelihood
    rows = []
    for arm, width in {"full logits, fixed padding": work.width, "full logits, dynamic padding": None}.items():
        their = peers.full_log_likelihoods(model, peers.full_batches(work.heldout, width=width)).numpy()
        worst = int(np.argmax(np.abs(their - our) / np.abs(our)))
        rows.append(_table("log-likelihood of an example", [0], {"ours": [our[worst]], arm: [their[worst]]}))
    return pd.concat(rows)


def translations(work: Workload) -> pd.DataFrame:
    """BLEU of the same model's translations."""
    model, tokenizer, examples = work.trained_model(), work.load_tokenizer(), work.heldout[: work.decoded]
    our = bleu(model, tokenizer, examples, max_new_tokens=work.width)
    their = {
        arm: [peers.bleu_in_order(model, tokenizer, examples, size=size, max_new_tokens=work.width)]
        for arm, size in {"batches of eight": 8, "all at once": 200}.items()
    }
    table = _table("BLEU", [0], {"ours": [our], **their})
    table["equal"] = (table["value"] - table["reference"]).abs() <= BLEU_TOLERANCE
    return table


def projection(work: Workload) -> pd.DataFrame:
    """No tensor of batch x length x vocabulary: the projection sees at most `logit_rows` positions at once."""
    largest, allowed = ours.largest_projection(work), models.logit_rows(work.new_model())
    row = {"what": "positions in a projection", "arm": "ours", "step": 0, "value": largest, "reference": allowed}
    return pd.DataFrame([{**row, "relative": float("nan"), "equal": largest <= allowed}])


def _table(what: str, steps: Iterable[int], found: Mapping[str, list[float]]) -> pd.DataFrame:
    reference = next(iter(found.values()))
    rows = []
    for arm, values in found.items():
        for step, value, against in zip(steps, values, reference, strict=True):
            relative = abs(value - against) / abs(against) if against else abs(value)
            row = {"what": what, "arm": arm, "step": step, "value": value, "reference": against}
            rows.append({**row, "relative": relative, "equal": bool(relative <= TOLERANCE)})
    return pd.DataFrame(rows)
