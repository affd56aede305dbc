"""GRAIL: gradients of what is to go and of what is to stay decide which parameters may move for which.

Per parameter tensor: signed sums of gradients, standardised, the top share of |z|. Masks name entries that stay put.
Two buffers of gradients a step, one a kind of batch, each under its own mask, then added. (The public code masks one
accumulated gradient after each small batch, and so wipes what the other kind of batch had left there.)
Source: Kim et al. 2025 (arXiv 2504.12681), and its public code for what the text leaves open.
"""

from collections.abc import Sequence
from functools import reduce
from math import ceil

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from unlearning.errors import StudyError
from unlearning.measure.ascent import Loss, ascent_mean
from unlearning.measure.scoring import Prepared, log_likelihoods

Tensors = Sequence[Tensor]  # one a parameter tensor of the model, in its order


def summed_gradients(model: PreTrainedModel, examples: Prepared) -> list[Tensor]:
    """Signed gradient of the examples' negative log-likelihood over their number, nats, per tensor."""
    # G = Σ_x ∇[−ℓ(x)] / n: opposite examples cancel
    loss = -log_likelihoods(model, examples)[0].sum() / len(examples.n_tokens)
    return list(torch.autograd.grad(loss, list(model.parameters())))


def standardised(gradient: Tensor) -> Tensor:
    """z = (G − mean)/sd over a tensor's entries, no unit; zero where all are equal."""
    return torch.nan_to_num((gradient - gradient.mean()) / gradient.std(correction=0), posinf=0.0, neginf=0.0)


def top(values: Tensor, share: float) -> Tensor:
    """Bool of the values' shape, True at the share (at least one) of entries with the largest |value|."""
    chosen, sizes = torch.zeros(values.numel(), dtype=torch.bool), values.abs().flatten().cpu()
    chosen[sizes.topk(ceil(share * values.numel())).indices] = True
    return chosen.view(values.shape)


def localise(unlearn: Sequence[Tensors], retain: Sequence[Tensors], *, share: Sequence[float]) -> list[list[Tensor]]:
    """Two masks per tensor: which entries the forget batches, and which the retain batches, may not move.

    unlearn, retain: summed gradients of one or more domains each. share: of entries, for the first mask and the second.
    One domain is the degenerate case: T_unlearn ∩ T_retain, and T_retain.
    StudyError: no retain data, or a mask covers all.
    """
    if not retain or not unlearn:
        missing = "retain" if unlearn else "forget"
        raise StudyError(f"GRAIL needs gradients of {missing} data, and there are none. Give it a set of that kind.")

    def tops(domains: Sequence[Tensors], k: float) -> list[list[Tensor]]:
        return [[top(standardised(gradient), k) for gradient in gradients] for gradients in domains]

    def joined(sets: Sequence[Tensors], how) -> list[Tensor]:
        return [reduce(how, of_one) for of_one in zip(*sets, strict=True)]

    # OP-UR = (∪_d T_d,unlearn) ∩ (∪_d T_d,retain) at the first share;  OP-RR = ∩_d T_d,retain at the second
    either = [joined(tops(domains, share[0]), torch.logical_or) for domains in (unlearn, retain)]
    masks = [joined(either, torch.logical_and), joined(tops(retain, share[1]), torch.logical_and)]
    for mask, k, batches in zip(masks, share, ("forget", "retain"), strict=True):
        if all(bool(m.all()) for m in mask):
            raise StudyError(f"GRAIL's mask at share {k:g} covers every parameter: {batches} batches could move none.")
    return masks


def at_random(masks: Sequence[Tensors], *, seed: int) -> list[list[Tensor]]:
    """Masks of equal size per tensor, at random places: the control."""
    generator = torch.Generator().manual_seed(seed)
    return [[m.flatten()[torch.randperm(m.numel(), generator=generator)].view(m.shape) for m in mask] for mask in masks]


def masked_difference(parameters: Tensors, masks: Sequence[Tensors], *, forget: float, retain: float) -> Loss:
    """Gradient difference with a mask for each kind of batch; masks that cover nothing: `gradient_difference`.

    The value has no meaning. Its gradient is the sum of both kinds' gradients, each zero under its own mask.
    parameters: the model's. masks: as `localise` gives. forget, retain: weights (GRAIL: 0.4 and 2.0).
    """
    up, down = ([m.to(p.device) for m, p in zip(mask, parameters, strict=True)] for mask in masks)

    def loss(of_forget: Tensor, n_forget: np.ndarray, of_retain: Tensor, n_retain: np.ndarray) -> Tensor:
        gone = torch.autograd.grad(forget * ascent_mean(of_forget, n_forget), parameters)
        kept = torch.autograd.grad(-retain * ascent_mean(of_retain, n_retain), parameters)
        sums = [g.masked_fill(u, 0) + r.masked_fill(d, 0) for g, r, u, d in zip(gone, kept, up, down, strict=True)]
        # linear in θ, so that ∇J is that sum
        return torch.stack([(p * g).sum() for p, g in zip(parameters, sums, strict=True)]).sum()

    return loss
