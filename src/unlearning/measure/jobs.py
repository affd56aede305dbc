"""The tasks that stages hand out: fit one model and score it on everything; one ascent, followed. Files in, files out.

Torch is loaded inside a task: the notebook that hands tasks out has no need of it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from unlearning.core.genex import steps_to_forget
from unlearning.data.tables import log_likelihood_rows, performance_row, write_csv, write_parquet

if TYPE_CHECKING:
    from unlearning.data.groups import StudyData

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
    from unlearning.measure.models import load_model, new_t5, save_model
    from unlearning.measure.optimizers import make_optimizer, save_state
    from unlearning.measure.scoring import score
    from unlearning.measure.training import fit

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
    from unlearning.measure.scoring import bleu, score

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


def pilot_ascents(
    out: Path,
    *,
    data: str,
    folder: str,
    reference: Sequence[float],
    method: dict,
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
    import torch

    from unlearning.data.groups import StudyData
    from unlearning.measure.ascent import ascend
    from unlearning.measure.models import load_model
    from unlearning.measure.optimizers import load_state, make_optimizer
    from unlearning.measure.trajectory import ascent_updates

    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    forget = StudyData(data).group("pilot")
    rows = []
    for rate in sorted(grid, reverse=True):
        model = load_model(Path(folder) / "model", dropout=settings["dropout"]).to(device)
        optimizer = make_optimizer(model.parameters(), method["optimizer"], {**method, "learning_rate": rate})
        if method.get("restored"):
            load_state(optimizer, Path(folder) / "optimizer.safetensors", freeze=method["freeze_second_moment"])
        updates = ascent_updates(forget, model, settings["batch"], seed=seed)
        exposure = []
        for state in ascend(model, optimizer, updates, reduction=method["loss"], clip_norm=method.get("clip_norm")):
            exposure.append(float(state.log_likelihood.mean()) - float(np.mean(reference)))
            if not exposure[-1] > 0 or state.step == settings["k_max"]:
                break
        k_star = steps_to_forget(np.array(exposure), np.arange(len(exposure)))
        rows.append({**key, "learning_rate": rate, "k_star": k_star})
        if k_star >= low:
            break
    write_csv(pd.DataFrame(rows), out / "learning_rates.csv")


def unlearn_model(
    out: Path,
    *,
    data: str,
    folder: str,
    forget_set: str,
    population: str | None,
    retained: Sequence[str],
    method: dict,
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

    Args:
        folder: the trained model's folder (model/, optimizer.safetensors).
        population: group of never-trained examples of the same generator, or None.
        retained: other sets of the same kind that this model holds.
        method: a block of `methods`, with `optimizer` (its name) and the learning rate.
        settings: the `unlearn` block.
        reference: (n,) log-likelihoods of the model's reference, nats; k* is where their mean is reached.
        steps: None follows to k* and beyond; a number takes just so many steps (placebo).
        followed: how many examples of the population are scored along the way.
    """
    import torch

    from unlearning.data.groups import Group, StudyData
    from unlearning.measure.models import load_model
    from unlearning.measure.optimizers import load_state, make_optimizer
    from unlearning.measure.trajectory import Probes, follow

    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    study = StudyData(data)
    model = load_model(Path(folder) / "model", dropout=settings["dropout"]).to(device)
    optimizer = make_optimizer(model.parameters(), method["optimizer"], method)
    if method.get("restored"):
        freeze = method["freeze_second_moment"]
        load_state(optimizer, Path(folder) / "optimizer.safetensors", freeze=freeze)
    probes = Probes(
        forget=study.group(forget_set),
        heldout=study.group("heldout"),
        retain=study.group("core").first(settings["retain"]),
        population=study.group(population) if population else Group([], []),
        retained={name: study.group(name) for name in retained},
        heldout_fixed=settings["heldout_fixed"],
        followed=followed,
        bleu_sentences=settings["bleu_sentences"],
        bleu_tokens=settings["bleu_tokens"],
        tokenizer=study.tokenizer,
    )
    result = follow(
        model,
        optimizer,
        probes,
        reference=np.asarray(reference),
        method=method,
        settings=settings,
        steps=steps,
        seed=seed,
    )
    write_parquet(result.log_likelihoods(key), out / "log_likelihoods.parquet")
    write_parquet(result.performance(key), out / "performance.parquet")
    write_csv(result.run(key), out / "runs.csv")


def choose_learning_rate(rates: ArrayLike, k_star: ArrayLike, *, low: float, high: float) -> float:
    """The largest rate with low ≤ k* ≤ high; one rule for every method of ascent.

    Where the grid is too coarse for any k* to fall inside, the rate whose k* is nearest to the window, as a ratio.

    Args:
        rates: (n,) learning rates.
        k_star: (n,) steps to forget of the pilot at each, NaN where censored.
        low: fewest steps.
        high: most steps.

    Raises:
        ValueError: no rate forgets at all.
    """
    rates, k_star = np.asarray(rates, dtype=float), np.asarray(k_star, dtype=float)
    reached = np.isfinite(k_star) & (k_star > 0)
    if not reached.any():
        tried = ", ".join(f"{rate:g}" for rate in rates)
        raise ValueError(f"no learning rate of the grid forgets the pilot set; tried {tried}")
    rates, k_star = rates[reached], k_star[reached]
    distance = np.abs(np.log(k_star / np.clip(k_star, low, high)))
    return float(rates[distance == distance.min()].max())
