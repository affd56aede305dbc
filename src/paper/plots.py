"""One style, one colour table, and the small parts that every figure is made of. Imports no torch.

A figure is 5 in wide and 900 px across, on opaque white. A forget set has the same colour, line and marker in
every figure of the study; kinds differ in hue *and* in line, strata of one kind in lightness *and* in marker,
so that a figure holds in grey and for colour-blind readers (hues: Okabe and Ito 2008).
"""

from __future__ import annotations

import os
import textwrap
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

WIDTH_IN = 5.0
DPI = 180

STYLE: dict[str, object] = {
    "figure.dpi": DPI,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.dpi": DPI,
    "savefig.facecolor": "white",
    "savefig.transparent": False,
    "svg.hashsalt": "unlearning",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "axes.titlesize": 8.0,
    "axes.labelsize": 8.0,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.fontsize": 7.0,
    "legend.frameon": False,
    "legend.columnspacing": 1.2,
    "legend.handletextpad": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "axes.linewidth": 0.6,
    "hatch.linewidth": 0.4,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.0,
}

INK, GREY, FLOOR = "#222222", "#8c8c8c", "#d9d9d9"

# One colour a forget set (or kind), everywhere.
COLOURS: dict[str, str] = {
    "ind-a": "#0072b2",
    "ind-b": "#5aaee0",
    "ind-x4": "#1f4e8c",
    "ind-x16": "#0b2545",
    "ood-canary-a": "#d55e00",
    "ood-canary-b": "#eda63b",
    "ood-secret-x1": "#3cc29a",
    "ood-secret-x4": "#00916a",
    "ood-secret-x16": "#00523c",
    "natural": "#0072b2",
    "canary": "#d55e00",
    "secret": "#00916a",
    "heldout": "#555555",
    "retain": "#9a7b4f",
    "base": "#555555",
}
_OWN_COLOURS = ("#cc79a7", "#882255", "#6f4fa2", "#a6478c")
_LINES: dict[str, object] = {"natural": "-", "canary": (0, (4, 1.5)), "secret": (0, (6, 1.5, 1, 1.5))}
_PREFIXES = {"ind": "natural", "ood-canary": "canary", "ood-secret": "secret"}
_MARKERS = {"-a": "o", "-b": "s", "-x1": "o", "-x4": "^", "-x16": "D"}
_OWN_MARKERS = ("P", "X", "v", "p")

# How a training optimizer and a method of ascent are told apart where both stand in one figure.
ARM_MARKERS: dict[str, str] = {
    "adamw": "o",
    "adafactor-restored": "s",
    "adamw-on-adafactor": "D",
    "adafactor-fresh": "^",
    "sgd": "v",
}


@dataclass(frozen=True)
class Look:
    """How one forget set is drawn: colour, line style and marker."""

    colour: str
    line: object
    marker: str

    @property
    def line_kw(self) -> dict[str, object]:
        """Keywords for a line without markers."""
        return {"color": self.colour, "linestyle": self.line}

    @property
    def point_kw(self) -> dict[str, object]:
        """Keywords for a point."""
        return {"color": self.colour, "marker": self.marker, "linestyle": "none"}


def look(name: str) -> Look:
    """The look of a forget set, kind or population; that of a set of one's own depends on its name alone."""
    stable = zlib.crc32(name.encode())
    bare = name.removeprefix("never-")
    kind = next((kind for prefix, kind in _PREFIXES.items() if bare.startswith(prefix)), bare)
    marker = next((m for ending, m in _MARKERS.items() if bare.endswith(ending)), None)
    return Look(
        colour=COLOURS.get(bare, _OWN_COLOURS[stable % len(_OWN_COLOURS)]),
        line=_LINES.get(kind, ":"),
        marker=marker or ("o" if bare in COLOURS else _OWN_MARKERS[stable % len(_OWN_MARKERS)]),
    )


def solid(name: str) -> Look:
    """The look of a set that has a panel of its own: its colour, unbroken lines."""
    return Look(look(name).colour, "-", look(name).marker)


def use_style() -> None:
    """Set the study's style, for files and for the figures inside a notebook (PNG, uncropped)."""
    mpl.rcParams.update(STYLE)
    try:
        from IPython import get_ipython
        from matplotlib_inline.config import InlineBackend
    except ImportError:
        return
    shell = get_ipython()
    if shell is not None:
        inline = InlineBackend.instance(parent=shell)
        inline.figure_formats = {"png"}
        inline.print_figure_kwargs = {"bbox_inches": None, "metadata": {"Software": None}}


def grid(rows: int = 1, columns: int = 1, *, height_in: float, **kw: object) -> tuple[Figure, np.ndarray]:
    """A figure of the study's width with `rows × columns` axes, `height_in` inches a row.

    Returns:
        the figure, and the axes as a (rows, columns) array.
    """
    kw = {"squeeze": False, **kw}
    return plt.subplots(rows, columns, figsize=(WIDTH_IN, height_in * rows), **kw)


def note(fig: Figure, text: str, *, stage: str | None = None, width: int = 112) -> None:
    """Write under a figure what its interval, n and resampling unit are, and the DVC stage that drew it."""
    stage = os.environ.get("DVC_STAGE") or stage
    text = f"{text} DVC stage: {stage}." if stage else text
    lines = textwrap.fill(" ".join(text.split()), width)
    fig.supxlabel(lines, x=0.01, ha="left", fontsize=6.0, color="#444444")


def wrapped(label: str, width: int = 26) -> str:
    """An axis label broken into lines, so that it does not run over its axes."""
    return textwrap.fill(label, width)


def save(fig: Figure, name: str, folder: str | os.PathLike[str] = "figures") -> None:
    """Write `folder/name.png` and `folder/name.svg`: the same bytes for the same figure."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": STYLE["svg.hashsalt"]}):
        fig.savefig(folder / f"{name}.png", dpi=DPI, facecolor="white", metadata={"Software": None})
        fig.set_layout_engine("none")  # places are found: drawing it again need not look for them
        fig.savefig(folder / f"{name}.svg", facecolor="white", metadata={"Date": None})


def absent(name: str, reason: str, folder: str | os.PathLike[str] = "figures") -> None:
    """A figure that cannot be drawn: its reason, in words, printed and in the file that a reader will look for."""
    fig, ((ax,),) = grid(height_in=0.6)
    ax.axis("off")
    ax.text(0.5, 0.5, f"Not drawn: {reason}.", ha="center", va="center", color="#444444")
    save(fig, name, folder)
    plt.close(fig)
    print(f"{name} is not drawn: {reason}.")


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
    for name, wanted, placed in zip(names, heights, spread(heights, gap=gap_pt), strict=True):
        x, y, colour = ends[name]
        ax.annotate(
            name, (x, y), xytext=(4, placed - wanted), textcoords="offset points", va="center",
            color=colour, fontsize=6.5, annotation_clip=False,
        )  # fmt: skip


def spread(values: Sequence[float], *, gap: float) -> np.ndarray:
    """Move ascending values apart to at least `gap`, each group kept around its mean.

    Returns:
        (n,) ascending positions; equal to `values` where these are far enough apart already.
    """
    groups: list[list[float]] = []  # [mean of wanted positions, count]
    for value in values:
        groups.append([float(value), 1.0])
        while len(groups) > 1 and _overlap(groups[-2], groups[-1], gap):
            (m1, n1), (m2, n2) = groups[-2], groups.pop()
            groups[-1] = [(m1 * n1 + m2 * n2) / (n1 + n2), n1 + n2]
    return np.concatenate([m + gap * (np.arange(n) - (n - 1) / 2) for m, n in groups] or [np.empty(0)])


def _overlap(lower: list[float], upper: list[float], gap: float) -> bool:
    return upper[0] - lower[0] < gap * (lower[1] + upper[1]) / 2 - 1e-9


def runs_and_mean(ax: Axes, steps: ArrayLike, runs: ArrayLike, style: Look, *, label: str | None = None) -> None:
    """Draw every run thin and their mean thick; the mean stops where the first run ends.

    Args:
        ax: axes to draw on.
        steps: (n_steps,) unlearning steps.
        runs: (n_models, n_steps) values, NaN where a run has none.
        style: the set's look.
        label: legend entry of the mean.
    """
    steps, runs = np.asarray(steps, dtype=float), np.asarray(runs, dtype=float)
    for run in runs:
        here = np.isfinite(run)
        ax.plot(steps[here], run[here], lw=0.5, alpha=0.45, **style.line_kw)
    whole = np.isfinite(runs).all(axis=0)
    if whole.any():
        ax.plot(steps[whole], runs[:, whole].mean(axis=0), lw=2.0, label=label, **style.line_kw)


def interval(ax: Axes, at: float, low: float, mid: float, high: float, style: Look, *, flat: bool = True) -> None:
    """Draw a mean with its interval: along x at height `at` if `flat`, else along y at `at`."""
    if not np.isfinite(mid):
        return
    spans = np.array([[max(mid - low, 0.0)], [max(high - mid, 0.0)]])
    spans = np.nan_to_num(spans)
    kw = {
        "fmt": style.marker,
        "color": style.colour,
        "ms": 5,
        "lw": 1.6,
        "capsize": 2.5,
        "mec": "white",
        "mew": 0.6,
    }
    if flat:
        ax.errorbar([mid], [at], xerr=spans, zorder=4, **kw)
    else:
        ax.errorbar([at], [mid], yerr=spans, zorder=4, **kw)


def zero_line(ax: Axes, *, vertical: bool = False) -> None:
    """A line at zero: as if never seen (GenEx), or nothing lost (performance)."""
    (ax.axvline if vertical else ax.axhline)(0.0, color=INK, lw=0.7, zorder=1)


def trained_look(name: str) -> Look:
    """The look of a training optimizer, where sets are not told apart: dark and full, or grey and dashed."""
    if name == "adamw":
        return Look(INK, "-", "o")
    return Look(GREY, (0, (4, 1.5)), "s") if name == "adafactor" else look(name)
