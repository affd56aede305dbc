"""The claims of the abstract, as fixed before looking: parts, tests over models, and verdicts that nobody types.

A claim may have several parts; it is supported where all of them are. Rows marked 'beside' are shown with a claim and
decide nothing. The family of tests is claims × headline arms (Holm).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from paper import rates
from paper.controls import calibration
from paper.questions import BESIDE, CLAIMS, COLUMNS, NOT_COMPUTED, Question, decide, make_row
from paper.study import OTHER_RATES, Run, Study
from paper.summaries import run_row, run_table
from unlearning.core import genex
from unlearning.core.stats import SignTest, fisher_z, sign_test_by_bounds

LEARNING_RATES = {"½": OTHER_RATES["½"], "1": "", "2": OTHER_RATES["2"]}  # what such an arm's name ends in


def c1(q: Question) -> list[dict]:
    """A metric for generative models: it separates in- from out-models, and its floor holds for out-models."""
    separates = "run exposure at θ0 tells models trained on a set from models that were not: AUC above the margin"
    calibrated = "of models never trained on a set, at most the margin lies outside the noise floor"
    trained_with = {r.forget_set: r.trained_with for r in q.study.select(arm=q.arm)}
    names = [name for name in (*q.ind, *q.ood) if name in trained_with]
    tables = [calibration(q.study, trained_with[name], name, confidence=q.confidence) for name in names]
    areas = [t[t["side"] == "in"].set_index("model")["auc"] for t in tables]
    outside = [t[t["side"] == "out"].set_index("model")["share_outside"].dropna() for t in tables]
    few = "" if any(len(s) for s in outside) else "fewer than three references a set"
    return [
        make_row(q, "C1", "a", separates, _mean_by_model(areas), unit="AUC", delta=0.0, null=q.delta["C1_auc"],
                 direction=1),
        make_row(q, "C1", "b", calibrated, _mean_by_model(outside), unit="share of examples", delta=0.0,
                 null=q.delta["C1_outside"], direction=-1, reason=q.nothing or few),
    ]  # fmt: skip


def _mean_by_model(by_set: list[pd.Series]) -> np.ndarray:
    return pd.concat(by_set, axis=1).mean(axis=1).to_numpy() if by_set else np.empty(0)


def c2(q: Question) -> list[dict]:
    """More unlearning steps for OOD: k*(OOD) − k*(InD), paired; a sign test by bounds where a run is censored."""
    statement = "k*(OOD) − k*(InD) inside models that hold both"
    pairs, reason = q.pairs("k_star")
    row = make_row(q, "C2", "", statement, pairs["ood"] - pairs["ind"], unit="steps",
                   delta=_steps_that_count(q, pairs), direction=1, reason=reason)  # fmt: skip
    if len(pairs) and pairs.isna().any(axis=None):
        row |= _sign_row(_bounded(q, pairs), len(pairs), int(pairs.isna().any(axis=1).sum()), q.confidence)
    rows = [row]
    for name, other in q.by_draw().items():
        steps, why = other.pairs("k_star")
        rows.append(make_row(q, "C2", BESIDE, f"{statement} ({name})", steps["ood"] - steps["ind"], unit="steps",
                             delta=_steps_that_count(other, steps), direction=1, reason=why))  # fmt: skip
    removed, why = equal_removed(q)
    what = "steps that take as many nats from θ0, the smaller exposure there of both: OOD − InD"
    rows.append(make_row(q, "C2", BESIDE, what, removed, unit="steps", delta=_steps_that_count(q, pairs), direction=1,
                         reason=why))  # fmt: skip
    for times, suffix in LEARNING_RATES.items():
        what = f"k*(OOD) − k*(InD) from an equal level on, the smaller exposure at θ0 of both (learning rate × {times})"
        other = _arm_of_runs(q, q.arm + suffix)
        values, why = from_equal_level(other)
        delta = _steps_that_count(other, other.pairs("k_star")[0])
        rows.append(make_row(q, "C2", BESIDE, what, values, unit="steps", delta=delta, direction=1, reason=why))
    return rows


def _arm_of_runs(q: Question, arm: str) -> Question:
    """The question for an arm that may be kept out of the table of runs (another learning rate)."""
    rows = [run_row(q.study, run) for run in q.study.select(arm=arm)]
    return replace(q, arm=arm, runs=pd.DataFrame(rows) if rows else q.runs)


def _steps_that_count(q: Question, pairs: pd.DataFrame) -> float:
    """The margin of C2, a share of the arm's own k*(InD) over the pairs; 0 where there is none."""
    return q.delta["C2_share_of_k_star"] * float(pairs["ind"].mean()) if pairs["ind"].notna().any() else 0.0


def _bounded(q: Question, pairs: pd.DataFrame) -> SignTest:
    last = {side: q.by_model("last_step", sets).loc[pairs.index] for side, sets in (("ind", q.ind), ("ood", q.ood))}
    filled = {side: pairs[side].fillna(last[side]) for side in last}
    return sign_test_by_bounds(a=filled["ood"], b=filled["ind"], a_censored=pairs["ood"].isna(),
                               b_censored=pairs["ind"].isna())  # fmt: skip


def _sign_row(test: SignTest, n: int, censored: int, confidence: float) -> dict:
    if not test.positive + test.negative:
        return {"verdict": NOT_COMPUTED, "p": np.nan, "n": n, "reason": "every pair holds censored runs"}
    decided = np.isfinite(test.p) and test.p < 1 - confidence
    word = ("supported" if test.positive > test.negative else "contradicted") if decided else "inconclusive"
    reason = (f"{censored} of {n} pairs hold a censored run: sign test by bounds, {test.positive} longer, "
              f"{test.negative} shorter, {test.unknown} unknown; the estimate is over uncensored pairs")  # fmt: skip
    return {"low": np.nan, "high": np.nan, "p": test.p, "p_sign_flip": np.nan, "n": n, "verdict": word,
            "reason": reason}  # fmt: skip


def from_equal_level(q: Question) -> tuple[np.ndarray, str]:
    """Difference OOD − InD in steps from the smaller starting exposure to zero, one value a model."""
    return _of_both(q, lambda run, level: run.k_star - _steps_to(run, level))


def equal_removed(q: Question) -> tuple[np.ndarray, str]:
    """Difference OOD − InD in steps from θ0 until the smaller starting exposure is removed, one value a model."""
    return _of_both(q, lambda run, level: _steps_to(run, run.exposure[0].mean() - level))


def _of_both(q: Question, steps: Callable[[Run, float], float]) -> tuple[np.ndarray, str]:
    """OOD − InD of steps that depend on a run and on the smaller exposure at θ0 of the two, one value a model."""
    runs = {(r.model, r.forget_set): r for r in q.study.select(arm=q.arm)}
    values = []
    for model in sorted({m for m, _ in runs}):
        sides = [[runs[model, s] for s in sets if (model, s) in runs] for sets in (q.ind, q.ood)]
        if all(sides):
            level = min(r.exposure[0].mean() for side in sides for r in side)
            ind, ood = (np.mean([steps(r, level) for r in side]) for side in sides)
            values.append(ood - ind)
    return np.array(values), "" if values else q.pairs("k_star")[1]


def _steps_to(run: Run, level: float) -> float:
    return genex.steps_to_forget(run.exposure.mean(axis=1) - level, run.steps)


def c3(q: Question) -> list[dict]:
    """The better trade-off of OOD: held-out lost at k*, InD − OOD; repeated at k95 and by other rulers."""
    rulers = {"": ("lost_100", "at k*"), "k95": ("lost_k95", "at k95"),
              "references": ("lost_to_references", "at k*, against the references instead of θ0"),
              "retain": ("lost_retain", "at k*, on a sample of the core")}  # fmt: skip
    rows = []
    for ruler, (column, when) in rulers.items():
        pairs, reason = q.pairs(column)
        rows.append(make_row(q, "C3", BESIDE if ruler else "", f"performance lost {when}: InD − OOD",
                             pairs["ind"] - pairs["ood"], unit="nats per token",
                             delta=q.delta["C3_nats_per_token"], direction=1, reason=reason))  # fmt: skip
    bleu = {"unit": "BLEU", "delta": 0.0}  # no margin was fixed for it
    pairs, reason = q.pairs("lost_bleu")
    what = "performance lost at k*, by translations: InD − OOD"
    rows.append(make_row(q, "C3", BESIDE, what, pairs["ind"] - pairs["ood"], direction=1, reason=reason, **bleu))
    nats = {"unit": "nats per token", "delta": q.delta["C3_nats_per_token"]}
    rows += _lost_by_draw(q, "C3", "lost_100", "performance lost at k*: InD − OOD", **nats)
    return [*rows, *_lost_by_draw(q, "C3", "lost_bleu", what, **bleu)]


def _lost_by_draw(q: Question, claim: str, column: str, statement: str, *, unit: str, delta: float) -> list[dict]:
    rows = []
    for name, other in q.by_draw().items():
        pairs, reason = other.pairs(column)
        rows.append(make_row(q, claim, BESIDE, f"{statement} ({name})", pairs["ind"] - pairs["ood"], unit=unit,
                             delta=delta, direction=1, reason=reason))  # fmt: skip
    return rows


def c4(q: Question) -> list[dict]:
    """Performance decays rapidly for InD: more lost than for OOD half-way and at k*, and faster in the second half."""
    delta, rows = q.delta["C4_nats_per_token"], []
    for part, share in (("a", 50), ("b", 100)):
        pairs, reason = q.pairs(f"lost_{share}")
        rows.append(make_row(q, "C4", part, f"performance lost after {share} % of k*: InD − OOD",
                             pairs["ind"] - pairs["ood"], unit="nats per token", delta=delta, direction=1,
                             reason=reason))  # fmt: skip
    faster = "lost in the second half of the steps − twice what the first half cost"
    row = {"unit": "nats per token", "delta": 0.0, "direction": 1}
    rows.append(make_row(q, "C4", "c", f"InD: {faster}", _faster(q, q.ind), **row))
    pairs = pd.DataFrame({"ind": _faster(q, q.ind), "ood": _faster(q, q.ood)}).dropna()
    reason = "" if len(pairs) else q.pairs("lost_100")[1]
    rows.append(make_row(q, "C4", BESIDE, f"{faster}: InD − OOD", pairs["ind"] - pairs["ood"], reason=reason, **row))
    nats = {"unit": "nats per token", "delta": delta}
    half = "performance lost in the second half of the steps: InD − OOD"
    later = replace(q, runs=q.runs.assign(lost_later=q.runs["lost_100"] - q.runs["lost_50"]))
    pairs, reason = later.pairs("lost_later")
    rows.append(make_row(q, "C4", BESIDE, half, pairs["ind"] - pairs["ood"], direction=1, reason=reason, **nats))
    rows += _lost_by_draw(later, "C4", "lost_later", half, **nats)
    rows += _lost_by_draw(q, "C4", "lost_50", "performance lost after 50 % of k*: InD − OOD", **nats)
    return [*rows, placebo(q)]


def _faster(q: Question, sets: Sequence[str]) -> pd.Series:
    """Lost in the second half of the steps to k* minus twice what the first half cost, by model."""
    half, whole = q.by_model("lost_50", sets), q.by_model("lost_100", sets)
    return (whole - half) - 2 * half


def placebo(q: Question) -> dict:
    """Scale for C4: held-out lost by ascent on InD from models that never saw it, after the in-models' mean k*."""
    steps = float(q.by_model("k_star", q.ind).mean()) if len(q.inside) else np.nan
    runs = [r for s in q.ind for r in q.study.select(arm=q.arm, forget_set=s, role="placebo")]
    values = pd.Series({(r.model, r.forget_set): r.lost_at(steps) for r in runs}, dtype=float)
    values = values.groupby(level=0).mean() if len(values) else values
    statement = "placebo: lost by as many steps of ascent on InD from models that never saw it"
    row = make_row(q, "C4", BESIDE, statement, values, unit="nats per token", delta=0.0, direction=1,
                   reason="" if runs else "no placebo runs in this arm")  # fmt: skip
    return row | {"verdict": "", "p": np.nan, "p_sign_flip": np.nan, "delta": np.nan}


def c5(q: Question, by_model: pd.DataFrame) -> list[dict]:
    """Memorization affects unlearning: the rate goes with it inside models.

    Beside it, for no margin was fixed: whether repetition changes the damage at equal nats removed.
    """
    statement = "rate of unlearning rank-correlated with memorization, given length, inside models and sets"
    lost = "performance lost at equal nats removed: most repeated − least repeated {} set"
    strata = {kind: rates.equal_removal(q.study, q.arm, kind) for kind in rates.strata(q.study, q.arm)}
    costs = {kind: table["many"] - table["few"] for kind, table in strata.items()}
    none = q.nothing or "no kind with two repetition strata in this arm"
    return [
        _correlation(q, by_model, "C5", "", "rate_mem", statement),
        *(make_row(q, "C5", BESIDE, lost.format(kind), values, unit="nats per token",
                   delta=q.delta["C3_nats_per_token"], direction=0, reason="" if len(values) else none)
          for kind, values in (costs or {"(of any kind)": []}).items()),
        *_besides(q, by_model, "C5", "rate_mem", "memorization"),
        _correlation(q, by_model, "C5", BESIDE, "k_star_mem", "its k* with memorization, partly by construction"),
    ]  # fmt: skip


def c6(q: Question, by_model: pd.DataFrame) -> list[dict]:
    """Difficulty affects unlearning: the rate goes with it inside models."""
    statement = "rate of unlearning rank-correlated with difficulty, given length, inside models and sets"
    return [
        _correlation(q, by_model, "C6", "", "rate_difficulty", statement),
        *_besides(q, by_model, "C6", "rate_difficulty", "difficulty"),
    ]


def _besides(q: Question, by_model: pd.DataFrame, claim: str, column: str, what: str) -> list[dict]:
    other = {"memorization": "difficulty", "difficulty": "memorization"}[what]
    fixed = column + ("_given_difficulty" if other == "difficulty" else "_given_mem")
    rows = [_correlation(q, by_model, claim, BESIDE, fixed, f"rate with {what}, {other} held fixed")]
    for side, sets in (("InD", q.ind), ("OOD", q.ood)):
        rows.append(_correlation(q, by_model, claim, BESIDE, column, f"rate with {what}, {side} alone", sets=sets))
    return rows


def _correlation(
    q: Question, by_model: pd.DataFrame, claim: str, part: str, column: str, statement: str,
    sets: Sequence[str] | None = None,
) -> dict:  # fmt: skip
    rows = by_model[(by_model["arm"] == q.arm) & by_model["forget_set"].isin(sets or (*q.ind, *q.ood))]
    z = pd.Series(fisher_z(rows[column]), index=rows["model"]).groupby(level=0).mean()
    row = make_row(q, claim, part, statement, z, unit="rank correlation", delta=q.delta[f"{claim}_rho"], direction=0,
                   correlation=True, reason="" if len(rows) else q.nothing)  # fmt: skip
    together = np.tanh(np.nanmean(fisher_z(rows["mem_difficulty"]))) if rows["mem_difficulty"].notna().any() else 0.0
    if "given" in column and abs(together) > q.delta["identifiable_rho"]:
        row |= {"verdict": "not identifiable", "reason": f"memorization and difficulty correlate at {together:+.2f}"}
    return row


def marked(rows: list[dict], mark: str) -> list[dict]:
    """The rows, with a mark added to each reason."""
    return [{**row, "reason": "; ".join(filter(None, (row["reason"], mark)))} for row in rows]


def claims_table(
    study: Study, *, ind: str | Sequence[str], ood: str | Sequence[str], headline: Sequence[str],
    delta: dict[str, float], confidence: float = 0.95, runs: pd.DataFrame | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Every part of every claim in the headline arms, with columns COLUMNS.

    Args:
        study: as loaded.
        ind: in-distribution set(s); of several, a model's value is the mean over those it holds.
        ood: out-of-distribution set(s).
        headline: arms.
        delta: margins, by the names of the params block.
        confidence: of intervals and, as 1 − p, of tests.
        runs: `run_table(study)`, if it is there already.
    """
    runs = run_table(study) if runs is None else runs
    ind, ood = ((s,) if isinstance(s, str) else tuple(s) for s in (ind, ood))
    by_model = rates.correlations_by_model(rates.all_example_rates(study))
    rows = []
    for arm in headline:
        q = Question(study, runs, arm, ind, ood, dict(delta), confidence)
        rows += c1(q)
        rows += marked([*c2(q), *c3(q), *c4(q), *c5(q, by_model), *c6(q, by_model)], q.not_memorized())
    table = pd.DataFrame(rows).assign(p_holm=np.nan, claim_verdict="")
    order = {claim: i for i, claim in enumerate(CLAIMS)}
    table = table.sort_values("claim", key=lambda c: c.map(order), kind="stable").reset_index(drop=True)
    return decide(table, confidence=confidence)[COLUMNS]
