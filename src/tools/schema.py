"""What may stand in params.yaml: one class a block, every key named, nothing else accepted."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Betas = Annotated[list[Beta], Field(min_length=2, max_length=2)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Loss = Literal["mean", "sum"]


def _whole_or_size(value: int | str) -> int | str:
    if value == "whole" or (isinstance(value, int) and value >= 1):
        return value
    raise ValueError("Write whole, or a whole number from 1")


BatchMode = Annotated[int | str, AfterValidator(_whole_or_size)]


class Block(BaseModel):
    """A block of settings: no unknown key, no silent conversion ("1" is no number)."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Corpus(Block):
    """Which text, which of it is left out, and how it is split."""

    name: Literal["localisation", "wmt14", "jsonl"]
    path: str | None = None
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

    kind: Literal["natural", "canary", "secret"]
    size: Positive
    repetitions: Positive


class OwnSet(Block):
    """A forget set of the user's own: a JSONL file."""

    kind: Literal["own"]
    path: str
    repetitions: Positive


class Populations(Block):
    """Never-trained examples of each generator."""

    natural: Positive
    canary: Positive
    secret: Positive
    pilot: Positive
    followed: Positive


class Design(Block):
    """Size of the balanced design."""

    models: Positive
    min_free_columns: NotNegative


class Model(Block):
    """Configuration of the T5 model."""

    d_model: Positive
    d_kv: Positive
    d_ff: Positive
    num_heads: Positive
    num_layers: Positive
    feed_forward_proj: Literal["gated-gelu", "gated-gelu_pytorch_tanh", "relu"]
    tie_word_embeddings: bool


class Pretrained(Block):
    """A pre-trained model in its place: a folder, or a repository of the Hugging Face hub at one commit."""

    path: str | None = None
    hub: str | None = None
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None


def _kind_of_model(block: object) -> str:
    return "pretrained" if isinstance(block, dict) and {"path", "hub"} & set(block) else "scratch"


class Training(Block):
    """What every training has, whatever its optimizer."""

    loss: Loss
    learning_rate: PositiveFloat
    schedule: Literal["linear", "constant"]
    epochs: Positive
    warmup_steps: NotNegative
    batch_tokens: Positive
    dropout: Dropout
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


class ExactPartners(Block):
    """Models that are retrained with one forget set left out, or with another order."""

    optimizer: Literal["adamw", "adafactor"]
    models: Positive
    forget_sets: list[str]
    repeats: NotNegative


class Train(Block):
    """The fine-tuned models."""

    exact_partners: ExactPartners
    adamw: AdamWTraining
    adafactor: AdafactorTraining


class AscentMethod(Block):
    """What every method of ascent has."""

    learning_rate: PositiveFloat
    loss: Loss
    clip_norm: PositiveFloat | None = None


class AdamW(AscentMethod):
    """Ascent with AdamW, fresh state."""

    optimizer: Literal["adamw"]
    betas: Betas
    eps: PositiveFloat
    weight_decay: NotNegativeFloat


class SGD(AscentMethod):
    """Ascent with stochastic gradient descent."""

    optimizer: Literal["sgd"]
    momentum: Beta
    weight_decay: NotNegativeFloat


class Adafactor(AscentMethod):
    """Ascent with Adafactor, its second moments fresh or carried over from training."""

    optimizer: Literal["adafactor"]
    clip_threshold: PositiveFloat
    decay_rate: Annotated[float, Field(lt=0)]
    restored: bool
    freeze_second_moment: bool


class Pilot(Block):
    """How learning rates are chosen."""

    methods: Annotated[list[Name], Field(min_length=1)]
    grid: Annotated[list[PositiveFloat], Field(min_length=1)]
    k_star: Annotated[list[Positive], Field(min_length=2, max_length=2)]
    k_max: Positive


class Unlearn(Block):
    """How long an ascent goes on and what is scored on its way."""

    k_max: Positive
    dropout: Dropout
    batch: BatchMode
    beyond: Annotated[float, Field(ge=1, le=2)]
    heldout_fixed: Positive
    retain: Positive
    bleu_sentences: Positive
    bleu_tokens: Positive
    follow_every: Positive
    placebo_models: Positive
    placebo: list[str]


class Ascent(Block):
    """One ascent stage."""

    forget_set: str
    trained_with: str
    method: str


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
    seed: NotNegative
    threads_per_task: Positive
    precision: Literal["float32", "bfloat16"]
    device: Literal["cpu", "cuda"]
    corpus: Corpus
    forget_sets: Annotated[dict[Name, Annotated[DrawnSet | OwnSet, Field(discriminator="kind")]], Field(min_length=1)]
    populations: Populations
    design: Design
    model: Annotated[
        Annotated[Model, Tag("scratch")] | Annotated[Pretrained, Tag("pretrained")], Discriminator(_kind_of_model)
    ]
    base: Annotated[AdamWTraining | AdafactorTraining, Field(discriminator="optimizer")]
    train: Train
    methods: dict[Name, Annotated[AdamW | SGD | Adafactor, Field(discriminator="optimizer")]]
    pilot: Pilot
    unlearn: Unlearn
    ascents: Annotated[dict[Name, Ascent], Field(min_length=1)]
    claims: Claims
