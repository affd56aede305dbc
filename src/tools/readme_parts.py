"""What the README's blocks are made of: the files they read, their cells, and the blocks on time and stages."""

import json
import re
import subprocess
import sys
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from unlearning.errors import StudyError

Rows = list[list[str]]


# Reading what is there


def read_yaml(root: Path, name: str) -> dict[str, Any]:
    """params.yaml or dvc.yaml as plain values."""
    return _parsed((root / name).read_text(encoding="utf-8"))


@lru_cache(maxsize=8)
def _parsed(text: str) -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load(text)


def read_csv(root: Path, name: str) -> pd.DataFrame:
    """A table of results/tables, empty where it is missing."""
    path = root / "results/tables" / name
    return pd.read_csv(path) if path.exists() else pd.DataFrame()


def stage_names(root: Path) -> list[str]:
    """Every stage of dvc.yaml by the name that `dvc repro` takes, in order."""
    params, names = read_yaml(root, "params.yaml"), []
    for name, block in read_yaml(root, "dvc.yaml")["stages"].items():
        if "matrix" in block:
            names += [f"{name}@{'-'.join(map(str, item))}" for item in product(*block["matrix"].values())]
        elif "foreach" in block:
            names += [f"{name}@{key}" for key in params[block["foreach"].strip("${} ")]]
        else:
            names.append(name)
    return names


def stage_of(root: Path, notebook: str) -> tuple[str, str]:
    """Stage that executes a source notebook and the path of the executed copy; empty texts if dvc.yaml has none."""
    for name, block in read_yaml(root, "dvc.yaml")["stages"].items():
        words = block.get("do", block)["cmd"].split()
        if f"notebooks/{notebook}.ipynb" in words:
            return name, words[words.index(f"notebooks/{notebook}.ipynb") + 1]
    return "", ""


def runs(root: Path) -> dict[str, dict[str, Any]]:
    """Stage -> record of its last run (seconds, memory, tasks, machine)."""
    paths = sorted((root / "results/runs").glob("*.json"))
    return {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in paths if p.stem != "machine"}


# Writing cells


def table(header: list[str], rows: Rows) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def number(value: float) -> str:
    """Three significant digits, with a real minus sign."""
    whole = abs(value) >= 1000
    return (f"{value:.0f}" if whole else f"{value:.3g}").replace("-", "−")


def interval(row: Any) -> str:
    """'mean [low, high]', a lower bound where runs did not get there, a dash where there is nothing."""
    if not np.isfinite(row.estimate):
        return "–"
    if np.isfinite(row.low):
        return f"{number(row.estimate)} [{number(row.low)}, {number(row.high)}]"
    return ("≥ " if "lower bound" in str(getattr(row, "reason", "")) else "") + number(row.estimate)


def minutes(seconds: float) -> str:
    """Minutes with one decimal."""
    return f"{seconds / 60:.1f}" if seconds >= 6 else "< 0.1"


def link(root: Path, text: str, path: str, absent: str) -> str:
    """A link to a file that is there, else why there is none."""
    return f"[{text}]({path})" if path and (root / path).exists() else absent


# Time and stages


def time(root: Path) -> str:
    """Machine, minutes and memory of every stage, as recorded by the runs themselves."""
    recorded, names = runs(root), stage_names(root)
    there, missing = [n for n in names if n in recorded], [n for n in names if n not in recorded]
    if not there:
        return "*Nothing has been timed here yet: `make repro` records time and memory of every stage.*"
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.partition("@")[0], []).append(name)
    rows = [_time_row(group, members, recorded) for group, members in groups.items() if set(members) & set(there)]
    rows.append(["**together**", "", f"**{minutes(sum(spent(recorded[n]) for n in there))}**", ""])
    header = ["stage", "tasks", "minutes", "largest process, GiB"]
    gaps = f"\n\nNo time recorded yet for {_few(missing)}." if missing else ""
    return f"{_machines(root, [recorded[n] for n in there])}\n\n{table(header, rows)}{gaps}"


def spent(record: dict[str, Any]) -> float:
    """Seconds of a stage; one that was resumed after a stop counts its finished tasks, shared out over the cores."""
    tasks = sum(task["count"] * task["seconds_each"] for task in record["tasks"])
    return max(record["seconds"], tasks / record["cores"])


def _time_row(group: str, members: list[str], recorded: dict[str, dict[str, Any]]) -> list[str]:
    """One row: a stage, or all stages of a matrix together."""
    there = [recorded[n] for n in members if n in recorded]
    counts: dict[str, int] = {}
    seconds: dict[str, float] = {}
    for task in (t for record in there for t in record["tasks"]):
        what = task["task"].split()[0] if group == "unlearn" else task["task"]
        counts[what] = counts.get(what, 0) + task["count"]
        seconds[what] = seconds.get(what, 0.0) + task["count"] * task["seconds_each"]
    cells = [f"{n} × {what}, {seconds[what] / n:.0f} s each" for what, n in counts.items() if n]
    name = f"`{group}`" if members == [group] else f"`{group}@…`, {len(there)} of {len(members)}"
    peak = max(record["peak_mib"] for record in there) / 1024
    return [name, "; ".join(cells) or "–", minutes(sum(map(spent, there))), f"{peak:.1f}"]


def _machines(root: Path, records: list[dict[str, Any]]) -> str:
    keys = ("processor", "cores", "memory_gib", "system", "python")
    machines = dict.fromkeys(tuple(record[k] for k in keys) for record in records)
    said = [
        f"{cpu}, {n} cores, {gib} GiB memory, {system}, Python {python}" for cpu, n, gib, system, python in machines
    ]
    path = root / "results/runs/machine.json"
    speeds = json.loads(path.read_text(encoding="utf-8")).get("reference_gflops", {}) if path.exists() else {}
    told = ", ".join(f"{speed:g} GFLOP/s in {dtype}" for dtype, speed in speeds.items())
    timed = f"ran there at {told}" if told else "has not been timed here yet"
    yardstick = "a 2048 × 2048 × 2048 matrix product"
    return f"Measured on {'; and on '.join(said)}. The yardstick, {yardstick}, {timed} (`make speed`)."


def speed(root: Path) -> str:
    """What the benchmark was asked and what it measured, from its own tables."""
    folder = root / "benchmarks/results"
    if not (folder / "targets.csv").exists():
        return "*This has not been measured here yet (`make bench`).*"
    found = pd.read_csv(folder / "targets.csv")
    where = json.loads((folder / "machine.json").read_text(encoding="utf-8"))
    rows = [[r.target, r.asked, r.measured, "yes" if r.reached else "**no**"] for r in found.itertuples()]
    machine = f"{where['processor']}, {where['cores']} cores, {where['memory_gib']} GiB memory, {where['system']}"
    without = "" if where["bfloat16"] else ", without instructions for bfloat16, so that no arm used it"
    rate = pd.read_csv(folder / "speed.csv").set_index(["workload", "arm"])["median"]
    beside, capped = (
        rate["training", arm] / rate["training", "Trainer grouped, side by side"]
        for arm in ("ours float32", "ours float32, AVX2")
    )
    processes = (
        "The Trainer runs as its users run it, one process with two threads; ours trains and ascends in two processes "
        f"with one thread each. Against two Trainers started side by side, training is {beside:.1f} × as fast, "
        f"under AVX2 {capped:.1f} ×. AVX2: with the instruction set to which the study holds itself; the other rows, "
        "of ours and of theirs, use what the machine has."
    )
    shown = table(["what", "asked", "measured", "reached"], rows)
    return f"{shown}\n\nMeasured on {machine}{without}. {processes}"


def _few(names: list[str]) -> str:
    shown = ", ".join(f"`{n}`" for n in names[:6])
    return shown + (f" and {len(names) - 6} more stages" if len(names) > 6 else "")


def edges(root: Path) -> set[tuple[str, str]]:
    """(stage, stage that reads what it makes), as dvc sees them, without those that follow from others.

    Raises:
        StudyError: dvc could not read the pipeline.
    """
    command = [sys.executable, "-m", "dvc", "dag", "--mermaid", "--collapse-foreach-matrix"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise StudyError(f"dvc dag failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    names = dict(re.findall(r'(node\d+)\["([^"]+)"\]', done.stdout))
    return reduced({(names[a], names[b]) for a, b in re.findall(r"(node\d+)-->(node\d+)", done.stdout)})


def reduced(graph: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """An acyclic graph without the edges that a longer path replaces (its transitive reduction)."""
    after: dict[str, set[str]] = {}
    for a, b in graph:
        after.setdefault(a, set()).add(b)

    def reaches(start: str, goal: str) -> bool:
        return any(n == goal or reaches(n, goal) for n in after.get(start, ()))

    return {(a, b) for a, b in graph if not any(reaches(n, b) for n in after[a] - {b})}


def dag(root: Path) -> str:
    """The stages as a Mermaid picture that GitHub draws."""
    order = {name: i for i, name in enumerate(read_yaml(root, "dvc.yaml")["stages"])}
    lines = [f"  {a} --> {b}" for a, b in sorted(edges(root), key=lambda e: (order[e[0]], order[e[1]]))]
    return "\n".join(["```mermaid", "flowchart LR", *lines, "```"])
