"""Raw forget sets and the never-trained examples of their kinds: drawn, or read from the user's file and checked."""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerBase as Tokenizer

from unlearning.data.corpus import lengths, lost_by, unify
from unlearning.data.kinds import COLUMNS, KINDS, PILOT, PILOT_KINDS, POPULATIONS, draws, population, stream
from unlearning.data.overlap import nearest
from unlearning.data.own_files import Fields, read_examples
from unlearning.errors import StudyError, refuse

Pairs = pd.DataFrame  # id, source, target, origin
Sets = Mapping[str, Pairs]
Blocks = Mapping[str, Mapping[str, Any]]  # of params.yaml: family -> kind, repetitions, size and draws, or path
_SIDES = ("source", "target")
_STARTS = 20  # of the search for pairs that match in tokens
_WHY_NOT = {
    "public": "Every model's base is trained on it",
    "core": "Every model is trained on it",
    "heldout": "Performance is measured on it",
    "validation": "The epochs of training are chosen on it",
    **dict.fromkeys(POPULATIONS, "It stands for text that no model has seen"),
    PILOT: "The learning rates are chosen on it",
}


def draw_sets(
    blocks: Blocks,
    *,
    populations: Mapping[str, int],
    pilot: int,
    reserve: Pairs,
    second: Pairs | None = None,
    tokenizer: Tokenizer,
    seed: int,
    tokens_per_example: float | None = None,
    token_tolerance: float = 0.01,
) -> tuple[dict[str, Pairs], dict[str, Pairs]]:
    """All sets that are drawn (own ones are read): forget sets, and the never-trained populations with the pilots.

    populations: kind -> size. pilot: size. reserve: natural pairs that no model is trained on otherwise. second: those
    of them that are there from the second language, under the same ids; a pair is drawn once, from either.
    tokens_per_example: sets of pairs have, within a share of `token_tolerance`, the totals of `tokens_of`; None: as
    they are drawn, like populations and pilots. Returns two dicts of tables: by name of the set; by kind, and pilots.
    Raises StudyError: too few pairs, no pairs of a second language, no pairs that match.
    """
    pools = {"reserve": reserve.sort_values("id"), None: reserve.sort_values("id")}
    if second is not None and len(second):
        pools["second"] = second.sort_values("id")
    taken: set[str] = set()
    count = _counter(tokenizer)
    aim = tokens_of(reserve, tokenizer, tokens_per_example) if tokens_per_example else None
    longest = count(reserve).max()

    def draw(name: str, kind: str, size: int, aim: np.ndarray | None = None) -> Pairs:
        rules = KINDS[kind]
        if rules["pairs"] not in pools:
            raise StudyError(
                f"{name}: there are no pairs of a second language. Name it in params.yaml, corpus.second_language "
                f"(fr, with the default corpus), or take the sets of kind {kind} out."
            )
        given = {"seed": seed, "tokenizer": tokenizer, "reserve": pools[rules["pairs"]], "taken": taken}
        if not rules["pairs"]:
            return rules["draw"](name, size, **given)
        left = rules["draw"](name, None, **given)
        left = left[count(left).max(axis=1) <= longest]  # another order of words may take a token more
        if size > len(left):
            raise StudyError(
                f"Too few pairs: {name} takes {size}, {len(left)} of {len(given['reserve'])} in split {rules['pairs']} "
                "are left. Lower sizes under forget_sets or populations, or corpus.core, in params.yaml."
            )
        if aim is not None:
            left = left.iloc[_swap(name, count(left), size, aim * size, token_tolerance, stream(seed, f"swap {name}"))]
        taken.update(left["id"][:size])
        return left[:size].reset_index(drop=True)

    # The order decides who takes what of the reserve: forget sets come last, so that one more changes none before it.
    wanted = {kind: size for kind, size in populations.items() if KINDS[kind]["pairs"] in pools}
    never = {kind: draw(name, kind, wanted[kind]) for name, kind in POPULATIONS.items() if kind in wanted}
    never |= {name: draw(name, kind, pilot) for name, kind in PILOT_KINDS.items()}
    drawn = {name: spec for name, spec in draws(blocks).items() if KINDS[spec["kind"]]["draw"]}
    return {name: draw(name, spec["kind"], spec["size"], aim) for name, spec in drawn.items()}, never


def tokens_of(reserve: Pairs, tokenizer: Tokenizer, tokens_per_example: float) -> np.ndarray:
    """(2,) source and target tokens an example that sets of pairs are matched to, end of sequence included.

    The second is given; the first is as many for each target token as the reserve has, so that natural sets stay what
    they are: tokens_per_example · (source tokens of the reserve) / (its target tokens).
    """
    source, target = _counter(tokenizer)(reserve).sum(axis=0)
    return np.array([tokens_per_example * source / target, tokens_per_example])


def _counter(tokenizer: Tokenizer) -> Callable[[Pairs], np.ndarray]:
    """Pairs -> (n, 2) tokens of source and target; a text is encoded once."""
    known: dict[str, int] = {}

    def count(pairs: Pairs) -> np.ndarray:
        new = list(dict.fromkeys(text for side in _SIDES for text in pairs[side] if text not in known))
        known.update(zip(new, lengths(tokenizer, new).tolist(), strict=True))
        return np.array([[known[text] if text else 0 for text in pairs[side]] for side in _SIDES], dtype=int).T

    return count


def _swap(
    name: str, tokens: np.ndarray, size: int, aim: np.ndarray, tolerance: float, rng: np.random.Generator
) -> np.ndarray:
    """(size,) rows of `tokens`, (n, 2), whose sums come within a share of `tolerance` of `aim`, (2,).

    From the first `size` rows on, a random member is swapped for a random one of those rows outside that bring the
    sums nearer; where none does, all starts again from other rows. Raises StudyError: from `_STARTS` starts in vain.
    """
    wanted = aim
    tokens, aim = tokens[:, aim > 0], aim[aim > 0]  # plain text has no source
    order, missed = np.arange(len(tokens)), []
    while len(missed) < _STARTS:
        total = tokens[order[:size]].sum(axis=0)
        off = np.abs(total / aim - 1).max()
        if off <= tolerance:
            return order[:size]
        for member in rng.permutation(size):
            others = total - tokens[order[member]] + tokens[order[size:]]
            nearer = np.flatnonzero(np.abs(others / aim - 1).max(axis=1) < off)
            if len(nearer):
                other = size + rng.choice(nearer)
                order[[member, other]] = order[[other, member]]
                break
        else:
            missed.append(off)
            order = rng.permutation(len(tokens))
    raise StudyError(
        f"{name}: no {size} of the {len(tokens)} pairs left were found that have {wanted[0]:.0f} source and "
        f"{wanted[1]:.0f} target tokens within {tolerance:.2%}; the nearest miss by {min(missed):.2%}. Raise "
        "design.token_tolerance, change design.tokens_per_example, or lower sizes under forget_sets."
    )


def read_own(
    name: str,
    path: Path | str,
    *,
    tokenizer: Tokenizer,
    max_tokens: int,
    protected: Sets,
    near_duplicate: float,
    fields: Fields | None = None,
) -> Pairs:
    """A user's forget set, id, source (may be empty) and target a row, exactly as it is written.

    protected: splits, populations and other forget sets, by name, that no example may (nearly) stand in, which is a
    token-set Jaccard of `near_duplicate` on source or target. Its id becomes `<name>:<id of the file>`.
    fields: what the file calls them, as in `read_examples`.
    Raises StudyError: its mistakes, one a row, with file, line and mend.
    """
    rows = read_examples(path, fields)
    table = pd.DataFrame([row for _, row in rows])
    origin = table["origin"].fillna(Path(path).name) if "origin" in table else Path(path).name
    wrong = dict[int, str]()
    for row, message in chain(_token_mistakes(table, tokenizer, max_tokens), _twins(table, protected, near_duplicate)):
        wrong.setdefault(row, message)
    refuse(f"{rows[row][0]}: {wrong[row]}" for row in sorted(wrong))
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
                        where = f"the {side} (nearly) stands in {split} as '{twin}' ({how})"
                        yield row, f"{where}. {why}: delete one of the two."


def examples_table(
    *, sets: Sets, blocks: Blocks, never: Sets, heldout: Pairs, core: Pairs, retain: int, tokenizer: Tokenizer
) -> Pairs:
    """Everything that is ever scored by example, one row each, without its text.

    Columns: example_id, forget_set (or a population, a pilot, heldout, retain: the core's first pairs), family (of the
    set, else the same), kind, origin, repetitions (0: no model is trained on it), n_source_tokens and n_tokens (of the
    target) with the end of sequence.
    """
    specs = draws(blocks)
    parts = [(name, specs[name]["kind"], specs[name]["repetitions"], table) for name, table in sets.items()]
    for name, table in never.items():
        pilot = PILOT_KINDS.get(name)
        parts.append((name, pilot, 0, table) if pilot else (population(name), name, 0, table))
    parts += [("heldout", "natural", 0, heldout), ("retain", "natural", 1, core.iloc[:retain])]
    rows = []
    for name, kind, repetitions, table in parts:
        family = specs.get(name, {}).get("family", name)
        labels = {
            "forget_set": name,
            "family": family,
            "kind": kind,
            "origin": table["origin"],
            "repetitions": repetitions,
        }
        part = pd.DataFrame({"example_id": table["id"], **labels})
        part["n_source_tokens"] = lengths(tokenizer, table["source"].tolist()) * (table["source"] != "")
        rows.append(part.assign(n_tokens=lengths(tokenizer, table["target"].tolist())))
    return pd.concat(rows, ignore_index=True)
