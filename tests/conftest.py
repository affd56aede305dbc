"""Fixtures of the pipeline tests: one toy-size run of the whole study, in a temporary copy, for all of them."""

import contextlib
import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import copies
from tools import stages
from tools.doctor import mend
from tools.live import YAML_SAFE, small


@pytest.fixture(autouse=True)
def figures_closed():
    """No figure of a test is left open for the next."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@pytest.fixture
def at_root(monkeypatch: pytest.MonkeyPatch):
    """In the repository itself, whose stages are read anew."""
    monkeypatch.chdir(copies.ROOT)
    stages.stages.cache_clear()
    yield
    stages.stages.cache_clear()


def pytest_configure(config: pytest.Config) -> None:
    """In a source archive without .git dvc has to be told so, as `make repro` does; once, not in every process."""
    if not hasattr(config, "workerinput"):
        with contextlib.chdir(copies.ROOT):
            list(mend())


def digests(root: Path, *folders: str) -> dict[str, str]:
    """SHA-256 of every file below some folders of a repository, by relative path."""
    files = [p for f in folders for p in sorted((root / f).rglob("*")) if p.is_file()]
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@dataclass
class SmokeRun:
    """A finished toy-size run: where it is, what was committed before, and the files that one more kind touched."""

    root: Path
    committed_before: dict[str, str]
    kind: str
    touched: list[str]


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> SmokeRun:
    """All stages by `dvc repro` at toy size, with a kind of forget set that the study does not have, in a copy."""
    before = digests(copies.ROOT, "results", "figures")
    root = copies.copy_repository(tmp_path_factory.mktemp("smoke") / "study")
    copies.add_kind(root, "invented", like="canary")
    toy = small(YAML_SAFE.load((copies.ROOT / "params.yaml").read_text(encoding="utf-8")))
    sets = {"ood-secret-x1": toy["forget_sets"]["ood-secret-x1"] | {"kind": "invented"}}
    more = {"forget_sets": toy["forget_sets"] | sets, "populations": toy["populations"] | {"invented": 40}}
    copies.use_small_settings(root, **more)
    touched = subprocess.run(["git", "diff", "--name-only"], cwd=root, capture_output=True, text=True).stdout.split()
    copies.clear_results(root)
    ran = copies.dvc(root, "repro")
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-6000:]
    copies.commit(root)
    return SmokeRun(root, before, "invented", touched)
