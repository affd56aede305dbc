"""How time and memory grow with the work: python -m benchmarks.growth [--smoke]"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from benchmarks import command, extrapolation, report, workloads
from benchmarks.exponents import exponents
from benchmarks.growth_cases import FACTORS, Factor
from benchmarks.processes import crews
from unlearning.data.groups import StudyData
from tools import plan, settings
from paper import plots


def measure(folder: Path, factors: Sequence[Factor], *, repeats: int) -> pd.DataFrame:
    """Each value in a fresh process (or processes): one row a value and repeat."""
    rows = []
    for factor in factors:
        for value in factor.values:
            with crews([factor.job(value)], folder) as (crew,):
                for repeat in range(repeats):
                    result = crew.run()
                    row = {"factor": factor.name, "value": value, "repeat": repeat}
                    rows.append({**row, "seconds": result.seconds, "peak_mib": result.peak_mib})
            print(f"{factor.name} {value}: {result.seconds:.2f} s, {rows[-repeats]['peak_mib']:.0f} MiB", flush=True)
    return pd.DataFrame(rows)


def study_counts(work: workloads.Workload) -> extrapolation.Counts:
    """What this study trains, ascends and scores."""
    s, data = settings.load(), StudyData("data")
    core = workloads.tokens(data.group("core").encoded)
    sets = sum(b.repetitions * workloads.tokens(data.group(name).encoded) for name, b in s.forget_sets.items())
    steps = [found for found in map(plan.mean_steps, s.ascents) if found is not None]
    return extrapolation.Counts(
        name="this study's",
        models=s.design.models,
        train_tokens=s.train.adamw.epochs * (core + sets / 2),
        ascents=len(s.ascents) * s.design.models // 2,
        steps=sum(steps) / len(steps) if steps else s.unlearn.k_max,
        step_tokens=workloads.tokens(work.forget),
        scored_tokens=workloads.tokens(work.heldout[: work.watched]),
    )


def draw(points: pd.DataFrame, fitted: pd.DataFrame, folder: Path) -> None:
    """growth.png and growth.svg: a column a measure, a row a factor, log-log, with the fitted exponents."""
    plots.use_style()
    fig, axes = plots.grid(len(fitted), 2, height_in=1.3)
    for row, (_, fit) in zip(axes, fitted.iterrows(), strict=True):
        mine = points[points["factor"] == fit["factor"]]
        _panel(row[0], mine["value"], mine["seconds"], fit, "time", "s")
        first = mine[mine["repeat"] == 0]
        _panel(row[1], first["value"], first["peak_mib"].clip(lower=0.1), fit, "memory", "MiB")
    text = "Points: repeats (memory: the first), one thread a worker. Lines: fits; ±: standard error of the slope."
    plots.note(fig, f"{text} Memory: the peak, less libraries and examples. {report.machine_line()}.")
    report.save(fig, folder, "growth")


def _panel(ax: plt.Axes, x: pd.Series, y: pd.Series, fit: pd.Series, measure: str, unit: str) -> None:
    slope, error = fit[f"{measure}_exponent"], fit[f"{measure}_error"]
    ax.loglog(x, y, "o", color=report.OURS)
    middle = np.exp(np.log(x).mean()), np.exp(np.log(y).mean())
    ax.loglog(x, middle[1] * (x / middle[0]) ** slope, color=report.OURS, linewidth=0.8)
    ax.set_title(f"{measure}, exponent {slope:.2f}" + ("" if pd.isna(error) else f" ± {error:.2f}"), loc="left")
    ax.set(xlabel=fit["factor"], ylabel=unit, ylim=(y.min() / 1.3, 1.3 * y.max()))
    ax.minorticks_off()
    ax.set_xticks(sorted(set(x)), labels=[str(v) for v in sorted(set(x))])
    ends = [y.min(), y.max()] if y.max() > 1.15 * y.min() else [y.median()]
    ax.set_yticks(ends, labels=[f"{v:,.3g}" if v < 1000 else f"{v:,.0f}" for v in ends])


def run(out: Path, *, smoke: bool, repeats: int) -> int:
    """Tables growth.csv, exponents.csv and extrapolated.csv, and the figure."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        work = workloads.toy(folder) if smoke else workloads.real(folder)
        work.save(folder)
        points = measure(folder, FACTORS[3:5] if smoke else FACTORS, repeats=repeats)
    fitted = exponents(points)
    report.write_csv(points, out / "growth.csv")
    report.write_csv(fitted, out / "exponents.csv")
    draw(points, fitted, out)
    counts = extrapolation.LLM if smoke else study_counts(work)
    report.write_csv(extrapolation.table(counts), out / "extrapolated.csv")
    (out / "extrapolated.txt").write_text(extrapolation.assumptions(counts) + "\n", encoding="utf-8")
    report.write_machine(out / "growth-machine.json", {"toy": smoke})
    print(fitted.to_string())
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. 0; 1 when something is missing."""
    parser = command.options("growth", __doc__, repeats=2)
    parser.add_argument("--smoke", action="store_true", help="toy size, made-up data: does everything run?")
    return command.call(run, parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
