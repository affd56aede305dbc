"""What training did: gains over the base, exposure of the originals, influence, and exact partners. No torch."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from paper.readings import MEMORIZED_SHARE
from unlearning.core import effects, genex


def gains(trained: pd.DataFrame, base: pd.DataFrame, design: pd.DataFrame, *, split: str) -> pd.DataFrame:
    """What fine-tuning is worth to each model: log-likelihood per token of θ0 minus that of its own base.

    Args:
        trained: performance table of the trained models.
        base: performance table of the base models; its `model` is the index of the base.
        design: model, base, …
        split: of the performance tables.

    Returns:
        model, base, after, before, gain (nats per token).
    """
    after = trained[trained["split"] == split].set_index("model")["log_likelihood_per_token"]
    before = base[base["split"] == split].set_index("model")["log_likelihood_per_token"]
    table = design[["model", "base"]].copy()
    table["after"] = table["model"].map(after)
    table["before"] = table["base"].map(before)
    return table.assign(gain=table["after"] - table["before"])


def group_means(scores: pd.DataFrame, examples: pd.DataFrame) -> pd.DataFrame:
    """Mean log-likelihood of each group of examples under each model, nats per example.

    Returns:
        models by groups; a group is a forget set, a never-trained population, `heldout` or `retain`.
    """
    group = scores["example_id"].map(examples.set_index("example_id")["forget_set"])
    return scores.assign(group=group).pivot_table(index="model", columns="group", values="log_likelihood")


def signs(design: pd.DataFrame) -> pd.DataFrame:
    """The design as ±1, models by columns (`base` and the forget sets)."""
    return 2 * design.set_index("model").sort_index() - 1


def influence(outcomes: pd.DataFrame, design: pd.DataFrame, *, confidence: float = 0.95) -> pd.DataFrame:
    """By how much training on each set raises each group: twice the main effect, with limits.

    Args:
        outcomes: models by groups, nats per example.
        design: model, base and one 0/1 column a set.
        confidence: of each cell.

    Returns:
        trained_on, scored_on, mean, low, high (nats per example), df; limits are NaN where no column is free.
    """
    x = signs(design)
    y = outcomes.reindex(x.index)
    found = effects.influence_matrix(y.to_numpy(), x.to_numpy(), confidence=confidence)
    cells = pd.MultiIndex.from_product([x.columns, y.columns], names=["trained_on", "scored_on"])
    limits = {"mean": found.effect.ravel(), "low": found.low.ravel(), "high": found.high.ravel()}
    return pd.DataFrame({**limits, "df": found.df}, index=cells).reset_index()


def learnt(matrix: pd.DataFrame, kinds: dict[str, str], *, n: int) -> pd.DataFrame:
    """Exposure of the originals by set, and how much of it is the instance and not its generator.

    Args:
        matrix: the influence table.
        kinds: forget set -> kind; the never-trained examples of a kind are the group `never-<kind>`.
        n: number of models.

    Returns:
        forget_set, kind, mean, low, high (GenEx_0), generator, instance (nats per example), instance_share,
        memorized (yes: at least half is the instance's own | no | unknown), n. Without never-trained examples the
        parts are NaN, and what is memorized is unknown.
    """
    cell = matrix.set_index(["trained_on", "scored_on"])
    rows = []
    for name, kind in kinds.items():
        if (name, name) not in cell.index:
            continue
        whole, unseen = cell.loc[(name, name)], (name, f"never-{kind}")
        generator = float(cell.loc[unseen, "mean"]) if unseen in cell.index else np.nan
        rows.append((name, kind, whole["mean"], whole["low"], whole["high"], generator, n))
    table = pd.DataFrame(rows, columns=["forget_set", "kind", "mean", "low", "high", "generator", "n"])
    table["instance"] = table["mean"] - table["generator"]
    table["instance_share"] = table["instance"] / table["mean"]
    answer = np.where(table["instance_share"] >= MEMORIZED_SHARE, "yes", "no")
    return table.assign(memorized=np.where(table["instance_share"].isna(), "unknown", answer))


def influence_reading(matrix: pd.DataFrame, kinds: dict[str, str]) -> str:
    """The influence table in words: company within and across kinds, and what moves held-out."""
    cells = matrix[matrix["scored_on"].isin(kinds) & matrix["trained_on"].isin(kinds)]
    cells = cells[cells["trained_on"] != cells["scored_on"]]
    same = cells["trained_on"].map(kinds) == cells["scored_on"].map(kinds)
    parts = []
    for name, some in (("of the same kind", cells[same]), ("of another kind", cells[~same])):
        clear = ((some["low"] > 0) | (some["high"] < 0)).sum()
        if len(some):
            parts.append(f"a set {name} moves another by {some['mean'].mean():+.2f} nats on average "
                         f"({clear} of {len(some)} intervals exclude 0)")  # fmt: skip
    never = matrix[matrix["scored_on"].str.startswith("never-") & matrix["trained_on"].isin(kinds)]
    never = never[never["scored_on"].str.removeprefix("never-") != never["trained_on"].map(kinds)]
    if len(never):
        clear, most = ((never["low"] > 0) | (never["high"] < 0)).sum(), never.loc[never["mean"].abs().idxmax()]
        parts.append(f"never-trained examples of another kind: {clear} of {len(never)} intervals exclude 0, the "
                     f"largest {most['trained_on']} on {most['scored_on']}, {most['mean']:+.2f}")  # fmt: skip
    held = matrix[(matrix["scored_on"] == "heldout") & matrix["trained_on"].isin(kinds)]
    if len(held):
        most = held.loc[held["mean"].abs().idxmax()]
        parts.append(f"held-out moves most with {most['trained_on']}, {most['mean']:+.2f} nats per example")
    if matrix["low"].isna().all():
        parts.append("no column is left free, so no cell has an interval")
    return "; ".join(parts).replace(" -", " −") + "."


def wide(scores: pd.DataFrame, ids: Iterable[str]) -> pd.DataFrame:
    """Models by examples, log-likelihood in nats, in the order of `ids`."""
    ids = list(ids)
    chosen = scores[scores["example_id"].isin(set(ids))]
    return chosen.pivot(index="model", columns="example_id", values="log_likelihood").reindex(columns=ids)


def partner_errors(
    partners: pd.DataFrame, references: pd.DataFrame, examples: pd.DataFrame, design: pd.DataFrame
) -> pd.DataFrame:
    """How far two kinds of reference are from the model retrained without the set, on the set's examples.

    Returns:
        model, forget_set, reference (regression | out-average), rms (nats per example), bias (mean of
        reference − partner, nats per example), examples.
    """
    x, rows = signs(design), []
    for (model, name), partner in partners.groupby(["model", "left_out"], sort=True):
        ids = examples.loc[examples["forget_set"] == name, "example_id"]
        exact = partner.set_index("example_id")["log_likelihood"].reindex(ids).to_numpy()
        scores = wide(references, ids).reindex(x.index)
        out = scores[x[name] < 0].mean(axis=0).to_numpy()
        row, column = x.index.get_loc(model), x.columns.get_loc(name)
        fitted = genex.predicted_reference(scores.to_numpy(), x.to_numpy(), model=row, column=column)
        for kind, reference in (("regression", fitted), ("out-average", out)):
            error = reference - exact
            rows.append((model, name, kind, np.sqrt(np.mean(error**2)), np.mean(error), len(error)))
    return pd.DataFrame(rows, columns=["model", "forget_set", "reference", "rms", "bias", "examples"])


def repeat_noise(repeats: pd.DataFrame, references: pd.DataFrame, examples: pd.DataFrame) -> pd.DataFrame:
    """What another data order alone changes: root mean square over never-trained examples, by kind.

    Returns:
        model, kind, rms (nats per example), examples.
    """
    unseen = examples[examples["forget_set"].str.startswith("never-")].set_index("example_id")["kind"]
    both = repeats.merge(references[["model", "example_id", "log_likelihood"]], on=["model", "example_id"])
    both = both[both["example_id"].isin(unseen.index)]
    square = (both["log_likelihood_x"] - both["log_likelihood_y"]) ** 2
    both = both.assign(kind=both["example_id"].map(unseen), square=square)
    table = both.groupby(["model", "kind"], as_index=False).agg(rms=("square", "mean"), examples=("square", "size"))
    return table.assign(rms=np.sqrt(table["rms"]))


def balance(design: pd.DataFrame) -> dict[str, float]:
    """How balanced a design is: 0 where every column, and every pair of columns, is.

    Returns:
        columns (count), column (largest |sum| of a column), pair (largest |inner product| of two columns).
    """
    x = signs(design).to_numpy()
    inner = np.abs(x.T @ x) - np.diag(np.full(x.shape[1], len(x)))
    return {"columns": x.shape[1], "column": float(np.abs(x.sum(axis=0)).max()), "pair": float(inner.max())}
