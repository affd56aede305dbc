"""What several figures are made of: curves, intervals, rows of a forest plot, scales, legends. Axes come in.

Tables of runs have a column `forget_set`; tables of intervals `estimate`, `low`, `high` too. `looks` maps a name to how
it is drawn (`look.looks`).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike

from paper import look, words
from paper.look import Look


def zero_line(ax: Axes, *, vertical: bool = False) -> None:
    """A line at zero: as if never seen (GenEx), or nothing lost (performance)."""
    (ax.axvline if vertical else ax.axhline)(0.0, color=look.INK, lw=0.7, zorder=1)


def runs_and_mean(ax: Axes, steps: ArrayLike, runs: ArrayLike, style: Look, *, label: str | None = None) -> None:
    """Every run thin and their mean thick; the mean stops where the first run ends.

    Args:
        steps: (n_steps,) unlearning steps.
        runs: (n_models, n_steps) values, NaN where a run has none.
    """
    steps, runs = np.asarray(steps, dtype=float), np.asarray(runs, dtype=float)
    for run in runs:
        here = np.isfinite(run)
        ax.plot(steps[here], run[here], lw=0.5, alpha=0.45, **style.line_kw)
    whole = np.isfinite(runs).all(axis=0)
    if whole.any():
        ax.plot(steps[whole], runs[:, whole].mean(axis=0), lw=2.0, label=label, **style.line_kw)


def spans(rows: pd.DataFrame) -> np.ndarray:
    """(2, n) distances from estimates to their limits, 0 where there are none: matplotlib's `xerr` and `yerr`."""
    low, middle, high = (rows[c].to_numpy(dtype=float) for c in ("low", "estimate", "high"))
    return np.nan_to_num(np.maximum([middle - low, high - middle], 0.0))


def intervals(
    ax: Axes, at: ArrayLike, rows: pd.DataFrame, style: Look, *, flat: bool = False, label=None, joined=False, **more
) -> None:
    """Estimates with their intervals at positions `at`: along x (`flat`) or along y; `joined` by a thin line."""
    errors = {"xerr" if flat else "yerr": spans(rows)}
    places = (rows["estimate"], at) if flat else (at, rows["estimate"])
    kw = {"color": style.colour, "marker": style.marker, "ms": 4.5, "mec": "white", "mew": 0.6, "elinewidth": 1.1}
    line = {"lw": 1.0, "ls": style.line} if joined else {"ls": "none"}
    ax.errorbar(*places, **errors, **{**kw, "capsize": 2, "zorder": 4, **line, **more}, label=label)


def forest(
    ax: Axes,
    table: pd.DataFrame,
    runs: pd.DataFrame | None,
    *,
    value: str,
    order: Sequence[str],
    looks: Mapping[str, Look],
    censored: pd.DataFrame | None = None,
) -> None:
    """One row a set: every run as a faint point, the mean with its interval above them.

    Args:
        table: forget_set, estimate, low, high; a row without an estimate leaves its line empty.
        runs: forget_set and column `value`, one row a run.
        order: sets, from the top.
        censored: like `runs`; drawn as an open triangle pointing right: the value is at least this.
    """
    points = [(runs, {"marker": ".", "ms": 3.5, "alpha": 0.5, "mew": 0})]
    points += [(censored, {"marker": ">", "mfc": "white", "ms": 4, "mew": 0.7})]
    for at, name in enumerate(order):
        for rows, kw in points:
            if rows is not None:
                values = rows.loc[rows["forget_set"] == name, value].dropna().to_numpy(dtype=float)
                ax.plot(values, at + 0.22 + 0.16 * _jitter(len(values)), ls="none", color=looks[name].colour, **kw)
        mine = table[(table["forget_set"] == name) & table["estimate"].notna()]
        if len(mine):
            intervals(ax, [at - 0.12], mine.iloc[:1], looks[name], flat=True)
    name_rows(ax, order)
    ax.xaxis.set_major_locator(MaxNLocator(5))


def _jitter(n: int) -> np.ndarray:
    # (n,) fixed offsets in [−1, 1] that keep equal points apart (golden-ratio sequence)
    return 2 * ((np.arange(n) * 0.6180339887) % 1.0) - 1


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Rows of a figure, named from the top."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)


def forests(
    panels: Mapping[str, tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame | None]],
    *,
    value: str,
    order: Sequence[str],
    looks: Mapping[str, Look],
    xlabel: str,
    lines: Sequence[float] = (),
    loss: bool = False,
) -> Figure | str:
    """Forests side by side, a panel a title.

    Args:
        panels: title -> (intervals, runs, censored or None).
        value: column of the runs.
        order: sets, from the top.
        xlabel: with its unit.
        lines: vertical reference lines.
        loss: the values are performance lost, nats per token (see `loss_scale`).
    """
    if not panels:
        return "no run of these arms"
    fig, axes = look.grid(1, len(panels), height_in=0.75 + 0.24 * len(order), sharey=True)
    for ax, (title, (table, runs, censored)) in zip(axes[0], panels.items(), strict=True):
        forest(ax, table, runs, value=value, order=order, looks=looks, censored=censored)
        for line in lines:
            ax.axvline(line, color=look.INK, lw=0.7, zorder=1)
        ax.set_title(title)
        if loss:
            loss_scale(ax, "x")
    for ax in axes[0] if len(panels) <= 2 else axes[0][[len(panels) // 2]]:
        ax.set_xlabel(look.wrapped(xlabel, 60 // len(panels)))
    return fig


def by_place(
    panels: Mapping[str, pd.DataFrame],
    column: str,
    *,
    order: Sequence[str],
    looks: Mapping[str, Look],
    places: Sequence,
    ylabel: str,
    xlabel: str = "",
    joined: bool = True,
    loss: bool = False,
) -> Figure | str:
    """Means with intervals at a few places (states of a run, shares of k*, splits), one line a set, a panel an arm.

    Args:
        panels: title -> forget_set, `column`, estimate, low, high.
        column: holds the places.
        order: sets, from left to right within a place.
        places: from left to right.
        ylabel: with its unit.
        xlabel: what the places are, if they do not say so.
        joined: places follow one another.
        loss: the values are performance lost, nats per token (see `loss_scale`).
    """
    if not any(len(table) for table in panels.values()):
        return "there is nothing to average"
    fig, axes = look.grid(1, len(panels), height_in=2.3, sharey=True)
    for ax, (title, table) in zip(axes[0], panels.items(), strict=True):
        names = [name for name in order if (table["forget_set"] == name).any()]
        for i, name in enumerate(names):
            rows = table[table["forget_set"] == name].set_index(column).reindex(places)
            at = np.arange(len(places)) + 0.09 * (i - (len(names) - 1) / 2)
            intervals(ax, at, rows, looks[name], joined=joined, label=name)
        ax.set_xticks(range(len(places)), [f"{p:.0%}" if isinstance(p, float) else p for p in places])
        ax.set_xlim(-0.5, len(places) - 0.5)
        ax.set_title(title)
        ax.set_xlabel(xlabel)
        zero_line(ax)
        if loss:
            loss_scale(ax)
    axes[0, 0].set_ylabel(look.wrapped(ylabel))
    legend(fig, axes[0], order, columns=5)
    return fig


def loss_scale(ax: Axes, axis: str = "y", *, linear: float = 0.1) -> None:
    """Performance lost spans from hundredths of a nat to several: logarithmic beyond ± `linear` if it does so here."""
    low, high = getattr(ax.dataLim, f"interval{axis}")
    if max(-low, high) < 10 * linear:
        return
    getattr(ax, f"set_{axis}scale")("symlog", linthresh=linear, linscale=1.0)
    which = getattr(ax, f"{axis}axis")
    which.set_major_locator(FixedLocator([-10, -1, -linear, 0, linear, 1, 10]))
    which.set_minor_locator(FixedLocator([-0.3, 0.3, 3, 30]))
    which.set_major_formatter(FuncFormatter(lambda value, _: words.number(value, "g")))
    which.set_minor_formatter(FuncFormatter(lambda value, _: words.number(value, "g")))
    getattr(ax, f"set_{axis}lim")(**{"right" if axis == "x" else "top": 1.6 * high})  # marks stay whole
    ax.tick_params(axis=axis, which="minor", labelsize=6)


def legend(fig: Figure, axes: Sequence[Axes], order: Sequence[str] | None = None, columns: int = 4) -> None:
    """One legend for all panels, above them, in the order of the sets."""
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    names = [name for name in order or handles if name in handles]
    if names:
        fig.legend([handles[n] for n in names], names, loc="outside upper center", ncols=min(columns, len(names)))


def label_ends(ax: Axes, ends: Mapping[str, tuple[float, float, str]], *, gap_pt: float = 8.0) -> None:
    """Write each line's name at its end, pushed apart so that no two overlap.

    Args:
        ax: drawn axes, with final limits.
        ends: name -> (x, y, colour) in data units.
        gap_pt: least distance between two names, points.
    """
    if not ends:
        return
    ax.figure.canvas.draw()
    to_pt = 72.0 / ax.figure.dpi
    names = sorted(ends, key=lambda n: ends[n][1])
    heights = [ax.transData.transform(ends[n][:2])[1] * to_pt for n in names]
    style = {"textcoords": "offset points", "va": "center", "fontsize": 6.5, "annotation_clip": False}
    for name, wanted, placed in zip(names, heights, spread(heights, gap=gap_pt), strict=True):
        x, y, colour = ends[name]
        ax.annotate(name, (x, y), xytext=(4, placed - wanted), color=colour, **style)


def spread(values: Sequence[float], *, gap: float) -> np.ndarray:
    """Move ascending values apart to at least `gap`, each group kept around its mean; (n,) ascending positions."""
    groups: list[tuple[float, int]] = []  # mean of the wanted positions, count
    for value in values:
        groups.append((float(value), 1))
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < gap * (groups[-2][1] + groups[-1][1]) / 2 - 1e-9:
            (m1, n1), (m2, n2) = groups.pop(-2), groups.pop()
            groups.append(((m1 * n1 + m2 * n2) / (n1 + n2), n1 + n2))
    return np.concatenate([m + gap * (np.arange(n) - (n - 1) / 2) for m, n in groups] or [np.empty(0)])
