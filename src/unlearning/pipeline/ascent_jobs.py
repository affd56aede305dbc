"""The tasks of stages pilot and unlearn: one ascent each. Files in, files out; torch is loaded inside a task."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from unlearning.data.tables import write_csv, write_parquet
from unlearning.metrics import steps_to_forget

# what decides a result besides parameters and data: the sources of the modules at work
SOURCES = (
    "unlearning.ascent",
    "unlearning.data.groups",
    "unlearning.data.tables",
    "unlearning.metrics",
    "unlearning.models",
    "unlearning.optimizers",
    "unlearning.scoring",
    "unlearning.trajectory",
)


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

    from unlearning.ascent import ascend
    from unlearning.data.groups import StudyData
    from unlearning.models import load_model
    from unlearning.optimizers import load_state, make_optimizer
    from unlearning.trajectory import ascent_updates

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
    from unlearning.models import load_model
    from unlearning.optimizers import load_state, make_optimizer
    from unlearning.trajectory import Probes, follow

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
