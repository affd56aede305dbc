"""Seconds of dvc around the science, in a finished study: python -m benchmarks.pipeline_times"""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import yaml

from benchmarks import command, report
from unlearning.errors import StudyError
from tools import plan

STAGE = "claims"


def recorded() -> pd.DataFrame:
    """Seconds of a complete run: the stages' own records, added up. Nothing is run."""
    records = [plan.record(path.stem) for path in sorted(plan.RUNS.glob("*.json"))]
    stages = [r for r in records if "stage" in r]
    what = f"complete run, {len(stages)} stages, as recorded (not measured now)"
    return pd.DataFrame([{"what": what, "seconds": sum(map(plan.spent, stages))}])


def commands() -> dict[str, list[str]]:
    """What is timed: `dvc repro` with nothing to do, one stage forced, and the command of that stage by itself."""
    stage = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"][STAGE]
    return {
        "dvc repro, nothing to do": ["dvc", "repro", "-q"],
        f"dvc repro -f -s {STAGE}": ["dvc", "repro", "-q", "-f", "-s", STAGE],
        f"the command of stage {STAGE}, without dvc": shlex.split(stage["cmd"]),
    }


def measured(*, repeats: int) -> pd.DataFrame:
    """Time the commands in turn. The stage's outputs come out as they were, and its record is put back.

    Raises:
        StudyError: something is not up to date, so that `dvc repro` would begin to compute.
    """
    if subprocess.run(["dvc", "status", "-q"], check=False).returncode:
        raise StudyError("only in a finished study, where everything is up to date: see dvc status")
    record = plan.RUNS / f"{STAGE}.json"
    kept = record.read_bytes()
    rows = []
    for repeat in range(repeats):
        for what, arguments in commands().items():
            rows.append({"what": what, "seconds": _seconds(arguments), "repeat": repeat})
            print(f"{repeat + 1} of {repeats}  {what}: {rows[-1]['seconds']:.1f} s", flush=True)
    record.write_bytes(kept)
    return pd.DataFrame(rows)


def summarise(repeats: pd.DataFrame) -> pd.DataFrame:
    """One row a command: median and quartiles of its seconds, and how often it was timed."""
    by = repeats.groupby("what", sort=False)["seconds"]
    found = by.quantile([0.5, 0.25, 0.75]).unstack()
    found.columns = ["median_seconds", "quartile_1", "quartile_3"]
    return found.assign(repeats=by.size()).reset_index()


def _seconds(arguments: list[str]) -> float:
    started = time.monotonic()
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "DVC_STAGE": STAGE})
    return time.monotonic() - started


def run(out: Path, *, repeats: int) -> int:
    """Tables pipeline.csv and pipeline_repeats.csv, and pipeline_machine.json."""
    out.mkdir(parents=True, exist_ok=True)
    repeated = measured(repeats=repeats)
    table = summarise(pd.concat([recorded(), repeated]))
    report.write_csv(repeated, out / "pipeline_repeats.csv")
    report.write_csv(table, out / "pipeline.csv")
    report.write_machine(out / "pipeline_machine.json", {})
    print(table.round(1).to_string(index=False))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. 0; 1 when the study is not finished."""
    return command.call(run, command.options("pipeline_times", __doc__, repeats=5), arguments)


if __name__ == "__main__":
    sys.exit(main())
