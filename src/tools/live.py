"""The parameters of a notebook: those that a stage hands in, or, where a person opened it, those of params.yaml.

By hand nothing that git or dvc keeps is written to: the notebook works in a folder below scratch/ that has the shape of
the repository. A reading notebook finds the committed tables there. A measuring one runs at a small size, unless its
parameter `full` is set, on what the notebooks before it made in the same folder.
"""

import os
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from tools.stages import inside, minutes, runs
from unlearning.errors import StudyError

MEASURED = ("corpus", "forget_sets", "base", "train", "pilot", "unlearn")  # tables that measuring stages make
WHOLE_BLOCKS = ("forget_sets", "ascents")  # replaced, not merged
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
        params = _read_here(root) if full is None else _measure_here(root, given, full)
        given = {name: params[name] if value is None else value for name, value in given.items()}
    _show(given)
    return next(iter(given.values())) if len(given) == 1 else tuple(given.values())


def overlay(params: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Settings with changes laid over them: whole sets, ascents and pre-trained models, else key by key."""

    def merged(old: Any, new: Any) -> Any:
        if isinstance(old, dict) and isinstance(new, dict):
            return {**old, **{name: merged(old.get(name), value) for name, value in new.items()}}
        return new

    whole = {name for name, block in changes.items() if name in WHOLE_BLOCKS or (name == "model" and "path" in block)}
    return params | {name: block if name in whole else merged(params[name], block) for name, block in changes.items()}


def small(params: dict[str, Any]) -> dict[str, Any]:
    """The settings at toy size."""
    return overlay(params, YAML_SAFE.load(Path(__file__).with_name("small.yaml").read_text(encoding="utf-8")))


def _read_here(root: Path) -> dict[str, Any]:
    """Go to scratch/by-hand, where the committed tables are; the settings."""
    here = root / "scratch/by-hand"
    _link(root, here, ["params.yaml", *(f"results/tables/{name}" for name in MEASURED)])
    os.chdir(here)
    return YAML_SAFE.load(Path("params.yaml").read_text(encoding="utf-8"))


def _measure_here(root: Path, given: dict[str, Any], full: bool) -> dict[str, Any]:
    """Go to scratch/small or scratch/full, if what the notebook starts from is there; the settings."""
    params = YAML_SAFE.load((root / "params.yaml").read_text(encoding="utf-8"))
    here = root / "scratch" / ("full" if full else "small")
    _link(root, here, ["data/raw", "own"])
    params = params if full else small(params)
    with (here / "params.yaml").open("w", encoding="utf-8") as stream:
        YAML_SAFE.dump(params, stream)
    stages = YAML_SAFE.load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    blocks = {name: block.get("do", block) for name, block in stages.items()}
    stage = next((name for name, block in blocks.items() if _names(block) == set(given)), "")
    deps = blocks[stage]["deps"] if stage else []
    for before in blocks.values():
        made = [dep for dep in deps if any(inside(dep, out) for out in _outputs(before))]
        if made and not any((here / path).exists() for path in made):
            raise StudyError(f"{made[0]} is not in {here.relative_to(root)} yet: run {before['cmd'].split()[3]} first")
    os.chdir(here)
    size = "The study's sizes" if full else "Small sizes (full = True takes the study's)"
    named = {stage, *(f"{stage}@{value}" for value in given.values() if isinstance(value, str))}
    own = [record for name, record in runs(root).items() if name in named]
    took = f" The study's own run took {minutes(own):.1f} minutes." if own else ""
    print(f"{size}; works in {here.relative_to(root)}.{took}")
    return params


def _link(root: Path, here: Path, names: list[str]) -> None:
    """Show files and folders of the repository, where there are any, in a folder of the same shape."""
    for name in names:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        if (root / name).exists() and not (here / name).exists():
            (here / name).symlink_to(root / name)


def _names(block: dict[str, Any]) -> set[str]:
    """Names of the parameters that a stage hands to its notebook."""
    declared = {name.partition(".")[0] for name in block["params"]}
    return declared | {word.partition("=")[0] for word in block["cmd"].split()[4:]}


def _outputs(block: dict[str, Any]) -> list[str]:
    """Paths of what a stage makes; those of a loop by the folder that holds them all."""
    paths = [out if isinstance(out, str) else next(iter(out)) for out in block["outs"]]
    return [path.partition("/${")[0] for path in paths]


def _show(given: dict[str, Any]) -> None:
    """A table of the parameters, one row each; of a block, one row an entry."""
    from IPython.display import display

    rows: dict[str, str] = {}
    for name, value in given.items():
        if not isinstance(value, dict):
            rows[name] = _told(value)
        elif len(value) > 12 and all(isinstance(entry, dict) for entry in value.values()):
            rows[name] = ", ".join(value)
        else:
            rows |= {f"{name}.{key}": _told(entry) for key, entry in value.items()}
    with pd.option_context("display.max_colwidth", None):
        page = pd.DataFrame({"value": rows}).to_html(header=False).replace("<td>", '<td style="text-align: left">')
    text = "\n".join(f"{name}: {value}" for name, value in rows.items())
    display({"text/html": page, "text/plain": text}, raw=True)


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_told(entry)}" for key, entry in value.items())
    return ", ".join(map(_told, value)) if isinstance(value, list) else str(value)
