"""What dvc.yaml says of a stage, and what a notebook imports: the two have to agree."""

import ast
import contextlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import unlearning
from unlearning.errors import StudyError

PACKAGE = "unlearning"


def params(stage: str) -> dict[str, Any]:
    """The parameters a stage declares, with their present values, nested below their top-level names.

    What `dvc.api.params_show(stages=stage)` gives (a test compares them), without reading the whole pipeline again.
    """
    found: dict[str, Any] = {}
    for declared in stage_of(stage).params:
        for name, value in declared.read_params().items():
            *parents, last = name.split(".")
            block = found
            for parent in parents:
                block = block.setdefault(parent, {})
            block[last] = value
    return found


def dependencies(stage: str) -> set[str]:
    """Paths of the files and folders a stage depends on, relative to the repository."""
    return {str(dep) for dep in stage_of(stage).deps if str(dep) != "params.yaml"}


@lru_cache
def stage_of(name: str) -> Any:
    """A stage of dvc.yaml by its name."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            found = list(repo.stage.collect(name))
    except DvcException as error:
        raise StudyError(f"dvc.yaml: {error}") from None
    if len(found) != 1:
        raise StudyError(f"dvc.yaml: {name} stands for {len(found)} stages; name one, such as {found[0].addressing}")
    return found[0]


def outputs(stage: str) -> list[Path]:
    """The outputs that git keeps: tables, figures, the executed notebook. Before a run dvc leaves them in place."""
    return [Path(str(out)) for out in stage_of(stage).outs if not out.use_cache]


def restore_cached(stage: str) -> None:
    """Put back from dvc's cache what dvc took away before it ran a stage that then failed: data and models."""
    for out in stage_of(stage).outs if stage else ():
        if out.use_cache and not Path(str(out)).exists():
            with contextlib.suppress(Exception):  # not in the cache: it has to be made again
                out.checkout()


def imported_by(notebook: Path) -> set[str]:
    """Package modules that a notebook imports, directly or through one another, by their source."""
    import nbformat

    cells = nbformat.read(notebook, as_version=4).cells
    return imported_in("\n".join(_without_magics(c.source) for c in cells if c.cell_type == "code"))


def imported_in(code: str) -> set[str]:
    """Package modules that a piece of code imports, directly or through one another, also inside functions."""
    found: set[str] = set()
    todo = _imports(code)
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo |= _imports(_source(name).read_text(encoding="utf-8"))
    return found


def _without_magics(code: str) -> str:
    return "\n".join(line for line in code.splitlines() if not line.lstrip().startswith(("%", "!")))


def _imports(code: str) -> set[str]:
    """Dotted names of the package's modules that a piece of code itself imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{a.name}" for a in node.names}
    return {name for name in found if name.startswith(f"{PACKAGE}.") and _source(name).is_file()}


def _source(name: str) -> Path:
    """File of a package module, found without importing it; `from unlearning.module import function` has none."""
    return Path(unlearning.__file__).parent.joinpath(*name.split(".")[1:]).with_suffix(".py")


def path_of(module: str) -> str:
    """Where a package module lies, as dvc.yaml writes it."""
    return f"src/{module.replace('.', '/')}.py"


def check_modules(stage: str, modules: set[str], deps: set[str], *, at_run_time: bool = False) -> None:
    """Package modules that a notebook imports against the `src/` files among the stage's dependencies.

    Raises:
        StudyError: one is missing among the dependencies (a change of it would go unseen), or, from the
            source alone (`at_run_time` false), one is a dependency for nothing (a change would rerun the stage).
    """
    imported = {path_of(m) for m in modules}
    declared = {d for d in deps if d.startswith(f"src/{PACKAGE}/")}
    missing, idle = sorted(imported - declared), sorted(declared - imported)
    if missing:
        raise StudyError(f"dvc.yaml: stage {stage} imports but does not depend on {', '.join(missing)}")
    if idle and not at_run_time:
        raise StudyError(f"dvc.yaml: stage {stage} depends on but does not import {', '.join(idle)}")
