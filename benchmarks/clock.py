"""Fresh processes that do a job, start together, and tell their seconds and their memory."""

import gc
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch

from tools.run import ENVIRONMENT, OFFLINE, ONE_INSTRUCTION_SET

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
COMMON = OFFLINE | {name: ENVIRONMENT[name] for name in ("PYTHONHASHSEED", "TOKENIZERS_PARALLELISM")}
MEMORY_KEPT = {name: value for name, value in ENVIRONMENT.items() if name.startswith("MALLOC_")}
LINUX = Path("/proc/self")


@dataclass(frozen=True)
class Span:
    """When a piece of work began and ended, how much it was (tokens, steps, …), and what it computed."""

    started: float
    ended: float
    units: float
    result: Any = None


Timed = Callable[[], Span]  # set up, ready to be timed


def now() -> float:
    """Seconds, by one clock for all processes of a machine: their spans can be compared. A GPU finishes first."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.monotonic()


def timed(units: float, action: Callable[[], Any]) -> Timed:
    """What takes the time of an action."""

    def run() -> Span:
        started = now()
        result = action()
        return Span(started, now(), units, result)

    return run


def memory(name: str, device: str) -> float:
    """MiB that this process holds (`VmRSS`) or has held at most (`VmHWM`) on the device; on a processor Linux only."""
    if device == "cuda":
        return (torch.cuda.memory_allocated() if name == "VmRSS" else torch.cuda.max_memory_allocated()) / 2**20
    lines = (LINUX / "status").read_text(encoding="ascii").splitlines() if LINUX.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(name)), float("nan"))


def forget_peak(device: str) -> None:
    """Let the mark of the highest memory start again from the present."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif LINUX.exists():
        (LINUX / "clear_refs").write_text("5", encoding="ascii")


@dataclass(frozen=True)
class Job:
    """What processes do, side by side, each the whole of it.

    Attributes:
        function: takes the work and the options, sets up, and returns what is timed.
        memory_kept: freed memory stays with the process, as in the study's runs (MALLOC_…).
        capped: with the instruction set to which the study's runs are capped.
    """

    function: Callable[..., Timed]
    options: dict = field(default_factory=dict)
    processes: int = 1
    threads: int = 2
    memory_kept: bool = False
    capped: bool = False

    def environment(self) -> dict[str, str]:
        """The variables of its processes. What this shell happens to have set of them does not count."""
        kept = MEMORY_KEPT if self.memory_kept else {}
        cap = ONE_INSTRUCTION_SET if self.capped else {}
        rest = {k: v for k, v in os.environ.items() if k not in {*MEMORY_KEPT, *ONE_INSTRUCTION_SET}}
        return rest | COMMON | dict.fromkeys(THREADS, str(self.threads)) | kept | cap


def serve(line: Connection, job: Job, work: Any) -> None:
    """One process of a job: warm up on a little of the work; then, when told, set up; when told again, start."""
    torch.set_num_threads(job.threads)
    loaded = memory("VmRSS", work.device)
    job.function(work.little(), **job.options)()
    line.send("warm")
    while line.recv():
        run = job.function(work, **job.options)
        forget_peak(work.device)
        line.send("ready")
        line.recv()
        span = run()
        line.send((span.started, span.ended, span.units, memory("VmHWM", work.device) - loaded))
        del run, span  # what they hold is not to count in the next repeat


class Crew:
    """The processes of one job. They load, warm up and wait; `run` starts all of them at once."""

    def __init__(self, job: Job, work: Any):
        spawn = get_context("spawn")
        pipes = [spawn.Pipe() for _ in range(job.processes)]
        self.lines = [mine for mine, _ in pipes]
        self.processes = [spawn.Process(target=serve, args=(theirs, job, work), daemon=True) for _, theirs in pipes]
        with patch.dict(os.environ, job.environment(), clear=True):  # some variables are read when a process begins
            for process in self.processes:
                process.start()
        for _, theirs in pipes:
            theirs.close()  # so that a process that dies is noticed

    def wait(self) -> list[Any]:
        """What every process says: it is warm, it is ready, or what it measured."""
        try:
            return [line.recv() for line in self.lines]
        except EOFError:
            raise RuntimeError("a process of the benchmark ended early; its last words stand above") from None

    def run(self) -> dict[str, float]:
        """One repeat: every process sets up (not timed); when all have, they start at once.

        Returns:
            seconds: from the first start to the last end; rate: units a second; peak_mib: the most memory beyond
            libraries and examples (models are in it). Units and memory of all processes are summed.
        """
        for line in self.lines:
            line.send(True)
        self.wait()
        for line in self.lines:
            line.send(True)
        started, ended, units, peak = zip(*self.wait(), strict=True)
        seconds = max(ended) - min(started)
        return {"seconds": seconds, "rate": sum(units) / seconds, "peak_mib": sum(peak)}

    def end(self) -> None:
        """End the processes."""
        for process in self.processes:
            process.kill()
            process.join()


def take_turns(arms: Sequence[Any], work: Any, *, repeats: int) -> pd.DataFrame:
    """Every arm once, then every arm again, each round beginning with another one: a slow minute hits all of them."""
    crews, rows = [Crew(arm.job, work) for arm in arms], []
    try:
        for crew in crews:
            crew.wait()
        for repeat in range(repeats):
            first = repeat % len(arms)
            for i in [*range(first, len(arms)), *range(first)]:
                row = {"workload": arms[i].workload, "arm": arms[i].name, "repeat": repeat, **crews[i].run()}
                print(*list(row.values())[:3], f"{row['seconds']:.2f} s", sep=", ", flush=True)
                rows.append(row)
    finally:
        for crew in crews:
            crew.end()
    return pd.DataFrame(rows)
