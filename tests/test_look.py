"""The look of figures: the same figure the same bytes, one look a set, a reason in words where nothing is drawn."""

import struct

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from paper import look
from tests.fake_study import NINE_SETS


@pytest.fixture(autouse=True)
def style(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNLEARNING_STAGE", raising=False)
    with matplotlib.rc_context():
        look.use_style()
        yield
    plt.close("all")


@pytest.fixture
def looks():
    rows = [(name, kind, repetitions) for name, (kind, repetitions) in NINE_SETS.items()]
    return look.looks(pd.DataFrame(rows, columns=["forget_set", "kind", "repetitions"]), list(NINE_SETS))


def draw() -> plt.Figure:
    fig, axes = look.grid(1, 2, height_in=1.5)
    axes[0, 0].plot([0, 1, 2], [3.0, 1.0, -0.5])
    return fig


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        look.show(f"stage/{name}", draw(), "Interval: 95 % t over 2 models.")
    for ending in ("png", "svg"):
        first, second = ((tmp_path / f"figures/stage/{name}.{ending}").read_bytes() for name in ("one", "two"))
        assert first == second


def test_a_figure_is_900_pixels_wide_and_bears_no_date_and_no_version(tmp_path):
    look.show("stage/one", draw())
    png, svg = (tmp_path / "figures/stage/one.png").read_bytes(), (tmp_path / "figures/stage/one.svg").read_text()
    assert struct.unpack(">I", png[16:20])[0] == 900
    assert b"Software" not in png
    assert "<dc:date>" not in svg


def test_a_figure_is_opaque_white(tmp_path):
    look.show("stage/one", draw())
    corner = plt.imread(tmp_path / "figures/stage/one.png")[0, 0]
    assert corner[:3].tolist() == [1.0, 1.0, 1.0]


def test_a_note_ends_with_the_stage_that_drew_the_figure(monkeypatch):
    by_name, by_runner = draw(), draw()
    look.show("exposure/one", by_name, "What to see.")
    monkeypatch.setenv("UNLEARNING_STAGE", "trade_off")
    look.show("exposure/one", by_runner, "What to see.")
    assert by_name.get_supxlabel() == "What to see. Stage exposure."
    assert by_runner.get_supxlabel() == "What to see. Stage trade_off."


def test_a_figure_that_cannot_be_drawn_says_why(tmp_path, capsys):
    look.show("exposure/nothing", "no run got there", "What one would have seen.")
    assert all((tmp_path / f"figures/exposure/nothing.{ending}").exists() for ending in ("png", "svg"))
    assert capsys.readouterr().out == "exposure/nothing is not drawn: no run got there.\n"


def test_no_two_sets_look_alike_and_sets_of_one_kind_share_a_line(looks):
    assert len({(looks[name].colour, looks[name].marker) for name in NINE_SETS}) == len(NINE_SETS)
    assert len({looks[name].colour for name in NINE_SETS}) == len(NINE_SETS)
    lines = {kind: {str(looks[n].line) for n, (k, _) in NINE_SETS.items() if k == kind} for kind in look.KINDS}
    found = [styles for styles in lines.values() if styles]
    assert all(len(styles) == 1 for styles in found)
    assert len(set.union(*found)) == len(found)


def test_sets_of_one_kind_differ_in_lightness_or_marker_so_that_a_figure_holds_in_grey(looks):
    def lightness(name: str) -> float:
        return float(np.dot(matplotlib.colors.to_rgb(looks[name].colour), [0.2126, 0.7152, 0.0722]))

    for kind in ("natural", "canary", "secret"):
        names = [name for name, (k, _) in NINE_SETS.items() if k == kind]
        assert len({looks[name].marker for name in names}) == len(names)
        assert min(np.diff(sorted(map(lightness, names)))) > 0.02


def test_a_set_is_darker_the_more_often_it_is_repeated_and_its_second_draw_is_lighter(looks):
    def brightness(name: str) -> float:
        return sum(matplotlib.colors.to_rgb(looks[name].colour))

    assert brightness("ind-x16") < brightness("ind-x4") < brightness("ind-a") < brightness("ind-b")


def test_a_shade_of_one_is_white_and_of_minus_one_black():
    assert look.shaded("#0072b2", 1) == "#ffffff" and look.shaded("#0072b2", -1) == "#000000"
    assert look.shaded("#0072b2", 0) == "#0072b2"


def test_every_arm_has_a_marker_in_the_order_of_the_settings():
    assert look.arm_markers(["b", "a"]) == {"b": "o", "a": "s"}
    assert len(look.arm_markers([str(i) for i in range(20)])) == 20
