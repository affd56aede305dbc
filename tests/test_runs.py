"""From made-up tables with known effects to runs: what is loaded, what each run lost, and what is missing."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from paper import runs
from tests.fake_study import ARMS, ONE, FakeStudy, smoke
from unlearning.core import performance

SETS = ["ind-a", "ind-b", "ind-x4", "ood-canary"]


def read(fake: FakeStudy, root=None, **more) -> runs.Study:
    return runs.read_study(root or fake.root, **fake.settings, **more)


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    """Twelve models, four sets (two draws of one family, one repeated), two arms and one at another rate."""
    arms = {name: ARMS[name] for name in ("adafactor-restored", "adamw", "adamw-double")}
    sets = {"ind": {"kind": "natural", **ONE, "draws": 2}, "ind-x4": {"kind": "natural", **ONE, "repetitions": 4}}
    sets["ood-canary"] = {"kind": "canary", **ONE}
    root = tmp_path_factory.mktemp("study")
    return FakeStudy(root, never=20, followed=6, forget_sets=sets, arms=arms).write()


@pytest.fixture(scope="module")
def study(fake):
    return read(fake)


@pytest.fixture
def small(tmp_path):
    """The smoke study, of which each test takes something away."""
    return smoke(tmp_path).write()


@pytest.fixture
def copied(fake, tmp_path):
    """The study in a place of its own, where its tables may be changed."""
    shutil.copytree(fake.root / "results", tmp_path / "results")
    return tmp_path


# --- loading


def test_every_run_is_loaded_and_nothing_is_missing(study):
    assert len(study.select()) == 2 * 4 * 4 and study.missing == []
    assert study.arms == ["adafactor-restored", "adamw"] and study.forget_sets == SETS
    assert [run.forget_set for run in study.select(arm="adamw", forget_set="ind-a", role="placebo")] == ["ind-a"]


def test_an_ascent_of_a_family_takes_all_of_its_draws_and_one_that_is_not_named_is_not_read(fake, study):
    assert {run.forget_set for run in study.select(arm="adamw", family="ind")} == {"ind-a", "ind-b"}
    settings = fake.settings | {"ascents": {"adamw": ["ind-b", "ood-canary"]}}
    some = runs.read_study(fake.root, **settings)
    assert {(run.arm, run.forget_set) for run in some.runs} == {("adamw", "ind-b"), ("adamw", "ood-canary")}


def test_sets_whose_names_look_like_numbers_are_read_by_their_names(tmp_path):
    sets = {name: {"kind": "natural", **ONE} for name in ("2024", "007")}
    fake = FakeStudy(tmp_path, forget_sets=sets, ascents={"adamw": ["2024", "007"]}).write()
    assert {run.forget_set for run in runs.read_study(fake.root, **fake.settings).runs} == {"2024", "007"}


def test_families_kinds_and_draws(study):
    assert study.families == {"ind": ["ind-a", "ind-b"], "ind-x4": ["ind-x4"], "ood-canary": ["ood-canary"]}
    assert study.family("ind-b") == "ind" and study.family("own set") == "own set"
    assert study.kind("ind") == study.kind("ind-b") == "natural" and study.kind("ood-canary") == "canary"


def test_inside_and_outside_split_the_models_in_halves(study):
    for name in SETS:
        inside, outside = (study.models(name, "adamw", inside=side) for side in (True, False))
        assert sorted(inside + outside) == list(range(12)) and len(inside) == 6


def test_an_arm_at_another_learning_rate_is_found_by_its_name_alone(study):
    assert len(study.select(arm="adamw-double")) == 4 * 2 and "adamw-double" not in study.arms
    assert "adamw-double" not in set(runs.run_table(study)["arm"])
    assert set(runs.run_table(study, other_rates=True)["arm"]) == {"adamw-double"}


def test_a_runs_exposure_is_its_likelihood_minus_the_regression_on_its_base_without_the_set(fake, study):
    run = study.select(arm="adamw", forget_set="ind-a")[2]
    values, signs = fake.likelihood["adamw"][:, fake.group("ind-a")], fake.signs.to_numpy()
    fit = np.linalg.lstsq(np.column_stack([np.ones(12), signs[:, :2]]), values, rcond=None)[0]
    expected = np.array([1, signs[run.model, 0], -1]) @ fit
    np.testing.assert_allclose(run.exposure[0], values[run.model] - expected, atol=1e-9)


def test_the_plain_mean_of_models_that_never_saw_a_set_is_another_reference(fake, study):
    other = read(fake, reference="out-average")
    for run, same in zip(other.runs, study.runs, strict=True):
        outside = fake.signs.index[fake.signs[run.forget_set] < 0]
        values = fake.likelihood[run.trained_with][np.ix_(outside, fake.group(run.forget_set))]
        np.testing.assert_allclose(run.reference, values.mean(axis=0))
        assert not np.allclose(run.reference, same.reference)
    with pytest.raises(ValueError, match="unknown reference 'mean'; choose one of regression, out-average"):
        read(fake, reference="mean")


def test_the_steps_to_forget_are_those_that_the_ascent_stopped_by(study):
    for run in study.select(arm="adamw"):
        assert run.k_star == pytest.approx(run.record["k_star"], abs=1e-3)
        assert performance.interpolate(run.exposure.mean(axis=1), run.steps, run.k_star) == pytest.approx(0, abs=1e-9)


def test_a_state_that_was_scored_twice_counts_once(fake, study, copied):
    path = copied / "results/tables/unlearn/adamw/log_likelihoods.parquet"
    rows = pd.read_parquet(path)
    pd.concat([rows, rows[rows["step"] == 3].assign(log_likelihood=99.0)]).to_parquet(path, index=False)
    before, after = (s.select(arm="adamw", forget_set="ind-a")[0] for s in (study, read(fake, copied)))
    np.testing.assert_array_equal(after.exposure, before.exposure)


def test_what_ascents_do_not_score_at_step_0_stands_in_the_tables_of_training(fake, study):
    for run in study.select():
        start = fake.likelihood[run.trained_with][run.model]
        np.testing.assert_allclose(run.never.loc[0], start[fake.group(f"never-{study.kind(run.forget_set)}")])
        np.testing.assert_allclose(run.sentences.loc[0], start[fake.group("heldout")])
        kept = [s for s in SETS if s != run.forget_set and study.kind(s) == study.kind(run.forget_set)]
        kept = [i for s in kept if fake.signs.loc[run.model, s] > 0 for i in fake.group(s)]
        groups = {"heldout": fake.group("heldout"), "heldout_fixed": fake.group("heldout")[:15]}
        groups |= {"retain": fake.group("retain"), "retained": kept}
        for split, at in groups.items():
            if len(at):
                assert run.performance.loc[0, split] == pytest.approx(start[at].sum() / fake.tokens[at].sum()), split


def test_sentences_of_another_beginning_are_told(small):
    path = small.tables / "unlearn/adamw/performance.parquet"
    rows = pd.read_parquet(path)
    rows.loc[rows["split"] == "heldout_fixed", "n_tokens"] += 1
    rows.to_parquet(path, index=False)
    assert read(small).missing == ["adamw: the followed held-out sentences are not the first of the split"]


def test_the_generator_part_is_that_of_examples_followed_all_the_way(fake, study):
    run = study.select(forget_set="ood-canary")[0]
    assert list(run.followed) == list(run.never)[:6] and len(run.followed) > 4
    part = run.followed - runs.reference_of(study, run.trained_with, "ood-canary", run.model, list(run.followed))
    pd.testing.assert_series_equal(run.generator_part, part.mean(axis=1))
    assert run.never.notna().all(axis=1).sum() == 3  # θ0, and both sides of k*


def test_the_reference_of_examples_of_another_kind_is_not_made_up(study):
    with pytest.raises(KeyError):
        runs.reference_of(study, "adamw", "ind-a", 0, study.members("ood-canary"))


def test_partners_of_every_training_are_read_together_and_an_empty_table_is_none(small):
    assert set(runs.retrained("partners", small.root)["left_out"]) == {"ind", "ood-canary"}
    path = small.tables / "train/adamw/partners.parquet"
    pd.read_parquet(path).iloc[:0].to_parquet(path, index=False)
    assert runs.retrained("partners", small.root).empty


def test_rows_of_runs_stand_under_their_arm_set_and_model(study):
    some = study.select()
    table = runs.by_run(some, lambda run: pd.DataFrame({"x": [run.k_star]} if run.model else {}))
    assert list(table) == ["arm", "forget_set", "model", "x"] and len(table) == len([r for r in some if r.model])
    assert list(runs.by_run([], lambda run: None)) == ["arm", "forget_set", "model"]


# --- one row a run


def test_the_run_table_holds_damage_at_shares_of_the_steps(study):
    table = runs.run_table(study)
    run, row = study.runs[0], table.iloc[0]
    assert row["lost_25"] == pytest.approx(float(run.lost(run.k_star / 4)))
    assert row["lost_50_fixed"] == pytest.approx(float(run.lost(run.k_star / 2)))
    inside = table[table["role"] == "in"]
    assert (inside["lost_25"] <= inside["lost_100"] + 1e-12).all() and inside[list(runs.LOST)].notna().all(axis=None)
    assert {*runs.KEYS, *runs.UNITS} <= set(table.columns)


def test_damage_after_half_and_all_of_the_steps_is_read_from_every_sentence(study):
    for run in study.select():
        steps, tokens = run.sentences.index.to_numpy(), run.sentence_tokens.sum()
        per_token = -(run.sentences - run.sentences.loc[0]).sum(axis=1) / tokens
        for share in (0.5, 1.0):
            expected = np.interp(share * run.k_star, steps, per_token)
            assert run.lost_sentences(share).sum() / tokens == pytest.approx(expected)
            assert run.lost_heldout(share) == pytest.approx(expected)
        assert run.lost_heldout(1.0) == pytest.approx(float(run.lost(run.k_star, "heldout")))
        ends = replace(run, sentences=run.sentences.iloc[[0, -1]])
        assert np.isnan(ends.lost_sentences(0.5)).all()  # not scored near half of k*


def test_runs_without_sentences_where_they_are_read_are_counted(small):
    path = small.tables / "unlearn/adamw/log_likelihoods.parquet"
    rows = pd.read_parquet(path)
    gone = rows["example_id"].str.startswith("heldout") & (rows["model"] == 1) & (rows["step"] < 9)
    rows[~gone].to_parquet(path, index=False)
    reached = [run for run in read(small).select() if run.model == 1]
    told = f"{len(reached)} of {len(read(small).select())} runs without all held-out sentences around k* and k*/2"
    assert reached and read(small).missing == [f"adamw: {told}"]
    assert np.isnan(reached[0].lost_heldout(0.5)) and np.isfinite(reached[0].lost_heldout(1.0))


def test_a_line_is_drawn_between_followed_states_alone(study):
    values = pd.DataFrame({"heldout_fixed": {0: -4.0, 3: -4.3, 4: -4.5, 6: -5.0, 12: -9.0}})
    gapped = replace(study.runs[0], performance=values, gap=3)
    at = [0, 1.5, 3.5, 5, 7, 12, 13, np.nan]
    np.testing.assert_allclose(gapped.lost(at), [0, 0.15, 0.4, 0.75, np.nan, 5, np.nan, np.nan], atol=1e-12)
    assert np.isnan(gapped.lost(1.5, "retain"))
    without_start = replace(gapped, performance=gapped.performance.iloc[1:])
    assert np.isnan(without_start.lost(3.5))


def test_runs_are_followed_every_few_steps(study):
    assert {run.gap for run in study.runs} == {3}


def test_values_of_draws_are_those_of_the_run_table(study):
    table = runs.draw_table(study, "adamw", "k_star")
    assert list(table) == ["family", "forget_set", "model", "value"] and len(table) == 4 * 4
    run = study.select(arm="adamw", forget_set="ind-b")[1]
    row = table[(table["forget_set"] == "ind-b") & (table["model"] == run.model)]
    assert row["value"].item() == run.k_star and row["family"].item() == "ind"
    assert len(runs.draw_table(study, "adamw-double", "lost_100")) == 8


def test_share_inside_exposed_and_below_add_up(study):
    run, row = study.runs[0], runs.run_table(study).iloc[0]
    g = performance.interpolate(run.exposure, run.steps, run.k_star)
    assert row["share_inside"] + row["share_exposed"] + np.mean(g < -run.floor) == pytest.approx(1)
    assert row["rms"] == pytest.approx(np.sqrt(np.mean(g**2)))


def test_bleu_is_that_of_the_nearest_whole_step_within_one(study):
    run = replace(study.runs[0], performance=pd.DataFrame({"bleu": {0: 8.0, 3: np.nan, 10: 7.0, 11: 5.0}}))
    assert [run.bleu_at(step) for step in (0, 10.4, 10.6, 12)] == [8, 7, 5, 5]
    assert np.isnan(run.bleu_at(12.1)) and np.isnan(run.bleu_at(np.nan))


def test_bleu_starts_with_that_of_the_trained_model(study):
    assert all(run.bleu_at(0) == 10 and run.bleu_at(run.k_star) == 8 for run in study.select())


def test_the_performance_of_a_reference_is_the_regression_of_performance_without_the_set(study):
    run = study.select(arm="adamw", forget_set="ind-b")[0]
    x = np.column_stack([np.ones(12), study.design[["base", "ind-b"]]])
    heldout = study.performance["adamw"]["heldout"].to_numpy()
    expected = (x[run.model] * [1, 1, -1]) @ np.linalg.lstsq(x, heldout, rcond=None)[0]
    assert runs.reference_performance(study, run) == pytest.approx(expected)
    assert np.isnan(runs.reference_performance(study, run, "not scored"))


def test_exposure_at_the_start_has_the_interval_of_the_regression_that_makes_the_references(study):
    row = runs.start(study, "adamw", "ind-a").loc["exposure_0"]
    y = study.references["adamw"][study.members("ind-a")].mean(axis=1).to_numpy()
    x = np.column_stack([np.ones(12), study.design[["base", "ind-a"]]])
    fit = np.linalg.lstsq(x, y, rcond=None)[0]
    se = np.sqrt(np.sum((y - x @ fit) ** 2) / 9 / 12)
    assert row["estimate"] == pytest.approx(2 * fit[2]) and row["n"] == 12
    assert row["high"] - row["estimate"] == pytest.approx(stats.t.ppf(0.975, 9) * 2 * se)


def test_generator_and_instance_part_add_up_at_the_start(study):
    start = runs.start(study, "adamw", "ood-canary")["estimate"]
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
        ("unlearn/adamw/performance.parquet", "adamw: performance.parquet missing"),
    ],
)
def test_a_missing_table_is_named_and_the_rest_is_read(small, gone, words):
    (small.tables / gone).unlink()
    study = read(small)
    assert any(words in reason for reason in study.missing)
    assert {"k_star", "lost_100", "arm"} <= set(runs.run_table(study))


def test_without_the_design_nothing_can_be_read(small):
    (small.tables / "forget_sets/design.csv").unlink()
    with pytest.raises(FileNotFoundError):
        read(small)


def test_a_study_without_runs_has_a_table_with_columns_and_no_rows(small):
    study = runs.read_study(small.root, **small.settings | {"ascents": {}})
    table = runs.run_table(study)
    assert table.empty and {"k_star", "lost_100", "arm"} <= set(table) and study.missing == []


def test_a_diverged_run_is_censored_at_its_last_finite_step(small):
    path = small.tables / "unlearn/adamw/log_likelihoods.parquet"
    rows = pd.read_parquet(path)
    first = read(small).select()[0]
    gone = (rows["model"] == first.model) & (rows["forget_set"] == first.forget_set) & (rows["step"] > 4)
    rows.loc[gone, "log_likelihood"] = np.nan
    rows.to_parquet(path, index=False)
    run = read(small).select()[0]
    assert np.isnan(run.k_star) and np.isnan(run.lost(run.k_star)) and run.steps[-1] == 4


def test_a_set_that_the_design_does_not_have_yet_is_named(small):
    settings = small.settings | {"ascents": {"adamw": ["ind", "mine"]}}
    study = runs.read_study(small.root, **settings)
    assert study.missing == ["adamw: mine is not in the design"] and study.select(forget_set="ind")


def test_a_run_that_left_no_scores_is_named(small):
    path = small.tables / "unlearn/adamw/log_likelihoods.parquet"
    rows, first = pd.read_parquet(path), read(small).select()[0]
    rows[(rows["forget_set"] != first.forget_set) | (rows["role"] != "in")].to_parquet(path, index=False)
    missing = read(small).missing
    assert f"adamw: {first.forget_set} in model {first.model} (in) left no scores" in missing


def test_a_set_without_never_trained_examples_has_no_parts(tmp_path):
    own = {"ind": {"kind": "natural", **ONE}, "mine": {"kind": "own", **ONE}}
    study = read(smoke(tmp_path, forget_sets=own).write())
    assert list(runs.start(study, "adamw", "mine").index) == ["exposure_0"]
    assert study.select(forget_set="mine")[0].generator_part.empty
    table = runs.run_table(study).query("role == 'in'").set_index("forget_set")
    assert table.loc["mine", "instance_0"].isna().all() and table.loc["ind", "instance_0"].notna().all()
