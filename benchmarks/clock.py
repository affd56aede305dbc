"""Seconds and memory of one piece of work, on a processor or on a GPU."""

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
import torch

MIB = 2**20


def now() -> float:
    """Seconds, by one clock for all processes of a machine: their spans can be compared. A GPU finishes first."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.monotonic()


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


def held(device: str = "cpu") -> float:
    """Memory that this process holds now, on the device, MiB."""
    return (torch.cuda.memory_allocated() if device == "cuda" else psutil.Process().memory_info().rss) / MIB


def with_peak(work: Callable[[], Any], device: str = "cpu") -> tuple[Any, float]:
    """Do the work; also return the most memory that this process held meanwhile, on the device, MiB."""
    gc.collect()
    _forget_peak(device)
    result = work()
    return result, _peak(device) / MIB


def _forget_peak(device: str) -> None:
    """Let the mark of the highest memory start again from the present (on a processor: Linux only)."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak(device: str) -> int:
    """Highest memory in bytes since `_forget_peak`; on a processor, outside Linux, since the process began."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
