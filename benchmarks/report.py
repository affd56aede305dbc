"""Tables, figures and README of the results that are there: python -m benchmarks.report"""

import json
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch

from benchmarks.compare import ARMS, PEAK, SMALLER, TARGETS, WORKLOADS
from tools.doctor import machine

HERE = Path(__file__).parent
RESULTS = HERE / "results"
BLOCK = re.compile(r"(<!-- begin (\w+) -->\n).*?(\n<!-- end \2 -->)", re.DOTALL)
OURS, OTHERS = "#0072b2", "#8c8c8c"


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table with four significant digits."""
    table.to_csv(path, index=False, float_format="%.4g", lineterminator="\n")


def write_machine(path: Path, more: Mapping[str, object]) -> None:
    """Write the commit, the machine and what else is to be known of a run."""
    commit = subprocess.run(["git", "log", "-1", "--format=%h"], cwd=HERE, capture_output=True, text=True)
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    record = {"commit": commit.stdout.strip(), **machine(), **gpu}
    record |= {"instruction_set": torch.backends.cpu.get_cpu_capability(), **more}
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def measured_on(path: Path) -> str:
    """Machine, versions and commit of a run in one sentence."""
    m = json.loads(path.read_text(encoding="utf-8"))
    where = f"{m['gpu']}, " if "gpu" in m else ""
    where += f"{m['processor']} with {m['instruction_set']}, {m['cores']} cores, {m['memory_gib']} GiB, {m['system']}"
    versions = f"torch {m['versions']['torch']}, transformers {m['versions']['transformers']}"
    return f"Measured on {where}, {versions}, at commit {m['commit']}."


def summarise(repeats: pd.DataFrame) -> pd.DataFrame:
    """One row an arm that was timed: median and quartiles of its rate, and the smallest of its peaks of memory.

    What a repeat frees is not always given back, and counts in the next one's peak; so the smallest says what it takes.
    """
    by = repeats.groupby(["workload", "arm"])
    rate = by["rate"].quantile([0.5, 0.25, 0.75]).unstack().set_axis(["median", "quartile_1", "quartile_3"], axis=1)
    table = rate.assign(repeats=by.size(), peak_mib=by["peak_mib"].min())
    table = table.loc[[key for arm in ARMS if (key := (arm.workload, arm.name)) in table.index]].reset_index()
    table.insert(2, "unit", table["workload"].map(WORKLOADS))
    return table


def targets(summary: pd.DataFrame, flops_per_token: float) -> pd.DataFrame:
    """One row a target, by ratios of medians: what, target, measured, reached. What was not timed has none."""
    rate, peak = (summary.set_index(["workload", "arm"])[column] for column in ("median", "peak_mib"))
    rows: list[tuple[str, str, str, bool]] = []
    for workload, arm, target, others in TARGETS:
        if (workload, arm) in rate.index:
            best = rate[workload].reindex(others).idxmax()
            ratio, which = rate[workload, arm] / rate[workload, best], "the best, " * (len(others) > 1)
            what = f"{workload}: {arm} against {which}{best}"
            rows.append((what, f"≥ {target} ×", f"{ratio:.1f} ×", ratio >= target))
    for workload, other in SMALLER:
        share = peak[workload, "ours"] / peak[workload, other]
        rows.append((f"{workload}: peak memory against {other}", "≤ 33%", f"{share:.0%}", share <= 1 / 3))
    for arm in (a.name for a in ARMS if a.workload == "matmul" and ("matmul", a.name) in rate.index):
        share = rate["training", f"ours {arm}"] * flops_per_token / 1e9 / rate["matmul", arm]
        what = f"training: share of the rate of bare products, {arm}"
        rows.append((what, f"≥ {PEAK:.0%}", f"{share:.0%}", share >= PEAK))
    return pd.DataFrame(rows, columns=["what", "target", "measured", "reached"])


@plt.rc_context({"font.size": 7, "axes.titlesize": 8, "axes.spines.top": False, "axes.spines.right": False})
def draw(folder: Path) -> None:
    """speed.png: a bar for each arm's median, a line for its quartiles."""
    summary = pd.read_csv(folder / "speed.csv")
    own = {(arm.workload, arm.name) for arm in ARMS if arm.job.function.__module__ == "benchmarks.ours"}
    counts = summary.groupby("workload", sort=False).size()
    fig, axes = plt.subplots(len(counts), 1, figsize=(7, 0.2 * sum(counts) + 0.5 * len(counts)), squeeze=False,
                             height_ratios=counts + 0.6, layout="constrained")  # fmt: skip
    for ax, workload in zip(axes[:, 0], counts.index, strict=True):
        mine = summary[summary["workload"] == workload].iloc[::-1]
        spread = [mine["median"] - mine["quartile_1"], mine["quartile_3"] - mine["median"]]
        colors = [OURS if (workload, arm) in own else OTHERS for arm in mine["arm"]]
        bars = ax.barh(mine["arm"], mine["median"], xerr=spread, color=colors)
        ax.bar_label(bars, [f"{x:,.3g}" if x < 1000 else f"{x:,.0f}" for x in mine["median"]], fontsize=6.5, padding=3)
        ax.set_title(f"{workload}, {WORKLOADS[workload]}", loc="left")
    text = f"Bars: medians of {summary['repeats'].min()} repeats in turn; black: quartiles. Blue: this study's code."
    fig.supxlabel(f"{text}\n{measured_on(folder / 'machine.json')}", fontsize=6, x=0.01, ha="left")
    fig.savefig(folder / "speed.png", dpi=150, metadata={"Software": None})
    plt.close(fig)


def markdown(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in [head, ["---" for _ in head], *rows])


def blocks() -> dict[str, str]:
    """What stands between the markers of the README: the arms, and what was found."""
    arms = [[a.workload, a.name, a.who, f"{a.job.processes} × {a.job.threads}", a.favour or "–"] for a in ARMS]
    found = pd.read_csv(RESULTS / "targets.csv").replace({True: "yes", False: "**no**"})
    grown = pd.read_csv(RESULTS / "exponents.csv")[["factor", "from", "to", "time_exponent", "memory_exponent"]].round(
        2
    )
    where = {name: measured_on(RESULTS / f"{name}.json") for name in ("machine", "growth-machine", "gpu/machine")}
    return {
        "arms": markdown(["workload", "arm", "who writes it so", "processes × threads", "in whose favour"], arms),
        "targets": f"{where['machine']}\n\n{markdown(found.columns, found.to_numpy())}",
        "growth": f"{where['growth-machine']}\n\n{markdown(grown.columns, grown.to_numpy())}",
        "gpu": where["gpu/machine"],
    }


def filled(text: str) -> str:
    """A README whose blocks are those of the results that are there."""
    found = blocks()
    return BLOCK.sub(lambda m: m[1] + found[m[2]] + m[3], text)


def main() -> None:
    """Draw the figures again and fill the README."""
    for folder in (RESULTS, RESULTS / "gpu"):
        draw(folder)
    page = HERE / "README.md"
    page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
