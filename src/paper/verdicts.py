"""The claims table in words: one line a claim and arm, a sentence a part, and a summary for other programs."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from paper.questions import BESIDE, CLAIMS
from paper.study import Study

SAYS = {
    "C1": "GenEx is a metric for generative models: it separates, and its floor is calibrated",
    "C2": "OOD data need more unlearning steps",
    "C3": "OOD data have the better trade-off",
    "C4": "for InD data performance decays rapidly",
    "C5": "memorization affects unlearning",
    "C6": "difficulty affects unlearning",
}


def verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """One row a claim and arm: claim, says, arm, verdict, p_holm, because (the parts' verdicts and reasons)."""
    rows = []
    for (claim, arm), group in table[table["part"] != BESIDE].groupby(["claim", "arm"], sort=False):
        by_part = [f"{claim}{row.part} {row.verdict}" for row in group.itertuples()] if len(group) > 1 else []
        reasons = dict.fromkeys(r for r in group["reason"] if r)
        rows.append({"claim": claim, "says": SAYS[claim], "arm": arm, "verdict": group["claim_verdict"].iloc[0],
                     "p_holm": group["p_holm"].iloc[0], "because": "; ".join([*by_part, *reasons])})  # fmt: skip
    return pd.DataFrame(rows)


def sentence(row) -> str:
    """A row of the claims table in words, with its interval, margin, n, p and verdict, or why it has none."""
    label = f"{row.claim}{'' if row.part == BESIDE else row.part} {row.arm}: {row.statement}"
    if not np.isfinite(row.estimate):
        return f"{label}: no value ({row.reason})."
    limits = f" [{_number(row.low)}, {_number(row.high)}]" if np.isfinite(row.low) else " (no interval)"
    text = f"{label}: {_number(row.estimate)}{limits} {row.unit}, n = {row.n}"
    if np.isfinite(row.delta):
        text += f", δ {_number(row.delta)}" if row.claim != "C1" else f", threshold {_number(row.delta)}"
    if np.isfinite(row.p_holm):
        text += f", p {_p(row.p_holm)} after Holm, sign-flip {_p(row.p_sign_flip)}"
    if row.verdict:
        text += f": {row.verdict}"
    return text + (f" ({row.reason})." if row.reason else ".")


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _p(value: float) -> str:
    return "not computed" if not np.isfinite(value) else "< 0.001" if value < 1e-3 else f"{value:.2g}"


def set_overview(sets: pd.DataFrame, titles: Mapping[str, str]) -> pd.DataFrame:
    """The set table for reading: one row a set and arm, 'mean [low, high]' cells under the given titles.

    Args:
        sets: `summaries.set_table`.
        titles: quantity -> column title.
    """
    if not len(sets):
        return pd.DataFrame(columns=["arm", "forget_set", "n", *titles.values()])
    rows = []
    for (arm, name), group in sets.groupby(["arm", "forget_set"], sort=False):
        by_name = group.set_index("quantity")
        cells = {title: _cell(by_name.loc[quantity]) for quantity, title in titles.items()}
        rows.append({"arm": arm, "forget_set": name, "n": int(by_name.loc["k_star", "n"]), **cells})
    return pd.DataFrame(rows)


def _cell(row: pd.Series) -> str:
    if not np.isfinite(row["estimate"]):
        return "–"
    if np.isfinite(row["low"]):
        return f"{_number(row['estimate'])} [{_number(row['low'])}, {_number(row['high'])}]"
    return f"{'≥ ' if 'lower bound' in row['reason'] else ''}{_number(row['estimate'])}"


def write_summary(table: pd.DataFrame, study: Study, runs: pd.DataFrame, path: str | Path) -> dict:
    """Write the answers as JSON for other programs: counts, and for every claim and arm its verdict with its parts."""
    inside = runs[runs["role"] == "in"]
    summary = {
        "models": len(study.design),
        "trained_with": sorted(study.references),
        "forget_sets": study.forget_sets,
        "runs": len(inside),
        "censored": int(inside["k_star"].isna().sum()),
        "missing": study.missing,
        "claims": {claim: _claim(table[table["claim"] == claim], claim) for claim in CLAIMS},
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return summary


def _claim(rows: pd.DataFrame, claim: str) -> dict:
    arms = {}
    for arm, group in rows[rows["part"] != BESIDE].groupby("arm", sort=False):
        columns = ["part", "statement", "estimate", "low", "high", "unit", "delta", "n", "p", "verdict", "reason"]
        parts = [{k: _plain(v) for k, v in row.items()} for row in group[columns].to_dict("records")]
        arms[arm] = {"verdict": group["claim_verdict"].iloc[0], "p_holm": _plain(group["p_holm"].iloc[0]),
                     "parts": parts}  # fmt: skip
    return {"says": SAYS[claim], "arms": arms}


def _plain(value: object) -> object:
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
