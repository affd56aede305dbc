"""Which model is trained on which forget set: a balanced half-in/half-out design from a Hadamard matrix.

Columns of a Sylvester-Hadamard matrix are labelled 1 … M-1 (0 is constant). The product of two columns is a third
one, whose label is the exclusive or of theirs, so an interaction of two sets is read as an effect of whoever holds
that column. Sets of one kind do interact (they teach the same format): no product of two of them may be in use.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations

import pandas as pd
from scipy.linalg import hadamard

from unlearning.data.kinds import KINDS
from unlearning.errors import StudyError

BASE = "base"
_WITH_BASE, _OWN = "canary", "own"  # products of these with the base stay free too, where there is room; added last
_MOST_STEPS = 20_000  # of the search; a possible assignment is found in a few dozen


def assign_columns(kinds: Mapping[str, str], *, models: int, min_free_columns: int) -> dict[str, int]:
    """A Hadamard column, a label in 1 … M-1, for "base" (the base model) and for each forget set of `kinds`.

    No product of two sets of one kind is a used column. An own set that is added changes no other column.
    Raises StudyError: M, `models`, is no power of two from 4, or there are too many sets for M models.
    """
    if models < 4 or models & (models - 1):
        raise StudyError(f"there is no such design for {models} models. Take a power of two from 4 (4, 8, 16, 32, …).")
    fits = (m for m in (models * 2**i for i in range(7)) if _assignment(kinds, m, min_free_columns))
    enough = next(fits, None)
    if enough != models:
        mend = f"Set models: {enough}, or take a set out." if enough else "Take sets out."
        raise StudyError(
            f"too many sets: {len(kinds)} forget sets and the base column do not fit into {models} models with "
            f"{min_free_columns} columns free. {mend}"
        )
    columns = _assignment(kinds, models, min_free_columns)
    return {name: columns[name] for name in [BASE, *kinds]}


def _assignment(kinds: Mapping[str, str], models: int, min_free_columns: int) -> dict[str, int] | None:
    """First with the base among the canaries, else with the base on its own."""
    if models - 1 - (len(kinds) + 1) < min_free_columns:
        return None
    first = [kind for kind in KINDS if kind not in (_WITH_BASE, _OWN)]
    before = {name: kind for kind in (*first, _WITH_BASE) for name in kinds if kinds[name] == kind}
    own = {name: _OWN for name in kinds if kinds[name] == _OWN}
    ways = (before | {BASE: _WITH_BASE} | own, before | own | {BASE: BASE})
    return next(filter(None, (_search(groups, {}, models, iter(range(_MOST_STEPS))) for groups in ways)), None)


def _search(
    group_of: Mapping[str, str], columns: dict[str, int], models: int, steps: Iterator[int]
) -> dict[str, int] | None:
    """Depth first: the next name takes the column whose products with its group forbid the fewest new ones."""
    if len(columns) == len(group_of):
        return columns
    if next(steps, None) is None:
        return None
    name = next(name for name in group_of if name not in columns)
    used = set(columns.values())
    forbidden = {columns[a] ^ columns[b] for a, b in combinations(columns, 2) if group_of[a] == group_of[b]}
    mates = [column for other, column in columns.items() if group_of[other] == group_of[name]]
    products = {column: {column ^ mate for mate in mates} for column in set(range(1, models)) - used - forbidden}
    free = sorted((len(made - forbidden), column) for column, made in products.items() if not made & used)
    found = (_search(group_of, columns | {name: column}, models, steps) for _, column in free)
    return next(filter(None, found), None)


def design_table(columns: Mapping[str, int], *, models: int) -> pd.DataFrame:
    """One row a model: model (0 … M-1), base (index of its base model), and 1 for each forget set that it holds."""
    held = (hadamard(models)[:, list(columns.values())] + 1) // 2
    return pd.DataFrame(held, columns=list(columns)).rename_axis("model").reset_index()


def aliases(columns: Mapping[str, int]) -> list[tuple[str, str, str]]:
    """(a, b, c) for each two columns a, b whose product is the used column c: there an interaction looks like c."""
    holder = {label: name for name, label in columns.items()}
    pairs = combinations(columns, 2)
    return [(a, b, holder[columns[a] ^ columns[b]]) for a, b in pairs if columns[a] ^ columns[b] in holder]
