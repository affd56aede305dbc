"""Batches, order and the training loop."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests import copies
from tests.tiny import encoder_decoder, examples
from unlearning.measure.models import load_model
from unlearning.measure.optimizers import make_optimizer
from unlearning.measure.scoring import example_lengths, score
from unlearning.measure.training import epoch_batches, fit, learning_rate_factor

ADAMW = {"learning_rate": 3e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0}
LOOP = {
    "epochs": 2,
    "batch_tokens": 100,
    "loss": "mean",
    "warmup_steps": 2,
    "schedule": "linear",
    "clip_norm": 1.0,
    "precision": "float32",
}


def train(rows, held, *, seed=0, **changes):
    model = encoder_decoder(dropout=0.1)
    optimizer = make_optimizer(model.parameters(), "adamw", ADAMW)
    epochs = list(fit(model, optimizer, rows, held, seed=seed, **{**LOOP, **changes}))
    return model, epochs


def test_every_row_is_in_exactly_one_batch_of_an_epoch_and_no_batch_exceeds_the_budget():
    lengths = example_lengths(examples(200))
    rows = np.arange(0, 200, 2)
    batches = epoch_batches(rows, lengths, budget=120, seed=1, epoch=0)
    assert sorted(np.concatenate(batches)) == list(rows)
    assert all(len(b) * lengths[b].max(axis=0).sum() <= 120 for b in batches if len(b) > 1)


def test_leaving_a_set_out_leaves_other_rows_near_their_place_not_at_it():
    lengths = np.full((300, 2), 5)
    everything, without = np.arange(300), np.arange(200)
    order = [np.concatenate(epoch_batches(rows, lengths, budget=10, seed=7, epoch=2)) for rows in (everything, without)]
    ranks = {row: i for i, row in enumerate(order[0])}
    moved = np.abs(np.diff([ranks[row] for row in order[1]]))
    assert np.median(moved) < 60  # a random order would have a median of about 90


def test_another_seed_or_epoch_gives_another_order():
    lengths = example_lengths(examples(60))

    def order(seed, epoch):
        return np.concatenate(epoch_batches(np.arange(60), lengths, budget=80, seed=seed, epoch=epoch)).tolist()

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(2, 0)
    assert order(1, 0) != order(1, 1)


def test_training_lowers_the_loss_and_raises_the_likelihood_of_what_is_trained_on():
    rows = examples(40)
    before = score(encoder_decoder(), rows).per_token
    model, epochs = train(rows, np.arange(40), epochs=8)
    assert epochs[-1].loss < epochs[0].loss
    assert score(model, rows).per_token > before + 0.1


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not():
    rows = examples(30)
    a, b, c = (train(rows, np.arange(30), seed=s)[0].state_dict() for s in (1, 1, 2))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)


def test_rows_that_a_model_does_not_hold_do_not_influence_it():
    rows, changed = examples(30), examples(30)
    changed[-1] = (changed[-1][0], changed[-1][1][::-1])
    a, b = (train(r, np.arange(29))[0].state_dict() for r in (rows, changed))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("step", "factor"), [(0, 0.5), (1, 1.0), (2, 1.0), (6, 0.5), (9, 0.125)])
def test_the_learning_rate_warms_up_and_falls_linearly(step, factor):
    assert learning_rate_factor(step, warmup=2, total=10, schedule="linear") == pytest.approx(factor)


def test_a_constant_schedule_stays_at_its_peak_after_warm_up():
    assert learning_rate_factor(9, warmup=2, total=10, schedule="constant") == 1.0


def test_lower_precision_of_the_forward_pass_leaves_fp32_weights_and_nearly_the_same_loss():
    rows = examples(30)
    (full, exact), (low, rounded) = (train(rows, np.arange(30), precision=p) for p in ("float32", "bfloat16"))
    assert {p.dtype for p in low.parameters()} == {torch.float32}
    assert rounded[-1].loss == pytest.approx(exact[-1].loss, rel=0.02)
    assert any(not torch.equal(a, b) for a, b in zip(full.parameters(), low.parameters(), strict=True))


def test_two_processes_of_accelerate_train_the_model_that_one_does(tmp_path):
    for processes in (1, 2):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command += ["-m", "tests.accelerated", str(tmp_path / str(processes))]
        env = copies.environment(copies.ROOT) | {"PYTHONPATH": f"{copies.ROOT}{os.pathsep}{copies.ROOT / 'src'}"}
        ran = subprocess.run(command, cwd=copies.ROOT, env=env, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr[-3000:]
    for loss in ("mean", "sum"):
        folders = [tmp_path / n / loss for n in ("1", "2")]
        one, two = (json.loads((folder / "losses.json").read_text()) for folder in folders)
        assert (one["processes"], two["processes"]) == (1, 2)
        assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
        alone, together = (load_model(folder).state_dict() for folder in folders)
        assert all(torch.allclose(value, together[name], atol=1e-4) for name, value in alone.items())
