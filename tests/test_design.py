"""The balanced design: its columns, its balance, from which models a set is unlearned, and what is refused."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from unlearning.data import design as plan
from unlearning.data import kinds
from unlearning.data.design import BASE, ascended, assign_columns, design_table, largest_alias, paley
from unlearning.errors import StudyError

STUDY = {
    "ind": {"kind": "natural", "repetitions": 1, "draws": 10},
    "ood-canary": {"kind": "canary", "repetitions": 1, "draws": 10},
    "ood-shuffled": {"kind": "shuffled", "repetitions": 1, "draws": 2},
    "ood-language": {"kind": "language", "repetitions": 1, "draws": 2},
    "ind-x4": {"kind": "natural", "repetitions": 4},
    "ind-x16": {"kind": "natural", "repetitions": 16},
    "ood-secret-x1": {"kind": "secret", "repetitions": 1},
    "ood-secret-x16": {"kind": "secret", "repetitions": 16},
}
ROOM = {"models": 32, "min_free_columns": 1, "largest_alias": 0.25}
EACH = {"in_models": 4, "placebo_models": 8, "seed": 4388}
OWN = {"kind": "own", "path": "own/forget_sets/mine.jsonl", "repetitions": 16}
SETS = kinds.draws(STUDY)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return design_table(assign_columns(STUDY, **ROOM), models=32)


@pytest.fixture(scope="module")
def chosen(table) -> pd.DataFrame:
    return ascended(table, STUDY, **EACH)


# Columns


@pytest.mark.parametrize("models", [4, 8, 12, 20, 24, 32, 44, 48, 60, 68, 72, 80, 84])
def test_columns_are_balanced_and_orthogonal(models):
    columns = paley(models)
    assert columns.shape == (models, models - 1) and set(columns.ravel().tolist()) == {-1, 1}
    assert np.array_equal(columns.T @ columns, models * np.eye(models - 1))
    assert not columns.sum(axis=0).any()


def test_the_first_matrices_are_those_of_the_definition():
    """q = 3: one is the only square, so the entries below the first row are chi(i - j), and -1 on the diagonal."""
    signs = np.array([[1, 1, 1], [-1, 1, -1], [-1, -1, 1], [1, -1, -1]])
    assert np.array_equal(paley(4)[0], signs[0])
    assert {tuple(row) for row in paley(4).tolist()} == {tuple(row) for row in signs.tolist()}
    differences = {(i - j) % 11 for i in range(11) for j in range(11) if i != j and paley(12)[1 + i, j] == 1}
    squares = {1, 3, 4, 5, 9}
    assert differences in (squares, set(range(1, 11)) - squares)


def test_there_is_such_a_design_for_these_numbers_of_models():
    found = [m for m in range(90) if plan.is_paley(m)]
    assert found == [4, 8, 12, 20, 24, 32, 44, 48, 60, 68, 72, 80, 84]


def slow_alias(signs: np.ndarray) -> float:
    return max(abs(signs[:, list(three)].prod(axis=1).mean()) for three in combinations(range(signs.shape[1]), 3))


@pytest.mark.parametrize(("models", "used", "expected"), [(8, 7, 1), (12, 11, 1 / 3), (20, 9, 0.6), (32, 29, 0.25)])
def test_the_largest_alias_is_that_of_all_triples(models, used, expected):
    signs = paley(models)[:, :used]
    assert largest_alias(signs) == pytest.approx(slow_alias(signs)) == pytest.approx(expected)


def test_an_alias_takes_three_columns():
    assert largest_alias(paley(4)[:, :2]) == 0
    assert largest_alias(paley(4)) == 1


def test_of_32_models_29_columns_are_used_and_no_product_of_two_is_like_a_third(table):
    assert list(table) == ["model", BASE, *SETS]
    assert len(table.columns) == 1 + 29
    assert largest_alias(2 * table[[BASE, *SETS]].to_numpy() - 1) == 0.25


def test_half_the_models_hold_a_set_and_a_quarter_hold_two(table):
    held = table[list(SETS)].to_numpy()
    common = held.T @ held
    assert (np.diag(common) == 16).all()
    assert (common[np.triu_indices(28, 1)] == 8).all()
    assert len(table.drop(columns="model").drop_duplicates()) == 32


def test_columns_go_to_the_base_then_to_the_sets_in_file_order():
    columns = assign_columns(STUDY, **ROOM)
    assert columns == {name: i for i, name in enumerate([BASE, *SETS], start=1)}
    assert assign_columns({name: spec["kind"] for name, spec in SETS.items()}, **ROOM) == columns


@pytest.mark.parametrize("first", [True, False])
def test_an_own_set_takes_a_free_column_and_changes_no_other_wherever_it_stands(first, table):
    blocks = {"mine": OWN} | STUDY if first else STUDY | {"mine": OWN}
    columns = assign_columns(blocks, **ROOM)
    assert columns["mine"] == 30
    assert design_table(columns, models=32)[list(table)].equals(table)


@pytest.mark.parametrize(
    ("changes", "own", "message"),
    [
        ({"models": 16}, 0, r"no such design for 16 models \(one less: a prime 4n \+ 3\)\. Take 20\."),
        ({"models": 0}, 0, r"no such design for 0 models .* Take 4\."),
        ({"models": -3}, 0, r"no such design for -3 models .* Take 4\."),
        ({"models": 28}, 0, r"no such design for 28 models .* Take 32\."),
        ({"models": 20}, 0, r"too many sets: 28 forget sets .* 20 models .* Set models: 32, or take 11 out\."),
        ({}, 2, r"too many sets: 30 forget sets .* min_free_columns: 1\. Set models: 60, or take 1 out\."),
        ({"largest_alias": 0.2}, 0, r"29 columns is like a third by 0\.25, .* is 0\.20\. Set models: 60, or raise"),
        ({"largest_alias": 0.0}, 0, r"like a third by 0\.25, .* is 0\.00\. Raise design\.largest_alias\."),
    ],
)
def test_what_cannot_be_laid_out_is_told_in_one_sentence_with_its_mend(changes, own, message):
    blocks = STUDY | {f"mine-{i}": OWN for i in range(own)}
    with pytest.raises(StudyError, match=message) as caught:
        assign_columns(blocks, **(ROOM | changes))
    assert "\n" not in str(caught.value)


def test_the_number_of_models_that_is_named_fits():
    blocks = STUDY | {f"mine-{i}": OWN for i in range(2)}
    assert len(assign_columns(blocks, **(ROOM | {"models": 60}))) == 31


# From which models a set is unlearned


def test_four_models_that_hold_a_set_and_models_that_never_saw_it(table, chosen):
    holds = table.set_index("model")
    for (name, role), part in chosen.groupby(["forget_set", "role"]):
        assert part["model"].is_unique
        assert set(holds.loc[part["model"], name]) == {1 if role == "in" else 0}
    assert chosen.groupby(["role", "forget_set"]).size()["in"].to_dict() == dict.fromkeys(SETS, 4)


def test_each_kind_has_its_placebo_models_shared_evenly_among_its_sets(chosen):
    counts = chosen[chosen["role"] == "placebo"].groupby("forget_set").size()
    kind_of = {name: spec["kind"] for name, spec in SETS.items()}
    of_kind = counts.groupby(kind_of).sum()
    assert of_kind.to_dict() == {"natural": 12, "canary": 10, "shuffled": 8, "language": 8, "secret": 8}
    assert all(counts[name] == {"natural": 1, "canary": 1}.get(kind, 4) for name, kind in kind_of.items())


def test_models_of_a_family_are_even_over_models_the_base_and_the_most_repeated_sets(table, chosen):
    inside = chosen[chosen["role"] == "in"]
    for names in kinds.family_names(STUDY).values():
        part = inside[inside["forget_set"].isin(names)]
        times = part["model"].value_counts().reindex(range(32), fill_value=0)
        assert times.max() - times.min() <= 1
        for name, models in part.groupby("forget_set")["model"]:
            for other in {BASE, "ind-x16", "ood-secret-x16"} - {name}:
                assert table.loc[models, other].sum() == 2, (name, other)


def test_placebo_models_are_spread_over_models_and_the_base(table, chosen):
    outside = chosen[chosen["role"] == "placebo"].assign(kind=lambda t: t["forget_set"].map(lambda n: SETS[n]["kind"]))
    for _, part in outside.groupby("kind"):
        assert part["model"].is_unique
        assert table.loc[part["model"], BASE].sum() == len(part) / 2


def test_the_choice_is_the_same_each_time_and_another_with_another_seed(table, chosen):
    assert ascended(table, STUDY, **EACH).equals(chosen)
    other = ascended(table, STUDY, **(EACH | {"seed": 1}))
    assert not other.equals(chosen) and len(other) == len(chosen)


def test_rows_stand_in_file_order_the_holders_first(chosen):
    assert chosen["forget_set"].drop_duplicates().tolist() == list(SETS)
    assert chosen["role"].tolist()[:5] == ["in"] * 4 + ["placebo"]


def test_own_sets_get_models_too_and_change_none_of_the_others(chosen):
    blocks = {"mine": OWN} | STUDY
    found = ascended(design_table(assign_columns(blocks, **ROOM), models=32), blocks, **EACH)
    mine = found["forget_set"] == "mine"
    assert found[~mine].reset_index(drop=True).equals(chosen)
    assert found[mine].groupby("role").size().to_dict() == {"in": 4, "placebo": 8}


@pytest.mark.parametrize(("models", "holders"), [(4, 2), (8, 4), (12, 5)])
def test_a_small_design_gives_what_models_it_has(models, holders):
    blocks = {"ind": {"kind": "natural", "repetitions": 1}, "ood-canary": {"kind": "canary", "repetitions": 4}}
    table = design_table(assign_columns(blocks, models=models, min_free_columns=0), models=models)
    found = ascended(table, blocks, in_models=5, placebo_models=100, seed=1)
    assert found.groupby(["forget_set", "role"]).size().tolist() == [holders, models // 2] * 2
    none = ascended(table, blocks, in_models=1, placebo_models=0, seed=1)
    assert none["role"].tolist() == ["in", "in"]


def test_where_models_cannot_be_even_the_search_still_ends_with_the_numbers_asked_for():
    """Eighty columns of 84 models, ten of them the most repeated: no choice is balanced over all."""
    blocks = {f"f{i}": {"kind": "natural", "draws": 10, "repetitions": 1 + 15 * (i == 3)} for i in range(8)}
    table = design_table(assign_columns(blocks, models=84, min_free_columns=0), models=84)
    found = ascended(table, blocks, in_models=12, placebo_models=80, seed=1)
    assert found.groupby("role").size().to_dict() == {"in": 960, "placebo": 80}


def test_the_interaction_of_two_sets_moves_the_effect_of_a_third_by_a_quarter_at_most():
    signs = paley(32)[:, :29]
    effects = signs.T @ (signs[:, 3] * signs[:, 7]) / 32
    assert np.abs(effects).max() == 0.25
    assert effects[3] == effects[7] == 0
