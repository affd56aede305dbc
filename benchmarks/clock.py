"""Seconds and memory of one piece of work."""

import gc
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

now = time.monotonic  # one clock for all processes of a machine: spans of several processes can be compared
MIB = 2**20


@dataclass(frozen=True)
class Span:
    """When a piece of work began and ended, and how much it was: tokens, steps, examples, sentences, GFLOP."""

    started: float
    ended: float
    units: float


def timed(units: float, action: Callable[[], Any]) -> Callable[[], Span]:
    """What takes the time of an action."""

    def run() -> Span:
        started = now()
        action()
        return Span(started, now(), units)

    return run


def together(spans: list[Span]) -> Span:
    """The span of work done side by side: from the first start to the last end."""
    return Span(min(s.started for s in spans), max(s.ended for s in spans), sum(s.units for s in spans))


def held() -> float:
    """Memory that this process holds now, MiB."""
    return psutil.Process().memory_info().rss / MIB


def with_peak(work: Callable[[], Any]) -> tuple[Any, float]:
    """Do the work; also return the most memory that this process held meanwhile, MiB."""
    gc.collect()
    _forget_peak()
    result = work()
    return result, _peak() / MIB


def _forget_peak() -> None:
    """Let the kernel's mark of the highest memory start again from the present (Linux only)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak() -> int:
    """Highest resident memory in bytes: since `_forget_peak` on Linux, since the process began elsewhere."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
