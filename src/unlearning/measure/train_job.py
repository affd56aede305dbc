"""The task of base, train and pilot: fit one model, score it on everything. Torch is loaded inside the task.

Ascents have a module of their own: a task rests on all that its module leads to, and they must train nothing again.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from unlearning.data.tables import CENTI, log_likelihood_rows, performance_row, token_rows, write_csv, write_parquet


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
    by_token: Sequence[str],
    retain: int,
    bleu_sentences: int,
    bleu_tokens: int,
) -> None:
    """Fit one model and score it on everything. Writes model/, optimizer.safetensors and four tables.

    start: folder of the base model, or the config of a new T5. holds: the groups that this model is trained on.
    repetitions: the study's training groups and the rows an example of each takes, in a fixed order.
    key: columns that name the model in the tables. scored, by_token: groups that are scored by example, and by token.
    retain: how many pairs of the core are scored.
    bleu_sentences, bleu_tokens: how many held-out sentences are translated, and the longest translation.
    """
    import torch

    from unlearning.data.groups import StudyData
    from unlearning.measure import models, optimizers, scoring, training

    torch.set_num_threads(threads)
    study = StudyData(data)
    if isinstance(start, dict):
        size = len(study.tokenizer)
        model = models.new_t5(start, vocabulary_size=size, dropout=settings["dropout"], seed=seed)
    else:
        model = models.load_model(start, dropout=settings["dropout"])
    model = model.to(device)
    optimizer = optimizers.make_optimizer(model.parameters(), settings["optimizer"], settings)
    # rows that this model does not hold are there all the same: they keep the order of the others
    encoded = {name: study.group(name).encoded * times for name, times in repetitions.items()}
    rows = [row for group in encoded.values() for row in group]
    mine = np.flatnonzero(np.repeat([name in holds for name in encoded], [len(group) for group in encoded.values()]))
    tokens = sum(len(rows[i][1]) for i in mine)
    validation = study.group("validation").encoded

    def measured(epoch: training.Epoch) -> dict:
        """One row of training.csv."""
        value = scoring.score(model, validation).per_token
        row = {**key, "epoch": epoch.number, "loss": epoch.loss, "validation_log_likelihood_per_token": value}
        return {**row, "rows": len(mine), "steps": epoch.steps, "target_tokens": tokens}

    history = [measured(training.Epoch(0, float("nan"), 0))]
    loop = ("epochs", "batch_tokens", "warmup_steps", "schedule", "loss", "clip_norm")
    loop = {name: settings[name] for name in loop} | {"precision": precision, "seed": seed}
    history += map(measured, training.fit(model, optimizer, rows, mine, **loop))
    models.save_model(model, out / "model")
    optimizers.save_state(optimizer, out / "optimizer.safetensors")
    write_csv(pd.DataFrame(history), out / "training.csv")

    groups = {name: study.group(name) for name in (*scored, "heldout", "validation")}
    groups["retain"] = study.group("core").first(retain)
    scores = {name: scoring.score(model, group.encoded) for name, group in groups.items()}
    tidy = {**key, "forget_set": "", "method": "", "role": "", "step": 0}
    tables = [log_likelihood_rows(tidy, groups[n], scores[n]) for n in groups if n != "validation"]
    performance = [performance_row(tidy, name, scores[name]) for name in ("heldout", "validation", "retain")]
    some = groups["heldout"].encoded[:bleu_sentences]
    quality = scoring.bleu(model, study.tokenizer, some, max_new_tokens=bleu_tokens, words=study.bleu_tokenizer)
    performance.append(performance_row(tidy, "heldout_bleu", scoring.score(model, some), bleu=quality))
    write_parquet(pd.concat(tables), out / "log_likelihoods.parquet")
    tokens = [pd.DataFrame()]
    for group in (groups[name] for name in by_token):
        found = scoring.score_tokens(model, scoring.prepare(group.encoded, model.config))
        tokens.append(token_rows(key, group, found))
    write_parquet(pd.concat(tokens), out / "tokens.parquet", unit=CENTI)
    write_csv(pd.DataFrame(performance), out / "performance.csv")
