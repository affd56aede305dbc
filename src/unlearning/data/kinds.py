"""The kinds of forget sets, in one table: how a set is drawn, and whether a population is drawn for comparison.

Every draw has random numbers of its own, from the seed and the set's name: a set that is added changes no other.
"""

import string
from collections.abc import Collection
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
import pandas as pd

from unlearning.errors import StudyError

if TYPE_CHECKING:  # the settings check reads this table without loading transformers
    from transformers import PreTrainedTokenizerBase

COLUMNS = ["id", "source", "target", "origin"]
CANARY_TOKENS = SECRET_CHARACTERS = 10
SECRET_PHRASE = "My secret is "
PILOT = "pilot"  # a natural set outside the study, on which the learning rates of the ascents are chosen
_ALPHABET = np.array(list(string.ascii_letters + string.digits))


def stream(seed: int, name: str) -> np.random.Generator:
    """The random numbers of one set, whatever other sets there are."""
    return np.random.default_rng([seed, crc32(name.encode())])


def natural(name: str, size: int, *, seed: int, reserve: pd.DataFrame, taken: Collection[str], **_) -> pd.DataFrame:
    """A random sample of what earlier draws have left of the reserve; StudyError where that is too little."""
    order = stream(seed, name).permutation(len(reserve))
    left = order[~reserve["id"].isin(taken).to_numpy()[order]]
    if size > len(left):
        raise StudyError(
            f"Too few pairs: {name} takes {size}, {len(left)} of the reserve's {len(reserve)} are left. "
            "Lower sizes under forget_sets or populations, or corpus.core, in params.yaml."
        )
    return reserve.iloc[left[:size]][COLUMNS].reset_index(drop=True)


def canary(name: str, size: int, *, seed: int, tokenizer: "PreTrainedTokenizerBase", **_) -> pd.DataFrame:
    """Random token sequences, ten tokens in source and in target, printable, equal after decode and encode."""
    rng = stream(seed, name)
    allowed = np.setdiff1d(np.arange(len(tokenizer)), [*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder])
    texts: list[str] = []
    drawn = 0
    while len(texts) < 2 * size:
        batch = rng.choice(allowed, size=(256, CANARY_TOKENS)).tolist()
        decoded = tokenizer.batch_decode(batch, clean_up_tokenization_spaces=False)
        # text that is tokenized otherwise than it was drawn is no draw of ten tokens
        encoded = tokenizer(decoded, add_special_tokens=False)["input_ids"]
        kept = (text for text, ids, back in zip(decoded, batch, encoded, strict=True) if ids == back)
        texts += [text for text in kept if text.isprintable() and text.strip()]
        drawn += len(batch)
        if drawn >= 50_000 and len(texts) < drawn / 10_000:  # of small vocabularies one in a thousand
            raise StudyError(
                f"{name}: of {drawn} random sequences of {CANARY_TOKENS} tokens the tokenizer gives back {len(texts)} "
                "as they were. Take the canaries out of forget_sets, or bring another tokenizer."
            )
    return _generated(name, "canary", texts[0 : 2 * size : 2], texts[1 : 2 * size : 2])


def secret(name: str, size: int, *, seed: int, **_) -> pd.DataFrame:
    """One fixed phrase as source, ten random characters of a-z A-Z 0-9 as target (the authors' canary)."""
    drawn = stream(seed, name).choice(_ALPHABET, size=(size, SECRET_CHARACTERS))
    return _generated(name, "secret", [SECRET_PHRASE] * size, ["".join(row) for row in drawn])


def _generated(name: str, origin: str, sources: list[str], targets: list[str]) -> pd.DataFrame:
    ids = [f"{name}:{i:04d}" for i in range(len(targets))]
    return pd.DataFrame({"id": ids, "source": sources, "target": targets, "origin": origin})


# draw: (name, size, seed, tokenizer, reserve, taken) -> examples; None: the user's file is read.
# population: are examples of the kind drawn that no model is trained on?
# exchangeable: is each example as likely to be drawn as any other? Then a rank among the population is an exposure.
KINDS = {
    "natural": {"draw": natural, "population": True, "exchangeable": False},
    "canary": {"draw": canary, "population": True, "exchangeable": True},
    "secret": {"draw": secret, "population": True, "exchangeable": True},
    "own": {"draw": None, "population": False, "exchangeable": False},
}


def population(kind: str) -> str | None:
    """Name of the group of never-trained examples of a kind; None where there are none."""
    return f"never-{kind}" if KINDS[kind]["population"] else None


POPULATIONS = {name: kind for kind in KINDS if (name := population(kind))}
