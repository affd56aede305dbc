"""Which model is trained on which forget set: a balanced half-in/half-out design from a Hadamard matrix.

Columns of a Sylvester-Hadamard matrix are labelled 1 … M-1 (0 is constant). The product of two columns is a third
one, whose label is the exclusive or of theirs, so an interaction of two sets is read as an effect of whoever holds
that column. Sets of one kind do interact (they teach the same format): no product of two of them may be a column in
use. With sixteen models such an assignment keeps a subgroup {p, q, p⊕q} free and gives each kind one of its cosets.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.linalg import hadamard

from unlearning.data.kinds import KINDS
from unlearning.errors import StudyError

BASE = "base"
_WITH_BASE, _OWN = "canary", "own"  # products of these with the base stay free too, where there is room; added last
_MOST_STEPS = 20_000  # of the search; a possible assignment is found in a few dozen


def assign_columns(kinds: Mapping[str, str], *, models: int, min_free_columns: int) -> dict[str, int]:
    """A Hadamard column for the base model and for each forget set.

    No product of two sets of one kind is a used column. A set of one's own that is added leaves the columns of the
    others as they were.

    Args:
        kinds: forget set -> its kind.
        models: number M of models, a power of two from 4.
        min_free_columns: degrees of freedom to keep, of the M - 1 columns.

    Returns:
        "base" and each forget set -> label in 1 … M-1.

    Raises:
        StudyError: M is no power of two, or there are too many sets for M models.
    """
    if models < 4 or models & (models - 1):
        raise StudyError(f"there is no such design for {models} models. Take a power of two from 4 (4, 8, 16, 32, …).")
    columns = _assignment(kinds, models, min_free_columns)
    if columns is None:
        larger = (models * 2**i for i in range(1, 7))
        enough = next((m for m in larger if _assignment(kinds, m, min_free_columns)), None)
        mend = f"Set models: {enough}, or take a set out." if enough else "Take sets out."
        raise StudyError(
            f"too many sets: {len(kinds)} forget sets and the base column do not fit into {models} models with "
            f"{min_free_columns} columns free. {mend}"
        )
    return {name: columns[name] for name in [BASE, *kinds]}


def _assignment(kinds: Mapping[str, str], models: int, min_free_columns: int) -> dict[str, int] | None:
    """First with the base among the canaries, else with the base on its own."""
    if models - 1 - (len(kinds) + 1) < min_free_columns:
        return None
    first = [kind for kind in KINDS if kind not in (_WITH_BASE, _OWN)]
    before = {name: kind for kind in (*first, _WITH_BASE) for name in kinds if kinds[name] == kind}
    own = {name: _OWN for name in kinds if kinds[name] == _OWN}
    for group_of in (before | {BASE: _WITH_BASE} | own, before | own | {BASE: BASE}):
        found = _search(group_of, {}, models, iter(range(_MOST_STEPS)))
        if found is not None:
            return found
    return None


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
    candidates = []
    for column in set(range(1, models)) - used - forbidden:
        products = {column ^ mate for mate in mates}
        if not products & used:
            candidates.append((len(products - forbidden), column))
    for _, column in sorted(candidates):
        found = _search(group_of, columns | {name: column}, models, steps)
        if found is not None:
            return found
    return None


def design_table(columns: Mapping[str, int], *, models: int) -> pd.DataFrame:
    """One row a model: model (0 … M-1), base (index of its base model), and 1 for each forget set in its training set.

    Every column is balanced, and so is every pair of columns.
    """
    signs = hadamard(models)[:, list(columns.values())]
    table = pd.DataFrame((signs + 1) // 2, columns=list(columns))
    table.insert(0, "model", np.arange(models))
    return table


def aliases(columns: Mapping[str, int]) -> list[tuple[str, str, str]]:
    """(a, b, c) for each two columns a, b whose product is the used column c: there an interaction looks like c."""
    holder = {label: name for name, label in columns.items()}
    products = ((a, b, columns[a] ^ columns[b]) for a, b in combinations(columns, 2))
    return [(a, b, holder[label]) for a, b, label in products if label in holder]
