"""What no longer fits is told, what no stage makes is removed, and tables are held against the last commit."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests import copies
from tools import check, stages
from unlearning.errors import StudyError

# A study of three stages: two references, an ascent for each set from them, and one that reads their tables.
DVC = """
stages:
  train:
    matrix: {optimizer: [adamw]}
    cmd: python measure.py train/${item.optimizer} data/in models/${item.optimizer} ${seed}
    params: [seed]
    deps: [src/unlearning, data/in]
    outs:
    - models/adamw
    - results/tables/train/adamw: {cache: false, persist: true}
  unlearn:
    foreach: ${ascents}
    do:
      cmd: python measure.py unlearn/${key} models/adamw
      params: ['ascents.${key}']
      deps: [src/unlearning, models/adamw, results/tables/train]
      outs:
      - results/tables/unlearn/${key}: {cache: false, persist: true}
  reading:
    cmd: python measure.py reading
    deps: [src/paper, results/tables/train, results/tables/unlearn]
    outs:
    - results/tables/reading: {cache: false, persist: true}
"""
MEASURE = """
import pathlib, sys
name, source, model, seed = (*sys.argv[1:], "", "", "")[:4]
table = pathlib.Path("results/tables", name, "table.csv")
table.parent.mkdir(parents=True, exist_ok=True)
table.write_text("value\\n" + (pathlib.Path(source).read_text() if source else ""))
if model:
    pathlib.Path("models").mkdir(exist_ok=True)
    pathlib.Path(model).write_text(table.read_text() + seed)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The study, run once."""
    root = tmp_path_factory.mktemp("finished") / "study"
    files = {
        "dvc.yaml": DVC,
        "measure.py": MEASURE,
        "params.yaml": "seed: 1\nascents: {a: {set: a}, b: {set: b}}\n",
        "data/in": "1\n",
        "src/unlearning/x.py": "",
        "src/paper/y.py": "",
        "requirements.lock": "numpy==2.4.6\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    (root / ".gitignore").write_text("/models/\n/data/\n")
    copies.dvc(root, "init", "-q")
    ran = copies.dvc(root, "repro")
    assert ran.returncode == 0, ran.stderr
    copies.commit(root)
    return root


@pytest.fixture
def study(finished, tmp_path, monkeypatch):
    """A copy of the finished study, and a way to look at it anew after a change."""
    root = tmp_path / "study"
    shutil.copytree(finished, root)
    monkeypatch.chdir(root)
    stages.stages.cache_clear()
    yield root
    stages.stages.cache_clear()


def write(path, text):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def repro(*arguments):
    ran = copies.dvc(Path.cwd(), "repro", *arguments)
    assert ran.returncode == 0, ran.stderr
    stages.stages.cache_clear()


def test_a_finished_study_fits(study, capsys):
    stages.check_inputs("reading")
    assert check.main([]) == 0
    assert "every result fits" in capsys.readouterr().out


def test_an_ascent_that_was_taken_out_of_the_settings_is_looked_at_by_nobody(study):
    write("params.yaml", "seed: 1\nascents: {a: {set: a}}\n")
    write("results/tables/unlearn/b/table.csv", "of before")
    stages.check_inputs("reading")
    assert list(map(str, stages.leftovers())) == ["results/tables/unlearn/b/table.csv"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: write("params.yaml", "seed: 1\nascents: {a: {set: a}, b: {set: c}}\n"),
         "unlearn@b ran with other settings (ascents.b): dvc repro unlearn@b"),
        (lambda: write("params.yaml", "seed: 2\nascents: {a: {set: a}, b: {set: b}}\n"),
         "train@adamw has not been run, or was run by another command: dvc repro train@adamw"),
        (lambda: write("params.yaml", "seed: 1\nascents: {a: {set: a}, b: {set: b}, c: {set: c}}\n"),
         "unlearn@c has not been run, or was run by another command: dvc repro unlearn@c"),
        (lambda: (write("data/in", "2\n"), repro("-s", "train@adamw")),
         "unlearn@a was made from another models/adamw than the one here: dvc repro unlearn@a"),
        (lambda: write("data/in", "2\n"),
         "train@adamw was made from another data/in than the one here: dvc repro train@adamw"),
        (lambda: write("results/tables/unlearn/b/table.csv", "by hand"),
         "results/tables/unlearn/b is not what unlearn@b wrote: dvc repro unlearn@b"),
        (lambda: shutil.rmtree("results/tables/unlearn/b"),
         "results/tables/unlearn/b, written by unlearn@b, is missing: dvc repro unlearn@b"),
    ],
    ids=["other settings", "another seed", "an ascent not run", "an old ascent and new models", "another input",
         "a table changed by hand", "a table that is missing"],
)  # fmt: skip
def test_a_stage_that_reads_says_in_one_sentence_what_does_not_fit(study, change, message):
    change()
    stages.stages.cache_clear()
    with pytest.raises(StudyError) as caught:
        stages.check_inputs("reading")
    assert str(caught.value) == message
    assert message.partition(": dvc")[0] in list(check.unfit())


def test_a_fresh_clone_without_data_and_models_fits(study, capsys):
    for folder in ("data", "models"):
        shutil.rmtree(folder)
    write("data/in", "1\n")  # no stage makes it
    stages.check_inputs("reading")
    assert check.main([]) == 0


def test_changed_code_is_told_and_not_refused(study, capsys):
    write("src/unlearning/x.py", "# another word\n")
    write("src/paper/y.py", "colour = 'red'\n")
    stages.check_inputs("reading")
    assert "code has changed since train@adamw and 2 more ran" in capsys.readouterr().out
    told = list(check.unfit())
    assert told == ["code has changed since train@adamw and 2 more ran: src/unlearning",
                    "code has changed since reading ran: src/paper"]  # fmt: skip
    assert (check.main([]), check.main(["--commit"])) == (1, 0)  # a rerun that gives the committed tables is good


def test_a_stage_comes_after_those_that_make_what_it_lacks(study):
    assert stages.chain("unlearn@b") == ["unlearn@b"]
    shutil.rmtree("models")
    assert stages.chain("unlearn@b") == ["train@adamw", "unlearn@b"]
    shutil.rmtree("results/tables/unlearn")
    assert stages.chain("reading") == ["train@adamw", "unlearn@a", "unlearn@b", "reading"]


def test_a_stage_that_is_not_there_is_told(study):
    with pytest.raises(StudyError, match=r"has no stage unlearn; `dvc stage list"):
        stages.chain("unlearn")


def test_a_stage_that_measures_is_left_to_dvc(study):
    write("results/tables/train/adamw/table.csv", "by hand")
    stages.check_inputs("unlearn@a")


def test_what_no_stage_makes_is_named_and_removed_by_one_command(study, capsys):
    old = ["results/tables/unlearn/mine/runs.csv", "results/notebooks/unlearn-mine.ipynb",
           "results/runs/unlearn@mine.json", "figures/09_old.svg"]  # fmt: skip
    for path in old:
        write(path, json.dumps({"versions": {}}))
    kept = [path for path in Path("results").rglob("*") if path.is_file() and str(path) not in old]
    assert check.main([]) == 1
    told = capsys.readouterr().out
    assert all(f"no stage makes {path}" in told for path in old)
    assert check.main(["--clean"]) == 0
    assert not any(os.path.exists(path) for path in [*old, "results/notebooks", "figures"])
    assert all(path.exists() for path in kept)


def test_without_git_nothing_is_compared_and_the_rest_is_checked(study, capsys):
    shutil.rmtree(".git")
    copies.dvc(study, "config", "core.no_scm", "true")
    assert check.main([]) == 0
    assert "not compared with a commit" in capsys.readouterr().out


def test_a_table_outside_the_tolerances_is_named_and_one_inside_is_not_refused(study, capsys):
    table = pd.DataFrame({"model": range(30), "loss": 1.0})
    for name in ("near", "far"):
        table.to_csv(f"results/tables/{name}.csv", index=False)
    table.to_csv("results/tables/gone.csv", index=False)
    copies.commit(study)
    Path("results/tables/gone.csv").unlink()
    for name, loss in (("near", 1.01), ("far", 91.0)):
        table.assign(loss=loss).to_csv(f"results/tables/{name}.csv", index=False)
    assert check.compare() == 2
    told = capsys.readouterr().out
    assert "MISSING results/tables/gone.csv\n" in told
    assert "DIFFERS results/tables/far.csv: 30 of 30 rows differ" in told
    assert re.search(r"^ +0 +both +91 +1$", told, re.M) and "ok      results/tables/near.csv: within tolerance" in told


def test_results_of_other_versions_than_the_locked_ones_do_not_fit(study):
    for stage, numpy in ("train@adamw", "2.4.6"), ("unlearn@a", "2.4.5"), ("reading", "2.4.5"):
        write(f"results/runs/{stage}.json", json.dumps({"versions": {"numpy": numpy}}))
    assert list(check.unfit()) == ["reading and 1 more ran with numpy 2.4.5, not as locked"]


# Tables, row by row


def claims(**change):
    table = {"claim": ["C1", "C2"], "verdict": ["holds", "open"], "estimate": [3.0, 0.5], "n": [8, 8]}
    return pd.DataFrame(table | change)


def test_the_same_table_differs_in_nothing():
    assert not check.compare_tables("claims/claims", claims(), claims())[0]


def test_a_row_that_changes_a_claims_verdict_fails_the_comparison():
    table = claims(claim_verdict=["supported", "supported"])
    other = claims(claim_verdict=["inconclusive", "supported"])
    assert check.compare_tables("claims/claims", other, table)[0]


def test_another_verdict_is_a_difference_and_names_its_row():
    found = check.compare_tables("claims/claims", claims(verdict=["holds", "fails"]), claims())
    assert found[0] and re.search(r"C2 +both +fails +open$", found[1])


@pytest.mark.parametrize(("estimate", "fails"), [(3.9, False), (4.1, True), (None, True)])
def test_a_number_may_differ_by_its_tolerance_and_no_more(estimate, fails):
    found = check.compare_tables("claims/claims", claims(estimate=[estimate, 0.5]), claims())
    assert found[0] is fails


@pytest.mark.parametrize(
    ("name", "column", "unit", "off"),
    [
        ("claims/claims", "p_holm", "steps", 0.2),
        ("claims/claims", "estimate", "rank correlation", 0.2),
        ("claims/sets", "estimate", "nats per token", 0.1),
        ("claims/sets", "high", "share of the set", 0.2),
        ("trade_off/runs", "lost_100", None, 0.1),
        ("trade_off/along", "mean", None, 0.1),
        ("training/gains", "gain", None, 0.1),
        ("exposure/membership", "distance", None, 0.2),
    ],
)
def test_a_number_off_by_what_would_change_an_answer_is_a_difference(name, column, unit, off):
    unit = {} if unit is None else {"unit": unit}
    here, there = (pd.DataFrame({"arm": ["x"], "model": [0], column: [0.05 + d], **unit}) for d in (off, 0.0))
    assert check.compare_tables(name, here, there)[0]
    there[column] = here[column] - off / 20
    assert not check.compare_tables(name, here, there)[0]


def test_a_row_that_only_one_side_has_is_a_difference():
    found = check.compare_tables("claims/claims", claims().head(1), claims())
    assert found[0] and "only committed" in found[1]


def test_a_table_may_have_a_column_of_any_name():
    table = pd.DataFrame({"arm": ["x"], "side": ["in"], "estimate": [1.0]})
    assert not check.compare_tables("exposure/calibration", table, table.copy())[0]


def test_two_missing_values_are_equal():
    table = claims(estimate=[np.nan, 0.5])
    assert not check.compare_tables("claims/claims", table, table.copy())[0]
