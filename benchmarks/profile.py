"""Where the time goes, operator by operator, in one thread: python -m benchmarks.profile [--smoke]"""

import dataclasses
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import command, ours, report, workloads
from benchmarks.clock import now
from unlearning.measure.scoring import score

EXAMPLES, STEPS = 600, 4  # enough for a profile
LEAST = 0.01  # operators with a smaller share of the time are added up


def works(work: workloads.Workload) -> dict[str, Callable[[], object]]:
    """What is profiled: the study's own functions, on a part of the benchmark's work."""
    few = dataclasses.replace(work, train=work.train[:EXAMPLES], steps=STEPS)
    new, trained, scored = work.new_model(), work.trained_model(), work.trained_model()
    return {
        "training": lambda: ours.train(new, few),
        "ascent": lambda: ours.unlearn(trained, few),
        "scoring": lambda: score(scored, work.heldout),
    }


def operators(action: Callable[[], object]) -> pd.DataFrame:
    """Each operator's own share of the seconds, and what is left for Python between them. Largest first.

    Returns:
        operator, calls, share.
    """
    began = now()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        action()
        seconds = now() - began
    rows = [(e.key, e.count, e.self_cpu_time_total / 1e6 / seconds) for e in found.key_averages()]
    table = pd.DataFrame(rows, columns=["operator", "calls", "share"]).sort_values("share", ascending=False)
    large, small = table[table["share"] >= LEAST], table[table["share"] < LEAST]
    rest = [
        (f"{len(small)} others", small["calls"].sum(), small["share"].sum()),
        ("between operators (Python)", 0, 1 - table["share"].sum()),
    ]
    return pd.concat([large, pd.DataFrame(rest, columns=table.columns)], ignore_index=True)


def run(out: Path, *, smoke: bool, repeats: int) -> int:
    """Table profile.csv: the profile of the last of so many repeats, the first ones warm up."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        work = workloads.toy(Path(name)) if smoke else workloads.real(Path(name))
        tables = []
        for what, action in works(work).items():
            for _ in range(repeats - 1):
                action()
            tables.append(operators(action).assign(work=what))
    table = pd.concat(tables)[["work", "operator", "calls", "share"]]
    out.mkdir(parents=True, exist_ok=True)
    report.write_csv(table, out / "profile.csv")
    print(table.to_string(index=False))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. 0; 1 when something is missing."""
    parser = command.options("profile", __doc__, repeats=2)
    parser.add_argument("--smoke", action="store_true", help="toy size, made-up data: does everything run?")
    return command.call(run, parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
