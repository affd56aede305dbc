"""What reading notebooks print and draw, on a made-up study whose effects are known."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.fake_study import FakeStudy, smoke
from paper import controls, figures, figures_unlearning, learning, panels, plots, readings, study


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return FakeStudy(
        tmp_path_factory.mktemp("study"), arms={"adamw": ("adamw", "adamw", ["ind-a", "ood-canary-a"])}
    ).write()


@pytest.fixture(scope="module")
def loaded(made):
    return study.load(made.root)


@pytest.fixture(scope="module")
def design(made):
    return pd.read_csv(made.tables / "design.csv")


def test_an_interval_is_made_over_models_and_leaves_out_missing_ones():
    runs = pd.DataFrame({"arm": "a", "k": [1.0, 3.0, np.nan]})
    row = readings.intervals(runs, "k", by=["arm"]).iloc[0]
    assert row["mean"] == 2 and row["n"] == 2 and row["high"] == pytest.approx(2 + 12.706, abs=1e-2)


def test_a_mean_with_a_censored_run_is_a_bound_without_limits():
    runs = pd.DataFrame({"forget_set": ["f"] * 3, "k_star": [10.0, 12.0, np.nan], "last_step": [20, 20, 50]})
    row = readings.censored_intervals(runs, confidence=0.95).iloc[0]
    assert row["mean"] == 24 and np.isnan(row["low"]) and row["censored"] == 1


def test_what_is_missing_is_said_in_words_and_shown_as_a_dash():
    row = pd.Series({"mean": 0.5, "low": np.nan, "high": np.nan, "n": 1})
    assert readings.words(row, "nats") == "0.50 (no interval) nats (n = 1)"
    assert readings.words(pd.Series({"mean": np.nan, "low": 0, "high": 0, "n": 0}), "nats") == "nothing to average"
    table = readings.shown(pd.DataFrame({"x": [0.123, np.nan], "n": [8.0, np.nan]}))
    assert table["x"].tolist() == ["0.12", "–"] and table["n"].tolist() == ["8", "–"]


def test_the_gain_of_fine_tuning_is_taken_over_a_models_own_base():
    trained = pd.DataFrame({"model": [0, 1], "split": "heldout", "log_likelihood_per_token": [-4.0, -4.0]})
    base = pd.DataFrame({"model": [0, 1], "split": "heldout", "log_likelihood_per_token": [-5.0, -4.5]})
    design = pd.DataFrame({"model": [0, 1], "base": [1, 0]})
    assert learning.gains(trained, base, design, split="heldout")["gain"].tolist() == [0.5, 1.0]


def test_the_influence_of_a_set_on_itself_is_what_was_put_in(made, design):
    scores = readings.read_scores(made.tables / "references-adamw.parquet")
    matrix = learning.influence(learning.group_means(scores, made.examples), design)
    table = learning.learnt(matrix, {n: k for n, (k, _) in made.sets.items()}, n=len(design)).set_index("forget_set")
    for name in made.sets:
        own = (made.examples["forget_set"] == name).to_numpy()
        put_in = np.mean(made.gain[own] * made.examples["n_tokens"].to_numpy()[own])
        assert table.loc[name, "mean"] == pytest.approx(put_in, abs=2.0)
    assert (table["memorized"] == "yes").all()
    assert learning.influence_reading(matrix, dict(table["kind"])).endswith(".")


def test_a_set_of_which_only_the_format_was_learnt_is_not_memorized():
    cells = [("f", "f", 10.0), ("f", "never-canary", 7.0)]
    matrix = pd.DataFrame(cells, columns=["trained_on", "scored_on", "mean"]).assign(low=0.0, high=20.0)
    row = learning.learnt(matrix, {"f": "canary"}, n=16).iloc[0]
    assert row["instance_share"] == pytest.approx(0.3) and row["memorized"] == "no"


def test_whether_a_set_without_never_trained_examples_is_memorized_is_unknown():
    matrix = pd.DataFrame([("mine", "mine", 10.0)], columns=["trained_on", "scored_on", "mean"]).assign(low=0, high=20)
    assert learning.learnt(matrix, {"mine": "own"}, n=16).iloc[0]["memorized"] == "unknown"


def test_an_exact_partner_equal_to_the_out_average_has_no_error(made, design):
    references = readings.read_scores(made.tables / "references-adamw.parquet")
    outside = references[references["model"].isin(design.index[design["ind-a"] == 0])]
    partner = outside.groupby("example_id", as_index=False)["log_likelihood"].mean().assign(model=0, left_out="ind-a")
    errors = learning.partner_errors(partner, references, made.examples, design).set_index("reference")["rms"]
    assert errors["out-average"] == pytest.approx(0, abs=1e-9) and errors["regression"] > 0


def test_a_balanced_design_is_found_balanced(design):
    assert learning.balance(design) == {"columns": 10, "column": 0.0, "pair": 0.0}


def test_runs_of_different_length_stand_on_common_steps():
    steps, table = panels.aligned([None, None], [[0, 1, 2], [0, 2, 5]], [[1, 2, 3], [4, 5, 6]])
    assert steps.tolist() == [0, 1, 2, 5]
    assert np.isnan(table[0, 3]) and np.isnan(table[1, 1]) and table[1, 3] == 6


def test_the_trade_off_has_no_exposure_left_at_k_star(loaded):
    exposure, lost = panels.trade_off(loaded, loaded.select(forget_set="ind-a"))
    at = np.argmin(np.abs(panels.SHARES - 1))
    assert np.abs(exposure[:, at]).max() < 1e-9
    assert (lost[:, -1] > lost[:, 0]).all()


def test_references_lie_around_the_origin_of_the_trade_off(loaded):
    points = panels.reference_points(loaded, "adamw", "ind-a")
    assert (
        len(points) == 8 and points["exposure"].mean() == pytest.approx(0) and points["lost"].mean() == pytest.approx(0)
    )


def test_models_that_never_held_a_set_lie_inside_the_floor_and_the_others_outside(loaded):
    table = controls.calibration(loaded, "adamw", "ood-canary-a", confidence=0.95)
    share = table.groupby("side")["share_outside"].mean()
    assert share["out"] < 0.1 < 0.9 < share["in"]
    assert table["auc"].min() > 0.95


def test_a_model_without_the_set_is_left_out_of_its_own_average_and_floor(loaded):
    table = controls.calibration(loaded, "adamw", "ind-a", confidence=0.95).query("side == 'out'").set_index("model")
    ids, outside = loaded.members("ind-a"), loaded.outside("ind-a")
    others = loaded.references["adamw"].loc[outside[1:], ids].to_numpy()
    g = loaded.references["adamw"].loc[outside[0], ids].to_numpy() - others.mean(axis=0)
    half = stats.t.ppf(0.975, 6) * others.std(axis=0, ddof=1) * np.sqrt(1 + 1 / 7)
    assert table.loc[outside[0], "exposure"] == pytest.approx(g.mean())
    assert table.loc[outside[0], "share_outside"] == np.mean(np.abs(g) > half)


def test_the_reading_by_original_stops_at_once_and_leaves_everything(loaded, made):
    run = loaded.select(forget_set="ind-a")[0]
    scores = controls.scores_by_run(made.tables / "unlearn" / run.name)[run.model, "in"]
    rows = controls.stand_in(loaded, run, scores).set_index("reading")
    assert rows.loc["original", "stop"] == 0
    assert rows.loc["original", "exposure_left"] == pytest.approx(run.exposure[0].mean())
    assert rows.loc["checkpoint", "steps_off"] == pytest.approx(rows.loc["checkpoint", "stop"] - run.k_star)


def test_the_attack_is_sure_of_an_original_model_and_lost_at_k_star(loaded):
    tables = [controls.membership(loaded, run) for run in loaded.select(forget_set="ood-canary-a")]
    distance = pd.concat(tables).groupby("state")["distance"].mean()
    assert distance["θ0"] > 0.45 and distance["k*"] < 0.2 and distance["2k*"] > 0.3


def test_the_attack_on_models_that_never_held_a_set_finds_little(loaded):
    table = controls.membership_of_out_models(loaded, "adamw", "ood-canary-a")
    assert table["model"].tolist() == loaded.outside("ood-canary-a") and set(table["state"]) == {controls.OUT}
    assert table["distance"].mean() < 0.2 and table["tpr"].mean() < 0.1


def test_the_table_of_attacks_holds_every_run_and_every_out_model(loaded):
    table, runs = controls.membership_table(loaded), loaded.select()
    sides = table.groupby("state")["model"].size()
    assert sides["θ0"] == sides["k*"] == len(runs)
    arms_and_sets = {(run.arm, run.forget_set): len(loaded.outside(run.forget_set)) for run in runs}
    assert sides[controls.OUT] == sum(arms_and_sets.values())
    assert not table.duplicated(["arm", "forget_set", "model", "state"]).any()


def test_stand_ins_are_compared_over_the_runs_in_which_each_stops():
    rows = [("a", 0, "near", 1.0), ("a", 0, "far", -5.0), ("a", 1, "near", 20.0), ("a", 1, "far", np.nan),
            ("b", 1, "near", -3.0), ("b", 1, "far", 7.0), ("b", 1, "none", np.nan)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["forget_set", "model", "reading", "steps_off"]).assign(arm="adamw")
    errors = controls.stand_in_errors(table)
    assert errors["error"].to_dict() == {"near": 2.0, "far": 6.0}
    assert set(errors["runs"]) == {2} and errors["missed"].to_dict() == {"near": 0, "far": 1}


def test_exposure_by_rank_falls_from_the_ceiling(loaded, made):
    run = loaded.select(forget_set="ood-canary-a")[0]
    scores = controls.scores_by_run(made.tables / "unlearn" / run.name)[run.model, "in"]
    table = controls.exposure_by_rank(loaded, run, scores, extrapolate=False).set_index("state")
    assert 4 < table.loc["θ0", "bits"] <= table.loc["θ0", "ceiling"]
    assert table["bits_extrapolated"].isna().all()


def test_too_few_models_give_no_row_instead_of_a_wrong_one(tmp_path):
    small = study.load(smoke(tmp_path).write().root)
    table = controls.calibration(small, "adamw", "ind-a", confidence=0.95)  # two models without the set
    assert table.loc[table["side"] == "out", "share_outside"].isna().all()
    assert controls.membership(small, small.select()[0]).empty
    assert controls.membership_of_out_models(small, "adamw", "ind-a").empty


def test_a_study_without_runs_has_a_table_with_columns_and_no_rows(loaded):
    nothing = study.Study(loaded.design, loaded.examples, loaded.base, loaded.references, loaded.performance)
    table = readings.run_table(nothing)
    assert table.empty and {"k_star", "lost_100", "arm"} <= set(table)


def test_the_main_figure_turns_its_exposure_axis_round_and_holds_both_points(loaded, tmp_path):
    plots.use_style()
    runs = {name: loaded.select(forget_set=name) for name in ("ind-a", "ood-canary-a")}
    panel = panels.trade_off_panel(loaded, runs)
    fig = figures_unlearning.trade_off({"adamw": panel, "again": panel}, order=list(runs), confidence=0.95)
    left, right = fig.axes[0].get_xlim()
    assert left > right
    legend = [text.get_text() for text in fig.legends[0].get_texts()]
    assert {"references", "base model", *runs} == set(legend)
    plt.close(fig)


def test_every_set_of_an_arm_has_its_panel(loaded):
    names = ("ind-a", "ood-canary-a")
    made = {n: panels.exposure_panel(loaded, loaded.select(forget_set=n), confidence=0.95) for n in names}
    fig = figures.exposure(made)
    assert [ax.get_title(loc="left") for ax in fig.axes] == list(names)
    plt.close(fig)


def test_a_figure_that_cannot_be_drawn_says_why(tmp_path, capsys):
    plots.absent("08_nothing", "no run got there", tmp_path)
    assert (tmp_path / "08_nothing.png").exists() and (tmp_path / "08_nothing.svg").exists()
    assert "no run got there" in capsys.readouterr().out


def test_losses_that_span_more_than_tenfold_get_a_scale_that_shows_the_small_ones():
    _, (small, large) = plt.subplots(1, 2)
    small.plot([0, 1], [0.0, 0.3])
    large.plot([0, 1], [-0.02, 3.0])
    for ax in (small, large):
        figures.loss_scale(ax)
    assert (small.get_yscale(), large.get_yscale()) == ("linear", "symlog")
    plt.close("all")
