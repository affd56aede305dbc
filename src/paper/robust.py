"""Beside the verdicts: what the design could show, another model of the same data, and other ways to measure it.

Nothing here decides. Contrasts are those of `verdicts.ROWS`; tables of intervals have estimate, low, high.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy import optimize, stats

from paper import look, marks, verdicts
from paper.look import Look
from paper.runs import BY_SENTENCE, Study
from paper.verdicts import Case, Row
from unlearning.core import draws, genex
from unlearning.core.draws import Contrast

FIRST = Path(__file__).parent  # what is kept of the first study: first_study.csv (spread, effects), first_verdicts.csv
HEADLINE = (("C2", ""), ("C3", ""), ("C4", "a"))  # claim and part of the contrasts that are measured in other ways
SOURCES = {"var_draw": "draws", "var_model": "models", "var_residual": "single runs", "var_reference": "references",
           "var_sentences": "sentences"}  # fmt: skip

_TONES = ("#0072b2", "#e69f00", "white", "#00916a", "#d9d9d9")
_SIGNS = {verdicts.OOD_MORE: (-1.0, 1.0), verdicts.IND_MORE: (1.0, -1.0)}  # of ind, of ood


class Mixed(NamedTuple):
    """A contrast by a linear mixed model: limits of normal theory, standard deviations, and what is wrong with it."""

    estimate: float
    low: float
    high: float
    sd_draw: float
    sd_model: float
    sd_residual: float
    says: str = ""


def mixed_lm(
    values: ArrayLike, *, draw: ArrayLike, model: ArrayLike, side: ArrayLike, confidence: float = 0.95
) -> Mixed:
    """Crossed random effects of draw and of model within its kind, by REML; as `draws.two_way` otherwise.

    Where REML puts a component at zero, the interval takes it for known to be zero: it is too narrow, and `says` so.
    With few groups it also takes the estimated variances for known (with four draws it is 0.6 of the t interval).
    """
    try:
        from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec  # slow to load, and used here alone
    except ImportError:
        return Mixed(*[np.nan] * 6, says="statsmodels is not installed")
    table = pd.DataFrame({"y": values, "draw": draw, "model": model, "side": side}).dropna()
    both, scale = table["side"].nunique() > 1, table["y"].std()
    if table.groupby("side")["draw"].nunique().min() < 2 or not scale > 0:
        return Mixed(*[np.nan] * 6, says="too few draws, or all values alike")
    groups = [table["draw"].astype(str), table["model"].astype(str) + np.where(table["side"] > 0, "+", "-")]
    columns = [pd.get_dummies(group).astype(float) for group in groups]
    effects = VCSpec(["draw", "model"], [[list(c)] for c in columns], [[c.to_numpy()] for c in columns])
    x = np.column_stack([np.ones(len(table)), *([table["side"] > 0] if both else [])]).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a variance at zero: it is told in words
        fit = MixedLM(table["y"].to_numpy() / scale, x, groups=np.zeros(len(table)), exog_vc=effects).fit(reml=True)
    # y = μ + β [side] + u_draw + v_model,side + ε;  estimate ± z se(β)
    half = stats.norm.ppf((1 + confidence) / 2) * float(fit.bse_fe[-1]) * scale
    sd = np.sqrt(np.maximum([*fit.vcomp, fit.scale], 0.0)) * scale
    zero = [name for name, s in zip(("draws", "models"), sd, strict=False) if s < 0.1 * scale]
    says = f"variance between {' and '.join(zero)} at zero: the interval is too narrow" if zero else ""
    estimate = float(fit.fe_params[-1]) * scale
    limits = (estimate - half, estimate + half) if np.isfinite(half) else (np.nan, np.nan)
    return Mixed(estimate, *limits, *map(float, sd), says=says or ("" if np.isfinite(half) else "did not converge"))


def cross_check(made: pd.DataFrame, cases: Sequence[Case]) -> pd.DataFrame:
    """Every contrast of two kinds that decides, again by a mixed model: claim, part, arm, unit, estimate, low, high (of
    the table of claims), mixed_… (of `mixed_lm`), p_permutation, says."""
    decided = made[made["part"] != verdicts.BESIDE].set_index(["claim", "part", "arm"])
    rows = []
    for case in cases:
        for row in (r for r in verdicts.ROWS if r.part != verdicts.BESIDE and r.sides in _SIGNS):
            table = verdicts.run_level(case, row, _sides(case, row))
            where = {"draw": table["forget_set"], "model": table["model"], "side": table["side"]}
            mixed = mixed_lm(table["value"], **where, confidence=case.study.confidence)
            line = decided.loc[(row.claim, row.part, case.arm), ["unit", "estimate", "low", "high", "p_permutation"]]
            keys = {"claim": row.claim, "part": row.part, "arm": case.arm} | line.to_dict()
            rows.append(keys | {f"mixed_{key}": value for key, value in mixed._asdict().items() if key != "says"}
                        | {"says": mixed.says})  # fmt: skip
    return pd.DataFrame(rows)


def _sides(case: Case, row: Row, keep: slice = slice(None)) -> dict[str, float]:
    # set -> side, of some draws of both kinds
    families = (case.study.families.get(name, [name])[keep] for name in (case.ind, case.ood))
    return {name: sign for names, sign in zip(families, _SIGNS[row.sides], strict=True) for name in names}


def variance_figure(made: pd.DataFrame) -> Figure | str:
    """What the variance of each decided contrast is made of, a bar each, in shares; negative parts drawn as zero."""
    rows = made[(made["part"] != verdicts.BESIDE) & made["var_draw"].notna()]
    if rows.empty:
        return "no contrast has an interval"
    parts = rows[list(SOURCES)].clip(lower=0.0)
    shares = parts.div(parts.sum(axis=1).replace(0.0, np.nan), axis=0).fillna(0.0)
    arms, names = (list(dict.fromkeys(column)) for column in (rows["arm"], rows["claim"] + rows["part"]))
    fig, axes = look.grid(1, len(arms), height_in=1.2 + 0.16 * len(names), sharey=True)
    for ax, arm in zip(axes[0], arms, strict=True):
        here, left = rows["arm"] == arm, 0.0
        at = [names.index(name) for name in rows.loc[here, "claim"] + rows.loc[here, "part"]]
        for (column, label), tone, hatch in zip(SOURCES.items(), _TONES, ("", "", "////", "", ".."), strict=True):
            width = shares.loc[here, column].to_numpy()
            style = {"facecolor": tone, "edgecolor": look.INK, "hatch": hatch, "lw": 0.4, "label": label}
            ax.barh(at, width, left=left, height=0.7, **style)
            left = left + width
        marks.name_rows(ax, names)
        ax.set(title=f"arm {arm}", xlabel="share of the variance", xlim=(0, 1))
    marks.legend(fig, marks.labelled(axes[0], {}))
    return fig


# What the design could show


def power_table(
    first: pd.DataFrame, delta: Mapping, *, n_draws: int, n_models: int, pool: int, tests: int, confidence: float
) -> pd.DataFrame:
    """Power of each contrast from the first study's components (arm, outcome, component, value): claim, arm, unit,
    margin, effect (the first study's), se, beyond, beyond_holm (as the smallest p of so many tests has to be), inside
    (at that effect), inside_zero (at none), least (effect that lies beyond with power 0.8)."""
    rows = []
    for (arm, outcome), group in first.groupby(["arm", "outcome"], sort=False):
        sd = group.set_index("component")["value"].to_dict()
        claim, margin = _margin(outcome, delta, sd)
        # the few placebo models of a draw are one more way in which draws differ
        known = sd | {"draw": float(np.hypot(sd["draw"], sd.get("placebo", 0.0)))}
        given = {"margin": margin, "n_draws": n_draws, "n_models": n_models, "sd": known, "pool": pool}
        given["weights"] = {"C4b": (1.0,), "C5": (0.5, 0.5), "C6": (0.5, 0.5)}.get(claim, (1.0, -1.0))
        found, zero = (draws.power(x, **given, confidence=confidence) for x in (abs(sd["estimate"]), 0.0))
        holm = draws.power(abs(sd["estimate"]), **given, confidence=1 - (1 - confidence) / tests)
        reach = margin + 20 * found.se, lambda x, given=given: draws.power(x, **given).beyond - 0.8
        least = optimize.brentq(reach[1], margin, reach[0]) if np.isfinite(found.beyond) else np.nan
        powers = found.beyond, holm.beyond, found.inside, zero.inside
        rows.append((claim, arm, group["unit"].iloc[0], margin, sd["estimate"], found.se, *powers, least))
    names = ["claim", "arm", "unit", "margin", "effect", "se", "beyond", "beyond_holm", "inside", "inside_zero"]
    return pd.DataFrame(rows, columns=[*names, "least"]).sort_values(["claim", "arm"], ignore_index=True)


def _margin(outcome: str, delta: Mapping, sd: Mapping) -> tuple[str, float]:
    margins = {
        "k_star": ("C2", delta["C2_share_of_k_star"] * sd.get("k_star_ind", np.nan)),
        "lost_100": ("C3", delta["C3_nats_per_token"]), "lost_50": ("C4a", delta["C4_nats_per_token"]),
        "faster_ind": ("C4b", 0.0), "faster": ("C4c", 0.0),
        "rate_mem": ("C5", np.arctanh(delta["C5_rho"])), "rate_difficulty": ("C6", np.arctanh(delta["C6_rho"])),
    }  # fmt: skip
    return margins[outcome]


# The same contrasts, measured in other ways


def specifications(
    study: Study, arms: Mapping, claims: Mapping, *, other: Study, pilot: pd.DataFrame | None
) -> pd.DataFrame:
    """Headline contrasts under other choices, one row each: arm, contrast, specification, estimate, low, high, delta
    (as shares of the same for InD: of k*, of loss at k*; no margin in BLEU), n (draws), reason.

    other: the study read with the other reference; losses by it are those of the followed held-out sentences, and
    intervals leave out the error of that sample. pilot: its table of learning rates, by forget_set.
    """
    rows = []
    for arm in claims["headline"]:
        for claim, part in HEADLINE:
            row = next(row for row in verdicts.ROWS if (row.claim, row.part) == (claim, part))
            for name, case, asked, keep, why in _choices(study, other, arms, claims, arm, row, pilot):
                found, whole = _relative(case, asked, keep) if case else (Contrast(np.nan), np.nan)
                margin = claims["delta"][row.margin] if asked.unit == row.unit else np.nan
                values = [found.estimate, found.low, found.high, margin * (whole if row.unit == "steps" else 1.0)]
                relative = [x / whole if whole > 0 else np.nan for x in values]
                rows.append((arm, claim + part, name, *relative, sum(found.n_draws), why or found.reason))
    names = ["arm", "contrast", "specification", "estimate", "low", "high", "delta", "n", "reason"]
    return pd.DataFrame(rows, columns=names)


def _relative(case: Case, row: Row, keep: slice) -> tuple[Contrast, float]:
    # the contrast, and what InD takes or loses by k*
    whole = replace(row, value=row.value.replace("lost_50", "lost_100"))
    ind = dict.fromkeys(case.study.families.get(case.ind, [case.ind])[keep], 1.0)
    return verdicts.contrast_of(case, row, _sides(case, row, keep)), verdicts.contrast_of(case, whole, ind).estimate


def _choices(study, other, arms, claims, arm, row, pilot) -> Iterator[tuple[str, Case | None, Row, slice, str]]:
    def of(name: str, read: Study = study) -> Case:
        return verdicts.case_of(read, read.table, arms, claims, name)

    every, n = slice(None), len(study.families.get(claims["ind"], ()))
    like = [arms[arm][key] for key in ("trained_with", "method")]
    rates = {a: s.get("rate", 1.0) for a, s in arms.items() if [s["trained_with"], s["method"]] == like}
    yield "as decided", of(arm), row, every, ""
    for name, rate in sorted(rates.items(), key=lambda item: item[1]):
        if rate != 1:
            yield f"learning rate × {rate:g}", of(name), row, every, ""
    tuned, why = _canary_rate(arms, arm, rates, pilot)
    yield "learning rate of the canary pilot", of(tuned) if tuned else None, row, every, why
    yield "k* per token", verdicts.case_of(study, _per_token(study, arm), arms, claims, arm), row, every, ""
    yield "first half of the draws", of(arm), row, slice(n // 2), ""
    yield "second half of the draws", of(arm), row, slice(n // 2, None), ""
    # all held-out sentences are scored around k* by the reference that decides, those followed at every state
    followed = replace(row, value=f"{row.value}_fixed") if row.value in BY_SENTENCE else row
    yield f"reference: {other.reference}", of(arm, other), followed, every, ""
    if row.value == "lost_100":
        yield "by BLEU", of(arm), replace(row, value="lost_bleu", unit="BLEU"), every, ""


def _canary_rate(arms: Mapping, arm: str, rates: Mapping, pilot: pd.DataFrame | None) -> tuple[str, str]:
    # the arm at the rate that the pilot chose on canaries, or why there is none
    where = {"forget_set": "pilot-canary", "trained_with": arms[arm]["trained_with"], "method": arms[arm]["method"]}
    here = pilot[pilot["chosen"] & (pilot[list(where)] == pd.Series(where)).all(axis=1)] if pilot is not None else ()
    if not len(here):
        return "", "the pilot chose no rate on canaries"
    rate = float(here["learning_rate"].iloc[0])
    same = [a for a, times in rates.items() if np.isclose(times * arms[a]["learning_rate"], rate)]
    return (same[0], f"arm {same[0]}") if same else ("", f"no arm has the rate that canaries choose, {rate:g}")


def _per_token(study: Study, arm: str) -> pd.DataFrame:
    """The table of runs with k* where the set's mean exposure *per token* is zero, and what is lost by then."""
    found = []
    for run in study.select(arm=arm):
        k_star = genex.steps_to_forget((run.exposure / run.n_tokens).mean(axis=1), run.steps)
        found.append((k_star, *run.lost(np.array([0.5, 1.0]) * k_star)))
    table = study.table[(study.table["arm"] == arm) & (study.table["role"] == "in")]
    return table.assign(**dict(zip(["k_star", "lost_50", "lost_100"], np.array(found).reshape(-1, 3).T, strict=True)))


def specification_figure(table: pd.DataFrame) -> Figure | str:
    """All of `specifications`, a panel a contrast, a mark an arm; grey: ± the margin."""
    if table["estimate"].isna().all():
        return "no contrast could be computed"
    contrasts, arms = list(dict.fromkeys(table["contrast"])), list(dict.fromkeys(table["arm"]))
    names = list(dict.fromkeys(table["specification"]))
    fig, axes = look.grid(1, len(contrasts), height_in=0.9 + 0.27 * len(names), sharey=True)
    tones = (look.INK, "#7a7a7a", "#a8a8a8")
    styles = {arm: Look(tones[i % 3], marker=look.ARM_MARKERS[i]) for i, arm in enumerate(arms)}
    for ax, contrast in zip(axes[0], contrasts, strict=True):
        rows = table[(table["contrast"] == contrast) & table["estimate"].notna()].replace([np.inf, -np.inf], np.nan)
        for arm, shift in zip(arms, np.linspace(-0.19, 0.19, len(arms)) if len(arms) > 1 else [0.0], strict=True):
            mine = rows[rows["arm"] == arm]
            at = np.array([names.index(name) + shift for name in mine["specification"]])
            ax.barh(at, 2 * mine["delta"], left=-mine["delta"], height=0.34, color=look.FLOOR, lw=0, zorder=0)
            marks.intervals(ax, at, mine, styles[arm], flat=True, ms=3.5, capsize=0)
        # few draws make long bars, which would leave no room for the others
        most = rows[rows["n"] > rows["n"].max() / 4]
        ends = pd.concat([rows["estimate"], most["low"], most["high"], pd.Series([0.0])]).dropna()
        room = 0.06 * (ends.max() - ends.min())
        ax.set_xlim(ends.min() - room, ends.max() + room)
        marks.zero_line(ax, vertical=True)
        marks.name_rows(ax, names)
        ax.set(title=contrast, xlabel="share of InD's")
    marks.legend(fig, {f"arm {arm}": axes[0, 0].plot([], [], **style.point_kw)[0] for arm, style in styles.items()})
    return fig
