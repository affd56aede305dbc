"""Figures of repetition, of rate against memorization and difficulty, and of the claims. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper import figures, plots


def repetition(runs: pd.DataFrame, strata: Mapping[str, Mapping[str, int]], quantities: Mapping[str, str]) -> Figure:
    """Every run against the set's repetitions, with mean and t interval: one row an arm, one column a quantity.

    Args:
        runs: arm, forget_set, the quantities, and for each quantity its `<name>_low`, `<name>_mean`, `<name>_high`.
        strata: arm -> forget set -> repetitions.
        quantities: column -> axis label with unit.
    """
    if not strata:
        return said("No arm has two sets of one kind that differ in repetitions.")
    fig, axes = plots.grid(len(strata), len(quantities), height_in=1.8, sharex=True)
    for row, (arm, sets) in zip(axes, strata.items(), strict=True):
        for ax, (column, label) in zip(row, quantities.items(), strict=True):
            _by_repetition(ax, runs[runs["arm"] == arm], sets, column)
            ax.set_ylabel(label)
            if column.startswith("lost"):
                figures.loss_scale(ax)
        row[0].set_title(f"arm {arm}", loc="left")
    for ax in axes[-1]:
        ax.set_xlabel("repetitions in training")
    _legend_above(fig, axes[:, 0])
    return fig


def said(text: str) -> Figure:
    """A figure that says in words why there is nothing to draw."""
    fig, axes = plots.grid(1, 1, height_in=0.6)
    axes[0, 0].axis("off")
    axes[0, 0].text(0, 0.5, text, transform=axes[0, 0].transAxes, va="center")
    return fig


def _by_repetition(ax: Axes, runs: pd.DataFrame, sets: Mapping[str, int], column: str) -> None:
    repeated, lines = sorted(set(sets.values())), list(dict.fromkeys(str(plots.look(name).line) for name in sets))
    for name, times in sets.items():
        group, style = runs[runs["forget_set"] == name], plots.look(name)
        at = repeated.index(times) + 0.3 * (lines.index(str(style.line)) - (len(lines) - 1) / 2)
        ax.plot(np.full(len(group), at - 0.06), group[column], ".", color=style.colour, ms=3, alpha=0.5, mew=0)
        if len(group):
            low, mid, high = (float(group[f"{column}_{end}"].iloc[0]) for end in ("low", "mean", "high"))
            plots.interval(ax, at + 0.05, low, mid, high, style, flat=False)
        ax.plot([], [], **style.point_kw, ms=4, label=name)
    ax.set_xticks(range(len(repeated)), [str(n) for n in repeated])
    ax.set_xlim(-0.5, len(repeated) - 0.5)


def _legend_above(fig: Figure, axes: Sequence[Axes]) -> None:
    found: dict[str, object] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    columns = 3 if len(found) == 6 else min(len(found), 5)
    style = {"loc": "outside upper center", "handletextpad": 0.2, "columnspacing": 1.2}
    fig.legend(list(found.values()), list(found), ncols=columns, **style)


def rates(examples: pd.DataFrame, *, arms: Sequence[str], sets: Sequence[str]) -> Figure:
    """Rate of unlearning of every example, mean over its models, against memorization and against difficulty.

    Args:
        examples: arm, forget_set, example_id, mem, difficulty, rate; one row an example and model.
        arms: one row of panels each.
        sets: forget sets drawn.
    """
    if not arms:
        return said("There are no runs to take rates from.")
    mean = examples.groupby(["arm", "forget_set", "example_id"])[["mem", "difficulty", "rate"]].mean().reset_index()
    labels = {"mem": "memorization, nats per token", "difficulty": "difficulty, nats per token"}
    fig, axes = plots.grid(len(arms), 2, height_in=1.7, sharex="col")
    for row, arm in zip(axes, arms, strict=True):
        for ax, column in zip(row, labels, strict=True):
            for name in sets:
                points, style = mean[(mean["arm"] == arm) & (mean["forget_set"] == name)], plots.look(name)
                ax.plot(points[column], points["rate"], **style.point_kw, ms=3, alpha=0.65, mew=0, label=name)
        row[0].set_title(f"arm {arm}", loc="left")
        row[0].set_ylabel("rate, nats per\ntoken and step")
    for ax, label in zip(axes[-1], labels.values(), strict=True):
        ax.set_xlabel(label)
    _legend_above(fig, axes[:, 0])
    return fig


def correlations(table: pd.DataFrame, *, arms: Sequence[str], sets: Sequence[str], margin: float) -> Figure:
    """Mean within-model rank correlation of the rate, by set: filled as it is, open with the other held fixed.

    Args:
        table: `rates.correlation_table`; what is not identifiable is left out of the open markers.
        arms: one row of panels each.
        sets: from the top.
        margin: |ρ| that counts, grey band.
    """
    pairs = {"memorization": ("rate_mem", "rate_mem_given_difficulty"),
             "difficulty": ("rate_difficulty", "rate_difficulty_given_mem")}  # fmt: skip
    if not arms:
        return said("There are no runs to correlate.")
    fig, axes = plots.grid(len(arms), 2, height_in=0.6 + 0.17 * len(sets), sharex=True, sharey=True)
    for row, arm in zip(axes, arms, strict=True):
        for ax, (what, quantities) in zip(row, pairs.items(), strict=True):
            ax.axvspan(-margin, margin, color=plots.FLOOR, lw=0, zorder=0)
            plots.zero_line(ax, vertical=True)
            here = table[(table["arm"] == arm) & ~table["reason"].str.startswith("not identifiable")]
            for open_marker, quantity in enumerate(quantities):
                _correlation_marks(ax, here[here["quantity"] == quantity], sets, open_marker=bool(open_marker))
            ax.set_title(f"{what}, arm {arm}", loc="left", fontsize=7)
            ax.set_yticks(range(len(sets)), sets)
            ax.set_ylim(len(sets) - 0.5, -0.5)
            ax.set_xlim(-1.08, 1.08)
    for ax in axes[-1]:
        ax.set_xlabel("rank correlation with the rate")
    return fig


def _correlation_marks(ax: Axes, rows: pd.DataFrame, sets: Sequence[str], *, open_marker: bool) -> None:
    for _, row in rows.iterrows():
        if row["forget_set"] not in sets or not np.isfinite(row["estimate"]):
            continue
        style, at = plots.look(row["forget_set"]), list(sets).index(row["forget_set"]) + (0.2 if open_marker else -0.15)
        spans = np.nan_to_num([[row["estimate"] - row["low"]], [row["high"] - row["estimate"]]])
        ax.errorbar([row["estimate"]], [at], xerr=spans, fmt=style.marker, color=style.colour, ms=4, lw=1.2,
                    mfc="white" if open_marker else style.colour)  # fmt: skip


def claims(table: pd.DataFrame) -> Figure:
    """Every part of every claim with its interval and its margin, a panel a unit, a marker an arm.

    Args:
        table: `claims.claims_table`, without what stands beside; C1's margin is a threshold, drawn as a line.
    """
    units = list(dict.fromkeys(table["unit"]))
    counts = [table.loc[table["unit"] == unit, ["claim", "part"]].drop_duplicates().shape[0] for unit in units]
    fig, axes = plots.grid(len(units), 1, height_in=0.4 + 0.36 * max(np.mean(counts), 1),
                           gridspec_kw={"height_ratios": [c + 1.2 for c in counts]})  # fmt: skip
    arms = list(dict.fromkeys(table["arm"]))
    for ax, unit in zip(axes[:, 0], units, strict=True):
        _claim_panel(ax, table[table["unit"] == unit], arms)
        ax.set_xlabel(unit, labelpad=1)
    handles = [axes[0, 0].plot([], [], ls="none", marker=plots.ARM_MARKERS.get(arm, "o"), color=colour, ms=4)[0]
               for arm, colour in zip(arms, _arm_colours(arms), strict=True)]  # fmt: skip
    fig.legend(handles, [f"arm {arm}" for arm in arms], loc="outside upper center", ncols=len(arms))
    return fig


def _arm_colours(arms: Sequence[str]) -> list[str]:
    return [(plots.INK, "#7a7a7a", "#a8a8a8")[i % 3] for i in range(len(arms))]


def _claim_panel(ax: Axes, rows: pd.DataFrame, arms: Sequence[str]) -> None:
    names = list(dict.fromkeys(zip(rows["claim"], rows["part"], strict=True)))
    for at, (claim, part) in enumerate(names):
        for i, arm in enumerate(arms):
            here = rows[(rows["claim"] == claim) & (rows["part"] == part) & (rows["arm"] == arm)]
            if not len(here):
                continue
            row, colour = here.iloc[0], _arm_colours(arms)[i]
            height = at + 0.4 * (i - (len(arms) - 1) / 2)
            _margin(ax, row, height)
            if np.isfinite(row["estimate"]):
                style = plots.Look(colour, "-", plots.ARM_MARKERS.get(arm, "o"))
                plots.interval(ax, height, row["low"], row["estimate"], row["high"], style)
            text = _word(row) if np.isfinite(row["estimate"]) else "not computed"
            ax.annotate(text, (1.0, height), xycoords=ax.get_yaxis_transform(), xytext=(4, 0), va="center",
                        textcoords="offset points", fontsize=6, color=colour, annotation_clip=False)  # fmt: skip
    ax.set_yticks(range(len(names)), [f"{claim}{part}" for claim, part in names])
    ax.set_ylim(len(names) - 0.45, -0.55)
    if not rows["claim"].eq("C1").any():
        plots.zero_line(ax, vertical=True)


def _word(row: pd.Series) -> str:
    """The claim's verdict where this is all of it, and in brackets what the interval alone says; else the part's."""
    whole, alone = row["claim_verdict"], row["verdict"]
    return alone if row["part"] or whole == alone else f"{whole} ({alone})"


def _margin(ax: Axes, row: pd.Series, height: float) -> None:
    band = [height - 0.2, height + 0.2]  # a margin in steps is a share of the arm's own k*
    if row["claim"] == "C1":
        ax.plot([row["delta"]] * 2, band, color=plots.INK, lw=0.9, ls=(0, (2, 1)))
    elif row["delta"] > 0:
        ax.fill_betweenx(band, -row["delta"], row["delta"], color=plots.FLOOR, lw=0, zorder=0)
