"""Rates, memorization, difficulty and repetition, on a made-up study whose effects are known."""

from dataclasses import replace

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from paper import look, memorization, runs
from tests.fake_study import NINE_SETS, FakeStudy, smoke
from unlearning.core import performance

SETS = ["ind-a", "ind-x16", "ood-canary-a"]


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    """Sixteen models, three sets (one repeated), one arm."""
    folder, arms = tmp_path_factory.mktemp("study"), {"adamw": ("adamw", "adamw", SETS)}
    return FakeStudy(folder, size=16, never=20, followed=6, sets={s: NINE_SETS[s] for s in SETS}, arms=arms).write()


@pytest.fixture(scope="module")
def study(fake):
    return runs.read_study(fake.root, **fake.settings)


@pytest.fixture(scope="module")
def by_model(study):
    return memorization.correlations_by_model(memorization.example_rates(study))


@pytest.fixture
def looks(study):
    return look.looks(study.examples, study.forget_sets)


def test_memorization_comes_from_models_that_the_trajectory_does_not(study):
    for name in SETS:
        first, second = memorization.halves(study, "adamw", name)
        assert not set(first) & set(second) and sorted(first + second) == list(range(16))
        for half in (first, second):
            assert set(study.design.loc[half, "base"]) == {-1, 1}
            assert set(study.design.loc[half, name]) == {-1, 1}
    rates, run = memorization.example_rates(study), study.select(forget_set="ind-a")[0]
    other = next(half for half in memorization.halves(study, "adamw", "ind-a") if run.model not in half)
    inside, outside = ([m for m in other if study.design.loc[m, "ind-a"] == side] for side in (1, -1))
    table = study.references["adamw"][run.examples] / run.n_tokens
    mine = rates[(rates["forget_set"] == "ind-a") & (rates["model"] == run.model)]
    np.testing.assert_allclose(mine["mem"], table.loc[inside].mean() - table.loc[outside].mean())


def test_memorization_by_example_is_what_models_that_hold_it_have_over_those_that_do_not(study, fake):
    scores = pd.read_parquet(fake.tables / "train/adamw/log_likelihoods.parquet").astype({"example_id": str})
    table = memorization.example_properties(study, "adamw", scores)
    assert len(table) == len(SETS) * fake.size and set(table["trained_with"]) == {"adamw"}
    row = table[table["forget_set"] == "ind-x16"].iloc[3]
    mine = scores[scores["example_id"] == row["example_id"]]
    holds = mine["model"].isin(study.models("ind-x16", "adamw", inside=True))
    for column, name in (("log_likelihood", "mem"), ("n_correct", "mem_accuracy")):
        expected = (mine.loc[holds, column].mean() - mine.loc[~holds, column].mean()) / row["n_tokens"]
        assert row[name] == pytest.approx(expected)
    assert row["difficulty"] == pytest.approx(-study.base[row["example_id"]].mean() / row["n_tokens"])
    means = table.groupby("forget_set")["mem"].mean()
    assert means["ind-x16"] > means["ind-a"] > 0


def test_without_scores_of_the_bases_difficulty_is_unknown_and_memorization_is_not(study, fake):
    scores = pd.read_parquet(fake.tables / "train/adamw/log_likelihoods.parquet").astype({"example_id": str})
    table = memorization.example_properties(replace(study, base=study.base * np.nan), "adamw", scores)
    assert table["difficulty"].isna().all() and table["mem"].notna().all()


def test_the_rate_is_nats_per_token_and_step_over_the_first_half(study):
    run, rates = study.runs[0], memorization.example_rates(study)
    mine = rates[(rates["arm"] == run.arm) & (rates["forget_set"] == run.forget_set) & (rates["model"] == run.model)]
    half = run.k_star / 2
    expected = (run.log_likelihoods[0] - performance.interpolate(run.log_likelihoods, run.steps, half)) / run.n_tokens
    np.testing.assert_allclose(mine["rate"], expected / half)


def test_a_made_up_link_between_rate_and_memorization_is_found(by_model):
    table = memorization.correlation_table(by_model, identifiable=0.8)
    assert (table.loc[table["quantity"] == "rate_mem", "low"] > 0.2).all()
    assert list(table["quantity"].unique()) == list(memorization.RHOS)


def test_what_cannot_be_told_apart_is_called_not_identifiable(by_model):
    table = memorization.correlation_table(by_model.assign(mem_difficulty=0.9), identifiable=0.8)
    given = table["quantity"].str.contains("given")
    assert table.loc[given, "reason"].str.startswith("not identifiable").all()
    assert not table.loc[~given, "reason"].str.startswith("not identifiable").any()


def test_repetition_strata_are_compared_at_equal_nats_removed(study):
    assert memorization.strata(study, "adamw") == {"natural": ["ind-a", "ind-x16"]}
    pair = ("ind-a", "ind-x16")
    equal = memorization.at_equal_level(study, "adamw", pair, memorization.lost_at_removed)
    wide = equal.pivot(index="model", columns="forget_set", values="value").dropna()
    few, many = ({r.model: r for r in study.select(arm="adamw", forget_set=s)} for s in pair)
    assert len(wide) == len(few.keys() & many.keys()) == 4
    for model, row in wide.iterrows():
        assert row["ind-a"] == pytest.approx(float(few[model].lost(few[model].k_star)))  # all that it had to lose
        removed = many[model].log_likelihoods[0].mean() - many[model].log_likelihoods.mean(axis=1)
        at = np.interp(few[model].exposure[0].mean(), removed, many[model].steps)
        assert row["ind-x16"] == pytest.approx(float(many[model].lost(at)))


def test_of_a_set_alone_the_level_is_its_own_exposure(study):
    table = memorization.at_equal_level(study, "adamw", ["ind-a"], lambda run, level: level - run.exposure[0].mean())
    assert len(table) == 8 and table["value"].abs().max() < 1e-12


def test_without_any_run_there_is_nothing_to_correlate(study):
    nothing = memorization.correlations_by_model(memorization.example_rates(replace(study, runs=[])))
    assert nothing.empty and memorization.correlation_table(nothing, identifiable=0.8).empty


def test_a_diverged_run_is_censored_at_its_last_finite_step_and_has_no_rate(tmp_path):
    small = smoke(tmp_path).write()
    path = tmp_path / "results/tables/unlearn/ind-a-adamw/log_likelihoods.parquet"
    rows = pd.read_parquet(path)
    rows.loc[(rows["model"] == 0) & (rows["step"] > 4), "log_likelihood"] = np.nan
    rows.to_parquet(path, index=False)
    study = runs.read_study(tmp_path, **small.settings)
    run, rates = study.select(forget_set="ind-a")[0], memorization.example_rates(study)
    mine = rates[(rates["forget_set"] == "ind-a") & (rates["model"] == run.model)]
    assert np.isnan(run.k_star) and np.isnan(run.lost(run.k_star)) and mine["rate"].isna().all()


def test_figures_hold_what_there_is_and_say_why_there_is_none(study, by_model, looks):
    inside = runs.run_table(study).query("role == 'in'")
    fig = memorization.repetition(study, inside, looks)
    assert len(fig.axes) == 2 and [text.get_text() for text in fig.legends[0].get_texts()] == ["sentences"]
    rates, table = memorization.example_rates(study), memorization.correlation_table(by_model, identifiable=0.8)
    assert len(memorization.rate_points(rates, ["adamw"], look.only(looks, ["ind-a"])).axes) == 2
    fig = memorization.rho_forest(table, ["adamw"], look.only(looks, SETS), margin=0.1)
    assert [len(ax.containers) for ax in fig.axes] == [6, 6]  # three sets, as it is and with the other held fixed
    unknown = memorization.correlation_table(by_model.assign(mem_difficulty=0.9), identifiable=0.8)
    fig = memorization.rho_forest(unknown, ["adamw"], look.only(looks, SETS), margin=0.1)
    assert [len(ax.containers) for ax in fig.axes] == [3, 3]
    alone = inside[inside["forget_set"] == "ood-canary-a"]
    without = replace(study, runs=[run for run in study.runs if run.forget_set == "ood-canary-a"])
    assert "no arm has two sets" in memorization.repetition(without, alone, looks)
    assert "no runs" in memorization.rate_points(rates, [], looks)
    assert "no runs" in memorization.rho_forest(table, [], looks, margin=0.1)
    plt.close("all")
