"""Seconds of the pipeline around the science: nothing to do, one reading stage, and a complete run as recorded."""

import subprocess
import time
from pathlib import Path

import pandas as pd

from unlearning.errors import StudyError
from unlearning.pipeline import plan

STAGE = "claims"


def recorded() -> pd.DataFrame:
    """Seconds of a complete run: the stages' own records, added up. Nothing is run."""
    records = [plan.record(path.stem) for path in sorted(plan.RUNS.glob("*.json"))]
    stages = [r for r in records if "stage" in r]
    what = f"complete run, {len(stages)} stages, as recorded (not measured now)"
    return pd.DataFrame([{"what": what, "seconds": sum(map(plan.spent, stages)), "repeat": 0}])


def measured(*, repeats: int) -> pd.DataFrame:
    """Time `dvc repro` with nothing to do, and one stage forced. Its outputs come out as they were.

    Raises:
        StudyError: something is not up to date, so that `dvc repro` would begin to compute.
    """
    if subprocess.run(["dvc", "status", "-q"], check=False).returncode:
        raise StudyError("--pipeline needs a finished study, up to date: see dvc status")
    record = plan.RUNS / f"{STAGE}.json"
    kept = record.read_bytes() if record.exists() else None
    rows = []
    for repeat in range(repeats):
        for what, command in {
            "dvc repro, nothing to do": ["dvc", "repro", "-q"],
            f"dvc repro -f -s {STAGE}": ["dvc", "repro", "-q", "-f", "-s", STAGE],
        }.items():
            rows.append({"what": what, "seconds": _seconds(command), "repeat": repeat})
    if kept is not None:
        Path(record).write_bytes(kept)
    return pd.DataFrame(rows)


def _seconds(command: list[str]) -> float:
    started = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started
