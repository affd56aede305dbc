"""How the study looks: one style, one look a family, and one way to show a figure and to say why there is none.

A figure is 5 in wide and 900 px across, on opaque white. A family of forget sets has the same colour, line and marker
in every figure, and so have its draws; kinds differ in hue *and* in line, numbers of repetitions in lightness *and* in
marker, so that a figure holds in grey and for colour-blind readers (hues: Okabe and Ito 2008).
"""

import colorsys
import os
import textwrap
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from unlearning.data import kinds

WIDTH_IN, DPI = 5.0, 180
INK, GREY, FLOOR, FAINT = "#222222", "#8c8c8c", "#d9d9d9", "#bdbdbd"

KINDS = {  # kind -> label, hue, line; what a kind *is* stands in unlearning/data/kinds.py
    "natural": ("sentences", "#0072b2", "-"),
    "canary": ("canaries", "#d55e00", (0, (4, 1.5))),
    "shuffled": ("shuffled words", "#e69f00", (0, (4, 1, 1, 1, 1, 1))),
    "language": ("another language", "#56b4e9", (0, (9, 1.5))),
    "secret": ("secrets", "#00916a", (0, (6, 1.5, 1, 1.5))),
    "own": ("own set", "#cc79a7", (0, (1, 1))),
}
ARM_MARKERS = "osD^vPX*<>hp"  # in the order of the settings, where arms stand in one figure
MARKERS = {1: "o", 4: "^", 16: "D"}  # by repetitions

STYLE: dict[str, object] = {
    "figure.dpi": 96,  # inside notebooks; files have DPI
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "unlearning",
    "font.size": 8.0,
    "axes.titlesize": 8.0,
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


@dataclass(frozen=True)
class Look:
    """How one family is drawn: colour, line style and marker."""

    colour: str
    line: object = "-"
    marker: str = "o"

    @property
    def line_kw(self) -> dict:  # of a line without markers
        return {"color": self.colour, "linestyle": self.line}

    @property
    def point_kw(self) -> dict:
        return {"color": self.colour, "marker": self.marker, "linestyle": "none"}

    @property
    def solid(self) -> "Look":  # where a family has a panel of its own
        return Look(self.colour, "-", self.marker)


Looks = Mapping[str, Look]
TRAINED = {"adamw": Look(INK), "adafactor": Look(GREY, (0, (4, 1.5)), "s")}  # training optimizers


def looks(forget_sets: Mapping[str, Mapping]) -> dict[str, Look]:
    """The look of every kind, family and forget set of the settings, in this order: hue by kind, darker with
    repetitions; a draw looks as its family does."""
    found = {kind: Look(hue, line) for kind, (_, hue, line) in KINDS.items()}
    for family, block in forget_sets.items():
        _, hue, line = KINDS[block["kind"]]
        times = block["repetitions"]
        found[family] = Look(shaded(hue, -0.17 * np.log2(times)), line, MARKERS.get(times, "P"))
    families = kinds.family_names(forget_sets)
    return found | {name: found[family] for family, names in families.items() for name in names}


def only(looks: Looks, names: Collection[str]) -> dict[str, Look]:
    """The looks of some names, in the order of `looks`."""
    return {name: style for name, style in looks.items() if name in names}


def shaded(colour: str, shade: float) -> str:
    """A colour made lighter (shade from 0 to 1: white) or darker (0 to −1: black)."""
    hue, light, full = colorsys.rgb_to_hls(*mpl.colors.to_rgb(colour))
    light = light + shade * (1 - light) if shade > 0 else light * (1 + shade)
    return mpl.colors.to_hex(colorsys.hls_to_rgb(hue, light, full))


def use_style() -> None:
    """Set the study's style, for files and for the figures inside a notebook (PNG, uncropped)."""
    mpl.rcParams.update(STYLE)
    from IPython import get_ipython

    if shell := get_ipython():
        from matplotlib_inline.config import InlineBackend

        inline = InlineBackend.instance(parent=shell)
        inline.figure_formats = {"png"}
        inline.print_figure_kwargs = {"bbox_inches": None, "metadata": {"Software": None}}


def grid(rows: int = 1, columns: int = 1, *, height_in: float, **kw: object) -> tuple[Figure, np.ndarray]:
    """A figure of the study's width and its (rows, columns) array of axes, `height_in` inches a row."""
    return plt.subplots(rows, columns, figsize=(WIDTH_IN, height_in * rows), **{"squeeze": False, **kw})


def wrapped(label: str, width: int = 26) -> str:
    """An axis label broken into lines, so that it does not run over its axes."""
    return textwrap.fill(label, width)


def show(name: str, figure: Figure | str, note: str = "") -> None:
    """Save a figure as figures/<name>.png and .svg and show it, or say why it is not drawn (a reason in its place).

    The note is written under it: what to see; then interval, n and its unit.
    """
    if isinstance(figure, str):
        print(f"{name} is not drawn: {figure}.")
        reason, (figure, ((ax,),)) = figure, grid(height_in=0.6)
        ax.axis("off")
        ax.text(0.5, 0.5, f"Not drawn: {reason}.", ha="center", va="center", color="#444444")
    else:
        stage = os.environ.get("UNLEARNING_STAGE") or name.partition("/")[0]
        text = textwrap.fill(" ".join(f"{note} Stage {stage}.".split()), 112)
        figure.supxlabel(text, x=0.01, ha="left", fontsize=6.0, color="#444444")
    path = Path("figures") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".png"), dpi=DPI, metadata={"Software": None})
    figure.set_layout_engine("none")  # places are found: drawing it again need not look for them
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    plt.show()
    plt.close(figure)
