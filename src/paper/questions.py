"""What a claim is asked of, one row of its table, and how rows become verdicts. The resampling unit is a model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from paper.study import Study
from unlearning.core.stats import holm, p_beyond, sign_flip_p, t_interval, verdict

CLAIMS = ("C1", "C2", "C3", "C4", "C5", "C6")
COLUMNS = ["claim", "part", "arm", "statement", "estimate", "low", "high", "unit", "delta", "n", "p", "p_sign_flip",
           "p_holm", "verdict", "claim_verdict", "reason"]  # fmt: skip
BESIDE, NOT_COMPUTED = "beside", "not computed"
FLIPPED = 20  # values whose flips of sign are enumerated at most; with more the sign-flip p stays empty


@dataclass(frozen=True)
class Question:
    """What is compared in one arm, with the margins that count. `ind` and `ood` are names of forget sets."""

    study: Study
    runs: pd.DataFrame
    arm: str
    ind: tuple[str, ...]
    ood: tuple[str, ...]
    delta: dict[str, float]
    confidence: float

    @property
    def inside(self) -> pd.DataFrame:
        """The arm's rows of `run_table` but the placebos."""
        table = self.runs
        return table[(table["arm"] == self.arm) & (table["role"] == "in")]

    @property
    def nothing(self) -> str:
        """Why the arm has no value at all, or nothing."""
        return "" if len(self.inside) else f"no runs in arm {self.arm}"

    def not_memorized(self, least: float = 0.5) -> str:
        """Which of the sets have too small an instance part at θ0 to count, in words, or nothing."""
        table = self.inside
        here = table[table["forget_set"].isin((*self.ind, *self.ood))]
        shares = here.groupby("forget_set")["instance_share"].mean() if len(here) else {}
        low = [f"{name} not memorized (instance part {share:.0%} of its exposure at θ0): not counted"
               for name, share in shares.items() if share < least]  # fmt: skip
        return "; ".join(low)

    def by_draw(self) -> "dict[str, Question]":
        """The same question of the other draws of both kinds, and of all draws together; none where there is one each.

        A draw of a kind stands as often in training and is unlearned in this arm. Sets of one's own are no draws, and a
        pair of one kind has none.
        """
        how = self.study.examples.groupby("forget_set")[["kind", "repetitions"]].first().apply(tuple, axis=1)
        there = [name for name in self.study.forget_sets if self.study.select(arm=self.arm, forget_set=name)]
        every, other = {}, {}
        for side, sets in (("ind", self.ind), ("ood", self.ood)):
            like = {how[name] for name in sets if how[name][0] != "own"}
            every[side] = tuple(name for name in there if name in sets or how[name] in like)
            other[side] = tuple(name for name in every[side] if name not in sets)
        if not all(other.values()) or set(every["ind"]) & set(every["ood"]):
            return {}
        names = {", ".join((*other["ind"], *other["ood"])): other, "all draws of both kinds": every}
        return {name: replace(self, **sides) for name, sides in names.items()}

    def by_model(self, column: str, sets: Sequence[str]) -> pd.Series:
        """Model -> mean of a column over those of the sets that the model holds; NaN where one of them is NaN."""
        table = self.inside
        if not len(table):
            return pd.Series(dtype=float)
        here = table[table["forget_set"].isin(sets)]
        return here.groupby("model")[column].agg(lambda v: v.mean(skipna=False))

    def pairs(self, column: str) -> tuple[pd.DataFrame, str]:
        """Models that hold both sides, columns ind and ood, and why some or all of them have no value."""
        both = pd.DataFrame({"ind": self.by_model(column, self.ind), "ood": self.by_model(column, self.ood)})
        absent = [s for s, column in ((self.ind, "ind"), (self.ood, "ood")) if both[column].isna().all()]
        held = both[both.index.isin(self.by_model("last_step", self.ind).index)
                    & both.index.isin(self.by_model("last_step", self.ood).index)]  # fmt: skip
        if self.nothing:
            return held, self.nothing
        if absent:
            return held, f"arm {self.arm} has no value for {' or '.join('/'.join(s) for s in absent)}"
        lost = int(held.isna().any(axis=1).sum())
        if not len(held):
            return held, f"no model holds both {'/'.join(self.ind)} and {'/'.join(self.ood)}"
        return held, f"{lost} of {len(held)} pairs left out: censored or not measured" if lost else ""


def make_row(
    q: Question, claim: str, part: str, statement: str, values: Sequence[float], *, unit: str, delta: float,
    direction: int, null: float = 0.0, reason: str = "", correlation: bool = False
) -> dict:  # fmt: skip
    """One row of the claims table from one value a model.

    Args:
        q: the arm in question.
        claim: C1 to C6.
        part: "" or a letter, or 'beside'.
        statement: in words, what a value beyond delta supports.
        values: (n_models,) in `unit`; for correlations Fisher's z. What is not finite is left out, and counted in the
            reason.
        unit: of the estimate.
        delta: margin around `null` (for correlations in ρ).
        direction: as in `stats.verdict`; 0 where the claim is 'affects'.
        null: the threshold, shown as delta where it is not zero.
        reason: why there is no value, or fewer than there could be.
        correlation: values are Fisher's z; margin and limits are turned into ρ.
    """
    given = np.asarray(values, dtype=float)
    values = given[np.isfinite(given)] - null
    if len(values) < len(given):
        reason = reason or f"{len(given) - len(values)} of {len(given)} models left out: censored or not measured"
    margin = float(np.arctanh(delta)) if correlation else delta
    interval = t_interval(values, confidence=q.confidence)
    if interval.n < 2:
        reason = reason or q.nothing or ("one model has no interval" if interval.n else "no model has a value")
    back = np.tanh if correlation else lambda v: v + null
    row = {"claim": claim, "part": part, "arm": q.arm, "statement": statement,
           "estimate": float(back(interval.estimate)), "low": float(back(interval.low)),
           "high": float(back(interval.high)), "unit": unit, "delta": null or delta, "n": interval.n,
           "p": p_beyond(values, delta=margin),
           "p_sign_flip": sign_flip_p(values, delta=margin) if len(values) <= FLIPPED else np.nan,
           "verdict": verdict(interval, delta=margin, direction=direction), "reason": reason}  # fmt: skip
    return {**row, "direction": direction}


def decide(table: pd.DataFrame, *, confidence: float = 0.95) -> pd.DataFrame:
    """Fill p_holm and claim_verdict: one test a claim and arm, over all of them.

    The claim's p is the largest of its parts' (all must hold); where a part is contradicted, the smallest of the
    contradicted parts' times the number of parts (one is enough).
    """
    table, parts = table.copy(), table[table["part"] != BESIDE]
    groups = {key: group for key, group in parts.groupby(["claim", "arm"], sort=False)}
    adjusted = holm([_claim_p(group) for group in groups.values()])
    for (claim, arm), p in zip(groups, adjusted, strict=True):
        rows = (table["claim"] == claim) & (table["arm"] == arm) & (table["part"] != BESIDE)
        table.loc[rows, "p_holm"] = p
        word = _claim_verdict(groups[claim, arm], p, 1 - confidence)
        counted = not groups[claim, arm]["reason"].str.contains("not counted").any()
        table.loc[rows, "claim_verdict"] = word if counted or word == NOT_COMPUTED else "not counted"
        beyond = rows & table["verdict"].isin(["supported", "contradicted"])
        if word == "inconclusive" and p >= 1 - confidence and beyond.sum() == rows.sum():
            table.loc[rows, "reason"] = (table.loc[rows, "reason"] + "; not beyond the margin after Holm").str.lstrip(
                "; "
            )
    return table


def _claim_p(parts: pd.DataFrame) -> float:
    against = parts[parts["verdict"] == "contradicted"]
    if len(against):
        return float(min(1.0, against["p"].min() * len(parts)))
    return float(parts["p"].max(skipna=False))


def _claim_verdict(parts: pd.DataFrame, p: float, alpha: float) -> str:
    words = set(parts["verdict"])
    if "contradicted" in words:
        return "contradicted" if p < alpha else "inconclusive"
    if NOT_COMPUTED in words:
        return NOT_COMPUTED
    if words == {"supported"}:
        return "supported" if p < alpha else "inconclusive"
    return "equivalent" if words == {"equivalent"} else "inconclusive"
