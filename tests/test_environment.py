"""The environment files say the same, and the machine check says what is wrong."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests import copies
from tools import doctor

ROOT = copies.ROOT
NAMES = {
    "ruamel": "ruamel-yaml",
    "yaml": "pyyaml",
    "SetSimilaritySearch": "setsimilaritysearch",
}


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def lock():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def locked():
    return {canonical(line.split("==")[0]): line.split("==")[1] for line in lock()}


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_every_line_of_the_lock_is_one_exact_version():
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line) for line in lock())
    assert "torch==2.13.0" in lock()


def test_pyproject_and_lock_agree():
    asked = project()["dependencies"] + project()["optional-dependencies"]["dev"]
    differing = [a for a in asked if locked().get(canonical(a.split("==")[0])) != a.split("==")[1]]
    assert not differing


def test_the_cluster_engine_is_one_exact_version_that_only_those_who_ask_for_it_install():
    (asked,) = project()["optional-dependencies"]["ray"]
    assert re.fullmatch(r"ray==[0-9.]+", asked) and "ray" not in locked()


def test_conda_users_get_the_same_python_and_the_same_lock():
    environment = YAML(typ="safe", pure=True).load((ROOT / "environment.yml").read_text())
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert "-r requirements.lock" in pip and "-e ." in pip
    python = next(d for d in environment["dependencies"] if str(d).startswith("python"))
    assert python == "python=3.11" and project()["requires-python"] == ">=3.11,<3.12"


def test_this_environment_is_the_locked_one():
    wrong = {n: (doctor.installed(n), v) for n, v in doctor.locked().items() if doctor.installed(n) != v}
    assert not wrong


def third_party(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name.split(".")[0] for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def test_every_package_that_the_code_imports_is_a_declared_dependency():
    imported = {n for p in (ROOT / "src").rglob("*.py") for n in third_party(p)} - set(sys.stdlib_module_names)
    extras = project()["optional-dependencies"]
    asked = project()["dependencies"] + extras["ray"] + extras["accelerate"]
    declared = {canonical(d.split("==")[0]) for d in asked}
    imported -= {"unlearning", "neighbours", "paper", "tools"}
    missing = {n for n in imported if canonical(NAMES.get(n, n)) not in declared}
    assert not missing


def test_make_does_not_set_up_the_environment_twice(tmp_path):
    copies.copy_repository(tmp_path, git=False)
    first = make(tmp_path, "-n", "env")
    assert "pip install -r requirements.lock" in first.stdout
    (tmp_path / ".venv").mkdir()
    stamp = re.search(r"touch (\S+)", first.stdout).group(1)
    (tmp_path / stamp).touch()
    assert "pip" not in make(tmp_path, "-n", "env").stdout


def test_make_says_which_python_it_lacks(tmp_path):
    copies.copy_repository(tmp_path, git=False)
    ran = make(tmp_path, "env", "PYTHON=python-that-is-not-here")
    assert ran.returncode != 0 and "install Python 3.11" in ran.stdout


def test_every_make_target_that_a_page_names_is_there():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    told = (page for page in ROOT.glob("*.md") if page.name not in ("CHANGELOG.md", "LOG.md"))  # of earlier versions
    pages = [*told, *(p for top in ("notebooks", "own", "docs") for p in ROOT.glob(f"{top}/**/*.md"))]
    named = {t for p in pages for t in re.findall(r"(?:`|^|; )(?:[A-Z]+=\d+ )?make ([a-z-]+)", p.read_text(), re.M)}
    assert named <= targets


def test_make_tells_each_target_that_a_reviewer_needs():
    told = re.findall(r"^  make ([a-z-]+)", make(ROOT, "help").stdout, re.M)
    assert {"repro", "figures", "rerun", "lab", "check", "test", "doctor"} <= set(told)


def make(folder, *arguments):
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a source archive: git says nothing here")
@pytest.mark.parametrize("name", ["notebooks/03_base.ipynb", "results/notebooks/base.ipynb", "dvc.lock"])
def test_no_git_filter_rewrites_what_dvc_has_hashed(name):
    out = subprocess.run(["git", "check-attr", "filter", "--", name], cwd=ROOT, capture_output=True, text=True).stdout
    assert out.strip().endswith((": unset", ": unspecified"))


def test_hooks_leave_results_alone_and_strip_sources_only():
    config = YAML(typ="safe", pure=True).load((ROOT / ".pre-commit-config.yaml").read_text())
    skipped = re.compile(config["exclude"])
    assert all(skipped.search(p) for p in ("results/notebooks/base.ipynb", "figures/01.svg", "dvc.lock"))
    hooks = {h["id"]: h for repo in config["repos"] for h in repo["hooks"]}
    assert {repo["repo"] for repo in config["repos"]} == {"local"}
    assert hooks["strip-outputs"]["files"].startswith("^notebooks/") and "--keep-id" in hooks["strip-outputs"]["entry"]


def test_the_stripping_hook_changes_nothing_in_the_sources():
    sources = sorted(map(str, ROOT.glob("notebooks/*.ipynb")))
    ran = subprocess.run([sys.executable, "-m", "nbstripout", "--keep-id", "--verify", *sources], capture_output=True)
    assert ran.returncode == 0, ran.stdout


# The machine check


@pytest.fixture
def repository(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    for name in ("requirements.lock", ".gitattributes"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    return tmp_path


def test_a_good_machine_has_no_problem(repository, monkeypatch):
    monkeypatch.setenv("UNLEARNING_WORKERS", "1")
    assert list(doctor.faults()) == []


def test_a_package_of_another_version_is_named_with_both_versions(repository):
    text = (repository / "requirements.lock").read_text()
    (repository / "requirements.lock").write_text(text.replace("numpy==", "numpy==9."))
    assert any("numpy" in p and "make env" in p for p in doctor.faults())


def test_a_tool_of_another_environment_is_named(repository, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert any("`dvc` on the PATH" in p and "activate" in p for p in doctor.faults())


def test_an_installed_nbstripout_filter_is_found(repository):
    (repository / ".git/info").mkdir(exist_ok=True)
    (repository / ".git/info/attributes").write_text("*.ipynb filter=nbstripout\n")
    assert any("nbstripout --uninstall" in p for p in doctor.faults())


def test_a_repository_that_git_refuses_is_told_with_what_makes_git_trust_it(repository, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    (told,) = (fault for fault in doctor.faults() if "git refuses" in fault)
    assert "dubious ownership" in told and f"safe.directory {repository}`" in told and "\n" not in told


def test_a_folder_that_cannot_be_written_to_is_named(repository, monkeypatch):
    (repository / "results").mkdir()
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != "results")  # root may write everywhere
    assert [fault for fault in doctor.faults() if "written to" in fault] == [
        f"nothing can be written to {repository / 'results'}. Make it writable, or work in a copy."
    ]


def test_a_device_that_the_machine_lacks_is_told(repository, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (repository / "params.yaml").write_text(text.replace("device: cpu", "device: cuda"), encoding="utf-8")
    assert any("device is cuda" in fault for fault in doctor.faults())


def test_more_tasks_than_memory_are_told_with_a_number_that_fits(repository, monkeypatch):
    monkeypatch.setattr(doctor, "memory_gib", lambda: 3.0)
    monkeypatch.setenv("UNLEARNING_WORKERS", "4")
    assert any("UNLEARNING_WORKERS=1" in w for w in doctor.warnings())


def test_a_lock_file_that_a_kill_cut_short_is_removed(repository):
    path = repository / ".dvc/tmp/rwlock"
    path.parent.mkdir(parents=True)
    path.write_text('{"/a/b": {"read": [')
    assert any("rwlock" in done for done in doctor.mend())
    assert not path.exists()


def test_a_whole_lock_file_is_left_alone(repository):
    path = repository / ".dvc/tmp/rwlock"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    assert list(doctor.mend()) == [] and path.exists()


def test_a_copy_of_a_source_archive_has_all_of_its_code_and_nothing_that_was_made_in_it(tmp_path):
    code = ["src/unlearning/data/groups.py", "params.yaml", ".dvc/config"]
    made = [
        "data/raw/a.whl",
        "models/base/0/config.json",
        ".dvc/tmp/lock",
        ".dvc/config.local",
        "src/__pycache__/a.pyc",
    ]
    for name in code + made:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert sorted(map(str, copies.repository_files(tmp_path))) == sorted(code)
