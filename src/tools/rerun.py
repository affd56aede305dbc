"""Rerun one stage, also on a fresh clone: rebuild the inputs that are missing, run, compare with the last commit.

If anything fails, what was there is put back: also the outputs of stages of the chain that came to their end.
"""

import subprocess
import sys
from pathlib import Path

from tools import stages
from tools.check import compare
from tools.keep import restored_on_failure
from unlearning.errors import StudyError


def chain(name: str) -> list[str]:
    """The stages to run, in order: those that make missing inputs (of inputs …), then the stage itself."""
    missing = [str(dep) for dep in stages.stage_of(name).deps if not Path(str(dep)).exists()]
    before = [stage for path in missing for out in stages.makers(path) for stage in chain(out.stage.addressing)]
    return list(dict.fromkeys([*before, name]))


def rerun(name: str) -> int:
    """Run the chain of a stage and compare its tables with the last commit; exit status of the comparison.

    Raises:
        StudyError: no such stage, or a stage failed (committed outputs are back in place).
    """
    names = chain(name)
    outs = [out for stage in names for out in stages.outputs(stage)]
    print(f"runs: {', '.join(names)}", flush=True)
    with restored_on_failure([*outs, Path("dvc.lock")]):
        for stage in names:
            if subprocess.run([sys.executable, "-m", "dvc", "repro", "-s", "-f", stage]).returncode:
                raise StudyError(f"stage {stage} failed; the results that were here are back in place")
    return min(compare(tuple(str(out) for out in outs if "tables" in out.parts)), 1)


def main(arguments: list[str]) -> int:
    """Command line: STAGE."""
    try:
        return rerun(*arguments)
    except (StudyError, TypeError) as error:
        print(error if len(arguments) == 1 else "usage: python -m tools.rerun STAGE", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
