"""The tasks of pilot and unlearn: one ascent each. Files in, files out; torch is loaded inside them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from unlearning.core.genex import steps_to_forget
from unlearning.data.tables import CENTI, write_csv, write_parquet


def pilot_ascents(
    out: Path,
    *,
    data: str,
    folder: str,
    forget_set: str,
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
    """k* of a pilot set at the learning rates of a grid, from the largest down to the first with k* >= `low`.

    Writes learning_rates.csv: key, learning_rate, k_star (NaN: not reached by `k_max`, or diverged before).
    """
    from unlearning.data.groups import StudyData
    from unlearning.measure.ascent import LOSSES, ascend
    from unlearning.measure.trajectory import ascent_updates

    forget = StudyData(data).group(forget_set)
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
) -> None:
    """Unlearn one forget set from one model and follow it. Writes log_likelihoods, performance, tokens and runs.

    folder: the trained model's. arm: an entry of the block `arms`. settings: the `unlearn` block.
    population: never-trained examples of the same generator, or None.
    retained: other sets of the same kind that this model holds. steps: None goes beyond k* (placebo: a number).
    reference: (n,) log-likelihoods of the model's reference, nats; k* is where their mean is reached.
    """
    from unlearning.data.groups import study_data, together
    from unlearning.measure.trajectory import Trajectory, follow

    study = study_data(str(Path(data).resolve()))
    model, optimizer = _to_unlearn(folder, arm, settings, threads, device)
    run = Trajectory(
        forget=study.group(forget_set),
        heldout=study.group("heldout"),
        retain=study.group("core").first(settings["retain"]),
        retained=together(map(study.group, retained)),
        population=together(map(study.group, filter(None, [population]))),
        tokenizer=study.tokenizer,
        bleu_tokenizer=study.bleu_tokenizer,
        **{name: settings[name] for name in ("heldout_fixed", "followed", "bleu_sentences", "bleu_tokens")},
    )
    options = {"arm": arm, "settings": settings, "steps": steps, "seed": seed}
    follow(model, optimizer, run, reference=np.asarray(reference), **options)
    write_parquet(run.log_likelihoods(key), out / "log_likelihoods.parquet")
    write_parquet(run.performance(key), out / "performance.parquet")
    write_parquet(run.by_token(key), out / "tokens.parquet", unit=CENTI)
    write_csv(pd.DataFrame([{**key, **run.facts}]), out / "runs.csv")


def choose_learning_rate(rates: ArrayLike, k_star: ArrayLike, *, low: float, high: float) -> float:
    """The largest of (n,) learning rates whose k*, (n,) steps, NaN where censored, lies in [low, high].

    Where none does, the rate whose k* is nearest, as a ratio. ValueError: no rate forgets at all.
    """
    rates, k_star = np.asarray(rates, dtype=float), np.asarray(k_star, dtype=float)
    reached = np.isfinite(k_star) & (k_star > 0)
    if not reached.any():
        raise ValueError(f"no learning rate forgets the pilot set; tried {', '.join(f'{rate:g}' for rate in rates)}")
    rates, k_star = rates[reached], k_star[reached]
    # |log(k* / nearest of the window)|: 0 inside it
    distance = np.abs(np.log(k_star / np.clip(k_star, low, high)))
    return float(rates[distance == distance.min()].max())
