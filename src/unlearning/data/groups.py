"""Named groups of examples, as text and as token ids: forget sets, never-trained populations, corpus splits."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from datasets import load_from_disk
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from unlearning.measure.models import Encoded, encode

SPLITS = ("public", "core", "heldout", "validation")


@dataclass(frozen=True)
class Group:
    """Examples in a fixed order: `ids[i]` names `encoded[i]`."""

    ids: list[str]
    encoded: list[Encoded]

    def first(self, n: int) -> "Group":
        """The first `n` examples (all, when there are fewer)."""
        return Group(self.ids[:n], self.encoded[:n])


class StudyData:
    """Where stages find examples, below one folder (`data/`): encoded when first asked for, then kept."""

    def __init__(self, root: Path | str = "data"):
        self.root = Path(root)
        self._groups: dict[str, Group] = {}

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The track's tokenizer."""
        return AutoTokenizer.from_pretrained(self.root / "tokenizer")

    def group(self, name: str) -> Group:
        """A forget set, `never-<kind>`, `pilot`, or a corpus split.

        Raises:
            FileNotFoundError: no such group was drawn.
        """
        if name not in self._groups:
            table = self._read(name)
            encoded = encode(self.tokenizer, table["source"], table["target"])
            self._groups[name] = Group(list(table["id"]), encoded)
        return self._groups[name]

    def _read(self, name: str) -> pd.DataFrame:
        if name in SPLITS:
            return load_from_disk(str(self.root / "corpus"))[name].to_pandas()
        kind = name.removeprefix("never-")
        folder = "populations" if name == "pilot" or kind != name else "forget_sets"
        lines = (self.root / folder / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines()
        return pd.DataFrame([json.loads(line) for line in lines])
