"""From made-up tables with known effects to runs, rates and claims; and what happens where something is missing."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.fake_study import ARMS, NINE_SETS, FakeStudy, smoke
from unlearning.core import genex
from unlearning.core.effects import main_effects
from paper import panels, rates, readings, summaries, verdicts
from paper.claims import claims_table
from paper.questions import COLUMNS, Question, decide, make_row
from paper.study import followed_at, load

DELTA = {"C1_auc": 0.95, "C1_outside": 0.10, "C2_share_of_k_star": 0.05, "C3_nats_per_token": 0.05,
         "C4_nats_per_token": 0.05, "C5_rho": 0.1, "C6_rho": 0.1, "identifiable_rho": 0.8}  # fmt: skip
ASK = {"ind": "ind-a", "ood": "ood-canary-a", "headline": ["adafactor-restored", "adamw"], "delta": DELTA}
SETS = ["ind-a", "ind-x16", "ood-canary-a"]
ROWS_A_SET = len(summaries.RUN_UNITS) + 1 + 3  # k_star_reference, and three worst cases


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    """Sixteen models, three sets (one repeated), two arms."""
    arms = {"adamw": ("adamw", "adamw", SETS), "adafactor-restored": (*ARMS["adafactor-restored"][:2], SETS[::2])}
    return FakeStudy(
        tmp_path_factory.mktemp("study"), size=16, never=20, followed=6, sets={s: NINE_SETS[s] for s in SETS}, arms=arms
    ).write()


@pytest.fixture(scope="module")
def study(fake):
    return load(fake.root)


@pytest.fixture(scope="module")
def table(study):
    return claims_table(study, **ASK)


@pytest.fixture
def small(tmp_path):
    """The smoke study, of which each test takes something away."""
    smoke(tmp_path).write()
    return tmp_path


# --- loading


def test_every_run_is_loaded_and_nothing_is_missing(study):
    assert len(study.runs) == 8 * 5 + 2 * 2 and study.missing == []
    assert study.arms == ["adafactor-restored", "adamw"] and study.forget_sets == SETS


def test_inside_and_outside_split_the_models_in_halves(study):
    for name in SETS:
        assert sorted(study.inside(name) + study.outside(name)) == list(range(16))
        assert len(study.inside(name)) == 8


def test_a_runs_exposure_is_its_likelihood_minus_the_prediction_without_the_set(fake, study):
    run = study.select(arm="adamw", forget_set="ind-a")[2]
    own = (fake.examples["forget_set"] == "ind-a").to_numpy()
    values, signs = fake.likelihood["adamw"][:, own], fake.signs.to_numpy()
    x = np.column_stack([np.ones(16), signs])
    row = x[run.model].copy()
    row[2] = -1
    expected = row @ np.linalg.lstsq(x, values, rcond=None)[0]
    np.testing.assert_allclose(run.exposure[0], values[run.model] - expected, atol=1e-9)


def test_the_steps_to_forget_are_where_the_mean_exposure_crosses_zero(study):
    for run in study.select(arm="adamw"):
        assert performance.interpolate(run.exposure.mean(axis=1), run.steps, run.k_star) == pytest.approx(0, abs=1e-9)


def test_a_state_that_was_scored_twice_counts_once(fake, tmp_path):
    shutil.copytree(fake.root / "results", tmp_path / "results")
    path = tmp_path / "results/tables/unlearn/ind-a-adamw/log_likelihoods.parquet"
    rows = pd.read_parquet(path)
    pd.concat([rows, rows[rows["step"] == 3].assign(log_likelihood=99.0)]).to_parquet(path, index=False)
    before = load(fake.root).select(arm="adamw", forget_set="ind-a")[0].exposure
    np.testing.assert_array_equal(load(tmp_path).select(arm="adamw", forget_set="ind-a")[0].exposure, before)


def test_never_trained_examples_that_were_scored_at_a_few_states_only_do_not_cut_the_trajectory(small):
    path = small / "results/tables/unlearn/ood-canary-a-adamw/log_likelihoods.parquet"
    rows = pd.read_parquet(path).astype({"example_id": str, "role": str})
    examples = pd.read_parquet(small / "results/tables/examples.parquet").astype(str)
    never = set(examples.loc[examples["forget_set"] == "never-canary", "example_id"])
    extra = sorted(never - set(rows["example_id"]))[0]
    first = rows[rows["example_id"].isin(never) & rows["step"].isin([0, 3])]
    few = first.drop_duplicates(["model", "role", "step"]).assign(example_id=extra)
    before = [r.generator_part for r in load(small).select(forget_set="ood-canary-a")]
    pd.concat([rows, few]).to_parquet(path, index=False)
    for a, b in zip(before, [r.generator_part for r in load(small).select(forget_set="ood-canary-a")], strict=True):
        np.testing.assert_allclose(a, b)


# --- summaries


def test_the_run_table_holds_damage_at_shares_of_the_steps(study):
    table = summaries.run_table(study)
    run, row = study.runs[0], table.iloc[0]
    assert row["lost_50"] == pytest.approx(run.lost_at(run.k_star / 2))
    assert (table["lost_25"] <= table["lost_100"] + 1e-12).all()
    assert set(summaries.RUN_UNITS) <= set(table.columns)


def test_what_was_not_measured_between_the_last_states_is_not_made_up(study):
    assert followed_at([0, 1, 2, 3, 5], [0, 2.5, 3, 3.5, 5, 5.1]).tolist() == [True, True, True, False, True, False]
    assert followed_at([0, 3, 5, 6, 9, 14], [1.5, 5.5, 9, 10, 14]).tolist() == [True, True, True, False, True]
    assert followed_at([0], [0, 1]).tolist() == [True, False] and not followed_at([0, 1], np.nan)
    run = study.runs[0]
    gapped = replace(run, performance=pd.DataFrame({"heldout_fixed": {0: -4.0, 1: -4.1, 2: -4.3, 4: -5.0}}))
    assert gapped.lost_at(1.5) == pytest.approx(0.2) and gapped.lost_at(4) == pytest.approx(1)
    assert np.isnan(gapped.lost_at(3)) and np.isnan(gapped.lost_at(np.nan))
    np.testing.assert_allclose(panels.lost_along(gapped, [0, 1.5, 3, 4, 5]), [0, 0.2, np.nan, 1, np.nan], atol=1e-12)


def test_share_inside_exposed_and_below_add_up(study):
    run = study.runs[0]
    found = summaries.spread_at(run, run.k_star)
    g = performance.interpolate(run.exposure, run.steps, run.k_star)
    assert found["share_inside"] + found["share_exposed"] + np.mean(g < -run.floor) == pytest.approx(1)
    assert found["rms"] == pytest.approx(np.sqrt(np.mean(g**2)))


def test_the_ensemble_starts_exposed_and_falls(study):
    path = summaries.ensemble_by_step(study, arm="adamw", forget_set="ood-canary-a")
    assert path["mean_log"].iloc[0] > 10 and (np.diff(path["mean_log"]) < 0).all()
    assert (path["effective_models"] >= 1).all() and (path["n_models"] == 8).all()


def test_the_ensemble_at_step_zero_is_the_difference_of_in_and_out_averages(fake, study):
    own = (fake.examples["forget_set"] == "ind-a").to_numpy()
    values, inside = fake.likelihood["adamw"][:, own], fake.signs["ind-a"].to_numpy() > 0
    expected = values[inside].mean() - values[~inside].mean()
    path = summaries.ensemble_by_step(study, arm="adamw", forget_set="ind-a")
    assert path["mean_log"].iloc[0] == pytest.approx(expected)


def test_a_censored_run_makes_the_steps_a_lower_bound_and_stays_in_the_table(study):
    runs = summaries.run_table(study)
    first = runs.index[(runs["arm"] == "adamw") & (runs["forget_set"] == "ind-a")][0]
    runs.loc[first, ["k_star", "lost_100"]] = np.nan
    runs.loc[first, "last_step"] = 200
    rows = summaries.set_table(study, runs).set_index(["arm", "forget_set", "quantity"]).loc[("adamw", "ind-a")]
    assert rows.loc["k_star", "reason"] == "1 of 8 runs censored: the estimate is a lower bound"
    assert rows.loc["k_star", "estimate"] > 30 and np.isnan(rows.loc["k_star", "low"])
    assert rows.loc["lost_100", "n"] == 7 and "over the 7 of 8 runs" in rows.loc["lost_100", "reason"]


# --- rates


def test_memorization_comes_from_models_that_the_trajectory_does_not(study):
    for name in SETS:
        first, second = rates.halves(study, name)
        assert not set(first) & set(second) and sorted(first + second) == list(range(16))
        for half in (first, second):
            assert set(study.design.loc[half, "base"]) == {-1, 1}
            assert set(study.design.loc[half, name]) == {-1, 1}


def test_memorization_by_example_is_what_models_that_hold_it_have_over_those_that_do_not(study, fake):
    scores = pd.read_parquet(fake.tables / "references-adamw.parquet").astype({"example_id": str})
    table = rates.example_properties(study, "adamw", scores)
    assert len(table) == len(SETS) * fake.size and set(table["trained_with"]) == {"adamw"}
    row = table[table["forget_set"] == "ind-x16"].iloc[3]
    mine = scores[scores["example_id"] == row["example_id"]]
    holds = mine["model"].isin(study.inside("ind-x16"))
    for column, name in (("log_likelihood", "mem"), ("n_correct", "mem_accuracy")):
        expected = (mine.loc[holds, column].mean() - mine.loc[~holds, column].mean()) / row["n_tokens"]
        assert row[name] == pytest.approx(expected)
    assert row["difficulty"] == pytest.approx(-study.base[row["example_id"]].mean() / row["n_tokens"])
    means = table.groupby("forget_set")["mem"].mean()
    assert means["ind-x16"] > means["ind-a"] > 0


def test_the_rate_is_nats_per_token_and_step_over_the_first_half(study):
    run = study.runs[0]
    half = run.k_star / 2
    expected = (run.log_likelihoods[0] - performance.interpolate(run.log_likelihoods, run.steps, half)) / run.n_tokens
    np.testing.assert_allclose(rates.rate(run), expected / half)


def test_a_made_up_link_between_rate_and_memorization_is_found(study):
    by_model = rates.correlations_by_model(rates.all_example_rates(study))
    table = rates.correlation_table(by_model, identifiable=0.8)
    assert (table.loc[table["quantity"] == "rate_mem", "low"] > 0.2).all()


def test_what_cannot_be_told_apart_is_called_not_identifiable(study):
    by_model = rates.correlations_by_model(rates.all_example_rates(study)).assign(mem_difficulty=0.9)
    table = rates.correlation_table(by_model, identifiable=0.8)
    given = table["quantity"].str.contains("given")
    assert table.loc[given, "reason"].str.startswith("not identifiable").all()
    assert not table.loc[~given, "reason"].str.startswith("not identifiable").any()


def test_repetition_strata_are_compared_at_equal_nats_removed(study):
    assert rates.strata(study, "adamw") == {"natural": ["ind-a", "ind-x16"]}
    equal = rates.equal_removal(study, "adamw", "natural")
    assert len(equal) == 4 and np.isfinite(equal[["few", "many"]]).all(axis=None)
    few = {r.model: r for r in study.select(arm="adamw", forget_set="ind-a")}
    for row in equal.itertuples():
        assert row.few == pytest.approx(few[row.model].lost_at(few[row.model].k_star))


# --- claims


def test_the_claims_table_has_twelve_tests_and_no_empty_cell_without_a_reason(table):
    assert list(table.columns) == COLUMNS
    tests = table[table["part"] != "beside"].drop_duplicates(["claim", "arm"])
    assert len(tests) == 12
    empty = table[~np.isfinite(table["low"])]
    assert (empty["reason"] != "").all()


def test_more_steps_for_canaries_are_found_as_they_were_made_up(table, study):
    row = table[(table["claim"] == "C2") & (table["part"] == "") & (table["arm"] == "adamw")].iloc[0]
    k = {s: {r.model: r.k_star for r in study.select(arm="adamw", forget_set=s)} for s in ("ind-a", "ood-canary-a")}
    both = sorted(k["ind-a"].keys() & k["ood-canary-a"].keys())
    differences = [k["ood-canary-a"][m] - k["ind-a"][m] for m in both]
    assert row["n"] == len(both) == 4 and row["estimate"] == pytest.approx(np.mean(differences))
    assert row["verdict"] == "supported"


def test_several_sets_a_side_are_averaged_inside_a_model(study):
    both = claims_table(study, **ASK | {"ind": ["ind-a", "ind-x16"]})
    row = both[(both["claim"] == "C2") & (both["part"] == "") & (both["arm"] == "adamw")].iloc[0]
    assert row["n"] == 6  # of 8 models with the canaries, those with at least one of the other two


def test_with_a_censored_run_the_pairs_enter_a_sign_test(study):
    runs = summaries.run_table(study)
    model = sorted(set(study.inside("ind-a")) & set(study.inside("ood-canary-a")))[0]
    censored = (runs["arm"] == "adamw") & (runs["forget_set"] == "ood-canary-a") & (runs["model"] == model)
    runs.loc[censored, "k_star"] = np.nan
    runs.loc[censored, "last_step"] = 200
    table = claims_table(study, runs=runs, **ASK)
    row = table[(table["claim"] == "C2") & (table["part"] == "") & (table["arm"] == "adamw")].iloc[0]
    assert "1 of 4 pairs hold a censored run: sign test by bounds, 4 longer" in row["reason"]
    assert row["p"] == pytest.approx(2 / 16) and row["verdict"] == "inconclusive" and np.isnan(row["low"])


def test_a_set_of_which_only_the_format_was_learnt_is_reported_and_not_counted(study):
    runs = summaries.run_table(study)
    runs.loc[runs["forget_set"] == "ood-canary-a", "instance_share"] = 0.3
    table = claims_table(study, runs=runs, **ASK)
    row = table[(table["claim"] == "C2") & (table["part"] == "")].iloc[0]
    assert row["verdict"] == "supported" and row["claim_verdict"] == "not counted"
    assert "ood-canary-a not memorized (instance part 30%" in row["reason"]


def _parts(*rows):
    table = pd.DataFrame(rows, columns=["claim", "part", "arm", "p", "verdict"])
    return table.assign(p_holm=np.nan, claim_verdict="", reason="")


def test_a_claim_needs_all_of_its_parts_and_holm_needs_all_of_its_tests():
    decided = decide(_parts(("C1", "a", "x", 0.001, "supported"), ("C1", "b", "x", 0.01, "supported"),
                            ("C2", "", "x", 0.03, "supported"), ("C4", "a", "x", 0.001, "supported"),
                            ("C4", "b", "x", 0.9, "inconclusive")))  # fmt: skip
    assert list(decided["p_holm"]) == pytest.approx([0.03, 0.03, 0.06, 0.9, 0.9])
    assert list(decided["claim_verdict"]) == ["supported"] * 2 + ["inconclusive"] * 3
    assert decided["reason"][2] == "not beyond the margin after Holm"


def test_one_contradicted_part_contradicts_a_claim_and_what_stands_beside_decides_nothing():
    decided = decide(_parts(("C4", "a", "x", 0.001, "contradicted"), ("C4", "b", "x", 0.9, "inconclusive"),
                            ("C4", "beside", "x", 0.5, "supported")))  # fmt: skip
    assert list(decided["claim_verdict"]) == ["contradicted", "contradicted", ""]
    assert decided["p_holm"][0] == pytest.approx(0.002)


def test_the_summary_names_every_claim_and_is_valid_json(table, study, tmp_path):
    verdicts.write_summary(table, study, summaries.run_table(study), tmp_path / "summary.json")
    found = json.loads((tmp_path / "summary.json").read_text())
    assert list(found["claims"]) == ["C1", "C2", "C3", "C4", "C5", "C6"] and found["runs"] == 40
    assert found["claims"]["C2"]["arms"]["adamw"]["verdict"] == "supported"


def test_ascents_at_another_learning_rate_are_asked_in_c2_alone(fake, study, tmp_path):
    shutil.copytree(fake.root / "results", tmp_path / "results")
    folder = tmp_path / "results" / "tables" / "unlearn"
    for name in ("ind-a", "ood-canary-a"):
        shutil.copytree(folder / f"{name}-adamw", folder / f"{name}-adamw-half")
    more = load(tmp_path)
    assert more.arms == study.arms and len(more.runs) == len(study.runs)
    rows = claims_table(more, **ASK).query("claim == 'C2' and part == 'beside' and arm == 'adamw'")
    rows = rows.set_index("statement")
    at = {times: rows[rows.index.str.contains(f"learning rate × {times}", regex=False)].iloc[0] for times in "½12"}
    assert at["½"]["estimate"] == at["1"]["estimate"] and np.isfinite(at["1"]["low"])
    assert at["½"]["delta"] == pytest.approx(at["1"]["delta"]) and at["1"]["delta"] > 0  # each from its own k*
    assert at["2"]["reason"].startswith("no runs in arm adamw-double") and at["2"]["n"] == 0


def test_as_many_nats_from_the_start_take_the_ood_steps_to_their_level_against_all_of_the_smaller_set(study, table):
    rows = table[(table["arm"] == "adamw") & table["statement"].str.startswith("steps that take as many nats")]
    by_hand = []
    for model in set(study.inside("ind-a")) & set(study.inside("ood-canary-a")):
        pair = [study.select(arm="adamw", forget_set=name) for name in ("ind-a", "ood-canary-a")]
        curves = [next(r.exposure.mean(axis=1) for r in runs if r.model == model) for runs in pair]
        least = min(curve[0] for curve in curves)
        passed = [genex.steps_to_forget(curve - curve[0] + least, np.arange(len(curve))) for curve in curves]
        by_hand.append(passed[1] - passed[0])
    assert rows["n"].item() == len(by_hand) == 4
    assert rows["estimate"].item() == pytest.approx(np.mean(by_hand))


def test_the_other_draw_of_both_kinds_and_both_together_stand_beside_the_claims(tmp_path):
    sets = ["ind-a", "ind-b", "ind-x4", "ood-canary-a", "ood-canary-b"]
    fake = FakeStudy(tmp_path, sets={s: NINE_SETS[s] for s in sets}, arms={"adamw": ("adamw", "adamw", sets)}).write()
    loaded = load(fake.root)
    runs = summaries.run_table(loaded)
    q = Question(loaded, runs, "adamw", ("ind-a",), ("ood-canary-a",), DELTA, 0.95)
    draws = q.by_draw()
    assert {name: (other.ind, other.ood) for name, other in draws.items()} == {
        "ind-b, ood-canary-b": (("ind-b",), ("ood-canary-b",)),
        "all draws of both kinds": (("ind-a", "ind-b"), ("ood-canary-a", "ood-canary-b")),
    }
    table = claims_table(loaded, **ASK | {"headline": ["adamw"]})
    rows = table[table["statement"].str.contains("ind-b, ood-canary-b")]
    assert rows["claim"].tolist() == ["C2", "C3", "C3", "C4", "C4"] and set(rows["part"]) == {"beside"}
    k_star = runs.pivot(index="model", columns="forget_set", values="k_star")[["ind-b", "ood-canary-b"]].dropna()
    assert rows["estimate"].iloc[0] == pytest.approx((k_star["ood-canary-b"] - k_star["ind-b"]).mean())


def test_a_pair_that_was_drawn_once_or_is_of_one_kind_has_no_other_draw(study, tmp_path):
    q = Question(study, summaries.run_table(study), "adamw", ("ind-a",), ("ood-canary-a",), DELTA, 0.95)
    assert q.by_draw() == {}
    sets = {s: NINE_SETS[s] for s in ("ind-a", "ind-b", "ood-canary-a")}
    alike = load(FakeStudy(tmp_path, sets=sets, arms={"adamw": ("adamw", "adamw", list(sets))}).write().root)
    assert replace(q, study=alike, ood=("ind-b",)).by_draw() == {}


def test_bleu_is_that_of_the_nearest_whole_step_within_one(study):
    run = replace(study.runs[0], bleu=pd.Series({0: 8.0, 10: 7.0, 11: 5.0}))
    assert [run.bleu_at(step) for step in (0, 10.4, 10.6, 12)] == [8, 7, 5, 5]
    assert np.isnan(run.bleu_at(12.1)) and np.isnan(run.bleu_at(np.nan))


def test_bleu_starts_with_that_of_the_trained_model(study):
    assert all(run.bleu_at(0) == 10 for run in study.select())


def test_half_an_interval_of_the_reference_moves_k_star_by_as_many_steps(study):
    sets = summaries.set_table(study, summaries.run_table(study)).set_index(["arm", "forget_set", "quantity"])
    runs = study.select(arm="adamw", forget_set="ind-a")
    means = [run.exposure.mean(axis=1) for run in runs]
    falls = [m[int(np.ceil(r.k_star)) - 1] - m[int(np.ceil(r.k_star))] for r, m in zip(runs, means, strict=True)]
    design = study.design.loc[study.references["adamw"].index].to_numpy()
    set_mean = study.references["adamw"][study.members("ind-a")].mean(axis=1).to_numpy()
    x = np.column_stack([np.ones(len(design)), design])
    fitted, *_ = np.linalg.lstsq(x, set_mean, rcond=None)
    variance = np.sum((set_mean - x @ fitted) ** 2) / (len(x) - x.shape[1])
    # the reference of the in-models, on average: intercept minus the set's own effect
    half = stats.t.ppf(0.975, len(x) - x.shape[1]) * np.sqrt(2 * variance / len(x))
    assert sets.loc[("adamw", "ind-a", "k_star_reference"), "estimate"] == pytest.approx(half / np.mean(falls), rel=0.1)


def test_thirty_two_models_have_verdicts_without_the_sign_flip_of_more_than_twenty(tmp_path):
    many = FakeStudy(tmp_path, models=32, arms={"adamw": ("adamw", "adamw", ["ind-a", "ood-canary-a"])}).write()
    table = claims_table(load(many.root), **ASK | {"headline": ["adamw"]})
    row = table[(table["claim"] == "C1") & (table["part"] == "a")].iloc[0]
    assert row["n"] == 24 and np.isfinite(row["p"]) and np.isnan(row["p_sign_flip"])
    assert verdicts.sentence(row).endswith(".")


def test_a_model_without_a_value_is_counted_in_the_reason(study):
    q = Question(study, summaries.run_table(study), "adamw", ("ind-a",), ("ood-canary-a",), {}, 0.95)
    row = make_row(q, "C4", "c", "", [0.1, np.nan, 0.2], unit="", delta=0.0, direction=1)
    assert row["n"] == 2 and row["reason"] == "1 of 3 models left out: censored or not measured"


def test_repetition_has_one_row_a_kind_beside_memorization(tmp_path):
    sets = ["ind-a", "ind-x16", "ood-secret-x1", "ood-secret-x16"]
    fake = FakeStudy(tmp_path, sets={s: NINE_SETS[s] for s in sets}, arms={"adamw": ("adamw", "adamw", sets)}).write()
    table = claims_table(load(fake.root), **ASK | {"ood": "ood-secret-x1", "headline": ["adamw"]})
    rows = table[(table["claim"] == "C5") & table["statement"].str.startswith("performance lost")]
    assert [s.rpartition("least repeated ")[2] for s in rows["statement"]] == ["natural set", "secret set"]
    assert (rows["n"] == 4).all() and np.isfinite(rows["low"]).all()


def test_exposure_at_the_start_has_the_interval_of_the_regression_that_makes_the_references(study):
    sets = summaries.set_table(study, summaries.run_table(study))
    start = sets[(sets["arm"] == "adamw") & (sets["forget_set"] == "ind-a")].set_index("quantity")
    whole = study.references["adamw"][study.members("ind-a")].mean(axis=1)
    fit = main_effects(whole.to_numpy()[:, None], study.design.to_numpy())
    column = list(study.design.columns).index("ind-a")
    half = stats.t.ppf(0.975, fit.df) * 2 * fit.standard_error[column, 0]
    row = start.loc["exposure_0"]
    assert row["estimate"] == pytest.approx(2 * fit.effects[column, 0]) and row["n"] == 16
    assert row["high"] - row["estimate"] == pytest.approx(half)
    runs = study.select(arm="adamw", forget_set="ind-a")
    assert row["estimate"] == pytest.approx(np.mean([r.exposure[0].mean() for r in runs]))  # the runs share the effect
    per_step = np.mean([performance.interpolate(r.exposure.mean(axis=1), r.steps, r.k_star - 1) for r in runs])
    one_side = half / np.sqrt(2)  # of in minus out, the reference is one side
    assert start.loc["k_star_reference", "estimate"] == pytest.approx(one_side / per_step)


def test_every_row_can_be_said_in_a_sentence(table):
    for row in table.itertuples():
        assert verdicts.sentence(row).endswith(".")


# --- what is missing is said, never silently dropped


def test_the_smoke_study_has_a_reason_in_every_empty_cell(small):
    table = claims_table(load(small), **ASK)
    assert (table.loc[~np.isfinite(table["low"]), "reason"] != "").all()
    absent = table[(table["arm"] == "adafactor-restored") & (table["claim"] == "C2")]
    assert absent["reason"].str.startswith("no runs in arm adafactor-restored").all()
    assert set(verdicts.verdicts(table)["claim"]) == set(verdicts.SAYS)


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("references-adamw.parquet", "no references trained with adamw"),
        ("base.parquet", "no scores of the base models"),
        ("unlearn/ind-a-adamw/performance.parquet", "ind-a-adamw: performance.parquet missing"),
    ],
)
def test_a_missing_table_is_named_and_the_rest_goes_on(small, gone, words):
    (small / "results/tables" / gone).unlink()
    study = load(small)
    assert any(words in reason for reason in study.missing)
    runs = summaries.run_table(study)
    table = claims_table(study, runs=runs, **ASK)
    sets = runs.groupby(["arm", "forget_set"])
    assert len(table) and len(summaries.set_table(study, runs)) == len(sets) * ROWS_A_SET
    assert (table.loc[~np.isfinite(table["low"]), "reason"] != "").all()


def test_without_any_run_every_claim_is_not_computed(small):
    shutil.rmtree(small / "results/tables/unlearn")
    study = load(small)
    table = claims_table(study, **ASK)
    assert set(table.loc[table["part"] != "beside", "claim_verdict"]) == {"not computed"}
    assert summaries.set_table(study, summaries.run_table(study)).empty
    assert rates.correlations_by_model(rates.all_example_rates(study)).empty


def test_a_diverged_run_is_censored_at_its_last_finite_step(small):
    path = small / "results/tables/unlearn/ind-a-adamw/log_likelihoods.parquet"
    rows = pd.read_parquet(path)
    rows.loc[(rows["model"] == 0) & (rows["step"] > 4), "log_likelihood"] = np.nan
    rows.to_parquet(path, index=False)
    run = load(small).select(forget_set="ind-a")[0]
    assert np.isnan(run.k_star) and np.isnan(run.lost_at(run.k_star)) and np.isnan(rates.rate(run)).all()


def test_of_a_set_without_never_trained_examples_the_instance_part_has_its_reason(tmp_path):
    fake = smoke(tmp_path)
    fake.sets = {"ind-a": ("natural", 1), "mine": ("own", 1)}
    fake.arms = {"adamw": ("adamw", "adamw", ["ind-a", "mine"])}
    study = load(fake.write().root)
    sets = summaries.set_table(study, summaries.run_table(study)).set_index(["forget_set", "quantity"])
    for quantity in ("instance_0", "instance_share"):
        assert sets.loc[("mine", quantity), "reason"] == "no never-trained examples of its kind"
        assert sets.loc[("ind-a", quantity), "reason"] != sets.loc[("mine", quantity), "reason"]


def test_where_a_loss_is_missing_the_reason_is_counted(study):
    elsewhere = panels.retained_lost(study)
    table = readings.intervals(elsewhere, "lost", by=["arm", "forget_set", "where"])
    alone = table[(table["forget_set"] == "ood-canary-a") & (table["where"] == "same kind")].iloc[0]
    assert alone["n"] == 0 and alone["reason"] == "8 of 8: the model holds no other set of the kind"
    assert (table.loc[table["where"] == "held-out", "reason"] == "").all()
