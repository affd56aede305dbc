"""Check that all arms compute the same, then time them: python -m benchmarks.run (--help tells the rest)"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from benchmarks import gate, growth, ours, report
from benchmarks.clock import take_turns
from benchmarks.compare import ARMS, TAKE_TURNS, WORKLOADS, Arm, products
from benchmarks.work import Work, real


def bfloat16_pays(work: Work) -> bool:
    """Has this processor instructions for bfloat16? Without them a product takes some hundred times as long."""
    seconds = {}
    for precision in ("float32", "float32", "bfloat16"):  # the first one warms up
        span = products(work, precision=precision, n=256)()
        seconds[precision] = span.ended - span.started
    return seconds["bfloat16"] < 10 * seconds["float32"]


def run(work: Work, out: Path, *, repeats: int, only: Sequence[str] = (), arms: Sequence[Arm] = ARMS) -> None:
    """Tables and figure. Nothing is timed when the arms do not compute the same."""
    began = time.monotonic()
    checked = gate.check(work, arms)
    report.write_csv(checked, out / "gate.csv")
    if not checked["equal"].all():
        raise SystemExit(f"Nothing is timed: these arms differ.\n{checked[~checked['equal']].to_string()}")
    print(f"All arms compute the same; largest relative difference: {checked['relative'].max():.1g}", flush=True)
    pays = work.device == "cuda" or bfloat16_pays(work)
    wanted = [arm for arm in arms if arm.workload in (only or WORKLOADS) and (pays or not arm.bfloat16)]
    turns = [[arm for arm in wanted if arm.workload in group] for group in TAKE_TURNS]
    timings = pd.concat([take_turns(group, work, repeats=repeats) for group in turns if group])
    if only:
        report.write_csv(timings, out / "repeats-partial.csv")
        return
    facts = {"device": work.device, "bfloat16": pays, "flops_per_token": ours.flops_per_token(work)}
    summary = report.summarise(timings)
    report.write_csv(timings, out / "repeats.csv")
    report.write_csv(summary, out / "speed.csv")
    if work.device == "cpu":  # the targets are those of a processor
        report.write_csv(report.targets(summary, facts["flops_per_token"]), out / "targets.csv")
    report.write_machine(out / "machine.json", facts | {"minutes": round((time.monotonic() - began) / 60, 1)})
    report.draw(out)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=report.RESULTS)
    parser.add_argument("--only", nargs="*", default=[], choices=list(WORKLOADS), help="these workloads, for a look")
    parser.add_argument("--growth", action="store_true", help="how time and memory grow, instead")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="cuda: all arms on one GPU")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        work = replace(real(Path(folder)), device=chosen.device)
        ours.make_start(work)
        chosen.out.mkdir(parents=True, exist_ok=True)
        if chosen.growth:
            growth.run(work, chosen.out, repeats=chosen.repeats)
        else:
            run(work, chosen.out, repeats=chosen.repeats, only=chosen.only)
    report.main()


if __name__ == "__main__":
    main()
