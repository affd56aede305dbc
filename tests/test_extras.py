"""What metrics need beyond log-likelihoods: a sampled run is the run, and what is measured of it is what it says."""

import numpy as np
import pandas as pd
import pytest

from tests.tiny import FAMILIES, ascent_task, examples, study_data, training_task
from unlearning import extras
from unlearning.measure.ascent_job import unlearn_model
from unlearning.measure.train_job import train_model

SAMPLE = {"never": 5, "wrong_targets": 2, "relearned": 4, "relearn_steps": 2}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Texts and tokens of a repeated run, and the log-likelihoods of the run."""
    data, folder = study_data(tmp_path_factory.mktemp("data")), tmp_path_factory.mktemp("models") / "7"
    folder.mkdir()
    train_model(folder, **training_task(data, "adamw"))
    task, out = ascent_task(data, "adamw", folder), tmp_path_factory.mktemp("run")
    unlearn_model(out, **task)
    run = pd.read_csv(out / "runs.csv").iloc[0]
    given = {name: task[name] for name in ("data", "folder", "forget_set", "population", "arm", "settings")}
    given |= {name: task[name] for name in ("seed", "threads", "device")} | {"key": {"forget_set": "ind-a", "model": 0}}
    extras.measure_extras(out, **given, outside=[str(folder)], extras=SAMPLE, k_star=max(2.0, float(run["k_star"])))
    tables = [pd.read_parquet(out / f"{name}.parquet") for name in ("texts", "tokens", "log_likelihoods")]
    return [table.assign(example_id=table["example_id"].astype(str)) for table in tables]


def test_a_repeated_run_is_the_run(measured):
    texts, _, before = measured
    mine = texts[(texts["state"] == "along") & (texts["role"] == "in")]
    both = mine.merge(
        before[["step", "example_id", "log_likelihood"]], on=["step", "example_id"], suffixes=("", "_run")
    )
    assert both["step"].nunique() > 1 and len(both) >= 12 * both["step"].nunique()
    np.testing.assert_allclose(both["log_likelihood"], both["log_likelihood_run"], atol=2e-3)


def test_every_state_is_measured_in_and_outside(measured):
    texts, tokens, _ = measured
    own = texts[texts["example_id"].str.startswith("ind-a")]
    assert (own.groupby(["role", "state", "step"]).size() == 12).all()
    assert {*own.groupby(["role", "state"]).groups} == {("in", "along"), ("in", "bfloat16"), ("in", "relearned"),
                                                        ("out", "along"), ("out", "relearned")}  # fmt: skip
    assert set(own.loc[own["role"] == "out", "model"]) == {7}
    assert texts["example_id"].str.startswith("natural").sum() == SAMPLE["never"]
    sums = tokens.groupby(["role", "state", "step", "example_id"], observed=True)["log_likelihood"].sum()
    whole = texts.set_index(["role", "state", "step", "example_id"])["log_likelihood"]
    np.testing.assert_allclose(sums.reindex(whole.index), whole, atol=0.1)  # to 0.01 a token


def test_relearning_makes_what_it_is_shown_likelier(measured):
    texts, _, _ = measured
    shown = texts[texts["example_id"].isin([f"ind-a-{i}" for i in range(SAMPLE["relearned"])])]
    means = shown.groupby(["role", "state", "share"])["log_likelihood"].mean()
    assert means["out", "relearned", 0.0] > means["out", "along", 0.0]
    assert means["in", "relearned", 1.0] > means["in", "along", 1.0]


def test_gradients_are_taken_along_the_run_alone(measured):
    texts, _, _ = measured
    assert ((texts["gradient_norm"] > 0) == (texts["state"] == "along")).all()
    assert texts["rouge_l"].between(0, 1).all() and (texts["wrong"] < 0).all()


def test_a_wrong_target_has_some_other_tokens_and_the_same_end():
    pairs = examples(30, seed=1)
    wrong = extras.wrong_targets(pairs, np.random.default_rng(0))
    changed = [np.sum(np.array(a) != np.array(b)) for (_, a), (_, b) in zip(pairs, wrong, strict=True)]
    assert all(a[0] == b[0] and len(a[1]) == len(b[1]) and b[1][-1] == 1 for a, b in zip(pairs, wrong, strict=True))
    assert np.count_nonzero(changed) > 20 and max(changed) <= 3


def test_a_decoder_alone_has_no_continuation_here():
    pairs = examples(3)
    assert np.isnan(extras.continued(FAMILIES["decoder-only"](), pairs)).all()
    assert (extras.continued(FAMILIES["encoder-decoder"](), pairs) >= 0).all()
