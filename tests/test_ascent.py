"""Ascent, the optimizers' state, and what is measured along a trajectory."""

import itertools
from typing import NamedTuple

import numpy as np
import pytest
import torch

from tests.tiny import FAMILIES, encoder_decoder, examples
from unlearning.data.groups import Group
from unlearning.measure import ascent
from unlearning.measure.ascent import LOSSES, Update, ascend
from unlearning.measure.models import collate, token_log_likelihoods
from unlearning.measure.optimizers import arm_optimizer, load_state, make_optimizer, save_state, update_statistics
from unlearning.measure.scoring import prepare, score, score_tokens
from unlearning.measure.trajectory import Trajectory, ascent_updates, follow

METHODS = {
    "adamw": {"optimizer": "adamw", "learning_rate": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0},
    "sgd": {"optimizer": "sgd", "learning_rate": 1e-1, "momentum": 0.0, "weight_decay": 0.0},
    "adafactor": {"optimizer": "adafactor", "learning_rate": 1e-2, "clip_threshold": 1.0, "decay_rate": -0.8},
}
SETTINGS = {"k_max": 12, "beyond": 1.5, "follow_every": 3, "batch": "whole"}


def optimizer_for(model, name, **changes):
    settings = {**METHODS[name], **changes}
    return make_optimizer(model.parameters(), settings["optimizer"], settings)


def states(model, optimizer, rows, n, *, reduction="sum", clip_norm=None):
    updates = itertools.repeat(Update(prepare(rows, model.config)))
    return list(itertools.islice(ascend(model, optimizer, updates, loss=LOSSES[reduction], clip_norm=clip_norm), n))


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("name", sorted(METHODS))
def test_ascent_lowers_the_likelihood_of_the_forget_set(family, name):
    model = FAMILIES[family]()
    run = states(model, optimizer_for(model, name), examples(8), 6)
    assert [s.step for s in run] == list(range(6))
    assert float(run[-1].log_likelihood.sum()) < float(run[0].log_likelihood.sum())


def test_the_first_state_is_the_original_model():
    model, rows = encoder_decoder(), examples(8)
    before = score(model, rows)
    first = states(model, optimizer_for(model, "adamw"), rows, 1)[0]
    assert first.log_likelihood.numpy() == pytest.approx(before.log_likelihood, abs=1e-4)
    assert (first.n_correct.numpy() == before.n_correct).all()


def test_one_plain_step_equals_gradient_ascent_on_the_negative_log_likelihood_by_hand():
    model, rows = encoder_decoder(), examples(5)
    batch = collate(rows, model.config)
    loss = -token_log_likelihoods(model, batch)[0].mean()
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    expected = [p.detach() + 0.1 * g for p, g in zip(model.parameters(), gradients, strict=True)]
    states(model, optimizer_for(model, "sgd"), rows, 2, reduction="mean")
    for p, e in zip(model.parameters(), expected, strict=True):
        assert torch.allclose(p, e, atol=1e-6)


def test_sum_and_mean_differ_by_the_number_of_target_tokens():
    log_likelihood, n_tokens = torch.tensor([-3.0, -5.0]), np.array([2, 6])
    assert float(ascent.ascent_sum(log_likelihood, n_tokens)) == -8.0
    assert float(ascent.ascent_mean(log_likelihood, n_tokens)) == -1.0


class TwoParameters(torch.nn.Module):
    """A model by hand: the log-likelihood of an example with features (u, v) is −(a − u)² − (b − v)²."""

    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Parameter(torch.tensor(1.0)), torch.nn.Parameter(torch.tensor(2.0))

    def log_likelihoods(self, examples):
        u, v = examples.features.T
        return -((self.a - u) ** 2) - (self.b - v) ** 2, torch.zeros(len(u))


class Features(NamedTuple):
    """Examples of that model, in the place of prepared text."""

    features: torch.Tensor
    n_tokens: np.ndarray


FORGET = Features(torch.tensor([[0.0, 2.0], [1.0, 0.0]]), np.array([1, 1]))
RETAIN = Features(torch.tensor([[3.0, 2.0]]), np.array([2]))


def by_two_parameters(monkeypatch, updates, loss, n):
    """(a, b) and the forget set's log-likelihoods at each of n states, plain steps of length 0.1."""
    monkeypatch.setattr(ascent, "log_likelihoods", TwoParameters.log_likelihoods)
    model = TwoParameters()
    run = ascend(model, torch.optim.SGD(model.parameters(), lr=0.1), itertools.repeat(updates), loss=loss)
    return [(model.a.item(), model.b.item(), s.log_likelihood.tolist()) for s in itertools.islice(run, n)]


def test_ascent_takes_the_steps_computed_by_hand(monkeypatch):
    # Σℓ over (0, 2) and (1, 0): dΣℓ/da = −2a − 2(a − 1), dΣℓ/db = −2(b − 2) − 2b; a step goes against it
    (a, b, values), second, third = by_two_parameters(monkeypatch, Update(FORGET), ascent.ascent_sum, 3)
    assert (a, b, values) == (1.0, 2.0, [-1.0, -4.0])
    assert second[:2] == pytest.approx((1.0 + 0.1 * 2, 2.0 + 0.1 * 4))
    assert third[:2] == pytest.approx((1.2 + 0.1 * (2.4 + 0.4), 2.4 + 0.1 * (0.8 + 4.8)))


def gradient_difference(forget, n_forget, retain, n_retain):
    """GradDiff (Liu et al. 2022): up the forget batch's loss, down the retain batch's, each per target token."""
    return ascent.ascent_mean(forget, n_forget) - ascent.ascent_mean(retain, n_retain)


def test_a_method_with_retain_batches_fits_the_same_loop(monkeypatch):
    # half of the above, and for (3, 2) with two tokens: −dℓ/2 = (a − 3), (b − 2)
    first, second, third = by_two_parameters(monkeypatch, Update(FORGET, RETAIN), gradient_difference, 3)
    assert first[:2] == (1.0, 2.0)
    assert second[:2] == pytest.approx((1.0 + 0.1 * (1 - (1 - 3)), 2.0 + 0.1 * (2 - 0)))
    a, b = second[:2]
    assert third[:2] == pytest.approx((a + 0.1 * (2 * a - 1 - (a - 3)), b + 0.1 * (2 * b - 2 - (b - 2))))


def test_plain_ascent_makes_one_forward_pass_an_update(monkeypatch):
    passes = []
    real = ascent.log_likelihoods
    monkeypatch.setattr(ascent, "log_likelihoods", lambda *given: passes.append(given) or real(*given))
    model = encoder_decoder()
    states(model, optimizer_for(model, "sgd"), examples(4), 5)
    assert len(passes) == 5


def test_an_arm_steps_at_its_learning_rate_times_its_rate_and_goes_on_from_a_restored_state(tmp_path):
    model, state = trained_adafactor(tmp_path)
    arm = METHODS["adafactor"] | {"restored": True, "freeze_second_moment": False}
    plain = arm_optimizer(model.parameters(), METHODS["adafactor"], state=tmp_path / "none")
    half = arm_optimizer(model.parameters(), arm | {"rate": 0.5}, state=state)
    assert (plain.param_groups[0]["lr"], half.param_groups[0]["lr"]) == (1e-2, 5e-3)
    assert not plain.state and {entries["step"] for entries in half.state.values()} == {20}


def test_clipping_bounds_the_length_of_a_plain_step():
    model = encoder_decoder()
    before = [p.detach().clone() for p in model.parameters()]
    states(model, optimizer_for(model, "sgd", learning_rate=0.5), examples(8), 2, clip_norm=0.01)
    moved = sum(float((p - b).square().sum()) for p, b in zip(model.parameters(), before, strict=True)) ** 0.5
    assert moved == pytest.approx(0.5 * 0.01, rel=1e-3)


def trained_adafactor(tmp_path):
    """A model after some summed-loss Adafactor training steps, and its saved optimizer state."""
    model = encoder_decoder()
    optimizer = optimizer_for(model, "adafactor")
    for seed in range(20):
        optimizer.zero_grad()
        (-token_log_likelihoods(model, collate(examples(20, seed=seed), model.config))[0].sum()).backward()
        optimizer.step()
    save_state(optimizer, tmp_path / "state.safetensors")
    return model, tmp_path / "state.safetensors"


def first_update(model, state, **kw):
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = optimizer_for(model, "adafactor")
    if state is not None:
        load_state(optimizer, state, **kw)
    states(model, optimizer, examples(4, seed=99), 2)
    update = torch.cat([(p.detach() - weights[name]).flatten() for name, p in model.named_parameters()])
    statistics = update_statistics(optimizer)
    model.load_state_dict(weights)
    return update, statistics


def test_restored_and_fresh_second_moments_give_different_first_updates(tmp_path):
    model, state = trained_adafactor(tmp_path)
    restored, (size, clipped) = first_update(model, state)
    fresh, (fresh_size, _) = first_update(model, None)
    assert not torch.allclose(restored, fresh, rtol=0.05)
    assert size < 0.9 * fresh_size  # a small set's gradient is small beside the training run's moments
    assert clipped < 1.0


def test_frozen_second_moments_do_not_move(tmp_path):
    model, state = trained_adafactor(tmp_path)
    optimizer = optimizer_for(model, "adafactor")
    load_state(optimizer, state, freeze=True)
    before = {k: v["exp_avg_sq_row"].clone() for k, v in optimizer.state.items() if "exp_avg_sq_row" in v}
    states(model, optimizer, examples(4), 4)
    assert before and all(torch.allclose(optimizer.state[k]["exp_avg_sq_row"], v) for k, v in before.items())


def test_a_saved_adafactor_state_continues_its_step_count(tmp_path):
    model, state = trained_adafactor(tmp_path)
    optimizer = optimizer_for(model, "adafactor")
    load_state(optimizer, state)
    states(model, optimizer, examples(4), 3)
    assert {entries["step"] for entries in optimizer.state.values()} == {22}


def test_update_statistics_are_those_of_the_update_that_adafactor_took():
    rate, model = 1e-3, encoder_decoder()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = optimizer_for(model, "adafactor", learning_rate=rate, clip_threshold=1e9)  # so that the step is whole
    states(model, optimizer, examples(4, seed=99), 2)
    took = [_rms(p.detach() - b) / (rate * max(1e-3, _rms(b))) for p, b in zip(model.parameters(), before, strict=True)]
    size, clipped = update_statistics(optimizer)
    assert size == pytest.approx(np.mean(took), rel=1e-3) and clipped == 0
    threshold = float(np.median(took))
    optimizer.param_groups[0]["clip_threshold"] = threshold
    assert update_statistics(optimizer)[1] == np.mean([r > threshold for r in took])


def _rms(values):
    return float(values.square().mean().sqrt())


def group(name, n, seed):
    return Group([f"{name}-{i}" for i in range(n)], examples(n, seed=seed))


class Tokenizer:
    """Just enough of a tokenizer to write ids as words."""

    eos_token_id, pad_token_id = 1, 0

    def decode(self, ids):
        return " ".join(map(str, ids))


def probes():
    return Trajectory(
        forget=group("f", 6, 1),
        heldout=group("h", 10, 2),
        retain=group("r", 5, 3),
        population=group("p", 8, 4),
        retained=group("o", 4, 5),
        heldout_fixed=6,
        followed=3,
        bleu_sentences=4,
        bleu_tokens=64,
        tokenizer=Tokenizer(),
    )


def followed(*, reference, steps=None, name="adamw", **changes):
    torch.manual_seed(0)
    model = encoder_decoder()
    arm, batch = {**METHODS[name], "loss": "mean", **changes}, changes.pop("batch", "whole")
    optimizer = arm_optimizer(model.parameters(), arm, state="none")
    options = {"arm": arm, "settings": SETTINGS | {"batch": batch}, "steps": steps, "seed": 0}
    run = probes()
    follow(model, optimizer, run, reference=reference, **options)
    return run


def original():
    return score(encoder_decoder(), probes().forget.encoded).log_likelihood


def test_a_run_that_reaches_its_reference_records_both_sides_of_k_star_and_goes_on_to_twice_it():
    result = followed(reference=original() - 0.05, learning_rate=2e-3)
    facts = result.facts
    assert facts["status"] == "reached"
    assert facts["last_step"] == max(int(np.ceil(facts["k_star"])) + 1, round(2 * facts["k_star"]))


def scored(result, letter):
    """Step -> how many examples of a group are scored there."""
    return {step: len(group.ids) for step, group, _ in result.scores if group.ids[0].startswith(letter)}


@pytest.mark.parametrize(("rate", "gap", "k_star", "half"), [(1e-4, 0.4, 6.1, {3}), (3e-5, 0.2, 10.3, {3, 6})])
def test_what_is_scored_and_at_which_step(rate, gap, k_star, half):
    result = followed(reference=original() - gap, learning_rate=rate)
    assert result.facts["k_star"] == pytest.approx(k_star, abs=0.1)
    below, above, last = int(k_star), int(k_star) + 1, result.facts["last_step"]
    assert list(scored(result, "f")) == list(range(last + 1))
    assert scored(result, "h") == dict.fromkeys(half | {below, above}, 10)  # around k*/2 and k*
    along = set(range(3, int(1.5 * k_star) + 1, 3))
    assert scored(result, "p") == dict.fromkeys(along, 3) | {below: 8, above: 8}
    splits = {split: {step for step, name in result.splits if name == split} for _, split in result.splits}
    assert splits["retain"] == splits["retained"] == {below, above}
    assert splits["heldout"] == set(scored(result, "h"))
    assert splits["heldout_fixed"] == along | splits["heldout"] | {last}
    assert splits["heldout_bleu"] == {round(k_star)}
    assert set(result.tokens) == {round(k_star), last}


def test_a_placebo_is_scored_on_the_set_and_on_fixed_sentences_alone():
    result = followed(reference=original() - 0.05, steps=7)
    assert list(scored(result, "f")) == list(range(8)) and not scored(result, "p") and not scored(result, "h")
    assert set(result.splits) == {(3, "heldout_fixed"), (6, "heldout_fixed"), (7, "heldout_fixed")}
    assert not result.tokens and not len(result.by_token({"model": 0}))


def test_states_before_k_star_are_scored_as_they_were():
    result = followed(reference=original() - 0.4, learning_rate=1e-4)
    again = encoder_decoder()
    optimizer = optimizer_for(again, "adamw", learning_rate=1e-4)
    expected = {}
    updates = ascent_updates(probes().forget, again, "whole", seed=0)
    for state in ascend(again, optimizer, updates, loss=LOSSES["mean"]):
        expected[state.step] = score(again, probes().heldout.encoded).log_likelihood
        if state.step == result.facts["last_step"]:
            break
    found = {step: values.log_likelihood for step, group, values in result.scores if group.ids[0].startswith("h")}
    for step, values in found.items():
        assert values == pytest.approx(expected[step], abs=1e-4)
        fixed, _ = result.splits[step, "heldout_fixed"]
        assert fixed.log_likelihood == pytest.approx(expected[step][:6], abs=1e-4)


def test_a_set_that_starts_below_its_reference_is_scored_where_it_starts():
    result = followed(reference=original() + 1.0)
    assert (result.facts["status"], result.facts["k_star"], result.facts["last_step"]) == ("reached", 0.0, 1)
    assert scored(result, "h") == {0: 10} and set(result.tokens) == {0, 1}


def test_tokens_of_the_set_add_up_to_its_log_likelihoods():
    result = followed(reference=original() - 0.4, learning_rate=1e-4)
    table = result.by_token({"model": 0})
    sums = table.groupby(["step", "example_id"])["log_likelihood"].sum()
    rows = result.log_likelihoods({"model": 0}).set_index(["step", "example_id"])
    assert sums.to_numpy() == pytest.approx(rows["log_likelihood"].loc[sums.index].to_numpy(), abs=1e-4)
    right = table.groupby(["step", "example_id"])["correct"].sum()
    assert (right == rows["n_correct"].loc[right.index]).all()


def test_moments_of_a_tokens_distribution_are_those_of_its_logits():
    model, rows = encoder_decoder(), examples(5)
    found = score_tokens(model, prepare(rows, model.config))
    batch = collate(rows, model.config)
    log_p = model(**batch.inputs).logits[batch.predicts].float().log_softmax(-1)
    p = log_p.exp()
    mean = (p * log_p).sum(-1)
    sd = ((p * log_p**2).sum(-1) - mean**2).sqrt()
    own = log_p[torch.arange(len(batch.targets)), batch.targets]
    expected = torch.stack([own, (own >= log_p.amax(-1)).float(), mean, sd], dim=1).detach().numpy()
    assert found == pytest.approx(expected, abs=1e-4)


def test_a_run_that_does_not_get_there_is_censored_at_k_max():
    facts = followed(reference=original() - 1e6).facts
    assert facts["status"] == "censored"
    assert facts["last_step"] == SETTINGS["k_max"]
    assert np.isnan(facts["k_star"])


def test_a_diverging_run_ends_with_its_step_and_no_poisoned_rows():
    result = followed(reference=original() - 1e6, name="sgd", learning_rate=1e30)
    assert result.facts["status"] == "diverged"
    assert result.facts["last_step"] < SETTINGS["k_max"]
    assert all(np.isfinite(s.log_likelihood).all() for step, g, s in result.scores if g.ids[0].startswith("f"))


def test_a_placebo_takes_its_number_of_steps_and_has_no_k_star():
    facts = followed(reference=original() - 0.05, steps=7).facts
    assert (facts["status"], facts["last_step"]) == ("placebo", 7)
    assert np.isnan(facts["k_star"])


def test_no_example_is_recorded_twice_at_a_step():
    result = followed(reference=original() - 0.05, learning_rate=2e-3)
    table = result.log_likelihoods({"model": 0})
    assert not table.duplicated(["step", "example_id"]).any()
    assert not result.performance({"model": 0}).duplicated(["step", "split"]).any()


def test_the_first_update_of_a_small_step_changes_held_out_loss_as_predicted():
    facts = followed(reference=original() - 1e6, name="sgd", learning_rate=1e-3).facts
    assert facts["observed_change"] == pytest.approx(facts["predicted_change"], rel=0.1, abs=1e-5)
    assert -1 <= facts["cosine"] <= 1


def test_minibatches_pass_over_the_whole_forget_set():
    model = encoder_decoder()
    forget = group("f", 6, 1)
    updates = ascent_updates(forget, model, 4, seed=0)
    sizes = [len(next(updates).forget.n_tokens) for _ in range(4)]
    assert sizes == [4, 2, 4, 2]


def test_in_minibatches_the_whole_forget_set_is_scored_at_each_step_all_the_same():
    result = followed(reference=original() - 1e6, batch=4)
    assert {len(group.ids) for _, group, _ in result.scores if group.ids[0].startswith("f")} == {6}
    assert result.scores[0][2].log_likelihood == pytest.approx(original(), abs=1e-4)


def test_the_learning_rate_that_a_run_records_is_the_one_it_took():
    facts = followed(reference=original() - 1e6, rate=2.0).facts
    assert facts["learning_rate"] == 2 * METHODS["adamw"]["learning_rate"]


def test_twenty_steps_in_length_sorted_parts_equal_twenty_in_one_padded_batch():
    rows = examples(12, seed=7)
    losses = []
    for budget in (30, 10_000):
        model = encoder_decoder()
        updates = itertools.repeat(Update(prepare(rows, model.config, batch_tokens=budget)))
        run = itertools.islice(ascend(model, optimizer_for(model, "adamw"), updates, loss=ascent.ascent_mean), 20)
        losses.append([float(s.log_likelihood.sum()) for s in run])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
