"""Layouts of the figures of the exposure and the trade-off notebook; what is drawn on them is in `plots_study`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from paper import figures, plots, plots_study

TRUST = 2.5  # effective models under which log_mean is greyed


def estimators(panels: Mapping[str, pd.DataFrame], names: Mapping[str, str]) -> Figure:
    """GenEx of the ensemble by both estimators; log_mean is grey where it rests on fewer than TRUST models.

    Args:
        panels: title -> step, log_mean, mean_log (nats), effective_models.
        names: title -> forget set, for the look.
    """
    columns = min(2, len(panels))
    rows = int(np.ceil(len(panels) / columns))
    fig, axes = plots.grid(rows, columns, height_in=1.5)
    for ax, (title, table) in zip(axes.flat, panels.items(), strict=False):
        style = plots.look(names[title])
        plots.zero_line(ax)
        ax.plot(table["step"], table["mean_log"], lw=2.0, color=style.colour)
        thin = table["effective_models"] < TRUST
        ax.plot(table["step"], table["log_mean"], lw=0.6, color=plots.GREY, ls="--")
        ax.plot(table["step"][thin], table["log_mean"][thin], ".", ms=3.5, color="#bdbdbd")
        ax.plot(table["step"][~thin], table["log_mean"][~thin], "o", ms=3.5, mfc="white", mec=style.colour)
        ax.set_title(title, loc="left", color=style.colour)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_visible(False)
    for ax in axes[:, 0]:
        ax.set_ylabel("GenEx, nats")
    for ax in axes[-1, :]:
        ax.set_xlabel("unlearning step")
    kinds = [({"color": plots.INK, "lw": 2.0}, "mean_log"),
             ({"color": plots.INK, "ls": "none", "marker": "o", "mfc": "white", "ms": 3.5}, "log_mean"),
             ({"color": "#bdbdbd", "ls": "none", "marker": "."}, f"log_mean, under {TRUST:g} models")]  # fmt: skip
    thin = pd.concat([table["effective_models"] for table in panels.values()]) < TRUST
    kinds = [kind for kind, drawn in zip(kinds, (True, not thin.all(), thin.any()), strict=True) if drawn]
    handles = [Line2D([], [], **kw) for kw, _ in kinds]
    fig.legend(handles, [name for _, name in kinds], loc="outside upper center", ncols=3)
    return fig


def placebo(panels: Mapping[str, tuple[pd.DataFrame, pd.DataFrame, str, float]]) -> Figure:
    """Exposure (above) and held-out lost (below): models that hold the set, and models that never saw it, in grey.

    Args:
        panels: title -> (steps of the in-models, steps of the placebo, forget set, floor); tables hold model, step,
            exposure (nats), lost (nats per token).
    """
    fig, axes = plots.grid(2, len(panels), height_in=1.4, sharex="col", sharey="row")
    never = plots.Look(plots.GREY, (0, (1, 1)), "x")
    for column, (title, (inside, outside, name, floor)) in zip(axes.T, panels.items(), strict=True):
        for ax, value in zip(column, ("exposure", "lost"), strict=True):
            for table, style in ((outside, never), (inside, plots.solid(name))):
                wide = table.pivot(index="model", columns="step", values=value)
                plots.runs_and_mean(ax, wide.columns, wide, style)
            plots.zero_line(ax)
        if np.isfinite(floor):
            column[0].axhspan(-floor, floor, color=plots.FLOOR, lw=0, zorder=0)
        column[0].set_title(title, loc="left", color=plots.look(name).colour, fontsize=7)
        column[1].set_xlabel("unlearning step")
        column[1].xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes[0, 0].set_ylabel("GenEx, nats")
    axes[1, 0].set_ylabel("held-out lost,\nnats per token")
    return fig


def calibration(panels: Mapping[str, pd.DataFrame], order: Sequence[str], *, limit: float) -> Figure:
    """Share of a set outside the floor, by set: models without it, exact partners, and models that hold it.

    Args:
        panels: title -> forget_set, side (out | partner | in), mean, low, high.
        order: sets, from the top.
        limit: of the out side, drawn as a line.
    """
    fig, axes = plots.grid(1, len(panels), height_in=0.85 + 0.24 * len(order), sharey=True, sharex=True)
    marks = {"out": ("o", "white", -0.28), "partner": ("D", "white", 0.0), "in": ("o", None, 0.28)}
    for ax, (title, table) in zip(axes[0], panels.items(), strict=True):
        for _, row in table.iterrows():
            if row["forget_set"] not in order or not np.isfinite(row["mean"]):
                continue
            marker, face, shift = marks[row["side"]]
            colour, at = plots.look(row["forget_set"]).colour, order.index(row["forget_set"]) + shift
            spans = np.nan_to_num([[max(row["mean"] - row["low"], 0)], [max(row["high"] - row["mean"], 0)]])
            ax.errorbar([100 * row["mean"]], [at], xerr=100 * spans, fmt=marker, ms=3.5, color=colour,
                        mfc=face or colour, elinewidth=1.0, capsize=2)  # fmt: skip
        ax.axvline(100 * limit, color=plots.INK, lw=0.7, ls="--")
        ax.set(title=title, xlabel="outside the floor, % of the set")
        ax.set_yticks(range(len(order)), order)
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
    axes[0, 0].set_ylim(len(order) - 0.4, -0.6)
    names = {"out": "never held it (own left out)", "partner": "exact partner", "in": "hold it (θ0)"}
    handles = [Line2D([], [], ls="none", marker=marks[s][0], ms=4, color=plots.INK, mfc=marks[s][1] or plots.INK)
               for s in names]  # fmt: skip
    fig.legend(handles, names.values(), loc="outside upper center", ncols=3)
    return fig


def by_state(
    panels: Mapping[str, pd.DataFrame],
    *,
    order: Sequence[str],
    states: Sequence[str],
    ylabel: str,
    lines: Mapping[float, str] | None = None,
    joined: bool = True,
    loss: bool = False,
) -> Figure:
    """Means at θ0, k*, 2k* by set, a panel an arm (or a quantity).

    Args:
        panels: title -> forget_set, state, mean, low, high.
        order: sets, for the legend.
        states: from left to right.
        ylabel: with its unit.
        lines: level -> what it means.
        joined: states follow one another.
        loss: the values are performance lost, nats per token (see `figures.loss_scale`).
    """
    fig, axes = plots.grid(1, len(panels), height_in=2.3, sharey=True)
    for ax, (title, table) in zip(axes[0], panels.items(), strict=True):
        plots_study.by_state(ax, table, order=order, states=states, joined=joined)
        if loss:
            figures.loss_scale(ax)
        for level, text in (lines or {}).items():
            ax.axhline(level, color=plots.INK, lw=0.8, ls="--", zorder=1)
            high, under = level > max(lines) / 2, max(lines) / 2 < level < max(lines)
            at, shift, side = (len(states) - 0.5, -2, "right") if high else (-0.5, 2, "left")
            ax.annotate(text, (at, level), xytext=(shift, -2 if under else 2), textcoords="offset points", ha=side,
                        va="top" if under else "bottom", fontsize=6)  # fmt: skip
        ax.set_title(title)
    axes[0, 0].set_ylabel(plots.wrapped(ylabel))
    _legend(fig, axes[0], order)
    return fig


def trade_off(panels: Mapping[str, dict], *, order: Sequence[str], confidence: float) -> Figure:
    """Performance lost against GenEx remaining, a panel an arm: the study in one picture.

    Args:
        panels: title -> what `panels.trade_off_panel` gives.
        order: sets, for the legend.
        confidence: of the intervals at k*.
    """
    fig, axes = plots.grid(1, len(panels), height_in=3.3, sharex=True, sharey=True)
    for ax, (title, panel) in zip(axes[0], panels.items(), strict=True):
        references, base = panel["references"], panel["base"]
        ax.axvline(0.0, color=plots.INK, lw=0.7, zorder=1)
        ax.axhline(0.0, color=plots.INK, lw=0.7, zorder=1)
        ax.plot(references["exposure"], references["lost"], "+", color=plots.GREY, ms=4, mew=0.7, zorder=4)
        plots_study.trade_off(ax, panel["curves"], at=panel["at"], confidence=confidence)
        for exposure, lost in panel["censored"].values():
            ax.plot(np.transpose(exposure), np.transpose(lost), color=plots.GREY, lw=0.4, ls=":")
        for name, (x, y) in base.items():
            ax.plot(
                [x], [y], marker="*", ms=8, color=plots.look(name).colour, mec="white", mew=0.5, ls="none", zorder=5
            )
        ax.set_title(title, loc="left")
        ax.set_xlabel("GenEx remaining, nats (falls →)" if len(panels) < 3 else "GenEx, nats (falls →)")
        figures.loss_scale(ax)
    axes[0, 0].invert_xaxis()
    axes[0, 0].set_ylabel("held-out lost to the references,\nnats per token")
    names = [n for n in order if any(n in panel["curves"] for panel in panels.values())]
    marks = [({"marker": "+", "color": plots.GREY}, "references"), ({"marker": "*", "color": plots.INK}, "base model")]
    handles = [Line2D([], [], lw=1.8, **plots.look(n).line_kw) for n in names]
    handles += [Line2D([], [], ls="none", ms=6, **kw) for kw, _ in marks]
    fig.legend(handles, [*names, *(text for _, text in marks)], loc="outside upper center", ncols=4)
    return fig


def by_share(panels: Mapping[str, pd.DataFrame], order: Sequence[str], *, ylabel: str) -> Figure:
    """What is lost after shares of the steps to forget, a panel an arm."""
    fig, axes = plots.grid(1, len(panels), height_in=2.4, sharey=True)
    for ax, (title, table) in zip(axes[0], panels.items(), strict=True):
        plots_study.by_share(ax, table, order=order)
        figures.loss_scale(ax)
        ax.set(title=title, xlabel="share of the steps to forget, %")
    axes[0, 0].set_ylabel(plots.wrapped(ylabel))
    _legend(fig, axes[0], order)
    return fig


def by_repetition(panels: Mapping[str, pd.DataFrame], *, ylabels: Mapping[str, str]) -> Figure:
    """A quantity against how often an example stood in training, one line a kind.

    Args:
        panels: quantity -> kind, repetitions, forget_set, mean, low, high.
        ylabels: quantity -> axis label with unit.
    """
    fig, axes = plots.grid(1, len(panels), height_in=2.6)
    for ax, (quantity, table) in zip(axes[0], panels.items(), strict=True):
        for i, (kind, rows) in enumerate(table.groupby("kind", sort=False)):
            style, rows = plots.look(kind), rows.sort_values("repetitions")
            x = rows["repetitions"] * 1.05**i
            spans = np.nan_to_num(np.maximum([rows["mean"] - rows["low"], rows["high"] - rows["mean"]], 0))
            ax.errorbar(x, rows["mean"], yerr=spans, fmt="none", ecolor=style.colour, capsize=2, elinewidth=0.9)
            middle = rows.groupby("repetitions")["mean"].mean()
            ax.plot(middle.index * 1.05**i, middle, label=kind, **style.line_kw)
            ax.plot(x, rows["mean"], style.marker, color=style.colour, mec="white", mew=0.5)
        ax.set_xscale("log", base=2)
        ax.set_xticks(sorted(table["repetitions"].unique()), sorted(table["repetitions"].unique()))
        ax.minorticks_off()
        ax.set(xlabel="repetitions in training", ylabel=plots.wrapped(ylabels[quantity]))
        if quantity.startswith("lost"):
            figures.loss_scale(ax)
        plots.zero_line(ax)
    _legend(fig, axes[0])
    return fig


def cross(table: pd.DataFrame, *, arms: Sequence[str], order: Sequence[str], xlabel: str) -> Figure:
    """One row a set, one mark an arm: training optimizer and method as two factors.

    Args:
        table: arm, forget_set, mean, low, high.
        arms: from the top within a set.
        order: sets, from the top.
        xlabel: with unit.
    """
    fig, ((ax,),) = plots.grid(height_in=0.9 + 0.4 * len(order))
    for i, arm in enumerate(arms):
        shift = 0.72 * (i / max(len(arms) - 1, 1) - 0.5)
        for _, row in table[table["arm"] == arm].iterrows():
            style = plots.Look(plots.look(row["forget_set"]).colour, "-", plots.ARM_MARKERS.get(arm, "P"))
            at = order.index(row["forget_set"]) + shift
            plots.interval(ax, at, row["low"], row["mean"], row["high"], style)
    for edge in np.arange(len(order) - 1) + 0.5:
        ax.axhline(edge, color="#e6e6e6", lw=0.5)
    ax.set_yticks(range(len(order)), order)
    ax.set_ylim(len(order) - 0.45, -0.55)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    plots.zero_line(ax, vertical=True)
    figures.loss_scale(ax, "x")
    ax.set_xlabel(xlabel)
    handles = [Line2D([], [], ls="none", marker=plots.ARM_MARKERS.get(a, "P"), color=plots.INK, ms=5) for a in arms]
    fig.legend(handles, arms, loc="outside upper center", ncols=min(4, len(arms)))
    return fig


def first_update(runs: Mapping[str, pd.DataFrame], cosines: Mapping[str, pd.DataFrame], order: Sequence[str]) -> Figure:
    """Predicted against observed change of held-out loss by the first update, and the cosine of the gradients.

    Args:
        runs: arm -> forget_set, predicted_change, observed_change (nats per token), cosine; one row a run.
        cosines: arm -> forget_set, mean, low, high.
        order: sets, from the top.
    """
    fig, axes = plots.grid(len(runs), 2, height_in=0.9 + 0.19 * len(order), gridspec_kw={"width_ratios": [1, 1.15]})
    for (left, right), (arm, table) in zip(axes, runs.items(), strict=True):
        for name in order:
            rows = table[table["forget_set"] == name]
            points = {"ms": 4, "alpha": 0.8, "mew": 0, **plots.look(name).point_kw}
            left.plot(rows["predicted_change"], rows["observed_change"], **points)
        _diagonal(left)
        left.set_title(arm, loc="left")
        left.set_ylabel("observed, nats per token")
        plots_study.forest(right, cosines[arm], table, value="cosine", order=order)
        right.xaxis.set_major_locator(MaxNLocator(4))
        plots.zero_line(right, vertical=True)
    axes[-1, 0].set_xlabel("predicted change of held-out\nloss, nats per token")
    axes[-1, 1].set_xlabel("cosine of the gradients of set and\nheld-out (< 0: ascent helps)")
    return fig


def _diagonal(ax: Axes) -> None:
    """Where prediction and observation agree."""
    ax.axline((0, 0), slope=1, color=plots.GREY, lw=0.8, ls="--", zorder=1)
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.yaxis.set_major_locator(MaxNLocator(4))


def _legend(fig: Figure, axes: Sequence[Axes], order: Sequence[str] | None = None) -> None:
    """One legend for all panels, above them, in the order of the sets."""
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    names = [name for name in order or handles if name in handles]
    if names:
        fig.legend([handles[name] for name in names], names, loc="outside upper center", ncols=min(4, len(names)))
