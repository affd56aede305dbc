"""Tasks for the tests of unlearning.pipeline.tasks: processes of the pool have to be able to import them."""

import os
import signal
import time
from pathlib import Path

from unlearning.errors import StudyError


def square(out: Path, *, number: int, log: str) -> None:
    """Write the square; leave a line in a log outside, so that executions can be counted."""
    with open(log, "a", encoding="utf-8") as stream:
        stream.write(f"{number}\n")
    (out / "square.txt").write_text(str(number**2), encoding="utf-8")


def fail_on_two(out: Path, *, number: int) -> None:
    """Fail for the number two, in words."""
    if number == 2:
        raise StudyError("two is not allowed. Take three.")
    (out / "number.txt").write_text(str(number), encoding="utf-8")


def die(out: Path, *, number: int) -> None:
    """Be killed, as the system does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def threads(out: Path, *, number: int) -> None:
    """Write the number of threads that this process was given."""
    (out / "threads.txt").write_text(os.environ["OMP_NUM_THREADS"], encoding="utf-8")


def slow(out: Path, *, number: int, marker: str) -> None:
    """Say that it has begun, then take a while."""
    Path(marker).write_text(str(os.getpid()), encoding="utf-8")
    time.sleep(60)
