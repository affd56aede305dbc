"""Before anything is timed: do all arms compute the same? Every arm of the table runs once, in float32."""

import math
from collections.abc import Iterable
from itertools import count

import numpy as np
import pandas as pd
from transformers import PreTrainedModel

from benchmarks import peers
from benchmarks.compare import ARMS, Arm
from benchmarks.work import Work

TOLERANCE = 1e-5  # relative
BLEU_POINTS = 0.1  # where two tokens are as likely, another batch may round to the other one
STEPS = (1, 5, 20)  # of training, after which a loss is taken


def check(work: Work, arms: Iterable[Arm] = ARMS) -> pd.DataFrame:
    """One row an arm: what, arm, where it differs most from the first arm of its workload, and is that equal enough?

    Columns value and reference are the two numbers there. Arms that differ only in processes, threads and instruction
    set run once; those in bfloat16 are not held to float32's digits.
    """
    rows, first, done = [], {}, []
    for arm in arms:
        same = (arm.job.function, arm.job.options)
        if arm.workload != "matmul" and not arm.bfloat16 and same not in done:
            done.append(same)
            found = computed(arm, work)
            rows.append(_row(arm, found, first.setdefault(arm.workload, found)))
    return pd.DataFrame(rows)


def computed(arm: Arm, work: Work) -> np.ndarray:
    """What an arm computes: (k,) numbers. Of training, losses on held-out examples on the batches of `fit`."""
    if arm.workload != "training":
        return np.atleast_1d(np.asarray(arm.job.function(work, **arm.job.options)().result, dtype=float))
    epochs, step, losses = math.ceil(STEPS[-1] / len(work.batches())), count(1), []
    heldout = peers.pad(work.heldout[:64], size=64, width=None, device=work.device)

    def note(model: PreTrainedModel) -> None:
        if next(step) in STEPS:
            losses.append(-float(peers.full_log_likelihoods(model, heldout).double().sum()))

    arm.job.function(work, **arm.job.options, epochs=epochs, hook=note)()
    return np.array(losses)


def _row(arm: Arm, found: np.ndarray, reference: np.ndarray) -> dict:
    relative = np.abs(found - reference) / np.maximum(np.abs(reference), 1e-300)
    worst = int(np.argmax(np.where(np.isnan(relative), np.inf, relative)))
    row = {"what": arm.workload, "arm": arm.name, "value": found[worst], "reference": reference[worst]}
    points = abs(found[worst] - reference[worst])
    equal = points <= BLEU_POINTS if arm.workload == "translation" else relative[worst] <= TOLERANCE
    return {**row, "relative": relative[worst], "equal": bool(equal)}
