"""A pre-trained model and its tokenizer in place of those that the study trains."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

from tests.test_models import by_hand
from tests.tiny import VOCABULARY, examples
from unlearning.data import checkpoint
from unlearning.data.corpus import train_tokenizer
from unlearning.errors import StudyError
from unlearning.measure.models import load_model
from unlearning.measure.scoring import score

SPECIAL = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1, "decoder_start_token_id": 0}
SIZES = {
    "gpt2": {"n_embd": 16, "n_layer": 1, "n_head": 2},
    "gpt_neox": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
    "llama": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
    "mt5": {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2, "num_layers": 1},
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2, "num_layers": 1},
}


def tiny(family: str, *, vocabulary: int = VOCABULARY, **more: object) -> PreTrainedModel:
    """A random model of a family."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, vocab_size=vocabulary, **SIZES[family], **SPECIAL, **more)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    return kind.from_config(config).eval()


def save(folder: Path, family: str) -> Path:
    """A checkpoint as a user would bring it: a random model and a tokenizer trained on two sentences."""
    tokenizer = train_tokenizer(["Guten Morgen zusammen", "good morning everybody"], vocabulary_size=300)
    tiny(family, vocabulary=len(tokenizer)).save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    return folder


def test_every_family_that_is_let_in_is_tested():
    assert set(SIZES) == set(checkpoint.FAMILIES)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", checkpoint.FAMILIES)
def test_likelihoods_of_a_family_are_those_of_the_librarys_own_logits(family, tied, tmp_path):
    model = tiny(family, tie_word_embeddings=tied)
    if not tied:  # as in the files of flan-t5: an output embedding of its own
        model.get_output_embeddings().weight = torch.nn.Parameter(torch.randn(VOCABULARY, 16) / 4)
    model.save_pretrained(tmp_path, safe_serialization=True)
    model, rows = load_model(tmp_path), examples(5)
    same = torch.equal(model.get_output_embeddings().weight, model.get_input_embeddings().weight)
    assert same == tied
    assert score(model, rows).log_likelihood == pytest.approx([by_hand(model, row) for row in rows], abs=1e-4)


def test_a_configuration_is_no_checkpoint():
    assert checkpoint.folder_of(SIZES["t5"]) is None


def test_a_folder_is_taken_with_its_tokenizer(tmp_path):
    folder = checkpoint.folder_of({"path": str(save(tmp_path / "mine", "gpt2"))})
    tokenizer = checkpoint.tokenizer_of(folder)
    assert tokenizer.decode(tokenizer("good morning")["input_ids"]) == "good morning"


def test_what_is_no_checkpoint_is_refused_in_words(tmp_path):
    with pytest.raises(StudyError, match=r"holds no model: it needs config\.json and weights as safetensors"):
        checkpoint.folder_of({"path": str(tmp_path)})
    folder = save(tmp_path / "mine", "t5")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(StudyError, match=r"holds no tokenizer\.json"):
        checkpoint.tokenizer_of(checkpoint.folder_of({"path": str(folder)}))
    (folder / "config.json").write_text(json.dumps({"model_type": "bart"}))
    with pytest.raises(StudyError, match="family 'bart' were never compared"):
        checkpoint.folder_of({"path": str(folder)})


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("llama", {"pad_token_id": -1}, "pad_token_id is below zero"),
        ("t5", {"decoder_start_token_id": None}, "decoder_start_token_id is missing"),
        ("gpt2", {"n_positions": 100}, "takes 100 positions, source and target need 128"),
    ],
)
def test_a_configuration_that_would_break_later_is_refused_now(family, change, message, tmp_path):
    config = save(tmp_path, family) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(StudyError, match=rf"config\.json: .*{message}"):
        checkpoint.folder_of({"path": str(tmp_path)}, max_tokens=64)


def test_a_hub_out_of_reach_is_told_in_one_sentence(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise ConnectionError

    monkeypatch.setattr(checkpoint, "snapshot_download", refuse)
    with pytest.raises(StudyError, match=r"Could not fetch some/model at 0{40} .*ConnectionError.*model\.revision"):
        checkpoint.folder_of({"hub": "some/model", "revision": "0" * 40})


def test_the_hub_is_asked_for_one_commit_and_for_no_pickle(monkeypatch, tmp_path):
    asked = {}

    def give(hub, **options):
        asked.update(options, hub=hub)
        return str(save(tmp_path / "cache", "t5"))

    monkeypatch.setattr(checkpoint, "snapshot_download", give)
    assert checkpoint.folder_of({"hub": "some/model", "revision": "0" * 40}) == tmp_path / "cache"
    assert (asked["hub"], asked["revision"]) == ("some/model", "0" * 40)
    assert not [p for p in asked["allow_patterns"] if p.endswith((".bin", ".pt", ".py", ".pkl"))]
