"""Raw forget sets and the never-trained examples beside them: draw natural ones, make canaries and secrets, read own.

Every draw has a stream of random numbers of its own, from the seed and the set's name: a set that is added at the end
of the list changes no other.
"""

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerBase

from unlearning.data.corpus import COLUMNS, lengths, unify
from unlearning.data.jsonl import read_examples
from unlearning.data.overlap import nearest
from unlearning.errors import StudyError

CANARY_TOKENS = 10
SECRET_PHRASE = "My secret is "
SECRET_CHARACTERS = 10
_WHY_NOT = {
    "public": "Every model's base is trained on it",
    "core": "Every model is trained on it",
    "heldout": "Performance is measured on it",
    "validation": "The epochs of training are chosen on it",
    "never-natural": "It stands for text that no model has seen",
    "pilot": "The learning rates are chosen on it",
}
_ANOTHER_SET = "It is another forget set, which other models hold"
_ALPHABET = np.array(list(string.ascii_letters + string.digits))


def stream(seed: int, name: str) -> np.random.Generator:
    """The random numbers of one set, whatever other sets there are."""
    return np.random.default_rng([seed, crc32(name.encode())])


# Drawing


def draw_natural(reserve: pd.DataFrame, sizes: Mapping[str, int], *, seed: int) -> dict[str, pd.DataFrame]:
    """Disjoint random samples of the reserve, in the order of `sizes`; each takes what earlier ones have left.

    Raises:
        StudyError: the reserve is too small for them.
    """
    if sum(sizes.values()) > len(reserve):
        raise StudyError(
            f"Too few pairs: the natural sets take {sum(sizes.values())}, the reserve holds {len(reserve)}. "
            "Lower sizes under forget_sets or populations, or corpus.core, in params.yaml."
        )
    taken, drawn = np.zeros(len(reserve), dtype=bool), {}
    reserve = reserve.sort_values("id")
    for name, size in sizes.items():
        order = stream(seed, name).permutation(len(reserve))
        chosen = order[~taken[order]][:size]
        taken[chosen] = True
        drawn[name] = reserve.iloc[chosen][COLUMNS].reset_index(drop=True)
    return drawn


def make_canaries(name: str, size: int, tokenizer: PreTrainedTokenizerBase, *, seed: int) -> pd.DataFrame:
    """Random token sequences, exactly ten tokens in source and in target, printable, equal after decode and encode.

    A sequence that decodes to text which is tokenized otherwise is no draw of ten tokens; it is thrown away.
    """
    rng = stream(seed, name)
    allowed = np.setdiff1d(np.arange(len(tokenizer)), [*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder])
    texts: list[str] = []
    while len(texts) < 2 * size:
        batch = rng.choice(allowed, size=(256, CANARY_TOKENS)).tolist()
        decoded = tokenizer.batch_decode(batch, clean_up_tokenization_spaces=False)
        encoded = tokenizer(decoded, add_special_tokens=False)["input_ids"]
        texts += [t for t, ids, back in zip(decoded, batch, encoded, strict=True) if ids == back and _shows(t)]
    return _generated(name, "canary", texts[0 : 2 * size : 2], texts[1 : 2 * size : 2])


def _shows(text: str) -> bool:
    return text.isprintable() and bool(text.strip())


def make_secrets(name: str, size: int, *, seed: int) -> pd.DataFrame:
    """One fixed phrase as source, ten random characters of a-z A-Z 0-9 as target (the authors' canary)."""
    drawn = stream(seed, name).choice(_ALPHABET, size=(size, SECRET_CHARACTERS))
    return _generated(name, "secret", [SECRET_PHRASE] * size, ["".join(row) for row in drawn])


def _generated(name: str, origin: str, sources: list[str], targets: list[str]) -> pd.DataFrame:
    ids = [f"{name}:{i:04d}" for i in range(len(targets))]
    return pd.DataFrame({"id": ids, "source": sources, "target": targets, "origin": origin})


def draw_sets(
    settings: Mapping[str, Mapping[str, Any]],
    *,
    populations: Mapping[str, int],
    reserve: pd.DataFrame,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """All sets that are drawn (own ones are read): forget sets, and the never-trained populations with the pilot's.

    Args:
        settings: the block forget_sets: name -> kind, size, repetitions.
        populations: the block populations: natural, canary, secret, pilot -> size.
        reserve: natural pairs that no model is trained on otherwise.

    Returns:
        Two dicts of tables with id, source, target, origin.
    """
    natural = {"natural": "never-natural", "pilot": "pilot"}
    sizes = {label: populations[name] for name, label in natural.items()}
    sizes |= {name: spec["size"] for name, spec in settings.items() if spec["kind"] == "natural"}
    drawn = draw_natural(reserve, sizes, seed=seed)
    sets = {}
    for name, spec in settings.items():
        if spec["kind"] == "canary":
            sets[name] = make_canaries(name, spec["size"], tokenizer, seed=seed)
        elif spec["kind"] == "secret":
            sets[name] = make_secrets(name, spec["size"], seed=seed)
        elif spec["kind"] == "natural":
            sets[name] = drawn[name]
    never = {name: drawn[label] for name, label in natural.items()}
    never["canary"] = make_canaries("never-canary", populations["canary"], tokenizer, seed=seed)
    never["secret"] = make_secrets("never-secret", populations["secret"], seed=seed)
    return sets, never


# A set of one's own


def read_own(
    name: str,
    path: Path | str,
    *,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    protected: Mapping[str, pd.DataFrame],
    near_duplicate: float,
) -> pd.DataFrame:
    """A user's forget set, one {"id", "source", "target"} a line (source may be empty), checked against the corpus.

    Args:
        protected: splits, populations and other forget sets, by name, that no example may (nearly) stand in.
        near_duplicate: token-set Jaccard, on source or target, from which an example counts as standing there.

    Returns:
        Table with id (`<name>:<id of the file>`), source, target and origin (the file's field, else its name).

    Raises:
        StudyError: the first mistake, with file, line and mend.
    """
    rows = read_examples(path)
    table = pd.DataFrame([row for _, row in rows])
    if "origin" not in table:
        table["origin"] = Path(path).name
    where = [f"{path}, line {number}" for number, _ in rows]
    table[["source", "target"]] = table[["source", "target"]].map(unify)  # as the corpus is
    _check_tokens(table, where, tokenizer, max_tokens)
    for split, pairs in protected.items():
        for side in ("source", "target"):
            _check_overlap(table[side], pairs, side, split, where, near_duplicate)
    return table.assign(id=name + ":" + table["id"], origin=table["origin"].fillna(Path(path).name))[COLUMNS]


def _check_tokens(table: pd.DataFrame, where: list[str], tokenizer: PreTrainedTokenizerBase, most: int) -> None:
    reserved = set(tokenizer.all_special_ids)
    for side in ("source", "target"):
        encoded = tokenizer(table[side].tolist(), add_special_tokens=False)["input_ids"]
        for place, ids in zip(where, encoded, strict=True):
            if len(ids) + 1 > most:
                raise StudyError(
                    f"{place}: the {side} has {len(ids) + 1} tokens with the end of sequence, the models take {most}. "
                    "Shorten or split it, or raise corpus.max_tokens in params.yaml."
                )
            if tokenizer.unk_token_id in ids:
                raise StudyError(f"{place}: the {side} holds characters unknown to the tokenizer. Take them out.")
            if reserved & set(ids):
                token = tokenizer.decode([min(reserved & set(ids))])
                raise StudyError(f"{place}: the {side} holds the reserved token {token}. Take it out.")


def _check_overlap(
    texts: pd.Series, pairs: pd.DataFrame, side: str, split: str, where: list[str], threshold: float
) -> None:
    best, other = nearest(texts.tolist(), pairs[side].tolist(), threshold=threshold)
    ids = dict(zip(pairs[side], pairs["id"], strict=True))
    for i, text in enumerate(texts):
        exact = text != "" and text in ids
        if exact or other[i] >= 0:
            twin = ids[text] if exact else pairs["id"].iloc[other[i]]
            likeness = 1.0 if exact else best[i]
            raise StudyError(
                f"{where[i]}: the {side} (nearly) stands in {split} as '{twin}' (Jaccard {likeness:.2f}, from "
                f"{threshold} two pairs count as one). {_WHY_NOT.get(split, _ANOTHER_SET)}: delete the line."
            )


# The table of examples


def examples_table(
    *,
    sets: Mapping[str, pd.DataFrame],
    settings: Mapping[str, Mapping[str, Any]],
    never: Mapping[str, pd.DataFrame],
    heldout: pd.DataFrame,
    core: pd.DataFrame,
    retain: int,
    tokenizer: PreTrainedTokenizerBase,
) -> pd.DataFrame:
    """Everything that is ever scored by example, one row each, without its text.

    Columns: example_id, forget_set (or never-<kind>, pilot, heldout, retain: the first `retain` pairs of the core),
    kind, origin, repetitions (copies in a training set that holds it; 0 for what no model is trained on),
    n_source_tokens, n_tokens (of the target), both with the end of sequence.
    """
    parts = [(name, settings[name]["kind"], settings[name]["repetitions"], t) for name, t in sets.items()]
    for name, table in never.items():
        parts.append(("pilot", "natural", 0, table) if name == "pilot" else (f"never-{name}", name, 0, table))
    parts += [("heldout", "natural", 0, heldout), ("retain", "natural", 1, core.iloc[:retain])]
    rows = []
    for name, kind, repetitions, table in parts:
        labels = {"forget_set": name, "kind": kind, "origin": table["origin"], "repetitions": repetitions}
        counts = {
            "n_source_tokens": lengths(tokenizer, table["source"].tolist()) * (table["source"] != ""),
            "n_tokens": lengths(tokenizer, table["target"].tolist()),
        }
        rows.append(pd.DataFrame({"example_id": table["id"], **labels, **counts}))
    return pd.concat(rows, ignore_index=True)
