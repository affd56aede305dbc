"""What training taught: gains over the base, exposure of the originals, influence of set on set, exact partners."""

from collections.abc import Sequence
from functools import partial
from itertools import product

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

ITSELF = "the set itself"
MARKERS = {"regression": "o", "out-average": "s"}  # of the two references


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
    mean, shown = words.means(gained, "gain", by=["trained_with"], confidence=confidence), set(gained["trained_with"])
    marks.forest(right, mean, gained, "gain", look.only(look.TRAINED, shown), by="trained_with")
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
        key = study.family(name), name, study.kind(name)
        rows.append((*key, *whole, generator, n, instance, share, runs.memorized(share)))
    names = ["family", "forget_set", "kind", "estimate", "low", "high", "generator", "n", "instance", "instance_share"]
    return pd.DataFrame(rows, columns=[*names, "memorized"]).assign(trained_with=trained_with)


def learnt_figure(table: pd.DataFrame, looks: Looks) -> Figure:
    """Exposure of the originals, a bar a family (mean over draws): generator part hatched, instance part full; every
    draw a point with its limits."""
    panels, order = list(table.groupby("trained_with", sort=False)), list(dict.fromkeys(table["family"]))
    fig, axes = look.grid(1, len(panels), height_in=0.6 + 0.3 * len(order), sharex=True, sharey=True)
    for ax, (name, rows) in zip(axes[0], panels, strict=True):
        for at, family in enumerate(order):
            draws, colour = rows[rows["family"] == family], looks[family].colour
            known, all_of = not draws["memorized"].eq("unknown").any(), draws["memorized"].eq("yes").all()
            generator, instance = draws[["generator", "instance"]].mean() if known else (0.0, draws["estimate"].mean())
            start = max(generator, 0.0)  # a generator part below zero is drawn to the left of zero
            ax.barh(at, generator, height=0.6, facecolor="white", edgecolor=colour, hatch="////", lw=0.6)
            ax.barh(at, instance, left=start, height=0.6, color=colour, alpha=0.75 if known else 0.3, lw=0)
            if not all_of:
                offset = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": 6}
                text, end = "not memorized" if known else "parts not known", draws[["estimate", "high"]].max(axis=None)
                ax.annotate(text, (np.nanmax([end, start]), at), **offset)
            where = at + 0.5 * ((np.arange(len(draws)) + 0.5) / len(draws) - 0.5)
            points = {"flat": True, "ms": 2, "elinewidth": 0.6, "capsize": 0, "mew": 0}
            marks.intervals(ax, where, draws, look.Look(look.INK), **points)
        marks.zero_line(ax, vertical=True)
        ax.set(xlabel="GenEx of θ0, nats per example", title=f"trained with {name}")
        ax.margins(x=0.12)
    marks.name_rows(axes[0, 0], order)
    return fig


def influence(study: runs.Study, trained_with: str) -> pd.DataFrame:
    """By how much training on one more set of each family raises each group of examples (scored_on: a family, mean over
    its draws, `never-<kind>`, heldout, retain), nats per example; trained_on also `base` and ITSELF, the set scored.

    A draw's own effect is taken out of its scores first, so that a family's effect on itself is that of another draw; a
    family of one draw has none. Columns are orthogonal: draws add, and their own effects' errors are independent.
    """
    means = study.references[trained_with].T.groupby(study.examples["forget_set"]).mean().T
    design, fit = study.design.loc[means.index], partial(effects.influence_matrix, confidence=study.confidence)
    others = [group for group in means if group not in study.forget_sets]
    scores, itself, names = means[others].copy(), [], ["trained_on", "scored_on", "estimate", "low", "high"]
    for family, draws in study.families.items():
        found = [fit(means[[name]].to_numpy(), design[["base", name]].to_numpy()) for name in draws]
        own, half = np.array([(f.effect[1, 0], f.high[1, 0] - f.effect[1, 0]) for f in found]).T
        scores[family] = (means[draws] - design[draws] * own / 2).mean(axis=1)
        limit = np.sqrt(np.sum(half**2)) / len(draws)
        itself.append((ITSELF, family, own.mean(), own.mean() - limit, own.mean() + limit))
    held = {"base": design["base"]} | {name: design[draws].sum(axis=1) for name, draws in study.families.items()}
    held = pd.DataFrame(held)
    found = fit(scores.to_numpy(), held.to_numpy())
    pairs, limits = list(product(held, scores)), (found.effect.ravel(), found.low.ravel(), found.high.ravel())
    cells = pd.DataFrame([(*pair, *row) for pair, *row in zip(pairs, *limits, strict=True)], columns=names)
    same = cells["trained_on"] == cells["scored_on"]
    n = cells["trained_on"].map({name: len(draws) for name, draws in study.families.items()})
    cells.loc[same, names[2:]] = cells.loc[same, names[2:]].mul(n / (n - 1), axis=0)  # of n draws, n − 1 are others
    table = pd.concat([pd.DataFrame(itself, columns=names), cells[~same | (n > 1)]], ignore_index=True)
    return table.assign(trained_with=trained_with)


def clear(cells: pd.DataFrame) -> pd.Series:
    """Whether each interval excludes zero."""
    return (cells["low"] > 0) | (cells["high"] < 0)


def influence_figure(matrix: pd.DataFrame, rows: Sequence[str], columns: Sequence[str]) -> Figure:
    """What training on a set of each column's family does to each row's examples; hatched where the interval includes
    zero, empty where there is no such effect."""
    grid = matrix.assign(clear=clear(matrix)).pivot(index="scored_on", columns="trained_on")
    values, sure = (grid[name].reindex(index=rows, columns=columns).to_numpy() for name in ("estimate", "clear"))
    sure = np.equal(sure, True).astype(bool)  # NaN where there is no such effect
    fig, ((ax,),) = look.grid(height_in=1.1 + 0.2 * len(rows))
    ax.patch.set(facecolor="white", edgecolor=look.FLOOR, hatch="////")  # seen where a cell is left out
    limits = {"vmin": -np.nanmax(np.abs(values)), "vmax": np.nanmax(np.abs(values))}
    norm = SymLogNorm(1.0, base=10, **limits)  # linear to one nat, logarithmic beyond
    rounded = np.where(np.abs(values) < 0.995, values.round(2), values) + 0.0  # no −0.00
    text = [[words.number(x, ".1f" if abs(x) >= 0.995 else ".2f", "") for x in row] for row in rounded]
    style = {"annot": np.array(text), "fmt": "", "norm": norm, "cmap": "RdBu_r", "ax": ax} | limits
    plain = {"fontsize": 5.5, "color": "#6e6e6e", "bbox": {"fc": "white", "ec": "none", "pad": 0.6}}
    bar = {"fraction": 0.04, "pad": 0.02, "label": "nats per example", "format": lambda x, _: words.number(x, ".4g")}
    seaborn.heatmap(values, mask=~sure, annot_kws={"fontsize": 5.5, "weight": "bold"}, cbar_kws=bar, **style)
    for number, value in zip(ax.texts, values[sure], strict=True):  # seaborn would write white on orange
        number.set_color("white" if abs(norm(value) - 0.5) > 0.3 else look.INK)
    without = {"mask": sure | np.isnan(values), "annot_kws": plain, "cbar": False, "alpha": 0}  # numbers alone
    seaborn.heatmap(values, **without, **style)
    for j, i in ((columns.index(name), rows.index(name)) for name in columns if name in rows):
        ax.add_patch(Rectangle((j, i), 1, 1, fill=False, ec=look.INK, lw=1.2, zorder=4, clip_on=False))
    ax.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(np.arange(len(rows)) + 0.5, rows, rotation=0)
    ax.set(xlabel="trained on one more set of (base: second base model instead of the first)", ylabel="scored on")
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
            key = trained_with, model, study.family(name), name, kind
            rows.append((*key, np.sqrt(np.mean(error**2)), np.mean(error), len(ids)))
    names = ["trained_with", "model", "family", "forget_set", "reference", "rms", "bias", "examples"]
    return pd.DataFrame(rows, columns=names)


def repeat_noise(study: runs.Study, repeats: pd.DataFrame) -> pd.DataFrame:
    """What another data order alone changes: trained_with, model, kind, rms (nats per never-trained example)."""
    kinds, rows = study.examples["kind"][study.examples["forget_set"].isin(POPULATIONS)], []
    for (trained_with, model), again in repeats.groupby(["trained_with", "model"]):
        change = again.set_index("example_id")["log_likelihood"] - study.references[trained_with].loc[model]
        rms = np.sqrt((change.astype(float) ** 2).groupby(kinds).mean())
        rows += [(trained_with, model, *row) for row in rms.items()]
    return pd.DataFrame(rows, columns=["trained_with", "model", "kind", "rms"])


def partners_figure(study: runs.Study, errors: pd.DataFrame, noise: pd.DataFrame, looks: Looks) -> Figure | str:
    """Error of two kinds of reference against each exact partner, a panel a training optimizer; grey: what a new data
    order alone changes."""
    if not len(errors):
        return "no exact partner was trained"
    order, panels = list(dict.fromkeys(errors["forget_set"])), list(errors.groupby("trained_with", sort=False))
    fig, axes = look.grid(1, len(panels), height_in=0.9 + 0.22 * len(order), sharex=True, sharey=True)
    for ax, (name, table) in zip(axes[0], panels, strict=True):
        for at, draw in enumerate(order):
            here = (noise["trained_with"] == name) & (noise["kind"] == study.kind(draw))
            alone, mine = noise.loc[here, "rms"], table[table["forget_set"] == draw]
            ax.barh(at, alone.max() - alone.min(), left=alone.min(), height=0.9, color=look.FLOOR, zorder=0)
            for reference, marker in MARKERS.items():
                rms, filled = mine.loc[mine["reference"] == reference, "rms"], reference == "regression"
                for colour, label, x in ((looks[draw].colour, None, rms), (look.INK, reference, rms[:0])):
                    face = colour if filled else "white"
                    ax.plot(x, [at] * len(x), marker, mec=colour, mfc=face, label=label)
        ax.set(xlabel="error, RMS nats per example", title=f"trained with {name}", xlim=(0, None))
    marks.name_rows(axes[0, 0], order)
    marks.legend(fig, marks.labelled(axes[0, :1], {}))
    return fig
