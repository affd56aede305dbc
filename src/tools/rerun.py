"""Rerun one stage, also on a fresh clone: rebuild the inputs that are missing, run, compare with the commit.

If anything fails, what was there is put back: also the outputs of stages of the chain that came to their end.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from tools.compare import compare, report
from tools.keep import restored_on_failure
from unlearning.errors import StudyError


def chain(name: str) -> list[Any]:
    """The stages to run, in order: those that make missing inputs (of inputs …), then the stage itself.

    Raises:
        StudyError: dvc.yaml has no such stage.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    with Repo() as repo:
        try:
            wanted = list(repo.stage.collect(name))
        except DvcException as error:
            raise StudyError(f"{error}. `dvc stage list --name-only` names all stages.") from None
        makers = {str(out): stage for stage in repo.index.stages for out in stage.outs}
    found: dict[str, Any] = {}

    def visit(stage: Any) -> None:
        """First the makers of what this stage lacks, then the stage."""
        for dep in stage.deps:
            maker = makers.get(str(dep))
            if maker is not None and not Path(str(dep)).exists() and maker.addressing not in found:
                visit(maker)
        found.setdefault(stage.addressing, stage)

    for stage in wanted:
        visit(stage)
    return list(found.values())


def rerun(name: str) -> int:
    """Run the chain of a stage and compare its tables with the last commit; exit status of the comparison.

    Raises:
        StudyError: no such stage, or a stage failed (committed outputs are back in place).
    """
    stages = chain(name)
    outs = [Path(str(out)) for stage in stages for out in stage.outs if not out.use_cache]
    names = [stage.addressing for stage in stages]
    print(f"runs: {', '.join(names)}", flush=True)
    with restored_on_failure([*outs, Path("dvc.lock")]):
        for stage in names:
            if subprocess.run([sys.executable, "-m", "dvc", "repro", "-s", "-f", stage]).returncode:
                raise StudyError(f"stage {stage} failed; the results that were here are back in place")
    tables = [out.as_posix() for out in outs if out.as_posix().startswith("results/tables")]
    return report(compare(only=tables))


def main(arguments: list[str]) -> int:
    """Command line: STAGE."""
    if len(arguments) != 1:
        print("usage: python -m tools.rerun STAGE", file=sys.stderr)
        return 2
    try:
        return rerun(arguments[0])
    except StudyError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the results that were here are back in place", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
