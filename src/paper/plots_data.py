"""The figures of the two data notebooks: lengths of the corpus, and the design. Imports no torch."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from paper import plots


def lengths_figure(counts: Mapping[str, Mapping[str, np.ndarray]], *, max_tokens: int) -> Figure:
    """Share of pairs by number of tokens, source and target side by side, one line a split.

    Args:
        counts: side (source, target) -> split -> (n,) tokens with the end of sequence.
        max_tokens: the limit, drawn as a line.
    """
    fig, axes = plots.grid(1, 2, height_in=2.4, sharey=True)
    edges = np.arange(0, max_tokens + 4, 3)
    greys = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(counts["target"])))
    lines = ["-", (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1))]
    for ax, (side, splits) in zip(axes[0], counts.items(), strict=True):
        for (name, values), colour, line in zip(splits.items(), greys, lines, strict=False):
            share = np.histogram(values, edges)[0] / len(values) * 100
            label = f"{name} (n = {len(values)})"
            ax.plot(edges[:-1] + 1, share, color=colour, ls=line, lw=1.2, label=label)
        ax.axvline(max_tokens, color=plots.INK, lw=0.7)
        ax.set(xlabel=f"{side} tokens, with end of sequence", xlim=(0, max_tokens + 1))
    axes[0, 0].set_ylabel("pairs, % of the split in 3 tokens")
    axes[0, 1].legend(loc="upper right")
    plots.note(fig, "Every pair of each split. The line on the right is the longest text the models take.")
    return fig


def design_figure(design: pd.DataFrame, repetitions: Mapping[str, int]) -> Figure:
    """Which model holds which forget set, how often (colour and number), and which base it starts from.

    Args:
        design: one row a model; model, base, and 0 or 1 for each set.
        repetitions: forget set -> copies of each example in a training set that holds it.
    """
    names = list(repetitions)
    copies = design[names].to_numpy() * np.array([repetitions[name] for name in names])
    fig, axes = plots.grid(1, 1, height_in=0.9 + 0.17 * len(design))
    ax = axes[0, 0]
    shade = np.where(copies > 0, 0.25 + 0.5 * np.log2(np.maximum(copies, 1)) / 4, 0.0)
    ax.imshow(np.ma.masked_equal(shade, 0), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in zip(*np.nonzero(copies), strict=True):
        dark = shade[row, column] > 0.5
        text = f"×{copies[row, column]}"
        ax.text(column, row, text, ha="center", va="center", fontsize=6, color="white" if dark else plots.INK)
    ax.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    rows = [f"{model} · base {base}" for model, base in zip(design["model"], design["base"], strict=True)]
    ax.set_yticks(range(len(design)), rows)
    ax.set_xticks(np.arange(-0.5, len(names)), minor=True)
    ax.set_yticks(np.arange(-0.5, len(design)), minor=True)
    ax.grid(False, which="major")
    ax.grid(True, which="minor", color="white", lw=1)
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_visible(False)
    ax.set_ylabel("model")
    held = f"{len(design) // 2} of {len(design)} models"
    plots.note(fig, f"Filled: the model is trained on the set, ×n copies of each example. Each set is in {held}.")
    return fig
