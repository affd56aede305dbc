"""Read and check params.yaml: whatever is wrong there is told in one message, with its line and what mends it.

`python -m unlearning.pipeline.settings` checks params.yaml and the files of one's own forget sets, in a second.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from unlearning.data.jsonl import read_examples
from unlearning.design import BASE, assign_columns
from unlearning.errors import StudyError
from unlearning.pipeline.schema import Model, OwnSet, Pretrained, Settings

PARAMS = "params.yaml"
_RESERVED = {BASE, "model", "pilot", "heldout", "retain", "validation", "core", "public", "reserve"}
_TYPES = {"float_type": "a number", "int_type": "a whole number", "string_type": "text", "bool_type": "true or false"}
Place = tuple[str | int, ...]


def load(path: Path | str = PARAMS) -> Settings:
    """The validated settings of a params file, read as DVC reads it (YAML 1.2: 1e-4 is a number).

    Raises:
        StudyError: the first mistake in the file, with line and mend.
    """
    marks = _parse(path)
    values = YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        found = [(_place(values, e["loc"]), e) for e in error.errors()]
        # a mistyped key is an unknown one and a missing one: the first of these is what the user sees in the file
        place, first = min(found, key=lambda item: (item[1]["type"] == "missing", _line(marks, item[0])))
        raise StudyError(f"{path}, line {_line(marks, place)}: {_explain(place, first)}") from None
    for place, message in _mistakes(settings):
        raise StudyError(f"{path}, line {_line(marks, place)}: {'.'.join(map(str, place))}: {message}")
    return settings


def _parse(path: Path | str) -> Any:
    """The file with its line numbers."""
    try:
        marks = YAML(typ="rt").load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(f"{path}: there is no such file. Run from the top of the repository.") from None
    except UnicodeDecodeError:
        raise StudyError(f"{path} is not UTF-8. Save it as UTF-8.") from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        problem = str(error.problem).splitlines()[0]
        raise StudyError(f"{path}, line {line}: not YAML ({problem}). Correct that line.") from None
    except YAMLError as error:
        raise StudyError(f"{path}: not YAML ({str(error).splitlines()[0]}).") from None
    if not isinstance(marks, dict):
        raise StudyError(f"{path}, line 1: holds no settings. Restore it with git checkout {path}.")
    return marks


def _line(marks: Any, place: Sequence[str | int]) -> int:
    """The line, from 1, of the deepest part of a place that stands in the file."""
    line = 1
    for key in place:
        if isinstance(marks, dict) and key in marks:
            line = marks.lc.key(key)[0] + 1
            marks = marks[key]
        elif isinstance(marks, list) and isinstance(key, int) and key < len(marks):
            line = marks.lc.item(key)[0] + 1
            marks = marks[key]
    return line


def _place(values: Any, loc: Sequence[str | int]) -> Place:
    """A pydantic location without the tags of unions, which do not stand in the file."""
    place: list[str | int] = []
    for i, key in enumerate(loc):
        listed = isinstance(values, list) and isinstance(key, int)
        inside = listed or (isinstance(values, dict) and key in values)
        if inside or (i == len(loc) - 1 and isinstance(values, dict)):
            place.append(key)
            values = values[key] if inside else None
    return tuple(place)


def _explain(place: Place, error: Any) -> str:
    """What is wrong and what mends it, in words."""
    name, kind, value = ".".join(map(str, place)), error["type"], error["input"]
    context = error.get("ctx", {})
    if kind == "extra_forbidden":
        close = get_close_matches(str(place[-1]), _known_keys(error["loc"]), n=1)
        hint = f" Did you mean '{close[0]}'?" if close else " Take it out."
        return f"unknown key '{name}'.{hint}"
    if kind == "missing":
        return f"the key '{name}' is missing. Put it back (git diff shows what was there)."
    if kind in _TYPES:
        quotes = ", without quotes, such as 1.0e-4" if kind == "float_type" and isinstance(value, str) else ""
        return f"{name} is {value!r}. Write {_TYPES[kind]}{quotes}."
    if kind == "literal_error":
        return f"{name} is {value!r}. Take one of {context['expected']}."
    if kind.startswith("union_tag"):
        tag = context["discriminator"].strip("'")
        given = context.get("tag")
        what = f"{name}.{tag} is {given!r}" if given else f"the key '{name}.{tag}' is missing"
        return f"{what}. Take one of {context.get('expected_tags', 'those that the comments name')}."
    if kind == "string_pattern_mismatch" and "[key]" in error["loc"]:
        return f"the name '{name}' has other characters than small letters, digits and single hyphens. Rename it."
    message = error["msg"].removeprefix("Value error, ").replace("Input should", "It should")
    return f"{name} is {value!r}. {message}."


def _known_keys(loc: Sequence[str | int]) -> list[str]:
    """The keys that may stand where an unknown one stood, found by walking the schema."""
    schema = Settings.model_json_schema()

    def alternatives(node: dict) -> list[dict]:
        options = [node, *node.get("oneOf", []), *node.get("anyOf", [])]
        return [schema["$defs"][o["$ref"].rpartition("/")[2]] if "$ref" in o else o for o in options]

    node = schema
    for key in loc[:-1]:
        options = alternatives(node)
        inner = [o["properties"][key] for o in options if key in o.get("properties", {})]
        inner += [o["additionalProperties"] for o in options if isinstance(o.get("additionalProperties"), dict)]
        node = inner[0] if inner else node
    return sorted({key for option in alternatives(node) for key in option.get("properties", {})})


# What no single value shows: how the blocks fit together


def _mistakes(s: Settings) -> Iterator[tuple[Place, str]]:
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
    for name, ascent in s.ascents.items():
        for key, choices in known.items():
            if getattr(ascent, key) not in choices:
                yield ("ascents", name, key), _unknown(getattr(ascent, key), key, choices)
                return
        if not name.startswith(f"{ascent.forget_set}-"):
            yield ("ascents", name), f"a stage is named <forget set>-<arm>. Rename it {ascent.forget_set}-…"
        method = s.methods[ascent.method]
        if getattr(method, "restored", False) and ascent.trained_with != "adafactor":
            yield (
                ("ascents", name, "trained_with"),
                f"{ascent.method} restores Adafactor's moments, which training with {ascent.trained_with} does not "
                "have. Set trained_with: adafactor, or another method.",
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


def check_own_files(settings: Settings, path: Path | str = PARAMS) -> None:
    """Read each forget set of the user's own, line by line, and see that a model of their own is there.

    Near-duplicates are looked for in stage forget_sets.

    Raises:
        StudyError: the first mistake, with file, line and mend.
    """
    folder = settings.model.path if isinstance(settings.model, Pretrained) else None
    if folder and not Path(folder).is_dir():
        line = _line(_parse(path), ("model", "path"))
        raise StudyError(f"{path}, line {line}: there is no folder {folder}. Correct the path.")
    for name, spec in settings.forget_sets.items():
        if isinstance(spec, OwnSet):
            if not Path(spec.path).is_file():
                line = _line(_parse(path), ("forget_sets", name, "path"))
                raise StudyError(f"{path}, line {line}: there is no file {spec.path}. Correct the path.")
            for number, row in read_examples(spec.path):
                if not row["source"].strip() and _needs_a_source(settings.model):
                    raise StudyError(
                        f"{spec.path}, line {number}: the source is empty, and the model is an encoder-decoder. Write "
                        "what the target answers to; only a decoder-only model does without."
                    )


def _needs_a_source(model: Model | Pretrained) -> bool:
    """Is it an encoder-decoder model? (One of the hub is not here yet, and passes.)"""
    if isinstance(model, Model):
        return True
    config = Path(model.path or "", "config.json")
    return config.is_file() and bool(json.loads(config.read_text(encoding="utf-8")).get("is_encoder_decoder"))


def main(arguments: Sequence[str]) -> NoReturn:
    """Check a params file and the forget sets it names; exit 1 with one message if something is wrong."""
    path = arguments[0] if arguments else PARAMS
    try:
        check_own_files(load(path), path)
    except StudyError as error:
        sys.exit(f"{error}")
    print(f"{path}: ok")
    sys.exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
