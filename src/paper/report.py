"""What notebook 11 shows and writes beside the table of claims: every set, sentences, a figure, README's blocks."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper import exposure, look, marks, memorization, runs, trade_off, words
from paper.look import Look
from paper.runs import Array, Study
from paper.verdicts import BESIDE, SAYS
from unlearning.core import genex, performance, stats

SHOWN_BY = {  # claim -> stage and figure that show it best
    "C1": ("exposure", "calibration"),
    "C2": ("exposure", "k_star"),
    "C3": ("trade_off", "trade_off"),
    "C4": ("trade_off", "lost_along"),
    "C5": ("memorization", "correlations"),
    "C6": ("memorization", "correlations"),
}
TITLES = {  # quantities of the table of sets in README and docs
    "exposure_0": "exposure before, nats",
    "instance_share": "of it, instance part (share)",
    "k_star": "steps to forget, k\\*",
    "k_star_reference": "± by the reference",
    "lost_100": "performance lost at k\\*, nats per token",
}


# Every set in every arm


def set_table(study: Study, table: pd.DataFrame, *, confidence: float = 0.95) -> pd.DataFrame:
    """Every quantity of every set and arm: arm, forget_set, quantity, estimate, low, high, unit, n, reason.

    What is known at θ0 has the interval of the regression (`runs.start`), all else Student's over models. An estimate
    that is missing, only a bound or without an interval has its reason in words.
    """
    rows = []
    for (arm, name), group in table[table["role"] == "in"].groupby(["arm", "forget_set"]):
        start = runs.start(study, group["trained_with"].iloc[0], name, confidence=confidence)
        found = {q: _over_runs(group, q, confidence) | {"unit": unit} for q, unit in runs.UNITS.items()}
        for quantity in ("exposure_0", "instance_0", "instance_share"):
            known = start.loc[quantity].to_dict() if quantity in start.index else {}
            found[quantity] |= known or {"reason": "no never-trained examples of its kind"}
        found["k_star_reference"] = _moved_by_reference(study, arm, name, start)
        found |= _worst_cases(study, arm, name, confidence)
        rows += [{"arm": arm, "forget_set": name, "quantity": q} | row for q, row in found.items()]
    columns = ["arm", "forget_set", "quantity", "estimate", "low", "high", "unit", "n", "reason"]
    return pd.DataFrame(rows, columns=columns)


def _over_runs(group: pd.DataFrame, quantity: str, confidence: float) -> dict:
    values, lost, reason = group[quantity], int(group[quantity].isna().sum()), ""
    bound = quantity in ("k_star", "k95") and lost > 0
    if bound:
        values = values.fillna(group["last_step"])
        reason = f"{lost} of {len(group)} runs censored: the estimate is a lower bound"
    elif lost:
        reason = f"over the {len(group) - lost} of {len(group)} runs that have it"
    row = vars(stats.t_interval(values, confidence=confidence)) | ({"low": np.nan, "high": np.nan} if bound else {})
    none = {0: "no run got there, or it was not measured", 1: reason or "one run has no interval"}
    return row | {"reason": none.get(row["n"], reason)}


def _moved_by_reference(study: Study, arm: str, name: str, start: pd.DataFrame) -> dict:
    """By how many steps the mean k* moves if the reference that all runs share is off by its half-width.

    Half-width of the reference's own interval, over the nats that a run's mean exposure falls in the last step before
    k*. The reference is one side of exposure_0, the in-models are the other, as many: its interval is 1/√2 as wide.
    """
    half = (start.loc["exposure_0", "high"] - start.loc["exposure_0", "low"]) / 2 / np.sqrt(2)
    some, falls = [r for r in study.select(arm=arm, forget_set=name) if r.k_star > r.steps[0]], []
    for run in some:
        before = max(run.k_star - 1, run.steps[0])
        falls.append(performance.interpolate(run.exposure.mean(axis=1), run.steps, before) / (run.k_star - before))
    moved = half / np.mean(falls) if falls else np.nan
    reason = "" if np.isfinite(moved) else "no run got there, or the reference has no interval"
    return {"estimate": moved, "unit": "steps", "n": len(some), "reason": reason}


def _worst_cases(study: Study, arm: str, name: str, confidence: float) -> dict[str, dict]:
    """Lower limits of the largest |GenEx| of the set, before, at k*, and between two groups of references."""
    some = study.select(arm=arm, forget_set=name)
    outside = runs.outside_scores(study, some[0])
    cases = {"theta0": (np.array([run.log_likelihoods[0] for run in some]), outside),
             "k_star": (_at_k_star(some), outside),
             "two_groups_of_references": (outside[::2], outside[1::2])}  # fmt: skip
    rows = {}
    for case, (left, right) in cases.items():
        few = min(len(left), len(right)) < 2
        value = np.nan if few else genex.worst_case(unlearned=left, reference=right, confidence=confidence)
        rows[f"worst_case_{case}"] = {"estimate": value, "unit": "nats", "n": len(outside if "two" in case else left),
                                      "reason": "fewer than two models on a side" if few else ""}  # fmt: skip
    return rows


def _at_k_star(some) -> Array:
    rows = [performance.interpolate(run.log_likelihoods, run.steps, run.k_star) for run in some]
    return np.array([row for row in rows if np.isfinite(row).all()])


def by_set(sets: pd.DataFrame, titles: Mapping[str, str]) -> pd.DataFrame:
    """The table of sets for reading: a row a set and arm, n, and cells 'mean [low, high]' under the given titles."""
    cells = sets.assign(cell=[words.interval(row) for row in sets.itertuples()])
    wide = cells.pivot(index=["arm", "forget_set"], columns="quantity", values="cell").reindex(columns=list(titles))
    n = sets[sets["quantity"] == "k_star"].set_index(["arm", "forget_set"])["n"].astype(int)
    return wide.rename(columns=titles).assign(n=n).reset_index().rename_axis(columns=None)


# Claims in words and in a figure


def decisions(table: pd.DataFrame) -> pd.DataFrame:
    """One row a claim and arm: claim, says, arm, verdict, p_holm, because (the parts' verdicts and reasons)."""
    rows = []
    for (claim, arm), group in table[table["part"] != BESIDE].groupby(["claim", "arm"], sort=False):
        by_part = [f"{claim}{row.part} {row.verdict}" for row in group.itertuples()] if len(group) > 1 else []
        because = "; ".join([*by_part, *dict.fromkeys(r for r in group["reason"] if r)])
        rows.append((claim, SAYS[claim], arm, *group[["claim_verdict", "p_holm"]].iloc[0], because))
    return pd.DataFrame(rows, columns=["claim", "says", "arm", "verdict", "p_holm", "because"])


def sentence(row) -> str:
    """A row of the claims table in words, with its interval, margin, n, p and verdict, or why it has none."""
    label = f"{row.claim}{'' if row.part == BESIDE else row.part} {row.arm}: {row.statement}"
    if not np.isfinite(row.estimate):
        return f"{label}: no value ({row.reason})."
    limits = "" if np.isfinite(row.low) else " (no interval)"
    text = f"{label}: {words.interval(row)}{limits} {row.unit}, n = {row.n}"
    if np.isfinite(row.delta):
        text += f", {'threshold' if row.claim == 'C1' else 'δ'} {words.number(row.delta)}"
    if np.isfinite(row.p_holm):
        text += f", p {_p(row.p_holm)} after Holm, sign-flip {_p(row.p_sign_flip)}"
    return text + (f": {row.verdict}" if row.verdict else "") + (f" ({row.reason})." if row.reason else ".")


def _p(value: float) -> str:
    return "< 0.001" if value < 1e-3 else words.number(value, ".2g", "not computed")


def summarize(table: pd.DataFrame, study: Study, inside: pd.DataFrame) -> dict:
    """The answers for other programs: counts, and for every claim and arm its verdict with its parts."""
    columns = ["part", "statement", "estimate", "low", "high", "unit", "delta", "n", "p", "verdict", "reason"]
    claims: dict[str, dict] = {claim: {"says": says, "arms": {}} for claim, says in SAYS.items()}
    for (claim, arm), group in table[table["part"] != BESIDE].groupby(["claim", "arm"], sort=False):
        parts = [{key: _plain(value) for key, value in row.items()} for row in group[columns].to_dict("records")]
        head = {"verdict": group["claim_verdict"].iloc[0], "p_holm": _plain(group["p_holm"].iloc[0])}
        claims[claim]["arms"][arm] = head | {"parts": parts}
    return {"models": len(study.design), "trained_with": sorted(study.references), "forget_sets": study.forget_sets,
            "runs": len(inside), "censored": int(inside["k_star"].isna().sum()), "missing": study.missing,
            "claims": claims}  # fmt: skip


def _plain(value: object) -> object:
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def claim_forest(parts: pd.DataFrame) -> Figure:
    """Every part of every claim with its interval and its margin, a panel a unit, a marker an arm.

    C1's margin is a threshold, drawn as a line. At the right the claim's verdict where the part is all of it, and in
    brackets what the interval alone says; else the part's.
    """
    parts = parts.assign(name=parts["claim"] + parts["part"])
    arms = list(dict.fromkeys(parts["arm"]))
    tones = {arm: (look.INK, "#7a7a7a", "#a8a8a8")[i % 3] for i, arm in enumerate(arms)}
    styles = {arm: Look(tones[arm], marker=marker) for arm, marker in look.arm_markers(arms).items()}
    panels = {unit: rows for unit, rows in parts.groupby("unit", sort=False)}
    heights = [rows["name"].nunique() + 1.2 for rows in panels.values()]
    fig, axes = look.grid(len(panels), 1, height_in=0.36 * np.mean(heights), gridspec_kw={"height_ratios": heights})
    for ax, (unit, rows) in zip(axes[:, 0], panels.items(), strict=True):
        names = list(dict.fromkeys(rows["name"]))
        for i, row in rows.iterrows():
            at = names.index(row["name"]) + 0.4 * (arms.index(row["arm"]) - (len(arms) - 1) / 2)
            _margin(ax, row, [at - 0.2, at + 0.2])
            if np.isfinite(row["estimate"]):
                marks.intervals(ax, [at], rows.loc[[i]], styles[row["arm"]], flat=True)
            alone, whole = row["verdict"], row["claim_verdict"]
            word = alone if row["part"] or whole == alone else f"{whole} ({alone})"
            ax.annotate(word, (1.0, at), xycoords=ax.get_yaxis_transform(), xytext=(4, 0), va="center", fontsize=6,
                        textcoords="offset points", color=tones[row["arm"]], annotation_clip=False)  # fmt: skip
        marks.name_rows(ax, names)
        ax.set_xlabel(unit, labelpad=1)
        if not rows["claim"].eq("C1").any():
            marks.zero_line(ax, vertical=True)
    handles = [axes[0, 0].plot([], [], **style.point_kw)[0] for style in styles.values()]
    fig.legend(handles, [f"arm {arm}" for arm in arms], loc="outside upper center", ncols=len(arms))
    return fig


def _margin(ax: Axes, row: pd.Series, band: Sequence[float]) -> None:
    if row["claim"] == "C1":
        ax.plot([row["delta"]] * 2, band, color=look.INK, lw=0.9, ls=(0, (2, 1)))
    elif row["delta"] > 0:  # in steps a share of the arm's own k*
        ax.fill_betweenx(band, -row["delta"], row["delta"], color=look.FLOOR, lw=0, zorder=0)


# Blocks of README and docs, as text. Links lead from the repository's root; `up` is put before them


def write_blocks(blocks: Mapping[str, str], path: str | Path = "results/tables/claims/readme.md") -> None:
    """Write each block between its markers, for README.md and docs to take."""
    text = "\n\n".join(f"<!-- begin {name} -->\n\n{text}\n\n<!-- end {name} -->" for name, text in blocks.items())
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text + "\n", encoding="utf-8", newline="\n")


def figure_block(up: str = "") -> str:
    """The main figure, a link to the notebook that draws it, and a caption."""
    alt = "Performance lost on held-out text against the exposure that is left, as models unlearn"
    return (
        f"[![{alt}]({up}figures/trade_off/trade_off.png)]({up}results/notebooks/trade_off.ipynb)\n\n"
        "*Each line is one forget set, from the left (known to the model) to zero (as if never seen). The higher it "
        "ends, the more the model has lost on other text. Grey: where models that never saw the set lie; dashed: the "
        "base model, to which anyone can go back.*"
    )


def verdict_block(table: pd.DataFrame, up: str = "") -> str:
    """Claim, verdict by arm, figure, notebook, and the minutes that redrawing takes."""
    arms, lines = list(dict.fromkeys(table["arm"])), []
    for claim, (stage, figure) in SHOWN_BY.items():
        record = Path(f"results/runs/{stage}.json")
        minutes = f"{json.loads(record.read_text())['seconds'] / 60:.1f}" if record.exists() else "–"
        verdicts = [_verdict(table[(table["claim"] == claim) & (table["arm"] == arm)]) for arm in arms]
        links = [f"[{figure}]({up}figures/{stage}/{figure}.png)", f"[{stage}]({up}results/notebooks/{stage}.ipynb)"]
        lines.append([f"**{claim}** {SAYS[claim]}", *verdicts, *links, minutes])
    return _markdown(["claim", *(f"`{arm}`" for arm in arms), "figure", "notebook", "minutes"], lines)


def _verdict(rows: pd.DataFrame) -> str:
    parts = rows[rows["part"] != BESIDE]
    lines = [f"{row.part + ': ' if row.part else ''}{words.interval(row)} {row.unit}" for row in parts.itertuples()]
    return "<br>".join([f"**{parts['claim_verdict'].iloc[0]}**", *lines])


def _markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def numbers_block(sets: pd.DataFrame, headline: Sequence[str], order: Sequence[str]) -> str:
    """Exposure before, steps to forget and performance lost, by set and arm; the headline's arms in sight."""
    arms = words.ordered(list(dict.fromkeys(sets["arm"])), first=headline)
    cells, header = by_set(sets, TITLES).set_index(["arm", "forget_set"]), ["forget set", "arm", "models"]

    def rows(some: Sequence[str]) -> str:
        keys = [(arm, name) for arm in some for name in order if (arm, name) in cells.index]
        lines = [[f"`{k[1]}`", f"`{k[0]}`", str(cells.loc[k, "n"]), *cells.loc[k, TITLES.values()]] for k in keys]
        return _markdown([*header, *TITLES.values()], lines) if lines else "*None was run.*"

    shown, others = rows([arm for arm in arms if arm in headline]), rows([arm for arm in arms if arm not in headline])
    return f"{shown}\n\n<details><summary>The other arms (exploratory)</summary>\n\n{others}\n\n</details>"


def beside_block(table: pd.DataFrame) -> str:
    """The rows beside a claim that go against it or do not bear it out: nobody should have to look for them."""
    beside = table[table["part"] == BESIDE]
    against = _told(beside[beside["verdict"] == "contradicted"])
    weak = _told(beside[beside["verdict"].isin(["equivalent", "inconclusive"])])
    texts = [f"Measured in other ways, which decide nothing, these go against a claim:\n\n{against}"] if against else []
    if weak:
        texts.append(f"<details><summary>And these do not bear it out</summary>\n\n{weak}\n\n</details>")
    return "\n\n".join(texts) or "Measured in other ways, nothing goes against a claim."


def _told(rows: pd.DataFrame) -> str:
    # one line a claim, arm and statement; what differs in the parenthesis at its end alone is told in one line
    split = rows["statement"].str.extract(r"^(?P<what>.*?)(?: \((?P<of>[^()]*)\))?$")
    lines = []
    for (claim, arm, what), group in rows.join(split).groupby(["claim", "arm", "what"], sort=False):
        values = [words.interval(r) + (f" ({r.of})" if isinstance(r.of, str) else "") for r in group.itertuples()]
        said = ", ".join(dict.fromkeys(group["verdict"]))
        lines.append(f"- {claim}, `{arm}`: {what}: {'; '.join(values)} {group['unit'].iloc[0]}: {said}")
    return "\n".join(lines)


def corpus_block(path: str | Path = "results/tables/corpus/exclusions.csv") -> str:
    """From raw pairs to those that are used, in a sentence."""
    if not Path(path).exists():
        return "*The corpus has not been built here yet.*"
    found = pd.read_csv(path)
    raw, left = int(found["pairs"].iloc[0] + found["left"].iloc[0]), int(found["left"].iloc[-1])
    reasons = ", ".join(f"{row.pairs:,} {row.reason}" for row in found.itertuples())
    return f"Of {raw:,} raw pairs {left:,} are left. Taken out: {reasons}."


def findings_block(
    study: Study, table: pd.DataFrame, sets: pd.DataFrame, rho: pd.DataFrame, *, ind: str, ood: str, delta: Mapping
) -> str:
    """What a reader may miss in the verdicts, a line each; what no set bears out is left out.

    Args:
        study: as loaded.
        table: `verdicts.claims_table`.
        sets: `set_table`.
        rho: `memorization.correlation_table`.
        ind: the headline's set in distribution; `ood` the other one.
        delta: margins.
    """
    values = sets.pivot(index=["arm", "forget_set"], columns="quantity", values="estimate")
    said: dict[str, list[str]] = {}
    for arm in dict.fromkeys(table["arm"]):
        if not {(arm, ind), (arm, ood)} <= set(values.index):
            continue
        here = values.loc[arm].reindex([name for name in study.forget_sets if (arm, name) in values.index])
        some = {name: study.select(arm=arm, forget_set=name) for name in here.index}
        here["base"] = [trade_off.base_point(study, of_set)[1] for of_set in some.values()]
        out = {n: exposure.calibration(study, r[0].trained_with, n, confidence=0.95) for n, r in some.items()}
        here["auc"] = [t["auc"].mean() for t in out.values()]
        here["outside"] = [t.loc[t["side"] == "out", "share_outside"].mean() for t in out.values()]
        over = rho[(rho["arm"] == arm) & (rho["low"] > delta["C5_rho"]) & ~rho["reason"].str.startswith("not")]
        counts = {q: (over["quantity"] == q).sum() for pair in memorization.DRAWN.values() for q in pair}
        ratio = here.loc[ood, "exposure_0"] / here.loc[ind, "exposure_0"]
        lines = {
            f"Fewer steps than `{ind}` take": _named(here["k_star"][here["k_star"] < here.loc[ind, "k_star"]]),
            "Forgetting costs more than going back to the base model, nats per token, of":
                _named(here["lost_to_references"][here["lost_to_references"] > here["base"]]),
            "Half-way to k\\*, nats per token lost (below zero: gained)": _named(here.loc[[ind, ood], "lost_50"]),
            "Hardly memorized (less than half of the exposure is the instance's own)":
                _named(here["instance_share"][here["instance_share"] < runs.MEMORIZED_SHARE]),
            f"AUC under C1's {delta['C1_auc']:g} in": _named(here["auc"][here["auc"] < delta["C1_auc"]]),
            f"Outside the floor, of models that never saw the set, more than C1's {delta['C1_outside']:g} in":
                _named(here["outside"][here["outside"] > delta["C1_outside"]]),
            "Sets with a correlation beyond C5's margin":
                ", ".join(f"{memorization.RHOS[q]} {n} of {len(here)}" for q, n in counts.items()),
            "Supported in all draws of both kinds together":
                _rows(table[table["verdict"] == "supported"], arm, "(all draws of both kinds)"),
            "By BLEU": _rows(table, arm, "by translations: InD − OOD"),
            f"`{ood}` starts further from zero than `{ind}`, by a factor of": words.number(ratio, ".1f")
                + "; for as many nats: " + _rows(table, arm, "steps that take as many nats"),
        }  # fmt: skip
        for title, text in lines.items():
            said.setdefault(title, []).extend([f"{text} (`{arm}`)"] if text else [])
    return "\n".join(f"- **{title}:** {'; '.join(texts)}." for title, texts in said.items() if texts)


def _named(values: pd.Series) -> str:
    return ", ".join(f"`{name}` {words.number(value)}" for name, value in values.dropna().items())


def _rows(table: pd.DataFrame, arm: str, part_of_statement: str) -> str:
    rows = table[(table["arm"] == arm) & table["statement"].str.contains(part_of_statement, regex=False)]
    return ", ".join(f"{r.claim} {words.interval(r)} {r.unit} (n = {r.n}, {r.verdict})" for r in rows.itertuples())
