"""What the notebook of claims shows and writes with the table of claims: every family, sentences, a figure, blocks.

The blocks are taken by README and docs; their links lead from the repository's root.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from paper import look, marks, runs, trade_off, words
from paper.look import Look
from paper.runs import Study
from paper.verdicts import BESIDE, SAYS
from unlearning.core import genex, performance

FIGURES = ("exposure/calibration", "exposure/k_star", "trade_off/trade_off", "trade_off/lost_along",
           "memorization/difference", "memorization/difference", "exposure/ladder")  # fmt: skip
SHOWN_BY = dict(zip(SAYS, FIGURES, strict=True))  # claim -> stage/figure that shows it best
TITLES = {  # quantities of the table of families in README and docs
    "exposure_0": "exposure before, nats",
    "instance_share": "of it, instance part (share)",
    "k_star": "steps to forget, k\\*",
    "lost_50": "lost half-way, nats per token",
    "lost_100": "lost at k\\*, nats per token",
}


def family_table(study: Study, inside: pd.DataFrame) -> pd.DataFrame:
    """Every quantity of every family and arm: arm, family, quantity, estimate, low, high, unit, draws, n (models a
    draw), per (draw or model: what the limits count), reason why there is none or it is only a bound."""
    tables = []
    for quantity, unit in runs.UNITS.items():
        bound = "last_step" if quantity in ("k_star", "k95") else None
        how = {"by": ["arm", "family"], "confidence": study.confidence, "bound": bound}
        table = marks.family_means(inside, quantity, **how).rename(columns={"unit": "per"})
        gone = inside[quantity].isna().groupby([inside["arm"], inside["family"]]).agg(["sum", "size"])
        table = table.join(gone, on=["arm", "family"])
        gaps = [_gaps(row, bound) for row in table.itertuples()]
        tables.append(table.assign(quantity=quantity, unit=unit, reason=gaps).drop(columns=["sum", "size"]))
    columns = ["arm", "family", "quantity", "estimate", "low", "high", "unit", "draws", "n", "per", "reason"]
    return pd.concat([*tables, _worst_cases(study, inside)], ignore_index=True).reindex(columns=columns)


def _gaps(row, bound: str | None) -> str:
    if row.sum == row.size and not bound:
        return "no run got there, or it was not measured"
    if row.sum:
        said = f"{row.sum} of {row.size} runs "
        return said + ("censored: the estimate is a lower bound" if bound else "do not have it")
    alone = {1: "one run has no interval", 2: "two draws have no interval"}
    return "" if np.isfinite(row.low) else alone.get(row.draws, "no interval")


def _worst_cases(study: Study, inside: pd.DataFrame) -> pd.DataFrame:
    # lower limits of the largest |GenEx| of a set, before, at k*, and between two groups of references: mean over draws
    rows = []
    for (arm, family, name), _ in inside.groupby(["arm", "family", "forget_set"]):
        some = study.select(arm=arm, forget_set=name)
        outside, start = runs.outside_scores(study, some[0]), np.array([run.log_likelihoods[0] for run in some])
        at = [performance.interpolate(run.log_likelihoods, run.steps, run.k_star) for run in some]
        at = np.array([row for row in at if np.isfinite(row).all()])
        sides = {"theta0": (start, outside), "k_star": (at, outside)}
        for case, (left, right) in (sides | {"two_groups_of_references": (outside[::2], outside[1::2])}).items():
            few = min(len(left), len(right)) < 2
            value = np.nan if few else genex.worst_case(unlearned=left, reference=right, confidence=study.confidence)
            rows.append((arm, family, f"worst_case_{case}", value, len(left)))
    table = pd.DataFrame(rows, columns=["arm", "family", "quantity", "estimate", "n"])
    found = table.groupby(["arm", "family", "quantity"], sort=False)["estimate"].agg(["mean", "size"]).reset_index()
    found = found.rename(columns={"mean": "estimate", "size": "draws"}).assign(low=np.nan, high=np.nan, unit="nats")
    n = table.groupby(["arm", "family", "quantity"], sort=False)["n"].max().to_numpy()
    why = np.where(found["estimate"].isna(), "fewer than two models on a side", "a limit itself: no interval")
    return found.assign(n=n, per="draw", reason=why)


def by_family(families: pd.DataFrame, titles: Mapping[str, str]) -> pd.DataFrame:
    """The table of families for reading: a row a family and arm, its draws and models a draw, and cells 'mean [low,
    high]' under the given titles."""
    cells = families.assign(cell=[words.interval(row) for row in families.itertuples()])
    wide = cells.pivot(index=["arm", "family"], columns="quantity", values="cell").reindex(columns=list(titles))
    counts = families[families["quantity"] == "k_star"].set_index(["arm", "family"])[["draws", "n"]].astype(int)
    return wide.rename(columns=titles).join(counts).reset_index().rename_axis(columns=None)


def decisions(table: pd.DataFrame) -> pd.DataFrame:
    """One row a claim and arm: claim, says, arm, verdict, p_holm, because (the parts' verdicts and reasons)."""
    rows = []
    for (claim, arm), group in table[table["part"] != BESIDE].groupby(["claim", "arm"], sort=False):
        by_part = [f"{claim}{row.part} {row.verdict}" for row in group.itertuples()] if len(group) > 1 else []
        because = "; ".join([*by_part, *dict.fromkeys(r for r in group["reason"] if r)])
        rows.append((claim, SAYS[claim], arm, *group[["claim_verdict", "p_holm"]].iloc[0], because))
    return pd.DataFrame(rows, columns=["claim", "says", "arm", "verdict", "p_holm", "because"])


def sentence(row) -> str:
    """A row of the claims table in words, with its interval, what it counts, margin, p and verdict, or why not."""
    label = f"{row.claim}{'' if row.part == BESIDE else row.part} {row.arm}: {row.statement}"
    if not np.isfinite(row.estimate):
        return f"{label}: no value ({row.reason})."
    limits = "" if not np.isnan(row.low) else " (no interval)"
    text = f"{label}: {words.interval(row)}{limits} {row.unit}, n = {row.n:.0f}"
    text += f" draws in {row.models:.0f} models" if row.models else ""
    if np.isfinite(row.delta):
        low = f"{words.number(row.delta_low)} to " if np.isfinite(row.delta_low) else ""
        text += f", {'threshold' if row.claim == 'C1' else 'δ'} {low}{words.number(row.delta)}"
    holm, labels = ("< 0.001" if p < 1e-3 else words.number(p, ".2g") for p in (row.p_holm, row.p_permutation))
    text += f", p {holm} after Holm" if np.isfinite(row.p_holm) else ""
    text += f", permuted labels {labels}" if np.isfinite(row.p_permutation) else ""
    return text + (f": {row.verdict}" if row.verdict else "") + (f" ({row.reason})." if row.reason else ".")


def summarize(table: pd.DataFrame, study: Study, inside: pd.DataFrame) -> dict:
    """The answers for other programs: counts, and for every claim and arm its verdict with its parts."""

    def plain(record: dict) -> dict:
        floats = {key: value for key, value in record.items() if isinstance(value, float)}
        return record | {key: float(f"{x:.6g}") if np.isfinite(x) else None for key, x in floats.items()}

    columns = ["part", "statement", "estimate", "low", "high", "unit", "delta", "delta_low", "n", "models", "p",
               "p_permutation", "verdict", "reason"]  # fmt: skip
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
            if np.isfinite(row["delta_low"]):  # a band that the value has to lie in
                ax.fill_betweenx([at - 0.2, at + 0.2], row["delta_low"], row["delta"], color="#cfe3f2", lw=0, zorder=0)
            elif row["claim"] == "C1":
                ax.plot([row["delta"]] * 2, [at - 0.2, at + 0.2], color=look.INK, lw=0.9, ls=(0, (2, 1)))
            elif row["delta"] > 0:  # in steps a share of the arm's own k*
                ax.fill_betweenx([at - 0.2, at + 0.2], -row["delta"], row["delta"], color=look.FLOOR, lw=0, zorder=0)
            if np.isfinite(row["estimate"]):
                finite = rows.loc[[i]].replace([np.inf, -np.inf], np.nan)
                marks.intervals(ax, [at], finite, style, flat=True)
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
        "*Each line is a family of forget sets, from the left (known to the model) to zero (as if never seen). The "
        "higher it ends, the more the model has lost on other text. Grey: where models that never saw the set lie; "
        "dashed: the base model, to which anyone can go back.*"
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


def numbers_block(families: pd.DataFrame, headline: Sequence[str], order: Sequence[str]) -> str:
    """Exposure before, steps to forget and performance lost, by family and arm; the headline's arms in sight."""
    cells = by_family(families, TITLES).set_index(["arm", "family"])
    arms = words.ordered(list(dict.fromkeys(families["arm"])), first=headline)
    texts = []
    for some in ([arm for arm in arms if arm in headline], [arm for arm in arms if arm not in headline]):
        keys = [(arm, name) for arm in some for name in order if (arm, name) in cells.index]
        lines = [[f"`{k[1]}`", f"`{k[0]}`", "{} × {}".format(*cells.loc[k, ["draws", "n"]]),
                  *cells.loc[k, TITLES.values()]] for k in keys]  # fmt: skip
        header = ["family", "arm", "draws × models", *TITLES.values()]
        texts.append(_markdown(header, lines) if lines else "*None was run.*")
    return "{}\n\n<details><summary>The other arms (exploratory)</summary>\n\n{}\n\n</details>".format(*texts)


def beside_block(table: pd.DataFrame) -> str:
    """Every row beside a claim, without a word that judges it: nobody should have to look for them."""
    lines = []
    for (claim, statement), rows in table[table["part"] == BESIDE].groupby(["claim", "statement"], sort=False):
        texts = [words.interval(r) + (f" ({r.reason})" if r.reason else "") for r in rows.itertuples()]
        lines.append([claim, f"{statement} ({rows['unit'].iloc[0]})", *texts])
    arms = [f"`{arm}`" for arm in dict.fromkeys(table["arm"])]
    return _markdown(["claim", "what was measured", *arms], lines)


def power_block(power: pd.DataFrame) -> str:
    """What the design could show, from the first study's spread, a row a claim's part and arm."""
    header = ["claim", "arm", "unit", "margin", "effect seen first", "power to show it", "after Holm",
              "power to show it small", "the same, without effect", "effect shown with power 0.8"]  # fmt: skip
    lines = []
    for row in power.itertuples():
        effects = [words.number(value) for value in (row.margin, row.effect)]
        shares = [words.number(p, ".2f") for p in (row.beyond, row.beyond_holm, row.inside, row.inside_zero)]
        lines.append([row.claim, f"`{row.arm}`", row.unit, *effects, *shares, words.number(row.least)])
    return _markdown(header, lines)


def first_block(table: pd.DataFrame, first: pd.DataFrame) -> str:
    """The first study's verdict beside this one's, claim by claim and arm by arm."""
    lines = []
    for claim, says in SAYS.items():
        cells = []
        for arm in dict.fromkeys(table["arm"]):
            new = table[(table["claim"] == claim) & (table["arm"] == arm) & (table["part"] != BESIDE)]["claim_verdict"]
            old = first[(first["claim"] == claim) & (first["arm"] == arm)]["verdict"]
            cells += [old.iloc[0] if len(old) else "–", f"**{new.iloc[0]}**" if len(new) else "–"]
        lines.append([f"**{claim}** {says}", *cells])
    arms = [f"{when}, `{arm}`" for arm in dict.fromkeys(table["arm"]) for when in ("first study", "now")]
    return _markdown(["claim", *arms], lines)


def corpus_block() -> str:
    """From raw pairs to those that are used, in a sentence."""
    path = Path("results/tables/corpus/exclusions.csv")
    if not path.exists():
        return "*The corpus has not been built here yet.*"
    found = pd.read_csv(path)
    raw, left = int(found["pairs"].iloc[0] + found["left"].iloc[0]), int(found["left"].iloc[-1])
    reasons = ", ".join(f"{row.pairs:,} {row.reason}" for row in found.itertuples())
    return f"Of {raw:,} raw pairs {left:,} are left. Taken out: {reasons}."


def findings_block(study: Study, table: pd.DataFrame, families: pd.DataFrame, *, ind: str, ood: str) -> str:
    """What a reader may miss in the verdicts, a line each; what no family bears out is left out."""
    values = families.pivot(index=["arm", "family"], columns="quantity", values="estimate")
    said: dict[str, list[str]] = {}
    for arm in dict.fromkeys(table["arm"]):
        if not {(arm, ind), (arm, ood)} <= set(values.index):
            continue
        here = values.loc[arm].reindex([name for name in study.families if (arm, name) in values.index])
        here["base"] = [trade_off.base_point(study, study.select(arm=arm, family=name))[1] for name in here.index]
        k_star, lost, share = here["k_star"], here["lost_to_references"], here["instance_share"]
        ratio = here.loc[ood, "exposure_0"] / here.loc[ind, "exposure_0"]
        lines = {
            f"Fewer steps than `{ind}` take": _named(k_star[k_star < k_star[ind]]),
            "Forgetting costs more than going back to the base model, nats per token, of":
                _named(lost[lost > here["base"]]),
            "Half-way to k\\*, nats per token gained instead of lost": _named(-here["lost_50"][here["lost_50"] < 0]),
            "Hardly memorized (less than half of the exposure is the instance's own)":
                _named(share[share < runs.MEMORIZED_SHARE]),
            f"`{ood}` starts further from zero than `{ind}`, by a factor of": words.number(ratio, ".1f")
                + "; " + _beside_rows(table, arm, "InD repeated until"),
            "As much in models that never saw the set":
                "; ".join(_pair(table, arm, claim, what) for claim, what in
                          (("C5", "memorization"), ("C6", "difficulty"))),
        }  # fmt: skip
        for title, text in lines.items():
            said.setdefault(title, []).extend([f"{text} (`{arm}`)"] if text.strip("; ") else [])
    return "\n".join(f"- **{title}:** {'; '.join(texts)}." for title, texts in said.items() if texts)


def _named(values: pd.Series) -> str:
    return ", ".join(f"`{name}` {words.number(value)}" for name, value in values.dropna().items())


def _beside_rows(table: pd.DataFrame, arm: str, part_of_statement: str) -> str:
    rows = table[(table["arm"] == arm) & table["statement"].str.contains(part_of_statement, regex=False)]
    return ", ".join(f"{r.statement}: {words.interval(r)} {r.unit}" for r in rows.itertuples())


def _pair(table: pd.DataFrame, arm: str, claim: str, what: str) -> str:
    rows = table[(table["arm"] == arm) & (table["claim"] == claim)].set_index("statement")["estimate"]
    found = [rows[rows.index.str.startswith(f"the correlation in {side}")].mean() for side in ("models", "placebo")]
    held, placebo = (words.number(np.tanh(z), ".2f") for z in found)
    return f"rate with {what} {held}, there {placebo}"
