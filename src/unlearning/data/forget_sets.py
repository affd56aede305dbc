"""Raw forget sets and the never-trained examples of their kinds: drawn, or read from the user's file and checked."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import PreTrainedTokenizerBase as Tokenizer

from unlearning.data.corpus import lengths, lost_by, unify
from unlearning.data.jsonl import read_examples
from unlearning.data.kinds import COLUMNS, KINDS, PILOT, POPULATIONS, population
from unlearning.data.overlap import nearest
from unlearning.errors import StudyError

Pairs = pd.DataFrame  # id, source, target, origin
Sets = Mapping[str, Pairs]
Blocks = Mapping[str, Mapping[str, Any]]  # of params.yaml: forget set -> kind, repetitions, size or path
_WHY_NOT = {
    "public": "Every model's base is trained on it",
    "core": "Every model is trained on it",
    "heldout": "Performance is measured on it",
    "validation": "The epochs of training are chosen on it",
    "never-natural": "It stands for text that no model has seen",
    PILOT: "The learning rates are chosen on it",
}


def draw_sets(
    settings: Blocks, *, populations: Mapping[str, int], pilot: int, reserve: Pairs, tokenizer: Tokenizer, seed: int
) -> tuple[dict[str, Pairs], dict[str, Pairs]]:
    """All sets that are drawn (own ones are read): forget sets, and the never-trained populations with the pilot's.

    populations: kind -> size. pilot: size. reserve: natural pairs that no model is trained on otherwise.
    Returns two dicts of tables: by name of the set; by kind, and `pilot`.
    """
    reserve, taken = reserve.sort_values("id"), set()

    def draw(name: str, kind: str, size: int) -> Pairs:
        table = KINDS[kind]["draw"](name, size, seed=seed, tokenizer=tokenizer, reserve=reserve, taken=taken)
        taken.update(table["id"])
        return table

    # The order decides who takes what of the reserve: forget sets come last, so that one more changes none before it.
    never = {}
    for name, kind in POPULATIONS.items():
        never[kind] = draw(name, kind, populations[kind])
        if kind == "natural":
            never[PILOT] = draw(PILOT, kind, pilot)
    drawn = {name: spec for name, spec in settings.items() if KINDS[spec["kind"]]["draw"]}
    return {name: draw(name, spec["kind"], spec["size"]) for name, spec in drawn.items()}, never


def read_own(
    name: str, path: Path | str, *, tokenizer: Tokenizer, max_tokens: int, protected: Sets, near_duplicate: float
) -> Pairs:
    """A user's forget set, one {"id", "source", "target"} a line (source may be empty), exactly as it is written.

    protected: splits, populations and other forget sets, by name, that no example may (nearly) stand in, which is a
    token-set Jaccard of `near_duplicate` on source or target. Its id becomes `<name>:<id of the file>`.
    Raises StudyError: the first mistake, with file, line and mend.
    """
    rows = read_examples(path)
    table = pd.DataFrame([row for _, row in rows])
    origin = table["origin"].fillna(Path(path).name) if "origin" in table else Path(path).name
    for wrong in (_token_mistakes(table, tokenizer, max_tokens), _twins(table, protected, near_duplicate)):
        for row, message in wrong:
            raise StudyError(f"{path}, line {rows[row][0]}: {message}")
    return table.assign(id=name + ":" + table["id"], origin=origin)[COLUMNS]


def _token_mistakes(table: Pairs, tokenizer: Tokenizer, most: int) -> Iterator[tuple[int, str]]:
    """(row, what is wrong) where an example is too long, or would not be trained on as it is written."""
    for side in ("source", "target"):
        counts, lost = lengths(tokenizer, table[side].tolist()), lost_by(tokenizer, table[side].tolist())
        for row, count in enumerate(counts):
            if count > most:
                mend = "Shorten or split it, or raise corpus.max_tokens in params.yaml."
                yield row, f"the {side} has {count} tokens with the end of sequence, the models take {most}. {mend}"
            if row in lost:
                yield row, f"the {side} {lost[row]}. Take it out, or bring a model whose tokenizer keeps it."


def _twins(table: Pairs, protected: Sets, least: float) -> Iterator[tuple[int, str]]:
    """(row, where it stands) for each example that (nearly) stands elsewhere."""
    for split, pairs in protected.items():
        for side in ("source", "target"):
            ids = dict(zip(pairs[side], pairs["id"], strict=True))
            # as it is written, and as the default corpus writes its placeholders
            for texts in (table[side], table[side].map(unify)):
                best, other = nearest(texts.tolist(), pairs[side].tolist(), threshold=least)
                for row, text in enumerate(texts):
                    exact = text != "" and text in ids
                    if exact or other[row] >= 0:
                        twin, likeness = (ids[text], 1.0) if exact else (pairs["id"].iloc[other[row]], best[row])
                        how = f"Jaccard {likeness:.2f}, from {least} two pairs count as one"
                        why = _WHY_NOT.get(split, "It is another forget set, which other models hold")
                        yield row, f"the {side} (nearly) stands in {split} as '{twin}' ({how}). {why}: delete the line."


def examples_table(
    *, sets: Sets, settings: Blocks, never: Sets, heldout: Pairs, core: Pairs, retain: int, tokenizer: Tokenizer
) -> Pairs:
    """Everything that is ever scored by example, one row each, without its text.

    Columns: example_id, forget_set (or a population, pilot, heldout, retain: the core's first pairs), kind, origin,
    repetitions (0: no model is trained on it), n_source_tokens and n_tokens (of the target) with the end of sequence.
    """
    parts = [(name, settings[name]["kind"], settings[name]["repetitions"], t) for name, t in sets.items()]
    for name, table in never.items():
        parts.append((name, "natural", 0, table) if name == PILOT else (population(name), name, 0, table))
    parts += [("heldout", "natural", 0, heldout), ("retain", "natural", 1, core.iloc[:retain])]
    rows = []
    for name, kind, repetitions, table in parts:
        labels = {"forget_set": name, "kind": kind, "origin": table["origin"], "repetitions": repetitions}
        part = pd.DataFrame({"example_id": table["id"], **labels})
        part["n_source_tokens"] = lengths(tokenizer, table["source"].tolist()) * (table["source"] != "")
        rows.append(part.assign(n_tokens=lengths(tokenizer, table["target"].tolist())))
    return pd.concat(rows, ignore_index=True)
