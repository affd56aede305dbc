"""Which model is trained on which forget set, and from which it is unlearned: a balanced half-in/half-out design.

Columns are those of Paley's Hadamard matrix: 1 … M-1, each two of them orthogonal, all orthogonal to the constant. In
Sylvester's matrix the product of two columns is always a third, so an interaction of two sets is read as the effect of
whoever holds that column. In Paley's it is spread thinly over all of them (from M = 12; the smaller ones are the same).
Paley 1933, doi:10.1002/sapm1933121311.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import Bounds, LinearConstraint, milp

from unlearning.data.kinds import draws, stream
from unlearning.errors import StudyError

BASE = "base"
_OWN = "own"
_MOST_NODES = 200  # of a search for models to ascend from: a count, not a time, so that every machine ends alike
_MOST_BALANCED = 4  # columns that the models to ascend from are balanced over


def is_paley(models: int) -> bool:
    """Is there such a matrix: is M - 1 a prime of the form 4n + 3?"""
    q = models - 1
    return q > 2 and q % 4 == 3 and all(q % d for d in range(3, int(q**0.5) + 1, 2))


@cache
def paley(models: int) -> np.ndarray:
    """(M, M-1) of +1 and -1: one row a model, orthogonal balanced columns, without the constant one."""
    q = models - 1
    squares = np.isin(np.arange(q), np.arange(1, q) ** 2 % q)
    difference = (np.arange(q)[:, None] - np.arange(q)) % q
    matrix = np.ones((models, models), dtype=int)
    matrix[1:, 0] = -1
    matrix[1:, 1:] = np.where(squares[difference], 1, -1) + 2 * np.eye(q, dtype=int)
    return (matrix * matrix[:, [0]])[:, 1:]


def largest_alias(signs: np.ndarray) -> float:
    """Largest |mean of the product of three columns| of (M, k) ±1: 1 where a product of two is a third; 0 if k < 3."""
    k = signs.shape[1]
    apart = ~np.eye(k, dtype=bool)
    found = (np.abs(signs.T @ (signs[:, [a]] * signs))[apart & apart[a] & apart[:, [a]]].max() for a in range(k))
    return float(max(found)) / len(signs) if k > 2 else 0.0


def assign_columns(
    sets: Mapping[str, Any], *, models: int, min_free_columns: int, largest_alias: float = 1.0
) -> dict[str, int]:
    """A column, 1 … M-1, for "base" (the base model), then for each forget set in file order; own sets come last.

    sets: name -> kind, or the families of params.yaml. An own set that is added changes no other's column.
    Raises StudyError: no such design for M, `models`; too many sets; two used columns' product too like a third.
    """
    kinds = {name: value if isinstance(value, str) else value["kind"] for name, value in _expanded(sets).items()}
    if not is_paley(models):
        larger = next(filter(is_paley, range(max(models, 0) + 1, max(models, 4) * 8)))
        raise StudyError(f"there is no such design for {models} models (one less: a prime 4n + 3). Take {larger}.")
    used, candidates = len(kinds) + 1, list(filter(is_paley, range(models, 4 * (models + len(kinds) + 8))))
    enough = [m for m in candidates if m - 1 - used >= min_free_columns]
    fitting = next((m for m in enough if _alias(m, used) <= largest_alias), None)
    mend = f"Set models: {fitting}" if fitting else "Raise design.largest_alias"
    if models not in enough:
        raise StudyError(
            f"too many sets: {len(kinds)} forget sets and the base column do not fit into {models} models with "
            f"min_free_columns: {min_free_columns}. {mend}, or take {used + min_free_columns - models + 1} out."
        )
    if fitting != models:
        raise StudyError(
            f"the product of two of {used} columns is like a third by {_alias(models, used):.2f}, and "
            f"design.largest_alias is {largest_alias:.2f}. {mend}{', or raise the bound' if fitting else ''}."
        )
    in_order = sorted(kinds, key=lambda name: kinds[name] == _OWN)  # a stable sort: else as in the file
    columns = {name: column for column, name in enumerate([BASE, *in_order], start=1)}
    return {name: columns[name] for name in [BASE, *kinds]}


def _expanded(sets: Mapping[str, Any]) -> Mapping[str, Any]:
    return sets if all(isinstance(value, str) for value in sets.values()) else draws(sets)


@cache
def _alias(models: int, used: int) -> float:
    return largest_alias(paley(models)[:, :used])


def design_table(columns: Mapping[str, int], *, models: int) -> pd.DataFrame:
    """One row a model: model (0 … M-1), base (index of its base model), and 1 for each forget set that it holds."""
    held = (paley(models)[:, np.array(list(columns.values())) - 1] + 1) // 2
    return pd.DataFrame(held, columns=list(columns)).rename_axis("model").reset_index()


def ascended(
    table: pd.DataFrame, sets: Mapping[str, Any], *, in_models: int, placebo_models: int, seed: int
) -> pd.DataFrame:
    """Which models each set is unlearned from, fixed before training: forget_set, role (in, placebo), model.

    table: of `design_table`. sets: families of params.yaml. in: `in_models` of the models that hold the set (all, where
    there are fewer), as even as may be over the models within a family. placebo: models that do not hold it, as many a
    set as give its kind `placebo_models` in all. Both are balanced over the base and over the most repeated sets, as
    far as there is room. An own set that is added changes no other's.
    """
    specs = draws(sets)
    times = {name: spec["repetitions"] for name, spec in specs.items() if spec["kind"] != _OWN}
    most = max(times.values(), default=1)
    balanced = [BASE, *(name for name in times if times[name] == most > 1)][:_MOST_BALANCED]
    rows = []
    for role, by, value in (("in", "family", 1), ("placebo", "kind", 0)):
        groups: dict[str, list[str]] = {}
        for name, spec in specs.items():
            groups.setdefault(name if spec["kind"] == _OWN else spec[by], []).append(name)
        for group, names in groups.items():
            each = in_models if role == "in" else -(-placebo_models // len(names))
            rng = stream(seed, f"{role}-models of {group}")
            chosen = _spread(table, names, held=value, each=each, balanced=balanced, rng=rng)
            rows += [(name, role, model) for name in names for model in chosen[name]]
    found = pd.DataFrame(rows, columns=["forget_set", "role", "model"])
    return found.sort_values(["forget_set", "role", "model"], key=_column_place(list(specs)), ignore_index=True)


def _column_place(names: Sequence[str]) -> Any:
    places = {name: place for place, name in enumerate([*names, "in", "placebo"])}
    return lambda column: column.map(places) if column.name != "model" else column


def _spread(
    table: pd.DataFrame, names: list[str], *, held: int, each: int, balanced: list[str], rng: np.random.Generator
) -> dict[str, list[int]]:
    """`each` of the models that hold (1) or do not hold (0) each set: the most even choice that is found, at random."""
    allowed = np.equal(table[names].to_numpy().T, held).astype(float)
    wanted = np.minimum(each, allowed.sum(axis=1))
    costs = rng.random(allowed.size)
    for constraints in _constraints(table, names, wanted, balanced):
        found = milp(  # a gap of 1: the first choice that meets them
            costs,
            constraints=constraints,
            integrality=np.ones(allowed.size),
            bounds=Bounds(0, allowed.ravel()),
            options={"node_limit": _MOST_NODES, "mip_rel_gap": 1},
        )
        if found.x is not None:
            break
    return {
        name: np.flatnonzero(row > 0.5).tolist()
        for name, row in zip(names, found.x.reshape(allowed.shape), strict=True)
    }


def _constraints(
    table: pd.DataFrame, names: list[str], wanted: np.ndarray, balanced: list[str]
) -> Iterator[list[LinearConstraint]]:
    """From the strictest on: first fewer columns are balanced, then models may differ more in how often they come."""
    n, models = len(names), len(table)
    of_set, of_model = np.kron(np.eye(n), np.ones(models)), np.kron(np.ones(n), np.eye(models))
    total = wanted.sum()
    for slack in range(n + 1):
        least, most = max(total // models - slack, 0), -(-total // models) + slack
        for kept in range(len(balanced), -1, -1):
            rows = [(of_set, wanted, wanted), (of_model, np.full(models, least), np.full(models, most))]
            for name in balanced[:kept]:
                signs = np.tile(2 * table[name].to_numpy() - 1, n)
                others = np.array([other != name for other in names])  # a set is always there, or never, for itself
                odd = wanted[others] % 2
                rows += [(of_set[others] * signs, -odd, odd)] if others.any() else []
                odd = odd.sum() % 2
                rows += [((of_set[others].sum(axis=0) * signs)[None], [-odd], [odd])] if others.any() else []
            yield [LinearConstraint(*row) for row in rows]
