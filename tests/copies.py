"""Temporary copies of the repository: tests run the pipeline there and never touch committed results."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat

from tools.live import YAML_SAFE, overlay, small

ROOT = Path(__file__).parents[1]
READING = ("overview", "training", "exposure", "trade_off", "memorization", "claims", "metrics")  # stages


def repository_files(root: Path = ROOT) -> list[Path]:
    """Files of the repository, tracked or new, without those that git ignores; relative paths."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
    )
    if listed.returncode == 0 and listed.stdout:
        return sorted({Path(p) for p in listed.stdout.split("\0") if p and (root / p).is_file()})
    top = {".git", ".venv", "data", "models", "scratch"}
    anywhere = {"__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis", "cache", "tmp", "config.local"}
    found = [p.relative_to(root) for p in root.rglob("*") if p.is_file()]
    return sorted(p for p in found if p.parts[0] not in top and not anywhere & set(p.parts))


def copy_repository(target: Path, *, git: bool = True) -> Path:
    """A copy of the repository with one commit (or, as an archive, without git) and the fetched corpus archive."""
    for path in repository_files():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, target / path)
    raw = ROOT / "data/raw"
    if raw.is_dir():
        (target / "data/raw").mkdir(parents=True)
        for archive in raw.iterdir():
            (target / "data/raw" / archive.name).symlink_to(archive)
    if git:
        commit(target)
    return target


def commit(repository: Path) -> None:
    """Commit everything in a repository of its own."""
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-q", "--no-verify", "-m", "copy"]):
        subprocess.run(["git", *command], cwd=repository, check=True)


def code_of(notebook: Path) -> str:
    """The code cells of a notebook, one after the other."""
    return "\n".join(c.source for c in nbformat.read(notebook, as_version=4).cells if c.cell_type == "code")


def clear_results(repository: Path) -> None:
    """Take a copy's results away, so that whatever is there later was made there."""
    for folder in ("results", "figures"):
        shutil.rmtree(repository / folder, ignore_errors=True)
    for lock in repository.glob("**/dvc.lock"):  # also those of pipelines beside the study's
        lock.unlink()


def module(repository: Path, name: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m name` in a copy; its output as text."""
    command = [sys.executable, "-m", name, *arguments]
    return subprocess.run(command, cwd=repository, env=environment(repository, **more), capture_output=True, text=True)


def environment(repository: Path, **more: str) -> dict[str, str]:
    """Environment in which `python` and `dvc` are those of this test run and the package is the copy's."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "UNLEARNING_", "PYTEST_"))}
    return kept | {"PATH": path, "PYTHONPATH": str(repository / "src")} | more


def dvc(repository: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run dvc in a copy; its output as text."""
    return module(repository, "dvc", *arguments, **more)


def add_kind(repository: Path, name: str, *, like: str) -> None:
    """One more kind of forget set in the two tables `KINDS` of a copy, as somebody who adds one would write it."""
    for path in (repository / "src/unlearning/data/kinds.py", repository / "src/paper/look.py"):
        text = path.read_text(encoding="utf-8")
        assigned = (node for node in ast.parse(text).body if isinstance(node, ast.Assign | ast.AnnAssign))
        table = next(node.value for node in assigned if ast.unparse(node).startswith(("KINDS =", "KINDS:")))
        entry = next(value for key, value in zip(table.keys, table.values, strict=True) if key.value == like)
        opening = text.splitlines()[table.lineno - 1]
        line = f"    {name!r}: {ast.get_source_segment(text, entry)},"
        path.write_text(text.replace(f"\n{opening}\n", f"\n{opening}\n{line}\n", 1), encoding="utf-8")


def use_small_settings(repository: Path, **more: dict[str, Any]) -> dict[str, Any]:
    """Lay the product's small sizes, and more, over the copy's params.yaml."""
    params = overlay(small(YAML_SAFE.load((repository / "params.yaml").read_text(encoding="utf-8"))), more)
    with (repository / "params.yaml").open("w", encoding="utf-8") as stream:
        YAML_SAFE.dump(params, stream)
    return params
