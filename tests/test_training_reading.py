"""What the training notebook reads from a made-up study whose effects are known."""

import dataclasses

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from paper import look, runs, training
from tests.fake_study import ARMS, FAMILIES, FakeStudy


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    arms = {name: ARMS[name] for name in ("adafactor-restored", "adamw")}
    return FakeStudy(tmp_path_factory.mktemp("study"), models=20, arms=arms, ascents={}).write()


@pytest.fixture(scope="module")
def study(fake):
    return runs.read_study(fake.root, **fake.settings)


@pytest.fixture
def looks():
    return look.looks(FAMILIES)


def partners(study, fake, table: pd.DataFrame, model: int = 0) -> pd.DataFrame:
    """Exact partners of one model without ind-a that score as `table` (one row) says."""
    row = {"trained_with": "adamw", "model": model, "left_out": "ind-a"}
    return pd.DataFrame({"example_id": table.index, "log_likelihood": table.to_numpy()}).assign(**row)


def test_the_gain_of_fine_tuning_is_taken_over_a_models_own_base(study):
    table = training.gains(study).query("trained_with == 'adamw'").set_index("model")
    for model, base in study.design["base"].items():
        before = study.performance["base"].loc[int(base > 0), "heldout"]
        assert table.loc[model, "gain"] == pytest.approx(study.performance["adamw"].loc[model, "heldout"] - before)


def test_a_gain_that_was_not_measured_is_nan_and_keeps_its_row(study):
    table = training.gains(study, "never scored")
    assert len(table) == 2 * 20 and table["gain"].isna().all()


def test_exposure_of_the_originals_is_what_was_put_in(study, fake):
    table = training.learnt(study, "adamw").set_index("forget_set")
    for name in fake.sets:
        own = fake.group(name)
        assert table.loc[name, "estimate"] == pytest.approx(np.mean(fake.gain[own] * fake.tokens[own]), abs=2.0)
        assert table.loc[name, "generator"] + table.loc[name, "instance"] == pytest.approx(table.loc[name, "estimate"])
    assert (table["memorized"] == "yes").all() and (table["n"] == 20).all()
    assert table["family"].to_dict() == {name: block["family"] for name, block in fake.sets.items()}


def test_influence_finds_what_a_family_does_to_other_draws_and_the_set_itself(study):
    scores, design = study.references["adamw"].copy(), study.design
    for name in study.families["ind"]:  # each draw raises the other two by half a nat an example, and canaries by one
        for other in set(study.families["ind"]) - {name}:
            scores[study.members(other)] += 0.25 * design[[name]].to_numpy()
        scores[study.members("never-canary")] += 0.5 * design[[name]].to_numpy()
    raised = training.influence(dataclasses.replace(study, references={"adamw": scores}), "adamw")
    before = training.influence(study, "adamw").set_index(["trained_on", "scored_on"])
    moved = raised.set_index(["trained_on", "scored_on"])["estimate"] - before["estimate"]
    assert moved[("ind", "ind")] == pytest.approx(0.5) and moved[("ind", "never-canary")] == pytest.approx(1.0)
    assert moved.drop([("ind", "ind"), ("ind", "never-canary")]).abs().max() < 1e-9


def test_the_influence_of_a_set_on_itself_is_its_exposure(study):
    learnt = training.learnt(study, "adamw").groupby("family")["estimate"].mean()
    matrix = training.influence(study, "adamw").set_index(["trained_on", "scored_on"])
    itself = matrix.loc[training.ITSELF]
    assert itself["estimate"].to_dict() == pytest.approx(learnt.to_dict())
    one = training.learnt(study, "adamw").set_index("family").loc["ind-x4", ["low", "high"]]
    assert itself.loc["ind-x4", ["low", "high"]].tolist() == pytest.approx(one.tolist())
    assert ("ind", "ind") in matrix.index and ("ind-x4", "ind-x4") not in matrix.index  # another draw, or none


def test_the_interval_of_an_influence_is_that_of_a_regression_on_the_number_of_sets(study):
    row = training.influence(study, "adamw").set_index(["trained_on", "scored_on"]).loc[("ood-canary", "heldout")]
    y = study.references["adamw"][study.members("heldout")].mean(axis=1).to_numpy()
    held = [study.design[draws].sum(axis=1) for draws in study.families.values()]
    x = np.column_stack([np.ones(20), study.design["base"], *held])
    fit, df = np.linalg.lstsq(x, y, rcond=None)[0], 20 - x.shape[1]
    se = np.sqrt(np.sum((y - x @ fit) ** 2) / df * np.linalg.inv(x.T @ x)[3, 3])
    assert row["estimate"] == pytest.approx(2 * fit[3])
    assert row["high"] - row["estimate"] == pytest.approx(2 * stats.t.ppf(0.975, df) * se)


def test_an_interval_is_clear_when_zero_is_outside():
    cells = pd.DataFrame({"low": [1.0, -1.0, -2.0, np.nan], "high": [2.0, 1.0, -1.0, np.nan]})
    assert training.clear(cells).tolist() == [True, False, True, False]


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
    assert table.to_dict() == pytest.approx({"natural": 0.5, "canary": 2.0, "shuffled": 0.5, "secret": 0.5})


def test_every_family_has_a_bar_every_draw_a_point_and_what_is_not_memorized_says_so(study, looks):
    table = training.learnt(study, "adamw")
    table.loc[table["forget_set"] == "ood-secret-x1", "memorized"] = "no"
    ax = training.learnt_figure(table, looks).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(FAMILIES)
    assert [text.get_text() for text in ax.texts] == ["not memorized"]
    points = [x for line in ax.lines if line.get_marker() == "o" for x in line.get_xdata()]
    assert sorted(points) == pytest.approx(sorted(table["estimate"]))


def test_the_bar_of_a_family_whose_parts_are_not_known_is_whole(study, looks):
    table = training.learnt(study, "adamw").iloc[:1]
    ax = training.learnt_figure(table.assign(generator=np.nan, instance=np.nan, memorized="unknown"), looks).axes[0]
    assert [bar.get_width() for bar in ax.patches[:2]] == pytest.approx([0.0, table["estimate"].item()])
    assert [text.get_text() for text in ax.texts] == ["parts not known"]


def test_a_cell_whose_interval_includes_zero_has_no_colour_but_the_hatches_behind():
    cells = [("ind", "ind", 5.0, 4.0, 6.0), ("own", "ind", 0.1, -1.0, 1.2), ("ind", "own", -0.001, -1.0, 1.0)]
    matrix = pd.DataFrame(cells, columns=["trained_on", "scored_on", "estimate", "low", "high"])
    ax = training.influence_figure(matrix.assign(trained_with="adamw"), ["ind", "own"], ["ind", "own"]).axes[0]
    assert ax.patch.get_hatch()
    assert np.ma.getmaskarray(ax.collections[0].get_array()).ravel().tolist() == [False, True, True, True]
    assert [text.get_text() for text in ax.texts] == ["5.0", "0.10", "0.00"]  # and nothing where there is no cell


def test_gains_are_drawn_a_row_a_training(study):
    epochs = pd.DataFrame({"trained_with": "adamw", "model": [0, 0, 1, 1], "epoch": [0, 1, 0, 1]})
    epochs["validation_log_likelihood_per_token"] = [-5.0, -4.0, -5.0, -4.5]
    gains = training.gains(study).query("trained_with == 'adamw'")
    left, right = training.gains_figure(epochs, gains, confidence=0.95).axes
    assert left.lines[-1].get_ydata().tolist() == [-5.0, -4.25]
    assert [label.get_text() for label in right.get_yticklabels()] == ["adamw"]


def test_every_partner_has_a_row_with_both_references_and_a_panel_its_training(study, fake, looks):
    errors = training.partner_errors(study, runs.retrained("partners", fake.root))
    noise = training.repeat_noise(study, runs.retrained("repeats", fake.root))
    fig = training.partners_figure(study, errors, noise, looks)
    assert [ax.get_title() for ax in fig.axes] == ["trained with adafactor", "trained with adamw"]
    drawn = list(dict.fromkeys(errors["forget_set"]))
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == drawn
    for ax, (_, rows) in zip(fig.axes, errors.groupby("trained_with"), strict=True):
        assert sorted(x for line in ax.lines for x in line.get_xdata()) == pytest.approx(sorted(rows["rms"]))
    assert training.partners_figure(study, errors.iloc[:0], noise, looks) == "no exact partner was trained"
