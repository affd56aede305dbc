"""Encoding and likelihoods of both model families."""

from collections import Counter

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tests.tiny import FAMILIES, decoder_only, encoder_decoder, examples
from unlearning.errors import StudyError
from unlearning.measure import models
from unlearning.measure.models import (
    check_likelihoods,
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
    words = model.config.vocab_size
    model.get_output_embeddings().register_forward_hook(
        lambda module, given, logits: seen.append(logits.numel() // words)
    )
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


SPECIAL = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1, "decoder_start_token_id": 0}
MAPPINGS = {
    AutoModelForCausalLM: modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    AutoModelForSeq2SeqLM: modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
}
NO_SIZE = (
    "_id",
    "window",
    "topk",
    "top_k",
    "period",
    "offset",
)  # how settings are called that hold a number, but no size
TINY = {  # what a setting is called: its value in a tiny model
    "per_tok": 2,
    "vocab": 50,
    "position": 64,
    "n_ctx": 64,
    "head_dim": 8,
    "d_kv": 8,
    "headdim": 8,
    "rotary_dim": 4,
    "heads": 2,
    "n_head": 2,
    "layer": 2,
    "expert": 4,
    "ff": 32,
    "intermediate": 32,
}


def small(setting, value):
    """A number of a configuration for a tiny model; None leaves it as it is."""
    if setting == "head_dim" and value is None:
        return TINY[setting]
    if isinstance(value, bool) or not isinstance(value, int) or any(part in setting for part in NO_SIZE):
        return None
    tiny = next((size for part, size in TINY.items() if part in setting), 16 if value >= 64 else value)
    return tiny if tiny < value else None


def tiny_model(kind, auto):
    """A random model of an architecture, large in its logits; raises where it is not to be had tiny."""
    made = CONFIG_MAPPING[kind]
    if made.sub_configs:
        raise ValueError("made of several models")
    sizes = {name: size for name, value in made().to_dict().items() if (size := small(name, value)) is not None}
    config = made(**sizes, **SPECIAL)
    with torch.device("meta"):
        numbers = sum(p.numel() for p in auto.from_config(config).parameters())
    if numbers > 1e6:
        raise ValueError(f"{numbers} parameters")
    torch.manual_seed(0)
    model = auto.from_config(config).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.normal_(std=2.0)  # so that a cap or a scale is felt
    return model


@torch.no_grad()
def own_log_likelihood(model, example):
    """Log-likelihood of one example alone, from the model's own full logits."""
    batch = collate([example], model.config)
    log_p = model(**batch.inputs, use_cache=False).logits[batch.predicts].float().log_softmax(-1)
    return float(log_p.gather(-1, batch.targets[:, None]).sum())


def verdict(kind, auto, rows):
    """What becomes of an architecture, with its reason, or the largest difference in nats per token."""
    try:
        model = tiny_model(kind, auto)
        own = [own_log_likelihood(model, row) for row in rows]
    except Exception as error:  # a tiny configuration may be none: every architecture has rules of its own
        return "not to be had tiny", f"{type(error).__name__}: {error}".splitlines()[0]
    try:
        check_likelihoods(model, kind)
    except StudyError as error:
        return "refused", str(error)
    found = score(model, rows)
    return "taken", max(abs(found.log_likelihood - own) / found.n_tokens)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # what is tiny is slower in two
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.long
def test_every_architecture_of_the_library_is_scored_by_its_own_logits_or_refused(one_thread):
    rows, found = examples(5), {}
    for auto, kinds in MAPPINGS.items():
        found |= {(kind, auto.__name__): verdict(kind, auto, rows) for kind in kinds}
    print(*(f"{kind}: {word}, {why}" for (kind, _), (word, why) in found.items()), sep="\n")
    print(counts := Counter(word for word, _ in found.values()))
    assert {key: nats for key, (word, nats) in found.items() if word == "taken" and not nats < 1e-4} == {}
    words = {kind: word for (kind, _), (word, _) in found.items()}
    assert {words[kind] for kind in ("t5", "mt5", "gpt2", "gpt_neox", "llama", "opt", "qwen3")} == {"taken"}
    assert {words[kind] for kind in ("gemma2", "cohere", "bert")} == {"refused"}  # a cap, a scale, no order
    assert counts["taken"] > 120


def test_a_bias_that_is_added_to_logits_is_found_out():
    model = tiny_model("marian", AutoModelForSeq2SeqLM)
    check_likelihoods(model, "mine")
    model.final_logits_bias.normal_()
    with pytest.raises(StudyError, match="mine: likelihoods of the family 'marian' differ from"):
        check_likelihoods(model, "mine")
