"""The first page: the design in a picture, what exposure compares, and lengths of the corpus."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from paper import look, overview, runs
from tests.fake_study import smoke


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    return smoke(tmp_path_factory.mktemp("study")).write()


@pytest.fixture(scope="module")
def study(fake):
    return runs.read_study(fake.root, **fake.settings)


@pytest.fixture
def looks(fake):
    return look.looks(fake.forget_sets)


def test_models_that_hold_the_set_come_first_and_at_k_star_lie_on_their_own_reference(study):
    unlearned = study.select(forget_set="ood-canary")
    table = overview.set_means(study, unlearned).set_index("model")
    assert table["holds"].tolist() == [True, True, False, False]
    for run in unlearned:
        assert table.loc[run.model, "theta0"] == pytest.approx(run.log_likelihoods[0].mean())
        assert table.loc[run.model, "k_star"] == pytest.approx(run.reference.mean())
    assert table.loc[~table["holds"], "k_star"].isna().all()


def test_a_cell_of_the_design_is_coloured_when_the_model_is_trained_on_the_set(study, looks, fake):
    grid, right = overview.design_figure(study, study.select(forget_set="ood-canary"), looks, fake.ascended).axes
    pixels = grid.images[0].get_array()
    models = [int(label.get_text().split()[1]) for label in grid.get_yticklabels()]
    for row, model in zip(grid.get_yticks(), models, strict=True):
        for column, name in enumerate(study.design):
            full = np.allclose(pixels[int(row), column], to_rgb(looks[name].colour if name in looks else look.GREY))
            assert full == (study.design.loc[model, name] > 0)
    assert "GenEx" in "".join(text.get_text() for text in right.texts)


def test_a_dot_marks_each_model_that_a_set_is_unlearned_from(study, looks, fake):
    grid, _ = overview.design_figure(study, study.select(forget_set="ood-canary"), looks, fake.ascended).axes
    labels = zip(grid.get_yticks(), grid.get_yticklabels(), strict=True)
    models = {at: int(text.get_text().split()[1]) for at, text in labels}
    marked = {
        (study.design.columns[int(x)], role, models[y])
        for role, line in zip(("in", "placebo"), grid.lines, strict=True)
        for x, y in zip(*line.get_data(), strict=True)
    }
    assert marked == set(fake.ascended.itertuples(index=False, name=None))
    for name, role, model in marked:
        assert (study.design.loc[model, name] > 0) == (role == "in")


def test_a_block_of_columns_bears_the_name_of_its_family(study, looks, fake):
    grid, _ = overview.design_figure(study, study.select(forget_set="ood-canary"), looks, fake.ascended).axes
    assert [text.get_text() for text in grid.get_xticklabels()] == ["base", "ind", "ood-canary"]


def test_a_set_that_was_not_unlearned_is_said_to_be_missing(study, looks, fake):
    assert overview.design_figure(study, [], looks, fake.ascended) == "the set has not been unlearned in this arm"


def test_lengths_are_shares_of_a_split_on_each_side():
    rows = [
        (side, split, tokens, 5) for side in ("source", "target") for split in ("core", "heldout") for tokens in (3, 4)
    ]
    lengths = pd.DataFrame(rows, columns=["side", "split", "tokens", "pairs"])
    fig = overview.lengths_figure(lengths, max_tokens=64)
    assert [ax.get_xlabel().split()[0] for ax in fig.axes] == ["source", "target"]
    for line in fig.axes[0].lines[:2]:
        assert sum(line.get_ydata()) == pytest.approx(100)
    assert overview.lengths_figure(lengths.iloc[:0], max_tokens=64) == "the corpus stage has written no lengths"
