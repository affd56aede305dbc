"""Layouts of figures that notebooks share: axes, labels and titles; what is drawn on them is in `plots_study`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from paper import plots, plots_study


def fine_tuning(curves: Mapping[str, pd.DataFrame], gains: Mapping[str, pd.DataFrame], mean: pd.DataFrame) -> Figure:
    """Validation by epoch, and the gain of every model over its own base.

    Args:
        curves: training optimizer -> training table (model, epoch, validation_log_likelihood_per_token).
        gains: training optimizer -> model, base, gain.
        mean: trained_with, mean, low, high of the gain.
    """
    fig, ((left, right),) = plots.grid(1, 2, height_in=2.1, gridspec_kw={"width_ratios": [1.25, 1]})
    for name, table in curves.items():
        wide = table.pivot(index="model", columns="epoch", values="validation_log_likelihood_per_token")
        plots.runs_and_mean(left, wide.columns, wide, plots.trained_look(name), label=name)
    left.set(xlabel="epoch (0: base model)", ylabel="validation, nats per token", title="training")
    if curves:
        left.legend(loc="lower right")
    rows = pd.concat([t.assign(forget_set=name) for name, t in gains.items()])
    plots_study.forest(
        right,
        mean.rename(columns={"trained_with": "forget_set"}),
        rows,
        value="gain",
        order=list(gains),
        looks=plots.trained_look,
    )
    plots.zero_line(right, vertical=True)
    right.set(xlabel="gain over its base,\nnats per token", title="held-out, every model")
    return fig


def learnt(tables: Mapping[str, pd.DataFrame], order: Sequence[str]) -> Figure:
    """Exposure of the originals by set, generator and instance part, a panel a training optimizer."""
    fig, axes = plots.grid(1, len(tables), height_in=0.6 + 0.24 * len(order), sharex=True, sharey=True)
    for ax, (name, table) in zip(axes[0], tables.items(), strict=True):
        plots_study.parts(ax, table, order=order)
        ax.set(xlabel="GenEx of θ0, nats per example", title=f"trained with {name}")
        ax.margins(x=0.12)
    return fig


def influence(matrix: pd.DataFrame, *, trained_with: str, rows: Sequence[str], columns: Sequence[str]) -> Figure:
    """What training on each column's set does to each row's examples: heat map with its intervals' verdict.

    Args:
        matrix: trained_on, scored_on, mean, low, high, nats per example.
        trained_with: training optimizer, for the title.
        rows: groups scored, from the top.
        columns: columns of the design, from the left.
    """
    table = matrix.pivot(index="scored_on", columns="trained_on")
    values, low, high = (table[part].reindex(index=rows, columns=columns) for part in ("mean", "low", "high"))
    fig, ((ax,),) = plots.grid(height_in=1.1 + 0.2 * len(rows))
    own = {name: name for name in columns}
    plots_study.heat_map(ax, values, clear=(low > 0) | (high < 0), own=own, unit="nats per example")
    ax.set(xlabel="trained on (base: second base model instead of the first)", ylabel="scored on")
    ax.set_title(f"trained with {trained_with}", loc="left")
    return fig


def partners(errors: pd.DataFrame, noise: pd.DataFrame) -> Figure:
    """Error of two kinds of reference against the exact partner, with what a new data order alone changes.

    Args:
        errors: model, forget_set, reference, rms.
        noise: model, kind, rms; may be empty.
    """
    names = list(dict.fromkeys(errors["forget_set"]))
    fig, (axes,) = plots.grid(1, len(names), height_in=2.0, sharey=True)
    for ax, name in zip(axes, names, strict=True):
        wide = errors[errors["forget_set"] == name].pivot(index="model", columns="reference", values="rms")
        wide, style = wide[["out-average", "regression"]], plots.look(name)
        ax.plot([0, 1], wide.to_numpy().T, marker=style.marker, lw=1.0, mec="white", color=style.colour)
        repeats = noise.loc[noise["kind"] == errors.loc[errors["forget_set"] == name, "kind"].iloc[0], "rms"]
        if len(repeats):
            ax.axhspan(repeats.min(), repeats.max(), color=plots.FLOOR, lw=0, zorder=0)
            ax.annotate("new data order alone", (-0.3, repeats.max()), xytext=(2, 2), textcoords="offset points",
                        fontsize=6, color=plots.GREY, zorder=5,
                        bbox={"fc": "white", "ec": "none", "pad": 0.5, "alpha": 0.8})  # fmt: skip
        ax.set(xlim=(-0.35, 1.6), title=name)
        ax.set_xticks([0, 1], ["out-average", "regression"])
    axes[0].set(ylim=(0, None), ylabel="error, RMS nats per example")
    for ax, name in zip(axes, names, strict=True):
        last = errors[(errors["forget_set"] == name) & (errors["reference"] == "regression")]
        ends = {f"model {m}": (1.0, rms, plots.INK) for m, rms in zip(last["model"], last["rms"], strict=True)}
        plots.label_ends(ax, ends)
    return fig


def exposure(panels: Mapping[str, Mapping]) -> Figure:
    """GenEx against unlearning step, one panel a set; a panel holds the arguments of `exposure_panel`."""
    columns = 4 if len(panels) in (7, 8) else min(3, len(panels))
    rows = int(np.ceil(len(panels) / columns))
    fig, axes = plots.grid(rows, columns, height_in=1.35 if rows > 1 else 1.9)
    for ax, (name, panel) in zip(axes.flat, panels.items(), strict=False):
        plots_study.exposure_panel(ax, name=name, **panel)
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_visible(False)
    for ax in axes[:, 0]:
        ax.set_ylabel("GenEx, nats")
    for ax in list(axes.flat)[max(0, len(panels) - columns) : len(panels)]:
        ax.set_xlabel("step" if columns > 3 else "unlearning step")
    return fig


def forests(
    panels: Mapping[str, tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame | None]],
    *,
    value: str,
    order: Sequence[str],
    xlabel: str,
    share_x: bool = False,
    lines: Sequence[float] = (0.0,),
    loss: bool = False,
) -> Figure:
    """Side by side: one row a set, every run and the mean with its interval.

    Args:
        panels: title -> (intervals, runs, censored or None).
        value: column of the runs.
        order: sets, from the top.
        xlabel: with its unit, once for all panels.
        share_x: one scale for all panels.
        lines: vertical reference lines.
        loss: the values are performance lost, nats per token (see `loss_scale`).
    """
    fig, axes = plots.grid(1, len(panels), height_in=0.75 + 0.24 * len(order), sharey=True, sharex=share_x)
    for ax, (title, (table, runs, censored)) in zip(axes[0], panels.items(), strict=True):
        plots_study.forest(ax, table, runs, value=value, order=order, censored=censored)
        for line in lines:
            ax.axvline(line, color=plots.INK, lw=0.7, zorder=1)
        ax.set_title(title)
        if loss:
            loss_scale(ax, "x")
    _shared_label(axes[0], xlabel)
    return fig


def _shared_label(axes: Sequence, label: str) -> None:
    """One label under the middle axes, or under each of two."""
    middle = [len(axes) // 2] if len(axes) % 2 else [len(axes) // 2 - 1]
    for i in range(len(axes)) if len(axes) <= 2 else middle:
        axes[i].set_xlabel(plots.wrapped(label) if len(axes) == 2 else label)


def loss_scale(ax: Axes, axis: str = "y", *, linear: float = 0.1) -> None:
    """Performance lost spans from hundredths of a nat to several: logarithmic beyond ± `linear` if it does so here.

    Args:
        ax: axes with all their data; axes that share the scale follow.
        axis: x or y.
        linear: the scale is linear up to here, nats per token.
    """
    low, high = getattr(ax.dataLim, f"interval{axis}")
    if max(-low, high) < 10 * linear:
        return
    getattr(ax, f"set_{axis}scale")("symlog", linthresh=linear, linscale=1.0)
    which = getattr(ax, f"{axis}axis")
    which.set_major_locator(FixedLocator([-10, -1, -linear, 0, linear, 1, 10]))
    which.set_minor_locator(FixedLocator([-0.3, 0.3, 3, 30]))
    which.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
    getattr(ax, f"set_{axis}lim")(**{"right" if axis == "x" else "top": 1.6 * high})  # marks stay whole
    which.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
    ax.tick_params(axis=axis, which="minor", labelsize=6)
