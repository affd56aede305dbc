"""What the exposure notebook reads from a made-up study: curves, floors, controls, stand-ins, ranks, attacks."""

from dataclasses import replace

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from paper import exposure, look, runs
from tests.fake_study import FakeStudy, smoke

PAIR = ["ind-a", "ood-canary-a"]


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    """Sixteen models, nine sets, of which two are unlearned."""
    return FakeStudy(tmp_path_factory.mktemp("study"), arms={"adamw": ("adamw", "adamw", PAIR)}).write()


@pytest.fixture(scope="module")
def study(fake):
    return runs.read_study(fake.root, **fake.settings)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Four models, so that two hold a set and two do not."""
    fake = smoke(tmp_path_factory.mktemp("small")).write()
    return runs.read_study(fake.root, **fake.settings)


@pytest.fixture
def looks(study):
    return look.looks(study.examples, study.forget_sets)


# --- GenEx along the steps


def test_runs_of_different_length_stand_on_common_steps(study):
    some = study.select(forget_set="ind-a")[:2]
    values = {some[0].model: pd.Series([1, 2, 3], [0, 1, 2]), some[1].model: pd.Series([4, 5, 6], [0, 2, 5])}
    table = exposure.along(some, lambda run: values[run.model])
    assert table.columns.tolist() == [0, 1, 2, 5]
    assert np.isnan(table.iloc[0, 3]) and np.isnan(table.iloc[1, 1]) and table.iloc[1, 3] == 6


def test_the_floor_of_a_set_mean_is_the_textbook_interval_of_one_model_more(study):
    run = study.select(forget_set="ind-a")[0]
    means = runs.outside_scores(study, run).mean(axis=1)
    expected = stats.t.ppf(0.975, 7) * means.std(ddof=1) * np.sqrt(1 + 1 / 8)
    assert exposure.set_floor(study, run) == pytest.approx(expected)


def test_every_set_of_an_arm_has_its_panel_with_a_floor_under_its_curve(study, looks):
    fig = exposure.steps_figure(study, study.select(), looks)
    assert [ax.get_title(loc="left") for ax in fig.axes] == PAIR
    for ax, name in zip(fig.axes, PAIR, strict=True):
        floor = exposure.set_floor(study, study.select(forget_set=name)[0])
        band = [p for p in ax.patches if p.get_facecolor()[:3] == matplotlib.colors.to_rgb(look.FLOOR)]
        assert [p.get_height() for p in band] == pytest.approx([2 * floor])
    assert exposure.steps_figure(study, [], looks) == "no run of this arm"


def test_the_ensemble_starts_exposed_and_falls(study):
    path = exposure.ensemble_by_step(study, study.select(forget_set="ood-canary-a"))
    assert path["mean_log"].iloc[0] > 10 and (np.diff(path["mean_log"]) < 0).all()
    assert path["effective_models"].between(1, 8).all() and (path["n_models"] == 8).all()


def test_the_ensemble_at_step_zero_is_the_difference_of_in_and_out_averages(fake, study):
    own = (fake.examples["forget_set"] == "ind-a").to_numpy()
    values, inside = fake.likelihood["adamw"][:, own], fake.signs["ind-a"].to_numpy() > 0
    first = exposure.ensemble_by_step(study, study.select(forget_set="ind-a")).iloc[0]
    assert first["mean_log"] == pytest.approx(values[inside].mean() - values[~inside].mean())
    log_means = [np.log(np.mean(np.exp(side), axis=0)) for side in (values[inside], values[~inside])]
    assert first["log_mean"] == pytest.approx(np.mean(log_means[0] - log_means[1]))


def test_both_estimators_are_drawn_in_a_panel_of_their_set_and_arm(looks):
    table = pd.DataFrame({"step": [0, 1], "mean_log": [1.0, 0.0], "log_mean": [2.0, 1.0]})
    ax = exposure.estimators_figure({("ind-a", "adamw"): table}, looks).axes[0]
    assert [line.get_ydata().tolist() for line in ax.lines[1:]] == [[1.0, 0.0], [2.0, 1.0]]
    assert ax.get_title(loc="left") == "ind-a, adamw" and isinstance(exposure.estimators_figure({}, looks), str)


# --- controls


def test_models_that_never_held_a_set_lie_inside_the_floor_and_the_others_outside(study):
    table = exposure.calibration(study, "adamw", "ood-canary-a")
    share = table.groupby("side")["share_outside"].mean()
    assert share["out"] < 0.1 < 0.9 < share["in"]
    assert table["auc"].min() > 0.95 and table.loc[table["side"] == "out", "auc"].isna().all()


def test_a_model_without_the_set_is_left_out_of_its_own_average_and_floor(study):
    table = exposure.calibration(study, "adamw", "ind-a").query("side == 'out'").set_index("model")
    ids, outside = study.members("ind-a"), study.models("ind-a", "adamw", inside=False)
    others = study.references["adamw"].loc[outside[1:], ids].to_numpy()
    g = study.references["adamw"].loc[outside[0], ids].to_numpy() - others.mean(axis=0)
    half = stats.t.ppf(0.975, 6) * others.std(axis=0, ddof=1) * np.sqrt(1 + 1 / 7)
    assert table.loc[outside[0], "exposure"] == pytest.approx(g.mean())
    assert table.loc[outside[0], "share_outside"] == np.mean(np.abs(g) > half)


def test_a_partner_that_is_its_reference_has_no_exposure_and_lies_inside_the_floor(study):
    ids = study.members("ind-a")
    reference = runs.reference_of(study, "adamw", "ind-a", 0, ids)
    table = pd.DataFrame({"trained_with": "adamw", "model": 0, "left_out": "ind-a", "example_id": ids})
    for off, outside in ((0.0, 0.0), (1e3, 1.0)):
        partner = table.assign(log_likelihood=reference + off)
        row = exposure.partner_calibration(study, partner).iloc[0]
        assert row["exposure"] == pytest.approx(off, abs=1e-9) and row["share_outside"] == outside
        assert row["side"] == "partner"


def test_the_placebo_has_a_column_an_ascent_and_a_study_without_one_a_reason(study, looks):
    fig = exposure.placebo_figure(study, looks)
    assert [ax.get_title(loc="left") for ax in fig.axes[:2]] == [f"{name}\nadamw" for name in PAIR]
    none = replace(study, runs=study.select())
    assert exposure.placebo_figure(none, looks) == "no placebo was run"


# --- stand-ins


def test_the_reading_by_original_stops_at_once_and_leaves_everything(study):
    run = study.select(forget_set="ind-a")[0]
    rows = exposure.stops(study, run).set_index("reading")
    assert rows.loc["original", "stop"] == 0
    assert rows.loc["original", "exposure_left"] == pytest.approx(run.exposure[0].mean())
    assert rows.loc["checkpoint", "steps_off"] == pytest.approx(rows.loc["checkpoint", "stop"] - run.k_star)


def test_a_reading_that_cannot_be_had_has_its_row_and_no_stop(study):
    run = study.select(forget_set="ind-a")[0]
    alone = replace(run, never=run.never.iloc[:, :0])
    rows = exposure.stops(replace(study, base=study.base * np.nan), alone).set_index("reading")
    assert list(rows.index) == list(exposure.READINGS)
    assert rows.loc[["population", "checkpoint"], "stop"].isna().all() and rows.loc["original", "stop"] == 0


def test_stand_ins_are_compared_over_the_runs_in_which_each_stops():
    rows = [("a", 0, "near", 1.0), ("a", 0, "far", -5.0), ("a", 1, "near", 20.0), ("a", 1, "far", np.nan),
            ("b", 1, "near", -3.0), ("b", 1, "far", 7.0), ("b", 1, "none", np.nan)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["forget_set", "model", "reading", "steps_off"]).assign(arm="adamw")
    errors = exposure.stop_errors(table)
    assert errors["error"].to_dict() == {"near": 2.0, "far": 6.0}
    assert set(errors["runs"]) == {2} and errors["missed"].to_dict() == {"near": 0, "far": 1}


# --- exposure among never-trained examples


def test_exposure_by_rank_falls_from_the_ceiling(study):
    run = study.select(forget_set="ood-canary-a")[0]
    table = exposure.ranks(study, run.forget_set, exposure.full_states(study, run)).set_index("state")
    assert 4 < table.loc["θ0", "bits"] <= table.loc["θ0", "ceiling"] == np.log2(41)
    assert table["bits_extrapolated"].isna().all() and (table["covered"] == 1).all()


def test_examples_are_ranked_among_never_trained_ones_of_their_own_length(study):
    examples = study.examples.copy()
    own, never = study.members("ood-canary-a"), study.members("never-canary")
    examples.loc[[*own[:12], *never[:15]], "n_tokens"] = 7
    examples.loc[own[12:], "n_tokens"] = 99  # a length of which nothing was drawn
    values = pd.Series(0.0, [*own, *never])
    values[never[:15]] = -1.0
    row = exposure.ranks(replace(study, examples=examples), "ood-canary-a", {"x": values}).iloc[0]
    assert row["bits"] == row["ceiling"] == 4.0  # the likeliest of sixteen
    assert row[["at_ceiling", "population", "covered"]].tolist() == [1.0, 15, 0.5]


def test_states_are_the_full_scores_nearest_k_star_within_one_step(study):
    run = study.select(forget_set="ood-canary-a")[0]
    ids = [*run.examples, *study.members("never-canary")]
    never = pd.DataFrame(-9.0, index=run.steps, columns=study.members("never-canary"))
    near, far = int(np.floor(run.k_star)), int(np.floor(run.k_star)) - 3
    scored = replace(run, never=never.loc[[far, near]])
    states = exposure.full_states(study, scored)
    assert list(states) == ["θ0", "k*"] and list(states["k*"].index) == ids
    assert states["k*"][run.examples].tolist() == run.scores.loc[near].tolist()
    assert list(exposure.full_states(study, replace(run, never=never.loc[[far]]))) == ["θ0"]


# --- membership inference


def test_the_attack_is_sure_of_an_original_model_and_lost_at_k_star(study):
    table = exposure.attacks(study).query("forget_set == 'ood-canary-a'")
    distance = table.groupby("state")["distance"].mean()
    assert distance["θ0"] > 0.45 and distance["k*"] < 0.2 and distance["2k*"] > 0.3
    assert distance[exposure.OUT] < 0.2 and table.loc[table["state"] == exposure.OUT, "tpr"].mean() < 0.1


def test_the_table_of_attacks_holds_every_run_and_every_out_model(study):
    table, held = exposure.attacks(study), study.select()
    sides = table.groupby("state")["model"].size()
    assert sides["θ0"] == sides["k*"] == len(held)
    arms_and_sets = {(run.arm, run.forget_set): study.models(run.forget_set, "adamw", inside=False) for run in held}
    assert sides[exposure.OUT] == sum(map(len, arms_and_sets.values()))
    assert not table.duplicated(["arm", "forget_set", "model", "state"]).any()


def test_the_attacked_model_is_in_no_population(study):
    model = study.models("ind-a", "adamw", inside=True)[0]
    values = study.references["adamw"].loc[model, study.members("ind-a")]
    changed = study.references["adamw"].copy()
    changed.loc[model] = 1e3  # must not matter where the model is attacked
    others = replace(study, references={"adamw": changed})
    pd.testing.assert_frame_equal(
        *(exposure.attack(s, "adamw", "ind-a", model, {"x": values}) for s in (study, others))
    )


def test_states_that_a_run_did_not_get_to_are_left_out(study):
    run = study.select(forget_set="ind-a")[0]
    assert list(exposure.set_states(run)) == list(exposure.STATES)
    short = replace(run, scores=run.scores.loc[: int(run.k_star) + 2])
    assert list(exposure.set_states(short)) == ["θ0", "k*"]


def test_too_few_models_give_no_row_instead_of_a_wrong_one(small):
    table = exposure.calibration(small, "adamw", "ind-a")  # two models without the set
    assert table.loc[table["side"] == "out", "share_outside"].isna().all()
    table = exposure.attacks(small)
    assert table.empty and {"arm", "forget_set", "model"} <= set(table)
