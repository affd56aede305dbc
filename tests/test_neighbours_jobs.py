"""The tasks of the pipeline beside the study, on a study of made-up words, and what is read from what they write."""

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

from neighbours import jobs, reading
from paper import runs
from tests.fake_study import FakeStudy
from tests.test_neighbours import METHODS
from tests.tiny import ascent_task, study_data, training_task
from unlearning.measure.ascent_job import unlearn_model
from unlearning.measure.models import load_model
from unlearning.measure.train_job import train_model

MASKS = {"domains": {"ind": [["ind-a"], ["core"]], "ood": [[], ["pilot"]]}, "examples": 8, "share": [0.1, 0.2]}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return study_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """Folder of a model that holds ind-a."""
    out = tmp_path_factory.mktemp("adamw")
    train_model(out, **training_task(data, "adamw"))
    return out


@pytest.fixture(scope="module")
def where(data, trained):
    return {"data": str(data), "folder": str(trained / "model"), "threads": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def masks(where, tmp_path_factory):
    out = tmp_path_factory.mktemp("masks")
    jobs.localise_model(out, **MASKS, seed=0, **where)
    return str(out)


@pytest.fixture(scope="module")
def unlearned(data, trained, where, masks, tmp_path_factory):
    """Tables of a run by a method, made once."""
    found, task = {}, ascent_task(data, "adamw", trained)

    def run(name, **changes):
        if name not in found:
            out = tmp_path_factory.mktemp(name)
            given = {"forget_set": "ind-a", "population": "never-natural", "method": METHODS[name], "masks": masks}
            given |= {name: task[name] for name in ("settings", "reference", "seed")} | {"k_max": 6, "every": 3}
            jobs.unlearn_by(out, **given | changes, key={"method": name, "forget_set": "ind-a", "model": 0}, **where)
            found[name] = {
                "run": pd.read_csv(out / "runs.csv").iloc[0],
                "seconds": pd.read_csv(out / "seconds.csv").iloc[0],
                "scores": pd.read_parquet(out / "log_likelihoods.parquet").astype({"example_id": str}),
                "performance": pd.read_parquet(out / "performance.parquet"),
            }
        return found[name]

    return run


def groups(scores, step):
    return scores[scores["step"] == step]["example_id"].str.rpartition("-")[0].value_counts().to_dict()


def test_masks_name_entries_of_every_parameter_and_random_ones_are_as_many(where, masks, trained):
    shapes = [tuple(p.shape) for p in load_model(trained / "model").parameters()]
    by, random = (load_file(f"{masks}/{name}.safetensors") for name in ("gradients", "random"))
    for side in (0, 1):
        assert [tuple(by[f"{side}.{i}"].shape) for i in range(len(shapes))] == shapes
        assert all(by[f"{side}.{i}"].sum() == random[f"{side}.{i}"].sum() for i in range(len(shapes)))
    assert sum(int(m.sum()) for m in by.values()) > 0


def test_ascent_takes_the_steps_that_it_takes_in_the_study(unlearned, data, trained, tmp_path):
    unlearn_model(tmp_path, **ascent_task(data, "adamw", trained))
    theirs = pd.read_csv(tmp_path / "runs.csv").iloc[0]
    ours = unlearned("ascent", k_max=12)
    assert ours["run"]["status"] == theirs["status"] == "reached"
    assert ours["run"]["k_star"] == pytest.approx(theirs["k_star"], abs=1e-6)
    last = pd.read_parquet(tmp_path / "performance.parquet").query("split == 'heldout'").set_index("step")
    own = ours["performance"].query("split == 'heldout'").set_index("step")["log_likelihood_per_token"]
    step = int(np.ceil(theirs["k_star"]))
    assert own[step] == pytest.approx(last.loc[step, "log_likelihood_per_token"], abs=1e-5)


def test_a_run_that_gets_to_zero_is_scored_on_both_sides_of_it(unlearned):
    found = unlearned("ascent")
    step = int(found["run"]["last_step"])
    assert step == np.ceil(found["run"]["k_star"])
    for state in (step - 1, step):
        assert groups(found["scores"], state) == {"ind-a": 12, "heldout": 20, "natural": 5}


@pytest.mark.parametrize("name", ["fine-tuning", "newton"])
def test_a_run_without_a_zero_is_scored_where_it_is_nearest_and_where_it_ends(unlearned, name):
    found = unlearned(name, reference=[-1e3] * 12)
    run = found["run"]
    assert run["status"] == "censored" and np.isnan(run["k_star"]) and run["last_step"] == 6
    mean = found["scores"][found["scores"]["example_id"].str.startswith("ind-a")]
    mean = mean.groupby("step")["log_likelihood"].mean()
    assert mean[run["nearest"]] == mean.min()
    for state in {run["nearest"], run["last_step"]}:
        assert groups(found["scores"], state) == {"ind-a": 12, "heldout": 20, "natural": 5}


def test_what_a_step_needs_stands_in_the_row_of_the_run(unlearned):
    needs = {"ascent": (1, 0), "fine-tuning": (0, 1), "newton": (0, 4)}
    for name, counts in needs.items():
        assert tuple(unlearned(name)["run"][["forget_gradients", "retain_gradients"]]) == counts
        assert unlearned(name)["seconds"]["seconds_a_step"] > 0


def test_the_pilot_goes_down_the_grid_and_a_method_that_forgets_at_no_rate_takes_the_nearest(where, tmp_path, masks):
    same = {"forget_set": "pilot", "masks": masks, "seed": 0, "grid": [1e-4, 1e-2], "low": 3, "k_max": 4}
    for name in ("grail", "fine-tuning"):
        (tmp_path / name).mkdir()
        method = {"method": METHODS[name], "key": {"method": name}}
        jobs.rates(tmp_path / name, reference=[-1e3] * 12, **method, **same, **where)
        tried = pd.read_csv(tmp_path / name / "learning_rates.csv")
        assert tried["learning_rate"].tolist() == [1e-2, 1e-4] and tried["k_star"].isna().all()
        nearest = tried.loc[tried["least"].idxmin(), "learning_rate"]
        assert jobs.choose_rate(tried, low=3, high=6) == nearest


def test_a_rate_inside_the_window_is_chosen_by_the_studys_rule():
    tried = pd.DataFrame({"learning_rate": [1.0, 0.1, 0.01], "k_star": [2.0, 25.0, 39.0], "least": 0.0})
    assert jobs.choose_rate(tried, low=20, high=40) == 0.1


def test_inputs_are_scored_and_every_score_is_held_against_each_kind(where, tmp_path):
    options = {"examples": 10, "core": 40, "penalty": 1e-2, "folds": 2, "seed": 0, "key": {"model": 3}}
    kinds = {"natural": "never-natural", "other": "pilot"}
    jobs.detect(tmp_path, sets=["ind-a"], kinds=kinds, inside="natural", **options, **where)
    scores, auroc = pd.read_parquet(tmp_path / "scores.parquet"), pd.read_csv(tmp_path / "auroc.csv")
    assert len(scores) == 12 and {"nll", "mahalanobis", "gradient", "forget_set", "model"} <= set(scores)
    assert set(auroc["kind"]) == {"other"} and auroc["auroc"].between(0, 1).all()
    known = {"nll", "mahalanobis", "gradient", "gradients, trained"}
    assert known <= set(auroc["score"]) and auroc["score"].str.startswith("tensor ").sum() > 10


def test_frozen_features_have_a_row_an_example(where, tmp_path):
    jobs.features(tmp_path, groups=["core", "ind-a"], **where)
    table = pd.read_parquet(tmp_path / "features.parquet")
    assert table["group"].value_counts().to_dict() == {"core": 60, "ind-a": 12}
    assert table[["f0", "f15", "n_tokens"]].notna().all(axis=None)


# What is read


def test_the_frontier_by_hand():
    points = np.array([[1.0, 4.0], [2.0, 2.0], [3.0, 3.0], [4.0, 1.0], [np.nan, 0.0], [2.0, 2.0]])
    assert reading.on_frontier(points).tolist() == [True, True, False, True, False, True]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A made-up study, and its ascents as if a method of this pipeline had made them; one run is without a zero."""
    fake = FakeStudy(tmp_path_factory.mktemp("fake")).write()
    root, folder = fake.root, fake.root / "results/tables/methods"
    folder.mkdir()
    source = root / "results/tables/unlearn/adamw"
    table = pd.read_csv(source / "runs.csv").query("role == 'in' and status == 'reached'").reset_index(drop=True)
    table = table.assign(nearest=np.nan, forget_gradients=1, retain_gradients=2)
    last = int(table.loc[0, "k_star"])
    table.loc[0, ["status", "k_star", "nearest", "last_step"]] = ["censored", np.nan, last, last + 1]
    table.to_csv(folder / "runs.csv", index=False)
    table.assign(seconds=9.0, seconds_a_step=0.5).to_csv(folder / "seconds.csv", index=False)
    for name in ("log_likelihoods.parquet", "performance.parquet"):
        frame = pd.read_parquet(source / name)
        frame[frame["role"] == "in"].to_parquet(folder / name)
    return runs.read_study(root, **fake.settings), folder, table


def test_a_run_of_a_method_is_read_as_a_run_of_the_study(study):
    study, folder, table = study
    mine = reading.method_runs(study, "adamw", folder).set_index(["forget_set", "model", "state"])
    theirs = study.table.query("arm == 'adamw' and role == 'in'").set_index(["forget_set", "model"])
    for record in table.iloc[1:].to_dict("records"):
        run = mine.loc[(record["forget_set"], record["model"], "nearest")]
        known = theirs.loc[(record["forget_set"], record["model"])]
        assert run["reached"] and run["steps"] == pytest.approx(known["k_star"], abs=1e-6)
        assert run["genex"] == pytest.approx(0.0, abs=1e-6)
        assert run["seconds"] == pytest.approx(0.5 * known["k_star"])
        assert run["retain_gradients"] == pytest.approx(2 * known["k_star"])
        assert run["lost"] == pytest.approx(known["lost_100"], abs=0.02)
        assert 0 <= run["distance"] <= 0.5 and run["worst"] > 0


def test_a_run_without_a_zero_is_read_at_two_states(study):
    study, folder, table = study
    rows = reading.method_runs(study, "adamw", folder)
    first = table.iloc[0]
    own = rows[(rows["forget_set"] == first["forget_set"]) & (rows["model"] == first["model"])]
    assert own.set_index("state")["steps"].to_dict() == {"nearest": first["nearest"], "end": first["last_step"]}
    assert not own["reached"].any()
    means = reading.method_table(rows, confidence=0.95)
    assert set(means["quantity"]) == set(reading.QUANTITIES)
    assert means.query("state == 'nearest'")["reached"].between(0, 1).all()


def test_figures_of_methods_are_drawn(study):
    study, folder, _ = study
    table = reading.method_table(reading.method_runs(study, "adamw", folder), confidence=0.95)
    families = ["ind", "ood-canary"]
    assert len(reading.frontier(table, families).axes) == 2
    assert len(reading.trade_offs(study, "adamw", folder, families).axes) == 2
    assert reading.frontier(table.iloc[:0], families) == "no method has run"


def test_a_score_predicts_beyond_likelihood_only_where_it_knows_more(study):
    study, *_ = study
    rng, parts = np.random.default_rng(0), []
    for run in study.select(arm="adamw"):
        steps = reading.genex.steps_to_forget(run.exposure, run.steps)
        noise = rng.normal(size=len(steps))
        known = {"knows": steps, "blind": noise, "nll": rng.normal(size=len(steps))}
        keys = {"forget_set": run.forget_set, "model": run.model, "example_id": run.examples}
        parts.append(pd.DataFrame(keys | known))
    z = reading.predictions(study, "adamw", pd.concat(parts), ["knows", "blind"])
    means = z.query("outcome == 'k_star'").groupby("score")["z"].mean()
    assert means["knows"] > 2 and abs(means["blind"]) < 0.3
