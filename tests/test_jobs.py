"""The tasks of the stages on a study of made-up words: what they write, and that the same seed gives the same bytes."""

import math

import pandas as pd
import pytest

from tests.tiny import ascent_task, study_data, training_task
from unlearning.core.genex import steps_to_forget
from unlearning.measure.ascent_job import choose_learning_rate, pilot_ascents, unlearn_model
from unlearning.measure.train_job import train_model


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return study_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module", params=["adamw", "adafactor"])
def trained(request, data, tmp_path_factory):
    """Name of the optimizer, and the folder of a model trained with it."""
    out = tmp_path_factory.mktemp(request.param)
    train_model(out, **training_task(data, request.param))
    return request.param, out


def unlearned(out, data, trained, **changes):
    """The run's row and the run's log-likelihoods, after `unlearn_model` with some arguments changed."""
    out.mkdir()
    unlearn_model(out, **ascent_task(data, *trained) | changes)
    return pd.read_csv(out / "runs.csv").iloc[0], pd.read_parquet(out / "log_likelihoods.parquet")


def test_a_trained_model_is_scored_on_every_example_it_is_to_be_scored_on(trained):
    table = pd.read_parquet(trained[1] / "log_likelihoods.parquet")
    groups = table["example_id"].astype(str).str.rpartition("-")[0].value_counts().to_dict()
    assert groups == {"ind-a": 12, "natural": 12, "pilot": 12, "heldout": 20, "core": 10}
    history = pd.read_csv(trained[1] / "training.csv")
    assert history["epoch"].tolist() == [0, 1, 2, 3, 4]
    assert set(history["rows"]) == {60 + 2 * 12}  # each of the forget set stands in training twice
    assert history["loss"].iloc[-1] < history["loss"].iloc[1]
    splits = pd.read_csv(trained[1] / "performance.csv")["split"].tolist()
    assert splits == ["heldout", "validation", "retain", "heldout_bleu"]


def test_a_task_with_the_same_seed_writes_the_same_bytes_and_with_another_seed_others(data, trained, tmp_path):
    for name, seed in (("same", 1), ("other", 2)):
        (tmp_path / name).mkdir()
        train_model(tmp_path / name, **training_task(data, trained[0]) | {"seed": seed})
    tables = ("log_likelihoods.parquet", "tokens.parquet", "training.csv")
    for file in ("model/model.safetensors", "optimizer.safetensors", *tables):
        assert (tmp_path / "same" / file).read_bytes() == (trained[1] / file).read_bytes()
        assert (tmp_path / "other" / file).read_bytes() != (trained[1] / file).read_bytes()


def test_an_ascent_starts_where_training_ended_and_crosses_its_reference_at_k_star(data, trained, tmp_path):
    run, table = unlearned(tmp_path / "run", data, trained)
    own = table[table["example_id"].astype(str).str.startswith("ind-a")]
    path = own.pivot(index="step", columns="example_id", values="log_likelihood").mean(axis=1)
    before = pd.read_parquet(trained[1] / "log_likelihoods.parquet").set_index("example_id")["log_likelihood"]
    start = before[before.index.astype(str).str.startswith("ind-a")].mean()
    assert run["status"] == "reached" and path[0] == pytest.approx(start, abs=2e-3)
    k_star = steps_to_forget(path.to_numpy() - (start - 0.3), path.index.to_numpy())
    assert run["k_star"] == pytest.approx(k_star, abs=0.02)


def test_a_trained_model_is_scored_by_token_on_what_it_may_have_to_forget(trained):
    tokens = pd.read_parquet(trained[1] / "tokens.parquet").astype({"example_id": str})
    table = pd.read_parquet(trained[1] / "log_likelihoods.parquet").astype({"example_id": str}).set_index("example_id")
    sums = tokens.groupby("example_id")["log_likelihood"].sum()
    assert len(sums) == 12 and (tokens.groupby("example_id").size() == table.loc[sums.index, "n_tokens"]).all()
    assert sums.to_numpy() == pytest.approx(
        table.loc[sums.index, "log_likelihood"].to_numpy(), abs=0.1
    )  # to 0.01 a token
    assert (tokens["log_likelihood"] <= 0).all() and (tokens["mean"] < 0).all() and (tokens["sd"] >= 0).all()


def test_an_arm_at_twice_the_rate_is_the_arm_with_twice_the_learning_rate(data, trained, tmp_path):
    arm = ascent_task(data, *trained)["arm"]
    by_rate, one = unlearned(tmp_path / "rate", data, trained, arm=arm | {"rate": 2.0})
    twice = arm | {"learning_rate": 2 * arm["learning_rate"]}
    written, other = unlearned(tmp_path / "written", data, trained, arm=twice)
    assert by_rate["learning_rate"] == written["learning_rate"] == 2 * arm["learning_rate"]
    assert one.equals(other)


def test_a_population_is_followed_in_part_and_scored_in_full_around_k_star(data, trained, tmp_path):
    run, table = unlearned(tmp_path / "run", data, trained)
    never = table[table["example_id"].astype(str).str.startswith("natural")].groupby("step").size()
    around = {math.floor(run["k_star"]), math.ceil(run["k_star"])}
    assert around <= set(never.index) and all(n == (12 if step in around else 5) for step, n in never.items())
    _, without = unlearned(tmp_path / "without", data, trained, population=None)
    assert not without["example_id"].astype(str).str.startswith("natural").any()


def test_the_pilot_goes_down_the_grid_to_the_first_rate_that_takes_enough_steps(data, trained, tmp_path):
    task = ascent_task(data, *trained)
    keys = ("data", "folder", "arm", "seed", "threads", "device")
    settings = task["settings"] | {"k_max": 30}
    before = pd.read_parquet(trained[1] / "log_likelihoods.parquet").set_index("example_id")["log_likelihood"]
    reference = [float(before[f"pilot-{i}"]) - 2.0 for i in range(12)]
    grid = [1e-5, 3e-3, 1e-1]
    options = {"grid": grid, "low": 2, "settings": settings, "reference": reference, "key": {"arm": "mine"}}
    options["forget_set"] = "pilot"
    pilot_ascents(tmp_path, **{name: task[name] for name in keys}, **options)
    table = pd.read_csv(tmp_path / "learning_rates.csv")
    assert table["learning_rate"].tolist() == sorted(grid, reverse=True)[: len(table)]
    assert (table["k_star"].iloc[:-1].fillna(0) < 2).all()
    assert len(table) == 3 or table["k_star"].iloc[-1] >= 2


def test_the_largest_learning_rate_within_the_steps_is_chosen():
    assert choose_learning_rate([1e-5, 2e-5, 5e-5], [80, 35, 22], low=20, high=40) == 5e-5


def test_a_grid_too_coarse_for_the_window_gives_the_rate_nearest_to_it_as_a_ratio():
    assert choose_learning_rate([2e-4, 5e-4, 1e-3], [48, 19.8, 10], low=20, high=40) == 5e-4


def test_a_grid_without_any_rate_that_forgets_is_refused_in_words():
    with pytest.raises(ValueError, match="no learning rate forgets"):
        choose_learning_rate([1e-5, 1e-4], [math.nan, math.nan], low=20, high=40)
