"""Independent tasks (a model, an ascent), side by side in processes and resumable one by one.

A task is a call of one function; what it writes lands in a folder whose name is the hash of everything that decides
it. A folder that is there is finished (it appears by an atomic rename): a task is never repeated, and a killed stage
goes on at its last finished task. Every task, also one alone, runs in a child process with the same number of threads,
so that nothing depends on how many run side by side, nor where. UNLEARNING_ENGINE says who runs them: `processes` of
this machine (joblib's loky), or a `ray` cluster, which shares this folder under the same path (docs/cluster.md).
"""

import ast
import functools
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
from joblib import Parallel, cpu_count, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError
from joblib.parallel import ParallelBackendBase

import unlearning
from tools import cannot_write
from unlearning.errors import StudyError

PACKAGES = ("unlearning.", "neighbours.")  # whose code decides what a task gives
SECONDS = ".seconds"  # in a task's folder: how long it took
ATTEMPTS = 2  # of a task whose worker dies; an exception would only come again, so it is not tried again
# Settings of this process that can change a result; children on this machine have them anyway.
TOLD = ("ATEN_", "CUBLAS_", "MALLOC_", "MKL_", "NPY_", "NVIDIA_", "ONEDNN_", "OPENBLAS_")
TOLD += ("PYTHONHASHSEED", "TOKENIZERS_", "TORCH_")
KILLED = f"its process, or one beside it, was killed in each of {ATTEMPTS} attempts, most likely for lack of memory. "
KILLED += "Run again with fewer tasks side by side: UNLEARNING_WORKERS=1"
Todo = list[tuple[Path, dict[str, Any]]]  # folder and arguments of each unfinished task
Outcomes = Iterator[tuple[Path, str | None]]  # folder of each task as it ends, and what went wrong, if anything


def hash_files(*paths: str | Path) -> str:
    """SHA-256 of the names and bytes of files; a folder stands for all files below it, in order of name."""
    digest = hashlib.sha256()
    for path in map(Path, paths):
        if not path.exists():
            raise StudyError(f"{path} is not there: run the stage that makes it first (dvc repro)")
        walked = os.walk(path, followlinks=True)  # a checkpoint may lie behind a link
        files = sorted(Path(top, name) for top, _, names in walked for name in names) if path.is_dir() else [path]
        for file in files:
            name = file.relative_to(path).as_posix() if path.is_dir() else file.name
            digest.update(f"{name}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as stream:
                hashlib.file_digest(stream, lambda: digest)  # goes on with this one
    return digest.hexdigest()


def code_hash(function: Callable[..., Any]) -> str:
    """SHA-256 of a function's module and of all modules of PACKAGES that it leads to."""
    code = Path(importlib.util.find_spec(function.__module__).origin).read_bytes()
    digest = hashlib.sha256(code)
    for name in sorted(reachable(code)):
        digest.update(name.encode() + b"\0" + _source(name).read_bytes())
    return digest.hexdigest()


def reachable(code: str | bytes) -> set[str]:
    """Modules of PACKAGES that code imports, directly or through one another, also inside functions."""
    found: set[str] = set()
    todo = [code]
    while todo:
        tree = ast.parse(todo.pop())
        guards = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
        unread = {node for guard in guards for node in ast.walk(guard)}  # but by a type checker
        for node in (n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom) and n not in unread):
            module = getattr(node, "module", None)
            names = {module or ""} | {f"{module}.{alias.name}" if module else alias.name for alias in node.names}
            new = {name for name in names - found if name.startswith(PACKAGES) and _source(name).is_file()}
            todo += [_source(name).read_bytes() for name in new]
            found |= new
    return found


def _source(name: str) -> Path:
    """File of a module of PACKAGES, found without importing it; there is none for a function's dotted name."""
    return Path(unlearning.__file__).parents[1].joinpath(*name.split(".")).with_suffix(".py")


def default_workers(otherwise: int | None = None) -> int:
    """Tasks side by side: UNLEARNING_WORKERS; where that is not set, `otherwise` or the processors we may use."""
    named = os.environ.get("UNLEARNING_WORKERS", "").strip()
    if named and (not named.isdigit() or int(named) < 1):
        raise StudyError(f"UNLEARNING_WORKERS must be a positive integer, not {named!r}")
    return int(named) if named else otherwise or cpu_count()


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

    The function, importable from a module, writes into the empty folder `out_dir`; tasks hold plain values or paths.
    scratch: folder of the finished tasks. key: what else decides a result (parameters, hashes of input files); the code
    is part of it anyway. workers: tasks side by side, else UNLEARNING_WORKERS, or as many as there are processors.
    threads: of each task (BLAS, OpenMP), of the setting, not of the machine. description: "model" in "model 3 of 16".
    """
    engines = {"processes": _on_this_machine, "ray": _on_the_cluster}
    named = os.environ.get("UNLEARNING_ENGINE", "").strip() or "processes"
    if named not in engines:
        raise StudyError(f"UNLEARNING_ENGINE must be one of {', '.join(engines)}, not {named!r}")
    engine = functools.partial(engines[named], function, workers=workers, threads=threads)
    scratch = Path(scratch)
    scratch.mkdir(parents=True, exist_ok=True)
    what = [function.__module__, function.__qualname__, code_hash(function), threads, key]
    texts = [json.dumps([what, task], sort_keys=True, default=Path.as_posix) for task in tasks]
    folders = [scratch / hashlib.sha256(text.encode()).hexdigest()[:24] for text in texts]
    left = {folder: task for folder, task in zip(folders, tasks, strict=True) if not folder.is_dir()}
    finished = set(folders) - left.keys()
    total, failures = len(set(folders)), []
    if len(left) < total:
        print(f"{total - len(left)} of {total} {description} tasks were finished before", file=sys.stderr, flush=True)
    for attempt in range(ATTEMPTS):  # an engine gives no outcome for a task whose worker died
        if not left:
            break
        if attempt:
            print(f"a worker was killed: {len(left)} {description} task(s) start again", file=sys.stderr, flush=True)
        with closing(engine(list(left.items()))) as outcomes:  # on Ctrl-C workers are torn down at once
            for folder, problem in outcomes:
                task = left.pop(folder)
                failures += [f"{description} {task}:\n{problem.rstrip()}"] if problem else []
                print(f"{description} {total - len(left)} of {total}", file=sys.stderr, flush=True)
    failures += [f"{description} {task}:\n{KILLED}" for task in left.values()]
    if failures:
        count = f"{len(failures)} {description} task(s)"
        raise StudyError(f"{count} failed; finished ones are kept. First failure, {failures[0]}")
    if folders and (path := os.environ.get("UNLEARNING_TASK_LOG")):  # for the runner's record; also of earlier runs
        took = {folder: float((folder / SECONDS).read_text(encoding="utf-8")) for folder in folders}
        each, before = sum(took.values()) / len(took), [took[folder] for folder in finished]
        line = {"task": description, "count": len(took), "seconds_each": round(each, 1), "before": before}
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
    return folders


def _on_this_machine(function: Callable[..., Any], todo: Todo, workers: int | None, threads: int) -> Outcomes:
    """Tasks in loky's processes; it ends early when one of them dies, because loky then stops all of them."""
    on_gpus = any(task.get("device") == "cuda" for _, task in todo)
    workers = min(workers or default_workers(1 if on_gpus else None), len(todo))
    # With one job joblib would compute in this very process. Two jobs, handed out one at a time, are one at work.
    pool = {"n_jobs": max(workers, 2), "inner_max_num_threads": threads}
    watch = {"initializer": end_with, "initargs": (os.getpid(),)}
    try:
        with suppress(TerminatedWorkerError), parallel_config("loky", **pool, **watch):
            run = Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch=workers)
            yield from run(delayed(_run_one)(function, folder, task, Path.cwd()) for folder, task in todo)
    finally:  # loky keeps its processes for the next call, which may find other sources: modules are loaded once
        get_reusable_executor(kill_workers=True).shutdown(kill_workers=True)


def _on_the_cluster(function: Callable[..., Any], todo: Todo, workers: int | None, threads: int) -> Outcomes:
    """Tasks on the machines of a Ray cluster: RAY_ADDRESS, else the one that runs here, else a new one here.

    Each task is a Ray task that takes `threads` processors, and a GPU of its own if its `device` is cuda; a thread of
    joblib here waits for it. So Ray finds a free machine for each, and a worker's death costs the others nothing.
    (Ray's own backend for joblib deals tasks out in turn, also to busy workers, and stops all when one dies.)
    """
    try:
        import ray
        from ray.exceptions import LocalRayletDiedError, NodeDiedError, OutOfMemoryError, WorkerCrashedError
    except ImportError:
        raise StudyError("UNLEARNING_ENGINE=ray, but Ray is not installed: pip install -e '.[ray]'") from None
    variables = {name: value for name, value in os.environ.items() if name.startswith(TOLD)}
    variables |= dict.fromkeys(ParallelBackendBase.MAX_NUM_THREADS_VARS, str(threads))  # as joblib does for loky
    quiet = {"logging_level": "warning", "log_to_driver": False}  # what a worker prints would stand in the notebook
    ray.init(runtime_env={"env_vars": variables}, **quiet)
    # max_calls: a fresh process for each task. max_retries: further attempts are ours to make, and to count.
    takes = {"num_cpus": threads, "num_gpus": int(any(task.get("device") == "cuda" for _, task in todo))}
    remote = ray.remote(**takes, max_calls=1, max_retries=0, scheduling_strategy="SPREAD")(_run_one)

    def outcome(folder: Path, task: dict[str, Any]) -> tuple[Path, str | None] | None:
        with suppress(LocalRayletDiedError, NodeDiedError, OutOfMemoryError, WorkerCrashedError):  # its worker died
            return ray.get(remote.remote(function, folder, task, Path.cwd()))

    try:
        if takes["num_gpus"] and not ray.cluster_resources().get("GPU"):
            raise StudyError("device is cuda, but no machine of the Ray cluster has a GPU")  # Ray would wait for one
        pool = {"n_jobs": workers or default_workers(len(todo)), "backend": "threading", "batch_size": 1}
        run = Parallel(**pool, return_as="generator_unordered")
        yield from filter(None, run(delayed(outcome)(folder, task) for folder, task in todo))
    finally:
        ray.shutdown()  # ends what still runs, too


def _run_one(function: Callable[..., Any], folder: Path, task: dict[str, Any], home: Path) -> tuple[Path, str | None]:
    """In the child: one task, into a temporary folder that is renamed when all is written."""
    os.chdir(home)  # a cluster's workers start elsewhere, and paths are relative to the study's folder
    if folder.is_dir():  # finished, but its worker died before it could say so
        return folder, None
    partial = folder.with_name(f".{folder.name}.{socket.gethostname()}.{os.getpid()}")
    for stale in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(stale, ignore_errors=True)
    partial.mkdir(parents=True)
    started = time.monotonic()
    try:
        function(partial, **task)
        (partial / SECONDS).write_text(f"{time.monotonic() - started:.1f}\n", encoding="utf-8")
    except StudyError as error:
        return folder, str(error)
    except Exception as error:
        return folder, cannot_write(error, folder.parent) or traceback.format_exc()
    try:
        partial.rename(folder)
    except OSError:  # somebody else finished the same task meanwhile
        if not folder.is_dir():
            raise
        shutil.rmtree(partial)
    return folder, None


def end_with(pid: int) -> None:
    """End, as by SIGTERM, when another process is no more: no orphan works on beside a new run."""

    def watch() -> None:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).wait()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
