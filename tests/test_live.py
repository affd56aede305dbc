"""Notebooks by hand: parameters come from params.yaml, and nothing that is committed is written to."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from ruamel.yaml import YAML

from tests import copies
from tools import live
from tools.live import settings
from tools.settings import load
from unlearning.errors import StudyError

ROOT = copies.ROOT
SOURCES = sorted(path.name for path in ROOT.glob("notebooks/*.ipynb"))
MEASURING = [name for name in SOURCES if name[3:-6] not in copies.READING]
PARAMS = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository with a committed table and a fetched archive, seen from its notebooks."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("notebooks/a.ipynb", "own/corpus/a.jsonl", "data/raw/a.whl", "results/tables/train/adamw/a.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("as committed")
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.delenv("UNLEARNING_STAGE", raising=False)
    return tmp_path


def test_values_that_a_stage_hands_in_come_back_as_they_are(root, monkeypatch):
    monkeypatch.setenv("UNLEARNING_STAGE", "unlearn@a")
    assert settings(full=True, seed=3, name="a") == (3, "a")
    assert settings(claims={"ind": "a"}) == {"ind": "a"}
    assert Path.cwd() == root / "notebooks"


def test_a_reading_notebook_gets_the_settings_and_the_committed_tables(root):
    claims, seed = settings(claims=None, seed=None)
    assert (claims, seed) == (PARAMS["claims"], PARAMS["seed"])
    assert Path.cwd() == root / "scratch/by-hand"
    assert Path("results/tables/train/adamw/a.csv").read_text() == "as committed"


def test_tables_that_a_reading_notebook_writes_are_not_those_of_the_repository(root):
    settings(claims=None)
    for path in ("results/tables/claims/claims.csv", "figures/claims/a.svg"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("by hand")
    written = {p.relative_to(root).parts[0] for p in root.rglob("*") if p.is_file() and p.read_text() == "by hand"}
    assert written == {"scratch"}


def test_a_second_call_in_the_same_notebook_changes_nothing(root):
    first = settings(claims=None), Path.cwd()
    assert (settings(claims=None), Path.cwd()) == first


def test_a_measuring_notebook_gets_small_sizes_until_it_is_told_otherwise(root):
    corpus = settings(full=False, seed=None, corpus=None, model=None)[1]
    assert corpus["core"] < PARAMS["corpus"]["core"] and corpus["archive"] == PARAMS["corpus"]["archive"]
    assert Path.cwd() == root / "scratch/small"
    assert Path("data/raw/a.whl").exists() and Path("own/corpus/a.jsonl").exists()
    assert settings(full=True, seed=None, corpus=None, model=None)[1] == PARAMS["corpus"]
    assert Path.cwd() == root / "scratch/full"


TRAIN = dict.fromkeys(["track", "seed", "threads_per_task", "device", "precision", "forget_sets", "train", "unlearn"])


def test_a_notebook_whose_inputs_were_not_made_says_which_one_to_run_first(root):
    with pytest.raises(StudyError, match=r"^data/corpus is not in scratch/small yet: run notebooks/01_corpus\.ipynb"):
        settings(full=False, **TRAIN, optimizer="adamw")
    for name in ("data/corpus", "data/tokenizer", "data/forget_sets", "data/populations", "results/tables/forget_sets"):
        (root / "scratch/small" / name).mkdir(parents=True)
    with pytest.raises(StudyError, match=r"models/base is not in scratch/small yet: run notebooks/03_base\.ipynb"):
        settings(full=False, **TRAIN, optimizer="adamw")
    (root / "scratch/small/models/base").mkdir(parents=True)
    assert settings(full=False, **TRAIN, optimizer="adamw")[-1] == "adamw"


def test_it_says_how_long_the_run_of_the_study_took(root, capsys):
    for optimizer, seconds in (("adamw", 600), ("adafactor", 60)):
        record = {"seconds": seconds, "tasks": [], "cores": 2}
        (root / "results/runs").mkdir(exist_ok=True)
        (root / f"results/runs/train@{optimizer}.json").write_text(json.dumps(record))
    inputs = ["data/corpus", "models/base", "results/tables/forget_sets", "data/tokenizer", "data/forget_sets"]
    for name in inputs:
        (root / "scratch/small" / name).mkdir(parents=True)
    settings(full=False, **TRAIN, optimizer="adamw")
    assert "took 10.0 minutes" in capsys.readouterr().out


def test_outside_the_repository_it_says_where_to_open_a_notebook(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNLEARNING_STAGE", raising=False)
    with pytest.raises(StudyError, match=r"no dvc\.yaml"):
        settings(claims=None)


def test_the_table_has_a_row_for_each_parameter_and_one_for_many_entries(root, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda page, raw: shown.append(page))
    settings(seed=None, forget_sets=None, claims=None, ascents=None)
    lines = shown[0]["text/plain"].splitlines()
    assert shown[0]["text/html"].count("<tr>") == len(lines)
    assert "seed: 4388" in lines and "claims.confidence: 0.95" in lines
    assert "claims.headline: adafactor-restored, adamw" in lines
    assert [line[:28] for line in lines if line.startswith("forget_sets")] == ["forget_sets: ind, ood-canary"]
    assert "ascents.sgd: ind-a, ind-b, ood-canary-a, ood-canary-b" in lines and len(lines) < 22


def test_the_small_settings_are_valid_and_change_sizes_and_rates_alone(tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    small = copies.use_small_settings(tmp_path)
    assert load(tmp_path / "params.yaml").design.models == 12
    assert small["claims"] == PARAMS["claims"]
    assert {
        name: arm | {"learning_rate": small["arms"][name]["learning_rate"]} for name, arm in PARAMS["arms"].items()
    } == small["arms"]
    assert list(small["ascents"]) == [arm for arm in PARAMS["ascents"] if arm in small["ascents"]]
    kinds = [{block["kind"] for block in params["forget_sets"].values()} for params in (small, PARAMS)]
    assert kinds[0] == kinds[1] == set(small["populations"])


def test_small_settings_keep_what_the_user_brings(tmp_path):
    own = {"kind": "own", "path": "own/forget_sets/mine.jsonl", "repetitions": 2}
    changes = {
        "corpus": {"name": "jsonl", "path": "own/corpus/mine.csv", "second_language": None},
        "forget_sets": PARAMS["forget_sets"] | {"mine": own},
        "model": {"path": "own/models/mine"},
    }
    found = live.small(live.overlay(PARAMS, changes))
    assert found["model"] == changes["model"] and found["corpus"]["path"] == "own/corpus/mine.csv"
    assert found["forget_sets"]["mine"] == own and all(listed[0] == "mine" for listed in found["ascents"].values())
    kinds = {block["kind"] for block in found["forget_sets"].values()}
    assert "language" not in kinds | set(found["populations"]) and "ood-language" not in found["ascents"]["adamw"]
    with (tmp_path / "params.yaml").open("w", encoding="utf-8") as stream:
        live.YAML_SAFE.dump(found, stream)
    assert load(tmp_path / "params.yaml").design.tokens_per_example is None


def test_changes_are_laid_over_key_by_key_and_sets_take_the_place_of_those_there():
    whole = {"forget_sets": {"y": {}}, "populations": {"y": 2}, "ascents": {"adamw": ["y"]}}
    params = {"corpus": {"a": 1, "b": {"c": 2, "d": 3}}, "model": {"d_model": 8}}
    params |= {"forget_sets": {"x": {}}, "populations": {"x": 1}, "ascents": {"sgd": ["x"]}}
    changes = whole | {"corpus": {"b": {"d": 4}}, "model": {"path": "own/models/m"}}
    assert live.overlay(params, changes) == whole | {
        "corpus": {"a": 1, "b": {"c": 2, "d": 4}}, "model": {"path": "own/models/m"},
    }  # fmt: skip


@pytest.mark.parametrize("name", SOURCES)
def test_a_notebook_takes_its_parameters_in_the_cell_after_them(name):
    cells = [c for c in nbformat.read(ROOT / "notebooks" / name, as_version=4).cells if c.cell_type == "code"]
    declared = [target.id for node in ast.parse(cells[0].source).body for target in node.targets]
    calls = [node for node in ast.walk(ast.parse(cells[1].source)) if isinstance(node, ast.Call)]
    (call,) = [node for node in calls if getattr(node.func, "id", getattr(node.func, "attr", "")) == "settings"]
    assert {word.arg: word.value.id for word in call.keywords} == {name: name for name in declared}


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory):
    """A copy of the repository, and a person who runs its notebooks there one after the other."""
    return copies.copy_repository(tmp_path_factory.mktemp("by-hand") / "study")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", MEASURING)
def test_a_measuring_notebook_runs_as_a_person_runs_it_and_overwrites_nothing(by_hand, name):
    """From its own folder, with no parameters, at the small size, in their order; test_committed.py has the others."""
    command = "import sys, nbformat; from nbclient import NotebookClient\n"
    command += "NotebookClient(nbformat.read(sys.argv[1], 4), timeout=600, kernel_name='python3').execute()"
    ran = subprocess.run(
        [sys.executable, "-c", command, name],
        cwd=by_hand / "notebooks",
        env=copies.environment(by_hand, JUPYTER_PREFER_ENV_PATH="1"),
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    status = ["git", "status", "--porcelain", "--untracked-files=all"]
    assert subprocess.run(status, cwd=by_hand, capture_output=True, text=True).stdout == ""
