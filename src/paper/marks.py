"""What several figures are made of: curves, intervals, rows of a forest plot, scales, legends. Axes come in.

Tables of runs have a column `forget_set`; tables of intervals `estimate`, `low`, `high` too. `looks`: in drawing order.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike

from paper import look, words
from paper.look import Look, Looks


def zero_line(ax: Axes, *, vertical: bool = False) -> None:
    """A line at zero: as if never seen (GenEx), or nothing lost (performance)."""
    (ax.axvline if vertical else ax.axhline)(0.0, color=look.INK, lw=0.7, zorder=1)


def runs_and_mean(ax: Axes, values: pd.DataFrame, style: Look, *, label: str | None = None) -> None:
    """Every run (a row of values by step, NaN where it has none) thin, their mean thick, up to where the first ends."""
    for _, run in values.iterrows():
        ax.plot(run.dropna(), lw=0.5, alpha=0.45, **style.line_kw)
    whole = values.dropna(axis=1)
    if whole.size:
        ax.plot(whole.mean(), lw=2.0, label=label, **style.line_kw)


def spans(rows: pd.DataFrame) -> np.ndarray:
    """(2, n) distances from estimates to their limits, 0 where there are none: matplotlib's `xerr` and `yerr`."""
    low, middle, high = (rows[c].to_numpy(dtype=float) for c in ("low", "estimate", "high"))
    return np.nan_to_num(np.maximum([middle - low, high - middle], 0.0))


def intervals(ax: Axes, at: ArrayLike, rows: pd.DataFrame, style: Look, *, flat=False, joined=False, **more) -> None:
    """Estimates with their intervals at positions `at`: along x (`flat`) or along y; `joined` by a thin line."""
    errors = {"xerr" if flat else "yerr": spans(rows)}
    places = (rows["estimate"], at) if flat else (at, rows["estimate"])
    kw = {"color": style.colour, "marker": style.marker, "ms": 4.5, "mec": "white", "mew": 0.6, "elinewidth": 1.1}
    line = {"lw": 1.0, "ls": style.line} if joined else {"ls": "none"}
    ax.errorbar(*places, **errors, **{**kw, "capsize": 2, "zorder": 4, **line, **more})


def forest(ax: Axes, means: pd.DataFrame, points: Sequence[tuple[pd.DataFrame, str]], value: str, looks: Looks) -> None:
    """One row a set: the mean with its interval above its runs, faint points (`points`: tables of runs and their
    markers; an open triangle pointing right: the value is at least this)."""
    for at, (name, style) in enumerate(looks.items()):
        for rows, marker in points:
            values = rows.loc[rows["forget_set"] == name, value].dropna().to_numpy(dtype=float)
            spread_out = 2 * ((np.arange(len(values)) * 0.6180339887) % 1.0) - 1  # golden ratio: equal points lie apart
            kw = {"ms": 3.5, "alpha": 0.5, "mew": 0} if marker == "." else {"mfc": "white", "ms": 4, "mew": 0.7}
            ax.plot(values, at + 0.22 + 0.16 * spread_out, marker, color=style.colour, **kw)
        mine = means[(means["forget_set"] == name) & means["estimate"].notna()]
        if len(mine):
            intervals(ax, [at - 0.12], mine.iloc[:1], style, flat=True)
    name_rows(ax, list(looks))
    ax.xaxis.set_major_locator(MaxNLocator(5))


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Rows of a figure, named from the top."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)


def forests(
    runs: pd.DataFrame, value: str, looks: Looks, panels: Sequence[str], *, xlabel: str, confidence: float,
    by: str = "arm", bound: str | None = None, zero: bool = True, loss: bool = False,
) -> Figure | str:  # fmt: skip
    """Forests of the sets that any panel has, side by side, a panel a value of column `by`. bound: column of what a
    missing value is at least (a censored run's last step); loss: see `loss_scale`."""
    tables = {panel: runs[runs[by] == panel] for panel in panels if len(runs)}
    looks = look.only(looks, {name for rows in tables.values() for name in rows["forget_set"]})
    if not looks:
        return "there is no run to show"
    fig, axes = look.grid(1, len(tables), height_in=0.75 + 0.24 * len(looks), sharey=True)
    for ax, (title, rows) in zip(axes[0], tables.items(), strict=True):
        means = words.means(rows, value, by=["forget_set"], confidence=confidence, bound=bound)
        points = [(rows, ".")]
        if bound:
            points.append((rows[rows[value].isna()].assign(**{value: rows[bound]}), ">"))
        forest(ax, means, points, value, looks)
        ax.set_title(title)
        if zero:
            zero_line(ax, vertical=True)
        if loss:
            loss_scale(ax, "x")
    for ax in axes[0] if len(tables) <= 2 else axes[0][[len(tables) // 2]]:
        ax.set_xlabel(look.wrapped(xlabel, 60 // len(tables)))
    return fig


def by_place(
    means: pd.DataFrame, column: str, looks: Looks, panels: Sequence[str], *, places: Sequence, ylabel: str,
    xlabel: str = "", by: str = "arm", joined: bool = True, loss: bool = False, dashed=(), dotted=(),
) -> Figure | str:  # fmt: skip
    """Means with intervals at the few places that `column` holds, one line a set, a panel a value of column `by`.
    joined: places follow one another (states of a run, shares of k*); dashed, dotted: levels to compare with."""
    tables = {panel: means[means[by] == panel] for panel in panels if (means[by] == panel).any()}
    if not tables:
        return "there is nothing to average"
    fig, axes = look.grid(1, len(tables), height_in=2.3, sharey=True)
    for ax, (title, table) in zip(axes[0], tables.items(), strict=True):
        shown = look.only(looks, set(table["forget_set"]))
        for i, (name, style) in enumerate(shown.items()):
            rows = table[table["forget_set"] == name].set_index(column).reindex(places)
            at = np.arange(len(places)) + 0.09 * (i - (len(shown) - 1) / 2)
            intervals(ax, at, rows, style, joined=joined, label=name)
        ax.set_xticks(range(len(places)), [f"{p:.0%}" if isinstance(p, float) else p for p in places])
        ax.set(xlim=(-0.5, len(places) - 0.5), title=title, xlabel=xlabel)
        zero_line(ax)
        for level in [*dashed, *dotted]:
            ax.axhline(level, color=look.INK, lw=0.8, ls="--" if level in dashed else ":", zorder=1)
        if loss:
            loss_scale(ax)
    axes[0, 0].set_ylabel(look.wrapped(ylabel))
    legend(fig, labelled(axes[0], looks))
    return fig


def loss_scale(ax: Axes, axis: str = "y") -> None:
    """Performance lost spans from hundredths of a nat to several: logarithmic beyond ±0.1 if it does so here."""
    low, high = getattr(ax.dataLim, f"interval{axis}")
    if max(-low, high) < 1:
        return
    getattr(ax, f"set_{axis}scale")("symlog", linthresh=0.1, linscale=1.0)
    which, form = getattr(ax, f"{axis}axis"), FuncFormatter(lambda value, _: words.number(value, "g"))
    which.set(major_locator=FixedLocator([-10, -1, -0.1, 0, 0.1, 1, 10]), major_formatter=form)
    which.set(minor_locator=FixedLocator([-0.3, 0.3, 3, 30]), minor_formatter=form)
    getattr(ax, f"set_{axis}lim")(**{"right" if axis == "x" else "top": 1.6 * high})  # marks stay whole
    ax.tick_params(axis=axis, which="minor", labelsize=6)


def labelled(axes: Sequence[Axes], looks: Looks) -> dict[str, Artist]:
    """What bears a label, each once, in the order of the looks."""
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    return {name: handles[name] for name in [*look.only(looks, handles), *handles]}


def legend(fig: Figure, handles: Mapping[str, Artist]) -> None:
    """One legend for all panels, above them, in as few rows as the width of the figure allows."""
    widths = [26 + 4.0 * len(name) for name in handles]  # points: handle with its gaps, and letters
    choices = [-(-len(widths) // rows) for rows in range(1, len(widths) + 1)]
    fit = [n for n in choices if n == 1 or sum(map(max, np.array_split(widths, n))) < 72 * look.WIDTH_IN]
    if fit:
        fig.legend(handles.values(), handles, loc="outside upper center", ncols=fit[0])


def label_ends(ax: Axes, ends: Mapping[str, tuple[float, float, str]], *, gap_pt: float = 8.0) -> None:
    """Write each line's name at its end (name -> x, y, colour) in axes with final limits, so that no two overlap."""
    if not ends:
        return
    ax.figure.canvas.draw()
    ends = sorted(ends.items(), key=lambda end: end[1][1])
    heights = [ax.transData.transform(end[:2])[1] * (72.0 / ax.figure.dpi) for _, end in ends]
    style = {"textcoords": "offset points", "va": "center", "fontsize": 6.5, "annotation_clip": False}
    for (name, (x, y, colour)), wanted, placed in zip(ends, heights, spread(heights, gap=gap_pt), strict=True):
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
