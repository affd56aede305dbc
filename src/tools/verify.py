"""Do the results that lie here come from the code, settings and inputs that lie here? Answered without running them.

Walks dvc.yaml, looks every stage up in dvc.lock, and follows each hash from the stage that made a file to the
stages that read it. Data and models that are not here (a fresh clone) count by the hash in dvc.lock. The environment
is no dependency of a stage; the versions in the record of its last run are held against the lock file instead.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.doctor import locked
from tools.plan import RUNS


def problems() -> Iterator[str]:
    """One sentence for each stage that does not fit."""
    from dvc.repo import Repo

    with Repo() as repo:
        stages = [s for s in repo.index.stages if Path(s.path).resolve() == Path("dvc.yaml").resolve()]
        made = {str(out): _hash(out) for stage in stages for out in stage.outs}
        for stage in stages:
            if stage.cmd_changed or not all(out.hash_info for out in stage.outs):
                yield f"{stage.addressing}: has not been run, or with another command"
                continue
            for dep in stage.deps:
                yield from _dependency_problems(stage.addressing, dep, made)
            for out in stage.outs:
                if out.exists and out.changed_checksum():
                    yield f"{stage.addressing}: {out} is not what the stage wrote"
                elif not out.exists and not out.use_cache:
                    yield f"{stage.addressing}: {out} is missing"


def _dependency_problems(stage: str, dep: Any, made: dict[str, str | None]) -> Iterator[str]:
    if hasattr(dep, "params"):
        if changed := dep.status():
            yield f"{stage}: settings have changed: {changed}"
    elif str(dep) in made:
        if _hash(dep) != made[str(dep)]:
            yield f"{stage}: was run with another {dep} than the one its stage made last"
    elif not dep.exists:
        yield f"{stage}: {dep} is missing"
    elif dep.changed_checksum():
        yield f"{stage}: {dep} has changed since it ran"


def version_problems() -> Iterator[str]:
    """One sentence for all stages whose last recorded run had the same other versions than the lock file names."""
    lock, stages = locked(), dict[str, list[str]]()
    for path in sorted(RUNS.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if "stage" in record:
            other = [f"{name} {version}" for name, version in record["versions"].items() if version != lock.get(name)]
            stages.setdefault(", ".join(other), []).append(record["stage"])
    yield from (
        f"{', '.join(names)}: ran with {other}, not with what the lock says" for other, names in stages.items() if other
    )


def _hash(thing: Any) -> str | None:
    return thing.hash_info.value if thing.hash_info else None


def main() -> int:
    """Print what does not fit; 1 if anything."""
    found = [*problems(), *version_problems()]
    for problem in found:
        print(problem)
    print(f"{len(found)} problems" if found else "every result fits its code, settings, inputs and versions")
    return min(len(found), 1)


if __name__ == "__main__":
    sys.exit(main())
