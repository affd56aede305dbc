"""What some metrics need beyond the tables of the ascents, on a sample of runs: greedy continuations, gradients, wrong
targets, relearning, lower precision. Runs are repeated as they were; torch is loaded inside the task.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from unlearning.core.metrics import gradient_norm, rouge_l
from unlearning.data.tables import CENTI, log_likelihood_rows, token_rows, write_parquet

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from unlearning.data.groups import Group
    from unlearning.measure.models import Encoded

SHARES = (0.5, 1.5, 2.0, 1.0, 0.0)  # of k*, at which a run is measured; of those at one step the last counts
REPLACED = 0.25  # share of a target's tokens that are others in a wrong one; one at least


def measure_extras(
    out: Path,
    *,
    data: str,
    folder: str,
    outside: Sequence[str],
    forget_set: str,
    population: str | None,
    arm: dict,
    settings: dict,
    extras: dict,
    k_star: float,
    seed: int,
    threads: int,
    device: str,
    key: dict,
) -> None:
    """Repeat one ascent and measure its forget set at SHARES of k*. Writes texts and tokens.

    By `state`: `along` the run, in models that never saw the set (folders `outside`; role `out`) and on never-trained
    texts before the first step; at k* with weights rounded to `bfloat16`, and `relearned`; so are the models outside.
    arm, settings, population: as in `ascent_job.unlearn_model`. extras: the block of the settings.
    """
    import copy

    import torch

    from unlearning.data.groups import study_data
    from unlearning.measure import models, optimizers
    from unlearning.measure.ascent import LOSSES, ascend
    from unlearning.measure.trajectory import ascent_updates

    torch.set_num_threads(threads)
    study, kept = study_data(str(Path(data).resolve())), []
    steps = {round(share * k_star): share for share in SHARES}
    forget, never = study.group(forget_set), population and study.group(population).first(extras["never"])
    method, loss = {"clip_norm": arm.get("clip_norm")}, LOSSES[arm["loss"]]

    def optimizer_of(model: "PreTrainedModel", place: str) -> torch.optim.Optimizer:
        return optimizers.arm_optimizer(model.parameters(), arm, state=Path(place, "optimizer.safetensors"))

    def keep(scored: "PreTrainedModel", group: "Group", state: str, step: int, **other: object) -> None:
        rows = {**key, "role": "in", **other, "state": state, "step": step, "share": steps[step]}
        kept.append(_measured(scored, group, rows, wrong=extras["wrong_targets"], seed=seed))

    def relearn(learner: "PreTrainedModel", place: str, step: int, **other: object) -> None:
        updates = ascent_updates(forget.first(extras["relearned"]), learner, settings["batch"], seed=seed)
        states = ascend(learner, optimizer_of(learner, place), updates, loss=lambda *seen: -loss(*seen), **method)
        next((state for state in states if state.step == extras["relearn_steps"]), None)
        keep(learner, forget, "relearned", step, **other)

    def load(place: str) -> "PreTrainedModel":
        return models.load_model(Path(place, "model"), dropout=settings["dropout"]).to(device)

    model = load(folder)
    updates = ascent_updates(forget, model, settings["batch"], seed=seed)
    for state in ascend(model, optimizer_of(model, folder), updates, loss=loss, **method):
        if state.step in steps:
            keep(model, forget, "along", state.step)
        if never and not state.step:
            keep(model, never, "along", 0)
        if state.step == round(k_star):
            keep(copy.deepcopy(model).bfloat16().float(), forget, "bfloat16", state.step)
            relearn(copy.deepcopy(model), folder, state.step)
        if state.step == max(steps):
            break
    for place in outside:
        model, other = load(place), {"role": "out", "model": int(Path(place).name)}
        keep(model, forget, "along", 0, **other)
        relearn(model, place, 0, **other)
    texts, tokens = (pd.concat(tables, ignore_index=True) for tables in zip(*kept, strict=True))
    write_parquet(texts, out / "texts.parquet")
    write_parquet(tokens, out / "tokens.parquet", unit=CENTI)


def _measured(
    model: "PreTrainedModel", group: "Group", key: dict, *, wrong: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A group in one state: a row a text, and a row a token."""
    import torch

    from unlearning.measure import models, scoring

    ready = scoring.prepare(group.encoded, model.config)
    scores, generator = scoring.score(model, ready), np.random.default_rng(seed)
    others = [pair for _ in range(wrong) for pair in wrong_targets(group.encoded, generator)]
    found = scoring.score(model, others)
    texts = log_likelihood_rows(key, group, scores)
    texts["wrong"] = (found.log_likelihood / found.n_tokens).reshape(wrong, -1).mean(axis=0)
    texts["rouge_l"] = continued(model, group.encoded)
    parameters, norms = list(model.parameters()), []
    for example in group.encoded if key["state"] == "along" else ():  # the dearest of all
        tokens, _ = models.token_log_likelihoods(model, models.collate([example], model.config))
        gradients = torch.autograd.grad(-tokens.mean(), parameters, allow_unused=True)
        norms.append(gradient_norm(g.cpu().numpy() for g in gradients if g is not None))
    texts["gradient_norm"] = norms or np.nan
    return texts, token_rows(key, group, scoring.score_tokens(model, ready))


def wrong_targets(pairs: Sequence["Encoded"], generator: np.random.Generator) -> list["Encoded"]:
    """The pairs with some tokens of each target (REPLACED) drawn from all of their targets; each ends as it did."""
    pool, wrong = np.concatenate([target[:-1] for _, target in pairs]), []
    for source, target in pairs:
        target = np.array(target)
        place = generator.permutation(len(target) - 1)[: max(1, round(REPLACED * (len(target) - 1)))]
        target[place] = generator.choice(pool, len(place))
        wrong.append((source, target.tolist()))
    return wrong


def continued(model: "PreTrainedModel", pairs: Sequence["Encoded"]) -> np.ndarray:
    """(n,) ROUGE-L of greedy continuations, at most as long as the longest target; NaN for decoder-only models."""
    from unlearning.measure.models import collate

    if not model.config.is_encoder_decoder:
        return np.full(len(pairs), np.nan)
    inputs, end = collate(pairs, model.config).to(model.device).inputs, model.config.eos_token_id
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    longest = max(len(target) for _, target in pairs)
    said = model.generate(**inputs, max_new_tokens=longest, do_sample=False, num_beams=1)[:, 1:].tolist()
    said = [row[: [*row, end].index(end)] for row in said]
    pairs = zip(said, (target for _, target in pairs), strict=True)
    return np.array([rouge_l(continuation=row, target=target[:-1]) for row, target in pairs])
