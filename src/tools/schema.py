"""What may stand in params.yaml: one class a block, every key named, nothing else accepted."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

try:
    from unlearning.data.kinds import KINDS
except ImportError:
    KINDS = ("natural", "canary", "secret")

Kind = Literal[tuple(kind for kind in KINDS if kind != "own")]
Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Betas = Annotated[list[Fraction], Field(min_length=2, max_length=2)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Loss = Literal["mean", "sum"]
Optimizer = Literal["adamw", "adafactor"]


def _whole_or_size(value: int | str) -> int | str:
    if value == "whole" or (isinstance(value, int) and value >= 1):
        return value
    raise ValueError("Write whole, or a whole number from 1")


def _none(value: float) -> float:
    if value:
        raise ValueError("It has no effect here: write 0.0")
    return value


def _in(folder: str) -> Callable[[str | None], str | None]:
    """A path of the user's in the folder that dvc watches; a change elsewhere would go unnoticed."""

    def check(path: str | None) -> str | None:
        if path is not None and (".." in Path(path).parts or Path(folder) not in Path(path).parents):
            raise ValueError(f"It lies outside {folder}, which dvc watches. Move it to {folder}/{Path(path).name}")
        return path

    return check


Batch = Annotated[int | str, AfterValidator(_whole_or_size)]
NoEffect = Annotated[float, AfterValidator(_none)]


class Block(BaseModel):
    """A block of settings: no unknown key, no silent conversion ("1" is no number)."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Corpus(Block):
    """Which text, which of it is left out, and how it is split."""

    name: Literal["localisation", "wmt14", "jsonl"]
    path: Annotated[str | None, AfterValidator(_in("own/corpus"))] = None
    limit: Positive | None = None
    package: str
    version: str
    archive: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    source_language: str
    target_language: str
    min_words: Positive
    max_words: Positive
    max_tokens: Positive
    near_duplicate: Annotated[float, Field(gt=0, le=1)]
    public_share: Share
    core: Positive
    heldout: Positive
    validation: Positive
    vocabulary_size: Annotated[int, Field(ge=300)]
    preview: NotNegative = 0


class DrawnSet(Block):
    """A forget set that the study draws."""

    kind: Kind
    size: Positive
    repetitions: Positive


class OwnSet(Block):
    """A forget set of the user's own: a JSONL file."""

    kind: Literal["own"]
    path: Annotated[str, AfterValidator(_in("own/forget_sets"))]
    repetitions: Positive


class Design(Block):
    """Size of the balanced design."""

    models: Positive
    min_free_columns: NotNegative


class NewModel(Block):
    """Configuration of the T5 model."""

    d_model: Positive
    d_kv: Positive
    d_ff: Positive
    num_heads: Positive
    num_layers: Positive
    feed_forward_proj: Literal["gated-gelu", "gated-gelu_pytorch_tanh", "relu"]
    tie_word_embeddings: Literal[True]  # this version of the library does not untie them


class ModelInFolder(Block):
    """A pre-trained model of the user's own."""

    path: Annotated[str, AfterValidator(_in("own/models"))]


class ModelOfHub(Block):
    """A pre-trained model of the Hugging Face hub, at one commit."""

    hub: str
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


def _kind_of_model(block: Any) -> str:
    return next((f"<{key}>" for key in ("path", "hub") if isinstance(block, dict) and key in block), "<new>")


class Training(Block):
    """What every training has, whatever its optimizer."""

    loss: Loss
    learning_rate: PositiveFloat
    schedule: Literal["linear", "constant"]
    epochs: Positive
    warmup_steps: NotNegative
    batch_tokens: Positive
    dropout: Fraction
    weight_decay: NotNegativeFloat
    clip_norm: PositiveFloat | None


class AdamWTraining(Training):
    """Training with AdamW."""

    optimizer: Literal["adamw"]
    betas: Betas
    eps: PositiveFloat


class AdafactorTraining(Training):
    """Training with Adafactor, steps relative to each matrix' root mean square."""

    optimizer: Literal["adafactor"]
    clip_threshold: PositiveFloat
    decay_rate: Annotated[float, Field(lt=0)]
    weight_decay: NoEffect


class ExactPartners(Block):
    """Models that are retrained with one forget set left out, or with another order."""

    optimizer: Optimizer
    models: Positive
    forget_sets: list[str]
    repeats: NotNegative


class Train(Block):
    """The fine-tuned models."""

    exact_partners: ExactPartners
    adamw: AdamWTraining
    adafactor: AdafactorTraining


class Arm(Block):
    """Models of one training, unlearned by one method; `rate` multiplies the learning rate."""

    trained_with: Optimizer
    method: Name
    learning_rate: PositiveFloat
    rate: PositiveFloat = 1.0
    loss: Loss
    clip_norm: PositiveFloat | None = None

    def differences(self, other: "Arm") -> set[str]:
        """Settings in which two arms differ besides those that arms of one method may."""
        mine, theirs = (dict(arm.model_dump(exclude={"trained_with", "rate"})) for arm in (self, other))
        return {key for key in mine | theirs if mine.get(key) != theirs.get(key)}


class AdamW(Arm):
    """Ascent with AdamW, fresh state."""

    optimizer: Literal["adamw"]
    betas: Betas
    eps: PositiveFloat
    weight_decay: NotNegativeFloat


class SGD(Arm):
    """Ascent with stochastic gradient descent."""

    optimizer: Literal["sgd"]
    momentum: Fraction
    weight_decay: NotNegativeFloat


class Adafactor(Arm):
    """Ascent with Adafactor, its second moments fresh or carried over from training."""

    optimizer: Literal["adafactor"]
    clip_threshold: PositiveFloat
    decay_rate: Annotated[float, Field(lt=0)]
    restored: bool
    freeze_second_moment: bool


class Pilot(Block):
    """How learning rates are chosen."""

    size: Positive
    arms: Annotated[list[Name], Field(min_length=1)]
    grid: Annotated[list[PositiveFloat], Field(min_length=1)]
    k_star: Annotated[list[Positive], Field(min_length=2, max_length=2)]
    k_max: Positive


class Unlearn(Block):
    """How long an ascent goes on and what is scored on its way."""

    k_max: Positive
    dropout: NoEffect
    batch: Batch
    beyond: Annotated[float, Field(ge=1, le=2)]
    heldout_fixed: Positive
    retain: Positive
    bleu_sentences: Positive
    bleu_tokens: Positive
    follow_every: Positive
    followed: Positive
    placebo_models: Positive
    placebo: list[str]


class Ascent(Block):
    """One ascent stage."""

    forget_set: str
    arm: str


class Delta(Block):
    """The margins of the claims."""

    C1_auc: Share
    C1_outside: Share
    C2_share_of_k_star: PositiveFloat
    C3_nats_per_token: PositiveFloat
    C4_nats_per_token: PositiveFloat
    C5_rho: Share
    C6_rho: Share
    identifiable_rho: Share


class Claims(Block):
    """What the headline compares, and its margins."""

    ind: str
    ood: str
    headline: list[str]
    confidence: Share
    delta: Delta


class Settings(Block):
    """All of params.yaml."""

    track: str
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    threads_per_task: Positive
    precision: Literal["float32", "bfloat16"]
    device: Literal["cpu", "cuda"]
    corpus: Corpus
    forget_sets: Annotated[dict[Name, Annotated[DrawnSet | OwnSet, Field(discriminator="kind")]], Field(min_length=1)]
    populations: Annotated[dict[Kind, Positive], Field(min_length=1)]
    design: Design
    model: Annotated[
        Annotated[NewModel, Tag("<new>")] | Annotated[ModelInFolder, Tag("<path>")] | Annotated[ModelOfHub, Tag("<hub>")],
        Discriminator(_kind_of_model),
    ]
    base: Annotated[AdamWTraining | AdafactorTraining, Field(discriminator="optimizer")]
    train: Train
    arms: dict[Name, Annotated[AdamW | SGD | Adafactor, Field(discriminator="optimizer")]]
    pilot: Pilot
    unlearn: Unlearn
    ascents: Annotated[dict[Name, Ascent], Field(min_length=1)]
    claims: Claims
