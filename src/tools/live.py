"""The parameters of a notebook: those that a stage hands in, or, where a person opened it, those of params.yaml.

By hand a notebook works in a folder below scratch/ that has the shape of the repository: nothing that git or dvc keeps
is written to. A reading one finds the committed tables there. A measuring one runs at a small size, unless its
parameter `full` is set, on what the notebooks before it made in the same folder.
"""

import os
from collections.abc import Sequence
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from tools.stages import inside, minutes, runs
from unlearning.errors import StudyError

# tables of measuring stages
MEASURED = ("corpus", "forget_sets", "base", "train", "pilot", "unlearn", "extras", "methods")
BESIDE = "neighbours"  # a pipeline in a folder of its own, with further settings
YAML_SAFE = YAML(typ="safe", pure=True)
YAML_SAFE.sort_base_mapping_type_on_output = False  # the order of the sets decides their columns


def settings(*, full: bool | None = None, **given: Any) -> Any:
    """The values of a notebook's parameters, in the order in which they are given; one alone is no tuple.

    Nobody has set what is None. `full` is of notebooks that measure: at the study's sizes, or at small ones?
    """
    if not os.environ.get("UNLEARNING_STAGE"):
        root = next((p for p in (Path.cwd(), *Path.cwd().parents) if (p / "dvc.yaml").exists()), None)
        if root is None:
            raise StudyError("open the notebook in its folder: no dvc.yaml lies above this one")
        params = _load(root / "params.yaml")
        beside = ["params.yaml"] if full in (None, True) else ["params.yaml", "small.yaml"]
        here = root / "scratch" / {None: "by-hand", False: "small", True: "full"}[full]
        tables = ["params.yaml", *(f"results/tables/{name}" for name in MEASURED)]
        link(root, here, tables if full is None else ["data/raw", "own"])
        if full is not None:
            params = params if full else small(params)
            with (here / "params.yaml").open("w", encoding="utf-8") as stream:
                YAML_SAFE.dump(params, stream)
            size = "The study's sizes" if full else "Small sizes (full = True takes the study's)"
            print(f"{size}; works in {here.relative_to(root)}.{_start(root, here, given)}")
        os.chdir(here)
        paths = (root / BESIDE / name for name in beside)
        params = reduce(overlay, (_load(path) for path in paths if path.exists()), params)
        given = {name: params[name] if value is None else value for name, value in given.items()}
    _show(given)
    return next(iter(given.values())) if len(given) == 1 else tuple(given.values())


def overlay(params: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Settings with changes laid over them, key by key; sets, populations, ascents and pre-trained models are whole."""

    def merged(name: str, new: Any) -> Any:
        whole = name in ("forget_sets", "populations", "ascents") or (name == "model" and "path" in new)
        blocks = isinstance(params.get(name), dict) and isinstance(new, dict)
        return overlay(params[name], new) if blocks and not whole else new

    return params | {name: merged(name, new) for name, new in changes.items()}


def small(params: dict[str, Any]) -> dict[str, Any]:
    """The settings at toy size; what the user brings stays: own sets, an own corpus, a pre-trained model."""
    changes = _load(Path(__file__).with_name("small.yaml"))
    for_own = changes.pop("own")
    own = {name: block for name, block in params["forget_sets"].items() if block["kind"] == "own"}
    changes["ascents"] = {arm: [*own, *listed] for arm, listed in changes["ascents"].items()}
    changes["forget_sets"] |= own
    if {"path", "hub"} & set(params["model"]):
        del changes["model"]
    if params["corpus"]["name"] == "jsonl":
        changes = overlay(changes, for_own)
    if not params["corpus"]["second_language"]:  # no pairs, no sets of its kind
        gone = [name for name, block in changes["forget_sets"].items() if block["kind"] == "language"]
        changes["forget_sets"] = {n: block for n, block in changes["forget_sets"].items() if n not in gone}
        changes["ascents"] = {a: [n for n in listed if n not in gone] for a, listed in changes["ascents"].items()}
        del changes["populations"]["language"]
    return overlay(params, changes)


def link(root: Path, here: Path, names: Sequence[str]) -> None:
    """Links in one folder to what another one has."""
    for name in names:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        if (root / name).exists() and not (here / name).exists():
            (here / name).symlink_to(root / name)


def _load(path: Path) -> dict[str, Any]:
    return YAML_SAFE.load(path.read_text(encoding="utf-8"))


def _start(root: Path, here: Path, given: dict[str, Any]) -> str:
    """How long the stage of a measuring notebook took the study, if what it starts from is here."""
    files = [path for path in (root / "dvc.yaml", root / BESIDE / "dvc.yaml") if path.exists()]
    blocks = {name: block.get("do", block) for file in files for name, block in _load(file)["stages"].items()}
    stage, deps = "", []
    for name, block in blocks.items():  # a stage hands its notebook parameters of params.yaml, and name=value arguments
        listed = (each if isinstance(each, dict) else {"": [each]} for each in block["params"])  # by file
        names = [key.partition(".")[0] for file in listed for key in chain(*file.values())]
        if {*names, *(word.partition("=")[0] for word in block["cmd"].split()[4:])} == set(given):
            stage, deps = name, block["deps"]
    for before in blocks.values():
        outs = [(out if isinstance(out, str) else next(iter(out))).partition("/${")[0] for out in before["outs"]]
        made = [dep for dep in deps if any(inside(dep, out) for out in outs)]
        if made and not any((here / path).exists() for path in made):
            raise StudyError(f"{made[0]} is not in {here.relative_to(root)} yet: run {before['cmd'].split()[3]} first")
    named = {stage, *(f"{stage}@{value}" for value in given.values() if isinstance(value, str))}
    own = [record for name, record in runs(root).items() if name in named]
    return f" The study's own run took {minutes(own):.1f} minutes." if own else ""


def _show(given: dict[str, Any]) -> None:
    """A table of the parameters, one row each; of a block, one row an entry."""
    from IPython.display import display

    rows: dict[str, str] = {}
    for name, value in given.items():
        if not isinstance(value, dict):
            rows[name] = _told(value)
        elif len(value) > 4 and all(isinstance(entry, dict) for entry in value.values()):
            rows[name] = ", ".join(value)
        else:
            rows |= {f"{name}.{key}": _told(entry) for key, entry in value.items()}
    with pd.option_context("display.max_colwidth", None):
        page = pd.DataFrame({"value": rows}).to_html(header=False).replace("<td>", '<td style="text-align: left">')
    display({"text/html": page, "text/plain": "\n".join(f"{name}: {value}" for name, value in rows.items())}, raw=True)


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_told(entry)}" for key, entry in value.items())
    return ", ".join(map(_told, value)) if isinstance(value, list) else str(value)
