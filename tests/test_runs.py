"""From made-up tables with known effects to runs: what is loaded, what each run lost, and what is missing."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from paper import runs
from tests.fake_study import ARMS, NINE_SETS, FakeStudy, smoke
from unlearning.core import performance
from unlearning.core.effects import main_effects

SETS = ["ind-a", "ind-x16", "ood-canary-a"]


def load(fake: FakeStudy, root=None) -> runs.Study:
    return runs.load(root or fake.root, **fake.settings)


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    """Sixteen models, three sets (one repeated), two arms."""
    arms = {"adamw": ("adamw", "adamw", SETS), "adafactor-restored": (*ARMS["adafactor-restored"][:2], SETS[::2])}
    sets = {s: NINE_SETS[s] for s in SETS}
    root = tmp_path_factory.mktemp("study")
    return FakeStudy(root, size=16, never=20, followed=6, sets=sets, arms=arms).write()


@pytest.fixture(scope="module")
def study(fake):
    return load(fake)


@pytest.fixture
def small(tmp_path):
    """The smoke study, of which each test takes something away."""
    return smoke(tmp_path).write()


# --- loading


def test_every_run_is_loaded_and_nothing_is_missing(study):
    assert len(study.runs) == 8 * 5 + 2 * 2 and study.missing == []
    assert set(study.arms) == {"adafactor-restored", "adamw"} and study.forget_sets == SETS


def test_an_ascent_that_the_settings_do_not_name_is_not_read(fake):
    settings = fake.settings
    del settings["ascents"]["ind-a-adamw"]
    assert not runs.load(fake.root, **settings).select(arm="adamw", forget_set="ind-a")


def test_inside_and_outside_split_the_models_in_halves(study):
    for name in SETS:
        inside, outside = (study.models(name, "adamw", inside=side) for side in (True, False))
        assert sorted(inside + outside) == list(range(16)) and len(inside) == 8


def test_an_arm_at_another_learning_rate_is_found_by_its_name_alone(fake, tmp_path):
    shutil.copytree(fake.root / "results", tmp_path / "results")
    folder = tmp_path / "results/tables/unlearn"
    shutil.copytree(folder / "ind-a-adamw", folder / "ind-a-slow")
    settings = fake.settings
    settings["arms"]["slow"] = settings["arms"]["adamw"] | {"rate": 0.5}
    settings["ascents"]["ind-a-slow"] = {"forget_set": "ind-a", "arm": "slow"}
    more = runs.load(tmp_path, **settings)
    assert set(more.arms) == {"adafactor-restored", "adamw"} and len(more.select(arm="slow")) == 8
    assert len(more.select()) == 8 * 5 and "slow" not in set(runs.run_table(more)["arm"])


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
    before, after = (load(fake, root).select(arm="adamw", forget_set="ind-a")[0] for root in (None, tmp_path))
    np.testing.assert_array_equal(after.exposure, before.exposure)


def test_never_trained_examples_that_were_scored_at_a_few_states_only_do_not_cut_the_trajectory(small):
    path = small.tables / "unlearn/ood-canary-a-adamw/log_likelihoods.parquet"
    rows = pd.read_parquet(path).astype({"example_id": str, "role": str})
    never = set(small.examples.loc[small.examples["forget_set"] == "never-canary", "example_id"])
    extra = sorted(never - set(rows["example_id"]))[0]
    first = rows[rows["example_id"].isin(never) & rows["step"].isin([0, 3])]
    few = first.drop_duplicates(["model", "role", "step"]).assign(example_id=extra)
    before = [run.generator_part for run in load(small).select(forget_set="ood-canary-a")]
    pd.concat([rows, few]).to_parquet(path, index=False)
    after = load(small).select(forget_set="ood-canary-a")
    for run, part in zip(after, before, strict=True):
        assert extra in run.never and extra not in run.followed
        np.testing.assert_allclose(run.generator_part, part)


def test_partners_of_every_training_are_read_together_and_an_empty_table_is_none(small):
    assert runs.retrained("partners", small.root).empty
    found = pd.DataFrame({"trained_with": ["adamw"], "model": 0, "left_out": "ind-a", "example_id": "ind-a-0000"})
    found = found.assign(log_likelihood=-3.0)
    for optimizer, table in {"adamw": found, "adafactor": found.iloc[:0]}.items():
        (small.tables / "train" / optimizer).mkdir(exist_ok=True)
        table.to_parquet(small.tables / f"train/{optimizer}/partners.parquet", index=False)
    pd.testing.assert_frame_equal(runs.retrained("partners", small.root), runs.plain(found))


# --- one row a run


def test_the_run_table_holds_damage_at_shares_of_the_steps(study):
    table = runs.run_table(study)
    run, row = study.runs[0], table.iloc[0]
    assert row["lost_50"] == pytest.approx(float(run.lost(run.k_star / 2)))
    assert (table["lost_25"] <= table["lost_100"] + 1e-12).all()
    assert set(runs.UNITS) <= set(table.columns)


def test_what_was_not_measured_between_the_last_states_is_not_made_up(study):
    gapped = replace(study.runs[0], performance=pd.DataFrame({"heldout_fixed": {0: -4.0, 1: -4.1, 2: -4.3, 4: -5.0}}))
    np.testing.assert_allclose(gapped.lost([0, 1.5, 3, 4, 5, np.nan]), [0, 0.2, np.nan, 1, np.nan, np.nan], atol=1e-12)
    assert np.isnan(gapped.lost(1.5, "retain"))
    without_start = replace(gapped, performance=gapped.performance.iloc[1:])
    assert np.isnan(without_start.lost(1.5))


def test_share_inside_exposed_and_below_add_up(study):
    run = study.runs[0]
    found = runs.spread_at(run, run.k_star)
    g = performance.interpolate(run.exposure, run.steps, run.k_star)
    assert found["share_inside"] + found["share_exposed"] + np.mean(g < -run.floor) == pytest.approx(1)
    assert found["rms"] == pytest.approx(np.sqrt(np.mean(g**2)))


def test_bleu_is_that_of_the_nearest_whole_step_within_one(study):
    run = replace(study.runs[0], bleu=pd.Series({0: 8.0, 10: 7.0, 11: 5.0}))
    assert [run.bleu_at(step) for step in (0, 10.4, 10.6, 12)] == [8, 7, 5, 5]
    assert np.isnan(run.bleu_at(12.1)) and np.isnan(run.bleu_at(np.nan))


def test_bleu_starts_with_that_of_the_trained_model(study):
    assert all(run.bleu_at(0) == 10 for run in study.select())


def test_the_performance_of_a_reference_is_the_regression_of_performance_without_the_set(study):
    run = study.select(arm="adamw", forget_set="ind-a")[0]
    x = np.column_stack([np.ones(16), study.design])
    row = x[run.model].copy()
    row[1 + study.design.columns.get_loc("ind-a")] = -1
    heldout = study.performance["adamw"]["heldout"].to_numpy()
    expected = row @ np.linalg.lstsq(x, heldout, rcond=None)[0]
    assert runs.reference_performance(study, run) == pytest.approx(expected)
    assert np.isnan(runs.reference_performance(study, run, "not scored"))


def test_exposure_at_the_start_has_the_interval_of_the_regression_that_makes_the_references(study):
    row = runs.start(study, "adamw", "ind-a").loc["exposure_0"]
    whole = study.references["adamw"][study.members("ind-a")].mean(axis=1)
    fit = main_effects(whole.to_numpy()[:, None], study.design.to_numpy())
    column = study.design.columns.get_loc("ind-a")
    half = stats.t.ppf(0.975, fit.df) * 2 * fit.standard_error[column, 0]
    assert row["estimate"] == pytest.approx(2 * fit.effects[column, 0]) and row["n"] == 16
    assert row["high"] - row["estimate"] == pytest.approx(half)
    exposures = [run.exposure[0].mean() for run in study.select(arm="adamw", forget_set="ind-a")]
    assert row["estimate"] == pytest.approx(np.mean(exposures))  # the runs share the effect


def test_generator_and_instance_part_add_up_at_the_start(study):
    start = runs.start(study, "adamw", "ood-canary-a")["estimate"]
    assert start["generator_0"] + start["instance_0"] == pytest.approx(start["exposure_0"])
    assert start["instance_share"] == pytest.approx(start["instance_0"] / start["exposure_0"])


@pytest.mark.parametrize(("share", "answer"), [(0.5, "yes"), (0.49, "no"), (np.nan, "unknown")])
def test_a_set_is_memorized_when_half_of_its_exposure_is_the_instances_own(share, answer):
    assert runs.memorized(share) == answer


# --- what is missing is said, never silently dropped


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("train/adamw/log_likelihoods.parquet", "no references trained with adamw"),
        ("base/log_likelihoods.parquet", "no scores of the base models"),
        ("unlearn/ind-a-adamw/performance.parquet", "ind-a-adamw: performance.parquet missing"),
    ],
)
def test_a_missing_table_is_named_and_the_rest_is_read(small, gone, words):
    (small.tables / gone).unlink()
    study = load(small)
    assert any(words in reason for reason in study.missing)
    assert {"k_star", "lost_100", "arm"} <= set(runs.run_table(study))


def test_without_the_design_nothing_can_be_read(small):
    (small.tables / "forget_sets/design.csv").unlink()
    with pytest.raises(FileNotFoundError):
        load(small)


def test_a_study_without_runs_has_a_table_with_columns_and_no_rows(small):
    study = runs.load(small.root, arms=small.settings["arms"], ascents={})
    table = runs.run_table(study)
    assert table.empty and {"k_star", "lost_100", "arm"} <= set(table) and study.missing == []


def test_a_diverged_run_is_censored_at_its_last_finite_step(small):
    path = small.tables / "unlearn/ind-a-adamw/log_likelihoods.parquet"
    rows = pd.read_parquet(path)
    rows.loc[(rows["model"] == 0) & (rows["step"] > 4), "log_likelihood"] = np.nan
    rows.to_parquet(path, index=False)
    run = load(small).select(forget_set="ind-a")[0]
    assert np.isnan(run.k_star) and np.isnan(run.lost(run.k_star)) and run.steps[-1] == 4


def test_a_set_without_never_trained_examples_has_no_parts(tmp_path):
    fake = smoke(tmp_path)
    fake.sets = {"ind-a": ("natural", 1), "mine": ("own", 1)}
    fake.arms = {"adamw": ("adamw", "adamw", ["ind-a", "mine"])}
    study = load(fake.write())
    assert list(runs.start(study, "adamw", "mine").index) == ["exposure_0"]
    assert study.select(forget_set="mine")[0].generator_part.empty
    table = runs.run_table(study).set_index("forget_set")
    assert table.loc["mine", "instance_0"].isna().all() and table.loc["ind-a", "instance_0"].notna().all()
