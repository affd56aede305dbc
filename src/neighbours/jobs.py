"""The tasks of this pipeline: masks of a model, learning rates, one run, scores of inputs, features.

Files in, files out; torch is loaded inside them. Models are the study's, as it trained them.
`where`: data, folder (of the trained model), threads, device.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from unlearning.core.genex import steps_to_forget
from unlearning.core.stand_ins import auc
from unlearning.data.tables import write_csv, write_parquet
from unlearning.measure.ascent_job import choose_learning_rate


def _opened(data: str, folder: str, *, threads: int, device: str) -> tuple:
    """The examples and a model, ready."""
    import torch

    from unlearning.data.groups import study_data
    from unlearning.measure.models import load_model

    torch.set_num_threads(threads)
    return study_data(str(Path(data).resolve())), load_model(Path(folder)).to(device)


def localise_model(
    out: Path, *, domains: dict[str, list[list[str]]], examples: int, share: Sequence[float], seed: int, **where
) -> None:
    """GRAIL's masks of a model, and random ones of equal size. Writes gradients.safetensors and random.safetensors.

    domains: domain -> forget sets and retain groups. One that lacks a side is left out of it. examples: of a group.
    """
    from safetensors.torch import save_file

    from neighbours import grail
    from unlearning.data.groups import together
    from unlearning.measure.scoring import prepare

    study, model = _opened(**where)
    sides = []
    for groups in zip(*domains.values(), strict=True):
        some = [together(study.group(name).first(examples) for name in names) for names in groups if names]
        sides.append([grail.summed_gradients(model, prepare(x.encoded, model.config)) for x in some])
    masks = grail.localise(*sides, share=share)
    for name, found in {"gradients": masks, "random": grail.at_random(masks, seed=seed)}.items():
        tensors = {f"{side}.{i}": m for side, mask in enumerate(found) for i, m in enumerate(mask)}
        save_file(tensors, out / f"{name}.safetensors")


def _masks(folder: str | None, method: dict) -> list[list]:
    from safetensors.torch import load_file

    if not folder or method["loss"] != "grail":
        return []
    found = load_file(Path(folder, f"{method['mask']}.safetensors"))
    return [[found[f"{side}.{i}"] for i in range(len(found) // 2)] for side in (0, 1)]


def rates(
    out: Path, *, forget_set: str, reference: Sequence[float], method: dict, grid: Sequence[float], low: float,
    k_max: int, masks: str | None, seed: int, key: dict, **where,
) -> None:  # fmt: skip
    """k* of a pilot set from the largest rate of a grid down to the first with k* ≥ `low`: the study's own rule.

    Also ends at a rate that does not forget after one that did: those below it are slower still.
    Writes learning_rates.csv: key, learning_rate, k_star (NaN: not reached), least (lowest mean exposure, nats).
    """
    from neighbours.methods import unlearning

    rows = []
    for rate in sorted(grid, reverse=True):
        study, model = _opened(**where)
        given = {"masks": _masks(masks, method), "seed": seed}
        forget, retain, exposure = study.group(forget_set), study.group("core"), []
        for state in unlearning(model, {**method, "learning_rate": rate}, forget, retain, **given):
            exposure.append(float(state.log_likelihood.mean()) - float(np.mean(reference)))
            if not exposure[-1] > 0 or state.step == k_max:
                break
        k_star = steps_to_forget(np.array(exposure), np.arange(len(exposure)))
        rows.append({**key, "learning_rate": rate, "k_star": k_star, "least": np.nanmin(exposure)})
        if k_star >= low or (np.isnan(k_star) and any(row["k_star"] > 0 for row in rows)):
            break
    write_csv(pd.DataFrame(rows), out / "learning_rates.csv")


def choose_rate(tried: pd.DataFrame, *, low: float, high: float) -> float:
    """The study's choice among the rates of learning_rates.csv; where none forgets, the one that came nearest."""
    if tried["k_star"].isna().all():
        return float(tried.loc[tried["least"].idxmin(), "learning_rate"])
    return choose_learning_rate(tried["learning_rate"], tried["k_star"], low=low, high=high)


def unlearn_by(
    out: Path, *, forget_set: str, population: str | None, method: dict, settings: dict, k_max: int,
    every: int, reference: Sequence[float], masks: str | None, seed: int, key: dict, **where,
) -> None:  # fmt: skip
    """Unlearn a forget set by a method and follow it. Writes log_likelihoods, performance, runs and seconds.

    settings: the study's `unlearn` block. every: steps between scores of held-out text on the way. Ends at the first
    state with a mean exposure of zero or under, or at k_max. All is scored on both sides of that zero; without one, at
    the state nearest to it and at the last.
    """
    from neighbours.convex import certified_slope
    from neighbours.methods import gradients_a_step, unlearning
    from unlearning.data.groups import Group, together
    from unlearning.measure.models import load_model
    from unlearning.measure.trajectory import Trajectory

    study, model = _opened(**where)
    run = Trajectory(
        forget=study.group(forget_set),
        heldout=study.group("heldout"),
        retain=Group([], []),
        retained=Group([], []),
        population=together(map(study.group, filter(None, [population]))).first(settings["followed"]),
        tokenizer=study.tokenizer,
        **{name: settings[name] for name in ("heldout_fixed", "followed", "bleu_sentences", "bleu_tokens")},
    )
    given = {"masks": _masks(masks, method), "seed": seed}
    states = unlearning(model, method, run.forget, study.group("core"), **given)
    facts, seconds = _followed(states, model, run, np.asarray(reference), k_max=k_max, every=every)
    facts |= dict(zip(("forget_gradients", "retain_gradients"), gradients_a_step(method), strict=True))
    facts["certified"] = np.nan
    if "noise" in method and "clip_norm" in method:
        rate, trained = method["learning_rate"], load_model(Path(where["folder"]))
        radius = sum(float(p.detach().square().sum()) for p in trained.parameters()) ** 0.5
        own = {"radius": radius, "clip": method["clip_norm"], "rate": rate, "sd": rate * method["noise"]}
        facts["certified"] = certified_slope(**own, steps=facts["last_step"])
    write_parquet(run.log_likelihoods(key), out / "log_likelihoods.parquet")
    write_parquet(run.performance(key), out / "performance.parquet")
    write_csv(pd.DataFrame([{**key, "learning_rate": method.get("learning_rate", np.nan), **facts}]), out / "runs.csv")
    write_csv(pd.DataFrame([{**key, **seconds}]), out / "seconds.csv")


def _followed(states, model, run, reference: np.ndarray, *, k_max: int, every: int) -> tuple[dict, dict]:
    """Consume the states of a method and measure them: the row of the run, and how long steps took."""
    import copy
    import time

    from unlearning.measure.scoring import Scores, example_lengths

    def snapshot() -> dict:
        return copy.deepcopy(model.state_dict())

    def around(step: int, weights: dict) -> None:
        other = copy.deepcopy(model)
        other.load_state_dict(weights)
        run.around(other, step)

    n_tokens, exposure, took = example_lengths(run.forget.encoded)[:, 1], [], []
    status, before, nearest, clock = "censored", None, None, time.perf_counter()
    for step, log_likelihood, n_correct in states:
        took.append(time.perf_counter() - clock)
        values = log_likelihood.numpy()
        if not np.isfinite(values).all():
            status = "diverged"
            break
        run.scores.append((step, run.forget, Scores(values, n_correct.numpy().astype(np.int32), n_tokens)))
        exposure.append(float((values - reference).mean()))
        if exposure[-1] <= 0:
            status = "reached"
            break
        if exposure[-1] <= min(exposure):
            nearest = step, snapshot()
        if step == k_max:
            break
        if step % every == 0:
            run.along(model, step, population=run.followed)
        before, clock = (step, snapshot()), time.perf_counter()
    last = len(exposure) - 1
    if status != "diverged":
        run.around(model, last)
    other = before if status == "reached" else nearest
    if other and (status == "diverged" or other[0] != last):
        around(*other)
    facts = {"status": status, "k_star": steps_to_forget(np.array(exposure), np.arange(last + 1))}
    facts |= {"nearest": float(np.argmin(np.abs(exposure))), "last_step": last}
    return facts, {"seconds": sum(took[1:]), "seconds_a_step": float(np.median(took[1:] or [np.nan]))}


def detect(
    out: Path, *, sets: Sequence[str], kinds: dict[str, str], inside: str, examples: int, core: int, penalty: float,
    folds: int, seed: int, key: dict, **where,
) -> None:  # fmt: skip
    """Score inputs for strangeness, before anything is unlearned. Writes scores.parquet and auroc.csv.

    sets: whose examples are scored. kinds: kind -> group of never-trained examples; `inside` is the kind that is not
    strange. auroc.csv: key, kind, score, auroc; `tensor …` is one parameter tensor's gradient norm alone.
    """
    from neighbours import detection
    from unlearning.data.groups import Group
    from unlearning.measure.scoring import score

    study, model = _opened(**where)
    usual = detection.encoder_features(model, study.group("core").first(core).encoded)

    def scores(group: Group) -> tuple[pd.DataFrame, np.ndarray]:
        found, features = score(model, group.encoded), detection.gradient_features(model, group.encoded)
        away = detection.mahalanobis(detection.encoder_features(model, group.encoded), usual)
        own = {"nll": -found.log_likelihood / found.n_tokens, "mahalanobis": away}
        return pd.DataFrame(own | {"gradient": detection.gradient_score(features)}, index=group.ids), features

    tables = [scores(study.group(name))[0].assign(forget_set=name, **key) for name in sets]
    write_parquet(pd.concat([t.rename_axis("example_id").reset_index() for t in tables]), out / "scores.parquet")
    never = {kind: scores(study.group(name).first(examples)) for kind, name in kinds.items()}
    (usual_scores, usual_features), rows = never.pop(inside), []
    tensors = [f"tensor {name}" for name, _ in model.named_parameters()]
    for kind, (strange, features) in never.items():
        both = np.vstack([usual_features, features])
        labels = np.arange(len(both)) >= len(usual_features)
        trained = detection.cross_validated(both, labels, penalty=penalty, folds=folds, seed=seed)
        sides = {name: (usual_scores[name], strange[name]) for name in strange}
        sides |= {"gradients, trained": (trained[~labels], trained[labels])}
        sides |= {name: (usual_features[:, i], features[:, i]) for i, name in enumerate(tensors)}
        found = {name: auc(positives=high, negatives=low) for name, (low, high) in sides.items()}
        rows += [{**key, "kind": kind, "score": name, "auroc": value} for name, value in found.items()]
    write_csv(pd.DataFrame(rows), out / "auroc.csv")


def features(out: Path, *, groups: Sequence[str], **where) -> None:
    """Frozen features of groups of examples. Writes features.parquet: group, example_id, n_tokens, f0, f1, …"""
    from neighbours.detection import encoder_features

    study, model = _opened(**where)
    tables = []
    for name in groups:
        group = study.group(name)
        table = pd.DataFrame(encoder_features(model, group.encoded)).add_prefix("f")
        lengths = [len(target) for _, target in group.encoded]
        tables.append(table.assign(group=name, example_id=group.ids, n_tokens=lengths))
    pd.concat(tables).to_parquet(out / "features.parquet", index=False)
