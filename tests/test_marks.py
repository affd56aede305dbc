"""What figures are made of: curves, intervals, forests, places, scales, labels that do not overlap."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from paper import look, marks

LOOKS = {"ind-a": look.Look("#0072b2"), "ood-canary-a": look.Look("#d55e00", (0, (4, 1.5)), "s")}
ORDER = list(LOOKS)


def table(**values) -> pd.DataFrame:
    """One row of intervals of ind-a."""
    row = {"forget_set": "ind-a", "estimate": 2.0, "low": 1.0, "high": 4.0}
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
    marks.runs_and_mean(ax, pd.DataFrame([[1, 2, 3], [3, 4, np.nan]]), LOOKS["ind-a"])
    assert ax.lines[-1].get_xdata().tolist() == [0, 1]
    assert ax.lines[-1].get_ydata().tolist() == [2, 3]


def test_distances_to_limits_are_zero_where_there_are_none():
    assert marks.spans(table()).tolist() == [[1.0], [2.0]]
    assert marks.spans(table(low=np.nan, high=np.nan)).tolist() == [[0.0], [0.0]]


def test_an_interval_lies_along_the_axis_it_was_measured_on(ax):
    for flat in (False, True):
        marks.intervals(ax, [7], table(), LOOKS["ind-a"], flat=flat)
    upright, flat = (bars.lines[0].get_xydata().tolist() for bars in ax.containers)
    assert (upright, flat) == ([[7, 2]], [[2, 7]])


def test_a_set_without_an_interval_leaves_its_row_empty(ax):
    empty = table(estimate=np.nan, low=np.nan, high=np.nan)
    marks.forest(ax, empty, [], "k_star", LOOKS)
    assert not ax.containers and [label.get_text() for label in ax.get_yticklabels()] == ORDER


def test_a_censored_run_is_an_open_triangle_that_points_to_the_right(ax):
    runs = pd.DataFrame({"forget_set": "ind-a", "k_star": [10.0, 12.0]})
    marks.forest(ax, table(), [(runs, "."), (runs.assign(k_star=50.0), ">")], "k_star", LOOKS)
    triangles = [line for line in ax.lines if line.get_marker() == ">" and len(line.get_xdata())]
    assert [line.get_xdata().tolist() for line in triangles] == [[50.0, 50.0]]
    assert triangles[0].get_markerfacecolor() == "white"


def three_runs() -> pd.DataFrame:
    """Two runs of ind-a in one arm, one of them censored; one of ood-canary-a in another."""
    rows = [("a", "ind-a", 10.0, 20), ("a", "ind-a", np.nan, 50), ("b", "ood-canary-a", 12.0, 20)]
    return pd.DataFrame(rows, columns=["arm", "forget_set", "k_star", "last_step"])


def test_forests_have_a_panel_an_arm_and_rows_for_the_sets_that_are_there():
    how = {"xlabel": "steps", "confidence": 0.95}
    fig = marks.forests(three_runs(), "k_star", LOOKS, ["a", "b"], **how)
    assert [ax.get_title() for ax in fig.axes] == ["a", "b"]
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ORDER
    alone = marks.forests(three_runs(), "k_star", LOOKS, ["b"], **how)
    assert [label.get_text() for label in alone.axes[0].get_yticklabels()] == ["ood-canary-a"]
    assert marks.forests(three_runs(), "k_star", LOOKS, ["c"], **how) == "there is no run to show"


def test_a_missing_value_that_has_a_bound_is_drawn_there_as_a_triangle_and_its_mean_without_limits():
    fig = marks.forests(three_runs(), "k_star", LOOKS, ["a"], bound="last_step", xlabel="steps", confidence=0.95)
    triangles = [line for line in fig.axes[0].lines if line.get_marker() == ">" and len(line.get_xdata())]
    assert [line.get_xdata().tolist() for line in triangles] == [[50.0]]
    mean, _, (bar,) = fig.axes[0].containers[0]
    assert mean.get_xdata().tolist() == [30.0] and np.ptp(bar.get_segments()[0][:, 0]) == 0


PLACES = {"places": ["θ0", "k*"], "ylabel": "bits"}


def test_sets_at_one_place_stand_side_by_side_in_the_order_of_the_settings():
    both = pd.concat([table(state="θ0", arm="adamw"), table(state="θ0", forget_set="ood-canary-a", arm="adamw")])
    fig = marks.by_place(both, "state", LOOKS, ["adamw"], **PLACES, dashed=[1.44])
    first, second = (bars.lines[0].get_xdata()[0] for bars in fig.axes[0].containers)
    assert first < 0 < second
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ORDER
    assert [line.get_ydata()[0] for line in fig.axes[0].lines if line.get_linestyle() == "--"][-1] == 1.44


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


def test_one_legend_names_each_set_once():
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
