"""A pre-trained model to start from, with its tokenizer: a folder, or a pinned commit of the Hugging Face hub."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig

from unlearning.errors import StudyError

FILES = ("*.json", "*.safetensors")  # no pickle, no code
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_SAVE = "save it with model.save_pretrained(folder), the tokenizer with tokenizer.save_pretrained(folder)."


def folder_of(model: Mapping[str, Any], *, max_tokens: int = 0) -> Path | None:
    """The folder of a checkpoint (config, weights as safetensors, tokenizer), fetched if need be; None without one.

    model: `path`, a folder; or `hub` and `revision`, a repository of the hub and its commit; or a configuration to
    train from scratch. max_tokens: the longest source and the longest target that it has to take.
    """
    if not {"path", "hub"} & set(model):
        return None
    if model.get("hub"):
        try:
            folder = Path(snapshot_download(model["hub"], revision=model["revision"], allow_patterns=list(FILES)))
        except Exception as error:  # the hub's client raises many kinds
            why = f"Could not fetch {model['hub']} at {model['revision']} from the hub ({type(error).__name__})"
            raise StudyError(f"{why}: correct model.hub and model.revision, or connect to the network.") from None
    elif (folder := Path(model["path"])).is_symlink():  # dvc does not follow links to folders
        raise StudyError(f"{folder} is a link: another model behind it would go unnoticed. Copy the folder itself.")
    try:
        for problem in problems(folder, max_tokens=max_tokens):
            raise StudyError(problem)
    except StudyError:
        raise
    except Exception as error:  # the libraries raise many kinds
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
        raise StudyError(f"{folder} cannot be loaded ({why}). Take your model and {_SAVE}") from None
    return folder


def needs_a_source(folder: Path | None) -> bool:
    """Is the model of a folder (None: a new T5) an encoder-decoder? A decoder-only one takes plain text, too."""
    return folder is None or bool(json.loads((folder / "config.json").read_bytes()).get("is_encoder_decoder"))


def problems(folder: Path, *, max_tokens: int = 0) -> Iterator[str]:
    """What is wrong with a checkpoint, a sentence each, with file and mend. Stop at the first: later ones may raise."""
    from unlearning.measure.models import load_model  # torch is only needed for a model that is there

    config_file = folder / "config.json"
    if (folder / "adapter_config.json").is_file() and not config_file.is_file():
        yield f"{folder} holds an adapter without its base model. Merge them (merge_and_unload) and {_SAVE}"
    found = [file for file in (folder / _WEIGHTS, folder / _INDEX) if file.is_file()]
    if not config_file.is_file() or not found:
        yield f"{folder} holds no model: it needs config.json and {_WEIGHTS} (or {_INDEX}). Take your model and {_SAVE}"
    if not (folder / "tokenizer.json").is_file():  # without it the library would make up an empty one
        yield f"{folder} holds no tokenizer.json. Write it with tokenizer.save_pretrained(folder)."
    for file in sorted(folder.glob("*.json")):
        if file.read_bytes()[:3] == b"\xef\xbb\xbf":
            yield f"{file} begins with a byte-order mark, which the library does not read. Save it without one."
        try:
            json.loads(file.read_bytes())
        except ValueError as error:  # not JSON, or not UTF-8
            yield f"{file} is not JSON ({error}). Take your model and {_SAVE}"
    shards = {_WEIGHTS} if found[0].name == _WEIGHTS else set(json.loads(found[0].read_bytes())["weight_map"].values())
    for name in sorted(shards):
        if wrong := _weight_problem(folder / name):
            yield f"{folder / name} {wrong}"
    config = AutoConfig.from_pretrained(folder)
    for problem in _config_problems(config, max_tokens):
        yield f"{config_file}: {problem}"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.eos_token_id is None:
        yield f"{folder}: the tokenizer has no end-of-sequence token. Set eos_token and save it again."
    if len(tokenizer) > config.vocab_size:
        size = f"{len(tokenizer)} tokens, the model {config.vocab_size}"
        yield f"{folder}: the tokenizer has {size}. Call model.resize_token_embeddings(len(tokenizer)) and {_SAVE}"
    try:
        load_model(folder)
    except StudyError as error:
        yield str(error)


def _weight_problem(file: Path) -> str | None:
    if not file.is_file():
        return f"is missing, and {_INDEX} names it. Copy it to the others."
    # a safetensors file: length of the header in 8 bytes, header as JSON with the bounds of each tensor, tensors
    with file.open("rb") as stream:
        start = stream.read(8)
        if start == b"version ":
            return "is a pointer of git-lfs, not the weights. Fetch them with git lfs pull."
        length, size = int.from_bytes(start, "little"), file.stat().st_size
        header = json.loads(stream.read(length)) if 8 + length <= size else {}
    ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    whole = bool(ends) and 8 + length + max(ends) == size
    return None if whole else f"is cut off: its {size} bytes are not those of its header. Copy or download it again."


def _config_problems(config: PreTrainedConfig, max_tokens: int) -> Iterator[str]:
    ids = {name: getattr(config, f"{name}_token_id", None) for name in ("pad", "bos", "eos", "decoder_start")}
    for name, value in ids.items():
        for token in value if isinstance(value, list) else [value or 0]:
            if not 0 <= token < config.vocab_size:
                yield f"{name}_token_id is {token}, which is no token. Write the id of any token, or null."
    if config.is_encoder_decoder and ids["decoder_start"] is None:
        yield "decoder_start_token_id is missing. Write the id that the decoder starts from (T5: that of padding)."
    if not config.is_encoder_decoder and ids["bos"] is None and not ids["eos"] and ids["eos"] != 0:
        yield "bos_token_id and eos_token_id are missing. Write the id that a text without a source starts from."
    positions = getattr(config, "max_position_embeddings", None)  # of T5, which has relative ones: none
    if positions and positions < 2 * max_tokens:
        mend = "Lower corpus.max_tokens in params.yaml to half of what it takes."
        yield f"it takes {positions} positions, source and target need {2 * max_tokens}. {mend}"
