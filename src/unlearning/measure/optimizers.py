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
    """Build `adamw`, `sgd` or `adafactor` from explicit settings; nothing is left to a library default.

    Adafactor takes steps relative to the RMS of each matrix and has no momentum, as in the authors' T5X code.

    Raises:
        ValueError: unknown name.
    """
    rate, decay = settings["learning_rate"], settings["weight_decay"] if name != "adafactor" else 0.0
    if name == "adamw":
        betas, eps = tuple(settings.get("betas", (0.9, 0.999))), settings.get("eps", 1e-8)
        return torch.optim.AdamW(parameters, lr=rate, betas=betas, eps=eps, weight_decay=decay, fused=True)
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=settings["momentum"], weight_decay=decay)
    if name == "adafactor":
        return Adafactor(
            parameters,
            lr=rate,
            scale_parameter=True,
            relative_step=False,
            warmup_init=False,
            beta1=None,
            eps=ADAFACTOR_EPS,
            clip_threshold=settings.get("clip_threshold", 1.0),
            decay_rate=settings.get("decay_rate", -0.8),
        )
    raise ValueError(f"unknown optimizer {name!r}: use adamw, sgd or adafactor")


def save_state(optimizer: torch.optim.Optimizer, path: Path | str) -> None:
    """Write an optimizer's state tensors to safetensors; scalars become tensors of one number."""
    state = optimizer.state_dict()["state"]
    save_file({f"{i}.{k}": torch.as_tensor(v).clone() for i, s in state.items() for k, v in s.items()}, path)


def load_state(optimizer: torch.optim.Optimizer, path: Path | str, *, freeze: bool = False) -> None:
    """Restore a state written by `save_state`, step count included.

    Args:
        freeze: keep Adafactor's second moments as they are, the limit of the authors' long training run
            (their half-life was some 3 660 steps).
    """
    state: dict[int, dict] = {}
    for key, value in load_file(path).items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = int(value) if name == "step" else value
    if freeze:
        for entries in state.values():
            entries["step"] = FROZEN_STEP
    content = optimizer.state_dict()
    optimizer.load_state_dict({"state": state, "param_groups": content["param_groups"]})


def _adam_update(p: Tensor, state: dict, group: dict) -> Tensor:
    first = state["exp_avg"] / (1 - group["betas"][0] ** int(state["step"]))
    second = state["exp_avg_sq"] / (1 - group["betas"][1] ** int(state["step"]))
    return first / (second.sqrt() + group["eps"])


def _adafactor_update(p: Tensor, state: dict, group: dict) -> Tensor:
    if "exp_avg_sq" in state:
        return p.grad * state["exp_avg_sq"].rsqrt()
    return p.grad * Adafactor._approx_sq_grad(state["exp_avg_sq_row"], state["exp_avg_sq_col"])


@torch.no_grad()
def update_statistics(optimizer: torch.optim.Optimizer) -> tuple[float, float]:
    """The last update before clip and learning rate, while its gradients are still there.

    Returns:
        mean over parameter tensors of the update's root mean square, and the share of tensors whose
        RMS lies above Adafactor's clip threshold (0 for optimizers without one).
    """
    sizes, clipped = [], []
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is None:
                continue
            if isinstance(optimizer, Adafactor):
                update = _adafactor_update(p, optimizer.state[p], group)
            elif isinstance(optimizer, torch.optim.AdamW):
                update = _adam_update(p, optimizer.state[p], group)
            else:
                update = p.grad
            sizes.append(float(update.square().mean().sqrt()))
            clipped.append(sizes[-1] > group.get("clip_threshold", float("inf")))
    return sum(sizes) / len(sizes), sum(clipped) / len(clipped)
