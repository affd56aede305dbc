"""Named groups of examples, as text and as token ids: forget sets, never-trained populations, corpus splits."""

import json
from collections.abc import Iterable
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from datasets import load_from_disk
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from unlearning.data.corpus import SPLITS
from unlearning.data.kinds import PILOTS, POPULATIONS
from unlearning.data.languages import bleu_tokenizer_of
from unlearning.measure.models import Encoded, encode


class Group(NamedTuple):
    """Examples in a fixed order: `ids[i]` names `encoded[i]`."""

    ids: list[str]
    encoded: list[Encoded]

    def first(self, n: int) -> "Group":
        """The first `n` examples (all, when there are fewer)."""
        return Group(self.ids[:n], self.encoded[:n])


def together(groups: Iterable[Group]) -> Group:
    """All examples of several groups, one group after the other."""
    groups = list(groups)
    return Group([i for group in groups for i in group.ids], [x for group in groups for x in group.encoded])


@cache
def study_data(root: str) -> "StudyData":
    """The examples below an absolute path, read once by a process that runs many tasks."""
    return StudyData(root)


class StudyData:
    """Where stages find examples, below one folder (`data/`): encoded when first needed, then kept."""

    def __init__(self, root: Path | str = "data"):
        self.root = Path(root)
        self.group = cache(self._group)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The track's tokenizer."""
        return AutoTokenizer.from_pretrained(self.root / "tokenizer")

    @cached_property
    def bleu_tokenizer(self) -> str:
        """The name of sacrebleu's tokenizer for the corpus' target language."""
        return bleu_tokenizer_of(self.root / "corpus")

    def _group(self, name: str) -> Group:
        """A forget set, a population, a pilot set, or a corpus split; FileNotFoundError where it was not drawn."""
        if name in SPLITS:
            table = load_from_disk(str(self.root / "corpus"))[name].to_pandas()
        else:
            folder = "populations" if name in PILOTS or name in POPULATIONS else "forget_sets"
            file = self.root / folder / f"{POPULATIONS.get(name, name)}.jsonl"
            # not splitlines: text may hold other line separators than the one between examples
            lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
            table = pd.DataFrame(map(json.loads, lines))
        return Group(list(table["id"]), encode(self.tokenizer, table["source"], table["target"]))
