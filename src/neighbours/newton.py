"""Newton's method on the retain loss, in one damped step or in a trust region that follows a large shift.

No Hessian is formed: products with it by a second backward pass. `loss` is a twice differentiable function of one
tensor w of any shape. Source: Guo & Cao 2026 (arXiv 2601.06967) as its reviews describe it; what they leave open, and
how the circle between radius and smoothness is cut, is this study's. Conjugate gradients: Steihaug 1983.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

Loss = Callable[[Tensor], Tensor]
Product = Callable[[Tensor], Tensor]
ACCEPTED = 0.1  # least ratio of actual to predicted decrease


class Local(NamedTuple):
    """A loss around one point: its value, gradient, and v -> Hv."""

    value: float
    gradient: Tensor
    product: Product


def local(loss: Loss, w: Tensor) -> Local:
    """Value, gradient and Hessian-vector products at w; each product costs about a gradient."""
    w = w.detach().requires_grad_()
    value = loss(w)
    (gradient,) = torch.autograd.grad(value, w, create_graph=True)

    def product(v: Tensor) -> Tensor:
        return torch.autograd.grad(gradient, w, v, retain_graph=True)[0]

    return Local(float(value.detach()), gradient.detach(), product)


def solve(
    product: Product, b: Tensor, *, damping: float, iterations: int, tolerance: float = 1e-12
) -> tuple[Tensor, Tensor]:
    """(p, (H + λI)p) with (H + λI)p ≈ b, by truncated conjugate gradients: at most `iterations` products.

    Ends early at curvature that is not positive; if that is so at once, p is b. tolerance: of the residual over |b|.
    """
    p, image, residual = torch.zeros_like(b), torch.zeros_like(b), b.clone()
    direction, squared = b.clone(), float((b * b).sum())
    for _ in range(iterations):
        if squared**0.5 <= tolerance * float(b.norm()):
            break
        along = product(direction) + damping * direction
        curvature = float((direction * along).sum())
        if curvature <= 0:
            return (p, image) if p.any() else (direction, along)
        step = squared / curvature
        p, image, residual = p + step * direction, image + step * along, residual - step * along
        before, squared = squared, float((residual * residual).sum())
        direction = residual + squared / before * direction
    return p, image


def largest_curvature(product: Product, like: Tensor, *, iterations: int, seed: int) -> float:
    """Spectral norm of H, from below, by power iteration from a random start of the shape of `like`."""
    v = torch.randn(like.shape, generator=torch.Generator().manual_seed(seed), dtype=like.dtype).to(like.device)
    norm = 0.0
    for _ in range(iterations):
        v = product(v / v.norm())
        norm = float(v.norm())
        if norm == 0:
            break
    return norm


def one_step(loss: Loss, w: Tensor, *, damping: float, iterations: int) -> Tensor:
    """The usual certified step: w − (H + λI)⁻¹∇L(w). Exact for a quadratic loss without damping.

    Source: Guo et al. 2020, Certified data removal; Zhang et al. 2024 for deep models.
    """
    here = local(loss, w)
    return w.detach() - solve(here.product, here.gradient, damping=damping, iterations=iterations)[0]


class Trial(NamedTuple):
    """The state before each trial step; `ratio` and `accepted` are of the step that led here (NaN, True at first)."""

    w: Tensor
    value: float
    gradient_norm: float
    smoothness: float  # L̂, of which the next radius is ‖g‖/L̂
    ratio: float
    accepted: bool


def trust_region(
    loss: Loss, w: Tensor, *, damping: float, iterations: int, power: int, seed: int, tolerance: float = 0.0
) -> Iterator[Trial]:
    """Newton steps no longer than ‖g‖/L̂, accepted by what they gain; ends where ‖g‖ ≤ tolerance.

    iterations: of conjugate gradients a step; power: of power iteration, at the first step only.
    """
    w = w.detach()
    here = local(loss, w)
    smoothness = largest_curvature(here.product, w, iterations=power, seed=seed)
    ratio, accepted = float("nan"), True
    while True:
        norm = float(here.gradient.norm())
        yield Trial(w, here.value, norm, smoothness, ratio, accepted)
        if norm <= tolerance or smoothness == 0:
            return
        if accepted:
            full, image = solve(here.product, -here.gradient, damping=damping, iterations=iterations)
        # p ← p · min(1, ‖g‖ / (L̂‖p‖))
        shrink = min(1.0, norm / (smoothness * max(float(full.norm()), 1e-300)))
        p = shrink * full
        # ρ = [L(w) − L(w + p)] / [−g·p − p·(H + λI)p/2]
        predicted = -float((here.gradient * p).sum()) - shrink * float((p * image).sum()) / 2
        there = local(loss, w + p)
        ratio = (here.value - there.value) / predicted if predicted > 0 else 0.0
        accepted = ratio > ACCEPTED
        if accepted:
            # what the gradient did on the way is smoothness too: L̂ ← max(L̂, ‖Δg‖/‖Δw‖)
            moved = float((there.gradient - here.gradient).norm()) / float(p.norm())
            w, here, smoothness = w + p, there, max(smoothness, moved)
        else:
            smoothness = 2 * smoothness
