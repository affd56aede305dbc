"""What training taught: gains over the base, exposure of the originals, influence of set on set, exact partners."""

from collections.abc import Sequence
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from paper import look, marks, runs, words
from paper.look import Looks
from unlearning.core import effects
from unlearning.data.kinds import POPULATIONS


def gains(study: runs.Study, split: str = "heldout") -> pd.DataFrame:
    """What fine-tuning is worth: trained_with, model, base, before (its base), after (θ0), gain, nats per token."""
    base = (study.design["base"] > 0).astype(int)
    both = pd.DataFrame({"base": base, "before": base.map(study.scores("base", split))})
    names = words.ordered(study.references, first=look.TRAINED)
    tables = {name: both.assign(after=study.scores(name, split)) for name in names}
    return pd.concat(tables, names=["trained_with", "model"]).eval("gain = after - before").reset_index()


def gains_figure(epochs: pd.DataFrame, gained: pd.DataFrame, *, confidence: float) -> Figure:
    """Validation by epoch (rows of training.csv), and the gain of every model over its own base."""
    fig, ((left, right),) = look.grid(1, 2, height_in=2.1, gridspec_kw={"width_ratios": [1.25, 1]})
    for name, table in epochs.groupby("trained_with", sort=False):
        wide = table.pivot(index="model", columns="epoch", values="validation_log_likelihood_per_token")
        marks.runs_and_mean(left, wide, look.TRAINED[name], label=name)
    left.set(xlabel="epoch (0: base model)", ylabel="validation,\nnats per token", title="training")
    left.legend(loc="lower right")
    rows = gained.rename(columns={"trained_with": "forget_set"})  # a row of the forest is a training optimizer
    mean = words.means(rows, "gain", by=["forget_set"], confidence=confidence)
    marks.forest(right, mean, [(rows, ".")], "gain", look.only(look.TRAINED, set(mean["forget_set"])))
    marks.zero_line(right, vertical=True)
    right.set(xlabel="gain over its base,\nnats per token", title="held-out, every model")
    return fig


def learnt(study: runs.Study, trained_with: str) -> pd.DataFrame:
    """GenEx of θ0 by set, and how much of it is the instance and not its generator, nats per example; n: models;
    memorized: yes (at least half is the instance's own) | no | unknown."""
    rows = []
    for name in study.forget_sets:
        found = runs.start(study, trained_with, name)
        generator, instance, share = found["estimate"].reindex(["generator_0", "instance_0", "instance_share"])
        whole, n = found.loc["exposure_0", ["estimate", "low", "high"]], len(study.references[trained_with])
        rows.append((name, study.kind(name), *whole, generator, n, instance, share, runs.memorized(share)))
    names = ["forget_set", "kind", "estimate", "low", "high", "generator", "n", "instance", "instance_share"]
    return pd.DataFrame(rows, columns=[*names, "memorized"]).assign(trained_with=trained_with)


def learnt_figure(table: pd.DataFrame, looks: Looks) -> Figure:
    """Exposure of the originals, a bar a set: generator part hatched, instance part full, the whole with its limits."""
    panels, order = list(table.groupby("trained_with", sort=False)), list(dict.fromkeys(table["forget_set"]))
    fig, axes = look.grid(1, len(panels), height_in=0.6 + 0.24 * len(order), sharex=True, sharey=True)
    for ax, (name, rows) in zip(axes[0], panels, strict=True):
        for at, row in enumerate(rows.itertuples()):
            colour, known = looks[row.forget_set].colour, row.memorized != "unknown"
            generator, instance = (row.generator, row.instance) if known else (0.0, row.estimate)
            start = max(generator, 0.0)  # a generator part below zero is drawn to the left of zero
            ax.barh(at, generator, height=0.5, facecolor="white", edgecolor=colour, hatch="////", lw=0.6)
            ax.barh(at, instance, left=start, height=0.5, color=colour, alpha=0.75 if known else 0.3, lw=0)
            if row.memorized != "yes":
                end = np.nanmax([row.estimate, row.high, start]), at
                offset = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": 6}
                ax.annotate("not memorized" if known else "parts not known", end, **offset)
        marks.intervals(ax, range(len(rows)), rows, look.Look(look.INK), flat=True, marker="")
        marks.zero_line(ax, vertical=True)
        ax.set(xlabel="GenEx of θ0, nats per example", title=f"trained with {name}")
        ax.margins(x=0.12)
    marks.name_rows(axes[0, 0], order)
    return fig


def look_alikes(design: pd.DataFrame, *, least: float = 0.5) -> pd.DataFrame:
    """Interactions that would be read as a third column's effect: a, b, looks_like, share of it (−1 to 1)."""
    rows = []
    for a, b in combinations(design, 2):
        share = design.drop(columns=[a, b]).mul(design[a] * design[b], axis=0).mean()
        rows += [(a, b, third, value) for third, value in share.items() if abs(value) >= least]
    return pd.DataFrame(rows, columns=["a", "b", "looks_like", "share"])


def influence(study: runs.Study, trained_with: str) -> pd.DataFrame:
    """By how much training on each set raises each group of examples (scored_on: a set, `never-<kind>`, heldout,
    retain): twice the main effect, nats per example. The limits are NaN where no column is free."""
    means = study.references[trained_with].T.groupby(study.examples["forget_set"]).mean().T
    design = study.design.loc[means.index]
    found = effects.influence_matrix(means.to_numpy(), design.to_numpy(), confidence=study.confidence)
    cells = pd.MultiIndex.from_product([design.columns, means.columns], names=["trained_on", "scored_on"])
    limits = {"estimate": found.effect.ravel(), "low": found.low.ravel(), "high": found.high.ravel()}
    return pd.DataFrame({**limits, "df": found.df}, index=cells).reset_index().assign(trained_with=trained_with)


def clear(cells: pd.DataFrame) -> pd.Series:
    """Whether each interval excludes zero."""
    return (cells["low"] > 0) | (cells["high"] < 0)


def influence_figure(matrix: pd.DataFrame, rows: Sequence[str], columns: Sequence[str]) -> Figure:
    """What training on each column's set does to each row's examples; hatched where the interval includes zero."""
    table = matrix.assign(clear=clear(matrix)).pivot(index="scored_on", columns="trained_on")
    values, sure = (table[name].loc[rows, columns].to_numpy() for name in ("estimate", "clear"))
    fig, ((ax,),) = look.grid(height_in=1.1 + 0.2 * len(rows))
    ax.patch.set(facecolor="white", edgecolor=look.FLOOR, hatch="////")  # seen where a cell is left out
    limits = {"vmin": -np.abs(values).max(), "vmax": np.abs(values).max()}
    norm = SymLogNorm(1.0, base=10, **limits)  # linear to one nat, logarithmic beyond
    text = [[words.number(x, ".1f" if abs(x) >= 0.995 else ".2f") for x in row] for row in values]
    style = {"annot": np.array(text), "fmt": "", "norm": norm, "cmap": "RdBu_r", "ax": ax} | limits
    plain = {"fontsize": 5.5, "color": "#6e6e6e", "bbox": {"fc": "white", "ec": "none", "pad": 0.6}}
    bar = {"fraction": 0.04, "pad": 0.02, "label": "nats per example", "format": lambda x, _: words.number(x, ".4g")}
    seaborn.heatmap(values, mask=~sure, annot_kws={"fontsize": 5.5, "weight": "bold"}, cbar_kws=bar, **style)
    for number, value in zip(ax.texts, values[sure], strict=True):  # seaborn would write white on orange
        number.set_color("white" if abs(norm(value) - 0.5) > 0.3 else look.INK)
    seaborn.heatmap(values, mask=sure, annot_kws=plain, cbar=False, alpha=0, **style)  # numbers alone
    for j, i in ((columns.index(name), rows.index(name)) for name in columns if name in rows):
        ax.add_patch(Rectangle((j, i), 1, 1, fill=False, ec=look.INK, lw=1.2, zorder=4, clip_on=False))
    ax.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(np.arange(len(rows)) + 0.5, rows, rotation=0)
    ax.set(xlabel="trained on (base: second base model instead of the first)", ylabel="scored on")
    ax.set_title(f"trained with {matrix['trained_with'].iloc[0]}", loc="left")
    ax.tick_params(length=0)
    ax.grid(visible=False)
    return fig


def partner_errors(study: runs.Study, partners: pd.DataFrame) -> pd.DataFrame:
    """How far two kinds of reference are from the model retrained without the set, on its examples: rms and bias (mean
    of reference − partner), nats per example."""
    rows = []
    for (trained_with, model, name), partner in partners.groupby(["trained_with", "model", "left_out"]):
        ids, outside = study.members(name), study.held_by(name, trained_with, inside=False).mean().to_numpy()
        exact = partner.set_index("example_id")["log_likelihood"].reindex(ids).to_numpy(dtype=float)
        fitted = runs.reference_of(study, trained_with, name, model, ids)
        for kind, error in (("regression", fitted - exact), ("out-average", outside - exact)):
            rows.append((model, name, kind, np.sqrt(np.mean(error**2)), np.mean(error), len(ids)))
    return pd.DataFrame(rows, columns=["model", "forget_set", "reference", "rms", "bias", "examples"])


def repeat_noise(study: runs.Study, repeats: pd.DataFrame) -> pd.DataFrame:
    """What another data order alone changes: model, kind, rms (nats per never-trained example)."""
    kinds, rows = study.examples["kind"][study.examples["forget_set"].isin(POPULATIONS)], []
    for (trained_with, model), again in repeats.groupby(["trained_with", "model"]):
        change = again.set_index("example_id")["log_likelihood"] - study.references[trained_with].loc[model]
        rms = np.sqrt((change.astype(float) ** 2).groupby(kinds).mean())
        rows += [(model, *row) for row in rms.items()]
    return pd.DataFrame(rows, columns=["model", "kind", "rms"])


def partners_figure(study: runs.Study, errors: pd.DataFrame, noise: pd.DataFrame, looks: Looks) -> Figure | str:
    """Error of two kinds of reference against the exact partner; grey: what a new data order alone changes."""
    if not len(errors):
        return "no exact partner was trained"
    kinds, style = ["out-average", "regression"], {"xlabel": "error, RMS nats per example"}
    fig = marks.forests(errors, "rms", looks, kinds, by="reference", confidence=study.confidence, **style)
    order = look.only(looks, set(errors["forget_set"]))
    fig.set_figheight(0.8 + 0.45 * len(order))
    for ax in fig.axes:
        for at, name in enumerate(order):
            alone = noise.loc[noise["kind"] == study.kind(name), "rms"]
            ax.barh(at, alone.max() - alone.min(), left=alone.min(), height=0.9, color=look.FLOOR, zorder=0)
    plt.setp(fig.axes, xlim=(0, max(ax.get_xlim()[1] for ax in fig.axes)))
    return fig
