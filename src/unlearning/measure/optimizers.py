"""The optimizers of training and ascent, their state on disk, and what their last update looked like."""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.optimization import Adafactor

ADAFACTOR_EPS = (1e-30, 1e-3)  # added to squared gradients; least RMS of a matrix that a step is relative to
FROZEN_STEP = 10**12  # at such a step count the decay of Adafactor's second moments is 1: they no longer move


def make_optimizer(parameters: Iterable[nn.Parameter], name: str, settings: dict) -> torch.optim.Optimizer:
    """Build `adamw`, `sgd` or `adafactor` (else ValueError) from settings; nothing is left to a library default."""
    # Adafactor as in the authors' T5X code: steps relative to the RMS of each matrix, no momentum
    t5x = {"scale_parameter": True, "relative_step": False, "warmup_init": False, "beta1": None, "eps": ADAFACTOR_EPS}
    kinds = {
        "adamw": (torch.optim.AdamW, ("betas", "eps", "weight_decay"), {"fused": True}),
        "sgd": (torch.optim.SGD, ("momentum", "weight_decay"), {}),
        "adafactor": (Adafactor, ("clip_threshold", "decay_rate"), t5x),
    }
    if name not in kinds:
        raise ValueError(f"unknown optimizer {name!r}: use {', '.join(kinds)}")
    optimizer, options, fixed = kinds[name]
    return optimizer(parameters, lr=settings["learning_rate"], **{o: settings[o] for o in options}, **fixed)


def arm_optimizer(parameters: Iterable[nn.Parameter], arm: dict, *, state: Path | str) -> torch.optim.Optimizer:
    """The optimizer of an arm, at its learning rate times its `rate`; a `restored` one goes on from `state`."""
    rate = arm["learning_rate"] * arm.get("rate", 1.0)
    optimizer = make_optimizer(parameters, arm["optimizer"], {**arm, "learning_rate": rate})
    if arm.get("restored"):
        load_state(optimizer, state, freeze=arm["freeze_second_moment"])
    return optimizer


def save_state(optimizer: torch.optim.Optimizer, path: Path | str) -> None:
    """Write an optimizer's state tensors to safetensors; scalars become tensors of one number."""
    state = optimizer.state_dict()["state"]
    save_file({f"{i}.{k}": torch.as_tensor(v).clone() for i, s in state.items() for k, v in s.items()}, path)


def load_state(optimizer: torch.optim.Optimizer, path: Path | str, *, freeze: bool = False) -> None:
    """Restore a state written by `save_state`, step count included; `freeze` keeps Adafactor's second moments."""
    state: dict[int, dict] = {}
    for key, value in load_file(path).items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = int(value) if name == "step" else value
        if freeze:
            state[int(index)]["step"] = FROZEN_STEP
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _last_update(optimizer: torch.optim.Optimizer, p: Tensor, group: dict) -> Tensor:
    state = optimizer.state.get(p, {})
    if isinstance(optimizer, Adafactor):  # g / √v, v factored into rows and columns for matrices
        if "exp_avg_sq" in state:
            return p.grad * state["exp_avg_sq"].rsqrt()
        return p.grad * Adafactor._approx_sq_grad(state["exp_avg_sq_row"], state["exp_avg_sq_col"])
    if isinstance(optimizer, torch.optim.AdamW):  # m̂ / (√v̂ + ε), m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ)
        first = state["exp_avg"] / (1 - group["betas"][0] ** int(state["step"]))
        second = state["exp_avg_sq"] / (1 - group["betas"][1] ** int(state["step"]))
        return first / (second.sqrt() + group["eps"])
    return p.grad


@torch.no_grad()
def update_statistics(optimizer: torch.optim.Optimizer) -> tuple[float, float]:
    """RMS of the last update before clip and learning rate, and the share above Adafactor's clip threshold (or 0).

    Mean and share are over parameter tensors. Call it while the update's gradients are still there.
    """
    sizes, clipped = [], []
    for group in optimizer.param_groups:
        for p in (p for p in group["params"] if p.grad is not None):
            sizes.append(float(_last_update(optimizer, p, group).square().mean().sqrt()))
            clipped.append(sizes[-1] > group.get("clip_threshold", float("inf")))
    return sum(sizes) / len(sizes), sum(clipped) / len(clipped)
