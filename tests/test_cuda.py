"""On an NVIDIA GPU: the same numbers as on the CPU, up to rounding."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch

from tests.tiny import FAMILIES, LOOP, OPTIMIZERS, ascent_task, encoder_decoder, examples, study_data, training_task
from tools.tasks import run_tasks
from unlearning.measure.ascent import Update, ascend, ascent_mean
from unlearning.measure.ascent_job import unlearn_model
from unlearning.measure.optimizers import load_state, make_optimizer, save_state, update_statistics
from unlearning.measure.scoring import bleu, prepare, score
from unlearning.measure.train_job import train_model
from unlearning.measure.training import fit

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU on this machine")


def optimizer_for(model, name):
    return make_optimizer(model.parameters(), name, OPTIMIZERS[name])


def trained(device, *, name="adamw", family="encoder-decoder", precision="float32"):
    """A model after 20 steps on the device, its optimizer, and the loss at each of them."""
    model = FAMILIES[family]().to(device)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):  # devices draw differently
            module.p = 0.0
    optimizer = optimizer_for(model, name)
    run = fit(model, optimizer, examples(40), np.arange(40), clip_norm=1.0, precision=precision, seed=0, **LOOP)
    return model, optimizer, [epoch.loss for epoch in run]


def unlearned(device, *, name="adamw", family="encoder-decoder", state=None):
    """Log-likelihoods of a forget set before each of 20 updates on the device, (20, n); size of the last update."""
    model = FAMILIES[family]().to(device)
    optimizer = optimizer_for(model, name)
    if state:
        load_state(optimizer, state)
    updates = itertools.repeat(Update(prepare(examples(8, seed=1), model.config, batch_tokens=60)))
    states = list(itertools.islice(ascend(model, optimizer, updates, loss=ascent_mean, clip_norm=1.0), 20))
    return torch.stack([state.log_likelihood for state in states]).numpy(), update_statistics(optimizer)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_log_likelihood_of_every_example_is_that_of_the_cpu(family):
    rows, model = examples(200, longest=30), FAMILIES[family]()
    here, there = score(model, rows), score(model.to("cuda"), rows)
    assert there.log_likelihood == pytest.approx(here.log_likelihood, rel=1e-4)
    assert there.n_correct.sum() == pytest.approx(here.n_correct.sum(), abs=2)  # a tie may be broken otherwise


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_losses_of_twenty_training_steps_are_those_of_the_cpu(name, family):
    here, there = (trained(device, name=name, family=family)[2] for device in ("cpu", "cuda"))
    assert there == pytest.approx(here, rel=1e-4)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_twenty_ascent_steps_are_those_of_the_cpu(name, family):
    (here, size), (there, same) = (unlearned(device, name=name, family=family) for device in ("cpu", "cuda"))
    assert there == pytest.approx(here, rel=1e-4)
    assert same == pytest.approx(size, rel=1e-2)


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
@pytest.mark.parametrize("saved_on", ["cpu", "cuda"])
def test_an_optimizers_state_saved_on_one_device_goes_on_on_the_other(name, saved_on, tmp_path):
    path = tmp_path / "optimizer.safetensors"
    save_state(trained(saved_on, name=name)[1], path)
    (here, size), (there, same) = (unlearned(device, name=name, state=path) for device in ("cpu", "cuda"))
    assert there == pytest.approx(here, rel=1e-4)
    assert same == pytest.approx(size, rel=1e-2)
    assert here[-1] != pytest.approx(unlearned("cpu", name=name)[0][-1], rel=1e-3)  # a fresh state goes elsewhere


def test_bfloat16_leaves_float32_weights_and_nearly_the_same_loss():
    model, _, rounded = trained("cuda", precision="bfloat16")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert rounded[-1] == pytest.approx(trained("cuda")[2][-1], rel=0.02)


def test_with_deterministic_algorithms_two_trainings_and_ascents_give_the_same_bytes(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (trained("cuda")[0].state_dict() for _ in range(2))
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert (unlearned("cuda")[0] == unlearned("cuda")[0]).all()
    finally:
        torch.use_deterministic_algorithms(False)


# The tasks of the stages


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return study_data(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_a_model_is_trained_and_unlearned_as_by_the_stages_with_the_tables_of_the_cpu(optimizer, data, tmp_path):
    scratch, ways = tmp_path / "scratch", ("cpu", "cuda")
    trainings = [training_task(data, optimizer, device=device) for device in ways]
    models = [run_tasks(train_model, [task], scratch=scratch, key="")[0] for task in trainings]
    ascents = [ascent_task(data, optimizer, models[0], device=device) for device in ways]  # from one and the same model
    runs = [run_tasks(unlearn_model, [task], scratch=scratch, key="")[0] for task in ascents]
    for folders in (models, runs):
        here, there = (pd.read_parquet(folder / "log_likelihoods.parquet") for folder in folders)
        assert there["example_id"].tolist() == here["example_id"].tolist()
        assert there["log_likelihood"].to_numpy() == pytest.approx(here["log_likelihood"].to_numpy(), rel=1e-3)
    here, there = (pd.read_csv(folder / "runs.csv").iloc[0] for folder in runs)
    assert here["status"] == there["status"] == "reached"
    assert there["k_star"] == pytest.approx(here["k_star"], rel=1e-2)


def test_translations_are_those_of_the_cpu():
    class Words:
        eos_token_id, pad_token_id = 1, 0

        def decode(self, ids):
            return " ".join(map(str, ids))

    rows, model = examples(30), encoder_decoder()
    here = bleu(model, Words(), rows, max_new_tokens=20)
    assert math.isfinite(here) and bleu(model.to("cuda"), Words(), rows, max_new_tokens=20) == pytest.approx(here)
