"""Random small models of both families, and random encoded examples, for the tests that need torch."""

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

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
