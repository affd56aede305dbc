"""What forgetting costs: performance lost, at the steps at which it was measured."""

import numpy as np
from numpy.typing import ArrayLike

Array = np.ndarray


def performance_lost(*, unlearned: Array, reference: Array) -> Array:
    """What unlearning cost, (...) in the unit of the input; positive means damage. Source: Baluta et al. 2024."""
    # performance(reference) − performance(unlearned)
    return np.asarray(reference, dtype=float) - np.asarray(unlearned, dtype=float)


def interpolate(values: Array, steps: Array, at: float) -> Array | float:
    """Value at a fractional step, linear between its neighbours; NaN outside the steps or where `at` is NaN.

    values: (steps, ...), any unit; rows with NaN are not bridged. steps: (steps,), increasing. Returns (...).
    Source: this study; the same rule as that of k* (`genex.steps_to_forget`), so that both speak of one state.
    """
    values, steps = np.asarray(values, dtype=float), np.asarray(steps, dtype=float)
    nothing = np.full(values.shape[1:], np.nan)
    if not (len(steps) and steps[0] <= at <= steps[-1]):
        return nothing if values.ndim > 1 else float("nan")
    after = int(np.searchsorted(steps, at))
    if steps[after] == at:  # a state that was measured: a NaN before it does not spread to it
        result = values[after]
    else:
        # v(at) = (1 − w) v(before) + w v(after),  w = (at − before) / (after − before)
        weight = (at - steps[after - 1]) / (steps[after] - steps[after - 1])
        result = (1 - weight) * values[after - 1] + weight * values[after]
    return result if values.ndim > 1 else float(result)


def followed_at(scored: ArrayLike, steps: ArrayLike, *, gap: float) -> Array:
    """Whether each of `steps` lies between two scored steps at most `gap` apart, or on one.

    A run is followed every few steps (`gap`), on both sides of k*, and once more at 2 k*: between its last followed
    step and 2 k* nothing was measured, and no line is drawn.
    scored: (states,), whole steps, ascending, at least one. steps: (n,) or a number, fractions too; NaN is never.
    Returns (n,) of bool. Source: this study.
    """
    scored, steps = np.asarray(scored, dtype=float), np.asarray(steps, dtype=float)
    last = len(scored) - 1
    below = scored[np.clip(np.searchsorted(scored, steps, side="right") - 1, 0, last)]
    above = scored[np.clip(np.searchsorted(scored, steps), 0, last)]
    return (below <= steps) & (steps <= above) & (above - below <= gap)
