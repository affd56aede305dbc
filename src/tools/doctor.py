"""What is wrong with this machine, in words, before a long run; mends what can be mended without a question."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tools.stages import minutes, runs
from tools.tasks import default_workers
from unlearning.errors import StudyError

LOCK = Path("requirements.lock")
KEY_PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "numpy", "scipy", "pandas", "pyarrow", "matplotlib")
WRITTEN = ("results", "figures", "data", "models", "scratch", ".dvc", ".dvc/cache", ".dvc/tmp")
DISK_GIB = 4
MEMORY_GIB_PER_TASK = 2


def machine() -> dict[str, object]:
    """Processor, cores, memory and versions, for the record of a run."""
    names = re.findall(r"^model name\s*:\s*(.+)$", _text(Path("/proc/cpuinfo")), re.M)
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory_gib()),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: installed(name) for name in KEY_PACKAGES},
    }


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def memory_gib() -> float:
    """Memory of the machine, GiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def locked() -> dict[str, str]:
    """Versions by package name (as written) in the lock file."""
    return dict(re.findall(r"^([\w.-]+)==([\w.]+)", LOCK.read_text(encoding="utf-8"), re.M))


def installed(name: str) -> str | None:
    """Installed version without its local suffix (2.13.0+cpu and 2.13.0 are one version)."""
    try:
        return version(name).split("+")[0]
    except PackageNotFoundError:
        return None


def faults() -> Iterator[str]:
    """Everything that would stop a run, or make its results differ, each with what mends it."""
    if sys.version_info[:2] != (3, 11):
        yield f"Python is {platform.python_version()}; the study is pinned to 3.11. Install 3.11, then `make env`."
    if not LOCK.exists():
        yield f"{LOCK} is not here. Run from the top of the repository."
        return
    if wrong := [(name, installed(name), v) for name, v in locked().items() if installed(name) != v]:
        shown = ", ".join(f"{name} {has or 'is missing'} (locked: {v})" for name, has, v in wrong[:5])
        yield f"{len(wrong)} packages differ from {LOCK}: {shown}. Run `make env`."
    for tool in ("python", "dvc"):
        found = shutil.which(tool)
        if not found or Path(found).parent.resolve() != Path(sys.prefix, "bin").resolve():
            yield f"`{tool}` on the PATH is {found}, not this environment's. Run `. .venv/bin/activate`, or use make."
    if Path(".git").exists():
        if not shutil.which("git"):
            yield "git is not installed; dvc needs it in a git checkout. Install it."
            return
        refused = subprocess.run(["git", "rev-parse", "--git-dir"], capture_output=True, text=True)
        if refused.returncode:
            own = "dubious ownership" in refused.stderr
            mend = f"Run `git config --global --add safe.directory {Path.cwd()}`." if own else "Clone it anew."
            yield f"git refuses this repository ({refused.stderr.strip().splitlines()[0][:120]}). {mend}"
        command = ["git", "check-attr", "filter", "--", "notebooks/03_base.ipynb", "results/notebooks/base.ipynb"]
        told = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
        if filtered := [line for line in told if not line.endswith((": unspecified", ": unset"))]:
            yield f"a git filter rewrites notebooks ({filtered[0]}): dvc sees changes. Run `nbstripout --uninstall`."
    for folder in filter(os.path.exists, (".", *WRITTEN)):
        if not os.access(folder, os.W_OK | os.X_OK):
            yield f"nothing can be written to {Path(folder).resolve()}. Make it writable, or work in a copy."
    try:
        default_workers()
    except StudyError as error:
        yield str(error)
    with suppress(StudyError, ImportError):  # what is wrong with params.yaml is told by tools.settings
        from tools.settings import load, no_device

        yield from no_device(load())


def warnings() -> Iterator[str]:
    """What may become tight on this machine, but need not."""
    free = shutil.disk_usage(".").free / 2**30
    if free < DISK_GIB:
        yield f"only {free:.1f} GiB of disk are free here; a full run takes up to {DISK_GIB}."
    need = MEMORY_GIB_PER_TASK * default_workers()
    if memory_gib() < 0.9 * need:
        fits = max(int(memory_gib() // MEMORY_GIB_PER_TASK), 1)
        yield f"tasks side by side may need {need} GiB of memory, of {memory_gib():.0f}: UNLEARNING_WORKERS={fits}."


def mend() -> Iterator[str]:
    """Put right what needs no question: an archive without .git, a lock file that a kill cut short."""
    git = any((folder / ".git").exists() for folder in (Path.cwd(), *Path.cwd().parents))
    if not git and "no_scm" not in _text(Path(".dvc/config.local")):
        subprocess.run([sys.executable, "-m", "dvc", "config", "--local", "core.no_scm", "true"], check=True)
        yield "there is no .git here (an archive): told dvc to do without (.dvc/config.local)"
    rwlock = Path(".dvc/tmp/rwlock")
    try:
        json.loads((text := _text(rwlock)) or "{}")
    except ValueError:
        if not any(Path(f"/proc/{pid}").exists() for pid in re.findall(r'"pid": (\d+)', text)):  # else dvc writes it
            rwlock.unlink()
            yield "removed .dvc/tmp/rwlock, which a killed run had left cut off in the middle"


def main() -> int:
    """Report and mend; 1 if something would stop or falsify a run."""
    for done in mend():
        print(f"put right: {done}")
    found = list(faults())
    told = [f"problem: {fault}" for fault in found] or [f"warning: {warning}" for warning in warnings()]
    print("\n".join(told) or "nothing is wrong with this machine", file=sys.stderr if told else sys.stdout)
    if records := list(runs().values()):
        where = ", ".join(sorted({f"{record['cores']} cores of {record['processor']}" for record in records}))
        print(f"all stages took {minutes(records):.0f} minutes when recorded, on {where}; dvc skips what is current")
    return min(len(found), 1)


if __name__ == "__main__":
    sys.exit(main())
