"""What figures are made of: curves, intervals, forests, places, scales, labels that do not overlap."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from paper import look, marks
from unlearning.core import stats

LOOKS = {"ind": look.Look("#0072b2"), "ood-canary": look.Look("#d55e00", (0, (4, 1.5)), "s")}
ORDER = list(LOOKS)


def table(**values) -> pd.DataFrame:
    """One row of intervals of ind."""
    row = {"family": "ind", "estimate": 2.0, "low": 1.0, "high": 4.0}
    return pd.DataFrame([row | values])


@pytest.fixture(autouse=True)
def ax():
    with matplotlib.rc_context():
        look.use_style()
        yield look.grid(height_in=2)[1][0, 0]
    plt.close("all")


def test_names_are_pushed_apart_and_left_alone_when_far_enough():
    assert marks.spread([0.0, 10.0, 30.0], gap=8) == pytest.approx([0, 10, 30])
    assert marks.spread([0.0, 1.0, 2.0, 30.0], gap=8) == pytest.approx([-7, 1, 9, 30])
    assert len(marks.spread([], gap=8)) == 0


def test_names_at_the_ends_of_lines_do_not_overlap(ax):
    ax.set(xlim=(0, 1), ylim=(0, 1))
    marks.label_ends(ax, {"a": (1.0, 0.5, "black"), "b": (1.0, 0.5, "black")})
    heights = [text.get_position()[1] for text in ax.texts]
    assert abs(heights[0] - heights[1]) == pytest.approx(8.0)


def test_the_mean_of_runs_stops_where_the_first_run_ends(ax):
    marks.runs_and_mean(ax, pd.DataFrame([[1, 2, 3], [3, 4, np.nan]]), LOOKS["ind"])
    assert ax.lines[-1].get_xdata().tolist() == [0, 1]
    assert ax.lines[-1].get_ydata().tolist() == [2, 3]


def test_distances_to_limits_are_zero_where_there_are_none():
    assert marks.spans(table()).tolist() == [[1.0], [2.0]]
    assert marks.spans(table(low=np.nan, high=np.nan)).tolist() == [[0.0], [0.0]]


def test_an_interval_lies_along_the_axis_it_was_measured_on(ax):
    for flat in (False, True):
        marks.intervals(ax, [7], table(), LOOKS["ind"], flat=flat)
    upright, flat = (bars.lines[0].get_xydata().tolist() for bars in ax.containers)
    assert (upright, flat) == ([[7, 2]], [[2, 7]])


def test_a_family_without_an_interval_leaves_its_row_empty(ax):
    empty = table(estimate=np.nan, low=np.nan, high=np.nan)
    marks.forest(ax, empty, pd.DataFrame({"family": [], "k_star": []}), "k_star", LOOKS)
    assert not ax.containers and [label.get_text() for label in ax.get_yticklabels()] == ORDER


def made_runs(draws: int, *, models: int = 4, seed: int = 0, **more) -> pd.DataFrame:
    """Runs of so many draws of ind in one arm: a value that differs by draw and by model."""
    rng = np.random.default_rng(seed)
    rows = [("a", "ind", f"ind-{d}", m, 10 + shift + rng.normal())
            for d, shift in enumerate(rng.normal(0, 3, draws)) for m in range(models)]  # fmt: skip
    return pd.DataFrame(rows, columns=["arm", "family", "forget_set", "model", "k_star"]).assign(last_step=50, **more)


def test_a_family_is_the_mean_of_its_draws_and_its_interval_that_of_the_draws():
    runs = made_runs(6)
    row = marks.family_means(runs, "k_star", by=["arm", "family"], confidence=0.95).iloc[0]
    of_draws = runs.groupby("forget_set")["k_star"].mean()
    assert row["estimate"] == pytest.approx(of_draws.mean()) and (row["draws"], row["n"], row["unit"]) == (6, 4, "draw")
    naive = stats.t_interval(of_draws).high - of_draws.mean()
    assert 0.7 * naive < row["high"] - row["estimate"] < 1.5 * naive


def test_a_draw_without_a_run_is_left_out_and_one_with_fewer_counts_as_much():
    runs = made_runs(4)
    runs = runs[(runs["forget_set"] != "ind-0") | (runs["model"] == 0)]
    runs.loc[runs["forget_set"] == "ind-1", "k_star"] = np.nan
    row = marks.family_means(runs, "k_star", by=["arm", "family"], confidence=0.95).iloc[0]
    means = runs.groupby("forget_set")["k_star"].mean().dropna()
    assert row["draws"] == 3 and row["estimate"] == pytest.approx(means.mean())


def test_two_draws_or_models_have_a_mean_without_limits_and_one_draw_the_interval_of_its_models():
    pair, alone = (
        marks.family_means(made_runs(n), "k_star", by=["arm", "family"], confidence=0.95).iloc[0] for n in (2, 1)
    )
    assert np.isfinite(pair["estimate"]) and np.isnan(pair["low"]) and pair["unit"] == "draw"
    expected = stats.t_interval(made_runs(1)["k_star"])
    assert (alone["low"], alone["high"], alone["unit"]) == (expected.low, expected.high, "model")
    nothing = marks.family_means(
        made_runs(1).assign(k_star=np.nan), "k_star", by=["arm", "family"], confidence=0.95
    ).iloc[0]
    assert np.isnan(nothing["estimate"]) and nothing["draws"] == 0


def test_a_forest_has_a_mark_a_draw_below_that_of_its_family_and_an_open_one_for_a_draw_alone():
    both = pd.concat([made_runs(3), made_runs(1).assign(family="ood-canary", forget_set="ood-canary")])
    fig = marks.forests(both, "k_star", LOOKS, ["a"], xlabel="steps", confidence=0.95)
    family, draws, alone = (bars.lines[0] for bars in fig.axes[0].containers)
    assert (len(family.get_xdata()), len(draws.get_xdata()), len(alone.get_xdata())) == (1, 3, 1)
    assert family.get_ydata()[0] < draws.get_ydata().min() < draws.get_ydata().max() < alone.get_ydata()[0]
    assert alone.get_markerfacecolor() == "white" != family.get_markerfacecolor()
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ORDER


def test_a_family_stands_at_one_height_in_all_panels_whichever_has_more_draws():
    few, after = made_runs(1).assign(arm="b"), made_runs(1).assign(family="ood-canary")
    both = pd.concat([made_runs(5), after, few, after.assign(arm="b")])
    fig = marks.forests(both, "k_star", LOOKS, ["a", "b"], xlabel="steps", confidence=0.95)
    lowest = [max(bars.lines[0].get_ydata().max() for bars in ax.containers) for ax in fig.axes]
    assert lowest[0] == lowest[1] == fig.axes[0].get_yticks()[1]


def test_forests_have_a_panel_an_arm_that_has_runs():
    how = {"xlabel": "steps", "confidence": 0.95}
    both = pd.concat([made_runs(3), made_runs(3).assign(arm="b", family="ood-canary")])
    assert [ax.get_title() for ax in marks.forests(both, "k_star", LOOKS, ["a", "b", "c"], **how).axes] == ["a", "b"]
    alone = marks.forests(both, "k_star", LOOKS, ["b"], **how)
    assert [label.get_text() for label in alone.axes[0].get_yticklabels()] == ["ood-canary"]
    assert marks.forests(both, "k_star", LOOKS, ["c"], **how) == "there is no run to show"
    for nothing in (both.iloc[:0], pd.DataFrame()):
        assert marks.forests(nothing, "k_star", LOOKS, ["a"], **how) == "there is no run to show"


def test_a_draw_with_a_censored_run_is_an_open_triangle_and_its_family_has_no_limits():
    runs = made_runs(3)
    runs.loc[0, "k_star"] = np.nan
    fig = marks.forests(runs, "k_star", LOOKS, ["a"], bound="last_step", xlabel="steps", confidence=0.95)
    family, known, least = fig.axes[0].containers
    assert [bars.lines[0].get_marker() for bars in (family, known, least)] == [">", "o", ">"]
    assert least.lines[0].get_xdata().tolist() == [pytest.approx((runs["k_star"][1:4].sum() + 50) / 4)]
    assert np.ptp(family.lines[2][0].get_segments()[0][:, 0]) == 0


PLACES = {"places": ["θ0", "k*"], "ylabel": "bits"}


def test_families_at_one_place_stand_side_by_side_in_the_order_of_the_settings():
    both = pd.concat([table(state="θ0", arm="adamw"), table(state="θ0", family="ood-canary", arm="adamw")])
    fig = marks.by_place(both, "state", LOOKS, ["adamw"], **PLACES, dashed=[1.44])
    first, second = (bars.lines[0].get_xdata()[0] for bars in fig.axes[0].containers)
    assert first < 0 < second
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ORDER
    assert [line.get_ydata()[0] for line in fig.axes[0].lines if line.get_linestyle() == "--"][-1] == 1.44


def test_draws_are_faint_points_beside_the_mean_of_their_family():
    each = pd.DataFrame({"arm": "adamw", "family": "ind", "state": ["θ0", "k*", "θ0"], "estimate": [1.0, 2.0, 3.0]})
    fig = marks.by_place(table(state="θ0", arm="adamw"), "state", LOOKS, ["adamw"], **PLACES, each=each)
    points = next(line for line in fig.axes[0].lines if line.get_marker() == "." and line.get_linestyle() == "None")
    assert points.get_xydata().tolist() == [[0, 1], [1, 2], [0, 3]]


def test_places_without_any_row_are_a_reason_in_words():
    none = table(state="θ0", arm="adamw").iloc[:0]
    assert marks.by_place(none, "state", LOOKS, ["adamw"], **PLACES) == "there is nothing to average"


def test_losses_that_span_more_than_tenfold_get_a_scale_that_shows_the_small_ones():
    _, (small, large) = plt.subplots(1, 2)
    small.plot([0, 1], [0.0, 0.3])
    large.plot([0, 1], [-0.02, 3.0])
    for axes in (small, large):
        marks.loss_scale(axes)
    assert (small.get_yscale(), large.get_yscale()) == ("linear", "symlog")


def test_steps_that_span_more_than_fourfold_get_a_scale_that_shows_the_few():
    _, (small, large) = plt.subplots(1, 2)
    small.plot([0, 1], [16.0, 19.0])
    large.plot([0, 1], [8.0, 84.0])
    for axes in (small, large):
        marks.step_scale(axes)
    assert (small.get_yscale(), large.get_yscale(), small.get_ylim()[0]) == ("linear", "log", 0.0)


def test_one_legend_names_each_family_once():
    fig, axes = look.grid(1, 2, height_in=1)
    for ax in axes[0]:
        for name in reversed(ORDER):
            ax.plot([0], [0], label=name)
    marks.legend(fig, marks.labelled(axes[0], LOOKS))
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ORDER


@pytest.mark.parametrize(("n", "letters", "columns"), [(2, 5, 2), (5, 14, 3), (9, 12, 3), (3, 90, 1)])
def test_a_legend_has_as_few_rows_as_its_names_allow_and_stays_inside_the_figure(n, letters, columns):
    fig, ((ax,),) = look.grid(height_in=2)
    marks.legend(fig, {f"{i:{letters}d}".replace(" ", "n"): ax.plot([], [])[0] for i in range(n)})
    fig.canvas.draw()
    assert fig.legends[0]._ncols == columns
    box = fig.legends[0].get_window_extent()
    assert columns == 1 or 0 <= box.x0 < box.x1 <= fig.bbox.x1
