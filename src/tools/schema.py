"""What may stand in params.yaml: each block by its keys and their types, every key named, nothing else accepted."""

import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationInfo, create_model

from unlearning.data.design import BASE
from unlearning.data.kinds import KINDS, PILOTS, POPULATIONS, family_names


class Block(BaseModel):
    """A block of settings: no unknown key, no silent conversion ("1" is no number)."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def block(keys: dict[str, Any], base: type[Block] = Block, **defaults: Any) -> type[Block]:
    """A block of keys, those of one type in one string, and of (type, default) for those that may be left out."""
    needed = {key: (kind, ...) for listed, kind in keys.items() for key in listed.split()}
    return create_model("Settings", __base__=base, **needed, **defaults)


def _rule(mistake: Callable[[Any, ValidationInfo], Any]) -> AfterValidator:
    """Refuse a value that a function has a message for."""

    def check(value: Any, info: ValidationInfo) -> Any:
        if message := mistake(value, info):
            raise ValueError(message)
        return value

    return AfterValidator(check)


def _path_in(folder: str) -> Any:
    """A path of the user's, in the folder that dvc watches: a change elsewhere would go unnoticed."""

    def outside(path: str, _: ValidationInfo) -> str:
        inside = Path(folder) in Path(path).parents and ".." not in Path(path).parts
        told = f"It lies outside {folder}, which dvc watches. Move it to {folder}/{Path(path).name}"
        return "" if inside else told

    return Annotated[str, _rule(outside)]


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """The known name that a mistyped one is closest to, in a question; or what else mends it."""
    close = get_close_matches(name, known, n=1)
    return f"Did you mean '{close[0]}'?" if close else otherwise


def _known(block: str, what: str, names: Callable[[dict[str, Any]], Iterable[str]] = list) -> Any:
    """A name that another block of the file makes; all of the file is the context of its validation."""

    def unknown(name: str, info: ValidationInfo) -> str:
        found = info.context.get(block)
        choices = list(map(str, names(found) if isinstance(found, dict) else [name]))
        told = did_you_mean(name, choices, f"Take one of {', '.join(choices[:16])}{' …' if choices[16:] else ''}")
        return "" if name in choices else f"Unknown {what}. {told}"

    return Annotated[str, _rule(unknown)]


def _sets(blocks: dict[str, Any]) -> list[str]:
    """Names of the forget sets that well-formed families make."""
    whole = {n: b for n, b in blocks.items() if isinstance(b, dict) and isinstance(b.get("draws", 1), int)}
    return [name for names in family_names(whole).values() for name in names]


# Every number has an upper bound, far from what anybody wants: none makes the check hang, or a stage fail much later.
Positive = Annotated[int, Field(ge=1, le=10**6)]
NotNegative = Annotated[int, Field(ge=0, le=10**6)]
Few = Annotated[int, Field(ge=1, le=1000)]
PositiveFloat = Annotated[float, Field(gt=0, le=1e6)]
NotNegativeFloat = Annotated[float, Field(ge=0, le=1e6)]
NegativeFloat = Annotated[float, Field(ge=-100, lt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
NoEffect = Annotated[float, _rule(lambda value, _: value != 0 and "It has no effect here: write 0.0")]
_RESERVED = {BASE, *PILOTS, "nan", "null", "model", "heldout", "retain", "validation", "core", "public", "reserve"}
_taken = _rule(lambda n, _: (n in _RESERVED or n in POPULATIONS) and "Tables use this name. Rename the set")
_letters = re.compile("[a-z0-9]+(-[a-z0-9]+)*")
_odd = _rule(
    lambda n, _: (
        (len(n) > 60 or not _letters.fullmatch(n)) and "Rename it: at most 60 small letters, digits and single hyphens"
    )
)
Name = Annotated[str, _odd]
_size = _rule(lambda n, _: (n != "whole" if isinstance(n, str) else n < 1) and "Write whole, or a whole number from 1")
SetName, Family = _known("forget_sets", "forget set", _sets), _known("forget_sets", "family")
Ascended = _known("forget_sets", "family or forget set", lambda blocks: dict.fromkeys([*blocks, *_sets(blocks)]))
ArmName = _known("arms", "arm")
Two = Field(min_length=2, max_length=2)
Some = Field(min_length=1)
Drawn = Literal[tuple(name for name, kind in KINDS.items() if kind["draw"])]
Populated = Literal[tuple(name for name, kind in KINDS.items() if kind["population"])]
Optimizer = Literal["adamw", "adafactor"]

# What a file of the user's calls our fields; one that is not named is not read, but for `id` and `group`.
FIELDS = {"source": (str | None, None), "group": (str | None, None)}
CORPUS_FIELDS = block({"target": str}, **FIELDS)
SET_FIELDS = block({"target": str}, **FIELDS, id=(str | None, None))

CORPUS = block(
    {
        "name": Literal["localisation", "wmt14", "jsonl"],
        "package version archive source_language target_language": str,
        "sha256": Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")],
        "min_words max_words max_tokens core heldout validation": Positive,
        "vocabulary_size": Annotated[int, Field(ge=300, le=10**6)],
        "near_duplicate": Annotated[float, Field(gt=0, le=1)],
        "public_share": Share,
    },
    path=(_path_in("own/corpus") | None, None),
    fields=(CORPUS_FIELDS | None, None),
    second_language=(str | None, None),
    limit=(Annotated[int, Field(ge=1, le=10**8)] | None, None),
    preview=(NotNegative, 0),
)

# Families of forget sets: drawn by the study, once or several times, or a file of the user's.
DRAWN = block({"kind": Drawn, "size": Positive, "repetitions": Few}, draws=(Annotated[int, Field(ge=2, le=26)], None))
OWN = block(
    {"kind": Literal["own"], "path": _path_in("own/forget_sets"), "repetitions": Few},
    fields=(SET_FIELDS | None, None),
)

# A model: a new T5, a folder of the user's, or one commit of a repository of the Hugging Face hub.
NEW_MODEL = block(
    {
        "num_heads num_layers": Few,
        "d_model d_kv d_ff": Annotated[int, Field(ge=1, le=2**16)],
        "feed_forward_proj": Literal["gated-gelu", "gated-gelu_pytorch_tanh", "relu"],
        "tie_word_embeddings": Literal[True],  # this version of the library does not untie them
    }
)
MODEL_IN_FOLDER = block({"path": _path_in("own/models")})
MODEL_OF_HUB = block({"hub": str, "revision": Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]})


_kind = Discriminator(lambda m: next((f"<{k}>" for k in ("path", "hub") if isinstance(m, dict) and k in m), "<new>"))
MODEL = Annotated[
    Annotated[NEW_MODEL, Tag("<new>")]
    | Annotated[MODEL_IN_FOLDER, Tag("<path>")]
    | Annotated[MODEL_OF_HUB, Tag("<hub>")],
    _kind,
]

# Training and ascent: what is common, then what an optimizer adds.
LOSS = {"loss": Literal["mean", "sum"], "learning_rate": PositiveFloat}
ADAMW = {"optimizer": Literal["adamw"], "betas": Annotated[list[Fraction], Two], "eps": PositiveFloat}
ADAFACTOR = {"optimizer": Literal["adafactor"], "clip_threshold": PositiveFloat, "decay_rate": NegativeFloat}
TRAINING = LOSS | {
    "schedule": Literal["linear", "constant"],
    "epochs": Few,
    "batch_tokens": Positive,
    "warmup_steps": NotNegative,
    "dropout": Fraction,
    "clip_norm": PositiveFloat | None,
}
ADAMW_TRAINING = block(TRAINING | ADAMW | {"weight_decay": NotNegativeFloat})
ADAFACTOR_TRAINING = block(TRAINING | ADAFACTOR | {"weight_decay": NoEffect})
PARTNERS = block({"models": Few, "repeats": NotNegative, "forget_sets": list[SetName]})

# Arms: models of one training, unlearned by one method; `rate` multiplies the learning rate.
ARM = block(
    LOSS | {"trained_with": Optimizer, "method": Name},
    rate=(PositiveFloat, 1.0),
    clip_norm=(PositiveFloat | None, None),
)
ARMS = (
    block(ADAMW | {"weight_decay": NotNegativeFloat}, ARM)
    | block(ADAFACTOR | {"restored freeze_second_moment": bool}, ARM)
    | block({"optimizer": Literal["sgd"], "momentum": Fraction, "weight_decay": NotNegativeFloat}, ARM)
)

PILOT = {"size k_max": Positive, "arms": Annotated[list[ArmName], Some], "grid": Annotated[list[PositiveFloat], Some]}
UNLEARN = {
    "k_max heldout_fixed retain bleu_sentences bleu_tokens follow_every followed": Positive,
    "dropout": NoEffect,
    "batch": Annotated[int | str, _size],
    "beyond": Annotated[float, Field(ge=1, le=2)],
    "placebo": list[ArmName],
}
DESIGN = {
    "models": Annotated[int, Field(ge=1, le=128)],
    "in_models placebo_models": Few,
    "min_free_columns": NotNegative,
    "largest_alias": Annotated[float, Field(ge=0.1, le=1)],  # for less, the search for a larger design takes minutes
    "tokens_per_example": PositiveFloat | None,
    "token_tolerance": Share,
}
DELTA = {
    "C1_auc C5_rho C6_rho identifiable_rho": Share,
    "C1_outside": Annotated[list[Share], Two],
    "C2_share_of_k_star C3_nats_per_token C4_nats_per_token": PositiveFloat,
}

Settings = block(
    {
        "track": str,
        "seed": Annotated[int, Field(ge=0, lt=2**32)],
        "threads_per_task": Few,
        "precision": Literal["float32", "bfloat16"],
        "device": Literal["cpu", "cuda"],
        "corpus": CORPUS,
        "forget_sets": Annotated[
            dict[Annotated[Name, _taken], Annotated[DRAWN | OWN, Field(discriminator="kind")]], Some
        ],
        "populations": Annotated[dict[Populated, Positive], Some],
        "design": block(DESIGN),
        "model": MODEL,
        "base": Annotated[ADAMW_TRAINING | ADAFACTOR_TRAINING, Field(discriminator="optimizer")],
        "train": block({"exact_partners": PARTNERS, "adamw": ADAMW_TRAINING, "adafactor": ADAFACTOR_TRAINING}),
        "arms": dict[Name, Annotated[ARMS, Field(discriminator="optimizer")]],
        "pilot": block(PILOT | {"k_star": Annotated[list[Positive], Two]}),
        "unlearn": block(UNLEARN),
        "ascents": Annotated[dict[ArmName, Annotated[list[Ascended], Some]], Some],
        "extras": block({"draws out_models never wrong_targets relearned relearn_steps": Positive}),
        "claims": block(
            {"ind ood level": Family, "headline": list[ArmName], "confidence": Share, "delta": block(DELTA)}
        ),
    }
)

# The pipeline in neighbours/ has a file of its own: other methods on the same models, and where theory holds.
ADAM_OR_NOISY = {  # which of them an optimizer takes: `settings.load_beside`
    **{"betas": (Annotated[list[Fraction], Two] | None, None), "eps": (PositiveFloat | None, None)},
    **{"weight_decay": (NotNegativeFloat | None, None), "noise": (PositiveFloat | None, None)},
    **{"clip_norm": (PositiveFloat | None, None)},
}
_by_gradient, _weights = {"optimizer": Literal["adamw", "noisy-sgd"]}, {"forget retain": PositiveFloat}
_newton = {"retain iterations power steps": Positive, "damping": NotNegativeFloat}
METHODS = [
    block({"loss": Literal["ascent", "retain", "nothing"]} | _by_gradient, **ADAM_OR_NOISY),
    block({"loss": Literal["difference"]} | _weights | _by_gradient, **ADAM_OR_NOISY),
    block(
        {"loss": Literal["grail"], "mask": Literal["gradients", "random"]} | _weights | _by_gradient, **ADAM_OR_NOISY
    ),
    block({"loss": Literal["kl"], "weight": NotNegativeFloat} | _by_gradient, **ADAM_OR_NOISY),
    block({"loss": Literal["npo"], "beta": PositiveFloat} | _by_gradient, **ADAM_OR_NOISY),
    block({"loss": Literal["simnpo"], "beta": PositiveFloat, "gamma": float} | _by_gradient, **ADAM_OR_NOISY),
    block({"loss": Literal["newton"]} | _newton),
]
_rates = {"family": Family, "grid": Annotated[list[PositiveFloat], Some], "k_star": Annotated[list[Positive], Two]}
_heads = {
    "iterations power steps draws": Positive,
    "families": Annotated[list[Family], Two],
    "damping tolerance epsilon": PositiveFloat,
    "delta": Share,
}
_risk = {"rows draws training_steps most": Positive, "shift alpha epsilon": PositiveFloat}
NEIGHBOURS = {
    "trained_with": Optimizer,
    "draws": Annotated[dict[Family, Positive], Some],
    "models k_max follow_every": Positive,
    "pilot": block(_rates | {"k_max": Positive}),
    "masks": block({"examples": Positive, "share": Annotated[list[Share], Two]}),
    "methods": Annotated[dict[Name, Annotated[Union[tuple(METHODS)], Field(discriminator="loss")]], Some],  # noqa: UP007
}
DETECTION = {"arm": ArmName, "inside": Populated, "examples core folds": Positive, "penalty": PositiveFloat}
_several = Annotated[list[Positive], Some]
THEORY = {
    "base": Literal[0, 1],
    "penalty": PositiveFloat,
    "newton": block(_heads | {"forget": _several}),
    "trimmed": block(_risk | {"forget": _several}),
}
Beside = block({"neighbours": block(NEIGHBOURS), "detection": block(DETECTION), "theory": block(THEORY)})
