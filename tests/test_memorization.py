"""Rates, memorization and difficulty of in-models beside placebos, on a made-up study whose effects are known."""

from dataclasses import replace

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from paper import look, memorization, runs
from tests.fake_study import ARMS, FAMILIES, FakeStudy, smoke
from unlearning.core import performance, stats

FEW = {name: FAMILIES[name] for name in ("ind", "ood-canary", "ind-x4")}


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    """Twelve models, three families (two of three draws), an arm with a placebo of each set and one without."""
    folder, arms = tmp_path_factory.mktemp("study"), {name: ARMS[name] for name in ("adamw", "sgd")}
    few = {"forget_sets": FEW, "arms": arms, "placebo": ("adamw",), "never": 20, "followed": 6}
    return FakeStudy(folder, placebo_models=6, **few).write()


@pytest.fixture(scope="module")
def study(fake):
    return runs.read_study(fake.root, **fake.settings)


@pytest.fixture(scope="module")
def rates(study):
    return memorization.example_rates(study)


@pytest.fixture(scope="module")
def by_model(rates):
    return memorization.correlations_by_model(rates)


@pytest.fixture(scope="module")
def by_side(study, by_model):
    return memorization.z_by_side(study, by_model)


def mine(table: pd.DataFrame, run: runs.Run) -> pd.DataFrame:
    """The rows of a run."""
    keys = table[["arm", "forget_set", "model", "role"]]
    return table[(keys == [run.arm, run.forget_set, run.model, run.role]).all(axis=1)]


@pytest.mark.parametrize("role", ["in", "placebo"])
def test_memorization_comes_from_models_that_the_trajectory_does_not(study, rates, role):
    for name in study.forget_sets:
        first, second = memorization.halves(study, "adamw", name)
        assert not set(first) & set(second) and sorted(first + second) == list(range(12))
        for half in (first, second):
            assert set(study.design.loc[half, "base"]) == {-1, 1}
            assert set(study.design.loc[half, name]) == {-1, 1}
    run = study.select(arm="adamw", forget_set="ind-a", role=role)[0]
    other = next(half for half in memorization.halves(study, "adamw", "ind-a") if run.model not in half)
    inside, outside = ([m for m in other if study.design.loc[m, "ind-a"] == side] for side in (1, -1))
    table = study.references["adamw"][run.examples] / run.n_tokens
    np.testing.assert_allclose(mine(rates, run)["mem"], table.loc[inside].mean() - table.loc[outside].mean())


def test_memorization_by_example_is_what_models_that_hold_it_have_over_those_that_do_not(study, fake):
    scores = pd.read_parquet(fake.tables / "train/adamw/log_likelihoods.parquet").astype({"example_id": str})
    table = memorization.example_properties(study, "adamw", scores)
    assert len(table) == len(study.forget_sets) * 24 and set(table["trained_with"]) == {"adamw"}
    assert set(table["family"]) == set(FEW)
    row = table[table["forget_set"] == "ind-x4"].iloc[3]
    of_example = scores[scores["example_id"] == row["example_id"]]
    holds = of_example["model"].isin(study.models("ind-x4", "adamw", inside=True))
    for column, name in (("log_likelihood", "mem"), ("n_correct", "mem_accuracy")):
        expected = (of_example.loc[holds, column].mean() - of_example.loc[~holds, column].mean()) / row["n_tokens"]
        assert row[name] == pytest.approx(expected)
    assert row["difficulty"] == pytest.approx(-study.base[row["example_id"]].mean() / row["n_tokens"])
    means = table.groupby("family")["mem"].mean()
    assert means["ind-x4"] > means["ind"] > 0


def test_without_scores_of_the_bases_difficulty_is_unknown_and_memorization_is_not(study, fake):
    scores = pd.read_parquet(fake.tables / "train/adamw/log_likelihoods.parquet").astype({"example_id": str})
    table = memorization.example_properties(replace(study, base=study.base * np.nan), "adamw", scores)
    assert table["difficulty"].isna().all() and table["mem"].notna().all()


def test_the_rate_is_nats_per_token_and_step_over_the_first_half(study, rates):
    run = study.select()[0]
    half = run.k_star / 2
    expected = (run.log_likelihoods[0] - performance.interpolate(run.log_likelihoods, run.steps, half)) / run.n_tokens
    np.testing.assert_allclose(mine(rates, run)["rate"], expected / half)


def test_a_placebo_gets_as_many_steps_as_the_in_models_of_its_set_took_on_average(study, rates):
    run = study.select(arm="adamw", forget_set="ood-canary-b", role="placebo")[0]
    half = np.mean([r.k_star for r in study.select(arm="adamw", forget_set="ood-canary-b")]) / 2
    expected = (run.log_likelihoods[0] - performance.interpolate(run.log_likelihoods, run.steps, half)) / run.n_tokens
    np.testing.assert_allclose(mine(rates, run)["rate"], expected / half)
    alone = memorization.example_rates(replace(study, runs=[run]))
    assert len(alone) == 24 and alone["rate"].isna().all()  # no in-model says how many


def test_a_link_that_is_made_up_in_every_model_is_found_in_in_models_and_placebos_alike(by_side):
    table = memorization.correlation_table(by_side, identifiable=0.8)
    rows = table[(table["arm"] == "adamw") & (table["quantity"] == "rate_mem")].set_index(["side", "family"])
    for family in ("ind", "ood-canary"):
        assert rows.loc[("in", family), "low"] > 0.2 and rows.loc[("placebo", family), "low"] > 0.2
        assert rows.loc[("difference", family), "low"] < 0 < rows.loc[("difference", family), "high"]
    assert list(table["quantity"].unique()) == list(memorization.RHOS)


def test_a_link_that_only_those_have_that_held_the_set_is_found_in_the_difference(study, rates):
    rng, placebo = np.random.default_rng(0), rates["role"] == "placebo"
    without = rates.assign(rate=np.where(placebo, rng.normal(size=len(rates)), rates["rate"]))
    by_side = memorization.z_by_side(study, memorization.correlations_by_model(without))
    table = memorization.correlation_table(by_side, identifiable=0.8)
    row = table[(table["side"] == "difference") & (table["quantity"] == "rate_mem")].set_index("family").loc["ind"]
    assert row["low"] > 0.2 and row["unit"] == "draw" and row["draws"] == 3


def test_a_draw_says_the_mean_of_its_in_models_minus_that_of_its_placebos(study, by_model, by_side):
    table = memorization.by_draw(by_side).set_index(["arm", "forget_set", "quantity"])
    rows = by_model[(by_model["arm"] == "adamw") & (by_model["forget_set"] == "ind-b")]
    means = stats.fisher_z(rows["rate_mem"]), rows["role"].to_numpy()
    inside, placebo = (means[0][means[1] == role].mean() for role in ("in", "placebo"))
    row = table.loc[("adamw", "ind-b", "rate_mem")]
    assert (row["z_in"], row["z_placebo"]) == pytest.approx((inside, placebo)) and row["family"] == "ind"
    assert row["difference"] == pytest.approx(inside - placebo)
    assert np.isnan(table.loc[("sgd", "ind-b", "rate_mem"), "difference"])  # an arm without placebos


def test_a_difference_of_one_draw_has_no_limits(by_side):
    table = memorization.correlation_table(by_side, identifiable=0.8)
    alone = table[(table["family"] == "ind-x4") & (table["quantity"] == "rate_mem") & (table["arm"] == "adamw")]
    alone = alone.set_index("side")
    assert np.isfinite(alone.loc["in", "low"]) and np.isfinite(alone.loc["difference", "estimate"])
    assert np.isnan(alone.loc["difference", "low"]) and "too few" in alone.loc["difference", "reason"]


def test_what_cannot_be_told_apart_is_called_not_identifiable(study, by_model):
    by_side = memorization.z_by_side(study, by_model.assign(mem_difficulty=0.9))
    table = memorization.correlation_table(by_side, identifiable=0.8)
    given = table["quantity"].str.contains("given")
    assert table.loc[given, "reason"].str.startswith("not identifiable").all()
    assert not table.loc[~given, "reason"].str.startswith("not identifiable").any()


def test_without_any_run_there_is_nothing_to_correlate(study):
    none = memorization.correlations_by_model(memorization.example_rates(replace(study, runs=[])))
    by_side = memorization.z_by_side(study, none)
    assert none.empty and memorization.correlation_table(by_side, identifiable=0.8).empty
    assert memorization.by_draw(by_side).empty


def test_a_diverged_run_is_censored_at_its_last_finite_step_and_has_no_rate(tmp_path):
    small = smoke(tmp_path).write()
    path = tmp_path / "results/tables/unlearn/adamw/log_likelihoods.parquet"
    rows = pd.read_parquet(path)
    model = rows.loc[rows["role"] == "in", "model"].min()
    lost = (rows["model"] == model) & (rows["forget_set"] == "ind") & (rows["step"] > 4)
    rows.loc[lost, "log_likelihood"] = np.nan
    rows.to_parquet(path, index=False)
    study = runs.read_study(tmp_path, **small.settings)
    run = next(r for r in study.select(forget_set="ind") if r.model == model)
    found = mine(memorization.example_rates(study), run)
    assert np.isnan(run.k_star) and np.isnan(run.lost(run.k_star)) and found["rate"].isna().all()


def test_figures_hold_what_there_is_and_say_why_there_is_none(study, fake, rates, by_side):
    looks = look.only(look.looks(fake.forget_sets), study.families)
    fig = memorization.rate_points(rates, ["adamw", "nobody"], looks)
    assert [len(ax.lines) for ax in fig.axes] == [3, 3]
    table, draws = memorization.correlation_table(by_side, identifiable=0.8), memorization.by_draw(by_side)
    fig = memorization.correlation_forest(table, draws, ["adamw"], looks)
    marks = [sum(len(bars.lines[0].get_xdata()) for bars in ax.containers) for ax in fig.axes]
    assert marks == [6, 6]  # three families, in-models and placebos
    fig = memorization.difference_forest(table, draws, ["adamw", "sgd"], looks, margin=0.1)
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["memorization, arm adamw", "difficulty, arm adamw"]
    assert "no runs" in memorization.rate_points(rates, [], looks)
    assert "no runs" in memorization.correlation_forest(table, draws, [], looks)
    assert "no runs" in memorization.difference_forest(table, draws, ["sgd"], looks, margin=0.1)
    plt.close("all")
