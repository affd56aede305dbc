"""The tasks of stages base, train and pilot: fit one model and score it on everything. Files in, files out.

Torch is loaded inside a task: the notebook that hands tasks out has no need of it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from unlearning.data.tables import log_likelihood_rows, performance_row, write_csv, write_parquet

if TYPE_CHECKING:
    from unlearning.data.groups import StudyData

# what decides a result besides parameters and data: the sources of the modules at work
SOURCES = (
    "unlearning.data.groups",
    "unlearning.data.tables",
    "unlearning.models",
    "unlearning.optimizers",
    "unlearning.scoring",
    "unlearning.training",
)
FIT = ("epochs", "batch_tokens", "warmup_steps", "schedule", "loss", "clip_norm")


def universe(data: "StudyData", repetitions: dict[str, int]) -> tuple[list, np.ndarray]:
    """All rows that any model may be trained on, repeated examples as several rows.

    Args:
        repetitions: rows each example of a group takes.

    Returns:
        the encoded rows, and the name of the group of each, (rows,).
    """
    rows, names = [], []
    for name, times in repetitions.items():
        encoded = data.group(name).encoded
        rows += encoded * times
        names += [name] * (len(encoded) * times)
    return rows, np.array(names)


def train_model(
    out: Path,
    *,
    data: str,
    start: str | dict,
    settings: dict,
    repetitions: dict[str, int],
    holds: Sequence[str],
    seed: int,
    threads: int,
    device: str,
    precision: str,
    key: dict,
    scored: Sequence[str],
    retain: int,
    bleu_sentences: int,
    bleu_tokens: int,
) -> None:
    """Fit one model and score it on everything. Writes model/, optimizer.safetensors and three tables.

    Args:
        start: folder of the base model, or the config of a new T5.
        repetitions: the study's training groups and the rows an example of each takes, in a fixed order.
        holds: the groups that this model is trained on.
        key: columns that name the model in the tables.
        scored: groups scored example by example.
        retain: how many pairs of the core are the retain sample.
        bleu_sentences, bleu_tokens: how many held-out sentences are translated, and the longest translation.
    """
    import torch

    from unlearning.data.groups import StudyData
    from unlearning.models import load_model, new_t5, save_model
    from unlearning.optimizers import make_optimizer, save_state
    from unlearning.scoring import score
    from unlearning.training import fit

    torch.set_num_threads(threads)
    study = StudyData(data)
    if isinstance(start, dict):
        size = len(study.tokenizer)
        model = new_t5(start, vocabulary_size=size, dropout=settings["dropout"], seed=seed).to(device)
    else:
        model = load_model(start, dropout=settings["dropout"]).to(device)
    optimizer = make_optimizer(model.parameters(), settings["optimizer"], settings)
    rows, names = universe(study, repetitions)
    mine = np.flatnonzero(np.isin(names, list(holds)))
    tokens = sum(len(rows[i][1]) for i in mine)
    validation = study.group("validation").encoded
    history = []

    def note(epoch: int, loss: float, steps: int) -> None:
        """One more row of training.csv."""
        value = score(model, validation).per_token
        names = ("epoch", "loss", "validation_log_likelihood_per_token", "rows", "steps", "target_tokens")
        history.append({**key, **dict(zip(names, (epoch, loss, value, len(mine), steps, tokens), strict=True))})

    note(0, float("nan"), 0)
    loop = {name: settings[name] for name in FIT}
    for epoch in fit(model, optimizer, rows, mine, seed=seed, precision=precision, **loop):
        note(epoch.number, epoch.loss, epoch.steps)
    save_model(model, out / "model")
    save_state(optimizer, out / "optimizer.safetensors")
    write_csv(pd.DataFrame(history), out / "training.csv")
    _score_model(out, model, study, key, scored, retain, bleu_sentences, bleu_tokens)


def _score_model(out, model, study, key, scored, retain, bleu_sentences, bleu_tokens) -> None:
    from unlearning.scoring import bleu, score

    tidy = {**key, "forget_set": "", "method": "", "role": "", "step": 0}
    groups = {name: study.group(name) for name in (*scored, "heldout", "validation")}
    groups["retain"] = study.group("core").first(retain)
    scores = {name: score(model, group.encoded) for name, group in groups.items()}
    tables = [log_likelihood_rows(tidy, groups[n], scores[n]) for n in groups if n != "validation"]
    translated = groups["heldout"].encoded[:bleu_sentences]
    quality = bleu(model, study.tokenizer, translated, max_new_tokens=bleu_tokens)
    rows = [performance_row(tidy, name, scores[name]) for name in ("heldout", "validation", "retain")]
    rows.append(performance_row(tidy, "heldout_bleu", score(model, translated), bleu=quality))
    write_parquet(pd.concat(tables), out / "log_likelihoods.parquet")
    write_csv(pd.DataFrame(rows), out / "performance.csv")
