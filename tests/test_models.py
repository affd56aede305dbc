"""Encoding and likelihoods of both model families."""

import pytest
import torch

from tests.tiny import FAMILIES, decoder_only, encoder_decoder, examples
from unlearning.measure import models
from unlearning.measure.models import (
    collate,
    load_model,
    save_model,
    sum_by_example,
    target_states,
    token_log_likelihoods,
)
from unlearning.measure.scoring import log_likelihoods, prepare, score


@pytest.fixture(params=sorted(FAMILIES))
def model(request):
    return FAMILIES[request.param]()


@torch.no_grad()
def by_hand(model, example) -> float:
    """Log-likelihood of one example from the model's own full logits, token by token."""
    source, target = example
    if model.config.is_encoder_decoder:
        start = torch.tensor([[0, *target[:-1]]])
        logits = model(input_ids=torch.tensor([source]), decoder_input_ids=start).logits[0]
    else:
        logits = model(input_ids=torch.tensor([(source or [1]) + target[:-1]])).logits[0, -len(target) :]
    return sum(float(logits[i].log_softmax(-1)[token]) for i, token in enumerate(target))


def test_log_likelihood_equals_the_models_own_full_logits_token_by_token(model):
    rows = examples(5)
    expected = [by_hand(model, row) for row in rows]
    assert score(model, rows).log_likelihood == pytest.approx(expected, abs=1e-4)


def test_batch_composition_and_padding_change_nothing(model):
    rows = examples(20, seed=3)
    together = score(model, rows, batch_tokens=10_000)
    alone = [score(model, [row]).log_likelihood[0] for row in rows]
    assert together.log_likelihood == pytest.approx(alone, abs=1e-4)


def test_scores_keep_the_order_of_the_examples_whatever_the_batch_budget(model):
    rows = examples(17, seed=4)
    wide, narrow = score(model, rows, batch_tokens=10_000), score(model, rows, batch_tokens=30)
    assert wide.log_likelihood == pytest.approx(narrow.log_likelihood, abs=1e-4)
    assert (wide.n_correct == narrow.n_correct).all()
    assert (wide.n_tokens == [len(target) for _, target in rows]).all()


def test_logits_exist_at_target_positions_only_and_in_pieces(model, monkeypatch):
    monkeypatch.setattr(models, "LOGITS", 4 * model.config.vocab_size)
    rows = examples(6)
    batch = collate(rows, model.config)
    n = sum(len(target) for _, target in rows)
    seen = []
    model.get_output_embeddings().register_forward_hook(lambda module, given, logits: seen.append(logits.shape[0]))
    values, _ = token_log_likelihoods(model, batch)
    assert sum(seen) == len(values) == n
    assert max(seen) == 4
    assert target_states(model, batch).shape[0] == n
    assert batch.targets.tolist() == [token for _, target in rows for token in target]


def test_a_source_token_is_never_scored_but_always_matters(model):
    (source, target), *_ = examples(1)
    other = [2 if source[0] != 2 else 3, *source[1:]]
    a, b = score(model, [(source, target), (other, target)]).log_likelihood
    assert a != b
    assert score(model, [(source, target)]).n_tokens[0] == len(target)


def test_a_decoder_only_model_scores_a_text_without_a_source():
    model = decoder_only()
    (_, target), *_ = examples(1)
    assert score(model, [([], target)]).log_likelihood[0] == pytest.approx(by_hand(model, ([], target)), abs=1e-4)


def test_likelihoods_of_all_one_token_targets_sum_to_one(model):
    source = [5, 6, 1]
    rows = [(source, [token]) for token in range(model.config.vocab_size)]
    total = torch.tensor(score(model, rows).log_likelihood).exp().sum()
    assert float(total) == pytest.approx(1.0, abs=1e-4)


def test_a_saved_model_comes_back_from_safetensors_with_the_same_scores(model, tmp_path):
    save_model(model, tmp_path)
    rows = examples(4)
    assert list(tmp_path.glob("*.safetensors")) and not list(tmp_path.glob("*.bin"))
    assert (score(load_model(tmp_path), rows).log_likelihood == score(model, rows).log_likelihood).all()


def test_gradients_reach_every_parameter_that_scoring_uses(model):
    batch = collate(examples(3), model.config)
    token_log_likelihoods(model, batch)[0].sum().backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert missing == []


def test_example_sums_add_up_to_the_token_sum():
    model = encoder_decoder()
    batch = collate(examples(7), model.config)
    tokens, _ = token_log_likelihoods(model, batch)
    assert float(sum_by_example(tokens, batch).sum()) == pytest.approx(float(tokens.sum()), rel=1e-5)


def test_pieces_of_the_vocabulary_projection_change_nothing(model, monkeypatch):
    batch = collate(examples(9), model.config)
    whole, best = token_log_likelihoods(model, batch)
    monkeypatch.setattr(models, "LOGITS", 5 * model.config.vocab_size)
    pieces, same = token_log_likelihoods(model, batch)
    assert torch.allclose(whole, pieces, atol=1e-6)
    assert (best == same).all()


def test_the_most_likely_tokens_are_those_of_an_argmax_over_full_logits(model):
    rows = examples(30, seed=5)
    rows = [(source, [int(t) for t in best_targets(model, source, target)]) for source, target in rows]
    scores = score(model, rows)
    assert scores.n_correct.sum() > 0
    for (source, target), n in zip(rows, scores.n_correct, strict=True):
        assert n == sum(a == b for a, b in zip(best_targets(model, source, target), target, strict=True))


def best_targets(model, source, target):
    """The most likely token at each position, from the model's own full logits."""
    if model.config.is_encoder_decoder:
        start = torch.tensor([[0, *target[:-1]]])
        logits = model(input_ids=torch.tensor([source]), decoder_input_ids=start).logits[0]
    else:
        logits = model(input_ids=torch.tensor([source + target[:-1]])).logits[0, -len(target) :]
    return logits.argmax(-1).tolist()


def test_prepared_examples_keep_their_order_and_give_the_gradients_of_one_padded_batch(model):
    rows = examples(20, seed=6)
    ready = prepare(rows, model.config, batch_tokens=40)
    assert len(ready.batches) > 2
    assert ready.n_tokens.tolist() == [len(target) for _, target in rows]
    parameters = list(model.parameters())
    values, _ = log_likelihoods(model, ready)
    in_parts = torch.autograd.grad(values.sum(), parameters)
    batch = collate(rows, model.config)
    together = sum_by_example(token_log_likelihoods(model, batch)[0], batch)
    assert torch.allclose(values, together, atol=1e-4)
    for a, b in zip(in_parts, torch.autograd.grad(together.sum(), parameters), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)
