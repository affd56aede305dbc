"""From the runs of this pipeline to one table and one figure, by the study's ruler. Loads no torch.

Exposure in nats, performance lost in nats per token. A run's state is `nearest` to zero exposure, which is k* where the
run reached it, and `end` where it did not.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from paper import exposure, look, marks, runs
from paper.runs import Study
from unlearning.core import genex, performance, stats

QUANTITIES = {  # column of `method_runs` -> unit
    **{"steps": "steps", "seconds": "seconds", "forget_gradients": "batches", "retain_gradients": "batches"},
    **{"genex": "nats", "instance": "nats", "lost": "nats per token", "worst": "nats", "distance": "of AUC from ½"},
}
LOST = "held-out lost, nats per token"
LINEAR = 0.05  # nats per token: axes of what is lost are linear up to here, logarithmic beyond
FILES = ("runs.csv", "seconds.csv", "log_likelihoods.parquet", "performance.parquet")


def method_runs(study: Study, trained_with: str, folder: Path | str) -> pd.DataFrame:
    """One row a run and state: method, family, forget_set, model, state, reached, and QUANTITIES.

    genex: mean exposure left; instance: that without the generator part; worst: largest |exposure| of an example;
    distance: |AUC − ½| of the likelihood-ratio attack. Raises FileNotFoundError without the tables.
    """
    read = {name: pd.read_csv if name.endswith("csv") else pd.read_parquet for name in FILES}
    found, took, along, quality = (runs.plain(read[name](Path(folder) / name)) for name in FILES)
    key, rows = ["method", "forget_set", "model"], []
    scores, splits = dict(list(along.groupby(key))), dict(list(quality.groupby(key)))
    for record in found.merge(took, on=key, suffixes=("", "_")).to_dict("records"):
        method, name, model = run = tuple(record[column] for column in key)
        values = scores[run].pivot_table(index="step", columns="example_id", values="log_likelihood")
        heldout = splits[run].query("split == 'heldout'").set_index("step")["log_likelihood_per_token"].sort_index()
        reached = record["status"] == "reached"
        states = {"nearest": record["k_star" if reached else "nearest"]}
        states |= {"end": record["last_step"]} if record["status"] == "censored" else {}
        for state, step in states.items():
            row = {"method": method, "family": study.family(name), "forget_set": name, "model": model, "state": state}
            row |= {"reached": reached, "steps": step, "seconds": record["seconds_a_step"] * step}
            row |= {n: record[n] * step for n in ("forget_gradients", "retain_gradients")}
            row |= _distances(study, trained_with, name, model, values, step)
            lost = performance.interpolate(heldout.to_numpy(), heldout.index.to_numpy(), step)
            start = study.scores(trained_with)[model]
            rows.append(row | {"lost": float(performance.performance_lost(unlearned=lost, reference=start))})
    return pd.DataFrame(rows)


def _distances(study: Study, trained_with: str, name: str, model: int, values: pd.DataFrame, step: float) -> dict:
    # how far the set is from never seen, at a fractional step: genex, instance, worst, distance
    def at(ids: list[str]) -> np.ndarray:
        scored = values.reindex(columns=ids).dropna()
        return performance.interpolate(scored.to_numpy(), scored.index.to_numpy(), step)

    own, never = study.members(name), [x for x in study.never_trained(name) if x in values]
    reference = runs.reference_of(study, trained_with, name, model, [*own, *never])
    g = genex.run_exposure(unlearned=at(own), reference=reference[: len(own)])
    generator = float(np.mean(at(never) - reference[len(own) :])) if never else np.nan
    told = exposure.attack(study, trained_with, name, model, {"here": at(own)})["distance"]
    found = {"genex": float(g.mean()), "instance": float(g.mean() - generator), "worst": float(np.abs(g).max())}
    return found | {"distance": float(told.iloc[0]) if len(told) else np.nan}


def method_table(rows: pd.DataFrame, *, confidence: float) -> pd.DataFrame:
    """Mean over draws of every quantity: method, family, state, quantity, estimate, low, high, draws, n, unit, reached.

    The draw is the unit. reached: share of the runs that got to zero.
    """
    by = ["method", "family", "state"]
    tables = [marks.family_means(rows, q, by=by, confidence=confidence).assign(quantity=q) for q in QUANTITIES]
    share = rows[rows["state"] == "nearest"].groupby(by[:2])["reached"].mean().reset_index()
    return pd.concat(tables, ignore_index=True).merge(share, on=by[:2], how="left")


def on_frontier(points: np.ndarray) -> np.ndarray:
    """(n,) of bool: no other of (n, 2) points is at most as large in both and smaller in one; NaN never is on it."""
    no_worse = (points[:, None] <= points[None]).all(axis=-1)
    better = (points[:, None] < points[None]).any(axis=-1)
    return ~(no_worse & better).any(axis=0) & np.isfinite(points).all(axis=1)


def frontier(table: pd.DataFrame, families: list[str]) -> Figure | str:
    """Distance from never seen against what it cost, a panel a family; full marks: on the frontier; names beside."""
    nearest = table[(table["state"] == "nearest") & table["family"].isin(families)]
    if not len(nearest):
        return "no method has run"
    fig, axes = look.grid(1, len(families), height_in=3.0, sharey=True)
    for ax, family in zip(axes[0], families, strict=True):
        own = nearest[nearest["family"] == family]
        each = [own[own["quantity"] == quantity].set_index("method") for quantity in ("distance", "lost")]
        points = np.column_stack([side["estimate"] for side in each])
        for i, (method, best) in enumerate(zip(each[0].index, on_frontier(points), strict=True)):
            errors = {f"{a}err": marks.spans(side.loc[[method]]) for a, side in zip("xy", each, strict=True)}
            style = {"marker": "o", "ms": 4, "lw": 0.7, "color": look.INK, "mfc": look.INK if best else "white"}
            ax.errorbar(*points[i], **errors, **style)
        low, high = ax.get_xlim()
        ax.set_yscale("symlog", linthresh=LINEAR)
        ax.set(title=family, xlabel="distance of AUC from ½", xlim=(low, high + 0.7 * (high - low)))  # room for names
        marks.zero_line(ax)
        ends = {m: (*p, look.INK) for m, p in zip(each[0].index, points, strict=True) if np.isfinite(p).all()}
        marks.label_ends(ax, ends, gap_pt=7.0)
    axes[0, 0].set_ylabel(LOST)
    return fig


def trade_offs(study: Study, trained_with: str, folder: Path | str, families: list[str]) -> Figure:
    """Held-out lost against mean exposure, a panel a family, a line a method: mean over runs of each followed step."""
    along, quality = (runs.plain(pd.read_parquet(Path(folder) / name)) for name in FILES[2:])
    by = ["method", "forget_set", "model"]
    own = along[along["example_id"].map(study.examples["forget_set"]) == along["forget_set"]]
    left = own.groupby([*by, "step"])["log_likelihood"].mean().rename("left")
    fixed = quality[quality["split"] == "heldout_fixed"].set_index([*by, "step"])["log_likelihood_per_token"]
    lost = (fixed.groupby(by).transform("first") - fixed).rename("lost")
    both = pd.concat([left, lost], axis=1).dropna().reset_index()
    both["family"] = both["forget_set"].map(study.family)
    sets = both[["forget_set", "model"]].drop_duplicates().itertuples(index=False)
    none = {(s, m): runs.reference_of(study, trained_with, s, m, study.members(s)).mean() for s, m in sets}
    both["left"] -= [none[key] for key in zip(both["forget_set"], both["model"], strict=True)]
    means = both.groupby(["family", "method", "step"])[["left", "lost"]].mean()
    means = means.loc[families].reset_index()
    fig = lines(means, "family", "method", x="left", y="lost", xlabel="mean exposure, nats", ylabel=LOST)
    for ax in fig.axes:
        ax.set_yscale("symlog", linthresh=LINEAR)
    return fig


def lines(
    table: pd.DataFrame, panel: str, line: str, *, x: str, y: str, xlabel: str, ylabel: str, log: bool = False
) -> Figure:
    """A line a value of column `line`, told apart by marks, a panel a value of `panel`; on logarithmic axes, or not."""
    fig, axes = look.grid(1, table[panel].nunique(), height_in=3.0, sharey=True)
    for ax, (title, own) in zip(axes[0], table.groupby(panel, sort=False), strict=True):
        for i, (name, part) in enumerate(own.groupby(line, sort=False)):
            style = {"color": (look.INK, look.GREY)[i % 2], "marker": look.ARM_MARKERS[i % len(look.ARM_MARKERS)]}
            ax.plot(part[x], part[y], ms=3, lw=0.8, label=name, **style)
        ax.set(title=title, xlabel=xlabel, **({"xscale": "log", "yscale": "log"} if log else {}))
    axes[0, 0].set_ylabel(ylabel)
    marks.legend(fig, marks.labelled(axes[0], {}))
    return fig


def predictions(study: Study, arm: str, scores: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """What a score tells of k*(x) and of the rate beyond likelihood and length: Fisher's z, a row a run and pair.

    scores: of examples, by forget_set, model and example_id, with column nll and `names`. Gives family, forget_set,
    model, outcome, score, z (no unit; zero: nothing beyond likelihood).
    """
    from unlearning.core import properties

    rows, by = [], scores.set_index(["forget_set", "model", "example_id"]).sort_index()
    scored = set(by.index.droplevel("example_id"))
    for run in (run for run in study.select(arm=arm) if (run.forget_set, run.model) in scored):
        mine = by.loc[(run.forget_set, run.model)].reindex(run.examples)
        given = np.column_stack([mine["nll"], run.n_tokens])
        outcomes = {"k_star": genex.steps_to_forget(run.exposure, run.steps)}
        outcomes["rate"] = properties.rate(run.log_likelihoods, run.steps, n_tokens=run.n_tokens, k_star=run.k_star)
        for outcome, values in outcomes.items():
            for name in names:
                rho = stats.partial_rank_correlation(mine[name], values, given=given)
                key = {"family": run.family, "forget_set": run.forget_set, "model": run.model}
                rows.append({**key, "outcome": outcome, "score": name, "z": float(stats.fisher_z(rho))})
    return pd.DataFrame(rows)
