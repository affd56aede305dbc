"""Notebook 09: what forgetting costs. Exposure in nats, performance lost in nats per token of held-out text.

Tables of runs go in (`runs.run_table`), and the study itself where a whole trajectory is read. Figure functions return
a figure, or in words why there is none.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from paper import look, marks, runs, words
from paper.look import Look
from paper.runs import Array, Run, Study
from unlearning.core import performance, stats

SHARES = np.linspace(0.0, 1.5, 25)  # of k*, along a path: runs are followed closely to 1.5 k*
AT = 16  # index of k* in SHARES
STATES = {"θ0": 0, "k*": 1, "2k*": 2}  # at which translations are scored, in multiples of k*


def paths(study: Study, some: Sequence[Run]) -> tuple[Array, Array]:
    """Exposure and loss to the references at SHARES of each run's k*: (n_runs, n_shares) nats and nats per token.

    A run without k* is followed to its last step and has to be left out of means: its share is not known.
    """
    exposure, lost = [], []
    for run in some:
        end = run.k_star if np.isfinite(run.k_star) else run.steps[-1] / SHARES[-1]
        mean = run.exposure.mean(axis=1)
        exposure.append([performance.interpolate(mean, run.steps, share * end) for share in SHARES])
        lost.append(_start_gap(study, run) + run.lost(SHARES * end))
    return np.array(exposure, dtype=float), np.array(lost, dtype=float)


def _start_gap(study: Study, run: Run) -> float:
    # what θ0 has lost to the model's reference already: added to the loss to θ0, it gives the loss to the reference
    start = _heldout(study, run.trained_with).get(run.model, np.nan)
    return float(performance.performance_lost(unlearned=start, reference=runs.reference_performance(study, run)))


def _heldout(study: Study, trained_with: str) -> pd.Series:
    return study.performance.get(trained_with, pd.DataFrame()).get("heldout", pd.Series(dtype=float))


def reference_points(study: Study, trained_with: str, forget_set: str) -> pd.DataFrame:
    """The out-models as points of the trade-off, each against the mean of the others: model, exposure, lost."""
    outside = study.models(forget_set, trained_with, inside=False)
    means = study.references[trained_with].loc[outside, study.members(forget_set)].mean(axis=1).to_numpy()
    heldout, n = _heldout(study, trained_with).reindex(outside).to_numpy(), max(len(outside) - 1, 1)
    others = [(values.sum() - values) / n for values in (means, heldout)]
    return pd.DataFrame({"model": outside, "exposure": means - others[0], "lost": others[1] - heldout})


def base_point(study: Study, some: Sequence[Run]) -> tuple[float, float]:
    """What going back to the base would give: mean exposure and mean loss to the references; NaN if not scored."""
    base, points = _heldout(study, "base"), [(np.nan, np.nan)] if study.base.empty else []
    for run in some if len(study.base) else []:
        own = int(study.design.loc[run.model, "base"] > 0)
        lost = runs.reference_performance(study, run) - base.get(own, np.nan)
        points.append((np.mean(study.base.loc[own, run.examples].to_numpy() - run.reference), lost))
    exposure, lost = np.mean(points, axis=0)
    return exposure, lost


def placebo_lost(study: Study, shares: Sequence[float]) -> pd.DataFrame:
    """Lost by ascent on a set that a model never saw, after shares of the in-models' mean k*.

    Returns:
        arm, forget_set, model, share, lost.
    """
    rows = []
    for run in study.select(role="placebo"):
        k_star = [r.k_star for r in study.select(arm=run.arm, forget_set=run.forget_set)]
        if np.isfinite(k_star).any():
            lost = run.lost(np.nanmean(k_star) * np.array(shares))
            rows += [(run.arm, run.forget_set, run.model, *pair) for pair in zip(shares, lost, strict=True)]
    return pd.DataFrame(rows, columns=["arm", "forget_set", "model", "share", "lost"])


def retained_lost(study: Study) -> pd.DataFrame:
    """Lost at k* on held-out text, on the core sample, and on other sets of the same kind that were kept.

    Returns:
        arm, forget_set, model, where, lost, reason why there is no value.
    """
    rows = []
    for run in study.select():
        kept = [split for split in run.performance if split.startswith("retained:")]
        where = {"held-out": ["heldout_fixed"], "core sample": ["retain"], "same kind": kept}
        for name, splits in where.items():
            lost = float(np.mean([run.lost(run.k_star, split) for split in splits])) if splits else np.nan
            reason = "k* not reached" if np.isnan(run.k_star) else "not scored on both sides of k*"
            reason = reason if splits else "the model holds no other set of the kind"
            rows.append((run.arm, run.forget_set, run.model, name, lost, reason if np.isnan(lost) else ""))
    return pd.DataFrame(rows, columns=["arm", "forget_set", "model", "where", "lost", "reason"])


def bleu_table(study: Study) -> pd.DataFrame:
    """BLEU (0 to 100) at STATES, on whole steps, where it was measured: arm, forget_set, model, state, bleu."""
    rows = [
        (run.arm, run.forget_set, run.model, state, run.bleu_at(multiple * run.k_star if multiple else 0))
        for run in study.select()
        for state, multiple in STATES.items()
    ]
    return pd.DataFrame(rows, columns=["arm", "forget_set", "model", "state", "bleu"]).dropna(subset=["bleu"])


# Figures


def few_sets(study: Study, arm: str, pair: Sequence[str]) -> list[str]:
    """Sets that tell the story of an arm: the pair that claims compare, and of each kind the most repeated one."""
    there = [name for name in study.forget_sets if study.select(arm=arm, forget_set=name)]
    times = study.examples.groupby("forget_set")["repetitions"].first()
    most = {study.kind(name): name for name in sorted(there, key=lambda name: times[name]) if times[name] > 1}
    return [name for name in there if name in pair or name in most.values()]


def at_a_glance(study: Study, *, arms: Sequence[str], pair: Sequence[str], looks: Mapping[str, Look]) -> Figure | str:
    """Mean paths of a few sets from θ0 to k*, a panel an arm, each named at its end with what it has lost there.

    Grey band: losses of the models that never saw the sets. Star: the base models, mean over the sets.
    """
    drawn = {arm: [name for name in few_sets(study, arm, pair) if len(_reached(study, arm, name)[0])] for arm in arms}
    if not any(drawn.values()):
        return "no run of these arms got to k*"
    fig, axes = look.grid(1, len(drawn), height_in=2.9, sharey=True, sharex=True)
    ends: dict[Axes, dict] = {}
    for ax, (arm, names) in zip(axes[0], drawn.items(), strict=True):
        ends[ax], outside, base = {}, [], []
        for name in names:
            exposure, lost = (values.mean(axis=0)[: AT + 1] for values in _reached(study, arm, name))
            ax.plot(exposure, lost, lw=2.0, **looks[name].line_kw)
            ax.plot(0.0, lost[-1], mec="white", mew=0.6, ms=5, zorder=6, clip_on=False, **looks[name].point_kw)
            ends[ax][f"{name} {words.number(lost[-1], '.2f')}"] = (0.0, lost[-1], looks[name].colour)
            some = study.select(arm=arm, forget_set=name)
            outside.append(reference_points(study, some[0].trained_with, name)["lost"])
            base.append(base_point(study, some)[1])
        ax.axhspan(*pd.concat(outside).agg(["min", "max"]), color=look.FLOOR, lw=0, zorder=0)
        if np.isfinite(base).all():
            ax.axhline(np.mean(base), color=look.INK, lw=0.8, ls=(0, (4, 2)), zorder=1)
            ends[ax][f"★ base {words.number(np.mean(base), '.2f')}"] = (0.0, np.mean(base), look.INK)
        ax.set_title(f"arm {arm}", loc="left")
        ax.set_xlabel("GenEx remaining, nats")
        ax.margins(x=0.02)
    axes[0, 0].invert_xaxis()
    axes[0, 0].set_xlim(right=0)
    axes[0, 0].set_ylabel("held-out lost to the references,\nnats per token")
    for ax, names in ends.items():
        marks.label_ends(ax, names)
    return fig


def _reached(study: Study, arm: str, name: str) -> tuple[Array, Array]:
    # paths of the runs that got to k* and whose loss there is known
    some = [run for run in study.select(arm=arm, forget_set=name) if np.isfinite(run.k_star)]
    exposure, lost = (values.reshape(len(some), len(SHARES)) for values in paths(study, some))
    known = np.isfinite(lost[:, AT])
    return exposure[known], lost[known]


def every_set(
    study: Study, *, arms: Sequence[str], order: Sequence[str], looks: Mapping[str, Look], confidence: float
) -> Figure | str:
    """Path of every run of every set to 1.5 k*, thin, and of their mean, thick; a panel an arm.

    The mark is the mean at k* with its interval; crosses are the references, stars the base in the colour of a set.
    """
    drawn = {arm: [name for name in order if study.select(arm=arm, forget_set=name)] for arm in arms}
    if not any(drawn.values()):
        return "no run of these arms"
    fig, axes = look.grid(1, len(drawn), height_in=3.3, sharex=True, sharey=True)
    for ax, (arm, names) in zip(axes[0], drawn.items(), strict=True):
        for name in names:
            _set_paths(ax, study, study.select(arm=arm, forget_set=name), looks[name], confidence)
        marks.zero_line(ax)
        marks.zero_line(ax, vertical=True)
        marks.loss_scale(ax)
        ax.set_title(arm, loc="left")
        ax.set_xlabel("GenEx remaining, nats (falls →)" if len(drawn) < 3 else "GenEx, nats (falls →)")
    axes[0, 0].invert_xaxis()
    axes[0, 0].set_ylabel("held-out lost to the references,\nnats per token")
    names = [name for name in order if any(name in there for there in drawn.values())]
    other = {"references": {"marker": "+", "color": look.GREY}, "base model": {"marker": "*", "color": look.INK}}
    handles = [Line2D([], [], lw=1.8, **looks[name].line_kw) for name in names]
    handles += [Line2D([], [], ls="none", ms=6, **kw) for kw in other.values()]
    fig.legend(handles, [*names, *other], loc="outside upper center", ncols=4)
    return fig


def _set_paths(ax: Axes, study: Study, some: Sequence[Run], style: Look, confidence: float) -> None:
    exposure, lost = paths(study, some)
    there = np.array([np.isfinite(run.k_star) for run in some])
    for x, y, reached in zip(exposure, lost, there, strict=True):
        ax.plot(x, y, lw=0.4, **({"alpha": 0.35, **style.line_kw} if reached else {"color": look.GREY, "ls": ":"}))
    points = reference_points(study, some[0].trained_with, some[0].forget_set)
    ax.plot(points["exposure"], points["lost"], "+", color=look.GREY, ms=4, mew=0.7, zorder=4)
    ax.plot(*base_point(study, some), "*", ms=8, color=style.colour, mec="white", mew=0.5, zorder=5)
    if there.any():
        ax.plot(exposure[there].mean(axis=0), lost[there].mean(axis=0), lw=1.6, **style.line_kw)
        at = pd.DataFrame([vars(stats.t_interval(lost[there, AT], confidence=confidence))])
        marks.intervals(ax, [exposure[there, AT].mean()], at, style, zorder=6)


def cross(table: pd.DataFrame, *, arms: Sequence[str], order: Sequence[str], looks: Mapping[str, Look]) -> Figure | str:
    """Loss at k* with its interval, a row a set and a mark an arm: training optimizer and method as two factors.

    Args:
        table: arm, forget_set, estimate, low, high; sets of one arm alone are left out where others have more.
    """
    counts = table["forget_set"].value_counts()
    names = [name for name in order if counts.get(name, 0) > 1] or [name for name in order if name in counts]
    if not names:
        return "no run got to k*"
    fig, ((ax,),) = look.grid(height_in=0.9 + 0.4 * len(names))
    shapes = look.arm_markers(arms)
    for shift, arm in zip(np.linspace(-0.36, 0.36, len(arms)) if len(arms) > 1 else [0.0], arms, strict=True):
        for name in names:
            rows = table[(table["arm"] == arm) & (table["forget_set"] == name)].dropna(subset=["estimate"])
            style = Look(looks[name].colour, marker=shapes[arm])
            marks.intervals(ax, np.full(len(rows), names.index(name) + shift), rows, style, flat=True)
    for edge in np.arange(len(names) - 1) + 0.5:
        ax.axhline(edge, color="#e6e6e6", lw=0.5)
    marks.name_rows(ax, names)
    marks.zero_line(ax, vertical=True)
    marks.loss_scale(ax, "x")
    ax.set_xlabel("held-out lost to θ0 at k*, nats per token")
    handles = [Line2D([], [], ls="none", marker=shapes[arm], color=look.INK, ms=5) for arm in arms]
    fig.legend(handles, arms, loc="outside upper center", ncols=3)
    return fig


def first_update(
    inside: pd.DataFrame, *, arms: Sequence[str], order: Sequence[str], looks: Mapping[str, Look], confidence: float
) -> Figure | str:
    """Predicted against observed change of held-out loss by the first update, and the cosine; a row an arm.

    Args:
        inside: runs with predicted_change, observed_change (nats per token) and cosine.
    """
    here = [arm for arm in arms if (inside["arm"] == arm).any()]
    if not here:
        return "first updates were not recorded"
    fig, axes = look.grid(len(here), 2, height_in=0.9 + 0.19 * len(order), gridspec_kw={"width_ratios": [1, 1.15]})
    for (left, right), arm in zip(axes, here, strict=True):
        rows = inside[inside["arm"] == arm]
        for name in order:
            of_set = rows[rows["forget_set"] == name]
            points = {"ms": 4, "alpha": 0.8, "mew": 0, **looks[name].point_kw}
            left.plot(of_set["predicted_change"], of_set["observed_change"], **points)
        left.axline((0, 0), slope=1, color=look.GREY, lw=0.8, ls="--", zorder=1)
        left.xaxis.set_major_locator(MaxNLocator(3))
        left.set_title(arm, loc="left")
        left.set_ylabel("observed, nats per token")
        cosines = words.intervals(rows, "cosine", by=["forget_set"], confidence=confidence)
        marks.forest(right, cosines, rows, value="cosine", order=order, looks=looks)
        right.xaxis.set_major_locator(MaxNLocator(4))
        marks.zero_line(right, vertical=True)
    axes[-1, 0].set_xlabel("predicted change of held-out\nloss, nats per token")
    axes[-1, 1].set_xlabel("cosine of the gradients of set and\nheld-out (< 0: ascent helps)")
    return fig
