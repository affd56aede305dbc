"""Fresh processes that do a job, warmed up and started together, with the variables of a run."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.clock import Span, together
from tools.run import ENVIRONMENT, OFFLINE, ONE_INSTRUCTION_SET

ROOT = Path(__file__).resolve().parents[1]
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
COMMON = OFFLINE | {name: ENVIRONMENT[name] for name in ("PYTHONHASHSEED", "TOKENIZERS_PARALLELISM")}
MEMORY_KEPT = {name: value for name, value in ENVIRONMENT.items() if name.startswith("MALLOC_")}


@dataclass(frozen=True)
class Job:
    """What a process does.

    Attributes:
        function: `module:name`; takes the workload and the options, sets up, and returns what is timed.
        processes: how many do it side by side, each the whole of it.
        memory_kept: with the runner's MALLOC_ variables (freed memory stays with the process).
        capped: with the runner's cap on the instruction set.
    """

    function: str
    options: dict = field(default_factory=dict)
    processes: int = 1
    threads: int = 2
    memory_kept: bool = False
    capped: bool = False

    def environment(self) -> dict[str, str]:
        """The variables of its processes; none that this shell happens to have set stays."""
        ours = {**dict.fromkeys(THREADS, str(self.threads)), **COMMON}
        ours |= MEMORY_KEPT if self.memory_kept else {}
        ours |= ONE_INSTRUCTION_SET if self.capped else {}
        dropped = {*MEMORY_KEPT, *ONE_INSTRUCTION_SET}
        return {name: value for name, value in os.environ.items() if name not in dropped} | ours


@dataclass(frozen=True)
class Result:
    """One repeat of a job, over all its processes.

    Attributes:
        peak_mib: the most memory they held beyond libraries and examples, summed; models are in it.
    """

    span: Span
    peak_mib: float

    @property
    def seconds(self) -> float:
        """From the first start to the last end."""
        return self.span.ended - self.span.started

    @property
    def rate(self) -> float:
        """Units a second."""
        return self.span.units / self.seconds


class Crew:
    """The processes of one job. They load, warm up and wait; `run` starts all of them at once."""

    def __init__(self, job: Job, folder: Path, log: Path):
        self.log = log
        command = [sys.executable, "-m", "benchmarks.worker", str(folder), json.dumps([job.function, job.options])]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": job.environment()}
        with log.open("a", encoding="utf-8") as stream:
            self.processes = [
                subprocess.Popen([*command, str(job.threads)], stderr=stream, cwd=ROOT, **pipes)
                for _ in range(job.processes)
            ]

    def wait(self) -> None:
        """Until every process is warm."""
        for process in self.processes:
            self._read(process)

    def run(self) -> Result:
        """One repeat: every process sets up (untimed); when all have, they start at once."""
        self._tell()
        self.wait()
        self._tell()
        found = [json.loads(self._read(process)) for process in self.processes]
        return Result(together([Span(*f["span"]) for f in found]), sum(f["peak_mib"] for f in found))

    def close(self) -> None:
        """End the processes."""
        for process in self.processes:
            process.stdin.close()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
            process.stdout.close()

    def _tell(self) -> None:
        for process in self.processes:
            process.stdin.write("go\n")
        for process in self.processes:
            process.stdin.flush()

    def _read(self, process: subprocess.Popen) -> str:
        line = process.stdout.readline()
        if not line:
            tail = self.log.read_text(encoding="utf-8", errors="replace")[-3000:]
            raise RuntimeError(f"a process of the benchmark ended early:\n{tail}")
        return line


@contextmanager
def crews(jobs: Sequence[Job], folder: Path) -> Iterator[list[Crew]]:
    """Start the processes of several jobs, wait until all are warm, and end them after use."""
    with ExitStack() as stack:
        started = []
        for job in jobs:
            started.append(Crew(job, folder, folder / "processes.log"))
            stack.callback(started[-1].close)
        for crew in started:
            crew.wait()
        yield started
