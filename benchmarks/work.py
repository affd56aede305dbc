"""The work that every arm gets: examples, model, settings."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from unlearning.data.groups import StudyData
from unlearning.measure.models import Encoded, load_model, new_t5
from unlearning.measure.scoring import example_lengths
from unlearning.measure.training import epoch_batches

disable_progress_bar()

SEED = 1
ROWS, DECODED, STEPS = 2000, 200, 6  # training examples, translations, ascent steps


@dataclass(frozen=True)
class Work:
    """What all arms share."""

    model: dict  # arguments of T5Config
    vocabulary: int
    training: dict  # the study's settings of AdamW, params.yaml's train.adamw
    ascent: dict  # and arms.adamw
    width: int  # longest source and longest target; padding to a fixed length pads both to it
    train: list[Encoded]
    heldout: list[Encoded]
    forget: list[Encoded]
    watched: int  # held-out examples scored at every step of an ascent
    decoded: int  # held-out examples that are translated
    steps: int  # updates of one ascent
    tokenizer: str  # its folder
    start: str  # folder of the trained model from which ascents and translations start
    device: str = "cpu"

    def new_model(self, vocabulary: int = 0) -> PreTrainedModel:
        """A random model of the study's configuration, with its vocabulary or another one."""
        size = {"vocabulary_size": vocabulary or self.vocabulary}
        return new_t5(self.model, **size, dropout=0.0, seed=SEED).to(self.device)

    def trained_model(self) -> PreTrainedModel:
        """The trained model, loaded anew."""
        return load_model(self.start).to(self.device)

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, loaded anew."""
        return AutoTokenizer.from_pretrained(self.tokenizer)

    def batches(self, epochs: int = 1) -> list[np.ndarray]:
        """The batches that the study's `fit` makes of the training examples."""
        plan = {"budget": self.training["batch_tokens"], "seed": SEED}
        rows, lengths = np.arange(len(self.train)), example_lengths(self.train)
        return [batch for epoch in range(epochs) for batch in epoch_batches(rows, lengths, epoch=epoch, **plan)]

    @cached_property
    def batch_size(self) -> int:
        """Examples a batch for arms that count examples: as many batches an epoch as `fit` makes."""
        return round(len(self.train) / len(self.batches()))

    def little(self) -> "Work":
        """A little of the same, to warm up. One example is scored, so that it leaves no memory for the real work."""
        few = {"train": self.train[: 2 * self.batch_size], "heldout": self.heldout[:1], "forget": self.forget[:8]}
        return dataclasses.replace(self, **few, steps=1)


def tokens(examples: list[Encoded]) -> int:
    """Source and target tokens; padding does not count."""
    return int(example_lengths(examples).sum())


def real(folder: Path) -> Work:
    """The study's data, settings and model; the start is its first base model, where there is one, else in `folder`."""
    if not Path("data/corpus").is_dir() or not Path("data/forget_sets").is_dir():
        raise SystemExit("The benchmark takes the study's data, which are not there. Make them: dvc repro forget_sets")
    study, params = StudyData("data"), YAML(typ="safe", pure=True).load(Path("params.yaml"))
    base = Path("models/base/0").resolve()
    names = {"train": "core", "heldout": "heldout", "forget": next(iter(params["forget_sets"]))}
    examples = {side: study.group(name).encoded for side, name in names.items()}
    counts = {"watched": params["unlearn"]["heldout_fixed"], "decoded": DECODED, "steps": STEPS}
    return Work(
        model=params["model"],
        vocabulary=len(study.tokenizer),
        training=params["train"]["adamw"],
        ascent=params["arms"]["adamw"],
        width=params["corpus"]["max_tokens"],
        tokenizer=str(Path("data/tokenizer").resolve()),
        start=str(base if (base / "config.json").exists() else folder / "start"),
        **examples | {"train": examples["train"][:ROWS]},
        **counts,
    )
