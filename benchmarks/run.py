"""Check that all arms compute the same, then time them: python -m benchmarks.run [--smoke] [--device …] [--only …]"""

import dataclasses
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from benchmarks import command, gate, ours, report, targets, workloads
from benchmarks.arms import ARMS, INTERLEAVED, UNITS, Arm, bfloat16_pays
from benchmarks.processes import crews
from unlearning.measure import models
from tools import settings


def time_arms(folder: Path, arms: Sequence[Arm], *, repeats: int) -> pd.DataFrame:
    """Every arm once, then every arm again, each round beginning with another one: one row an arm and repeat."""
    rows = []
    with crews([arm.job for arm in arms], folder) as started:
        pairs = list(zip(arms, started, strict=True))
        for repeat in range(repeats):
            first = repeat % len(pairs)
            for arm, crew in pairs[first:] + pairs[:first]:
                result = crew.run()
                row = {"workload": arm.workload, "arm": arm.name, "repeat": repeat, "seconds": result.seconds}
                rows.append({**row, "rate": result.rate, "peak_mib": result.peak_mib})
                print(f"{repeat + 1} of {repeats}  {arm.workload}, {arm.name}: {result.rate:,.4g} {UNITS[arm.workload]}"
                      f" ({result.seconds:.1f} s)", flush=True)  # fmt: skip
    return pd.DataFrame(rows)


def facts(work: workloads.Workload, gate_table: pd.DataFrame) -> dict[str, float]:
    """What the targets need besides rates."""
    study = settings.load()
    sets, references = len(study.forget_sets), study.design.models // 2
    seen = gate_table.loc[gate_table["what"] == "positions in a projection", "value"]
    return {
        "flops_per_token": ours.flops_per_token(work),
        "largest_projection": float(seen.max()),
        "allowed_projection": models.logit_rows(work.new_model()),
        "models": targets.models_needed(sets, references, min_free_columns=study.design.min_free_columns),
        "sets": sets,
        "references": references,
    }


def run(
    out: Path, *, smoke: bool, repeats: int, only: Sequence[str], device: str = "cpu", training=gate.TRAINING
) -> int:
    """The whole benchmark. Returns 1, with nothing timed, when the arms do not compute the same."""
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(2)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        work = dataclasses.replace(workloads.toy(folder) if smoke else workloads.real(folder), device=device)
        work.save(folder)
        print("do all arms compute the same?", flush=True)
        checked = gate.check(work, training)
        report.write_csv(checked, out / "gate.csv")
        if not checked["equal"].all():
            print("NO. Nothing is timed.\n" + checked[~checked["equal"]].to_string(), file=sys.stderr)
            return 1
        print(f"yes: the largest relative difference is {checked['relative'].max():.1g}", flush=True)
        known, timings, pays = facts(work, checked), [], device == "cuda" or bfloat16_pays()
        for group in INTERLEAVED:
            wanted = [arm for arm in ARMS if arm.workload in group and (not only or arm.workload in only)]
            arms = [arm for arm in wanted if pays or not arm.bfloat16]
            if arms:
                timings.append(time_arms(folder, arms, repeats=repeats))
    start = "the study's first base model" if Path(work.start).parent.name == "base" else "trained briefly for this run"
    more = {"toy": smoke, "device": device, "start": start, "bfloat16": pays}
    more["minutes"] = round((time.monotonic() - began) / 60, 1)
    write(pd.concat(timings), known, out, more, only)
    return 0


def write(repeats: pd.DataFrame, known: dict, out: Path, more: dict, only: Sequence[str]) -> None:
    """All tables and the figure; of some workloads only (`only`), just their repeats. Targets are of a processor."""
    if only:
        report.write_csv(repeats, out / "repeats-partial.csv")
        return
    report.write_csv(repeats, out / "repeats.csv")
    summary = report.summarise(repeats)
    report.write_csv(summary, out / "speed.csv")
    if more["device"] == "cpu":
        asked = targets.targets(summary, known)
        report.write_csv(asked, out / "targets.csv")
        print(asked.to_string())
    report.write_machine(out / "machine.json", {**known, **more})
    report.draw(summary, out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. 0; 1 when the gate fails or something is missing."""
    parser = command.options("run", __doc__, repeats=5)
    parser.add_argument("--smoke", action="store_true", help="toy size, made-up data: does everything run?")
    parser.add_argument("--only", nargs="*", default=[], choices=list(UNITS), help="these workloads, for a look")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="cuda: all arms on one GPU")
    return command.call(run, parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
