"""What forgetting costs: exposure in nats, performance lost in nats per token of held-out text.

Tables of runs go in (`runs.run_table`), and the study itself where a whole trajectory is read. A family is the mean
over its draws, a draw that over its models. Figure functions return a figure, or in words why there is none; they draw
the families of `looks`, in its order.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from paper import look, marks, runs, words
from paper.look import Look, Looks
from paper.runs import Array, Run, Study, by_run
from unlearning.core import genex, performance

SHARES = np.linspace(0.0, 1.5, 25)  # of k*, along a path: runs are followed closely to 1.5 k*
AT = 16  # index of k* in SHARES
WHOLE = (0.5, 1.0)  # shares of k* at which all held-out sentences were scored, not the first ones alone
BY_REPETITION = {"k_star": "steps to forget, k*", "lost_100": "held-out lost at k*, nats per token"}


def paths(study: Study, some: Sequence[Run]) -> tuple[Array, Array]:
    """Exposure and loss to the references at SHARES of each run's k*: (n_runs, n_shares) nats and nats per token.

    A run without k* is followed to its last step; it has to be left out of means. Losses on the way come from the
    sentences that are followed, moved by what all sentences say at WHOLE, in between by the line through them.
    """
    exposure, lost = np.empty((2, len(some), len(SHARES)))
    for i, run in enumerate(some):
        at = SHARES * (run.k_star if np.isfinite(run.k_star) else run.steps[-1] / SHARES[-1])
        exposure[i] = [performance.interpolate(run.set_exposure, run.steps, step) for step in at]
        # loss to the reference = what θ0 has lost to it already + loss to θ0
        start, reference = study.scores(run.trained_with)[run.model], runs.reference_performance(study, run)
        gap = performance.performance_lost(unlearned=start, reference=reference)
        more = [run.lost_heldout(share) - run.lost(share * run.k_star) for share in WHOLE]
        lost[i] = gap + run.lost(at) + np.interp(SHARES, [0, *WHOLE], [0, *np.nan_to_num(more)])
    return exposure, lost


def reference_points(study: Study, trained_with: str, forget_set: str) -> pd.DataFrame:
    """The out-models as points of the trade-off, each against the mean of the others: model, exposure, lost."""
    means = study.held_by(forget_set, trained_with, inside=False).mean(axis=1)
    both = pd.DataFrame({"exposure": means, "lost": study.scores(trained_with)[means.index]})
    others = (both.sum(skipna=False) - both) / max(len(both) - 1, 1)
    points = (both - others) * [1, -1]  # more exposed, but less lost, than the others
    return points.rename_axis("model").reset_index()


def base_point(study: Study, some: Sequence[Run]) -> tuple[float, float]:
    """What going back to the base would give: mean exposure and mean loss to the references; NaN if not scored."""
    own, base = (study.design["base"] > 0).astype(int), study.scores("base")
    exposure = [np.mean(study.base.loc[own[run.model], run.examples].to_numpy() - run.reference) for run in some]
    lost = [runs.reference_performance(study, run) - base[own[run.model]] for run in some]
    return np.mean(exposure), np.mean(lost)


def placebo_lost(study: Study, shares: Sequence[float]) -> pd.DataFrame:
    """Lost by ascent on a set that a model never saw, after shares of the mean k* of the set's in-models: arm,
    forget_set, model, family, share, lost."""

    def table(run: Run) -> pd.DataFrame:
        k_star = pd.Series([r.k_star for r in study.select(arm=run.arm, forget_set=run.forget_set)], dtype=float).mean()
        return pd.DataFrame({"family": run.family, "share": shares, "lost": run.lost(k_star * np.array(shares))})

    return by_run(study.select(role="placebo"), table, ["family", "share", "lost"])


def retained_lost(study: Study) -> pd.DataFrame:
    """Lost at k* on held-out text, on the core sample, and on the other sets of the same kind that the model holds:
    arm, forget_set, model, family, where, lost, reason why there is no value."""

    def table(run: Run) -> pd.DataFrame:
        where = {"held-out": "heldout", "core sample": "retain", "same kind": "retained"}
        lost = np.array([run.lost(run.k_star, split) for split in where.values()], dtype=float)
        why = np.full(3, "k* not reached" if np.isnan(run.k_star) else "not scored on both sides of k*", dtype=object)
        if not run.performance.get("retained", pd.Series(dtype=float)).notna().any():
            why[2] = "the model holds no other set of the kind"
        found = {"where": list(where), "lost": lost, "reason": np.where(np.isnan(lost), why, "")}
        return pd.DataFrame({"family": run.family} | found)

    return by_run(study.select(), table, ["family", "where", "lost", "reason"])


def _times(study: Study) -> pd.DataFrame:
    # by family, in the order of the settings: kind and repetitions
    first = study.examples.drop_duplicates("forget_set").set_index("forget_set")[["kind", "repetitions"]]
    return pd.DataFrame({family: first.loc[names[0]] for family, names in study.families.items()}).T


def few_families(study: Study, arm: str, pair: Sequence[str]) -> list[str]:
    """Families that tell the story of an arm: the pair that claims compare, and of each kind the most repeated one."""
    times = _times(study)[[bool(study.select(arm=arm, family=name)) for name in study.families]]
    repeated = times[times["repetitions"] > 1].sort_values("repetitions", kind="stable")
    most = dict(zip(repeated["kind"], repeated.index, strict=True))
    return [name for name in times.index if name in pair or name in most.values()]


def _by_draw(study: Study, arm: str, family: str) -> tuple[Array, Array]:
    # (n_draws, n_shares) mean exposure and loss of each draw's runs that got to k* and whose loss there is known
    some = study.select(arm=arm, family=family)
    both, draw = np.stack(paths(study, some)), np.array([run.forget_set for run in some])
    known = np.isfinite([run.k_star for run in some]) & np.isfinite(both[1, :, AT])
    means = [both[:, known & (draw == name)].mean(axis=1) for name in dict.fromkeys(draw[known])]
    exposure, lost = np.reshape(means, (-1, 2, len(SHARES))).transpose(1, 0, 2)
    return exposure, lost


def at_a_glance(study: Study, *, arms: Sequence[str], pair: Sequence[str], looks: Looks) -> Figure | str:
    """Mean paths of a few families from θ0 to k*, a panel an arm, each named at its end with what it has lost there.

    Open marks: the same number of steps where the pair's sets were never seen; grey: models that never saw the sets;
    star: the base models.
    """
    found = {arm: {name: _by_draw(study, arm, name) for name in few_families(study, arm, pair)} for arm in arms}
    drawn = {arm: {name: both for name, both in some.items() if len(both[0])} for arm, some in found.items()}
    drawn = {arm: names for arm, names in drawn.items() if names}
    if not drawn:
        return "no run of these arms got to k*"
    fig, axes = look.grid(1, len(drawn), height_in=2.9, sharey=True, sharex=True)
    placebo = words.means(placebo_lost(study, [1.0]), "lost", by=["arm", "family", "forget_set"], confidence=0.95)
    ends: dict[Axes, dict] = {ax: {} for ax in axes[0]}
    for ax, (arm, names) in zip(axes[0], drawn.items(), strict=True):
        outside, base = [], []
        for name, both in names.items():
            exposure, lost = (values.mean(axis=0)[: AT + 1] for values in both)
            ax.plot(exposure, lost, lw=2.0, **looks[name].line_kw)
            mark = {"ms": 5, "zorder": 6, "clip_on": False} | looks[name].point_kw
            ax.plot(0.0, lost[-1], mec="white", mew=0.6, **mark)
            ends[ax][f"{name} {words.number(lost[-1], '.2f')}"] = (0.0, lost[-1], looks[name].colour)
            unseen = placebo.loc[(placebo["arm"] == arm) & (placebo["family"] == name), "estimate"].mean()
            if name in pair and np.isfinite(unseen):
                ax.plot(0.0, unseen, **mark | {"mfc": "white", "ms": 4, "zorder": 5})
                ends[ax][f"○ {name} {words.number(unseen, '.2f')}"] = (0.0, unseen, look.GREY)
            some = study.select(arm=arm, family=name)
            outside += [reference_points(study, some[0].trained_with, s)["lost"] for s in study.families[name]]
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
    fig.supxlabel("\n\n\n", fontsize=6.0)  # the room that the note takes decides which names would overlap
    for ax in ends:
        marks.loss_scale(ax)
    for ax, names in ends.items():  # the axes are shared: when none changes any more
        marks.label_ends(ax, names)
    return fig


def every_draw(
    study: Study, table: pd.DataFrame, panels: Mapping[str, Sequence[tuple[str, str]]], looks: Looks
) -> Figure | str:
    """Path of every draw of each panel's (arm, family) pairs to 1.5 k*, thin, and of the family, thick, with its
    interval at k* (column lost_to_references of `table`); crosses: references, stars: the base, dotted: censored."""
    drawn = {title: [pair for pair in pairs if study.select(arm=pair[0], family=pair[1])]
             for title, pairs in panels.items()}  # fmt: skip
    drawn = {title: pairs for title, pairs in drawn.items() if pairs}
    if not drawn:
        return "no run of these arms"
    columns = min(len(drawn), 4)
    fig, axes = look.grid(-(-len(drawn) // columns), columns, height_in=1.7, sharey=True)
    means = marks.family_means(table, "lost_to_references", by=["arm", "family"], confidence=study.confidence)
    for ax, (title, pairs) in zip(axes.flat, drawn.items(), strict=False):
        for arm, name in pairs:
            _draws(ax, study, arm, name, looks[name])
            at = means[(means["arm"] == arm) & (means["family"] == name)].dropna(subset="estimate")
            marks.intervals(ax, [0.0] * len(at), at, looks[name], zorder=6)
        ax.set_title(title, loc="left", fontsize=7)
    for ax in axes.flat:
        ax.set_visible(bool(ax.lines))
        marks.zero_line(ax)
        marks.zero_line(ax, vertical=True)
        marks.loss_scale(ax)
        ax.invert_xaxis()
        ax.xaxis.set_major_locator(MaxNLocator(3))
    for ax in axes[:, 0]:
        ax.set_ylabel("lost, nats\nper token", fontsize=7)
    for ax in axes[-1]:
        ax.set_xlabel("GenEx, nats (falls →)", fontsize=7)
    shown = look.only(looks, {name for pairs in drawn.values() for _, name in pairs})
    handles = {name: Line2D([], [], lw=1.8, **style.line_kw) for name, style in shown.items()}
    handles["references"] = Line2D([], [], ls="none", ms=6, marker="+", color=look.GREY)
    marks.legend(fig, handles | {"base model": Line2D([], [], ls="none", ms=6, marker="*", color=look.INK)})
    return fig


def _draws(ax: Axes, study: Study, arm: str, family: str, style: Look) -> None:
    some = study.select(arm=arm, family=family)
    for x, y in zip(*paths(study, [run for run in some if np.isnan(run.k_star)]), strict=True):
        ax.plot(x, y, lw=0.4, color=look.GREY, ls=":")
    for name in dict.fromkeys(run.forget_set for run in some):
        points = reference_points(study, some[0].trained_with, name)
        ax.plot(points["exposure"], points["lost"], "+", color=look.GREY, ms=3, mew=0.4, alpha=0.5, zorder=1)
    exposure, lost = _by_draw(study, arm, family)
    ax.plot(exposure.T, lost.T, lw=0.5, alpha=0.6, **style.line_kw)
    if len(lost):
        ax.plot(exposure.mean(axis=0), lost.mean(axis=0), lw=1.6, **style.line_kw)
    ax.plot(*base_point(study, some), "*", ms=7, color=style.colour, mec="white", mew=0.5, zorder=5)


def cross(inside: pd.DataFrame, *, arms: Sequence[str], families: Sequence[str], confidence: float) -> Figure | str:
    """Loss at k* by arm, training and method as factors: a panel a family of those that most arms unlearned, and of it
    the draws that all of these arms did."""
    n_arms = inside.groupby("family")["arm"].nunique().reindex(families).fillna(0)
    by_draw = inside.groupby(["family", "forget_set"])["arm"].nunique()
    shared = by_draw.index[by_draw == max(n_arms.max(), 2)]
    rows = inside[inside["forget_set"].isin(shared.get_level_values("forget_set"))]
    tones = {arm: Look(look.INK, marker=look.ARM_MARKERS[i % len(look.ARM_MARKERS)]) for i, arm in enumerate(arms)}
    how = {"by": "family", "rows": "arm", "xlabel": "held-out lost to θ0 at k*, nats per token", "loss": True}
    return marks.forests(rows, "lost_100", tones, families, confidence=confidence, **how)


def lost_at_removed(run: Run, nats: float) -> float:
    """Held-out lost against θ0, nats per token, once the set's mean ℓ has fallen by so many nats; NaN if never."""
    removed = (run.log_likelihoods[0] - run.log_likelihoods).mean(axis=1)
    return float(run.lost(genex.steps_to_forget(nats - removed, run.steps)))


def at_equal_removal(study: Study) -> pd.DataFrame:
    """Lost where equally many nats are removed, in each kind with several numbers of repetitions: as many as its least
    exposed family has to lose (mean over its runs). arm, forget_set, model, family, kind, nats, lost."""
    times, table = _times(study), study.table[study.table["role"] == "in"]
    start = table.groupby(["arm", "family"])["exposure_0"].mean()

    def row(run: Run) -> pd.DataFrame:
        kind = times["kind"][run.family]
        alike = start[run.arm].reindex(times.index[times["kind"] == kind]).dropna()
        if times["repetitions"][alike.index].nunique() < 2:
            return pd.DataFrame()
        found = {"family": run.family, "kind": kind, "nats": alike.min(), "lost": lost_at_removed(run, alike.min())}
        return pd.DataFrame([found])

    return by_run(study.select(), row, ["family", "kind", "nats", "lost"])


def repetition(study: Study, inside: pd.DataFrame, looks: Looks) -> Figure | str:
    """Steps and loss against how often a set stood in training: a row an arm, a line a kind, faint points the draws."""
    table = inside.join(_times(study), on="family").assign(at=lambda rows: np.log2(rows["repetitions"].astype(float)))
    table = table[table.groupby(["arm", "kind"])["repetitions"].transform("nunique") > 1]
    arms, kinds = (list(dict.fromkeys(table[column])) for column in ("arm", "kind"))
    if not arms:
        return "no arm has two families of one kind that differ in repetitions"
    fig, axes = look.grid(len(arms), 2, height_in=1.75, sharex=True)
    for row, arm in zip(axes, arms, strict=True):
        row[0].set_title(f"arm {arm}", loc="left")
        for ax, (column, label) in zip(row, BY_REPETITION.items(), strict=True):
            for shift, kind in zip((-0.1, 0.1, 0.3, -0.3), kinds, strict=False):
                rows = table[(table["arm"] == arm) & (table["kind"] == kind)]
                means = marks.family_means(rows, column, by=["at", "family"], confidence=study.confidence)
                line = means.groupby("at")["estimate"].mean()
                ax.plot(line.index + shift, line, lw=1.0, label=look.KINDS[kind][0], **looks[kind].line_kw)
                for name, mine in means.groupby("family"):
                    draws = rows[rows["family"] == name].groupby("forget_set")[["at", column]].mean()
                    faint = {"color": looks[name].colour, "ms": 3, "alpha": 0.5, "mew": 0}
                    ax.plot(draws["at"] + shift + 0.07, draws[column], ".", **faint)
                    marks.intervals(ax, mine["at"] + shift, mine, looks[name])
            ax.set_ylabel(look.wrapped(label, 24))
        marks.loss_scale(row[1])
    times = np.unique(table["at"])
    axes[-1, 0].set_xticks(times, [f"{2**at:.0f}" for at in times])
    for ax in axes[-1]:
        ax.set_xlabel("repetitions in training")
    marks.legend(fig, marks.labelled(axes[:, 0], looks))
    return fig


def first_update(inside: pd.DataFrame, *, arms: Sequence[str], looks: Looks, confidence: float) -> Figure | str:
    """Predicted against observed change of held-out loss by the first update, and the cosine; a row an arm."""
    here = [arm for arm in arms if (inside["arm"] == arm).any()]
    if not here:
        return "first updates were not recorded"
    looks = look.only(looks, set(inside["family"]))
    fig, axes = look.grid(len(here), 2, height_in=0.9 + 0.19 * len(looks), gridspec_kw={"width_ratios": [1, 1.15]})
    for (left, right), arm in zip(axes, here, strict=True):
        rows = inside[inside["arm"] == arm]
        for name, style in looks.items():
            mine = rows[rows["family"] == name]
            points = {**style.point_kw, "ms": 3, "alpha": 0.6, "mew": 0}
            left.plot(mine["predicted_change"], mine["observed_change"], **points)
        left.axline((0, 0), slope=1, color=look.GREY, lw=0.8, ls="--", zorder=1)
        left.xaxis.set_major_locator(MaxNLocator(3))
        left.set_title(arm, loc="left")
        left.set_ylabel("observed, nats per token")
        cosines = marks.family_means(rows, "cosine", by=["family"], confidence=confidence)
        each = rows.groupby(["family", "forget_set"])["cosine"].mean().reset_index()
        marks.forest(right, cosines, each, "cosine", looks)
        right.xaxis.set_major_locator(MaxNLocator(4))
        marks.zero_line(right, vertical=True)
    axes[-1, 0].set_xlabel("predicted change of held-out\nloss, nats per token")
    axes[-1, 1].set_xlabel("cosine of the gradients of set and\nheld-out (< 0: ascent helps)")
    return fig
