"""The balanced design: its columns, its balance, and what it refuses."""

from itertools import combinations, permutations

import numpy as np
import pytest

from unlearning.data.design import BASE, aliases, assign_columns, design_table
from unlearning.errors import StudyError

NINE = {
    "ind-a": "natural",
    "ind-b": "natural",
    "ind-x4": "natural",
    "ind-x16": "natural",
    "ood-canary-a": "canary",
    "ood-canary-b": "canary",
    "ood-secret-x1": "secret",
    "ood-secret-x4": "secret",
    "ood-secret-x16": "secret",
}


def many(natural: int, secret: int, canary: int, own: int = 0) -> dict[str, str]:
    counts = {"natural": natural, "secret": secret, "canary": canary, "own": own}
    return {f"{kind}-{i}": kind for kind, n in counts.items() for i in range(n)}


def same_kind_products(kinds: dict[str, str], columns: dict[str, int]) -> list[int]:
    """Labels of products of two columns of one kind, by multiplying the ±1 columns themselves."""
    models = 1 << max(columns.values()).bit_length()
    signs = {c: [(-1) ** bin(row & c).count("1") for row in range(models)] for c in range(models)}
    pairs = [(a, b) for a, b in combinations(columns, 2) if kinds.get(a) == kinds.get(b)]
    products = [[x * y for x, y in zip(signs[columns[a]], signs[columns[b]], strict=True)] for a, b in pairs]
    return [next(c for c, column in signs.items() if column == product) for product in products]


def test_no_product_of_two_sets_of_one_kind_is_a_used_column():
    columns = assign_columns(NINE, models=16, min_free_columns=4)
    products = same_kind_products(NINE, columns)
    assert len(products) == 6 + 3 + 1
    assert not set(products) & set(columns.values())


def test_no_product_of_the_base_and_a_canary_is_a_used_column():
    columns = assign_columns(NINE, models=16, min_free_columns=4)
    for name in ("ood-canary-a", "ood-canary-b"):
        assert columns[BASE] ^ columns[name] not in columns.values()


def test_sixteen_models_cannot_keep_the_base_apart_from_all_nine_sets():
    """The base pairs the other fourteen columns up; of each pair only one could be used: seven sets, not nine."""
    base = 12
    pairs = {frozenset({c, c ^ base}) for c in range(1, 16) if c != base}
    assert len(pairs) == 7 < len(NINE)


def test_two_sets_of_one_kind_alone_are_aliased_in_the_naive_assignment():
    naive = {name: i + 1 for i, name in enumerate(NINE)} | {BASE: 10}
    assert any(NINE.get(a) == NINE.get(b) for a, b, _ in aliases(naive))


@pytest.mark.parametrize(
    ("kinds", "models", "free"),
    [
        (NINE, 16, 4),
        (many(4, 3, 2, 1), 16, 4),
        (many(1, 0, 1), 4, 0),
        (many(2, 1, 1), 8, 1),
        (many(8, 7, 7, 1), 32, 4),
        (many(10, 6, 6), 64, 4),
    ],
)
def test_every_column_and_every_pair_of_columns_is_balanced(kinds, models, free):
    columns = assign_columns(kinds, models=models, min_free_columns=free)
    assert len(set(columns.values())) == len(kinds) + 1
    assert not set(same_kind_products(kinds, columns)) & set(columns.values())
    held = design_table(columns, models=models)[list(columns)].to_numpy()
    assert (held.sum(axis=0) == models / 2).all()
    for a, b in permutations(range(held.shape[1]), 2):
        assert np.sum(held[:, a] & held[:, b]) == models / 4


def test_all_models_of_the_default_design_differ():
    table = design_table(assign_columns(NINE, models=16, min_free_columns=4), models=16)
    assert table["model"].tolist() == list(range(16))
    assert len(table.drop(columns="model").drop_duplicates()) == 16


def test_a_set_of_ones_own_leaves_the_columns_of_the_others_as_they_were():
    before = assign_columns(NINE, models=16, min_free_columns=4)
    after = assign_columns(NINE | {"my-set": "own"}, models=16, min_free_columns=4)
    assert {name: after[name] for name in before} == before
    assert 0 < after["my-set"] < 16


def test_four_columns_stay_free():
    assert 15 - len(assign_columns(NINE, models=16, min_free_columns=4)) >= 4


def test_too_many_sets_are_refused_with_the_number_of_models_that_takes_them():
    kinds = NINE | {"mine-a": "own", "mine-b": "own"}
    with pytest.raises(StudyError, match=r"too many sets.*models: 32"):
        assign_columns(kinds, models=16, min_free_columns=4)
    assert assign_columns(kinds, models=32, min_free_columns=4)


@pytest.mark.parametrize("models", [0, 2, 6, 12, 17])
def test_a_number_of_models_without_such_a_design_is_refused(models):
    with pytest.raises(StudyError, match="power of two"):
        assign_columns({"a": "natural"}, models=models, min_free_columns=0)
