"""The kinds of forget sets, in one table: how a set is drawn, and whether a population is drawn for comparison.

Every draw has random numbers of its own, from the seed and the set's name: a set that is added changes no other.
"""

import string
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
import pandas as pd

from unlearning.data.scripts import UNIT, units
from unlearning.errors import StudyError

if TYPE_CHECKING:  # the settings check reads this table without loading transformers
    from transformers import PreTrainedTokenizerBase

COLUMNS = ["id", "source", "target", "origin"]
CANARY_TOKENS = SECRET_CHARACTERS = 10
SECRET_PHRASE = "My secret is "
PILOT = "pilot"  # a natural set outside the study, on which the learning rates of the ascents are chosen
PILOT_KINDS = {PILOT: "natural", "pilot-canary": "canary"}  # what rate canaries would have chosen stands beside
PILOTS = tuple(PILOT_KINDS)
_ALPHABET = np.array(list(string.ascii_letters + string.digits))


def draws(blocks: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each forget set's settings, with its `family`, in file order: `draws: 3` makes <family>-a, -b and -c."""
    sets: dict[str, dict[str, Any]] = {}
    for family, block in blocks.items():
        for name in _names(family, block):
            if name in sets:
                raise StudyError(f"params.yaml, forget_sets.{family}: there are two sets {name}; rename one of them.")
            sets[name] = {key: value for key, value in block.items() if key != "draws"} | {"family": family}
    return sets


def family_names(blocks: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The names of each family's sets, in file order."""
    return {family: _names(family, block) for family, block in blocks.items()}


def _names(family: str, block: Mapping[str, Any]) -> list[str]:
    n = block.get("draws")
    return [family] if n is None else [f"{family}-{letter}" for letter in string.ascii_lowercase[:n]]


def stream(seed: int, name: str) -> np.random.Generator:
    """The random numbers of one set, whatever other sets there are."""
    return np.random.default_rng([seed, crc32(name.encode())])


def natural(
    name: str, size: int | None, *, seed: int, reserve: pd.DataFrame, taken: Collection[str], **_
) -> pd.DataFrame:
    """A random sample of what earlier draws have left: the first `size` pairs of a random order; None for all."""
    order = stream(seed, name).permutation(len(reserve))
    left = order[~reserve["id"].isin(taken).to_numpy()[order]]
    return reserve.iloc[left[:size]][COLUMNS].reset_index(drop=True)


def shuffled(name: str, size: int | None, *, seed: int, **given) -> pd.DataFrame:
    """Natural pairs with the words of source and of target each in another order than the text's, at random."""
    pairs = natural(name, size, seed=seed, **given)
    for side in ("source", "target"):
        texts = zip(pairs["id"], pairs[side], strict=True)
        pairs[side] = [_reordered(text, stream(seed, f"shuffled {side} of {key}")) for key, text in texts]
    return pairs


def _reordered(text: str, rng: np.random.Generator) -> str:
    other = words = units(text)
    while other == words and len(set(words)) > 1:
        other = [words[i] for i in rng.permutation(len(words))]
    left = iter(other)
    return UNIT.sub(lambda _: next(left), text)  # blanks stay where they are


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
# pairs: the split whose pairs it draws from (`reserve`, or `second`: those of the second language); None: it makes its
#   own text. Sets of pairs are matched in tokens.
# population: are examples of the kind drawn that no model is trained on?
# exchangeable: is each example as likely to be drawn as any other? Then a rank among the population is an exposure.
KINDS = {
    "natural": {"draw": natural, "pairs": "reserve", "population": True, "exchangeable": False},
    "canary": {"draw": canary, "pairs": None, "population": True, "exchangeable": True},
    "shuffled": {"draw": shuffled, "pairs": "reserve", "population": True, "exchangeable": False},
    "language": {"draw": natural, "pairs": "second", "population": True, "exchangeable": False},
    "secret": {"draw": secret, "pairs": None, "population": True, "exchangeable": True},
    "own": {"draw": None, "pairs": None, "population": False, "exchangeable": False},
}


def population(kind: str) -> str | None:
    """Name of the group of never-trained examples of a kind; None where there are none."""
    return f"never-{kind}" if KINDS[kind]["population"] else None


POPULATIONS = {name: kind for kind in KINDS if (name := population(kind))}


def populations_of(blocks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The groups of never-trained examples of the kinds that are in use."""
    used = {block["kind"] for block in blocks.values()}
    return [name for name, kind in POPULATIONS.items() if kind in used]
