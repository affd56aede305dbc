"""The line over all stages: what is done, what is at work, and how long it still takes."""

import logging
import os
import pty
import subprocess
import sys

import pytest

from tests import copies
from tools import progress
from tools.progress import CLEAR, Line

MINUTES = {"base": 10, "train@a": 20, "train@b": 40, "unlearn@a": 30}
RECORDS = {name: {"seconds": 60 * minutes, "tasks": [], "cores": 2} for name, minutes in MINUTES.items()}


@pytest.fixture
def line(monkeypatch):
    """Stage train@a of five, of which base is done; and the clock, in minutes."""
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: 60 * clock[0])
    monkeypatch.setenv("COLUMNS", "300")
    return Line(["train@a", "train@b", "unlearn@a", "unlearn@new"], 5, RECORDS), clock


def say(line: Line, text: str) -> None:
    line.emit(logging.LogRecord("papermill", logging.INFO, "", 0, text, (), None))


def test_time_left_is_that_of_the_records_and_a_stage_without_one_takes_as_long_as_its_like(line):
    shown, clock = line
    assert shown.left() == 20 + 40 + 30 + 30
    clock[0] = 5
    assert shown.left() == 15 + 100


def test_tasks_that_take_twice_as_long_as_recorded_double_what_is_left(line):
    shown, clock = line
    clock[0] = 10
    say(shown, "a model 1 of 4\n")
    assert shown.left() == pytest.approx(30 + 2 * 100)  # four tasks of ten minutes, where the record says twenty in all
    clock[0] = 20
    say(shown, "a model 2 of 4\n")
    assert shown.left() == pytest.approx(20 + 2 * 100)


def test_tasks_that_were_finished_before_say_nothing_about_the_pace(line):
    shown, clock = line
    say(shown, "2 of 4 a model tasks were finished before\n")
    assert shown.left() == 120
    clock[0] = 5
    say(shown, "a model 3 of 4")
    assert shown.left() == pytest.approx(5 + 100)


def test_nothing_is_promised_where_nothing_was_recorded(monkeypatch):
    assert Line(["base", "odd"], 2, RECORDS).left() is None
    assert Line(["odd"], 2, {}).left() is None


def test_the_line_says_what_is_done_at_work_left_and_how_to_stop_and_stays_below_messages(line, capsys):
    shown, clock = line
    clock[0] = 5
    say(shown, "something is odd\na model 1 of 4\n")
    assert capsys.readouterr().err == (
        f"{CLEAR}something is odd\n"
        f"{CLEAR}1 of 5 stages done · about 115 min left · train@a: a model 1 of 4"
        " · Ctrl-C stops, the same command goes on"
    )


def test_the_line_is_no_wider_than_the_terminal(line, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    line[0].draw()
    assert len(capsys.readouterr().err.removeprefix(CLEAR)) == 39


# In a study


STUDY = """
stages:
  first: {cmd: echo 1 > first.txt, outs: [first.txt]}
  second:
    foreach: [a, b]
    do:
      cmd: echo 2 > ${item}.txt
      deps: [first.txt]
      outs: ["${item}.txt"]
  third: {cmd: cat a.txt b.txt > third.txt, deps: [a.txt, b.txt], outs: [third.txt]}
  apart: {cmd: echo 4 > apart.txt, outs: [apart.txt]}
"""


@pytest.fixture
def study(tmp_path, monkeypatch):
    copies.dvc(tmp_path, "init", "-q", "--no-scm")
    (tmp_path / "dvc.yaml").write_text(STUDY)
    assert copies.dvc(tmp_path, "repro", "-q").returncode == 0
    monkeypatch.chdir(tmp_path)
    progress.stages.stages.cache_clear()
    yield tmp_path
    progress.stages.stages.cache_clear()


def test_the_plan_of_a_command_is_what_it_still_runs(study):
    command = ["python", "dvc", "repro"]
    assert progress.plan("first", command) == (["first", "second@a", "second@b", "third"], 5)
    assert progress.plan("third", command) == (["third"], 5)
    assert progress.plan("second@a", [*command, "second@a"]) == (["second@a"], 2)
    assert progress.plan("first", [*command, "second"]) == (["first", "second@a", "second@b"], 3)
    assert progress.plan("second@b", [*command, "-f", "-s", "second", "apart"]) == (["second@b", "apart"], 3)
    (study / "apart.txt").write_text("by hand")
    progress.stages.stages.cache_clear()
    assert progress.plan("third", command) == (["third", "apart"], 5)


CODE = """
import logging, sys
from tools import progress
progress.plan, progress.stages.runs = lambda *_: (["base"], 2), lambda: {}
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
with progress.displayed("base"):
    logging.getLogger("papermill").warning("base model 1 of 2\\n")
"""


def test_in_a_terminal_there_is_a_line_and_elsewhere_there_are_the_messages_alone():
    ours, theirs = pty.openpty()
    command, environment = [sys.executable, "-c", CODE], copies.environment(copies.ROOT)
    quiet = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (quiet.returncode, quiet.stderr.strip()) == (0, "base model 1 of 2")
    assert subprocess.run(command, env=environment, stderr=theirs).returncode == 0
    os.close(theirs)
    seen = os.read(ours, 10_000).decode()
    assert "about 1 min left · base: base model 1 of 2" in seen and seen.endswith(CLEAR)
