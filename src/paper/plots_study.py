"""The figures of the reading notebooks, each from small arrays and tidy tables. Imports no torch.

Every function draws on axes that it is given; `plots` holds the style, `plots.note` writes what stands under
a figure. Tables of runs have a column `forget_set`; tables of intervals also `mean`, `low`, `high`, `n`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike

from paper import plots
from unlearning.core import stats


def exposure_panel(
    ax: Axes,
    steps: ArrayLike,
    exposure: ArrayLike,
    *,
    name: str,
    floor: float,
    generator: ArrayLike | None = None,
    k_star: ArrayLike = (),
) -> None:
    """GenEx of one set against unlearning step: runs thin, mean thick, floor grey, generator part dotted.

    Args:
        ax: axes.
        steps: (n_steps,).
        exposure: (n_models, n_steps) set mean of each run, nats; NaN where a run was not scored.
        name: the forget set.
        floor: half-width of the noise floor of one run's set mean, nats.
        generator: (n_models, n_steps) generator part, nats, mostly NaN between its own steps.
        k_star: (n_models,) zero crossings, steps, marked on the zero line; NaN is left out.
    """
    style = plots.solid(name)
    if np.isfinite(floor):
        ax.axhspan(-floor, floor, color=plots.FLOOR, lw=0, zorder=0)
    plots.zero_line(ax)
    plots.runs_and_mean(ax, steps, exposure, style)
    if generator is not None:
        at = np.isfinite(generator).all(axis=0)
        mean = np.asarray(generator)[:, at].mean(axis=0)
        ax.plot(np.asarray(steps)[at], mean, color=plots.INK, lw=1.1, ls=(0, (1, 1)))
    k_star = np.asarray(k_star, dtype=float)
    k_star = k_star[np.isfinite(k_star)]
    ax.plot(k_star, np.zeros_like(k_star), "|", color=style.colour, ms=7, mew=0.9, zorder=5)
    ax.set_title(name, color=style.colour, loc="left", pad=2)
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(5))


def forest(
    ax: Axes,
    intervals: pd.DataFrame,
    runs: pd.DataFrame | None = None,
    *,
    value: str,
    order: Sequence[str],
    censored: pd.DataFrame | None = None,
    looks: Callable[[str], plots.Look] = plots.look,
) -> None:
    """One row a set: every run as a faint point, the mean with its interval above them.

    Args:
        ax: axes; rows run downwards in `order`.
        intervals: forget_set, mean, low, high; a row without a mean leaves its line empty.
        runs: forget_set and column `value`, one row a run.
        value: column of `runs`.
        order: sets, from the top.
        censored: like `runs`; drawn as an open triangle pointing right: the value is at least this.
        looks: the look of a row's name.
    """
    for at, name in enumerate(order):
        style = looks(name)
        if runs is not None:
            points = runs.loc[runs["forget_set"] == name, value].dropna().to_numpy(dtype=float)
            jitter = at + 0.22 + 0.16 * _jitter(len(points))
            ax.plot(points, jitter, ".", color=style.colour, ms=3.5, alpha=0.5, mew=0)
        if censored is not None:
            points = censored.loc[censored["forget_set"] == name, value].dropna().to_numpy(dtype=float)
            jitter = at + 0.22 + 0.16 * _jitter(len(points))
            ax.plot(points, jitter, ">", mfc="white", mec=style.colour, ms=4, mew=0.7)
        row = intervals[intervals["forget_set"] == name]
        if len(row):
            low, mid, high = row[["low", "mean", "high"]].to_numpy(dtype=float)[0]
            plots.interval(ax, at - 0.12, low, mid, high, style)
    ax.set_yticks(range(len(order)), order)
    ax.set_ylim(len(order) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.xaxis.set_major_locator(MaxNLocator(5))


def _jitter(n: int) -> np.ndarray:
    """(n,) fixed offsets in [−1, 1] that keep equal points apart (golden-ratio sequence)."""
    return 2 * ((np.arange(n) * 0.6180339887) % 1.0) - 1


def parts(ax: Axes, table: pd.DataFrame, *, order: Sequence[str]) -> None:
    """Exposure of the originals, a bar a set: generator part hatched, instance part full, whole with limits.

    Args:
        ax: axes.
        table: forget_set, mean, low, high (whole), generator, instance (nats), memorized (yes | no | unknown).
        order: sets, from the top.
    """
    rows = table.set_index("forget_set")
    for at, name in enumerate(n for n in order):
        if name not in rows.index:
            continue
        row, style = rows.loc[name], plots.look(name)
        known = row["memorized"] != "unknown"
        generator, instance = (row["generator"], row["instance"]) if known else (0.0, row["mean"])
        start = max(float(generator), 0.0)
        ax.barh(at, generator, height=0.5, facecolor="white", edgecolor=style.colour, hatch="////", lw=0.6)
        ax.barh(at, instance, left=start, height=0.5, color=style.colour, alpha=0.75 if known else 0.3, lw=0)
        ax.errorbar([row["mean"]], [at], xerr=_spans(row), fmt="none", ecolor=plots.INK, elinewidth=1.0, capsize=2.5)
        if row["memorized"] != "yes":
            right = np.nanmax([row["mean"], row["high"], start])
            ax.annotate(
                "not memorized" if known else "parts not known",
                (right, at),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=6,
            )
    ax.set_yticks(range(len(order)), order)
    ax.set_ylim(len(order) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    plots.zero_line(ax, vertical=True)


def _spans(row: pd.Series) -> np.ndarray:
    """(2, 1) distances from the mean to its limits, 0 where there are none."""
    spans = np.array([[row["mean"] - row["low"]], [row["high"] - row["mean"]]], dtype=float)
    return np.nan_to_num(np.maximum(spans, 0.0))


def heat_map(
    ax: Axes,
    values: pd.DataFrame,
    *,
    clear: pd.DataFrame,
    own: Mapping[str, str],
    unit: str,
    linear: float = 1.0,
) -> None:
    """Effects as a heat map with their numbers; a cell whose interval includes 0 is hatched, its number grey.

    Args:
        ax: axes.
        values: rows (what is scored) by columns (what was trained on), in `unit`.
        clear: same shape, True where the interval excludes 0.
        own: row name -> its own column: outlined.
        unit: label of the colour bar.
        linear: colours are linear to ± this value, logarithmic beyond.
    """
    limit = float(np.nanmax(np.abs(values.to_numpy()))) or 1.0
    texts = values.map(_number)
    ticks = FuncFormatter(lambda value, _: _number(value, ".4g"))
    seaborn.heatmap(
        values,
        mask=~clear | values.isna(),
        cmap="RdBu_r",
        norm=SymLogNorm(linthresh=linear, vmin=-limit, vmax=limit, base=10),
        annot=texts,
        fmt="",
        annot_kws={"fontsize": 5.5, "weight": "bold"},
        cbar_kws={"label": unit, "fraction": 0.04, "pad": 0.02, "format": ticks},
        ax=ax,
    )
    ax.patch.set(facecolor="white", edgecolor=plots.FLOOR, hatch="////")  # seen where a cell is left out
    for i, row in enumerate(values.index):
        for j, column in enumerate(values.columns):
            if not clear.iloc[i, j]:
                box = {"fc": "white", "ec": "none", "pad": 0.6}
                style = {"ha": "center", "va": "center", "fontsize": 5.5, "color": "#6e6e6e"}
                ax.text(j + 0.5, i + 0.5, texts.iloc[i, j], bbox=box, **style)
            if own.get(row) == column:
                ax.add_patch(plt.Rectangle((j, i), 1, 1, fill=False, ec=plots.INK, lw=1.2, zorder=4, clip_on=False))
    ax.set_xticklabels(ax.get_xticklabels(), rotation=40, ha="right", rotation_mode="anchor")
    ax.tick_params(length=0)
    ax.grid(visible=False)


def _number(value: float, form: str = "") -> str:
    """A number as a cell or a tick shows it."""
    if not np.isfinite(value):
        return "–"
    return format(value, form or (".1f" if abs(value) >= 0.995 else ".2f")).replace("-", "−")


def trade_off(ax: Axes, curves: Mapping[str, tuple[ArrayLike, ArrayLike]], *, at: int, confidence: float) -> None:
    """Performance lost against GenEx remaining: one path a run, thin, and the path of the means, thick.

    With the exposure axis turned round, read from left to right: exposure falls to zero, and what that costs
    rises.

    Args:
        ax: axes.
        curves: set -> (exposure (n_models, n_points) nats, lost (n_models, n_points) nats per token), both at
            the same shares of each run's k*.
        at: point where both get an interval (k*).
        confidence: of the t interval over models.
    """
    for name, (exposure, lost) in curves.items():
        exposure, lost, style = np.asarray(exposure), np.asarray(lost), plots.look(name)
        for x, y in zip(exposure, lost, strict=True):
            ax.plot(x, y, lw=0.4, alpha=0.35, **style.line_kw)
        x, y = exposure.mean(axis=0), lost.mean(axis=0)
        ax.plot(x, y, lw=1.6, **style.line_kw)
        spans = [np.nan_to_num(_half(values[:, at], confidence)) for values in (exposure, lost)]
        ax.errorbar(x[at], y[at], xerr=spans[0], yerr=spans[1], fmt=style.marker, color=style.colour, ms=4.5,
                    mec="white", mew=0.6, elinewidth=1.0, zorder=6)  # fmt: skip


def _half(values: np.ndarray, confidence: float) -> float:
    found = stats.t_interval(values, confidence=confidence)
    return found.high - found.estimate


def by_share(ax: Axes, table: pd.DataFrame, *, order: Sequence[str]) -> None:
    """Means with intervals against the share of the steps to forget, one line a set, put side by side.

    Args:
        ax: axes.
        table: forget_set, share (0 to 1), mean, low, high.
        order: sets, from left to right within a share.
    """
    names = [n for n in order if (table["forget_set"] == n).any()]
    for i, name in enumerate(names):
        rows = table[table["forget_set"] == name].sort_values("share")
        _dodged(ax, 100 * rows["share"] + 2.2 * (i - (len(names) - 1) / 2), rows, name)
    ax.set_xticks(sorted(100 * table["share"].unique()))
    plots.zero_line(ax)


def by_state(
    ax: Axes, table: pd.DataFrame, *, order: Sequence[str], states: Sequence[str], joined: bool = True
) -> None:
    """Means with intervals at a few states of a run, one line a set.

    Args:
        ax: axes.
        table: forget_set, state, mean, low, high.
        order: sets, from left to right within a state.
        states: from left to right.
        joined: draw the line from state to state.
    """
    names = [n for n in order if (table["forget_set"] == n).any()]
    for i, name in enumerate(names):
        rows = table[table["forget_set"] == name].set_index("state").reindex(states)
        _dodged(ax, np.arange(len(states)) + 0.09 * (i - (len(names) - 1) / 2), rows, name, joined=joined)
    ax.set_xticks(range(len(states)), states)
    ax.set_xlim(-0.5, len(states) - 0.5)


def _dodged(ax: Axes, x: ArrayLike, rows: pd.DataFrame, name: str, *, joined: bool = True) -> None:
    """A set's means and intervals at `x`, named for the legend."""
    style = plots.look(name)
    line = {"lw": 1.0, "ls": style.line} if joined else {"ls": "none"}
    ax.plot(x, rows["mean"], color=style.colour, marker=style.marker, ms=4, mec="white", mew=0.5, label=name, **line)
    spans = np.nan_to_num(np.maximum([rows["mean"] - rows["low"], rows["high"] - rows["mean"]], 0.0))
    ax.errorbar(x, rows["mean"], yerr=spans, fmt="none", ecolor=style.colour, elinewidth=0.9, capsize=2)
