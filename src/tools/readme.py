"""Fill the blocks of README.md from the results that lie here: no number in them is typed by hand.

    python -m tools.readme            write the blocks between the markers of README.md
    python -m tools.readme --check    exit status 1 if README.md is not what would be written

Whatever result is missing is said in words. Imports no torch.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from paper.verdicts import SAYS
from tools.readme_parts import (
    dag,
    interval,
    link,
    minutes,
    number,
    read_csv,
    read_yaml,
    runs,
    speed,
    stage_of,
    table,
    time,
)
from unlearning.errors import StudyError

README = Path("README.md")
MAIN_FIGURE = "09_trade_off"
SHOWN_BY = {  # claim -> figure and source notebook that show it best
    "C1": ("08_calibration", "08_exposure"),
    "C2": ("08_k_star", "08_exposure"),
    "C3": ("09_trade_off", "09_trade_off"),
    "C4": ("09_lost_along", "09_trade_off"),
    "C5": ("10_correlations", "10_memorization"),
    "C6": ("10_correlations", "10_memorization"),
}
QUANTITIES = {  # of results/tables/sets.csv -> column title
    "exposure_0": "exposure before, nats",
    "instance_share": "of it, instance part (share)",
    "k_star": "steps to forget, k\\*",
    "k_star_reference": "± by the reference",
    "lost_100": "performance lost at k\\*, nats per token",
}


# The blocks


def figure(root: Path) -> str:
    """The main figure."""
    path, (_, executed) = f"figures/{MAIN_FIGURE}.png", stage_of(root, MAIN_FIGURE)
    if not (root / path).exists():
        return "*The main figure appears here after the first full run (`make repro`).*"
    text = "Performance lost on held-out text against the exposure that is left, as models unlearn"
    picture = f"[![{text}]({path})]({executed})" if executed else f"![{text}]({path})"
    caption = (
        "*Each line is one forget set, from the left (well known) to the vertical zero (as if never seen) and beyond; "
        "the higher it gets there, the more the model has lost on other text. Here the loss is counted from models "
        "that never saw the set; the tables below count it from the model before unlearning. Crosses: models that "
        "never saw the set, each against the mean of the others (where they fall is in part a matter of what else "
        "they hold); stars: the base models, in the colour of a set. From 0.1 on the scale is logarithmic.*"
    )
    return f"{picture}\n\n{caption}"


def claims(root: Path) -> str:
    """Claim, verdict by arm, figure, notebook, stage, minutes."""
    arms, found, recorded = (
        read_yaml(root, "params.yaml")["claims"]["headline"],
        read_csv(root, "claims.csv"),
        runs(root),
    )
    rows = []
    for claim, (drawn, notebook) in SHOWN_BY.items():
        stage, executed = stage_of(root, notebook)
        seconds = recorded.get(stage, {}).get("seconds")
        rows.append([
            f"**{claim}** {SAYS[claim]}",
            *(_verdict(found, claim, arm) for arm in arms),
            link(root, drawn, f"figures/{drawn}.png", "not drawn yet"),
            link(root, notebook, executed, f"[{notebook}](notebooks/{notebook}.ipynb) (not run yet)"),
            f"`{stage}`" if stage else "–",
            minutes(seconds) if seconds is not None else "–",
        ])  # fmt: skip
    header = ["claim", *(f"verdict, `{arm}`" for arm in arms), "figure", "notebook", "stage", "minutes"]
    return table(header, rows) + "\n\n" + _after_claims(root, found)


def _after_claims(root: Path, found: pd.DataFrame) -> str:
    stage, executed = stage_of(root, "11_claims")
    if not len(found):
        return "*No verdict yet: the stages that lead to `results/tables/claims.csv` have not run here.*"
    where = link(root, "claims notebook", executed, "claims notebook")
    return (
        f"Every part of every claim, with its margin, n and p value, stands in the {where} (stage `{stage}`) and in "
        "[`results/tables/claims.csv`](results/tables/claims.csv). The minutes redraw from the committed tables."
        + _other_rulers(found)
    )


def _other_rulers(found: pd.DataFrame) -> str:
    """The rows beside a claim that go against it or do not bear it out: nobody should have to look for them."""
    beside = found[(found["part"] == "beside") & found["verdict"].isin(["contradicted", "equivalent", "inconclusive"])]
    against = beside[beside["verdict"] == "contradicted"]
    rest = beside[beside["verdict"] != "contradicted"]
    text = ""
    if len(against):
        text += "\n\nBy other rulers, which decide nothing, these go against a claim:\n\n" + "\n".join(_rulers(against))
    if len(rest):
        summary = "<details><summary>And these do not bear it out</summary>"
        text += f"\n\n{summary}\n\n" + "\n".join(_rulers(rest)) + "\n\n</details>"
    return text


def _rulers(rows: pd.DataFrame) -> list[str]:
    """One line a claim, arm and statement; what differs in the parenthesis at its end alone is told in one line."""
    split = rows["statement"].str.extract(r"^(?P<what>.*?)(?: \((?P<of>[^()]*)\))?$")
    lines = []
    for (claim, arm, what), group in rows.join(split).groupby(["claim", "arm", "what"], sort=False):
        values = [f"{interval(r)}{f' ({r.of})' if isinstance(r.of, str) else ''}" for r in group.itertuples()]
        words = ", ".join(dict.fromkeys(group["verdict"]))
        lines.append(f"- {claim}, `{arm}`: {what}: {'; '.join(values)} {group['unit'].iloc[0]}: {words}")
    return lines


def _verdict(found: pd.DataFrame, claim: str, arm: str) -> str:
    """A claim's verdict in an arm, with the estimate of each of its parts."""
    if not len(found):
        return "not computed yet"
    parts = found[(found["claim"] == claim) & (found["arm"] == arm) & (found["part"] != "beside")]
    if not len(parts):
        return "not computed: no row in claims.csv"
    lines = [f"**{parts['claim_verdict'].iloc[0]}**"]
    for row in parts.itertuples():
        name = "" if pd.isna(row.part) else f"{row.part}: "
        lines.append(f"{name}{interval(row)} {row.unit} (margin {number(row.delta)}, n = {row.n})")
    p = parts["p_holm"].iloc[0]
    return "<br>".join([*lines, f"p = {number(p)} after Holm"] if np.isfinite(p) else lines)


def numbers(root: Path) -> str:
    """Exposure before, steps to forget and performance lost, by set and arm."""
    found, params = read_csv(root, "sets.csv"), read_yaml(root, "params.yaml")
    if not len(found):
        return "*No numbers yet: they come from `results/tables/sets.csv`, which has not been made here.*"
    arms = list(dict.fromkeys([*params["claims"]["headline"], *found["arm"]]))
    headline = [a for a in arms if a in params["claims"]["headline"]]
    text = _numbers_table(found, headline, list(params["forget_sets"]))
    others = _numbers_table(found, [a for a in arms if a not in headline], list(params["forget_sets"]))
    return f"{text}\n\n<details><summary>The other arms (exploratory)</summary>\n\n{others}\n\n</details>"


def _numbers_table(found: pd.DataFrame, arms: list[str], sets: list[str]) -> str:
    rows = []
    for arm in arms:
        for name in sets:
            here = found[(found["arm"] == arm) & (found["forget_set"] == name)].set_index("quantity")
            cells = [interval(here.loc[q]) if q in here.index else "–" for q in QUANTITIES]
            if len(here):
                rows.append([f"`{name}`", f"`{arm}`", str(int(here.loc["k_star", "n"])), *cells])
    return table(["forget set", "arm", "models", *QUANTITIES.values()], rows) if rows else "*None was run.*"


def corpus(root: Path) -> str:
    """From raw pairs to those that are used, in a sentence."""
    found = read_csv(root, "corpus.csv")
    if not len(found):
        return "*The corpus has not been built here yet.*"
    raw = int(found["pairs"].iloc[0] + found["left"].iloc[0])
    reasons = ", ".join(f"{row.pairs:,} {row.reason}" for row in found.itertuples())
    return f"Of {raw:,} raw pairs {int(found['left'].iloc[-1]):,} are left. Taken out: {reasons}."


BLOCKS = {
    "figure": figure,
    "claims": claims,
    "numbers": numbers,
    "corpus": corpus,
    "dag": dag,
    "time": time,
    "speed": speed,
}


def fill(text: str, root: Path) -> str:
    """The README's text with every block rendered anew.

    Raises:
        StudyError: a block's markers are not there, once and in order.
    """
    for name, render in BLOCKS.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
            raise StudyError(
                f"{README}: put `{begin}` and `{end}` back, once each; the block {name} belongs between them."
            )
        head, tail = text.split(begin)[0], text.split(end)[1]
        text = f"{head}{begin}\n\n{render(root)}\n\n{end}{tail}"
    return text


def main(arguments: list[str]) -> int:
    """Write README.md, or with --check only compare; 1 with a message if it differs or cannot be made."""
    try:
        text = README.read_text(encoding="utf-8")
        new = fill(text, Path("."))
    except (StudyError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    if "--check" in arguments:
        print(
            f"{README} shows the results that lie here"
            if new == text
            else f"{README} is out of date: run `make readme`"
        )
        return int(new != text)
    README.write_text(new, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
