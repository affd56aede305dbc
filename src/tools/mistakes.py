"""What no single value of params.yaml shows: how its blocks fit together."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from tools.schema import Model, OwnSet, Pretrained, Settings
from unlearning.data.design import BASE, assign_columns
from unlearning.errors import StudyError

_RESERVED = {BASE, "model", "pilot", "heldout", "retain", "validation", "core", "public", "reserve"}
_OTHER_RATE = {"-half": 0.5, "-double": 2.0}  # arms that are shown beside C2 alone (reading.study.OTHER_RATES)
Place = tuple[str | int, ...]


def mistakes(s: Settings) -> Iterator[tuple[Place, str]]:
    """Each place where one block contradicts another, and what mends it."""
    yield from _path_mistakes(s)
    yield from _corpus_mistakes(s)
    yield from _model_mistakes(s)
    yield from _set_mistakes(s)
    yield from _ascent_mistakes(s)
    yield from _reference_mistakes(s)
    yield from _without_effect(s)


def _without_effect(s: Settings) -> Iterator[tuple[Place, str]]:
    """Values that would change nothing: better refused than reported in a paper."""
    if s.unlearn.dropout:
        yield ("unlearn", "dropout"), "has no effect: ascent runs without dropout. Write 0.0."
    if isinstance(s.model, Model) and not s.model.tie_word_embeddings:
        yield ("model", "tie_word_embeddings"), "does not untie them in this version of the library. Write true."
    if s.train.adafactor.weight_decay:
        yield ("train", "adafactor", "weight_decay"), "has no effect: Adafactor runs without it. Write 0.0."


def _path_mistakes(s: Settings) -> Iterator[tuple[Place, str]]:
    """A user's file outside the folder that dvc watches: a change of it would go unnoticed."""
    paths: list[tuple[Place, str, str | None]] = [(("corpus", "path"), "own/corpus", s.corpus.path)]
    paths += [
        (("forget_sets", name, "path"), "own/forget_sets", spec.path)
        for name, spec in s.forget_sets.items()
        if isinstance(spec, OwnSet)
    ]
    if isinstance(s.model, Pretrained):
        paths.append((("model", "path"), "own/models", s.model.path))
    for place, folder, path in paths:
        if path and (".." in Path(path).parts or Path(folder) not in Path(path).parents):
            yield place, f"{path} lies outside {folder}, which dvc watches. Move it to {folder}/{Path(path).name}."


def _corpus_mistakes(s: Settings) -> Iterator[tuple[Place, str]]:
    if s.corpus.name == "jsonl" and not s.corpus.path:
        yield ("corpus", "path"), "name the JSONL file of your corpus here."
    if s.corpus.min_words > s.corpus.max_words:
        yield ("corpus", "min_words"), f"is above max_words ({s.corpus.max_words}). Lower it."
    for key, limit in {"retain": "core", "heldout_fixed": "heldout", "bleu_sentences": "heldout"}.items():
        if getattr(s.unlearn, key) > getattr(s.corpus, limit):
            yield ("unlearn", key), f"is above corpus.{limit} ({getattr(s.corpus, limit)}). Lower it."
    if s.unlearn.bleu_tokens < s.corpus.max_tokens:
        yield (
            ("unlearn", "bleu_tokens"),
            f"would cut translations: corpus.max_tokens is {s.corpus.max_tokens}. Raise it.",
        )
    smallest = min(s.populations.natural, s.populations.canary, s.populations.secret)
    if s.populations.followed > smallest:
        yield ("populations", "followed"), f"is above the smallest population ({smallest}). Lower it."
    if s.pilot.k_star[0] > s.pilot.k_star[1] or s.pilot.k_star[1] > s.pilot.k_max:
        yield ("pilot", "k_star"), "write the lower step first, and none above pilot.k_max."
    for name in s.pilot.methods:
        if name not in s.methods:
            yield ("pilot", "methods"), _unknown(name, "method", list(s.methods))


def _model_mistakes(s: Settings) -> Iterator[tuple[Place, str]]:
    """What a pre-trained model lacks to be one certain model."""
    if isinstance(s.model, Pretrained):
        if not s.model.path and not s.model.hub:
            yield ("model", "path"), "name the folder of the model here, or hub and revision in its place."
        if s.model.path and s.model.hub:
            yield ("model", "hub"), "a model is a folder (path) or comes from the hub. Take one of the two out."
        if s.model.hub and not s.model.revision:
            yield ("model", "hub"), "say which commit: revision, 40 hexadecimal digits."
        if s.model.revision and not s.model.hub:
            yield ("model", "revision"), "goes with hub, not with a folder. Take it out."


def _set_mistakes(s: Settings) -> Iterator[tuple[Place, str]]:
    for name in s.forget_sets:
        if name in _RESERVED or name.startswith("never-"):
            yield ("forget_sets", name), "the tables use this name for something else. Rename the set."
    kinds = {name: spec.kind for name, spec in s.forget_sets.items()}
    try:
        assign_columns(kinds, models=s.design.models, min_free_columns=s.design.min_free_columns)
    except StudyError as error:
        yield ("design", "models"), str(error)


def _ascent_mistakes(s: Settings) -> Iterator[tuple[Place, str]]:
    trained = [name for name in type(s.train).model_fields if name != "exact_partners"]
    known = {"forget_set": list(s.forget_sets), "method": list(s.methods), "trained_with": trained}
    arms: dict[str, str] = {}
    for name, ascent in s.ascents.items():
        for key, choices in known.items():
            if getattr(ascent, key) not in choices:
                yield ("ascents", name, key), _unknown(getattr(ascent, key), key, choices)
                return
        if not name.startswith(f"{ascent.forget_set}-"):
            yield ("ascents", name), f"a stage is named <forget set>-<arm>. Rename it {ascent.forget_set}-…"
        arm = name.removeprefix(f"{ascent.forget_set}-")
        first = s.ascents[arms.setdefault(arm, name)]
        if (ascent.trained_with, ascent.method) != (first.trained_with, first.method):
            yield (
                ("ascents", name),
                f"an arm is one method from models of one training: {arms[arm]} takes {first.method} from models "
                f"trained with {first.trained_with}. Take the same here, or give the arm another name.",
            )
        if arm.endswith(tuple(_OTHER_RATE)) and arm.rpartition("-")[0] not in s.claims.headline:
            yield (
                ("ascents", name),
                f"an arm whose name ends in {' or '.join(_OTHER_RATE)} is a headline arm at another rate, shown beside "
                f"claim C2 alone, and {arm.rpartition('-')[0]} is none. Give it another name.",
            )
        yield from _other_rate_mistakes(s, name, arm)
        method = s.methods[ascent.method]
        if getattr(method, "restored", False) and ascent.trained_with != "adafactor":
            yield (
                ("ascents", name, "trained_with"),
                f"{ascent.method} restores Adafactor's moments, which training with {ascent.trained_with} does not "
                "have. Set trained_with: adafactor, or another method.",
            )


def _other_rate_mistakes(s: Settings, name: str, arm: str) -> Iterator[tuple[Place, str]]:
    """Half or double the rate in name only."""
    ascent, (base, _, ending) = s.ascents[name], arm.rpartition("-")
    once = next((a for other, a in s.ascents.items() if other == f"{a.forget_set}-{base}"), None)
    if f"-{ending}" not in _OTHER_RATE or base not in s.claims.headline or once is None or once.method not in s.methods:
        return
    method = s.methods[once.method]
    rate = method.learning_rate * _OTHER_RATE[f"-{ending}"]
    if once.trained_with != ascent.trained_with:
        yield ("ascents", name, "trained_with"), f"{base} is trained with {once.trained_with}. Set the same."
    elif s.methods[ascent.method].model_dump() != method.model_dump() | {"learning_rate": rate}:
        yield (
            ("ascents", name, "method"),
            f"is not {once.method} at {ending} its rate. Let methods.{ascent.method} have its settings, with "
            f"learning_rate: {rate:g}.",
        )


def _reference_mistakes(s: Settings) -> Iterator[tuple[Place, str]]:
    """Names elsewhere that must be those of forget sets or ascents."""
    partners = s.train.exact_partners
    for i, name in enumerate(partners.forget_sets):
        if name not in s.forget_sets:
            place = ("train", "exact_partners", "forget_sets", i)
            yield place, _unknown(name, "forget_set", list(s.forget_sets))
    half = s.design.models // 2
    if partners.models > half:
        yield ("train", "exact_partners", "models"), f"{half} models hold a set, not {partners.models}. Lower it."
    if s.unlearn.placebo_models > half:
        yield ("unlearn", "placebo_models"), f"{half} models never saw a set. Lower it."
    for i, name in enumerate(s.unlearn.placebo):
        if name not in s.ascents:
            yield ("unlearn", "placebo", i), _unknown(name, "ascent", list(s.ascents))
    if s.claims.ind == s.claims.ood:
        yield ("claims", "ood"), f"is {s.claims.ind}, as ind is: nothing to compare. Take another set."
    for key in ("ind", "ood"):
        name = getattr(s.claims, key)
        if name not in s.forget_sets:
            yield ("claims", key), _unknown(name, "forget_set", list(s.forget_sets))
        for i, arm in enumerate(s.claims.headline):
            if f"{name}-{arm}" not in s.ascents:
                message = f"there is no ascent {name}-{arm}. Add it under ascents, or take the arm out."
                yield ("claims", "headline", i), message


def _unknown(value: str, what: str, choices: Sequence[str]) -> str:
    close = get_close_matches(value, choices, n=1)
    mend = f"Did you mean '{close[0]}'?" if close else f"Take one of {', '.join(choices)}."
    return f"unknown {what.replace('_', ' ')} '{value}'. {mend}"
