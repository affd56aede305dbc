"""Figures: same figure same bytes, one look a set, names that do not overlap, marks for what is uncertain."""

import struct

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from paper import figures_claims, plots, plots_study

SETS = ["ind-a", "ind-b", "ind-x4", "ind-x16", "ood-canary-a", "ood-canary-b"]
SETS += ["ood-secret-x1", "ood-secret-x4", "ood-secret-x16"]


@pytest.fixture(autouse=True)
def style():
    with matplotlib.rc_context():
        plots.use_style()
        yield
    plt.close("all")


def draw() -> plt.Figure:
    fig, axes = plots.grid(1, 2, height_in=1.5)
    runs = np.array([[3.0, 1.0, -0.5], [2.5, np.nan, np.nan]])
    plots_study.exposure_panel(axes[0, 0], [0, 1, 2], runs, name="ind-a", floor=0.4, k_star=[1.7, np.nan])
    plots.note(fig, "Interval: 95 % t over 2 models.", stage="exposure")
    return fig


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    for folder in "ab":
        plots.save(draw(), "one", tmp_path / folder)
    for ending in ("png", "svg"):
        first, second = ((tmp_path / folder / f"one.{ending}").read_bytes() for folder in "ab")
        assert first == second


def test_a_figure_is_900_pixels_wide_and_bears_no_date_and_no_version(tmp_path):
    plots.save(draw(), "one", tmp_path)
    png, svg = (tmp_path / "one.png").read_bytes(), (tmp_path / "one.svg").read_text()
    assert struct.unpack(">I", png[16:20])[0] == 900
    assert b"Software" not in png
    assert "<dc:date>" not in svg


def test_a_figure_is_opaque_white(tmp_path):
    plots.save(draw(), "one", tmp_path)
    corner = plt.imread(tmp_path / "one.png")[0, 0]
    assert corner[:3].tolist() == [1.0, 1.0, 1.0]


def test_no_two_sets_look_alike():
    looks = [plots.look(name) for name in SETS]
    assert len({look.colour for look in looks}) == len(SETS)
    kinds = {"ind": 4, "ood-canary": 2, "ood-secret": 3}
    lines = {kind: {str(plots.look(n).line) for n in SETS if n.startswith(kind)} for kind in kinds}
    assert all(len(styles) == 1 for styles in lines.values())
    assert len(set.union(*lines.values())) == len(kinds)


def test_sets_of_one_kind_differ_in_lightness_so_that_a_figure_holds_in_grey():
    def lightness(name: str) -> float:
        return float(np.dot(matplotlib.colors.to_rgb(plots.look(name).colour), [0.2126, 0.7152, 0.0722]))

    for kind in ("ind", "ood-canary", "ood-secret"):
        grey = sorted(lightness(n) for n in SETS if n.startswith(kind))
        assert min(np.diff(grey)) > 0.07


def test_a_set_of_ones_own_gets_a_look_that_depends_on_its_name_alone():
    assert plots.look("my-set") == plots.look("my-set")
    assert plots.look("my-set").colour not in plots.COLOURS.values()


def test_names_are_pushed_apart_and_left_alone_when_far_enough():
    assert plots.spread([0.0, 10.0, 30.0], gap=8) == pytest.approx([0, 10, 30])
    placed = plots.spread([0.0, 1.0, 2.0, 30.0], gap=8)
    assert placed == pytest.approx([-7, 1, 9, 30])


def test_the_mean_of_runs_stops_where_the_first_run_ends():
    _, axes = plots.grid(height_in=1)
    plots.runs_and_mean(axes[0, 0], [0, 1, 2], [[1, 2, 3], [3, 4, np.nan]], plots.look("ind-a"))
    mean = axes[0, 0].lines[-1]
    assert mean.get_xdata().tolist() == [0, 1]
    assert mean.get_ydata().tolist() == [2, 3]


def test_the_floor_is_drawn_under_every_exposure():
    fig = draw()
    bands = [p for p in fig.axes[0].patches if p.get_facecolor()[:3] == matplotlib.colors.to_rgb(plots.FLOOR)]
    assert len(bands) == 1


def test_a_note_carries_the_stage_that_drew_the_figure(monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "trade_off")
    assert "DVC stage: trade_off." in draw()._supxlabel.get_text()


def test_a_cell_whose_interval_includes_zero_has_no_colour_but_the_hatches_behind():
    _, axes = plots.grid(height_in=2)
    values = pd.DataFrame([[5.0, 0.1]], index=["ind-a"], columns=["ind-a", "ind-b"])
    clear = pd.DataFrame([[True, False]], index=["ind-a"], columns=["ind-a", "ind-b"])
    plots_study.heat_map(axes[0, 0], values, clear=clear, own={"ind-a": "ind-a"}, unit="nats")
    assert axes[0, 0].patch.get_hatch()
    assert np.ma.getmaskarray(axes[0, 0].collections[0].get_array()).ravel().tolist() == [False, True]
    assert [text.get_text() for text in axes[0, 0].texts] == ["5.0", "0.10"]


def test_a_set_without_an_interval_leaves_its_row_empty():
    _, axes = plots.grid(height_in=2)
    empty = pd.DataFrame({"forget_set": ["ind-a"], "mean": [np.nan], "low": [np.nan], "high": [np.nan]})
    plots_study.forest(axes[0, 0], empty, value="k_star", order=["ind-a", "ind-b"])
    assert not axes[0, 0].containers


def test_not_memorized_is_written_beside_the_bar():
    _, axes = plots.grid(height_in=2)
    table = pd.DataFrame(
        {
            "forget_set": ["ind-a"],
            "mean": [5.0],
            "low": [4.0],
            "high": [6.0],
            "generator": [4.0],
            "instance": [1.0],
            "memorized": ["no"],
        }
    )
    plots_study.parts(axes[0, 0], table, order=["ind-a"])
    assert "not memorized" in [text.get_text() for text in axes[0, 0].texts]


def test_the_figure_of_claims_says_the_verdict_after_holm_of_a_claim_in_one_part():
    row = {"arm": "adamw", "estimate": 1.0, "low": 0.5, "high": 1.5, "unit": "steps", "delta": 0.1}
    row |= {"verdict": "supported", "claim_verdict": "inconclusive"}
    rows = [{**row, "claim": claim, "part": part} for claim, part in (("C2", ""), ("C4", "a"), ("C4", "b"))]
    fig = figures_claims.claims(pd.DataFrame(rows))
    words = [text.get_text() for text in fig.axes[0].texts]
    assert words == ["inconclusive (supported)", "supported", "supported"]
