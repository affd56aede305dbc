"""The tasks that stages hand out: files in, files out. Torch is loaded inside them, not by whoever hands them out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from unlearning.data.tables import log_likelihood_rows, performance_row, write_csv, write_parquet


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

    start: folder of the base model, or the config of a new T5. holds: the groups that this model is trained on.
    repetitions: the study's training groups and the rows an example of each takes, in a fixed order.
    key: columns that name the model in the tables. scored: groups scored by example. retain: first pairs of the core.
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
    quality = scoring.bleu(model, study.tokenizer, some, max_new_tokens=bleu_tokens)
    performance.append(performance_row(tidy, "heldout_bleu", scoring.score(model, some), bleu=quality))
    write_parquet(pd.concat(tables), out / "log_likelihoods.parquet")
    write_csv(pd.DataFrame(performance), out / "performance.csv")


def pilot_ascents(
    out: Path,
    *,
    data: str,
    folder: str,
    reference: Sequence[float],
    arm: dict,
    grid: Sequence[float],
    low: float,
    settings: dict,
    seed: int,
    threads: int,
    device: str,
    key: dict,
) -> None:
    """k* of the pilot set at the learning rates of a grid, from the largest down to the first with k* >= `low`.

    Writes learning_rates.csv: key, learning_rate, k_star (NaN: not reached by `k_max`, or diverged before).
    """
    from unlearning.core.genex import steps_to_forget
    from unlearning.data.groups import StudyData
    from unlearning.measure.ascent import LOSSES, ascend
    from unlearning.measure.trajectory import ascent_updates

    forget = StudyData(data).group("pilot")
    rows = []
    for rate in sorted(grid, reverse=True):
        model, optimizer = _to_unlearn(folder, {**arm, "learning_rate": rate, "rate": 1.0}, settings, threads, device)
        updates = ascent_updates(forget, model, settings["batch"], seed=seed)
        exposure = []
        for state in ascend(model, optimizer, updates, loss=LOSSES[arm["loss"]], clip_norm=arm.get("clip_norm")):
            exposure.append(float(state.log_likelihood.mean()) - float(np.mean(reference)))
            if not exposure[-1] > 0 or state.step == settings["k_max"]:
                break
        k_star = steps_to_forget(np.array(exposure), np.arange(len(exposure)))
        rows.append({**key, "learning_rate": rate, "k_star": k_star})
        if k_star >= low:
            break
    write_csv(pd.DataFrame(rows), out / "learning_rates.csv")


def _to_unlearn(folder: str, arm: dict, settings: dict, threads: int, device: str) -> tuple:
    """A trained model and the optimizer that unlearns it. No random number comes into it: there is no dropout."""
    import torch

    from unlearning.measure import models, optimizers

    torch.set_num_threads(threads)
    model = models.load_model(Path(folder, "model"), dropout=settings["dropout"]).to(device)
    return model, optimizers.arm_optimizer(model.parameters(), arm, state=Path(folder, "optimizer.safetensors"))


def unlearn_model(
    out: Path,
    *,
    data: str,
    folder: str,
    forget_set: str,
    population: str | None,
    retained: Sequence[str],
    arm: dict,
    settings: dict,
    reference: Sequence[float],
    steps: int | None,
    seed: int,
    threads: int,
    device: str,
    key: dict,
    followed: int,
) -> None:
    """Unlearn one forget set from one model and follow it. Writes log_likelihoods, performance and run tables.

    folder: the trained model's. arm: an entry of the block `arms`. settings: the `unlearn` block.
    population: never-trained examples of the same generator, or None; `followed` of them are scored on the way.
    retained: other sets of the same kind that this model holds. steps: None goes beyond k* (placebo: a number).
    reference: (n,) log-likelihoods of the model's reference, nats; k* is where their mean is reached.
    """
    from unlearning.data.groups import Group, StudyData
    from unlearning.measure.trajectory import Trajectory, follow

    study = StudyData(data)
    model, optimizer = _to_unlearn(folder, arm, settings, threads, device)
    run = Trajectory(
        forget=study.group(forget_set),
        heldout=study.group("heldout"),
        retain=study.group("core").first(settings["retain"]),
        population=study.group(population) if population else Group([], []),
        retained={name: study.group(name) for name in retained},
        followed=followed,
        tokenizer=study.tokenizer,
        **{name: settings[name] for name in ("heldout_fixed", "bleu_sentences", "bleu_tokens")},
    )
    options = {"arm": arm, "settings": settings, "steps": steps, "seed": seed}
    follow(model, optimizer, run, reference=np.asarray(reference), **options)
    write_parquet(run.log_likelihoods(key), out / "log_likelihoods.parquet")
    write_parquet(run.performance(key), out / "performance.parquet")
    write_csv(pd.DataFrame([{**key, **run.facts}]), out / "runs.csv")


def choose_learning_rate(rates: ArrayLike, k_star: ArrayLike, *, low: float, high: float) -> float:
    """The largest of (n,) learning rates whose k*, (n,) steps, NaN where censored, lies in [low, high].

    Where none does, the rate whose k* is nearest, as a ratio. ValueError: no rate forgets at all.
    """
    rates, k_star = np.asarray(rates, dtype=float), np.asarray(k_star, dtype=float)
    reached = np.isfinite(k_star) & (k_star > 0)
    if not reached.any():
        tried = ", ".join(f"{rate:g}" for rate in rates)
        raise ValueError(f"no learning rate of the grid forgets the pilot set; tried {tried}")
    rates, k_star = rates[reached], k_star[reached]
    # |log(k* / nearest of the window)|: 0 inside it
    distance = np.abs(np.log(k_star / np.clip(k_star, low, high)))
    return float(rates[distance == distance.min()].max())
