"""What dvc.yaml and dvc.lock say of the stages: parameters, dependencies and outputs, and what no longer fits them.

`python -m tools.stages STAGE` names the stage after those that make what it lacks, for `make rerun`.
"""

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, reduce
from pathlib import Path
from typing import Any

from unlearning.errors import StudyError

CODE = ("src/", "notebooks/")


@lru_cache
def stages(*, beside: bool = False) -> dict[str, Any]:
    """Every stage of dvc.yaml by its name, with what dvc.lock holds of its last run.

    beside: also those of pipelines in folders of their own, by names such as neighbours/dvc.yaml:methods.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            return {s.addressing: s for s in repo.index.stages if beside or ":" not in s.addressing}
    except DvcException as error:
        raise StudyError(f"dvc.yaml: {error}") from None


def stage_of(name: str) -> Any:
    """A stage by its name, such as train@adamw, or methods of a pipeline beside the study's."""
    found = [stage for address, stage in stages(beside=True).items() if name in (address, stage.name)]
    if not found:
        raise StudyError(f"dvc.yaml has no stage {name}; `dvc stage list --name-only` names them all")
    return found[0]


def never_run(name: str) -> bool:
    """Is it a stage of a pipeline beside the study's of which nothing has been run? Then nothing has to fit."""
    return ":" in name and not Path(stages(beside=True)[name].path).with_name("dvc.lock").exists()


def params(name: str) -> dict[str, Any]:
    """The parameters a stage declares, with their present values, nested below their top-level names.

    What `dvc.api.params_show(stages=name)` gives (a test compares them), without reading the whole pipeline again.
    """
    found: dict[str, Any] = {}
    for declared in stage_of(name).params:
        for key, value in declared.read_params().items():
            *parents, last = key.split(".")
            reduce(lambda block, parent: block.setdefault(parent, {}), parents, found)[last] = value
    return found


def restore_cached(name: str) -> None:
    """Put back from dvc's cache what dvc took away before it ran a stage that then failed: data and models."""
    for out in stage_of(name).outs if name else ():
        if out.use_cache and not Path(str(out)).exists():
            with contextlib.suppress(Exception):  # not in the cache: it has to be made again
                out.checkout()


def inside(path: str, folder: str) -> bool:
    """Is a path a folder (or file), or does it lie in it?"""
    return path == folder or path.startswith(f"{folder}/")


def makers(path: str) -> list[Any]:
    """The outputs of stages that are a path, lie in it or hold it; an output knows its `stage`."""
    outs = [out for stage in stages(beside=True).values() for out in stage.outs]
    return [out for out in outs if inside(str(out), path) or inside(path, str(out))]


def undeclared(name: str, modules: Iterable[str]) -> list[str]:
    """Sources of some package modules that are no dependency of a stage: a change of them would go unseen."""
    deps = [str(dep) for dep in stage_of(name).deps]
    paths = sorted(f"src/{module.replace('.', '/')}.py" for module in modules if module != "unlearning.errors")
    return [path for path in paths if not any(inside(path, dep) for dep in deps)]


def chain(name: str) -> list[str]:
    """A stage after all those that make what it lacks (of inputs of inputs …), in the order in which they run."""
    missing = [str(dep) for dep in stage_of(name).deps if not Path(str(dep)).exists()]
    before = [step for path in missing for out in makers(path) for step in chain(out.stage.addressing)]
    return list(dict.fromkeys([*before, name]))


def misfits(name: str) -> Iterator[str]:
    """Settings, inputs and outputs of a stage that are not as in its last run; what is not here counts by hash."""
    stage = stage_of(name)
    if stage.cmd_changed or not all(out.hash_info for out in stage.outs):
        yield f"{name} has not been run, or was run by another command"
        return
    for dep in stage.deps:
        if hasattr(dep, "params"):
            if changed := sorted(key for keys in dep.status().values() for key in keys):
                yield f"{name} ran with other settings ({', '.join(changed)})"
        elif not str(dep).startswith(CODE):
            cached = [out.hash_info for out in makers(str(dep)) if str(out) == str(dep) and out.use_cache]
            if not (dep.hash_info in cached if cached else dep.exists and not dep.changed_checksum()):
                yield f"{name} was made from another {dep} than the one here"
    for out in stage.outs:
        if out.exists and out.changed_checksum():
            yield f"{out} is not what {name} wrote"
        elif not out.exists and not out.use_cache:
            yield f"{out}, written by {name}, is missing"


def changed_code(name: str) -> list[str]:
    """The notebook and the sources of a stage that have changed since it ran."""
    deps = [dep for dep in stage_of(name).deps if str(dep).startswith(CODE)]
    return [str(dep) for dep in deps if not dep.exists or dep.changed_checksum()]


def check_inputs(name: str) -> None:
    """Refuse to read tables that do not come from the settings and inputs of now; changed code is only told."""
    made = [out for dep in stage_of(name).deps for out in makers(str(dep))]
    if any(out.use_cache for out in made):
        return
    sources = list(dict.fromkeys(out.stage.addressing for out in made))
    for source in sources:
        for problem in misfits(source):
            raise StudyError(f"{problem}: dvc repro {source}")
    if changed := [source for source in sources if changed_code(source)]:
        print(f"code has changed since {listed(changed)} ran (make check tells which)", flush=True)


def listed(names: list[str]) -> str:
    """The first name, and how many more there are."""
    return f"{names[0]} and {len(names) - 1} more" if names[1:] else names[0]


def leftovers() -> list[Path]:
    """Results that no stage of dvc.yaml makes now: of sets, arms or figures that were taken out or renamed."""
    everywhere = stages(beside=True).values()
    made = [str(out) for stage in everywhere for out in stage.outs]
    made += [f"results/runs/{stage.name}.json" for stage in everywhere]
    files = [path for top in ("results", "figures") for path in sorted(Path(top).rglob("*")) if path.is_file()]
    return [path for path in files if not any(inside(path.as_posix(), out) for out in made)]


def runs(root: Path = Path(".")) -> dict[str, dict[str, Any]]:
    """Stage -> record of its last run (seconds, memory, tasks, machine), of all stages that were recorded."""
    paths = sorted((root / "results/runs").glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def minutes(records: Sequence[dict[str, Any]]) -> float:
    """Minutes of recorded runs together, with the tasks that an earlier, stopped run had finished."""
    work = [sum(t["count"] * t["seconds_each"] for t in record["tasks"]) / record["cores"] for record in records]
    return sum(max(record["seconds"], done) for record, done in zip(records, work, strict=True)) / 60


if __name__ == "__main__":
    print(*chain(sys.argv[1]))
