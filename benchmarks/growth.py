"""How time and memory grow with the work: the slope in a log-log plot; 1: twice the work takes twice the time."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import linregress

from benchmarks import ours, report
from benchmarks.clock import Timed, take_turns, timed
from benchmarks.compare import Arm, pair
from benchmarks.work import Work

FEW, SHORT = 300, 2  # training examples and ascent steps where something else grows


def train(work: Work, *, times: int = 1, rows: int = FEW, width: int = 0, vocabulary: int = 0) -> Timed:
    """So many trainings, one after another. A wider model has a wider feed-forward part and more heads, too."""
    wide = {"d_model": width, "d_ff": 2 * width, "num_heads": max(1, width // work.model["d_kv"])} if width else {}
    work = replace(work, model=work.model | wide, train=work.train[:rows])
    return timed(times, lambda: [ours.train(work, vocabulary=vocabulary)().units for _ in range(times)])


def unlearn(work: Work, *, times: int = 1, steps: int = SHORT) -> Timed:
    """So many ascents, one after another, each from the trained model, scored at every step."""
    work = replace(work, steps=steps)
    return timed(times, lambda: [ours.unlearn(work)().units for _ in range(times)])


def arms(factor: str, function: Callable[..., Timed], option: str, values: Sequence[int]) -> list[Arm]:
    """One arm a value of a factor, in processes of one thread, as the study runs its tasks."""
    jobs = {n: replace(pair(function, **{option: n}), processes=1) for n in values}
    return [Arm(factor, n, "", "", job) for n, job in jobs.items()]


(EIGHT,) = arms("workers (8 models in all)", train, "times", [8])
FACTORS = [
    arms("training examples", train, "rows", (250, 500, 1000, 2000)),
    arms("ascent steps", unlearn, "steps", (2, 4, 8, 16)),
    arms("models", train, "times", (1, 2, 4, 8)),
    arms("forget sets (one ascent each)", unlearn, "times", (1, 2, 4, 8)),
    [replace(EIGHT, name=1), replace(EIGHT, name=2, job=pair(train, times=4))],
    arms("vocabulary", train, "vocabulary", (4096, 8192, 16384, 32768, 65536)),
    arms("width d_model", train, "width", (64, 128, 256, 512)),
]


def run(work: Work, out: Path, *, repeats: int, factors: Sequence[Sequence[Arm]] = FACTORS) -> None:
    """Tables growth.csv and exponents.csv."""
    points = pd.concat([take_turns(factor, work, repeats=repeats) for factor in factors])
    points = points.drop(columns="rate").rename(columns={"workload": "factor", "arm": "value"})
    report.write_csv(points, out / "growth.csv")
    report.write_csv(exponents(points), out / "exponents.csv")
    report.write_machine(out / "growth-machine.json", {})


def exponents(points: pd.DataFrame) -> pd.DataFrame:
    """One row a factor: p of y = c x^p and its standard error (none of two points), for seconds and peak memory."""
    rows = []  # memory is that of the first repeats: a later one knows no growth
    for factor, mine in points.groupby("factor", sort=False):
        row = {"factor": factor, "from": mine["value"].min(), "to": mine["value"].max()}
        for what, column, some in (("time", "seconds", mine), ("memory", "peak_mib", mine[mine["repeat"] == 0])):
            fit = linregress(np.log(some["value"]), np.log(some[column].clip(lower=1e-3)))
            row |= {f"{what}_exponent": fit.slope, f"{what}_error": fit.stderr if len(some) > 2 else np.nan}
        rows.append(row)
    return pd.DataFrame(rows)
