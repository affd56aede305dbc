"""A pre-trained model to start from, with its tokenizer: a folder, or a pinned commit of the Hugging Face hub."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from unlearning.errors import StudyError

# Families for which a test compares our likelihoods with the library's own. Elsewhere something may be added to
# logits after the projection, and likelihoods would be wrong without a word.
FAMILIES = ("gpt2", "gpt_neox", "llama", "mt5", "t5")
FILES = ("*.json", "*.safetensors")  # no pickle, no code


def folder_of(model: Mapping[str, Any], *, max_tokens: int = 0) -> Path | None:
    """The folder of a checkpoint (config, weights as safetensors, tokenizer), fetched if need be.

    Args:
        model: the block of that name: `path`, a folder; or `hub` and `revision`, a repository of the hub and the
            commit to take from it (40 hexadecimal digits); or the configuration of a model to train from scratch.
        max_tokens: the longest source and the longest target that it has to take.

    Returns:
        None for a model to train from scratch.

    Raises:
        StudyError: it cannot be fetched, lacks something, or is of a family that is not among `FAMILIES`.
    """
    if not {"path", "hub"} & set(model):
        return None
    folder = Path(model["path"]) if model.get("path") else _download(model["hub"], model["revision"])
    config = folder / "config.json"
    if not config.is_file() or not any(folder.glob("*.safetensors")):
        raise StudyError(
            f"{folder} holds no model: it needs config.json and weights as safetensors. Write them with "
            "model.save_pretrained(folder), and the tokenizer beside them with tokenizer.save_pretrained(folder)."
        )
    found = json.loads(config.read_text(encoding="utf-8"))
    for wrong in _what_is_wrong(found, max_tokens):
        raise StudyError(f"{config}: {wrong}")
    return folder


def _what_is_wrong(config: Mapping[str, Any], max_tokens: int) -> Iterator[str]:
    family, positions = config.get("model_type"), config.get("n_positions") or config.get("max_position_embeddings")
    if family not in FAMILIES:
        yield (
            f"likelihoods of the family {family!r} were never compared with the library's. Take one of "
            f"{', '.join(FAMILIES)}, or add yours to FAMILIES in src/unlearning/data/checkpoint.py and run its test."
        )
    if (config.get("pad_token_id") or 0) < 0:
        yield "pad_token_id is below zero. Write the id of any token, or null."
    if config.get("is_encoder_decoder") and config.get("decoder_start_token_id") is None:
        yield "decoder_start_token_id is missing. Write the id that the decoder starts from (T5: that of padding)."
    if family in ("gpt2", "gpt_neox", "llama") and positions and positions < 2 * max_tokens:
        yield (
            f"it takes {positions} positions, source and target need {2 * max_tokens}. "
            "Lower corpus.max_tokens in params.yaml to half of what it takes."
        )


def _download(hub: str, revision: str) -> Path:
    try:
        return Path(snapshot_download(hub, revision=revision, allow_patterns=list(FILES)))
    except Exception as error:  # the hub's client raises many kinds
        raise StudyError(
            f"Could not fetch {hub} at {revision} from the Hugging Face hub ({type(error).__name__}): correct "
            "model.hub and model.revision in params.yaml, or connect to the network."
        ) from None


def tokenizer_of(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint.

    Raises:
        StudyError: there is none (as tokenizer.json), or it has no end of sequence.
    """
    if not (folder / "tokenizer.json").is_file():  # without it the library would make up an empty one
        raise StudyError(f"{folder} holds no tokenizer.json. Write it with tokenizer.save_pretrained(folder).")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.eos_token_id is None:
        raise StudyError(f"{folder}: the tokenizer has no end-of-sequence token. Set eos_token and save it again.")
    return tokenizer
