"""The look of figures: the same figure the same bytes, one look a set, a reason in words where nothing is drawn."""

import struct

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from paper import look

FAMILIES = {
    "ind": {"kind": "natural", "repetitions": 1, "draws": 2},
    "ood-canary": {"kind": "canary", "repetitions": 1, "draws": 2},
    "ood-shuffled": {"kind": "shuffled", "repetitions": 1, "draws": 2},
    "ood-language": {"kind": "language", "repetitions": 1},
    "ind-x4": {"kind": "natural", "repetitions": 4},
    "ind-x16": {"kind": "natural", "repetitions": 16},
    "ood-secret-x1": {"kind": "secret", "repetitions": 1},
    "ood-secret-x16": {"kind": "secret", "repetitions": 16},
    "mine": {"kind": "own", "repetitions": 1},
}
# how sRGB (linear) looks without one kind of cone: Machado, Oliveira and Fernandes 2009, severity 1
BLIND = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


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
    return look.looks(FAMILIES)


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


def lab(colour: str, seen: list | None = None) -> np.ndarray:
    """CIE L*a*b* of a colour, as it is or as somebody sees it."""
    rgb = np.array(matplotlib.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(seen or np.eye(3)) @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ linear / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_a_draw_looks_as_its_family_does_and_families_come_in_the_order_of_the_settings(looks):
    assert looks["ind-a"] == looks["ind-b"] == looks["ind"] and looks["ind"] != looks["ind-x4"]
    assert list(look.only(looks, FAMILIES)) == list(FAMILIES)


def test_no_two_families_look_alike_and_those_of_one_kind_share_a_line(looks):
    assert len({looks[name].colour for name in FAMILIES}) == len(FAMILIES)
    lines = {str(looks[name].line): {b["kind"] for n, b in FAMILIES.items() if looks[n].line == looks[name].line}
             for name in FAMILIES}  # fmt: skip
    assert all(len(kinds) == 1 for kinds in lines.values()) and len(lines) == len(look.KINDS)


@pytest.mark.parametrize("eyes", [None, "protan", "deutan"])
def test_hues_of_two_kinds_are_told_apart_by_colour_blind_readers_too(eyes):
    seen = np.array([lab(hue, BLIND.get(eyes)) for _, hue, _ in look.KINDS.values()])
    apart = np.linalg.norm(seen[:, None] - seen, axis=-1)[np.triu_indices(len(seen), 1)]
    assert apart.min() > (25 if eyes is None else 15)  # ΔE; 2.3 is just noticeable


def test_families_of_one_kind_are_darker_the_more_they_are_repeated_and_differ_in_marker(looks):
    for names in (["ind", "ind-x4", "ind-x16"], ["ood-secret-x1", "ood-secret-x16"]):
        assert np.diff([lab(looks[name].colour)[0] for name in names]).max() < -5
        assert len({looks[name].marker for name in names}) == len(names)


def test_a_shade_of_one_is_white_and_of_minus_one_black():
    assert look.shaded("#0072b2", 1) == "#ffffff" and look.shaded("#0072b2", -1) == "#000000"
    assert look.shaded("#0072b2", 0) == "#0072b2"
