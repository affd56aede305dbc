"""The claims as one table of rows, one loop that computes it, and verdicts that nobody types.

The unit is a model: a row has one value a model, and Student's interval over models decides. A claim is supported where
all of its parts are; what stands beside a claim decides nothing. The tests of claims × headline arms are one family.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from paper import exposure, memorization, runs, trade_off
from paper.runs import Array, Run, Study
from unlearning.core import genex, stats

BESIDE, NOT_COMPUTED, RHO = "beside", "not computed", "rank correlation"
COLUMNS = ["claim", "part", "arm", "statement", "estimate", "low", "high", "unit", "delta", "n", "p", "p_sign_flip",
           "p_holm", "verdict", "claim_verdict", "reason"]  # fmt: skip
FLIPPED = 20  # values whose flips of sign are enumerated at most; with more the sign-flip p stays empty
OOD_MORE, IND_MORE, BOTH, IND, OOD = "OOD − InD", "InD − OOD", "InD and OOD", "InD", "OOD"


@dataclass(frozen=True)
class Case:
    """What is compared in one arm. `ind` and `ood` are names of forget sets."""

    study: Study
    arms: Mapping[str, Mapping]  # the block of that name
    values: pd.DataFrame  # one row an in-run: arm, forget_set, model, and every column that a row of ROWS names
    arm: str
    ind: tuple[str, ...]
    ood: tuple[str, ...]
    delta: Mapping[str, float]

    @property
    def inside(self) -> pd.DataFrame:
        return self.values[self.values["arm"] == self.arm]


def _calibration(case: Case, side: str, column: str) -> pd.DataFrame:
    # like the next ones: values that are no column of the table of runs, as forget_set, model, value
    names = [name for name in (*case.ind, *case.ood) if name in set(case.inside["forget_set"])]
    trained_with, none = case.arms[case.arm]["trained_with"], pd.DataFrame(columns=exposure.CALIBRATION)
    table = pd.concat([none, *(exposure.calibration(case.study, trained_with, name) for name in names)])
    return table[table["side"] == side].rename(columns={column: "value"})


def _at_equal_level(measure: Callable[[Run, float], float]) -> Callable[[Case], pd.DataFrame]:
    return lambda case: memorization.at_equal_level(case.study, case.arm, (*case.ind, *case.ood), measure)


def _steps_to(run: Run, level: float) -> float:
    return genex.steps_to_forget(run.set_exposure.to_numpy() - level, run.steps)


def _placebo(case: Case) -> pd.DataFrame:
    table = trade_off.placebo_lost(case.study, [1.0])
    return table[table["arm"] == case.arm].rename(columns={"lost": "value"})


def by_draw(case: Case) -> dict[str, Case]:
    """In words -> the other draws of both kinds, as often in training and unlearned in this arm, and all draws.

    Sets of one's own are no draws, and a pair of one kind has none.
    """
    how = case.study.examples.groupby("forget_set")[["kind", "repetitions"]].first().apply(tuple, axis=1)
    there = [name for name in case.study.forget_sets if case.study.select(arm=case.arm, forget_set=name)]
    every, other = {}, {}
    for side, sets in (("ind", case.ind), ("ood", case.ood)):
        like = {how[name] for name in sets if how[name][0] != "own"}
        every[side] = tuple(name for name in there if name in sets or how[name] in like)
        other[side] = tuple(name for name in every[side] if name not in sets)
    if not all(other.values()) or set(every["ind"]) & set(every["ood"]):
        return {}
    names = {", ".join((*other["ind"], *other["ood"])): other, "all draws of both kinds": every}
    return {name: replace(case, **sides) for name, sides in names.items()}


def _learning_rates(case: Case) -> dict[str, Case]:
    """The same training and method at every learning rate that there is an arm for."""
    mine = [case.arms[case.arm][key] for key in ("trained_with", "method")]
    same = {a: s.get("rate", 1.0) for a, s in case.arms.items() if [s["trained_with"], s["method"]] == mine}
    names = {"½" if rate == 0.5 else f"{rate:g}": arm for arm, rate in sorted(same.items(), key=lambda item: item[1])}
    return {f"learning rate × {name}": replace(case, arm=arm) for name, arm in names.items()}


def _strata(case: Case) -> dict[str, Case]:
    """The fewest against the most repetitions of every kind that has both."""
    found = memorization.strata(case.study, case.arm)
    sides = {kind: {"ind": (sets[0],), "ood": (sets[-1],)} for kind, sets in found.items()}
    return {kind: replace(case, **s) for kind, s in (sides or {"(of any kind)": {"ind": (), "ood": ()}}).items()}


@dataclass(frozen=True)
class Row:
    """One line of the table of claims."""

    claim: str
    part: str  # nothing or a letter: decides; BESIDE: is shown with the claim
    statement: str  # what a value beyond the margin supports; {} is what tells several cases apart
    value: str | Callable[[Case], pd.DataFrame]  # column of a case's values, or a function of the case
    sides: str  # OOD_MORE, IND_MORE: inside models that hold both; else mean over the sets that a model holds
    unit: str
    margin: str = ""  # name in claims.delta; in steps, a share of the case's own k*(InD); nothing: zero
    sign: int | None = 1  # of a value that supports; 0: either; None: no verdict, for scale alone
    threshold: bool = False  # the margin is the value to be passed, not a distance from zero
    cases: Callable[[Case], dict[str, Case]] | None = None  # not given: the arm's pair
    nothing: str = ""  # why there may be no value


SAYS = {
    "C1": "GenEx is a metric for generative models: it separates, and its floor is calibrated",
    "C2": "OOD data need more unlearning steps",
    "C3": "OOD data have the better trade-off",
    "C4": "for InD data performance decays rapidly",
    "C5": "memorization affects unlearning",
    "C6": "difficulty affects unlearning",
}
NATS, LOST = ("nats per token", "C3_nats_per_token"), "performance lost at k*{}: InD − OOD"
ALSO, HALF = ("nats per token", "C4_nats_per_token"), "performance lost in the second half of the steps: InD − OOD"
FASTER = "lost in the second half of the steps − twice what the first half cost"
K_STAR, STEPS = "k*(OOD) − k*(InD) {}", ("steps", "C2_share_of_k_star")
LEVEL = K_STAR.format("from an equal level on, the smaller exposure at θ0 of both ({})")
CORRELATED = "rate of unlearning rank-correlated with {}, given length, inside models and sets"
MEMORIZATION, DIFFICULTY = (partial(Row, c, unit=RHO, margin=f"{c}_rho", sign=0) for c in ("C5", "C6"))
ROWS = (
    Row("C1", "a", "run exposure at θ0 tells models trained on a set from models that were not: AUC above the margin",
        partial(_calibration, side="in", column="auc"), BOTH, "AUC", "C1_auc", threshold=True),
    Row("C1", "b", "of models never trained on a set, at most the margin lies outside the noise floor",
        partial(_calibration, side="out", column="share_outside"), BOTH, "share of examples", "C1_outside", sign=-1,
        threshold=True, nothing="fewer than three references a set"),
    Row("C2", "", K_STAR.format("inside models that hold both"), "k_star", OOD_MORE, *STEPS),
    Row("C2", BESIDE, K_STAR.format("inside models that hold both ({})"), "k_star", OOD_MORE, *STEPS, cases=by_draw),
    Row("C2", BESIDE, "steps that take as many nats from θ0, the smaller exposure there of both: OOD − InD",
        _at_equal_level(lambda run, nats: _steps_to(run, run.exposure[0].mean() - nats)), OOD_MORE, *STEPS),
    Row("C2", BESIDE, LEVEL, _at_equal_level(lambda run, level: run.k_star - _steps_to(run, level)), OOD_MORE, *STEPS,
        cases=_learning_rates),
    Row("C3", "", LOST.format(""), "lost_100", IND_MORE, *NATS),
    Row("C3", BESIDE, "performance lost at k95: InD − OOD", "lost_k95", IND_MORE, *NATS),
    Row("C3", BESIDE, LOST.format(", against the references instead of θ0"), "lost_to_references", IND_MORE, *NATS),
    Row("C3", BESIDE, LOST.format(", on a sample of the core"), "lost_retain", IND_MORE, *NATS),
    Row("C3", BESIDE, LOST.format(", by translations"), "lost_bleu", IND_MORE, "BLEU"),  # no margin was fixed for it
    Row("C3", BESIDE, LOST.format("") + " ({})", "lost_100", IND_MORE, *NATS, cases=by_draw),
    Row("C3", BESIDE, LOST.format(", by translations") + " ({})", "lost_bleu", IND_MORE, "BLEU", cases=by_draw),
    Row("C4", "a", "performance lost after 50 % of k*: InD − OOD", "lost_50", IND_MORE, *ALSO),
    Row("C4", "b", "performance lost after 100 % of k*: InD − OOD", "lost_100", IND_MORE, *ALSO),
    Row("C4", "c", f"InD: {FASTER}", "faster", IND, "nats per token"),
    Row("C4", BESIDE, f"{FASTER}: InD − OOD", "faster", IND_MORE, "nats per token"),
    Row("C4", BESIDE, HALF, "lost_later", IND_MORE, *ALSO),
    Row("C4", BESIDE, HALF + " ({})", "lost_later", IND_MORE, *ALSO, cases=by_draw),
    Row("C4", BESIDE, "performance lost after 50 % of k*: InD − OOD ({})", "lost_50", IND_MORE, *ALSO, cases=by_draw),
    Row("C4", BESIDE, "placebo: lost by as many steps of ascent on InD from models that never saw it", _placebo, IND,
        "nats per token", sign=None, nothing="no placebo runs in this arm"),
    MEMORIZATION("", CORRELATED.format("memorization"), "rate_mem", BOTH),
    Row("C5", BESIDE, "performance lost at equal nats removed: most repeated − least repeated {} set",
        _at_equal_level(memorization.lost_at_removed), OOD_MORE, *NATS, sign=0, cases=_strata,
        nothing="no kind with two repetition strata in this arm"),
    MEMORIZATION(BESIDE, "rate with memorization, difficulty held fixed", "rate_mem_given_difficulty", BOTH),
    *(MEMORIZATION(BESIDE, f"rate with memorization, {side} alone", "rate_mem", side) for side in (IND, OOD)),
    MEMORIZATION(BESIDE, "its k* with memorization, partly by construction", "k_star_mem", BOTH),
    DIFFICULTY("", CORRELATED.format("difficulty"), "rate_difficulty", BOTH),
    DIFFICULTY(BESIDE, "rate with difficulty, memorization held fixed", "rate_difficulty_given_mem", BOTH),
    *(DIFFICULTY(BESIDE, f"rate with difficulty, {side} alone", "rate_difficulty", side) for side in (IND, OOD)),
)  # fmt: skip


def claims_table(study: Study, table: pd.DataFrame, arms: Mapping, claims: Mapping) -> pd.DataFrame:
    """Every row of every claim in the headline arms, by `runs.run_table` and the blocks of settings."""
    values, found = _values(study, table), []
    for arm in claims["headline"]:
        whole = Case(study, arms, values, arm, (claims["ind"],), (claims["ood"],), claims["delta"])
        counted_out = _not_memorized(whole)
        for row in ROWS:
            for name, case in (row.cases(whole) if row.cases else {"": whole}).items():
                line = _computed(row, case) | {"arm": arm, "statement": row.statement.format(name)}
                mark = counted_out if row.claim != "C1" else ""  # the metric is judged on whatever was learnt
                found.append(line | {"reason": "; ".join(filter(None, (line["reason"], mark)))})
    made = pd.DataFrame(found).assign(p_holm=np.nan, claim_verdict="")
    made = made.sort_values("claim", kind="stable", ignore_index=True)
    return decide(made, confidence=study.confidence)[COLUMNS]


def _values(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    inside = pd.concat([table, runs.run_table(study, other_rates=True)]).query("role == 'in'")
    later = inside["lost_100"] - inside["lost_50"]
    inside = inside.assign(lost_later=later, faster=later - 2 * inside["lost_50"])
    rho = memorization.correlations_by_model(memorization.example_rates(study))
    rho[list(memorization.RHOS)] = stats.fisher_z(rho[list(memorization.RHOS)])
    return inside.merge(rho, on=runs.BY, how="left")


def _of_pair(case: Case) -> pd.DataFrame:
    return case.inside[case.inside["forget_set"].isin((*case.ind, *case.ood))]


def _not_memorized(case: Case) -> str:
    """Which of the sets have too small an instance part at θ0 to count, in words, or nothing."""
    shares = _of_pair(case).groupby("forget_set")["instance_share"].mean()
    why = "{} not memorized (instance part {:.0%} of its exposure at θ0): not counted"
    return "; ".join(why.format(name, share) for name, share in shares.items() if runs.memorized(share) == "no")


def _by_model(table: pd.DataFrame, sets: Sequence[str]) -> pd.Series:
    """Model -> mean value over those of the sets that it holds; NaN where one of them is NaN."""
    here = table[table["forget_set"].isin(sets)].groupby("model")["value"]
    return here.agg(lambda values: values.mean(skipna=False)).astype(float)


def _pairs(case: Case, column: str | pd.DataFrame) -> pd.DataFrame:
    # models that hold both sides: columns ind and ood, of a column of the case's values or a table of its own
    table = case.inside.assign(value=case.inside[column]) if isinstance(column, str) else column
    return pd.concat({side: _by_model(table, getattr(case, side)) for side in ("ind", "ood")}, axis=1, join="inner")


def _compared(row: Row, case: Case) -> tuple[Array, str]:
    """(n_models,) what the row compares, and why some or all of it is missing."""
    table = row.value(case) if callable(row.value) else case.inside.assign(value=case.inside[row.value])
    paired, sets = row.sides in (OOD_MORE, IND_MORE), {IND: case.ind, OOD: case.ood}
    values = _by_model(table, sets.get(row.sides, (*case.ind, *case.ood)))
    if paired:
        pairs = _pairs(case, table)
        values = (pairs["ood"] - pairs["ind"]) * (1 if row.sides == OOD_MORE else -1)
    absent = ["/".join(names) for names in sets.values() if _by_model(table, names).isna().all()]
    lost, why = int(values.isna().sum()), ""
    if not len(case.inside):
        why = f"no runs in arm {case.arm}"
    elif row.nothing and lost == len(values):
        why = row.nothing
    elif paired and absent:
        why = f"arm {case.arm} has no value for {' or '.join(absent)}"
    elif paired and not len(values):
        why = f"no model holds both {' and '.join('/'.join(names) for names in sets.values())}"
    elif lost:
        why = f"{lost} of {len(values)} {'pairs' if paired else 'models'} left out: censored or not measured"
    return values.to_numpy(dtype=float), why


def _computed(row: Row, case: Case) -> dict:
    """A row's estimate, interval, p values and the interval's verdict."""
    values, reason = _compared(row, case)
    values, k_star = values[np.isfinite(values)], _pairs(case, "k_star")
    margin = case.delta.get(row.margin, 0.0)
    if row.unit == "steps":
        margin *= float(np.nan_to_num(k_star["ind"].mean()))
    null = margin if row.threshold else 0.0  # from which values are counted
    least = 0.0 if row.threshold else float(np.arctanh(margin)) if row.unit == RHO else margin
    interval = stats.t_interval(values - null, confidence=case.study.confidence)
    if interval.n < 2:
        reason = reason or ("one model has no interval" if interval.n else "no model has a value")
    back = np.tanh if row.unit == RHO else lambda value: value + null
    found = {"claim": row.claim, "part": row.part, "unit": row.unit, "n": interval.n, "reason": reason}
    found |= {key: float(back(getattr(interval, key))) for key in ("estimate", "low", "high")}
    if row.sign is None:
        return found | {"delta": np.nan, "p": np.nan, "p_sign_flip": np.nan, "verdict": ""}
    flipped = stats.sign_flip_p(values - null, delta=least) if len(values) <= FLIPPED else np.nan
    found |= {"delta": margin, "p": stats.p_beyond(values - null, delta=least), "p_sign_flip": flipped}
    found["verdict"] = stats.verdict(interval, delta=least, direction=row.sign)
    if row.value == "k_star" and k_star.isna().any(axis=None):
        found |= _by_signs(case, k_star)
    together = float(np.tanh(_of_pair(case)["mem_difficulty"].mean())) if "given" in str(row.value) else 0.0
    if abs(together) > case.delta["identifiable_rho"]:
        why = f"memorization and difficulty correlate at {together:+.2f}"
        found |= {"verdict": "not identifiable", "reason": why}
    return found


def _by_signs(case: Case, pairs: pd.DataFrame) -> dict:
    """With a censored run, pairs enter a sign test by their bounds."""
    (a, b), gone = pairs.fillna(_pairs(case, "last_step"))[["ood", "ind"]].to_numpy().T, pairs.isna()
    test = stats.sign_test_by_bounds(a=a, b=b, a_censored=gone["ood"], b_censored=gone["ind"])
    found = {"low": np.nan, "high": np.nan, "p": test.p, "p_sign_flip": np.nan, "n": len(pairs)}
    if not test.positive + test.negative:
        return found | {"verdict": NOT_COMPUTED, "reason": "every pair holds censored runs"}
    word = "supported" if test.positive > test.negative else "contradicted"
    reason = f"{int(gone.any(axis=1).sum())} of {len(pairs)} pairs hold a censored run: sign test by bounds, "
    reason += f"{test.positive} longer, {test.negative} shorter, {test.unknown} unknown; "
    reason += "the estimate is over uncensored pairs"
    return found | {"verdict": word if test.p < 1 - case.study.confidence else "inconclusive", "reason": reason}


def decide(table: pd.DataFrame, *, confidence: float) -> pd.DataFrame:
    """Fill p_holm and claim_verdict: one test a claim and arm, over all of them.

    The claim's p is the largest of its parts' (all must hold); where a part is contradicted, the smallest of the
    contradicted parts' times the number of parts (one is enough).
    """
    table, parts, p_values = table.copy(), table[table["part"] != BESIDE], []
    groups = [group for _, group in parts.groupby(["claim", "arm"], sort=False)]
    for group in groups:
        against = group.loc[group["verdict"] == "contradicted", "p"]
        p_values.append(min(1.0, against.min() * len(group)) if len(against) else group["p"].max(skipna=False))
    for group, p in zip(groups, stats.holm(p_values), strict=True):
        words, said, enough = set(group["verdict"]), group["reason"], p < 1 - confidence
        if "contradicted" in words:
            word = "contradicted" if enough else "inconclusive"
        elif NOT_COMPUTED in words or words == {"equivalent"}:
            word = NOT_COMPUTED if NOT_COMPUTED in words else "equivalent"
        else:
            word = "supported" if words == {"supported"} and enough else "inconclusive"
        if word == "inconclusive" and not enough and words <= {"supported", "contradicted"}:
            table.loc[group.index, "reason"] = (said + "; not beyond the margin after Holm").str.lstrip("; ")
        counted = not said.str.contains("not counted").any() or word == NOT_COMPUTED
        table.loc[group.index, "p_holm"] = p
        table.loc[group.index, "claim_verdict"] = word if counted else "not counted"
    return table
