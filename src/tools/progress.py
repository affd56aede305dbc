"""One line over all stages, kept last in the terminal: what is done, what is at work, the time left, how to stop."""

import logging
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psutil

from tools import stages

TASKS = re.compile(r"(.+) (\d+) of (\d+)|(\d+) of (\d+) (.+) tasks were finished before")  # as tools.tasks tells
CLEAR = "\r\x1b[2K"


def caller() -> psutil.Process:
    """The process that asked for this stage, behind the shell between: dvc."""
    return next(p for p in psutil.Process().parents() if "tools.run" not in " ".join(p.cmdline()))


@contextmanager
def displayed(stage: str) -> Iterator[None]:
    """While a stage runs, its messages with the line below them; nothing more where nobody watches."""
    if not sys.stderr.isatty():
        yield
        return
    logger, line = logging.getLogger("papermill"), Line(*plan(stage, caller().cmdline()), stages.runs())
    logger.addHandler(line)
    logger.propagate = False
    try:
        line.draw()
        yield
    finally:
        sys.stderr.write(CLEAR)


def plan(stage: str, command: Sequence[str]) -> tuple[list[str], int]:
    """Stages that a dvc command still runs, this one first, and how many it is about in all."""
    asked = [name for word in command for name in stages.stages() if name == word or name.startswith(f"{word}@")]
    if {"-s", "--single-item"} & set(command):
        return (asked[asked.index(stage) :], len(asked)) if stage in asked else ([stage], 1)
    needs = {name: [str(dep) for dep in found.deps] for name, found in stages.stages().items()}
    before = {name: {o.stage.addressing for dep in deps for o in stages.makers(dep)} for name, deps in needs.items()}
    wanted, todo = set(asked or before), {stage}
    for name in reversed(before):  # they stand in the order in which they run
        wanted |= before[name] if name in wanted else set()
    for name in (name for name in before if name in wanted):
        todo |= {name} if before[name] & todo or any(stages.misfits(name)) or stages.changed_code(name) else set()
    return [stage, *(name for name in before if name in todo - {stage})], len(wanted)


class Line(logging.Handler):
    """Writes messages, and the line below them.

    todo: the stage at work, then those that follow; total: with those that are done. records: of earlier runs, here or
    elsewhere, whose minutes are scaled by how fast tasks are now.
    """

    def __init__(self, todo: list[str], total: int, records: Mapping[str, dict[str, Any]]):
        super().__init__()
        self.todo, self.total, self.records = todo, total, records
        self.began = self.since = self.last = time.monotonic()  # of the stage, of the present tasks, of the last one
        self.task, self.before, self.done, self.of = "", 0, 0, 1

    def emit(self, record: logging.LogRecord) -> None:
        """Take a message in: the end of a task moves the line, all else is written above it."""
        for text in filter(None, map(str.strip, record.getMessage().splitlines())):
            if not (found := TASKS.fullmatch(text)):
                sys.stderr.write(f"{CLEAR}{text}\n")
                continue
            task, done, of = (found[1], found[2], found[3]) if found[1] else (found[6], found[4], found[5])
            if task != self.task:
                self.since, self.before = self.last, 0 if found[1] else int(done)
            self.task, self.done, self.of, self.last = task, int(done), int(of), time.monotonic()
        self.draw()

    def left(self) -> float | None:
        """Minutes until all is done, or None where a stage like one of these has not been recorded yet."""
        here, *later = map(self._usual, self.todo)
        pace = 1.0
        if self.done > self.before:
            whole = (self.last - self.since) / 60 * self.of / (self.done - self.before)
            pace, here = whole / here if here else pace, whole * (1 - self.done / self.of)
        elif here is not None:
            here = max(here - (time.monotonic() - self.began) / 60, 0)
        return None if None in (here, *later) else here + pace * sum(later)

    def _usual(self, name: str) -> float | None:
        """Minutes that a stage took when it was recorded, or, where it was not, others of the same notebook."""
        like = [r for n, r in self.records.items() if n.partition("@")[0] == name.partition("@")[0]]
        like = [self.records[name]] if name in self.records else like
        return stages.minutes(like) / len(like) if like else None

    def draw(self) -> None:
        """Write the line anew, cut to the terminal."""
        left, name = self.left(), self.todo[0]
        at_work = f"{name}: {self.task} {self.done} of {self.of}" if self.task else name
        told = "time left unknown" if left is None else f"about {max(left, 1):.0f} min left"
        done = f"{self.total - len(self.todo)} of {self.total} stages done"
        line = f"{done} · {told} · {at_work} · Ctrl-C stops, the same command goes on"
        sys.stderr.write(CLEAR + line[: shutil.get_terminal_size().columns - 1])
        sys.stderr.flush()
