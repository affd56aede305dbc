"""Blocks of the README and of docs/ are filled from what notebooks and runs have written."""

import json
from pathlib import Path

import pytest

from tests import copies
from tools import readme, stages

PAGE = "# Title\n\n<!-- begin {name} -->\n{text}\n<!-- end {name} -->\n\nEnd.\n"
MACHINE = {"processor": "P", "cores": 2, "memory_gib": 8, "system": "Linux"}


@pytest.fixture
def pages(tmp_path, monkeypatch):
    """A README and a page with a block each, one block that the claims notebook has written, two recorded runs."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(PAGE.format(name="claims", text="old"))
    (tmp_path / "docs/hardware.md").write_text(
        PAGE.format(name="time", text="old") + PAGE.format(name="dag", text="old")
    )
    (tmp_path / readme.WRITTEN).parent.mkdir(parents=True)
    (tmp_path / readme.WRITTEN).write_text(PAGE.format(name="claims", text="C1 \\1: supported"))
    (tmp_path / "results/runs").mkdir()
    for optimizer in ("adamw", "adafactor"):
        tasks = [{"task": "model", "count": 3, "seconds_each": 100}]
        record = {"seconds": 20, "peak_mib": 1024, "tasks": tasks, **MACHINE}
        (tmp_path / f"results/runs/train@{optimizer}.json").write_text(json.dumps(record))
    names = ["base", "train@adamw", "train@adafactor"]
    monkeypatch.setattr(readme, "stages", lambda: dict.fromkeys(names))
    monkeypatch.setattr(readme, "dag", lambda: "a --> b")
    monkeypatch.chdir(tmp_path)


def test_blocks_stand_between_their_markers_and_all_else_is_left_as_it_was(pages):
    assert readme.main([]) == 0
    text = Path("README.md").read_text()
    assert text == "# Title\n\n<!-- begin claims -->\n\nC1 \\1: supported\n\n<!-- end claims -->\n\nEnd.\n"
    assert readme.main([]) == 0 and Path("README.md").read_text() == text


def test_a_page_that_shows_other_results_is_named_and_not_written_by_a_check(pages, capsys):
    before = Path("README.md").read_text()
    assert readme.main(["--check"]) == 1
    assert capsys.readouterr().err == "README.md does not show the results that are here: python -m tools.readme\n"
    assert Path("README.md").read_text() == before
    readme.main([])
    assert readme.main(["--check"]) == 0


@pytest.mark.parametrize(
    ("path", "old", "new", "told"),
    [
        (
            "README.md",
            "<!-- end claims -->",
            "",
            "put <!-- begin claims --> and <!-- end claims --> into one page, once",
        ),
        ("README.md", "End.", PAGE.format(name="time", text=""), "put <!-- begin time --> and"),
        (
            "README.md",
            "End.",
            PAGE.format(name="figure", text=""),
            "nothing writes the block figure: run dvc repro claims",
        ),
    ],
    ids=["a marker that is missing", "a block in two pages", "a block that nothing writes"],
)
def test_a_block_without_a_place_or_without_a_source_is_told_and_nothing_is_written(
    pages, capsys, path, old, new, told
):
    Path(path).write_text(Path(path).read_text().replace(old, new))
    before = Path(path).read_text()
    assert readme.main([]) == 1
    assert told in capsys.readouterr().err and Path(path).read_text() == before


def test_time_is_that_of_the_recorded_runs_with_the_tasks_that_were_resumed(pages):
    text = readme.time()
    assert text.startswith("Together 5 minutes, measured on P, 2 cores, 8 GiB memory, Linux.")
    assert "| `train` | 2 | 6 | 5.0 | 1.0 |" in text and "`base`" not in text


def test_the_picture_of_the_stages_leaves_out_what_follows_from_other_edges(monkeypatch):
    monkeypatch.chdir(copies.ROOT)
    stages.stages.cache_clear()
    lines = readme.dag().splitlines()
    assert "  corpus --> forget_sets" in lines and "  train --> unlearn" in lines
    assert not {"  corpus --> train", "  base --> unlearn", "  forget_sets --> unlearn"} & set(lines)
