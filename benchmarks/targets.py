"""What was asked for and what was measured: ratios of medians of one run."""

from collections.abc import Mapping

import pandas as pd

from unlearning.data.design import assign_columns
from unlearning.errors import StudyError

PEAK_ASKED = 0.5  # of the matmul rate of the same dtype and threads
COLUMNS = ["target", "asked", "measured", "reached"]


def targets(summary: pd.DataFrame, facts: Mapping[str, float]) -> pd.DataFrame:
    """One row a target.

    Args:
        summary: `report.summarise`'s table: workload, arm, median (units a second), peak_mib; without the arms in
            bfloat16 where the processor has no instructions for it.
        facts: flops_per_token; largest_projection and allowed_projection (rows); models, sets, references.
    """
    rate = summary.set_index(["workload", "arm"])["median"]
    peak = summary.set_index(["workload", "arm"])["peak_mib"]
    rows: list[tuple[str, str, str, bool]] = []

    def at_least(what: str, asked: float, measured: float, form: str = "{:.1f} ×") -> None:
        rows.append((what, f"≥ {form.format(asked)}", form.format(measured), bool(measured >= asked)))

    best = _fastest(rate["training"], "Trainer default", "Trainer grouped", "Trainer bfloat16, grouped")
    precisions = [p for p in ("float32", "bfloat16") if ("matmul", p) in rate.index]
    for arm in ("float32", "float32, AVX2", "bfloat16"):
        if ("training", f"ours {arm}") not in rate.index:
            continue
        own = rate["training", f"ours {arm}"]
        several = f"several models trained, {arm}, against the Trainer"
        at_least(f"{several} at its default", 7, own / rate["training", "Trainer default"])
        at_least(f"{several}'s best ({best})", 3, own / rate["training", best])
    own = rate["ascent", "ours"]
    at_least(
        "ascent with scoring at every step, against the Trainer as peers write it", 4, own / rate["ascent", "Trainer"]
    )
    best = _fastest(rate["ascent"], "Trainer", "Trainer, to the longest", "Trainer bfloat16")
    at_least(f"the same, against its best ({best})", 4, own / rate["ascent", best])
    at_least(f"the same, AVX2, against its best ({best})", 4, rate["ascent", "ours, AVX2"] / rate["ascent", best])
    for workload in ("scoring", "scoring_50k"):
        for other in ("full logits", "full logits, by eight", "full logits, by eight, to the longest"):
            against = f"against {other}, one process each"
            at_least(f"{workload}: speed {against}", 3, rate[workload, "ours"] / rate[workload, other])
            share = peak[workload, "ours"] / peak[workload, other]
            rows.append((f"{workload}: peak memory {against}", "≤ 0.333", f"{share:.3f}", share <= 1 / 3))
    largest, allowed = int(facts["largest_projection"]), int(facts["allowed_projection"])
    what = "no tensor of batch × length × vocabulary: positions in one projection"
    rows.append((what, f"≤ {allowed}", str(largest), largest <= allowed))
    for precision in precisions:
        reached = rate["training", f"ours {precision}"] * facts["flops_per_token"] / 1e9 / rate["matmul", precision]
        at_least(f"share of the matmul peak that training reaches, {precision}", PEAK_ASKED, reached, "{:.0%}")
    models, sets, references = (int(facts[name]) for name in ("models", "sets", "references"))
    what = f"trainings for {references} references of each of {sets} forget sets, against one arm a set"
    rows.append((what, f"< {sets * references}", str(models), models < sets * references))
    return pd.DataFrame(rows, columns=COLUMNS)


def _fastest(rate: pd.Series, *arms: str) -> str:
    return max((arm for arm in arms if arm in rate.index), key=lambda arm: rate[arm])


def models_needed(sets: int, references: int, *, min_free_columns: int) -> int:
    """Models of the smallest balanced design with so many references (half of the models) for each of `sets` sets."""
    kinds = {f"set-{i}": ("natural", "canary", "secret")[i % 3] for i in range(sets)}
    models = 4
    while True:
        try:
            assign_columns(kinds, models=models, min_free_columns=min_free_columns)
        except StudyError:
            fits = False
        else:
            fits = True
        if fits and models // 2 >= references:
            return models
        models *= 2
