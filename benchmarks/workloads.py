"""The work that every arm gets: examples, model, settings, from the study's data or made up at toy size.

It is written to a folder, so that the processes of all arms read the same.
"""

import dataclasses
import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from unlearning.data.groups import StudyData
from unlearning.errors import StudyError
from unlearning.measure.models import Encoded, load_model, new_t5, save_model
from unlearning.measure.optimizers import make_optimizer
from tools import settings
from unlearning.measure.scoring import example_lengths
from unlearning.measure.training import epoch_batches, fit

disable_progress_bar()

SEED = 1
FIT = ("batch_tokens", "loss", "clip_norm")  # of a training block; schedule and warm-up are set below, see README
TRAIN_ROWS, DECODED, ASCENT_STEPS, START_EPOCHS = 2000, 200, 6, 4


@dataclass(frozen=True)
class Workload:
    """What all arms share.

    Attributes:
        model: arguments of T5Config.
        training: the study's block `train.adamw`.
        method: the study's block `methods.adamw`.
        width: longest source and longest target; what fixed-length padding pads both to.
        steps: updates of one ascent.
        tokenizer: its folder.
        start: folder of a trained model, from which ascents and translations start.
        device: where models lie: `cpu` or `cuda`.
    """

    model: dict
    vocabulary: int
    training: dict
    method: dict
    width: int
    train: list[Encoded]
    heldout: list[Encoded]
    watched: int  # held-out examples scored at every step of an ascent
    forget: list[Encoded]
    decoded: int  # held-out examples that are translated
    steps: int
    tokenizer: str
    start: str
    device: str = "cpu"

    def new_model(self, **changes: int) -> PreTrainedModel:
        """A random model of the study's configuration; `changes` to it, `vocabulary_size` among them."""
        size = changes.pop("vocabulary_size", self.vocabulary)
        return new_t5(self.model | changes, vocabulary_size=size, dropout=0.0, seed=SEED).to(self.device)

    def trained_model(self) -> PreTrainedModel:
        """The trained model, loaded anew."""
        return load_model(self.start).to(self.device)

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, loaded anew."""
        return AutoTokenizer.from_pretrained(self.tokenizer)

    def fit_settings(self, *, epochs: int = 1) -> dict:
        """Arguments of `fit`, with a constant learning rate."""
        chosen = {name: self.training[name] for name in FIT}
        return {**chosen, "schedule": "constant", "warmup_steps": 0, "epochs": epochs, "seed": SEED}

    def batches(self, *, epochs: int = 1) -> list[np.ndarray]:
        """The batches that `fit` makes of the training examples."""
        lengths = example_lengths(self.train)
        plan = {"budget": self.training["batch_tokens"], "seed": SEED}
        every = [epoch_batches(np.arange(len(self.train)), lengths, epoch=e, **plan) for e in range(epochs)]
        return [batch for epoch in every for batch in epoch]

    @functools.cached_property
    def batch_size(self) -> int:
        """Examples a batch for arms that count examples: as many batches an epoch as `fit` makes."""
        return round(len(self.train) / len(self.batches()))

    def small(self) -> "Workload":
        """A little of the same, to warm up. One example is scored, so that it leaves no memory for the real work."""
        few = {"train": self.train[: 2 * self.batch_size], "heldout": self.heldout[:1], "forget": self.forget[:8]}
        return dataclasses.replace(self, **few, steps=1)

    def save(self, folder: Path) -> None:
        """Write it for `load`."""
        (folder / "workload.json").write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")


def load(folder: Path | str) -> Workload:
    """Read what `save` wrote."""
    found = json.loads((Path(folder) / "workload.json").read_text(encoding="utf-8"))
    for name in ("train", "heldout", "forget"):
        found[name] = [(source, target) for source, target in found[name]]
    return Workload(**found)


def tokens(examples: list[Encoded]) -> int:
    """Source and target tokens; padding does not count."""
    return int(example_lengths(examples).sum())


def real(folder: Path) -> Workload:
    """The study's data, settings and model size; the start is its first base model, else one trained briefly here.

    Raises:
        StudyError: the data are not there.
    """
    if not Path("data/corpus").is_dir() or not Path("data/forget_sets").is_dir():
        raise StudyError("the benchmark takes the study's data, which are not there. Make them: dvc repro forget_sets")
    study, found = StudyData("data"), settings.load().model_dump()
    work = Workload(
        model=found["model"],
        vocabulary=len(study.tokenizer),
        training=found["train"]["adamw"],
        method=found["methods"]["adamw"],
        width=found["corpus"]["max_tokens"],
        train=study.group("core").encoded[:TRAIN_ROWS],
        heldout=study.group("heldout").encoded,
        watched=found["unlearn"]["heldout_fixed"],
        forget=study.group("ind-a").encoded,
        decoded=DECODED,
        steps=ASCENT_STEPS,
        tokenizer=str(Path("data/tokenizer").resolve()),
        start=str(folder / "start"),
    )
    base = Path("models/base/0/config.json")
    if base.exists():
        return dataclasses.replace(work, start=str(base.parent.resolve()))
    return _with_start(work, epochs=START_EPOCHS)


def toy(folder: Path) -> Workload:
    """Made-up examples and a model of some thousand parameters, for tests."""
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {f"w{i}": i for i in range(3, 60)}
    inner = Tokenizer(WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = WhitespaceSplit()
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(folder / "tokenizer")
    adamw = {"learning_rate": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, "loss": "mean"}
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2, "num_layers": 1}
    work = Workload(
        model={**sizes, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": True},
        vocabulary=len(words),
        training={**adamw, "batch_tokens": 128, "clip_norm": 1.0},
        method={**adamw, "learning_rate": 5e-5},
        width=16,
        train=_made_up(60, seed=0),
        heldout=_made_up(24, seed=1),
        watched=10,
        forget=_made_up(12, seed=2),
        decoded=10,
        steps=2,
        tokenizer=str(folder / "tokenizer"),
        start=str(folder / "start"),
    )
    return _with_start(work, epochs=1)


def _made_up(n: int, *, seed: int) -> list[Encoded]:
    generator = np.random.default_rng(seed)

    def side() -> list[int]:
        return [*generator.integers(3, 60, generator.integers(1, 12)).tolist(), 1]

    return [(side(), side()) for _ in range(n)]


def _with_start(work: Workload, *, epochs: int) -> Workload:
    """Train the start model (untimed): a random one would not end its translations as a real one does."""
    model = work.new_model()
    optimizer = make_optimizer(model.parameters(), "adamw", work.training)
    for _ in fit(
        model,
        optimizer,
        work.train,
        np.arange(len(work.train)),
        precision="float32",
        **work.fit_settings(epochs=epochs),
    ):
        pass
    save_model(model, work.start)
    return work
