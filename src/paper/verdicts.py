"""The claims as one table of rows, one loop that computes it, and verdicts that nobody types.

The unit is a draw of a kind: a forget set, unlearned by a few models (`core.draws`). A claim is supported where all of
its parts are; what stands beside a claim has an interval and no word. The tests of claims × headline arms are one
family. Margins stand in the settings (claims.delta), the rest of what was fixed before the first run in ROWS.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import pandas as pd
from scipy import stats as distributions

from paper import exposure, memorization, runs
from paper.runs import Array, Run, Study
from unlearning.core import draws, performance, stand_ins, stats
from unlearning.core.draws import Contrast
from unlearning.core.stats import NOT_COMPUTED

BESIDE = "beside"
COLUMNS = ["claim", "part", "arm", "statement", "estimate", "low", "high", "unit", "delta", "delta_low", "n", "models",
           "runs", "df", "p", "p_permutation", "p_holm", "verdict", "claim_verdict", "reason"]  # fmt: skip
OOD_MORE, IND_MORE, IND, OOD, BOTH = "OOD − InD", "InD − OOD", "InD", "OOD", "InD and OOD"
LEVEL, ADJUSTED, RATIO, SETS = "OOD − InD at its level", "OOD − InD at equal exposure", "log InD/OOD", "every set"
KINDS, RUNGS = "slope over kinds", "slope over draws"


@dataclass(frozen=True)
class Case:
    """What is compared in one arm. `ind`, `ood` and `level` are families: entries of forget_sets in the settings."""

    study: Study
    values: pd.DataFrame  # one row an in-run of the arm: family, forget_set, model, and every column that ROWS names
    arm: str
    ind: str
    ood: str
    level: str
    delta: Mapping[str, float | Sequence[float]]
    trained_with: str

    @cached_property
    def last_steps(self) -> pd.DataFrame:
        """By set, means over runs: nats that it falls in the last step before k* (fall), loss a step at ½ k* and k*."""
        some = [run for run in self.study.select(arm=self.arm) if run.k_star > run.steps[0]]
        rows = [(run.forget_set, last_fall(run), _slope(run, 0.5), _slope(run, 1.0)) for run in some]
        return pd.DataFrame(rows, columns=["forget_set", "fall", 0.5, 1.0]).groupby("forget_set").mean()

    @cached_property
    def calibration(self) -> pd.DataFrame:  # exposure.CALIBRATION of every set
        tables = [exposure.calibration(self.study, self.trained_with, name) for name in self.study.forget_sets]
        return pd.concat([pd.DataFrame(columns=exposure.CALIBRATION), *tables])

    @cached_property
    def separation(self) -> pd.DataFrame:
        """AUC of what is read without references, at θ0, by example: a model with the set against those without."""
        rows = []
        for name in self.study.forget_sets:
            inside = self.study.design.loc[self.study.references[self.trained_with].index, name].to_numpy() > 0
            for reading, scores in self._readings(name).items() if inside.any() and not inside.all() else ():
                never = scores[~inside]
                held = zip(np.flatnonzero(inside), scores[inside], strict=True)
                rows += [(name, m, reading, stand_ins.auc(positives=values, negatives=never)) for m, values in held]
        return pd.DataFrame(rows, columns=["forget_set", "model", "reading", "value"])

    def _readings(self, name: str) -> dict[str, Array]:
        # (models, n): log-likelihood, and two readings of RelEx (the third is zero at θ0); nats, nats per token
        members, never = self.study.members(name), self.study.never_trained(name)
        table, n_tokens = self.study.references[self.trained_with], self.study.examples["n_tokens"]
        scores, tokens = table[members].to_numpy(), n_tokens[members].to_numpy()
        base = self.study.base[members].loc[(self.study.design.loc[table.index, "base"] > 0).astype(int)].to_numpy()
        found = {"alone": scores, "checkpoint": stand_ins.relative_exposure_checkpoint(unlearned=scores, base=base)}
        if never:  # by example: minus what its length would give, which a log-likelihood of zero brings out
            others = {"never_trained": table[never].to_numpy(), "never_trained_n_tokens": n_tokens[never].to_numpy()}
            zero, relative = np.zeros((len(table), 1)), stand_ins.relative_exposure_population
            level = {n: relative(forget_set=zero, n_tokens=np.array([n]), **others) for n in set(tokens)}
            found["population"] = scores / tokens + np.column_stack([level[n] for n in tokens])
        return found


@dataclass(frozen=True)
class Row:
    """One line of the table of claims."""

    claim: str
    part: str  # nothing or a letter: decides; BESIDE: is shown with the claim
    statement: str  # what a value beyond the margin supports
    value: str | Callable[[Case], pd.DataFrame]  # column of a case's values, or forget_set, model, value
    sides: str  # what is compared: one of SIDES
    unit: str
    margin: str = ""  # name in claims.delta; in steps, a share of the mean k* of the draws of InD; nothing: zero
    sign: int = 1  # of a value that supports; 0: either


SAYS = {
    "C1": "GenEx is a metric for generative models: it separates, and its floor is calibrated",
    "C2": "OOD data need more unlearning steps",
    "C3": "OOD data have the better trade-off",
    "C4": "for InD data performance decays rapidly",
    "C5": "memorization affects unlearning",
    "C6": "difficulty affects unlearning",
    "C7": "how far out data are decides how they are unlearned",
}


def _calibration(case: Case, side: str, column: str) -> pd.DataFrame:
    return case.calibration[case.calibration["side"] == side].rename(columns={column: "value"})


def _separation(case: Case, reading: str) -> pd.DataFrame:
    return case.separation[case.separation["reading"] == reading]


STEPS, NATS, RHO = ("steps", "C2_share_of_k_star"), ("nats per token", "C3_nats_per_token"), "Fisher's z"
EARLY = ("nats per token", "C4_nats_per_token")
LOST, ALL = "performance lost at k*{}: InD − OOD", "mean over all sets"
CORRELATED = "rate of unlearning rank-correlated with {}, given length: in models that held the set − in placebo models"
AUC_OF = "the same AUC of {}, {}"
FURTHER = "a set's log-likelihood per token under models that never saw it, over kinds that stood once in training"
MEMORIZATION, DIFFICULTY = (partial(Row, c, unit=RHO, margin=f"{c}_rho", sign=0) for c in ("C5", "C6"))
ROWS = (
    Row("C1", "a", f"run exposure at θ0 tells models trained on a set from models that were not: AUC, {ALL}",
        partial(_calibration, side="in", column="auc"), SETS, "AUC", "C1_auc"),
    Row("C1", "b", f"share of a set's examples outside the noise floor in models never trained on it, {ALL}",
        partial(_calibration, side="out", column="share_outside"), SETS, "share of examples", "C1_outside"),
    Row("C1", BESIDE, AUC_OF.format("the log-likelihood alone", ALL), partial(_separation, reading="alone"), SETS,
        "AUC"),
    *(Row("C1", BESIDE, AUC_OF.format(f"relative exposure by {reading}", ALL), partial(_separation, reading=reading),
          SETS, "AUC") for reading in ("population", "checkpoint")),
    Row("C2", "", "k*(OOD) − k*(InD), each example as often in training", "k_star", OOD_MORE, *STEPS),
    Row("C2", BESIDE, "k*(OOD) − k*(InD), InD repeated until it starts from about the same exposure", "k_star", LEVEL,
        *STEPS),
    Row("C2", BESIDE, "k*(OOD) − k*(InD) at equal exposure at θ0, by regression over draws", "k_star", ADJUSTED,
        *STEPS),
    Row("C3", "", LOST.format(""), "lost_100", IND_MORE, *NATS),
    Row("C3", BESIDE, "log of the ratio of performance lost at k*, InD over OOD", "lost_100", RATIO, "log ratio"),
    Row("C3", BESIDE, LOST.format(", by translations"), "lost_bleu", IND_MORE, "BLEU"),
    Row("C3", BESIDE, LOST.format(", against the references instead of θ0"), "lost_to_references", IND_MORE, *NATS),
    Row("C3", BESIDE, "performance lost at k95: InD − OOD", "lost_k95", IND_MORE, *NATS),
    Row("C3", BESIDE, LOST.format(", on a sample of the core"), "lost_retain", IND_MORE, *NATS),
    Row("C4", "a", "performance lost after 50 % of k*: InD − OOD", "lost_50", IND_MORE, *EARLY),
    Row("C4", "b", "InD: performance lost in the second half of the steps − in the first", "faster", IND,
        "nats per token"),
    Row("C4", "c", "performance lost in the second half of the steps − in the first: InD − OOD", "faster", IND_MORE,
        "nats per token"),
    MEMORIZATION("", CORRELATED.format("memorization"), "rate_mem_net", BOTH),
    MEMORIZATION(BESIDE, "the same, difficulty held fixed too", "rate_mem_given_difficulty_net", BOTH),
    *(MEMORIZATION(BESIDE, f"the same, {side} alone", "rate_mem_net", side) for side in (IND, OOD)),
    MEMORIZATION(BESIDE, "the correlation in models that held the set", "rate_mem", BOTH),
    MEMORIZATION(BESIDE, "the correlation in placebo models, which never did", "rate_mem_placebo", BOTH),
    DIFFICULTY("", CORRELATED.format("difficulty"), "rate_difficulty_net", BOTH),
    DIFFICULTY(BESIDE, "the same, memorization held fixed too", "rate_difficulty_given_mem_net", BOTH),
    *(DIFFICULTY(BESIDE, f"the same, {side} alone", "rate_difficulty_net", side) for side in (IND, OOD)),
    DIFFICULTY(BESIDE, "the correlation in models that held the set", "rate_difficulty", BOTH),
    DIFFICULTY(BESIDE, "the correlation in placebo models, which never did", "rate_difficulty_placebo", BOTH),
    Row("C7", "a", f"slope of k* against {FURTHER}", "k_star", KINDS, "steps per nat per token", sign=0),
    Row("C7", "b", f"slope of performance lost at k* against {FURTHER}", "lost_100", KINDS, "nats per nat", sign=0),
    Row("C7", BESIDE, "slope of k*, every draw a point", "k_star", RUNGS, "steps per nat per token", sign=0),
    Row("C7", BESIDE, "slope of performance lost at k*, every draw a point", "lost_100", RUNGS, "nats per nat", sign=0),
)  # fmt: skip


def claims_table(cases: Sequence[Case]) -> pd.DataFrame:
    """Every row of every claim in these arms: COLUMNS, and PARTS of the variance, in the square of the unit."""
    found = [computed(row, case) for case in cases for row in ROWS]
    made = pd.DataFrame(found).assign(p_holm=np.nan, claim_verdict="")
    made = made.sort_values("claim", kind="stable", ignore_index=True)
    return decide(made, confidence=cases[0].study.confidence)[[*COLUMNS, *PARTS]]


def headline_cases(study: Study, arms: Mapping, claims: Mapping) -> list[Case]:
    """What is compared, one a headline arm."""
    values = run_values(study, claims["headline"])
    return [case_of(study, values, arms, claims, arm) for arm in claims["headline"]]


def case_of(study: Study, values: pd.DataFrame, arms: Mapping, claims: Mapping, arm: str) -> Case:
    """What is compared in one arm; values: a table of runs, of any arms and roles."""
    here = values[(values["arm"] == arm) & (values["role"] == "in")]
    sides = {side: claims[side] for side in ("ind", "ood", "level")}
    return Case(study, here, arm, **sides, delta=claims["delta"], trained_with=arms[arm]["trained_with"])


def run_values(study: Study, arms: Sequence[str]) -> pd.DataFrame:
    """The table of in-runs of arms with what else ROWS names: faster (the second half's loss − the first's), and
    correlations of the rate in Fisher's z, as they are, in the placebo models of the set (_placebo), and the difference
    (_net)."""
    table = study.table[(study.table["role"] == "in") & study.table["arm"].isin(list(arms))]
    few = replace(study, runs=[run for run in study.runs if run.arm in arms])
    z = memorization.z_by_side(few, memorization.correlations_by_model(memorization.example_rates(few)))
    z = z[z["side"] != "placebo"].pivot(index=runs.BY, columns=["side", "quantity"], values="z").astype(float)
    plain, net = (z.xs(side, axis=1) if side in z else pd.DataFrame(index=z.index) for side in ("in", "difference"))
    plain, net = (of_side.reindex(columns=list(memorization.RHOS)) for of_side in (plain, net))
    every = [plain, net.add_suffix("_net"), (plain - net).add_suffix("_placebo")]
    table = table.merge(pd.concat(every, axis=1).reset_index(), on=runs.BY, how="left")
    return table.assign(faster=table["lost_100"] - 2 * table["lost_50"])


# A loss as {share of k*: how often the loss there counts}: what sentences and the reference add to its variance
AT_SHARES = {"lost_50": {0.5: 1.0}, "lost_100": {1.0: 1.0}, "faster": {1.0: 1.0, 0.5: -2.0}}
PARTS = [f"var_{name}" for name in ("draw", "model", "residual", "reference", "sentences")]  # of a contrast's variance
THESE = "the interval holds for these sets alone"


def run_level(case: Case, row: Row, sides: Mapping[str, float]) -> pd.DataFrame:
    """A row's values of some sets (set -> side): forget_set, model, side, value, at_least (of a k* not reached)."""
    table = row.value(case) if callable(row.value) else case.values.assign(value=case.values[row.value])
    table = table.assign(at_least=table["last_step"] if row.value == "k_star" else np.nan)
    table = table[table["forget_set"].isin(list(sides))]
    found = table[["forget_set", "model", "value", "at_least"]].assign(side=table["forget_set"].map(sides))
    return found.astype(dict.fromkeys(("value", "at_least", "side"), float)).reset_index(drop=True)


def contrast_of(case: Case, row: Row, sides: Mapping[str, float], scale: Mapping[str, float] | None = None) -> Contrast:
    """Contrast of a row's values (set -> side), those of a set times its `scale`; why runs are missing, in `reason`."""
    table, scale = run_level(case, row, sides), scale or dict.fromkeys(sides, 1.0)
    absent = {case.study.family(s) for s in sides} - {case.study.family(s) for s in table["forget_set"]}
    if not sides:
        return Contrast(np.nan, reason="no draw is compared")
    if absent:
        return Contrast(np.nan, reason=f"arm {case.arm} has no values of {' or '.join(sorted(absent))}")
    table["value"] *= table["forget_set"].map(scale)
    gone, bounded = table["value"].isna(), row.value == "k_star"
    if bounded:
        table["value"] = table["value"].fillna(table["at_least"])
    here = table[table["value"].notna()]
    known = {"reference": _shared_error(case, row, sides, scale), "sentences": _sentences(case, row, here, scale)}
    where = {"draw": table["forget_set"], "model": table["model"], "side": table["side"]}
    found = draws.two_way(table["value"], **where, confidence=case.study.confidence, **known)
    if found.reason.startswith("one draw"):
        found = _of_these(here, found, known["reference"], case.study.confidence)
    return _with_gaps(found, table, gone, bounded) if gone.any() else found


def _of_these(table: pd.DataFrame, found: Contrast, reference: float, confidence: float) -> Contrast:
    # with one draw on a side: how much its models differ, which says nothing of other draws
    parts = []
    for _, rows in table.groupby("side"):
        where = {"draw": rows["forget_set"], "model": rows["model"], "side": np.ones(len(rows))}
        one = draws.two_way(rows["value"], **where)
        if one.reason:
            one = replace(one, se=rows["value"].std() / np.sqrt(len(rows)), df=len(rows) - 1)
        parts.append((one.se**2, one.df))
    variances, df = np.array(parts).T
    se = np.sqrt(variances.sum() + reference)
    df = variances.sum() ** 2 / np.sum(variances**2 / df) if np.isfinite(se) and variances.any() else np.nan
    half = distributions.t.ppf((1 + confidence) / 2, df) * se
    limits = {"low": found.estimate - half, "high": found.estimate + half, "se": se, "df": df}
    return replace(found, **limits, reason=f"{found.reason}: {THESE}")


def _with_gaps(found: Contrast, table: pd.DataFrame, gone: pd.Series, bounded: bool) -> Contrast:
    # censored steps make a bound; a draw without any value leaves nothing to say
    whole = int(gone.groupby(table["forget_set"]).all().sum())
    said = f"{gone.sum()} of {len(table)} runs {'did not get to k*' if bounded else 'have no value'}"
    said += f", in {whole} draws none did" if whole else ""
    sides, limits = set(table.loc[gone, "side"]), {}
    if bounded and len(sides) == 1:
        limits, side = ({"high": np.inf}, "lower") if sides == {1.0} else ({"low": -np.inf}, "upper")
        said += f": the estimate is {'a lower' if side == 'lower' else 'an upper'} bound"
    elif bounded or whole:
        limits = dict.fromkeys(("low", "high", "se"), np.nan)
        said += ": on both sides, so that there is no bound" if bounded else ": not computed"
    return replace(found, **limits, reason="; ".join(filter(None, (found.reason, said))))


def _shared_error(case: Case, row: Row, sides: Mapping[str, float], scale: Mapping[str, float]) -> float:
    """Variance by the error that references share: of k*, and of losses by what they change with k*."""
    shares = AT_SHARES.get(row.value.removesuffix("_fixed"), {}) if isinstance(row.value, str) else {}
    steps, names = case.last_steps, list(sides)
    if not (shares or row.value == "k_star") or not set(names) <= set(steps.index):
        return 0.0
    moved = sum(n * share * steps[share] for share, n in shares.items()) if shares else 1.0
    per_nat = -(moved / steps["fall"])[names] * pd.Series(scale)[names]
    table = case.study.references[case.trained_with]
    means = np.column_stack([table[case.study.members(name)].mean(axis=1) for name in names])
    design = case.study.design.loc[table.index]
    given = {"design": design[names].to_numpy(), "base": design["base"].to_numpy(), "side": list(sides.values())}
    return draws.reference_variance(means, per_nat=per_nat.to_numpy(), **given)


def last_fall(run: Run) -> float:
    """Nats that the mean exposure of the run's set falls in the step before k*."""
    before = max(run.k_star - 1, run.steps[0])
    return float(performance.interpolate(run.set_exposure, run.steps, before) / (run.k_star - before))


def _slope(run: Run, share: float) -> float:
    # held-out lost a step at a share of k*, nats per token and step, between the states where it was measured
    steps, lost = run.sentences.index.to_numpy(), -run.sentences.to_numpy().sum(axis=1)
    if len(steps) < 2:
        return np.nan
    at = int(np.clip(np.searchsorted(steps, share * run.k_star), 1, len(lost) - 1))
    return float((lost[at] - lost[at - 1]) / (steps[at] - steps[at - 1]) / run.sentence_tokens.sum())


def _sentences(case: Case, row: Row, here: pd.DataFrame, scale: Mapping[str, float]) -> float:
    """Variance by the held-out sentences that a loss was measured on."""
    shares = AT_SHARES.get(row.value) if isinstance(row.value, str) else None
    if not shares or here.empty:
        return 0.0
    by_key = {(run.forget_set, run.model): run for run in case.study.select(arm=case.arm)}
    some = [by_key[key] for key in zip(here["forget_set"], here["model"], strict=True)]
    nats = np.array([sum(n * run.lost_sentences(share) for share, n in shares.items()) for run in some])
    weights = draws.contrast_weights(here["forget_set"], here["side"]) * here["forget_set"].map(scale)
    known = np.isfinite(nats).all(axis=1)
    return draws.sentence_variance(nats[known], n_tokens=some[0].sentence_tokens, weights=weights[known])


def _sides_of(case: Case, family: str, value: float = 1.0) -> dict[str, float]:
    return dict.fromkeys(case.study.families.get(family, [family]), value)


def _both(case: Case, row: Row) -> Contrast:
    # the mean of two means of kinds: their difference with the sign of one turned
    scale = _sides_of(case, case.ind, 0.5) | _sides_of(case, case.ood, -0.5)
    return contrast_of(case, row, _sides_of(case, case.ind) | _sides_of(case, case.ood, -1.0), scale)


def _every_set(case: Case, row: Row) -> Contrast:
    names = dict.fromkeys(row.value(case)["forget_set"], 1.0)
    return contrast_of(case, row, names) if names else Contrast(np.nan, reason="no set has enough models on both sides")


def _log_ratio(case: Case, row: Row) -> Contrast:
    # log(a/b), its error by linear propagation: that of a/mean(a) − b/mean(b)
    a, b = (contrast_of(case, row, _sides_of(case, family)).estimate for family in (case.ind, case.ood))
    if not min(a, b) > 0:
        return Contrast(np.nan, reason="no ratio: a kind has lost nothing, or was not measured")
    sides = _sides_of(case, case.ind) | _sides_of(case, case.ood, -1.0)
    found = contrast_of(case, row, sides, _sides_of(case, case.ind, 1 / a) | _sides_of(case, case.ood, 1 / b))
    shift = np.log(a / b) - found.estimate
    return replace(found, estimate=found.estimate + shift, low=found.low + shift, high=found.high + shift)


def _least_squares(y: Array, columns: Sequence[Array], confidence: float) -> Contrast:
    """Coefficient of the first column beside the others and an intercept; one row a unit."""
    x, n = np.column_stack([*columns, np.ones(len(y))]), len(y)
    df = n - x.shape[1]
    if df < 1 or np.linalg.matrix_rank(x) < x.shape[1]:
        return Contrast(np.nan, n_draws=(n, 0), reason=f"{n} points are too few for a slope with its error")
    beta = np.linalg.lstsq(x, y, rcond=None)[0]
    se = float(np.sqrt(np.sum((y - x @ beta) ** 2) / df * np.linalg.inv(x.T @ x)[0, 0]))
    half = distributions.t.ppf((1 + confidence) / 2, df) * se
    return Contrast(float(beta[0]), float(beta[0] - half), float(beta[0] + half), se, df, n_draws=(n, 0))


def ladder(case: Case, column: str) -> pd.DataFrame:
    """One row a draw that stood once in training: family, forget_set, x (log-likelihood per token under models that
    never saw it), value (mean over its models)."""
    study, rows = case.study, []
    times = study.examples.groupby("forget_set")["repetitions"].first()
    for name, values in case.values.groupby("forget_set", sort=False)[column]:
        if times[name] == 1 and values.notna().any():
            outside, n_tokens = study.held_by(name, case.trained_with, inside=False), study.examples["n_tokens"]
            x = outside.mean().sum() / n_tokens[outside.columns].sum()
            rows.append((study.family(name), name, x, values.mean()))
    return pd.DataFrame(rows, columns=["family", "forget_set", "x", "value"]).astype({"x": float, "value": float})


def _over_ladder(case: Case, row: Row, by: str) -> Contrast:
    points = ladder(case, row.value).groupby(by)[["x", "value"]].mean()
    found = _least_squares(points["value"].to_numpy(), [points["x"].to_numpy()], case.study.confidence)
    lost = int(case.values[row.value].isna().sum())
    return replace(found, reason="; ".join(filter(None, (found.reason, f"{lost} runs without a value" * bool(lost)))))


def _adjusted(case: Case, row: Row) -> Contrast:
    # difference of kinds beside a common slope on exposure at θ0, a draw a point
    sides = _sides_of(case, case.ind, 0.0) | _sides_of(case, case.ood, 1.0)
    points = case.values[case.values["forget_set"].isin(list(sides))]
    points = points.groupby("forget_set")[[row.value, "exposure_0"]].mean().dropna()
    columns = [points.index.map(sides).to_numpy(dtype=float), points["exposure_0"].to_numpy()]
    return _least_squares(points[row.value].to_numpy(), columns, case.study.confidence)


SIDES: dict[str, Callable[[Case, Row], Contrast]] = {
    OOD_MORE: lambda case, row: contrast_of(case, row, _sides_of(case, case.ood) | _sides_of(case, case.ind, -1.0)),
    IND_MORE: lambda case, row: contrast_of(case, row, _sides_of(case, case.ind) | _sides_of(case, case.ood, -1.0)),
    LEVEL: lambda case, row: contrast_of(case, row, _sides_of(case, case.ood) | _sides_of(case, case.level, -1.0)),
    IND: lambda case, row: contrast_of(case, row, _sides_of(case, case.ind)),
    OOD: lambda case, row: contrast_of(case, row, _sides_of(case, case.ood)),
    BOTH: _both,
    SETS: _every_set,
    RATIO: _log_ratio,
    ADJUSTED: _adjusted,
    KINDS: partial(_over_ladder, by="family"),
    RUNGS: partial(_over_ladder, by="forget_set"),
}


def computed(row: Row, case: Case) -> dict:
    """A row's estimate, interval and parts of its variance; of a claim p and the interval's verdict too."""
    found = SIDES[row.sides](case, row)
    line = {"claim": row.claim, "part": row.part, "arm": case.arm, "statement": row.statement, "unit": row.unit}
    line |= {key: getattr(found, key) for key in ("estimate", "low", "high", "df", "reason")}
    line |= {"n": sum(found.n_draws), "models": found.n_models, "runs": found.n_runs}
    line |= dict.fromkeys(["delta", "delta_low", "p", "p_permutation", *PARTS], np.nan) | {"verdict": ""}
    if found.variances:  # what each adds: the spread of draws and that of models both hold the residual
        v = found.variances
        parts = v["draw"] - v["cell"], v["model"] - v["cell"], v["cell"], v["reference"], v["sentences"]
        line |= dict(zip(PARTS, parts, strict=True))
    return line if row.part == BESIDE else line | _decided(row, case, found)


def _decided(row: Row, case: Case, found: Contrast) -> dict:
    # of a row that decides: margin, p, verdict of its interval, and why it is reported and not counted
    margin, direction = case.delta.get(row.margin, 0.0), row.sign
    if row.unit == "steps":
        margin *= contrast_of(case, row, _sides_of(case, case.ind)).estimate
    if isinstance(margin, Sequence):  # a band that the value has to lie in
        low, high = margin
        p, shifted = draws.p_inside(found, low=low, high=high), _shifted(found, -(low + high) / 2)
        inside = stats.verdict(shifted, delta=(high - low) / 2, direction=0)
        word = {"small": "supported", "equivalent": "supported", "supported": "contradicted"}.get(inside, inside)
        line = {"delta": high, "delta_low": low}
    else:
        null, delta = (margin, 0.0) if row.unit == "AUC" else (0.0, np.arctanh(margin) if row.unit == RHO else margin)
        shifted, line = _shifted(found, -null), {"delta": null or delta}
        p, word = draws.p_beyond(shifted, delta=delta), stats.verdict(shifted, delta=delta, direction=direction)
    if THESE in found.reason:
        p, word = np.nan, NOT_COMPUTED
    if row.sides in (OOD_MORE, IND_MORE):
        sides = _sides_of(case, case.ood, 1.0) | _sides_of(case, case.ind, -1.0)
        means = run_level(case, row, sides).groupby("forget_set")[["value", "side"]].mean()
        line["p_permutation"] = draws.permutation_p(means["value"], means["side"]).p
    counted = "" if row.claim in ("C1", "C7") else _not_memorized(case)  # the metric is judged on all that was learnt
    return line | {"p": p, "verdict": word, "reason": "; ".join(filter(None, (found.reason, counted)))}


def _shifted(found: Contrast, by: float) -> Contrast:
    return replace(found, estimate=found.estimate + by, low=found.low + by, high=found.high + by)


def _not_memorized(case: Case) -> str:
    """Which of the two kinds has too small an instance part at θ0 to count, in words, or nothing."""
    why, said = "{} not memorized (instance part {:.0%} of its exposure at θ0): not counted", []
    for family in (case.ind, case.ood):
        share = case.values.loc[case.values["family"] == family, "instance_share"].mean()
        said += [why.format(family, share)] if runs.memorized(share) == "no" else []
    return "; ".join(said)


def decide(table: pd.DataFrame, *, confidence: float) -> pd.DataFrame:
    """Fill p_holm and claim_verdict: one test a claim and arm, over all of them.

    The claim's p is the largest of its parts' (all must hold); where a part is contradicted, the smallest of the
    contradicted parts' times the number of parts (one is enough). Small and equivalent are the interval's word alone.
    """
    table, parts, p_values = table.copy(), table[table["part"] != BESIDE], []
    groups = [group for _, group in parts.groupby(["claim", "arm"], sort=False)]
    for group in groups:
        against = group.loc[group["verdict"] == "contradicted", "p"]
        p_values.append(min(1.0, against.min() * len(group)) if len(against) else group["p"].max(skipna=False))
    for group, p in zip(groups, stats.holm(p_values), strict=True):
        words, said = list(group["verdict"]), group["reason"]
        word, enough = stats.verdict_of_parts(words), p < 1 - confidence or bool({"small", "equivalent"} & set(words))
        if word in ("supported", "contradicted", stats.NOT_BORNE_OUT) and not enough:
            word, more = "inconclusive", "not beyond the margin after Holm"
            table.loc[group.index, "reason"] = (said + "; " + more).str.lstrip("; ")
        counted = not said.str.contains("not counted").any() or word == NOT_COMPUTED
        table.loc[group.index, "p_holm"] = p
        table.loc[group.index, "claim_verdict"] = word if counted else "not counted"
    return table
