"""Read and check params.yaml: whatever is wrong there is told at once, each mistake with its line and what mends it.

`python -m tools.settings` checks params.yaml and the user's own files and model, in seconds.
"""

import os
import reprlib
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

from tools import stages
from tools.schema import ARM, MODEL_IN_FOLDER, NEW_MODEL, OWN, Beside, Block, Settings, did_you_mean
from unlearning.data.design import assign_columns
from unlearning.data.kinds import KINDS, draws, family_names
from unlearning.data.languages import measures, wrong_languages
from unlearning.data.own_files import read_examples, read_pairs_of, refuse_empty_source
from unlearning.errors import StudyError, refuse

PARAMS, BESIDE = "params.yaml", "neighbours/params.yaml"
MOST_SETS = 60  # more make the search for a design take minutes
Place = tuple[str | int, ...]
_short = reprlib.Repr()  # of a value that a message repeats
_short.maxstring = _short.maxother = 80


def load(path: Path | str = PARAMS) -> Settings:
    """The valid settings of a file, read as DVC reads it (YAML 1.2: 1e-4 is a number); else all of its mistakes."""
    values, marks = _parse(path)
    return _valid(Settings, path, values, marks, context=values, rules=mistakes)


def load_beside(path: Path | str = BESIDE, *, study: Path | str = PARAMS) -> Beside:
    """The valid settings of the pipeline beside the study's, whose families and arms they name; else all mistakes."""
    values, marks = _parse(path)
    return _valid(Beside, path, values, marks, context=values | _parse(study)[0], rules=_lacking)


def _lacking(settings: Beside) -> Iterator[tuple[Place, str]]:
    takes = {"adamw": ("betas", "eps", "weight_decay"), "noisy-sgd": ("noise",)}
    for name, method in settings.neighbours.methods.items():
        for key in (k for k in takes.get(getattr(method, "optimizer", ""), ()) if getattr(method, k) is None):
            yield ("neighbours", "methods", name), f"{name} is unlearned with {method.optimizer}. Give it a {key}."


def _valid(
    schema: type[Block], path: Path | str, values: Any, marks: Any, *, context: Any, rules: Callable[..., Any]
) -> Any:
    try:
        settings = schema.model_validate(values, context=context)
        found = [(place, f"{'.'.join(map(str, place))}: {message}") for place, message in rules(settings)]
    except ValidationError as error:
        found = _explained(values, error.errors())
    refuse(f"{path}, line {line}: {message}" for line, message in sorted((_line(marks, p), m) for p, m in found))
    return settings


def _parse(path: Path | str) -> tuple[dict[str, Any], Any]:
    """The file's values, and the same with line numbers."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        _refuse_more_than_values(path, text)
        values, marks = YAML(typ="safe", pure=True).load(text), YAML().load(text)
    except FileNotFoundError:
        raise StudyError(f"{path}: there is no such file. Run from the top of the repository.") from None
    except UnicodeDecodeError:
        raise StudyError(f"{path} is not UTF-8. Save it as UTF-8.") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = str(getattr(error, "problem", error)).splitlines()[0]
        raise StudyError(f"{path}, line {mark.line + 1 if mark else '?'}: not YAML ({problem}). Correct it.") from None
    except ValueError as error:  # a date or a number that there is not
        raise StudyError(f"{path}: not YAML ({str(error)[:80]}). Correct it, or put it in quotes.") from None
    if not isinstance(values, dict):
        raise StudyError(f"{path}, line 1: holds no settings. Restore it with git checkout {path}.")
    return values, marks


def _refuse_more_than_values(path: Path | str, text: str) -> None:
    """Refuse tags, which make other objects, and what makes a check hang: deep nesting, aliases of aliases."""
    opened: list[bool] = []  # for each list or block around, whether it bears an anchor
    for event in YAML(typ="safe", pure=True).parse(text):
        if isinstance(event, CollectionStartEvent):
            opened.append(event.anchor is not None)
        elif isinstance(event, CollectionEndEvent):
            opened.pop()
        wrong = {
            "a tag (!…)": getattr(event, "tag", None) not in (None, "!"),
            "an alias (*…) within a block that has an anchor": isinstance(event, AliasEvent) and any(opened),
            "blocks nested too deeply": len(opened) > 10,
            "a hundred thousand characters": event.end_mark.index > 100_000,
        }
        for what in (what for what, holds in wrong.items() if holds):
            raise StudyError(f"{path}, line {event.start_mark.line + 1}: {what}. Settings are values: write them out.")


def _line(node: Any, place: Place) -> int:
    """The line, from 1, of the deepest part of a place that stands in the file."""
    line = 1
    with suppress(AttributeError, KeyError, TypeError):
        for key in place:
            line, node = node.lc.data[key][0] + 1, node[key]
    return line


def _place(values: Any, error: Any) -> Place:
    """Where a mistake is, without the tags of unions, which do not stand in the file."""
    place: list[str | int] = []
    for key in error["loc"]:
        with suppress(KeyError, IndexError, TypeError):
            values = values[key]
            place.append(key)
    if error["type"] == "missing":
        place.append(error["loc"][-1])
    elif error["type"].startswith("union_tag"):
        place.append(error["ctx"]["discriminator"].strip("'"))
    return tuple(place)


def _explained(values: Any, errors: list[Any]) -> list[tuple[Place, str]]:
    """Place and message of each mistake; a place is told once, and a key that is mistyped is not missing besides."""
    found: dict[Place, str] = {}
    for error in sorted(errors, key=lambda error: error["type"] == "missing"):
        place = _place(values, error)
        mistyped = f"Did you mean '{place[-1] if place else ''}'?"
        if error["type"] != "missing" or not any(p[:-1] == place[:-1] and mistyped in m for p, m in found.items()):
            found.setdefault(place, _explain(place, error))
    return list(found.items())


def _explain(place: Place, error: Any) -> str:
    """What is wrong and what mends it, in words."""
    name, kind, context = ".".join(str(part)[:80] for part in place), error["type"], error.get("ctx", {})
    is_what = f"{name} is {_short.repr(context.get('tag', error['input']))}."
    if kind in ("string_type", "invalid_key") and not isinstance(error["input"], str | list | dict | None):
        return f'{name}: a name or a text. Put it in quotes: "{str(error["input"])[:80]}".'
    if kind == "extra_forbidden":
        known = {key for block in [*Block.__subclasses__(), *ARM.__subclasses__()] for key in block.model_fields}
        return f"unknown key '{name}'. {did_you_mean(str(place[-1]), sorted(known), 'Take it out.')}"
    if kind in ("missing", "union_tag_not_found"):
        return f"the key '{name}' is missing. Put it back (git diff shows what was there)."
    if expected := context.get("expected") or context.get("expected_tags"):
        is_what = f"unknown key '{name}'." if "[key]" in error["loc"] else is_what
        return f"{is_what} Take one of {expected}."
    is_what = f"{name}:" if "[key]" in error["loc"] else is_what
    message = error["msg"].removeprefix("Value error, ").replace("Input should", "It should")
    return f"{is_what} {message}{'' if message.endswith('?') else '.'}"


# How blocks fit together


def mistakes(s: Settings) -> Iterator[tuple[Place, str]]:
    """Each place where one block contradicts another, and what mends it."""
    blocks = {name: spec.model_dump(exclude_none=True) for name, spec in s.forget_sets.items()}
    families = family_names(blocks)
    clashes = [(n, f) for f, names in families.items() for n in names if n != f and n in blocks]
    yield from ((("forget_sets", n), f"is also the name of a draw of {f}. Rename one of them.") for n, f in clashes)
    if clashes:  # all else speaks of sets by their names
        return
    half, corpus = s.design.models // 2, s.corpus
    if corpus.name == "jsonl" and not corpus.path:
        yield ("corpus", "path"), "name the JSONL file of your corpus here (or JSON, CSV, Parquet)."
    if corpus.name != "jsonl" and corpus.fields:
        yield ("corpus", "fields"), f"a corpus of {corpus.name} has no file of yours. Take it out."
    yield from _design_mistakes(s, {name: block["kind"] for name, block in draws(blocks).items()})
    yield from _language_mistakes(s)
    limits: dict[Place, tuple[float, float, str]] = {
        ("corpus", "min_words"): (corpus.min_words, corpus.max_words, "corpus.max_words is"),
        ("unlearn", "retain"): (s.unlearn.retain, corpus.core, "corpus.core is"),
        ("unlearn", "heldout_fixed"): (s.unlearn.heldout_fixed, corpus.heldout, "corpus.heldout is"),
        ("unlearn", "bleu_sentences"): (s.unlearn.bleu_sentences, corpus.heldout, "corpus.heldout is"),
        ("unlearn", "followed"): (s.unlearn.followed, min(s.populations.values()), "the smallest population has"),
        ("train", "exact_partners", "models"): (s.train.exact_partners.models, half, "models that hold a set:"),
        ("pilot", "k_star", 0): (*s.pilot.k_star, "the second step is"),
        ("pilot", "k_star", 1): (s.pilot.k_star[1], s.pilot.k_max, "pilot.k_max is"),
        ("claims", "delta", "C1_outside", 0): (*s.claims.delta.C1_outside, "the upper share is"),
    }
    for place, (value, limit, why) in limits.items():
        if value > limit:
            yield place, f"is too large ({why} {limit}). Lower it."
    if s.unlearn.bleu_tokens < corpus.max_tokens:
        yield ("unlearn", "bleu_tokens"), f"would cut translations: corpus.max_tokens is {corpus.max_tokens}. Raise it."
    pools = (None, "reserve", *["second"] * bool(corpus.second_language))  # what there is to draw from
    drawn = (name for name, rules in KINDS.items() if rules["population"] and rules["pairs"] in pools)
    for kind in sorted(name for name in drawn if name not in s.populations):
        yield ("populations",), f"how many examples of kind {kind} shall no model see? Write {kind}: 128."
    yield from _arm_mistakes(s)
    yield from _ascent_mistakes(s, families)


def _design_mistakes(s: Settings, kinds: dict[str, str]) -> Iterator[tuple[Place, str]]:
    """kinds: forget set -> kind."""
    design, half = s.design, s.design.models // 2
    if len(kinds) > MOST_SETS:
        yield ("forget_sets",), f"are {len(kinds)} sets, a design holds {MOST_SETS}. Take some out, or lower draws."
        return
    room = {"min_free_columns": design.min_free_columns, "largest_alias": design.largest_alias}
    try:
        assign_columns(kinds, models=design.models, **room)
    except StudyError as error:
        yield ("design", "models"), str(error)
    a_set = {
        "in_models": design.in_models,
        "placebo_models": -(-design.placebo_models // min(Counter(kinds.values()).values())),
    }
    for (key, models), side in zip(a_set.items(), ("hold", "never saw"), strict=True):
        if models > half:
            yield ("design", key), f"takes {models} models a set, and {half} {side} it. Lower it."


def _language_mistakes(s: Settings) -> Iterator[tuple[Place, str]]:
    corpus = s.corpus
    if corpus.second_language and corpus.name != "localisation":
        yield ("corpus", "second_language"), f"a corpus of {corpus.name} has one source language. Write null."
    if corpus.second_language in (corpus.source_language, corpus.target_language):
        yield ("corpus", "second_language"), f"is {corpus.second_language}, as another one is. Take a third."
    for name, spec in s.forget_sets.items():
        if spec.kind == "language" and not corpus.second_language:
            message = "there is no second language to draw it from. Name corpus.second_language, or take the set out."
            yield ("forget_sets", name), message


def _arm_mistakes(s: Settings) -> Iterator[tuple[Place, str]]:
    methods: dict[str, str] = {}
    for name, arm in s.arms.items():
        if getattr(arm, "restored", False) and arm.trained_with != "adafactor":
            message = f"training with {arm.trained_with} leaves no moments of Adafactor to restore. Write adafactor."
            yield ("arms", name, "trained_with"), message
        first = methods.setdefault(arm.method, name)
        mine, theirs = (a.model_dump(exclude={"trained_with", "rate"}) for a in (arm, s.arms[first]))
        if unlike := sorted(key for key in mine | theirs if mine.get(key) != theirs.get(key)):
            message = f"is {arm.method}, as {first} is, with another {', '.join(unlike)}. Rename its method."
            yield ("arms", name, "method"), message


def _ascent_mistakes(s: Settings, families: dict[str, list[str]]) -> Iterator[tuple[Place, str]]:
    claims, ascended = s.claims, {arm: dict[str, str]() for arm in s.ascents}
    for arm, listed in s.ascents.items():
        for i, entry in enumerate(listed):
            names = families.get(entry, [entry])
            if twice := [name for name in names if name in ascended[arm]]:
                yield (
                    ("ascents", arm, i),
                    f"{twice[0]} stands there already, as {ascended[arm][twice[0]]}. Take one out.",
                )
            ascended[arm] |= dict.fromkeys(names, entry)
    for i, arm in enumerate(s.unlearn.placebo):
        if arm not in s.ascents:
            yield ("unlearn", "placebo", i), f"nothing is unlearned in {arm}. Add it under ascents, or take it out."
    for key, other in (("ood", claims.ind), ("level", claims.ood)):
        if getattr(claims, key) == other:
            yield ("claims", key), f"is {other} once more: nothing to compare. Take another family."
    for i, arm in enumerate(claims.headline):
        if s.arms[arm].rate != 1:
            yield ("claims", "headline", i), f"{arm} has rate {s.arms[arm].rate:g}. A headline arm has rate 1."
        for family in (claims.ind, claims.ood, claims.level):
            if not set(families[family]) & set(ascended.get(arm, [])):
                message = f"{family} is not unlearned in {arm}. Add it under ascents, or take the arm out."
                yield ("claims", "headline", i), message


# Files of the user's


def check_own_files(settings: Settings, path: Path | str = PARAMS) -> None:
    """Read the user's own files, row by row, and see that their model is whole; StudyError of all that is wrong.

    Once stage corpus has run, sets are also held against its tokenizer and its splits.
    """
    own = {n: spec for n, spec in settings.forget_sets.items() if isinstance(spec, OWN)}
    named = {("forget_sets", n, "path"): spec.path for n, spec in own.items()}
    corpus = settings.corpus
    if corpus.name == "jsonl":
        named["corpus", "path"] = corpus.path
    model = settings.model.path if isinstance(settings.model, MODEL_IN_FOLDER) else None
    named |= {("model", "path"): model} if model else {}
    wrong = {p: f"{file} is not there. Correct the path." for p, file in named.items() if not Path(file).exists()}
    archive = Path("data/raw") / corpus.archive
    if corpus.name == "localisation" and zipfile.is_zipfile(archive):  # else the first stage fetches it, and looks
        told = wrong_languages(corpus.model_dump(), archive).items()
        wrong |= {("corpus", setting): f"corpus.{setting}: {message}" for setting, message in told}
    refuse(f"{path}, line {_line(_parse(path)[1], place)}: {message}" for place, message in wrong.items())
    needs_a_source = isinstance(settings.model, NEW_MODEL)  # a model of the hub is not here yet, and passes
    if model:
        from unlearning.data import checkpoint  # it takes torch, and seconds, to load

        needs_a_source = checkpoint.needs_a_source(checkpoint.folder_of({"path": model}, max_tokens=corpus.max_tokens))
    refuse(_mistakes_in_files(settings, own, needs_a_source))


def _mistakes_in_files(settings: Settings, own: dict[str, Any], needs_a_source: bool) -> Iterator[str]:
    corpus, told = settings.corpus, list[str]()
    for spec in [*own.values(), *[corpus] * (corpus.name == "jsonl")]:
        try:
            rows = (read_pairs_of if spec is corpus else read_examples)(spec.path, _fields(spec))
            if needs_a_source:
                refuse_empty_source(rows)
            if spec is corpus:
                measures(corpus.target_language, [row["target"] for _, row in rows])
        except StudyError as error:
            told += str(error).splitlines()
    yield from told
    if told or not own or not _corpus_is_split():
        return
    from datasets import load_from_disk
    from transformers import AutoTokenizer

    from unlearning.data.forget_sets import read_own

    splits, tokenizer = load_from_disk("data/corpus"), AutoTokenizer.from_pretrained("data/tokenizer")
    protected = {name: splits[name].to_pandas() for name in ("public", "core", "heldout", "validation")}
    limits = {"max_tokens": corpus.max_tokens, "near_duplicate": corpus.near_duplicate, "protected": protected}
    for name, spec in own.items():
        try:
            read_own(name, spec.path, fields=_fields(spec), tokenizer=tokenizer, **limits)
        except StudyError as error:
            yield from str(error).splitlines()


def _corpus_is_split() -> bool:
    return Path("data/corpus").exists() and not any(stages.misfits("corpus"))


def _fields(spec: Any) -> dict[str, str | None] | None:
    return spec.fields and spec.fields.model_dump()


def no_device(settings: Settings, path: Path | str = PARAMS) -> Iterator[str]:
    """A sentence where the settings name a device that this machine lacks; a cluster looks for one by itself."""
    if settings.device == "cuda" and os.environ.get("UNLEARNING_ENGINE", "processes") == "processes":
        import torch  # seconds

        if not torch.cuda.is_available():
            line = _line(_parse(path)[1], ("device",))
            told = f"{path}, line {line}: device is cuda, and PyTorch {torch.__version__} finds none here."
            yield f"{told} Write cpu, or install a driver and a build of PyTorch for it."


def main(path: str = PARAMS) -> None:
    """Check a params file, the user's files that it names, and the device."""
    settings = load(path)
    check_own_files(settings, path)
    refuse(no_device(settings, path))
    own = any(isinstance(spec, OWN) for spec in settings.forget_sets.values())
    later = "; tokens and near-duplicates of own sets are checked once stage corpus has run"
    print(f"{path}: ok{later if own and not _corpus_is_split() else ''}")


if __name__ == "__main__":
    main(*sys.argv[1:])
