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
    marks.runs_and_mean(ax, [0, 1, 2], [[1, 2, 3], [3, 4, np.nan]], LOOKS["ind-a"])
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
    marks.forest(ax, empty, None, value="k_star", order=ORDER, looks=LOOKS)
    assert not ax.containers and [label.get_text() for label in ax.get_yticklabels()] == ORDER


def test_a_censored_run_is_an_open_triangle_that_points_to_the_right(ax):
    runs = pd.DataFrame({"forget_set": "ind-a", "k_star": [10.0, 12.0]})
    marks.forest(ax, table(), runs, value="k_star", order=ORDER, looks=LOOKS, censored=runs.assign(k_star=50.0))
    triangles = [line for line in ax.lines if line.get_marker() == ">" and len(line.get_xdata())]
    assert [line.get_xdata().tolist() for line in triangles] == [[50.0, 50.0]]
    assert triangles[0].get_markerfacecolor() == "white"


def test_forests_of_no_arm_are_a_reason_in_words():
    assert marks.forests({}, value="k_star", order=ORDER, looks=LOOKS, xlabel="steps") == "no run of these arms"


def test_sets_at_one_place_stand_side_by_side_in_the_order_of_the_settings():
    both = pd.concat([table(state="θ0"), table(state="θ0", forget_set="ood-canary-a")])
    fig = marks.by_place({"adamw": both}, "state", order=ORDER, looks=LOOKS, places=["θ0", "k*"], ylabel="bits")
    first, second = (bars.lines[0].get_xdata()[0] for bars in fig.axes[0].containers)
    assert first < 0 < second
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ORDER


def test_places_without_any_row_are_a_reason_in_words():
    none = {"adamw": table().iloc[:0]}
    assert isinstance(marks.by_place(none, "state", order=ORDER, looks=LOOKS, places=["θ0"], ylabel="bits"), str)


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
    marks.legend(fig, axes[0], ORDER)
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ORDER
