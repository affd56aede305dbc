import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import dvc.api
import nbformat
import pytest
from nbformat import v4

from tests import copies
from tools import run, stages
from tools.normalise import normalise

PARAMS = "seed: 3\nblock: {rate: 1.0e-4, path: null}\narms: {x: {method: a}, y: {method: b}}\n"
DVC = """
stages:
  story:
    cmd: unused
    params: [seed, block]
    deps: [notebook.ipynb]
  arm:
    foreach: ${arms}
    do:
      cmd: unused
      params: [seed, "arms.${key}"]
      deps: [notebook.ipynb]
  importing:
    cmd: unused
    deps: [notebook.ipynb, src/unlearning/errors.py]
  writing:
    cmd: unused
    deps: [notebook.ipynb]
    outs:
    - table.csv: {cache: false, persist: true}
    - folder: {cache: false, persist: true}
"""


def parameters(*names):
    return v4.new_code_cell("\n".join(f"{n} = None" for n in names), metadata={"tags": ["parameters"]})


def write_notebook(*cells):
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell("# Title"), *cells])
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, Path("notebook.ipynb"))


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A tiny repository with three stages; the settings' schema is somebody else's test."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    copies.dvc(tmp_path, "init", "-q")
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "dvc.yaml").write_text(DVC)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_notebook.settings, "load", lambda: None)
    monkeypatch.setenv("UNLEARNING_TASK_LOG", "")
    for name, value in run_notebook.environment({}).items():
        monkeypatch.setenv(name, value)
    stages.stage_of.cache_clear()
    return tmp_path


def run(stage, *extras, monkeypatch, target="out.ipynb"):
    monkeypatch.setenv("DVC_STAGE", stage)
    return run_notebook.main(["notebook.ipynb", target, *extras])


def texts(path="out.ipynb"):
    cells = nbformat.read(path, as_version=4).cells
    return "".join(o.get("text", "") for c in cells if c.cell_type == "code" for o in c.outputs)


def test_a_notebook_gets_the_parameters_of_its_stage_as_dvc_reads_them(study, monkeypatch):
    write_notebook(parameters("seed", "block"), v4.new_code_cell("print(seed, block['rate'] * 2, block['path'])"))
    assert run("story", monkeypatch=monkeypatch) == 0
    assert texts() == "3 0.0002 None\n"


@pytest.mark.parametrize("stage", ["story", "arm@x", "importing"])
def test_parameters_are_those_that_dvc_shows_for_the_stage(study, stage):
    assert stages.params(stage) == (dvc.api.params_show(stages=stage) if stage != "importing" else {})


def test_a_loop_stage_gets_its_own_entry_and_its_name(study, monkeypatch):
    write_notebook(parameters("seed", "arms", "name"), v4.new_code_cell("print(arms, name)"))
    assert run("arm@y", "name=y", monkeypatch=monkeypatch) == 0
    assert texts() == "{'y': {'method': 'b'}} y\n"


def test_two_executions_give_the_same_bytes_whatever_their_timing(study, monkeypatch):
    code = """import random, sys, time, warnings
import matplotlib.pyplot as plt
for word in sorted({"a", "b"}) + [str({"x", "y", "z"})]:
    print(word, flush=True); print(time.time(), file=sys.stderr); time.sleep(random.random() / 4)
warnings.warn("from a cell")
plt.plot([1, 2])
plt.show()"""
    write_notebook(parameters("seed", "block"), v4.new_code_cell(code))
    for target in ("one.ipynb", "two.ipynb"):
        assert run("story", monkeypatch=monkeypatch, target=target) == 0
    assert Path("one.ipynb").read_bytes() == Path("two.ipynb").read_bytes()
    assert not list(Path().glob("kernel-*")), "the kernel's sockets lie in the study's folder"
    assert '"name": "stderr"' not in Path("one.ipynb").read_text()


@pytest.mark.parametrize(
    ("names", "message"),
    [(["seed"], "block"), (["seed", "block", "stray"], "stray")],
    ids=["one missing in the notebook", "one that the stage does not give"],
)
def test_a_parameter_that_only_one_side_knows_stops_the_run_at_once(study, monkeypatch, capsys, names, message):
    write_notebook(parameters(*names), v4.new_code_cell("open('started', 'w')"))
    Path("out.ipynb").write_text("as before")
    assert run("story", monkeypatch=monkeypatch) == 1
    assert message in capsys.readouterr().err
    assert Path("out.ipynb").read_text() == "as before"
    assert not Path("started").exists()


def test_a_mistake_of_the_user_is_one_message_and_no_traceback(study, monkeypatch, capsys):
    code = "from unlearning.errors import StudyError\nraise StudyError('mine.jsonl, line 3: no id. Add one.')"
    write_notebook(parameters(), v4.new_code_cell(code))
    Path("src/unlearning").mkdir(parents=True)
    Path("src/unlearning/errors.py").touch()
    Path("out.ipynb").write_text("as before")
    assert run("importing", monkeypatch=monkeypatch) == 1
    shown = capsys.readouterr().err
    assert "stage importing: mine.jsonl, line 3: no id. Add one." in shown
    assert "Traceback" not in shown
    assert Path("out.ipynb").read_text() == "as before"


def test_any_other_exception_is_shown_with_the_cell_that_raised_it(study, monkeypatch, capsys):
    write_notebook(parameters("seed", "block"), v4.new_code_cell("1 / 0"))
    assert run("story", monkeypatch=monkeypatch) == 1
    shown = capsys.readouterr().err
    assert "ZeroDivisionError" in shown and "stage story failed in cell" in shown
    assert Path("scratch/failed/story.ipynb").exists() and not Path("out.ipynb").exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("open('table.csv', 'w').write('new'); open('folder/a', 'w').write('new'); 1 / 0", "ZeroDivisionError"),
        ("open('folder/a', 'w').write('new')", "stage writing did not write table.csv"),
        ("open('table.csv', 'w').write('new')", "stage writing did not write folder"),
    ],
    ids=["an exception after writing", "a table not written", "a folder not written"],
)
def test_outputs_of_a_stage_that_fails_are_as_before_also_without_git(study, monkeypatch, capsys, code, message):
    shutil.rmtree(".git")
    copies.dvc(study, "config", "core.no_scm", "true")
    write_notebook(parameters(), v4.new_code_cell(code))
    Path("folder").mkdir()
    outs = [Path("table.csv"), Path("folder/a")]
    for path in outs:
        path.write_text("as before")
        os.utime(path, (1, 1))
    assert run("writing", monkeypatch=monkeypatch) == 1
    assert message in capsys.readouterr().err
    assert [path.read_text() for path in outs] == ["as before"] * 2


def test_a_killed_kernel_is_explained(study, monkeypatch, capsys):
    write_notebook(parameters("seed", "block"), v4.new_code_cell("import os; os.kill(os.getpid(), 9)"))
    assert run("story", monkeypatch=monkeypatch) == 1
    assert "memory" in capsys.readouterr().err


def test_an_import_that_the_stage_does_not_depend_on_stops_the_run(study, monkeypatch, capsys):
    write_notebook(parameters("seed", "block"), v4.new_code_cell("from unlearning.errors import StudyError"))
    assert run("story", monkeypatch=monkeypatch) == 1
    assert "does not depend on src/unlearning/errors.py" in capsys.readouterr().err.replace("imports but ", "")


def test_an_import_that_is_hidden_from_the_source_is_found_at_the_end(study, monkeypatch, capsys):
    hidden = "import importlib; importlib.import_module('unlearning' + '.errors')"
    write_notebook(parameters("seed", "block"), v4.new_code_cell(hidden))
    assert run("story", monkeypatch=monkeypatch) == 1
    assert "src/unlearning/errors.py" in capsys.readouterr().err
    assert not Path("out.ipynb").exists()


def test_the_network_is_closed_unless_the_settings_name_something_of_the_hub():
    pinned = {"hub": "some/model", "revision": "0" * 40}
    for params in (
        {},
        {"model": {"d_model": 8}, "corpus": {"name": "localisation"}},
        {"model": {"path": "own/models/a"}},
    ):
        assert run_notebook.OFFLINE.items() <= run_notebook.environment(params).items()
    for params in ({"model": pinned}, {"corpus": {"name": "wmt14"}}):
        assert not run_notebook.OFFLINE.keys() & run_notebook.environment(params).keys()


def test_what_the_runner_adds_to_the_notebook_is_not_stored(study, monkeypatch):
    write_notebook(parameters("seed", "block"), v4.new_code_cell("print('last')"))
    assert run("story", monkeypatch=monkeypatch) == 0
    cells = nbformat.read("out.ipynb", as_version=4).cells
    assert len(cells) == 4 and cells[-1].source == "print('last')"
    assert [c.id for c in cells] == [f"cell-{i}" for i in range(4)]


def test_a_run_leaves_a_record_of_its_time_memory_and_machine(study, monkeypatch):
    write_notebook(parameters("seed", "block"), v4.new_code_cell("1"))
    assert run("story", monkeypatch=monkeypatch) == 0
    record = json.loads(Path("results/runs/story.json").read_text())
    assert record["stage"] == "story" and record["peak_mib"] > 10 and record["versions"]["numpy"]


@pytest.mark.parametrize(
    ("source", "copy"),
    [
        ("[a](../results/notebooks/base.ipynb)", "[a](base.ipynb)"),
        ("[a](../results/notebooks)", "[a](./)"),
        ("[a](05_pilot.ipynb)", "[a](pilot.ipynb)"),
        ("[a](07_training.ipynb)", "[a](training.ipynb)"),
        ("[a](04_train.ipynb)", "[a](../../notebooks/04_train.ipynb)"),
        ("[a](06_unlearn.ipynb)", "[a](../../notebooks/06_unlearn.ipynb)"),
        ("[a](README.md)", "[a](../../notebooks/README.md)"),
        ("[a](https://example.org/04_train.ipynb)", "[a](https://example.org/04_train.ipynb)"),
    ],
)
def test_links_of_a_source_lead_on_to_the_copy_where_there_is_one(source, copy):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(source)])
    assert normalise(notebook).cells[0].source == copy


def test_normalising_drops_widgets_times_and_stderr():
    noise = {"papermill": {"duration": 1}, "execution": {"iopub.status.idle": "12:00"}}
    cell = v4.new_code_cell("1", metadata={**noise, "tags": ["kept"]})
    cell.outputs = [
        v4.new_output("stream", name="stderr", text="10it/s"),
        v4.new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {"model_id": "1f"}}),
        v4.new_output("stream", name="stdout", text="kept"),
    ]
    notebook = v4.new_notebook(
        cells=[cell], metadata={"widgets": {"a": 1}, "papermill": {}, "kernelspec": {"name": "x", "display_name": "X"}}
    )
    cleaned = normalise(notebook)
    assert [o.text for o in cleaned.cells[0].outputs] == ["kept"]
    assert cleaned.cells[0].metadata == {"tags": ["kept"]}
    assert set(cleaned.metadata) == {"kernelspec", "language_info"}


def test_outside_dvc_the_runner_says_how_to_run_it(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("DVC_STAGE", raising=False)
    assert run_notebook.main([str(tmp_path / "a.ipynb"), "b.ipynb"]) == 1
    assert "dvc repro -s STAGE" in capsys.readouterr().err


def test_wrong_arguments_get_the_usage(capsys):
    assert run_notebook.main(["only-one"]) == 2
    assert "usage" in capsys.readouterr().err


def test_a_bad_settings_file_stops_the_command_before_anything_is_written(tmp_path):
    copies.copy_repository(tmp_path)
    text = (tmp_path / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("seed:", "sed:", 1))
    command = [sys.executable, "-m", "tools.run", "notebooks/01_corpus.ipynb", "out.ipynb"]
    env = copies.environment(tmp_path, DVC_STAGE="corpus")
    ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert ran.returncode == 1 and "Traceback" not in ran.stderr
    assert "sed" in ran.stderr and "line" in ran.stderr
    assert not os.path.exists(tmp_path / "out.ipynb")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the names of these instruction sets are those of x86-64")
def test_numpy_and_openblas_know_the_instruction_set_that_they_are_held_to():
    code = "import numpy, scipy.linalg, threadpoolctl as t; print(*{p['architecture'] for p in t.threadpool_info()})"
    env = os.environ | run_notebook.ONE_INSTRUCTION_SET
    ran = subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", code], env=env, capture_output=True, text=True
    )
    assert (ran.stdout.split(), ran.returncode) == (["Haswell"], 0), ran.stderr
