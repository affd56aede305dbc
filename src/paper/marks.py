"""What several figures are made of: curves, intervals, forests, scales, legends. Axes come in.

Tables of runs have columns `family`, `forget_set` (a draw of the family) and `model`; tables of intervals `estimate`,
`low`, `high`. `looks`: in drawing order.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, ScalarFormatter
from numpy.typing import ArrayLike

from paper import look, words
from paper.look import Look, Looks
from unlearning.core import draws, stats

DRAW = 0.34  # height of a draw's row, in rows of a mean


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


def family_means(
    runs: pd.DataFrame, value: str, *, by: Sequence[str], confidence: float, bound: str | None = None
) -> pd.DataFrame:
    """Mean of a run's value over models, then over draws, with its interval, a row a combination of `by`, among them a
    family: by, estimate, low, high, draws, n (models a draw, at most), unit.

    The unit is the draw (`draws.two_way`); of a family with one draw it is the model: nothing is said of its kind. Two
    units are too few for limits (t would be 12.7 standard errors). bound: as in `words.means`, without limits.
    """
    rows = []
    for key, group in runs.groupby(list(by), sort=False, observed=True) if len(runs) else []:
        known = group.assign(value=group[value].fillna(group[bound]) if bound else group[value]).dropna(subset="value")
        n = known.groupby("forget_set").size()
        if len(n) > 1:
            how = {"draw": known["forget_set"], "model": known["model"], "side": np.ones(len(known))}
            found = draws.two_way(known["value"].to_numpy(), **how, confidence=confidence)
        else:
            found = stats.t_interval(known["value"], confidence=confidence)
        no_limits = (len(n) if len(n) > 1 else len(known)) < 3 or (bound and group[value].isna().any())
        limits = (np.nan, np.nan) if no_limits else (found.low, found.high)
        rows.append((*key, found.estimate, *limits, len(n), n.max(), "draw" if len(n) > 1 else "model"))
    return pd.DataFrame(rows, columns=[*by, "estimate", "low", "high", "draws", "n", "unit"])


def forest(ax: Axes, means: pd.DataFrame, points: pd.DataFrame, value: str, looks: Looks, *, by="family") -> None:
    """One row a family (or whatever `by` holds): the mean with its interval above its runs, faint points."""
    for at, (name, style) in enumerate(looks.items()):
        values = points.loc[points[by] == name, value].dropna().to_numpy(dtype=float)
        spread_out = 2 * ((np.arange(len(values)) * 0.6180339887) % 1.0) - 1  # golden ratio: equal points lie apart
        ax.plot(values, at + 0.22 + 0.16 * spread_out, ".", color=style.colour, ms=3.5, alpha=0.5, mew=0)
        mine = means[(means[by] == name) & means["estimate"].notna()]
        if len(mine):
            intervals(ax, [at - 0.12], mine.iloc[:1], style, flat=True)
    name_rows(ax, list(looks))
    ax.xaxis.set_major_locator(MaxNLocator(5))


def forest_of_draws(
    ax: Axes, means: pd.DataFrame, each: pd.DataFrame, looks: Looks, heights: Sequence[float], *, by: str = "family"
) -> None:
    """Of every family the mean with its interval and below it each draw with its own, thin (`each`: family, estimate,
    low, high, and perhaps censored; an open triangle pointing right: at least this). One draw: its mark is open.
    heights: of each family's rows (`height`)."""
    places = np.cumsum([0.0, *heights])
    for top, (name, style) in zip(places, looks.items(), strict=False):
        mine = each[(each[by] == name) & each["estimate"].notna()]
        mean, alone = means[(means[by] == name) & means["estimate"].notna()].iloc[:1], len(mine) == 1
        least = mine["censored"].to_numpy() > 0 if "censored" in mine else np.zeros(len(mine), bool)
        hollow, bounded = {"mfc": "white", "mec": style.colour, "mew": 1.0}, {"marker": ">"} if least.any() else {}
        intervals(ax, [top] * len(mean), mean, style, flat=True, **(hollow if alone or bounded else {}), **bounded)
        below = top + 0.4 + DRAW * np.arange(len(mine))
        thin = {"ms": 3, "elinewidth": 0.6, "capsize": 0, "alpha": 0.6, "mec": "none", "zorder": 3}
        for some, more in ((~least, {}), (least, {**hollow, "mew": 0.5, "marker": ">"})):
            if not alone and some.any():
                intervals(ax, below[some], mine[some], style, flat=True, **thin | more)
    name_rows(ax, list(looks), places[:-1])
    ax.set_ylim(places[-1] - 0.4, -0.6)
    ax.xaxis.set_major_locator(MaxNLocator(5))


def height(n_draws: int) -> float:  # of the rows of a family of so many draws, in rows of a mean
    return 1.0 if n_draws < 2 else 1.15 + DRAW * (n_draws - 1)


def name_rows(ax: Axes, names: Sequence[str], places: Sequence[float] = ()) -> None:
    """Rows of a figure, named from the top, one apart unless they have places."""
    ax.set_yticks(places if len(places) else range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)


def forests(
    runs: pd.DataFrame, value: str, looks: Looks, panels: Sequence[str], *, xlabel: str, confidence: float,
    by: str = "arm", rows: str = "family", bound: str | None = None, zero: bool = True, loss: bool = False,
) -> Figure | str:  # fmt: skip
    """Forests of the families that any panel has, every draw a point, side by side, a panel a value of column `by`.
    rows: what `looks` and rows name, if not families; bound: column of what a missing value is at least (a censored
    run's last step); loss: see `loss_scale`."""
    panels = [panel for panel in panels if len(runs) and (runs[by] == panel).any()]
    if not panels:
        return "there is no run to show"
    here, how = runs[runs[by].isin(panels)], {"confidence": confidence, "bound": bound}
    means = family_means(here, value, by=[by, rows], **how)
    each = words.means(here, value, by=[by, rows, "forget_set"], **how)
    looks = look.only(looks, set(here[rows]))
    most = each.dropna(subset="estimate").groupby([by, rows]).size().groupby(rows).max()  # of any panel
    heights = [height(most.get(name, 0)) for name in looks]
    columns = min(len(panels), 3)
    height_in, share = 1.05 + 0.2 * sum(heights), {"sharex": True, "sharey": True}
    fig, axes = look.grid(-(-len(panels) // columns), columns, height_in=height_in, **share)
    for ax, title in zip(axes.flat, panels, strict=False):
        forest_of_draws(ax, means[means[by] == title], each[each[by] == title], looks, heights, by=rows)
        ax.set_title(title)
        if zero:
            zero_line(ax, vertical=True)
        if loss:
            loss_scale(ax, "x")
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    for ax in axes[-1] if columns <= 2 else axes[-1][[1]]:
        ax.set_xlabel(look.wrapped(xlabel, 60 // columns))
    return fig


def by_place(
    means: pd.DataFrame, column: str, looks: Looks, panels: Sequence[str], *, places: Sequence, ylabel: str,
    xlabel: str = "", by: str = "arm", each: pd.DataFrame | None = None, joined: bool = True, loss: bool = False,
    dashed=(), dotted=(),
) -> Figure | str:  # fmt: skip
    """Means with intervals at the few places that `column` holds, one line a family, a panel a value of column `by`;
    `each`: of the draws, faint points. joined: places follow one another (states of a run, shares of k*); dashed,
    dotted: levels to compare with."""
    tables = {panel: means[means[by] == panel] for panel in panels if (means[by] == panel).any()}
    if not tables:
        return "there is nothing to average"
    fig, axes = look.grid(1, len(tables), height_in=2.3, sharey=True)
    for ax, (title, table) in zip(axes[0], tables.items(), strict=True):
        shown = look.only(looks, set(table["family"]))
        for i, (name, style) in enumerate(shown.items()):
            rows = table[table["family"] == name].set_index(column).reindex(places)
            at = np.arange(len(places)) + 0.09 * (i - (len(shown) - 1) / 2)
            intervals(ax, at, rows, style, joined=joined, label=name)
            if each is not None:
                points = each[(each[by] == title) & (each["family"] == name) & each[column].isin(places)]
                where = at[[list(places).index(place) for place in points[column]]]
                ax.plot(where, points["estimate"], ".", color=style.colour, ms=3, alpha=0.5, mew=0)
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
    between = [-0.3, 0.3, 3] if high < 5 else []  # numbers have to fit one above the other
    which.set(minor_locator=FixedLocator(between), minor_formatter=form)
    getattr(ax, f"set_{axis}lim")(**{"right" if axis == "x" else "top": 1.6 * high})  # marks stay whole
    ax.tick_params(axis=axis, which="minor", labelsize=6)


def step_scale(ax: Axes) -> None:
    """Steps to forget span a factor of ten if sets were repeated: logarithmic then, else from zero."""
    low, high = ax.dataLim.intervaly
    if not high > 4 * low > 0:
        ax.set_ylim(bottom=0)
        return
    ax.set_yscale("log")
    ax.yaxis.set(major_locator=FixedLocator([1, 2, 5, 10, 20, 50, 100, 200, 500]), major_formatter=ScalarFormatter())
    ax.yaxis.set_minor_locator(NullLocator())


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
