"""A pre-trained model and its tokenizer in place of those that the study trains."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel

from tests.test_models import by_hand
from tests.tiny import VOCABULARY, examples
from tools.tasks import hash_files
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


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", SIZES)
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
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokenizer("good morning")["input_ids"]) == "good morning"


FOLDER = {"max_tokens": 8}  # the source and the target that the small models take


def refusal(folder: Path) -> str:
    """The one sentence with which a checkpoint is refused."""
    with pytest.raises(StudyError) as caught:
        checkpoint.folder_of({"path": str(folder)}, **FOLDER)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    return str(caught.value)


def test_a_model_that_caps_its_logits_is_refused_with_its_family_and_how_far_off_it_would_be(tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "gemma2", SIZES["llama"] | {"head_dim": 8, "num_key_value_heads": 2})
    folder = save(tmp_path / "mine", "gemma2")
    change_config(folder, final_logit_softcapping=0.01)
    message = refusal(folder)
    found = re.search(r"family 'gemma2' differ from those of its own logits by up to ([\d.]+) nats per token", message)
    assert float(found[1]) > 1e-3
    change_config(folder, final_logit_softcapping=None)
    assert list(checkpoint.problems(folder, **FOLDER)) == []


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Write the weights anew, changed."""
    weights = load_file(folder / "model.safetensors")
    save_file(change(weights), folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder: Path, **change: object) -> None:
    """Write config.json anew, changed."""
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))


@pytest.mark.parametrize("family", SIZES)
def test_nothing_is_wrong_with_a_checkpoint_of_any_family_and_it_is_the_one_that_was_saved(family, tmp_path):
    folder = save(tmp_path / "mine", family)
    assert list(checkpoint.problems(folder, **FOLDER)) == []
    saved, loaded = load_file(folder / "model.safetensors"), load_model(folder).state_dict()
    same = [name for name, value in saved.items() if name in loaded and torch.equal(value, loaded[name])]
    assert len(same) >= len(saved) - 1  # an output embedding may have another name


def test_what_is_no_checkpoint_is_refused_in_words(tmp_path):
    assert "holds no model: it needs config.json and model.safetensors" in refusal(tmp_path)
    folder = save(tmp_path / "mine", "t5")
    (folder / "tokenizer.json").unlink()
    assert "holds no tokenizer.json" in refusal(folder)


def test_what_the_libraries_do_not_expect_is_refused_in_words_too(tmp_path):
    folder = save(tmp_path / "mine", "gpt2")
    change_config(folder, model_type="no such model")
    assert "cannot be loaded (ValueError: " in refusal(folder)
    change_config(folder, model_type="gpt2", vocab_size="many")
    assert "cannot be loaded (" in refusal(folder)


@pytest.mark.parametrize("family", SIZES)
def test_weights_whose_names_carry_a_prefix_are_not_filled_with_random_numbers(family, tmp_path):
    folder = save(tmp_path / "mine", family)
    rewrite(folder, lambda weights: {f"_orig_mod.{name}": value for name, value in weights.items()})
    assert re.search(
        r"\d+ weights are missing, such as .*; \d+ weights are unknown, such as _orig_mod", refusal(folder)
    )
    with pytest.raises(StudyError, match="weights are missing"):
        load_model(folder)


def test_a_weight_that_is_missing_superfluous_or_of_another_shape_is_named(tmp_path):
    folder, name = save(tmp_path / "mine", "gpt2"), "transformer.h.0.attn.c_attn.weight"
    rewrite(folder, lambda weights: {n: w for n, w in weights.items() if n != name})
    assert f"1 weights are missing, such as {name}" in refusal(folder)
    rewrite(save(folder, "gpt2"), lambda weights: weights | {"extra": torch.ones(2)})
    assert "1 weights are unknown, such as extra" in refusal(folder)
    rewrite(save(folder, "gpt2"), lambda weights: weights | {name: weights[name][:-1].contiguous()})
    assert f"1 weights are of another shape, such as {name}" in refusal(folder)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused_when_they_are_loaded(value, tmp_path):
    folder = save(tmp_path / "mine", "t5")
    rewrite(folder, lambda weights: weights | {"shared.weight": torch.full_like(weights["shared.weight"], value)})
    with pytest.raises(StudyError, match=r"mine: 1 weights are not finite, such as shared\.weight"):
        load_model(folder)


def test_a_pointer_of_git_lfs_is_not_taken_for_weights(tmp_path):
    file = save(tmp_path / "mine", "gpt2") / "model.safetensors"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    assert f"{file} is a pointer of git-lfs" in refusal(file.parent)


@pytest.mark.parametrize("kept", [4, 40, -1])
def test_a_file_of_weights_that_is_cut_off_is_told_before_it_is_loaded(kept, tmp_path):
    file = save(tmp_path / "mine", "gpt2") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    assert f"{file} is cut off" in refusal(file.parent)


def test_shards_are_taken_together_and_a_missing_one_is_named(tmp_path):
    folder = save(tmp_path / "mine", "gpt2")
    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    tiny("gpt2", vocabulary=len(whole["transformer.wte.weight"])).save_pretrained(folder, max_shard_size="10KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1 and list(checkpoint.problems(folder, **FOLDER)) == []
    shards[-1].unlink()
    assert f"{shards[-1]} is missing" in refusal(folder)


def test_an_adapter_without_its_base_model_is_told(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    assert "holds an adapter without its base model. Merge them" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_json_with_a_byte_order_mark_or_no_json_is_told_with_its_file(name, tmp_path):
    file = save(tmp_path / "mine", "gpt2") / name
    text = file.read_bytes()
    file.write_bytes(b"\xef\xbb\xbf" + text)
    assert f"{file} begins with a byte-order mark" in refusal(file.parent)
    file.write_bytes(text[:-3])
    assert f"{file} is not JSON" in refusal(file.parent)


def test_a_tokenizer_that_is_larger_than_the_embedding_is_refused(tmp_path):
    folder = save(tmp_path / "mine", "gpt2")
    tiny("gpt2", vocabulary=200).save_pretrained(folder)
    assert re.search(r"the tokenizer has \d+ tokens, the model 200\. Call model\.resize", refusal(folder))


def test_a_tokenizer_without_an_end_of_sequence_is_refused(tmp_path):
    folder = save(tmp_path / "mine", "gpt2")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    assert "has no end-of-sequence token" in refusal(folder)


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("llama", {"pad_token_id": -1}, "pad_token_id is -1, which is no token"),
        ("gpt2", {"pad_token_id": 50_257}, "pad_token_id is 50257, which is no token"),
        ("t5", {"decoder_start_token_id": None}, "decoder_start_token_id is missing"),
        ("gpt2", {"bos_token_id": None, "eos_token_id": None}, "bos_token_id and eos_token_id are missing"),
        ("gpt2", {"n_positions": 15}, "takes 15 positions, source and target need 16"),
    ],
)
def test_a_configuration_that_would_break_later_is_refused_now(family, change, message, tmp_path):
    change_config(save(tmp_path, family), **change)
    assert f"{tmp_path / 'config.json'}: " in refusal(tmp_path) and message in refusal(tmp_path)


def test_several_ends_of_sequence_and_no_beginning_are_taken_as_they_are(tmp_path):
    folder = save(tmp_path / "mine", "gpt2")
    before = score(load_model(folder), [([], [5, 6, 1])]).log_likelihood
    change_config(folder, eos_token_id=[1, 7], bos_token_id=None, pad_token_id=None)
    assert list(checkpoint.problems(folder, **FOLDER)) == []
    assert score(load_model(folder), [([], [5, 6, 1])]).log_likelihood == pytest.approx(before)


def test_a_folder_behind_a_link_is_refused_since_dvc_does_not_see_what_changes_there(tmp_path):
    (tmp_path / "mine").symlink_to(save(tmp_path / "elsewhere", "gpt2"))
    assert "is a link: another model behind it would go unnoticed. Copy the folder itself" in refusal(tmp_path / "mine")


def test_files_behind_links_are_followed_and_a_new_target_is_another_checkpoint(tmp_path):
    folder = save(tmp_path / "mine", "gpt2")
    file, target = folder / "model.safetensors", tmp_path / "elsewhere.safetensors"
    target.write_bytes(file.read_bytes())
    file.unlink()
    file.symlink_to(target)
    before = hash_files(folder)
    assert checkpoint.folder_of({"path": str(folder)}, **FOLDER) == folder
    rewrite(folder, lambda weights: {name: value + 1 for name, value in weights.items()})
    assert hash_files(folder) != before


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
