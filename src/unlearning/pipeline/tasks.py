"""Independent tasks (a model, an ascent), side by side in processes and resumable one by one.

A task is a call of one function; what it writes lands in a folder whose name is the hash of everything that
decides it. A folder that is there is finished (it appears by an atomic rename), so a task is never repeated,
and a killed stage goes on at its last finished task. What comes out may not depend on how many tasks run side
by side: every task runs in a process of its own pool, with the same number of threads, also when it is alone.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from pathlib import Path
from types import ModuleType
from typing import Any

from tqdm import tqdm

from unlearning.errors import StudyError

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")

SECONDS = ".seconds"  # in a task's folder: how long it took


def hash_files(*paths: str | Path) -> str:
    """SHA-256 of the names and bytes of files; a folder stands for all files below it, in order of name.

    Raises:
        StudyError: a path does not exist.
    """
    digest = hashlib.sha256()
    for path in map(Path, paths):
        if not path.exists():
            raise StudyError(f"{path} is not there: run the stage that makes it first (dvc repro)")
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            name = file.relative_to(path).as_posix() if path.is_dir() else file.name
            digest.update(f"{name}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def source_hash(*modules: ModuleType | str) -> str:
    """SHA-256 of the source of modules, given as modules or by their dotted names."""
    names = sorted(m if isinstance(m, str) else m.__name__ for m in modules)
    digest = hashlib.sha256()
    for name in names:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise StudyError(f"module {name} has no source to hash")
        digest.update(name.encode() + b"\0" + Path(spec.origin).read_bytes())
    return digest.hexdigest()


def task_hash(function: Callable[..., Any], task: dict[str, Any], key: object) -> str:
    """Name of a task's folder: hash of the function, its module's source, the arguments and the key."""
    what = [function.__module__, function.__qualname__, source_hash(function.__module__), task, key]
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=_as_text).encode()).hexdigest()[:24]


def _as_text(value: object) -> str:
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"a task's arguments and key are plain values or paths, not {type(value).__name__}")


def default_workers() -> int:
    """Tasks side by side: UNLEARNING_WORKERS, or the number of processors this process may use.

    Raises:
        StudyError: UNLEARNING_WORKERS is not a positive integer.
    """
    asked = os.environ.get("UNLEARNING_WORKERS", "").strip()
    if not asked:
        return max(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 1)
    if not asked.isdigit() or int(asked) < 1:
        raise StudyError(f"UNLEARNING_WORKERS must be a positive integer, not {asked!r}")
    return int(asked)


def run_tasks(
    function: Callable[..., Any],
    tasks: Sequence[dict[str, Any]],
    *,
    scratch: str | Path,
    key: object,
    workers: int | None = None,
    threads: int = 1,
    description: str = "task",
) -> list[Path]:
    """Run `function(out_dir, **task)` for every task that is not finished; return all folders in order.

    Args:
        function: importable from a module; writes its results into the empty folder `out_dir`.
        tasks: keyword arguments of each call: plain values or paths.
        scratch: folder of the finished tasks, kept between runs and known to nobody else.
        key: what else decides a result: parameters, hashes of input files and of module sources.
        workers: tasks side by side; default UNLEARNING_WORKERS or the number of processors.
        threads: of each task (BLAS, OpenMP); part of the setting, never of the machine.
        description: what one task is, as it shall stand in "model 3 of 16".

    Returns:
        The folder of each task, in the order of `tasks`.

    Raises:
        StudyError: one or more tasks failed; the finished ones are kept.
    """
    scratch = Path(scratch)
    scratch.mkdir(parents=True, exist_ok=True)
    folders = [scratch / task_hash(function, task, [key, threads]) for task in tasks]
    todo = {folder: task for folder, task in zip(folders, tasks, strict=True) if not folder.is_dir()}
    if todo:
        workers = min(workers or default_workers(), len(todo))
        failures = _run(function, todo, workers, threads, len(set(folders)), description)
        if failures:
            raise StudyError(_explain(failures, description))
    _log(folders, description)
    return folders


def _run(
    function: Callable[..., Any],
    todo: dict[Path, dict[str, Any]],
    workers: int,
    threads: int,
    total: int,
    description: str,
) -> list[str]:
    """Run tasks in a pool of processes; return the texts of those that failed."""
    failures: list[str] = []
    with _environment(threads), _pool(workers) as pool:
        futures = {pool.submit(_run_one, function, folder, task): task for folder, task in todo.items()}
        for future in _progress(as_completed(futures), total, total - len(todo), description):
            problem = _problem(future)
            if problem:
                failures.append(f"{description} {futures[future]}:\n{problem}")
    return failures


def _run_one(function: Callable[..., Any], folder: Path, task: dict[str, Any]) -> str | None:
    """In the child: one task, into a temporary folder that is renamed when all is written."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    for stale in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(stale, ignore_errors=True)
    partial.mkdir(parents=True)
    started = time.monotonic()
    try:
        function(partial, **task)
    except StudyError as error:
        return str(error)
    except Exception:
        return traceback.format_exc()
    (partial / SECONDS).write_text(f"{time.monotonic() - started:.1f}\n", encoding="utf-8")
    try:
        partial.rename(folder)
    except OSError:  # somebody else finished the same task meanwhile
        if not folder.is_dir():
            raise
        shutil.rmtree(partial)
    return None


def _log(folders: Sequence[Path], description: str) -> None:
    """Append the seconds of these tasks, of this or an earlier run, to the file that the runner asked for."""
    path = os.environ.get("UNLEARNING_TASK_LOG")
    if path and folders:
        seconds = [float((folder / SECONDS).read_text(encoding="utf-8")) for folder in folders]
        line = {"task": description, "count": len(folders), "seconds_each": round(sum(seconds) / len(seconds), 1)}
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


def _problem(future: "Future[str | None]") -> str | None:
    try:
        return future.result()
    except BrokenExecutor:
        return (
            "its process was killed from outside, most likely for lack of memory. "
            "Run again with fewer tasks side by side: UNLEARNING_WORKERS=1"
        )


def _explain(failures: list[str], description: str) -> str:
    count = "one" if len(failures) == 1 else str(len(failures))
    return f"{count} {description} task(s) failed; finished ones are kept. First failure, {failures[0].rstrip()}"


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of fresh processes that is torn down at once on any exception (also Ctrl-C)."""
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_die_with_parent)
    try:
        yield pool
    except BaseException:
        for process in list((getattr(pool, "_processes", None) or {}).values()):
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def _die_with_parent() -> None:
    """In the child: leave when the parent is gone (killed), so that no orphan works on beside a new run."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Thread counts for children, restored afterwards (children read them when they start)."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _progress(done: Iterable[Any], total: int, finished: int, description: str) -> Iterator[Any]:
    """A bar on a terminal; elsewhere one line on stderr for each finished task."""
    if sys.stderr.isatty():
        yield from tqdm(done, total=total, initial=finished, desc=description, mininterval=1, file=sys.stderr)
        return
    if finished:
        print(f"{finished} of {total} {description} tasks were finished before", file=sys.stderr, flush=True)
    for count, item in enumerate(done, start=finished + 1):
        yield item
        print(f"{description} {count} of {total}", file=sys.stderr, flush=True)
