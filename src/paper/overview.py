"""The design in a picture, with what generalized exposure compares; and the lengths of the corpus."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps, colors
from matplotlib.figure import Figure

from paper import look, words
from paper.look import Look
from paper.runs import Run, Study
from unlearning.core import performance

LINES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)))


def set_means(study: Study, runs: Sequence[Run]) -> pd.DataFrame:
    """Mean log-likelihood of the set that `runs` unlearn, in every model, nats: model, holds (bool), theta0, k_star."""
    first, held = runs[0], {run.model: run for run in runs}
    table = study.references[first.trained_with][study.members(first.forget_set)].mean(axis=1)
    at = {m: performance.interpolate(r.log_likelihoods.mean(axis=1), r.steps, r.k_star) for m, r in held.items()}
    holds = study.design.loc[table.index, first.forget_set] > 0
    columns = {"model": table.index, "holds": holds, "theta0": table, "k_star": table.index.map(at)}
    return pd.DataFrame(columns).sort_values("holds", ascending=False, kind="stable").reset_index(drop=True)


def design_figure(study: Study, runs: Sequence[Run], looks: Mapping[str, Look], ascended: pd.DataFrame) -> Figure | str:
    """Which model is trained on which set (a block of columns a family), and from which it is unlearned: full dots, and
    as a placebo open ones; row by row, one set's likelihood before and after it is unlearned. ascended: forget_set,
    role, model."""
    if not runs:
        return "the set has not been unlearned in this arm"
    table, name = set_means(study, runs), runs[0].forget_set
    at, n = table.index + ~table["holds"], study.design.shape[1]  # an empty row lies between in-models and out-models
    wide = {"gridspec_kw": {"width_ratios": [1.45, 1]}, "sharey": True}
    fig, ((grid, ax),) = look.grid(1, 2, height_in=1.3 + 0.1 * max(len(at), 8), **wide)
    cells = np.ones((len(at) + 1, n, 3))
    full = [colors.to_rgb(looks[column].colour if column in looks else look.GREY) for column in study.design]
    held = study.design.loc[table["model"]].to_numpy() > 0
    cells[at] = np.where(held[..., None], full, colors.to_rgb("#efefef"))
    grid.imshow(cells, aspect="auto")
    grid.hlines(np.arange(len(cells)) - 0.5, -0.5, n - 0.5, color="white", lw=0.6)
    grid.vlines(np.arange(n) - 0.5, -0.5, len(cells) - 0.5, color="white", lw=0.6)
    row = dict(zip(table["model"], at, strict=True))
    for role, face in (("in", "white"), ("placebo", "none")):
        some = ascended[(ascended["role"] == role) & ascended["forget_set"].isin(study.forget_sets)]
        x, y = some["forget_set"].map(study.design.columns.get_loc), some["model"].map(row)
        grid.plot(x, y, "o", ms=2, mfc=face, mec="white" if role == "in" else look.GREY, mew=0.4)
    blocks = {"base": ["base"]} | study.families
    middle = [np.mean([study.design.columns.get_loc(c) for c in columns]) for columns in blocks.values()]
    grid.set_xticks(middle, list(blocks), rotation=90, fontsize=5.5)
    grid.set_yticks(at, [f"model {m}" for m in table["model"]], fontsize=5.5)
    grid.set_title("which model is trained on what", loc="left")
    grid.spines[:].set_visible(False)
    inside, outside, style = table[table["holds"]], table[~table["holds"]], looks[name]
    ax.plot(inside[["theta0", "k_star"]].T, [at[inside.index]] * 2, color=style.colour, lw=0.9)
    ax.plot(inside["theta0"], at[inside.index], "o", color=style.colour, ms=4, label="trained on it, θ0")
    ax.plot(inside["k_star"], at[inside.index], "o", color=style.colour, ms=4, mfc="white", label="unlearned to k*")
    ax.plot(outside["theta0"], at[outside.index], "x", color=look.INK, ms=4, label="never saw it")
    ends = outside["theta0"].mean(), inside["theta0"].mean()
    ax.vlines(ends[0], -0.5, len(at) + 0.5, color=look.INK, lw=0.7, ls="--", zorder=1)
    ax.vlines(ends[1], -0.5, len(inside), color=style.colour, lw=0.7, ls="--", zorder=1)
    arrow = {"arrowstyle": "<->", "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", (ends[0], len(inside)), (ends[1], len(inside)), arrowprops=arrow)
    text = f"GenEx of θ0: {words.number(ends[1] - ends[0])} nats"
    ax.text(np.mean(ends), len(inside) + 0.35, text, ha="center", va="top", fontsize=7)
    ax.set(xlabel="mean log-likelihood,\nnats an example", ylim=(len(at) + 0.5, -0.5))
    ax.set_title(f"{name} in each of them", loc="left", color=style.colour)
    for side in (grid, ax):
        side.tick_params(length=0)
        side.grid(visible=False)
    fig.legend(loc="outside upper right", ncols=3)
    return fig


def lengths_figure(lengths: pd.DataFrame, *, max_tokens: int) -> Figure | str:
    """Share of the pairs by number of tokens, a line a split (`lengths`: side, split, tokens, pairs)."""
    if not len(lengths):
        return "the corpus stage has written no lengths"
    fig, axes = look.grid(1, 2, height_in=2.4, sharey=True)
    lengths = lengths.assign(tokens=lengths["tokens"] // 3 * 3 + 1)
    for ax, (side, table) in zip(axes[0], lengths.groupby("side"), strict=True):
        for i, (split, rows) in enumerate(table.groupby("split", sort=False)):
            pairs = rows.groupby("tokens")["pairs"].sum()
            style = {"color": colormaps["viridis"](0.28 * i), "ls": LINES[i % len(LINES)], "lw": 1.2}
            ax.plot(pairs.index, 100 * pairs / pairs.sum(), label=f"{split} (n = {pairs.sum()})", **style)
        ax.axvline(max_tokens, color=look.INK, lw=0.7)
        ax.set(xlabel=f"{side} tokens, with end of sequence", xlim=(0, max_tokens + 1))
    axes[0, 0].set_ylabel("pairs, % of the split\nin 3 tokens")
    axes[0, 1].legend(loc="upper right")
    return fig
