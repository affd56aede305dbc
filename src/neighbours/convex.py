"""Where theory holds: ridge and logistic heads on frozen features, strongly convex, in double precision.

x: (n, d) features, y: (n,) targets, w: (d,) head. A certificate speaks of minimisers: it wants a least curvature above
zero. Sources: Guo & Cao 2026 (arXiv 2601.06967); Allouah et al. 2025 (arXiv 2412.09119), algorithms 1 and 2. What
their text leaves open is derived here and says so.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy import optimize
from torch import Tensor
from torch.nn import functional

from unlearning.errors import StudyError

Array = np.ndarray
Loss = Callable[[Tensor], Tensor]


def ridge(x: Tensor, y: Tensor, *, penalty: float) -> Loss:
    """Half the mean squared error with a penalty μ: w -> ‖xw − y‖²/(2n) + μ‖w‖²/2, unit of y²."""
    return lambda w: (x @ w - y).square().mean() / 2 + penalty * w.square().sum() / 2


def logistic(x: Tensor, y: Tensor, *, penalty: float) -> Loss:
    """Mean negative log-likelihood of labels y in {0, 1}, with a penalty μ: nats."""
    # −[y log σ(xw) + (1 − y) log σ(−xw)] = log(1 + e^{−(2y − 1)xw})
    return lambda w: functional.softplus(-(2 * y - 1) * (x @ w)).mean() + penalty * w.square().sum() / 2


def ridge_minimiser(x: Tensor, y: Tensor, *, penalty: float) -> Tensor:
    """(XᵀX/n + μI)⁻¹Xᵀy/n, the minimiser in closed form."""
    return torch.linalg.solve(x.T @ x / len(x) + penalty * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y / len(x))


def minimiser(loss: Loss, start: Tensor) -> Tensor:
    """The minimiser of a smooth convex loss, by SciPy's exact trust region: retraining."""

    def at(function: Callable) -> Callable[[Array], Array]:
        return lambda w: function(torch.from_numpy(w)).numpy()

    calls = {"jac": at(torch.func.grad(loss)), "hess": at(torch.func.hessian(loss))}
    found = optimize.minimize(at(loss), start.numpy(), method="trust-exact", options={"gtol": 1e-10}, **calls)
    return torch.from_numpy(found.x)


def curvature(loss: Loss, w: Tensor) -> tuple[float, float]:
    """Least and largest eigenvalue of the Hessian at w. StudyError where the least is zero: no certificate holds."""
    values = torch.linalg.eigvalsh(torch.func.hessian(loss)(w))
    if float(values[0]) <= 1e-12 * float(values[-1].abs()):
        raise StudyError(
            f"The Hessian is singular (its eigenvalues go from {float(values[0]):.1g} to {float(values[-1]):.1g}): "
            "there is not one minimiser, and no certificate. Set a penalty above zero."
        )
    return float(values[0]), float(values[-1])


def certified_sd(*, gradient_norm: float, least_curvature: float, epsilon: float, delta: float) -> float:
    """Standard deviation of the noise in each coordinate that makes w (ε, δ)-indistinguishable from retraining.

    gradient_norm: of the retain loss at w: ‖w − w*‖ ≤ ‖∇L(w)‖/λ_min. least_curvature: λ_min, everywhere between them;
    a penalty is a bound. epsilon: at most 1. Source: Dwork & Roth 2014, appendix A, Gaussian mechanism.
    """
    # σ = Δ √(2 ln(1.25/δ)) / ε,  Δ = ‖∇L(w)‖/λ_min
    return gradient_norm / least_curvature * np.sqrt(2 * np.log(1.25 / delta)) / epsilon


# Allouah et al.


class Rule(NamedTuple):
    """When algorithm 1 stops, and what noise it adds then."""

    distance: float  # from the retained minimiser, at most
    noise_sd: float  # in each coordinate
    excess: float  # bound of the mean excess risk that both cost together


def stopping_rule(*, alpha: float, epsilon: float, smoothness: float, dimension: int) -> Rule:
    """Algorithm 1: ‖θ − θ*‖² ≤ αε/(4Ld) (their equation 12), then noise of variance α/(2Ld) (derived here).

    Two such points are at most 2Δ apart, so the Rényi divergence of order q is q(2Δ)²/(2σ²) = qε.
    alpha: excess risk that is put up with, unit of the loss. epsilon: divergence per order. smoothness: L.
    """
    square, variance = alpha * epsilon / (4 * smoothness * dimension), alpha / (2 * smoothness * dimension)
    # L/2 (Δ² + dσ²) = αε/(8d) + α/4
    return Rule(square**0.5, variance**0.5, smoothness / 2 * (square + dimension * variance))


def steps_to(
    start: Tensor, goal: Tensor, gradient: Callable[[Tensor], Tensor], *, rate: float, distance: float, most: int
) -> int:
    """Steps of gradient descent from `start` until within `distance` of `goal`; StudyError if `most` do not suffice."""
    w = start.clone()
    for step in range(most + 1):
        if float((w - goal).norm()) <= distance:
            return step
        w -= rate * gradient(w)
    raise StudyError(f"{most} steps do not come within {distance:.1g} of the minimiser. Raise the penalty or alpha.")


def predicted_steps(*, start: float, distance: float, curvatures: tuple[float, float]) -> int:
    """At most so many steps at rate 1/L: (1 − μ/L)^t start ≤ distance. curvatures: (μ, L). Source: Nesterov 2004."""
    least, most = curvatures
    return max(0, int(np.ceil(np.log(distance / start) / np.log1p(-least / most)))) if start > distance else 0


def pull(x: Tensor, residuals: Tensor, hessian: Tensor, *, retained: int) -> float:
    """How far the ridge minimiser moves when rows leave, ‖H_R⁻¹ Σ_F ∇ℓ_i/n_R‖: exact for the penalised sum of squares.

    x, residuals: (f, d) and (f,) xw − y of the leaving rows at the minimiser. hessian: of the retained rows.
    A penalty that is per row, as ours, moves it by a further μ f/n_R ‖w‖, left out. Source: Cook 1977.
    """
    return float(torch.linalg.solve(hessian, x.T @ residuals / retained).norm())


def trimmed_mean(gradients: Tensor, f: int) -> Tensor:
    """Mean of (n, d) without the f smallest and the f largest in each coordinate; f = 0: the mean.

    StudyError: f is more than the rows allow, which is the capacity of algorithm 2.
    """
    if 2 * f >= len(gradients):
        raise StudyError(
            f"A trimmed mean of {len(gradients)} rows can stand {(len(gradients) - 1) // 2} strange ones, not {f}: "
            "beyond the capacity of algorithm 2. Forget fewer rows, or retrain."
        )
    return gradients.sort(dim=0).values[f : len(gradients) - f].mean(dim=0)


def robust_ridge(x: Tensor, y: Tensor, *, penalty: float, f: int, rate: float, tolerance: float, most: int) -> Tensor:
    """Algorithm 2's training: descent along the trimmed mean of the rows' gradients, so that f rows cannot lead it far.

    It ends where the step's gradient is under `tolerance`, or after `most` steps (trimming may circle).
    """
    w = torch.zeros(x.shape[1], dtype=x.dtype)
    for _ in range(most):
        # ∇ℓ_i(w) = (x_i w − y_i) x_i
        step = trimmed_mean((x @ w - y)[:, None] * x, f) + penalty * w
        if float(step.norm()) <= tolerance:
            break
        w -= rate * step
    return w


def certified_slope(*, radius: float, clip: float, rate: float, steps: int, sd: float) -> float:
    """Rényi divergence per order that noisy fine-tuning certifies, no unit: the larger, the less; ∞ without noise.

    radius: C₀, of the ball that the model's parameters are in. clip: C₁, of gradients. sd: of the noise of a step.
    Source: Koloskova et al. 2025, Certified unlearning for neural networks (their public code), solved for ε.
    """
    # σ² = (2C₀ + 2C₁ηT)² / (4εT)
    return (2 * radius + 2 * clip * rate * steps) ** 2 / (4 * steps * sd**2) if sd * steps else float("inf")
