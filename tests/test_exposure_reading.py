"""What the exposure notebook reads from a made-up study: curves, floors, controls, stand-ins, ranks, attacks."""

from dataclasses import replace

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from paper import exposure, look, runs
from tests.fake_study import ARMS, ONE, FakeStudy, smoke

PAIR = ["ind", "ood-canary"]
DRAWS = ["ind-a", "ind-b", "ind-c", "ood-canary-a", "ood-canary-b", "ood-canary-c"]


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    """Twelve models, two families of three draws, one arm."""
    sets = {"ind": {"kind": "natural", **ONE, "draws": 3}, "ood-canary": {"kind": "canary", **ONE, "draws": 3}}
    return FakeStudy(tmp_path_factory.mktemp("study"), forget_sets=sets, arms={"adamw": ARMS["adamw"]}).write()


@pytest.fixture(scope="module")
def study(fake):
    return runs.read_study(fake.root, **fake.settings)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Four models, so that two hold a set and two do not."""
    fake = smoke(tmp_path_factory.mktemp("small")).write()
    return runs.read_study(fake.root, **fake.settings)


@pytest.fixture(scope="module")
def means(study):
    return exposure.outcome_means(study, runs.run_table(study).query("role == 'in'"))


@pytest.fixture
def looks(fake):
    return look.looks(fake.forget_sets)


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
    expected = stats.t.ppf(0.975, 5) * means.std(ddof=1) * np.sqrt(1 + 1 / 6)
    assert exposure.set_floor(study, run) == pytest.approx(expected)


def test_every_family_of_an_arm_has_its_panel_with_a_floor_under_its_curves(study, looks):
    fig = exposure.steps_figure(study, "adamw", looks)
    assert [ax.get_title(loc="left") for ax in fig.axes] == PAIR
    for ax, name in zip(fig.axes, PAIR, strict=True):
        runs_of = study.select(family=name)
        floors = [exposure.set_floor(study, run) for run in {run.forget_set: run for run in runs_of}.values()]
        band = [p for p in ax.patches if p.get_facecolor()[:3] == matplotlib.colors.to_rgb(look.FLOOR)]
        assert [p.get_height() for p in band] == pytest.approx([2 * np.mean(floors)])
        assert sum(line.get_linewidth() == 0.5 for line in ax.lines) == len(runs_of) == 12
    assert exposure.steps_figure(study, "sgd", looks) == "no run of this arm"


def test_estimators_start_exposed_and_fall(study):
    path = exposure.estimators(study, "adamw", "ood-canary")
    assert path["mean_log"].iloc[0] > 10 and (np.diff(path["mean_log"]) < 0).all()
    assert path["effective_models"].between(1, 4).all() and path["step"].is_unique


def test_estimators_at_step_zero_are_the_difference_of_in_and_out_averages_over_draws(fake, study):
    expected = []
    for name in DRAWS[:3]:
        inside = [run.model for run in study.select(forget_set=name)]
        values, never = fake.likelihood["adamw"][:, fake.group(name)], fake.signs[name].to_numpy() < 0
        log_means = [np.log(np.mean(np.exp(side), axis=0)) for side in (values[inside], values[never])]
        expected.append((values[inside].mean() - values[never].mean(), np.mean(log_means[0] - log_means[1])))
    first = exposure.estimators(study, "adamw", "ind").iloc[0]
    assert first[["mean_log", "log_mean"]].tolist() == pytest.approx(np.mean(expected, axis=0).tolist())


def test_both_estimators_are_drawn_in_a_panel_of_their_family_and_arm(looks):
    table = pd.DataFrame({"step": [0, 1], "mean_log": [1.0, 0.0], "log_mean": [2.0, 1.0]})
    ax = exposure.estimators_figure({("adamw", "ind"): table}, looks).axes[0]
    assert [line.get_ydata().tolist() for line in ax.lines[1:]] == [[1.0, 0.0], [2.0, 1.0]]
    assert ax.get_title(loc="left") == "ind, adamw" and isinstance(exposure.estimators_figure({}, looks), str)


# --- steps and costs by kind, and the ladder


def test_a_draw_has_the_mean_over_its_models_and_its_likelihood_where_it_was_never_seen(fake, study, means):
    _, draws = means
    row = draws[(draws["forget_set"] == "ind-b") & (draws["quantity"] == "k_star")].iloc[0]
    k_star = [run.k_star for run in study.select(forget_set="ind-b")]
    assert row["estimate"] == pytest.approx(np.mean(k_star)) and row["n"] == 4 and row["repetitions"] == 1
    half = stats.t.ppf(0.975, 3) * np.std(k_star, ddof=1) / 2
    assert row["high"] - row["estimate"] == pytest.approx(half)
    own, never = fake.group("ind-b"), fake.signs["ind-b"].to_numpy() < 0
    level = fake.likelihood["adamw"][np.ix_(never, own)].mean(axis=0).sum() / fake.tokens[own].sum()
    assert row["level"] == pytest.approx(level)


def test_families_are_means_over_draws(means):
    families, draws = means
    for (family, quantity), rows in draws.groupby(["family", "quantity"]):
        row = families[(families["family"] == family) & (families["quantity"] == quantity)].iloc[0]
        assert row["estimate"] == pytest.approx(rows["estimate"].mean()) and row["draws"] == len(rows) == 3


def test_every_draw_is_a_point_beside_its_family_or_on_the_ladder(means, looks):
    families, draws = means
    side_by_side = exposure.outcomes_figure(draws, looks, ["adamw"], families)
    ladder = exposure.outcomes_figure(draws, looks, ["adamw"])
    for fig, x_of in ((side_by_side, lambda rows: [0, 1]), (ladder, lambda rows: rows["level"])):
        k_star, lost = fig.axes
        for ax, quantity in ((k_star, "k_star"), (lost, "lost_100")):
            rows = draws[draws["quantity"] == quantity]
            points = [line for line in ax.lines if len(line.get_xdata()) == 3 and line.get_marker() == "o"]
            assert sorted(y for line in points for y in line.get_ydata()) == pytest.approx(sorted(rows["estimate"]))
            assert {round(x) for line in points for x in line.get_xdata()} == {round(x) for x in x_of(rows)}
    assert exposure.outcomes_figure(draws, looks, ["sgd"]) == "there is no run to show"


def test_a_draw_with_a_censored_run_is_an_open_triangle(means, looks):
    _, draws = means
    bounded = draws.assign(censored=(draws["forget_set"] == "ind-a").astype(int))
    ax = exposure.outcomes_figure(bounded, looks, ["adamw"]).axes[0]
    triangles = [line for line in ax.lines if line.get_marker() == "^" and len(line.get_xdata())]
    assert [line.get_markerfacecolor() for line in triangles] == ["white"]


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
    assert table.loc[outside[0], "exposure"] == pytest.approx(g.mean())
    assert table.loc[outside[0], "share_outside"] == np.mean(np.abs(g) > runs.floor_among(study, others))


def test_a_partner_that_is_its_reference_has_no_exposure_and_lies_inside_the_floor(study):
    ids = study.members("ind-a")
    reference = runs.reference_of(study, "adamw", "ind-a", 0, ids)
    table = pd.DataFrame({"trained_with": "adamw", "model": 0, "left_out": "ind-a", "example_id": ids})
    for off, outside in ((0.0, 0.0), (1e3, 1.0)):
        partner = table.assign(log_likelihood=reference + off)
        row = exposure.partner_calibration(study, partner).iloc[0]
        assert row["exposure"] == pytest.approx(off, abs=1e-9) and row["share_outside"] == outside
        assert row["side"] == "partner" and row["reference"] == "regression"


def test_a_partner_is_held_against_both_references(study):
    ids, outside = study.members("ind-a"), study.held_by("ind-a", "adamw", inside=False).mean()
    table = pd.DataFrame({"trained_with": "adamw", "model": 0, "left_out": "ind-a", "example_id": ids})
    found = exposure.partner_calibration(study, table.assign(log_likelihood=outside.to_numpy()))
    off = found.set_index("reference")["exposure"]
    assert off["out-average"] == pytest.approx(0) and abs(off["regression"]) > 1e-3


def test_the_placebo_has_a_column_a_pair_and_a_study_without_one_a_reason(study, looks):
    pairs = [("adamw", name) for name in PAIR]
    fig = exposure.placebo_figure(study, pairs, looks)
    assert [ax.get_title(loc="left") for ax in fig.axes[:2]] == [f"{name}\nadamw" for name in PAIR]
    none = replace(study, runs=study.select())
    assert exposure.placebo_figure(none, pairs, looks) == "no placebo was run"


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


# --- exposure among never-trained examples


def test_exposure_by_rank_falls_from_the_ceiling(study):
    run = study.select(forget_set="ood-canary-a")[0]
    table = exposure.ranks(study, run.forget_set, exposure.full_states(study, run)).set_index("state")
    assert 4 < table.loc["θ0", "bits"] <= table.loc["θ0", "ceiling"] == np.log2(41)
    assert (table["covered"] == 1).all()


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


def test_states_are_the_full_scores_nearest_k_star_and_those_of_training(fake, study):
    run = study.select(forget_set="ood-canary-a")[0]
    states = exposure.full_states(study, run)
    ids = [*run.examples, *study.members("never-canary")]
    assert list(states) == ["θ0", "k*"] and all(list(values.index) == ids for values in states.values())
    assert states["k*"][run.examples].tolist() == run.scores.loc[round(run.k_star)].tolist()
    at = [*fake.group("ood-canary-a"), *fake.group("never-canary")]
    np.testing.assert_allclose(states["θ0"], fake.likelihood["adamw"][run.model, at])
    far = replace(run, never=run.never.loc[:3])
    assert list(exposure.full_states(study, far)) == ["θ0"]


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
    table = exposure.calibration(small, "adamw", "ind")  # two models without the set
    assert table.loc[table["side"] == "out", "share_outside"].isna().all()
    table = exposure.attacks(small)
    assert table.empty and {"arm", "forget_set", "model"} <= set(table)
