"""Tables and the figure of a run."""

import json
from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch

from benchmarks.arms import ARMS, UNITS
from tools.doctor import machine
from paper import plots

TITLES = {
    "training": "training, real tokens",
    "matmul": "the machine: 2048³ products",
    "ascent": "ascent, scored at every step",
    "scoring": "scoring, the study's vocabulary",
    "scoring_50k": "scoring, vocabulary of 50 000",
    "translation": "greedy translation",
}
OURS, OTHERS = "#0072b2", "#8c8c8c"


def summarise(repeats: pd.DataFrame) -> pd.DataFrame:
    """One row an arm that was timed: median and quartiles of its rate, and the smallest of its peaks of memory.

    What a repeat frees is not always given back, and counts in the next one's peak; so the smallest says what it takes.

    Args:
        repeats: workload, arm, repeat (from 0), rate, peak_mib.
    """
    rows = []
    for arm in ARMS:
        mine = repeats[(repeats["workload"] == arm.workload) & (repeats["arm"] == arm.name)]
        if mine.empty:
            continue
        low, median, high = mine["rate"].quantile([0.25, 0.5, 0.75])
        row = {"workload": arm.workload, "arm": arm.name, "unit": UNITS[arm.workload]}
        row |= {"median": median, "quartile_1": low, "quartile_3": high, "repeats": len(mine)}
        row |= {"processes": arm.job.processes, "threads": arm.job.threads}
        row |= {"memory_kept": arm.job.memory_kept, "instruction_set": "AVX2" if arm.job.capped else "the machine's"}
        rows.append({**row, "peak_mib": mine["peak_mib"].min()})
    return pd.DataFrame(rows)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table with four significant digits."""
    table.to_csv(path, index=False, float_format="%.4g", lineterminator="\n")


def gpu() -> dict[str, str]:
    """The GPU, if there is one."""
    return {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}


def write_machine(path: Path, more: Mapping[str, object]) -> None:
    """Write processor, cores, memory, GPU, versions and what else is to be known of the run."""
    record = {**machine(), **gpu(), "instruction_set": torch.backends.cpu.get_cpu_capability(), **more}
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def machine_line() -> str:
    """The machine in one line."""
    m = machine()
    versions = ", ".join(f"{name} {m['versions'][name]}" for name in ("torch", "transformers"))
    parts = [*gpu().values(), m["processor"], f"{m['cores']} cores", f"{m['memory_gib']} GiB", m["system"]]
    return f"{', '.join(parts)}; {versions}"


def draw(summary: pd.DataFrame, folder: Path) -> None:
    """speed.png and speed.svg: a bar for each arm's median, a line for its quartiles."""
    plots.use_style()
    workloads = list(dict.fromkeys(summary["workload"]))
    counts = [int((summary["workload"] == w).sum()) for w in workloads]
    size = {"figsize": (plots.WIDTH_IN, 0.2 * sum(counts) + 0.5 * len(counts))}
    fig, axes = plt.subplots(len(counts), 1, height_ratios=[c + 0.6 for c in counts], squeeze=False, **size)
    for ax, workload in zip(axes[:, 0], workloads, strict=True):
        mine = summary[summary["workload"] == workload].iloc[::-1]
        own = mine["arm"].str.startswith("ours")
        ax.barh(mine["arm"], mine["median"], color=[OURS if o else OTHERS for o in own], height=0.7)
        ax.hlines(mine["arm"], mine["quartile_1"], mine["quartile_3"], color="black", linewidth=1.5)
        for name, median, high in zip(mine["arm"], mine["median"], mine["quartile_3"], strict=True):
            ax.annotate(f"{median:,.3g}" if median < 1000 else f"{median:,.0f}", (high, name), xytext=(3, 0),
                        textcoords="offset points", va="center", fontsize=6.5)  # fmt: skip
        ax.set_xlim(0, 1.15 * mine["quartile_3"].max())
        ax.set_title(f"{TITLES[workload]} ({UNITS[workload]})", loc="left")
        ax.grid(axis="y", visible=False)
    repeats = int(summary["repeats"].min())
    text = f"Bars: medians of {repeats} interleaved repeats; black: quartiles. Blue: this study's code."
    plots.note(fig, f"{text} {machine_line()}.")
    save(fig, folder, "speed")


def save(fig: plt.Figure, folder: Path, name: str) -> None:
    """Write PNG and SVG."""
    fig.savefig(folder / f"{name}.png", metadata={"Software": None})
    fig.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
    plt.close(fig)
