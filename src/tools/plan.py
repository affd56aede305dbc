"""What a full run will do: models and ascents by stage, and the seconds they took when last recorded."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

from tools import settings
from tools.tasks import default_workers
from unlearning.errors import StudyError

RUNS = Path("results/runs")


def record(stage: str) -> dict[str, Any]:
    """The last run of a stage, empty if none was recorded."""
    path = RUNS / f"{stage}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def task_seconds(found: dict[str, Any]) -> float | None:
    """Mean seconds of a stage's tasks, or None when nothing was recorded."""
    tasks = found.get("tasks", [])
    count = sum(t["count"] for t in tasks)
    return sum(t["count"] * t["seconds_each"] for t in tasks) / count if count else None


def mean_steps(ascent: str) -> float | None:
    """Mean number of steps of a committed ascent's runs."""
    path = Path("results/tables/unlearn") / ascent / "runs.csv"
    if not path.exists():
        return None
    with path.open(encoding="utf-8", newline="") as stream:
        steps = [float(row["last_step"]) for row in csv.DictReader(stream) if row["last_step"]]
    return sum(steps) / len(steps) if steps else None


def train_stages() -> list[str]:
    """Names of the training stages whose runs were recorded, or those of the default track."""
    return sorted(p.stem for p in RUNS.glob("train@*.json")) or ["train@adamw", "train@adafactor"]


def lines(s: Any) -> list[str]:
    """The plan as text, one line a stage."""
    models, partners = s.design.models, s.train.exact_partners
    extra = partners.models * len(partners.forget_sets) + partners.repeats
    out = [_line("base", 2, "models")]
    for stage in train_stages():
        count = models + extra * (stage == f"train@{partners.optimizer}")
        out.append(_line(stage, count, "models"))
    out.append(_line("pilot", None, "models and ascents"))
    for name in s.ascents:
        placebo = s.unlearn.placebo_models * (name in s.unlearn.placebo)
        what = f"runs ({placebo} placebo)" if placebo else "runs"
        out.append(_line(f"unlearn@{name}", models // 2 + placebo, what, mean_steps(name)))
    return out


def _line(stage: str, count: int | None, what: str, steps: float | None = None) -> str:
    found = record(stage)
    each = task_seconds(found)
    number = f"{count} {what}" if count is not None else what
    by_step = f" × {steps:.0f} steps × {each / steps:.2f} s" if steps and each else f" × {each:.0f} s" if each else ""
    minutes = f"{spent(found) / 60:6.1f} min last time" if found else "no time recorded"
    return f"  {stage:<42} {number + by_step:<40} {minutes}"


def spent(found: dict[str, Any]) -> float:
    """Seconds of a recorded run, tasks that an earlier, stopped run had finished included."""
    work = sum(t["count"] * t["seconds_each"] for t in found.get("tasks", []))
    return max(found.get("seconds", 0), work / found.get("cores", 1))


def main() -> int:
    """Print the plan; 1 with a message when the settings are wrong."""
    try:
        text = lines(settings.load())
        workers = default_workers()
    except StudyError as error:
        print(error, file=sys.stderr)
        return 1
    total = sum(spent(record(p.stem)) for p in RUNS.glob("*.json"))
    print(f"Plan of a full run, {workers} tasks side by side (dvc leaves out what is up to date):")
    print("\n".join(text))
    print(f"  all stages together: {total / 60:.0f} minutes when last recorded" if total else "  no time recorded yet")
    return 0


if __name__ == "__main__":
    sys.exit(main())
