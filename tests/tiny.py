"""Random small models of both families, random examples, and a study of made-up words, for tests that need torch."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import Dataset, DatasetDict
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, PreTrainedTokenizerFast

from unlearning.measure.models import Encoded, new_t5

VOCABULARY = 50
T5 = {
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 32,
    "num_heads": 2,
    "num_layers": 1,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": True,
}


def encoder_decoder(*, seed: int = 0, dropout: float = 0.0) -> PreTrainedModel:
    """A random T5 of some thousand parameters."""
    return new_t5(T5, vocabulary_size=VOCABULARY, dropout=dropout, seed=seed).eval()


def decoder_only(*, seed: int = 0) -> PreTrainedModel:
    """A random GPT-2 of some thousand parameters."""
    torch.manual_seed(seed)
    special = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    config = GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=1, n_head=2, n_positions=64, **special)
    return GPT2LMHeadModel(config).eval()


FAMILIES = {"encoder-decoder": encoder_decoder, "decoder-only": decoder_only}


def examples(n: int, *, seed: int = 0, longest: int = 12) -> list[Encoded]:
    """`n` random pairs of token ids, each side ending with end-of-sequence (1)."""
    generator = np.random.default_rng(seed)

    def side() -> list[int]:
        return [*generator.integers(2, VOCABULARY, generator.integers(1, longest)).tolist(), 1]

    return [(side(), side()) for _ in range(n)]


OPTIMIZERS = {
    "adamw": {"optimizer": "adamw", "learning_rate": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0},
    "sgd": {"optimizer": "sgd", "learning_rate": 1e-1, "momentum": 0.0, "weight_decay": 0.0},
    "adafactor": {"optimizer": "adafactor", "learning_rate": 1e-2, "clip_threshold": 1.0, "decay_rate": -0.8},
}
LOOP = {"epochs": 20, "batch_tokens": 10_000, "loss": "mean", "warmup_steps": 2, "schedule": "linear"}
WORDS = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {f"w{i}": i for i in range(3, VOCABULARY)}


def study_data(folder: Path) -> Path:
    """The folder `data/` of a study of made-up words: corpus, one forget set, its population, the pilot's set."""
    inner = Tokenizer(WordLevel(WORDS, unk_token="<unk>"))
    inner.pre_tokenizer = WhitespaceSplit()
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(folder / "tokenizer")

    def words(ids: list[int]) -> str:
        return " ".join(f"w{max(i, 3)}" for i in ids[:-1])

    def rows(name: str, n: int, seed: int) -> list[dict[str, str]]:
        encoded = examples(n, seed=seed)
        return [{"id": f"{name}-{i}", "source": words(s), "target": words(t)} for i, (s, t) in enumerate(encoded)]

    splits = {"core": 60, "heldout": 20, "validation": 20}
    tables = {name: pd.DataFrame(rows(name, n, seed)) for seed, (name, n) in enumerate(splits.items())}
    DatasetDict({name: Dataset.from_pandas(table) for name, table in tables.items()}).save_to_disk(folder / "corpus")
    for place, name in (("forget_sets", "ind-a"), ("populations", "natural"), ("populations", "pilot")):
        (folder / place).mkdir(exist_ok=True)
        lines = [json.dumps(row) for row in rows(name, 12, 9 + len(name))]
        (folder / place / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def training_task(data: Path, optimizer: str, *, device: str = "cpu") -> dict:
    """Arguments of `train_model`: the core and one forget set."""
    settings = {**OPTIMIZERS[optimizer], **LOOP, "epochs": 4, "batch_tokens": 200, "dropout": 0.0, "clip_norm": 1.0}
    machine = {"threads": 1, "device": device, "precision": "float32"}
    scored = {
        "scored": ["ind-a", "never-natural", "pilot"],
        "by_token": ["ind-a"],
        "retain": 10,
        "bleu_sentences": 5,
        "bleu_tokens": 20,
    }
    groups = {"repetitions": {"core": 1, "ind-a": 2}, "holds": ["core", "ind-a"]}
    what = {"data": str(data), "start": T5, "settings": settings, "seed": 1, "key": {"model": 0}}
    return what | groups | scored | machine


def ascent_task(data: Path, optimizer: str, folder: Path, *, device: str = "cpu") -> dict:
    """Arguments of `unlearn_model` for the model that `training_task` trained into `folder`."""
    restored = {"restored": True, "freeze_second_moment": False} if optimizer == "adafactor" else {}
    settings = {"k_max": 12, "beyond": 1.5, "follow_every": 3, "batch": "whole", "dropout": 0.0, "retain": 10}
    before = pd.read_parquet(folder / "log_likelihoods.parquet").set_index("example_id")["log_likelihood"]
    return {
        "data": str(data),
        "folder": str(folder),
        "forget_set": "ind-a",
        "population": "never-natural",
        "retained": [],
        "arm": {**OPTIMIZERS[optimizer], "loss": "mean", **restored},
        "settings": {**settings, "heldout_fixed": 10, "followed": 5, "bleu_sentences": 5, "bleu_tokens": 20},
        "reference": [float(before[f"ind-a-{i}"]) - 0.3 for i in range(12)],
        "steps": None,
        "seed": 1,
        "threads": 1,
        "device": device,
        "key": {"model": 0},
    }
