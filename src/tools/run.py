"""The command of every stage: execute a notebook by papermill so that the same inputs give the same bytes.

    python -m tools.run notebooks/04_train.ipynb optimizer=adamw

DVC_STAGE names the stage (dvc sets it); the executed copy becomes results/notebooks/<stage>.ipynb. A notebook gets
what dvc tracks: the parameters that dvc.yaml names for its stage, and the `name=value` arguments, are exactly those of
the cell tagged `parameters` (full=True where that has it); modules that it loads lie in the stage's `deps`.
"""

import ast
import contextlib
import importlib.util
import json
import logging
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
import papermill
import psutil
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from tools import cannot_write, progress, settings, stages
from tools.doctor import machine
from tools.tasks import default_workers, end_with
from unlearning.errors import StudyError, refuse

# Read by the kernel and the processes it starts: fixed hashes, freed memory kept for the next step, nobody's defaults.
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "IPYKERNEL_CELL_NAME": "<cell>",
    "MATPLOTLIBRC": str(Path(importlib.util.find_spec("matplotlib").origin).parent / "mpl-data/matplotlibrc"),
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_MININTERVAL": "10",
}
ENVIRONMENT |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTHONNOUSERSITE"), "1")
ENVIRONMENT |= dict.fromkeys(("JUPYTER_PREFER_ENV_PATH", "PYDEVD_DISABLE_FILE_VALIDATION"), "1")
ENVIRONMENT |= {f"HF_{n}": "1" for n in ("HUB_DISABLE_TELEMETRY", "DATASETS_DISABLE_PROGRESS_BARS")}
ENVIRONMENT |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}

# No network, but for what the settings name: a model of the hub, a data set of the hub.
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

# One instruction set for all machines, so that their numbers agree; bfloat16 needs a newer one.
ONE_INSTRUCTION_SET = {"MKL_CBWR": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
ONE_INSTRUCTION_SET |= {"NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR", "OPENBLAS_CORETYPE": "Haswell"}

# What a user may have set for all notebooks of theirs.
PERSONAL = ("PYTHONSTARTUP", "JUPYTER_PATH")

# A cell that is run after the notebook's last one and not kept: which package modules the kernel has imported.
PROBE = """import sys as _sys
print(*(name for name, module in _sys.modules.items()
        if name.startswith(("unlearning.", "neighbours.", "paper.")) and not hasattr(module, "__path__")))"""

# How papermill's own lines in its log begin.
REMARKS = ("Input Notebook:", "Output Notebook:", "Executing ", "Ending Cell", "<Figure", "paper.", "unlearning.")

# Executed copies lie two folders deep, sources one: links of prose, as they have to read in the copy. A copy leads on
# to copies; a notebook of several stages has several, so there the link stays with the source, which names them.
LINKS = (
    (re.compile(r"\]\(\d\d_(?!train\b|unlearn\b)(\w+\.ipynb)\)"), r"](\1)"),
    (re.compile(r"\]\(\.\./results/notebooks/"), "]("),
    (re.compile(r"\]\(\.\./results/notebooks\)"), "](./)"),
    (re.compile(r"\]\(\.\./(?=\w)"), "](../../"),
    (re.compile(r"\]\((\d\d_\w+\.ipynb|README\.md)\)"), r"](../../notebooks/\1)"),
)
STOPPED = "stopped; finished models and ascents are kept, and the same command goes on"
LEFT_OUT = {"parameters", "injected-parameters"}  # tags of cells: what they hold, the next one shows as a table


def run(source: Path, extras: dict[str, str]) -> None:
    """Execute a notebook for the stage that DVC_STAGE names, and write its copy; all is as before if it fails."""
    stage = os.environ.get("DVC_STAGE", "").rpartition(":")[2]
    if not stage or not source.is_file():
        raise StudyError(f"there is no notebook {source}" if stage else "run through dvc: dvc repro -s STAGE")
    found = settings.load()  # a params.yaml that breaks the schema is refused before anything is overwritten
    if any(str(dep) == settings.BESIDE for dep in stages.stage_of(stage).params):
        settings.load_beside()
    if any(str(dep).startswith("own/") for dep in stages.stage_of(stage).deps):
        settings.check_own_files(found)
    params = parameters(source, stages.params(stage) | extras, stage)
    refuse(settings.no_device(found) if "device" in params else ())
    stages.check_inputs(stage)
    log = Path("scratch") / f"tasks-{stage}.jsonl"
    log.unlink(missing_ok=True)
    os.environ["UNLEARNING_TASK_LOG"] = str(log.resolve())
    outs = [Path(str(out)) for out in stages.stage_of(stage).outs if not out.use_cache]  # those that git keeps
    target = Path("results/notebooks") / f"{stage.replace('@', '-')}.ipynb"
    started, now = time.monotonic(), time.time()
    with restored_on_failure(outs), progress.displayed(stage):
        notebook = _execute(source, params, stage)
        loaded = "".join(output.text for output in notebook.cells.pop().outputs).split()
        if missing := stages.undeclared(stage, loaded):
            raise StudyError(f"dvc.yaml: stage {stage} loads but does not depend on {', '.join(missing)}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(nbformat.writes(normalise(notebook)).rstrip("\n") + "\n", encoding="utf-8", newline="\n")
        _settle(stage, outs, now - 1)  # a file's time may lag behind the clock by a few milliseconds
    _record(stage, time.monotonic() - started, log)


def parameters(source: Path, params: dict[str, Any], stage: str) -> dict[str, Any]:
    """What the notebook gets, if that is what its parameters cell declares."""
    cells = nbformat.read(source, as_version=4).cells
    code = "\n".join(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
    declared = {target.id for node in ast.parse(code).body for target in node.targets}
    params |= {"full": True} if "full" in declared else {}
    if unlike := sorted(declared ^ set(params)):
        told = [f"{name} ({'the notebook' if name in declared else 'the stage'} alone has it)" for name in unlike]
        raise StudyError(f"{source} and stage {stage} of dvc.yaml disagree on the parameters: {', '.join(told)}")
    return params


@contextlib.contextmanager
def restored_on_failure(paths: Sequence[Path]) -> Iterator[None]:
    """No result is lost to a run that fails: outputs are kept aside, and put back on an exception (or Ctrl-C)."""
    Path("scratch").mkdir(exist_ok=True)  # of the same file system: putting back takes no space
    with tempfile.TemporaryDirectory(prefix=".kept-", dir="scratch", ignore_cleanup_errors=True) as folder:
        kept = {path: Path(folder) / str(number) for number, path in enumerate(paths) if path.exists()}
        for path, copy in kept.items():
            (shutil.copytree if path.is_dir() else shutil.copy2)(path, copy)
        try:
            yield
        except BaseException:
            for path in paths:
                with contextlib.suppress(OSError):  # what may not be written to is as it was
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
                    if path in kept:
                        path.parent.mkdir(parents=True, exist_ok=True)
                        shutil.move(kept[path], path)
            raise


def _settle(stage: str, outs: list[Path], started: float) -> None:
    """The outputs of this run alone: files that earlier settings left in a folder go."""
    for out in outs:
        files = [path for path in (out, *out.rglob("*")) if path.is_file()]
        old = [path for path in files if path.stat().st_mtime < started]
        if out.parts[0] == "figures":  # of a study that is too small nothing may be drawn
            out.mkdir(parents=True, exist_ok=True)
        elif len(old) == len(files):
            raise StudyError(f"stage {stage} did not write {out}, as dvc.yaml says it does")
        for path in old:
            path.unlink()


def environment(params: dict[str, Any]) -> dict[str, str]:
    """What a stage with these parameters sets for its kernel."""
    from_hub = params.get("model", {}).get("hub") or params.get("corpus", {}).get("name") == "wmt14"
    precise = params.get("precision") != "bfloat16"
    return ENVIRONMENT | (ONE_INSTRUCTION_SET if precise else {}) | ({} if from_hub else OFFLINE)


def _execute(source: Path, params: dict[str, Any], stage: str) -> Any:
    """Run all cells and the probe; an exception in a cell becomes a StudyError that says where to look."""
    notebook = nbformat.read(source, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(PROBE))
    failed = Path("scratch/failed") / f"{stage}.ipynb"
    failed.parent.mkdir(parents=True, exist_ok=True)
    os.environ.update(environment(params) | {"UNLEARNING_STAGE": stage})
    for name in PERSONAL:
        os.environ.pop(name, None)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logger = logging.getLogger("papermill")  # what cells print goes to stderr as they run; its own remarks do not
    logger.setLevel(logging.INFO)
    logger.addFilter(lambda r: bool(r.getMessage().strip()) and not r.getMessage().startswith(REMARKS))
    options = {"progress_bar": False, "log_output": True, "record_timing": False, "coalesce_streams": True}
    options |= {"kernel_name": "python3", "start_timeout": 120}
    try:
        with tempfile.TemporaryDirectory(prefix="kernel-", ignore_cleanup_errors=True) as folder:
            os.environ.update(dict.fromkeys(("IPYTHONDIR", "JUPYTER_CONFIG_DIR"), folder))  # not the user's
            config = Config()
            if len(folder) < 80:  # a socket's name has at most 107 characters; ipykernel warns of TCP
                config.KernelManager.transport, config.KernelManager.ip = "ipc", f"{folder}/socket"
            executed = papermill.execute_notebook(notebook, str(failed), params, config=config, **options)
    except PapermillExecutionError as error:
        if error.ename == "StudyError":  # a mistake of the user is told in its own words
            raise StudyError(f"stage {stage}: {error.evalue}") from None
        if told := cannot_write(error.evalue, "."):
            raise StudyError(f"stage {stage}: {told}") from None
        where = f"stage {stage} failed in cell {error.exec_count}: {error.ename}: {error.evalue}\nSee {failed}"
        raise StudyError("\n".join([*error.traceback, "", where])) from None
    except DeadKernelError:
        raise StudyError(
            f"stage {stage}: the notebook's process died, most likely for lack of memory. Close other programs or "
            "run fewer tasks side by side (UNLEARNING_WORKERS=1); finished models and ascents are kept"
        ) from None
    failed.unlink(missing_ok=True)
    return executed


def normalise(notebook: Any) -> Any:
    """The executed notebook without times, random ids, stderr, widget states and version texts (in place).

    Links from the folder of the sources become links from the folder of executed copies, to copies. What is no valid
    notebook is refused: GitHub would show nothing.
    """
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": {"name": "python"}})
    notebook.cells = [cell for cell in notebook.cells if not LEFT_OUT & set(cell.metadata.get("tags", []))]
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = nbformat.from_dict({key: value for key, value in cell.metadata.items() if key == "tags"})
        if cell.cell_type == "markdown":
            for pattern, link in LINKS:
                cell.source = pattern.sub(link, cell.source)
        if cell.cell_type == "code":
            widget = "application/vnd.jupyter.widget-view+json"
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr" and widget not in o.get("data", {})]
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        raise StudyError(f"the executed notebook is not valid: {error.message}") from None
    return notebook


def _record(stage: str, seconds: float, log: Path) -> None:
    """Time, memory and machine of this run, for the pages that tell it (no output of a stage)."""
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF))
    peak_mib = peak / (2**20 if sys.platform == "darwin" else 1024)
    tasks = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    path = Path("results/runs") / f"{stage}.json"
    before = [task.pop("before") for task in tasks]  # seconds of each that an earlier, stopped run had finished
    if any(before) and all(len(b) == t["count"] for b, t in zip(before, tasks, strict=True)) and path.exists():
        return  # that run left this record
    seconds += sum(map(sum, before)) / default_workers()
    record = {"stage": stage, "seconds": round(seconds), "peak_mib": int(round(peak_mib, -1)), "tasks": tasks}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record | machine(), indent=2, ensure_ascii=False)
    new = path.with_name(f"{path.name}.new")  # a run that is stopped here leaves the old record whole
    new.write_text(text + "\n", encoding="utf-8", newline="\n")
    new.replace(path)


def orphan(above: psutil.Process) -> bool:
    """Is the nearest process above, which would be dvc, the first one of the system?"""
    return above.pid == 1 and "dvc" not in " ".join(above.cmdline())


def main(arguments: list[str]) -> int:
    """Command line: SOURCE [NAME=VALUE …]. Exit status 0, or 1 with one message on stderr."""
    if not arguments or any("=" not in a for a in arguments[1:]):
        print("usage: python -m tools.run SOURCE [NAME=VALUE …]", file=sys.stderr)
        return 2
    try:
        run(Path(arguments[0]), dict(a.split("=", 1) for a in arguments[1:]))
    except (StudyError, KeyboardInterrupt, OSError) as error:
        told = cannot_write(error, ".") if isinstance(error, OSError) else str(error) or STOPPED
        if not told:
            raise
        print(f"\n{told}\n", file=sys.stderr)
        with contextlib.suppress(StudyError):
            stages.restore_cached(os.environ.get("DVC_STAGE", "").rpartition(":")[2])
        return 1
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop as on Ctrl-C, also when dvc alone is killed
    if orphan(above := progress.caller()):  # dvc was killed before this line
        sys.exit(STOPPED)
    end_with(above.pid)
    sys.exit(main(sys.argv[1:]))
