"""What the notebook of claims shows and writes with the table of claims: every set, sentences, a figure, text blocks.

The blocks are taken by README and docs; their links lead from the repository's root.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from paper import look, marks, memorization, runs, trade_off, words
from paper.look import Look
from paper.runs import Study
from paper.verdicts import BESIDE, SAYS
from unlearning.core import genex, performance

FIGURES = ("exposure/calibration", "exposure/k_star", "trade_off/trade_off", "trade_off/lost_along",
           "memorization/correlations", "memorization/correlations")  # fmt: skip
SHOWN_BY = dict(zip(SAYS, FIGURES, strict=True))  # claim -> stage/figure that shows it best
TITLES = {  # quantities of the table of sets in README and docs
    "exposure_0": "exposure before, nats",
    "instance_share": "of it, instance part (share)",
    "k_star": "steps to forget, k\\*",
    "k_star_reference": "± by the reference",
    "lost_100": "performance lost at k\\*, nats per token",
}


def set_table(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """Every quantity of every set and arm: arm, forget_set, quantity, estimate, low, high, unit, n, reason.

    What is known at θ0 has the interval of the regression (`runs.start`), all else Student's over models. An estimate
    that is missing, only a bound or without an interval has its reason in words.
    """
    rows = []
    for (arm, name), group in table[table["role"] == "in"].groupby(["arm", "forget_set"]):
        start = runs.start(study, group["trained_with"].iloc[0], name)
        found = {q: _over_runs(group, q, study.confidence) | {"unit": unit} for q, unit in runs.UNITS.items()}
        for quantity in ("exposure_0", "instance_0", "instance_share"):
            known = start.loc[quantity].to_dict() if quantity in start.index else {}
            found[quantity] |= known or {"reason": "no never-trained examples of its kind"}
        found["k_star_reference"] = _moved_by_reference(study, arm, name, start)
        found |= _worst_cases(study, arm, name)
        rows += [{"arm": arm, "forget_set": name, "quantity": q} | row for q, row in found.items()]
    columns = ["arm", "forget_set", "quantity", "estimate", "low", "high", "unit", "n", "reason"]
    return pd.DataFrame(rows, columns=columns)


def _over_runs(group: pd.DataFrame, quantity: str, confidence: float) -> dict:
    bound, lost, reason = quantity in ("k_star", "k95"), int(group[quantity].isna().sum()), ""
    row = words.means(group, quantity, by=["arm"], confidence=confidence, bound="last_step" if bound else None)
    row = row.drop(columns="arm").iloc[0].to_dict() | {"n": int(row["n"].iloc[0])}
    if row["n"] == 0:
        reason = "no run got there, or it was not measured"
    elif lost and bound:
        reason = f"{lost} of {len(group)} runs censored: the estimate is a lower bound"
    elif lost:
        reason = f"over the {len(group) - lost} of {len(group)} runs that have it"
    return row | {"reason": reason or ("one run has no interval" if row["n"] == 1 else "")}


def _moved_by_reference(study: Study, arm: str, name: str, start: pd.DataFrame) -> dict:
    # by how many steps the mean k* moves if the reference that all runs share is off by its half-width: that half-width
    # over the nats that a run's mean exposure falls in the last step before k*; the reference is one side of
    # exposure_0, the in-models are the other, as many, so its interval is 1/√2 as wide
    half = (start.loc["exposure_0", "high"] - start.loc["exposure_0", "low"]) / 2 / np.sqrt(2)
    some, falls = [r for r in study.select(arm=arm, forget_set=name) if r.k_star > r.steps[0]], []
    for run in some:
        before = max(run.k_star - 1, run.steps[0])
        falls.append(performance.interpolate(run.set_exposure, run.steps, before) / (run.k_star - before))
    moved = half / np.mean(falls) if falls else np.nan
    reason = "" if np.isfinite(moved) else "no run got there, or the reference has no interval"
    return {"estimate": moved, "unit": "steps", "n": len(some), "reason": reason}


def _worst_cases(study: Study, arm: str, name: str) -> dict[str, dict]:
    # lower limits of the largest |GenEx| of the set, before, at k*, and between two groups of references
    some = study.select(arm=arm, forget_set=name)
    outside, start = runs.outside_scores(study, some[0]), np.array([run.log_likelihoods[0] for run in some])
    at_k_star = [performance.interpolate(run.log_likelihoods, run.steps, run.k_star) for run in some]
    at_k_star = np.array([row for row in at_k_star if np.isfinite(row).all()])
    cases = {"theta0": (len(start), start, outside), "k_star": (len(at_k_star), at_k_star, outside)}
    cases["two_groups_of_references"] = len(outside), outside[::2], outside[1::2]
    rows = {}
    for case, (n, left, right) in cases.items():
        few = min(len(left), len(right)) < 2
        value = np.nan if few else genex.worst_case(unlearned=left, reference=right, confidence=study.confidence)
        reason = "fewer than two models on a side" if few else ""
        rows[f"worst_case_{case}"] = {"estimate": value, "unit": "nats", "n": n, "reason": reason}
    return rows


def by_set(sets: pd.DataFrame, titles: Mapping[str, str]) -> pd.DataFrame:
    """The table of sets for reading: a row a set and arm, n, and cells 'mean [low, high]' under the given titles."""
    cells = sets.assign(cell=[words.interval(row) for row in sets.itertuples()])
    wide = cells.pivot(index=["arm", "forget_set"], columns="quantity", values="cell").reindex(columns=list(titles))
    n = sets[sets["quantity"] == "k_star"].set_index(["arm", "forget_set"])["n"].astype(int)
    return wide.rename(columns=titles).assign(n=n).reset_index().rename_axis(columns=None)


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
        holm, flip = (words.number(p, ".2g", "not computed") for p in (row.p_holm, row.p_sign_flip))
        holm, flip = (said if not p < 1e-3 else "< 0.001" for p, said in ((row.p_holm, holm), (row.p_sign_flip, flip)))
        text += f", p {holm} after Holm, sign-flip {flip}"
    return text + (f": {row.verdict}" if row.verdict else "") + (f" ({row.reason})." if row.reason else ".")


def summarize(table: pd.DataFrame, study: Study, inside: pd.DataFrame) -> dict:
    """The answers for other programs: counts, and for every claim and arm its verdict with its parts."""

    def plain(record: dict) -> dict:
        floats = {key: value for key, value in record.items() if isinstance(value, float)}
        return record | {key: float(f"{x:.6g}") if np.isfinite(x) else None for key, x in floats.items()}

    columns = ["part", "statement", "estimate", "low", "high", "unit", "delta", "n", "p", "verdict", "reason"]
    claims: dict[str, dict] = {claim: {"says": says, "arms": {}} for claim, says in SAYS.items()}
    for (claim, arm), group in table[table["part"] != BESIDE].groupby(["claim", "arm"], sort=False):
        head = plain({"verdict": group["claim_verdict"].iloc[0], "p_holm": group["p_holm"].iloc[0]})
        claims[claim]["arms"][arm] = head | {"parts": [plain(part) for part in group[columns].to_dict("records")]}
    counts = {"runs": len(inside), "censored": int(inside["k_star"].isna().sum()), "missing": study.missing}
    study_of = {"models": len(study.design), "trained_with": sorted(study.references), "forget_sets": study.forget_sets}
    return study_of | counts | {"claims": claims}


def claim_forest(parts: pd.DataFrame) -> Figure:
    """Every part of every claim with its interval, margin and verdict, a panel a unit, a marker an arm.

    Of a claim in one part the verdict after Holm, in brackets what the interval alone says; else that of the part.
    """
    parts = parts.assign(name=parts["claim"] + parts["part"])
    arms = list(dict.fromkeys(parts["arm"]))
    tones = (look.INK, "#7a7a7a", "#a8a8a8")
    styles = {arm: Look(tones[i % 3], marker=look.ARM_MARKERS[i]) for i, arm in enumerate(arms)}
    panels = {unit: rows for unit, rows in parts.groupby("unit", sort=False)}
    heights = [rows["name"].nunique() + 1.2 for rows in panels.values()]
    fig, axes = look.grid(len(panels), 1, height_in=0.36 * np.mean(heights), gridspec_kw={"height_ratios": heights})
    for ax, (unit, rows) in zip(axes[:, 0], panels.items(), strict=True):
        names = list(dict.fromkeys(rows["name"]))
        for i, row in rows.iterrows():
            style = styles[row["arm"]]
            at = names.index(row["name"]) + 0.4 * (arms.index(row["arm"]) - (len(arms) - 1) / 2)
            if row["claim"] == "C1":
                ax.plot([row["delta"]] * 2, [at - 0.2, at + 0.2], color=look.INK, lw=0.9, ls=(0, (2, 1)))
            elif row["delta"] > 0:  # in steps a share of the arm's own k*
                ax.fill_betweenx([at - 0.2, at + 0.2], -row["delta"], row["delta"], color=look.FLOOR, lw=0, zorder=0)
            if np.isfinite(row["estimate"]):
                marks.intervals(ax, [at], rows.loc[[i]], style, flat=True)
            alone, whole = row["verdict"], row["claim_verdict"]
            ax.annotate(alone if row["part"] or whole == alone else f"{whole} ({alone})", (1.0, at),
                        xycoords=ax.get_yaxis_transform(), xytext=(4, 0), textcoords="offset points", va="center",
                        fontsize=6, color=style.colour, annotation_clip=False)  # fmt: skip
        marks.name_rows(ax, names)
        ax.set_xlabel(unit, labelpad=1)
        if not rows["claim"].eq("C1").any():
            marks.zero_line(ax, vertical=True)
    handles = {f"arm {arm}": axes[0, 0].plot([], [], **style.point_kw)[0] for arm, style in styles.items()}
    marks.legend(fig, handles)
    return fig


def write_blocks(blocks: Mapping[str, str]) -> None:
    """Write each block between its markers, for README.md and docs to take."""
    text = "\n\n".join(f"<!-- begin {name} -->\n\n{text}\n\n<!-- end {name} -->" for name, text in blocks.items())
    Path("results/tables/claims/readme.md").write_text(text + "\n", encoding="utf-8", newline="\n")


def figure_block() -> str:
    """The main figure, a link to the notebook that draws it, and a caption."""
    alt = "Performance lost on held-out text against the exposure that is left, as models unlearn"
    return (
        f"[![{alt}](figures/trade_off/trade_off.png)](results/notebooks/trade_off.ipynb)\n\n"
        "*Each line is one forget set, from the left (known to the model) to zero (as if never seen). The higher it "
        "ends, the more the model has lost on other text. Grey: where models that never saw the set lie; dashed: the "
        "base model, to which anyone can go back.*"
    )


def verdict_block(table: pd.DataFrame) -> str:
    """Claim, verdict by arm, figure, notebook, and the minutes that redrawing takes."""
    arms, lines = list(dict.fromkeys(table["arm"])), []
    for claim, name in SHOWN_BY.items():
        stage, figure = name.split("/")
        record = Path(f"results/runs/{stage}.json")
        minutes = f"{json.loads(record.read_text())['seconds'] / 60:.1f}" if record.exists() else "–"
        verdicts = []
        for _, rows in table[(table["claim"] == claim) & (table["part"] != BESIDE)].groupby("arm", sort=False):
            said = [f"{r.part + ': ' if r.part else ''}{words.interval(r)} {r.unit}" for r in rows.itertuples()]
            verdicts.append("<br>".join([f"**{rows['claim_verdict'].iloc[0]}**", *said]))
        links = [f"[{figure}](figures/{name}.png)", f"[{stage}](results/notebooks/{stage}.ipynb)"]
        lines.append([f"**{claim}** {SAYS[claim]}", *verdicts, *links, minutes])
    return _markdown(["claim", *(f"`{arm}`" for arm in arms), "figure", "notebook", "minutes"], lines)


def _markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows)


def numbers_block(sets: pd.DataFrame, headline: Sequence[str], order: Sequence[str]) -> str:
    """Exposure before, steps to forget and performance lost, by set and arm; the headline's arms in sight."""
    cells = by_set(sets, TITLES).set_index(["arm", "forget_set"])
    arms = words.ordered(list(dict.fromkeys(sets["arm"])), first=headline)
    texts = []
    for some in ([arm for arm in arms if arm in headline], [arm for arm in arms if arm not in headline]):
        keys = [(arm, name) for arm in some for name in order if (arm, name) in cells.index]
        lines = [[f"`{k[1]}`", f"`{k[0]}`", cells.loc[k, "n"], *cells.loc[k, TITLES.values()]] for k in keys]
        header = ["forget set", "arm", "models", *TITLES.values()]
        texts.append(_markdown(header, lines) if lines else "*None was run.*")
    return "{}\n\n<details><summary>The other arms (exploratory)</summary>\n\n{}\n\n</details>".format(*texts)


def beside_block(table: pd.DataFrame) -> str:
    """The rows beside a claim that go against it or do not bear it out: nobody should have to look for them."""
    beside, texts = table[table["part"] == BESIDE], []
    if against := _bullets(beside[beside["verdict"] == "contradicted"]):
        texts.append(f"Measured in other ways, which decide nothing, these go against a claim:\n\n{against}")
    if weak := _bullets(beside[beside["verdict"].isin(["equivalent", "inconclusive"])]):
        texts.append(f"<details><summary>And these do not bear it out</summary>\n\n{weak}\n\n</details>")
    return "\n\n".join(texts) or "Measured in other ways, nothing goes against a claim."


def _bullets(rows: pd.DataFrame) -> str:
    # one line a claim, arm and statement; what differs in the parenthesis at its end alone is told in one line
    split = rows["statement"].str.extract(r"^(?P<what>.*?)(?: \((?P<of>[^()]*)\))?$")
    lines = []
    for (claim, arm, what), group in rows.join(split).groupby(["claim", "arm", "what"], sort=False):
        values = [words.interval(r) + (f" ({r.of})" if isinstance(r.of, str) else "") for r in group.itertuples()]
        said = ", ".join(dict.fromkeys(group["verdict"]))
        lines.append(f"- {claim}, `{arm}`: {what}: {'; '.join(values)} {group['unit'].iloc[0]}: {said}")
    return "\n".join(lines)


def corpus_block() -> str:
    """From raw pairs to those that are used, in a sentence."""
    path = Path("results/tables/corpus/exclusions.csv")
    if not path.exists():
        return "*The corpus has not been built here yet.*"
    found = pd.read_csv(path)
    raw, left = int(found["pairs"].iloc[0] + found["left"].iloc[0]), int(found["left"].iloc[-1])
    reasons = ", ".join(f"{row.pairs:,} {row.reason}" for row in found.itertuples())
    return f"Of {raw:,} raw pairs {left:,} are left. Taken out: {reasons}."


def findings_block(
    study: Study, table: pd.DataFrame, sets: pd.DataFrame, rho: pd.DataFrame, *, ind: str, ood: str, margin: float
) -> str:
    """What a reader may miss in the verdicts, a line each; what no set bears out is left out."""
    values = sets.pivot(index=["arm", "forget_set"], columns="quantity", values="estimate")
    over = rho[(rho["low"] > margin) & ~rho["reason"].str.startswith("not")]
    said: dict[str, list[str]] = {}
    for arm in dict.fromkeys(table["arm"]):
        if not {(arm, ind), (arm, ood)} <= set(values.index):
            continue
        here = values.loc[arm].reindex([name for name in study.forget_sets if (arm, name) in values.index])
        here["base"] = [trade_off.base_point(study, study.select(arm=arm, forget_set=name))[1] for name in here.index]
        k_star, lost, share = here["k_star"], here["lost_to_references"], here["instance_share"]
        counts = {
            q: ((over["arm"] == arm) & (over["quantity"] == q)).sum() for q in sum(memorization.DRAWN.values(), ())
        }
        ratio = here.loc[ood, "exposure_0"] / here.loc[ind, "exposure_0"]
        lines = {
            f"Fewer steps than `{ind}` take": _named(k_star[k_star < k_star[ind]]),
            "Forgetting costs more than going back to the base model, nats per token, of":
                _named(lost[lost > here["base"]]),
            "Half-way to k\\*, nats per token lost (below zero: gained)": _named(here.loc[[ind, ood], "lost_50"]),
            "Hardly memorized (less than half of the exposure is the instance's own)":
                _named(share[share < runs.MEMORIZED_SHARE]),
            "Sets with a correlation beyond C5's margin":
                ", ".join(f"{memorization.RHOS[q]} {n} of {len(here)}" for q, n in counts.items()),
            "Supported in all draws of both kinds together":
                _rows(table[table["verdict"] == "supported"], arm, "(all draws of both kinds)"),
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
