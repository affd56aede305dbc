"""What the training notebook reads from a made-up study whose effects are known."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import hadamard

from paper import look, runs, training
from tests.fake_study import NINE_SETS, FakeStudy


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    arms = {"adamw": ("adamw", "adamw", ["ind-a"])}
    return FakeStudy(tmp_path_factory.mktemp("study"), arms=arms).write()


@pytest.fixture(scope="module")
def study(fake):
    return runs.read_study(fake.root, arms=fake.settings["arms"], ascents={})


@pytest.fixture
def looks(study):
    return look.looks(study.examples, list(NINE_SETS))


def partners(study, fake, table: pd.DataFrame, model: int = 0) -> pd.DataFrame:
    """Exact partners of one model without ind-a that score as `table` (one row) says."""
    row = {"trained_with": "adamw", "model": model, "left_out": "ind-a"}
    return pd.DataFrame({"example_id": table.index, "log_likelihood": table.to_numpy()}).assign(**row)


def test_the_gain_of_fine_tuning_is_taken_over_a_models_own_base(study):
    table = training.gains(study).set_index("model")
    for model, base in study.design["base"].items():
        before = study.performance["base"].loc[int(base > 0), "heldout"]
        assert table.loc[model, "gain"] == pytest.approx(study.performance["adamw"].loc[model, "heldout"] - before)


def test_a_gain_that_was_not_measured_is_nan_and_keeps_its_row(study):
    table = training.gains(study, "never scored")
    assert len(table) == 16 and table["gain"].isna().all()


def test_exposure_of_the_originals_is_what_was_put_in(study, fake):
    table = training.learnt(study, "adamw").set_index("forget_set")
    for name in fake.sets:
        own = (fake.examples["forget_set"] == name).to_numpy()
        put_in = np.mean(fake.gain[own] * fake.examples["n_tokens"].to_numpy()[own])
        assert table.loc[name, "estimate"] == pytest.approx(put_in, abs=2.0)
        assert table.loc[name, "generator"] + table.loc[name, "instance"] == pytest.approx(table.loc[name, "estimate"])
    assert (table["memorized"] == "yes").all() and (table["n"] == 16).all()


def test_the_influence_of_a_set_on_itself_is_its_exposure(study):
    learnt = training.learnt(study, "adamw").set_index("forget_set")
    matrix = training.influence(study, "adamw").set_index(["trained_on", "scored_on"])
    for name in study.forget_sets:
        whole, parts = matrix.loc[(name, name)], learnt.loc[name]
        assert whole[["estimate", "low", "high"]].tolist() == pytest.approx(parts[["estimate", "low", "high"]].tolist())
        assert matrix.loc[(name, f"never-{parts['kind']}"), "estimate"] == pytest.approx(parts["generator"])


def test_an_interval_is_clear_when_zero_is_outside():
    cells = pd.DataFrame({"low": [1.0, -1.0, -2.0, np.nan], "high": [2.0, 1.0, -1.0, np.nan]})
    assert training.clear(cells).tolist() == [True, False, True, False]


def test_a_product_of_columns_that_is_a_column_is_found_and_a_partial_one_left_out():
    columns = hadamard(8)[:, [1, 2, 3, 4]]  # the third is the product of the first two
    found = training.look_alikes(pd.DataFrame(columns, columns=list("abcd")))
    assert {frozenset(row) for row in found[["a", "b", "looks_like"]].to_numpy()} == {frozenset("abc")}
    assert len(found) == 3 and (found["share"] == 1).all()
    weak = pd.DataFrame({"a": [1, 1, -1, -1, 1, -1], "b": [1, -1, 1, -1, 1, -1], "c": [1, -1, -1, 1, -1, -1]})
    assert training.look_alikes(weak).empty and len(training.look_alikes(weak, least=0.3)) > 0


def test_an_exact_partner_equal_to_the_out_average_has_no_error(study, fake):
    outside = study.references["adamw"].loc[study.models("ind-a", "adamw", inside=False), study.members("ind-a")]
    errors = training.partner_errors(study, partners(study, fake, outside.mean())).set_index("reference")["rms"]
    assert errors["out-average"] == pytest.approx(0, abs=1e-9) and errors["regression"] > 0


def test_an_exact_partner_equal_to_the_regression_has_no_error(study, fake):
    ids = study.members("ind-a")
    fitted = pd.Series(runs.reference_of(study, "adamw", "ind-a", 0, ids), ids)
    errors = training.partner_errors(study, partners(study, fake, fitted + 1.0)).set_index("reference")
    assert errors.loc["regression", ["rms", "bias", "examples"]].tolist() == pytest.approx([1.0, -1.0, len(ids)])


def test_noise_of_a_data_order_is_taken_over_never_trained_examples_of_each_kind(study, fake):
    scores = study.references["adamw"].loc[3]
    again = scores + np.where(study.examples.loc[scores.index, "kind"] == "canary", 2.0, 0.5)
    again[study.members("ind-a")] += 100.0
    table = training.repeat_noise(study, partners(study, fake, again, model=3)).set_index("kind")["rms"]
    assert table.to_dict() == pytest.approx({"natural": 0.5, "canary": 2.0, "secret": 0.5})


def test_every_set_has_a_bar_and_one_of_which_only_the_format_was_learnt_says_so(study, looks):
    table = training.learnt(study, "adamw")
    table.loc[table["forget_set"] == "ood-secret-x1", "memorized"] = "no"
    ax = training.learnt_figure(table, looks).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(NINE_SETS)
    assert [text.get_text() for text in ax.texts] == ["not memorized"]


def test_the_bar_of_a_set_whose_parts_are_not_known_is_whole(study, looks):
    table = training.learnt(study, "adamw").iloc[:1]
    ax = training.learnt_figure(table.assign(generator=np.nan, instance=np.nan, memorized="unknown"), looks).axes[0]
    assert [bar.get_width() for bar in ax.patches[:2]] == pytest.approx([0.0, table["estimate"].item()])
    assert [text.get_text() for text in ax.texts] == ["parts not known"]


def test_a_cell_whose_interval_includes_zero_has_no_colour_but_the_hatches_behind():
    cells = [("ind-a", "ind-a", 5.0, 4.0, 6.0), ("ind-b", "ind-a", 0.1, -1.0, 1.2)]
    matrix = pd.DataFrame(cells, columns=["trained_on", "scored_on", "estimate", "low", "high"])
    ax = training.influence_figure(matrix.assign(trained_with="adamw"), ["ind-a"], ["ind-a", "ind-b"]).axes[0]
    assert ax.patch.get_hatch()
    assert np.ma.getmaskarray(ax.collections[0].get_array()).ravel().tolist() == [False, True]
    assert [text.get_text() for text in ax.texts] == ["5.0", "0.10"]


def test_gains_are_drawn_a_row_a_training(study):
    epochs = pd.DataFrame({"trained_with": "adamw", "model": [0, 0, 1, 1], "epoch": [0, 1, 0, 1]})
    epochs["validation_log_likelihood_per_token"] = [-5.0, -4.0, -5.0, -4.5]
    left, right = training.gains_figure(epochs, training.gains(study), confidence=0.95).axes
    assert left.lines[-1].get_ydata().tolist() == [-5.0, -4.25]
    assert [label.get_text() for label in right.get_yticklabels()] == ["adamw"]


def test_without_partners_the_figure_is_a_reason_and_with_them_a_panel_a_kind_of_reference(study, fake, looks):
    none = training.partner_errors(study, runs.retrained("partners", fake.root))
    noise = training.repeat_noise(study, runs.retrained("repeats", fake.root))
    assert training.partners_figure(study, none, noise, looks) == "no exact partner was trained"
    table = study.references["adamw"].loc[1, study.members("ind-a")]
    errors = training.partner_errors(study, partners(study, fake, table))
    fig = training.partners_figure(study, errors, noise, looks)
    assert [ax.get_title() for ax in fig.axes] == ["out-average", "regression"]
