"""Read and check params.yaml: whatever is wrong there is told in one message, with its line and what mends it.

`python -m tools.settings` checks params.yaml and the files of one's own forget sets, in a second.
"""

import json
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from tools.mistakes import Place, mistakes
from tools.schema import Model, OwnSet, Pretrained, Settings
from unlearning.data.jsonl import read_examples
from unlearning.errors import StudyError

PARAMS = "params.yaml"
_TYPES = {"float_type": "a number", "int_type": "a whole number", "string_type": "text", "bool_type": "true or false"}


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
    for place, message in mistakes(settings):
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


# Files of the user's


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
