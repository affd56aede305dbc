import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import dvc.api
import nbformat
import psutil
import pytest
from nbformat import v4

from tests import copies
from tools import run as runner
from tools import stages
from tools.run import normalise

PROFILE = """
c.InteractiveShellApp.exec_lines = ["import matplotlib; matplotlib.rcParams['lines.linewidth'] = 9", "seen = 1"]
c.InlineBackend.figure_formats = {"svg"}
"""
PARAMS = "seed: 3\nblock: {rate: 1.0e-4, path: null}\narms: {x: &x {method: a, size: 1}, y: {<<: *x, method: b}}\n"
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
      params: [seed, "arms.${key}", block.rate]
      deps: [notebook.ipynb]
  importing:
    cmd: unused
    deps: [notebook.ipynb, src/unlearning/core]
  writing:
    cmd: unused
    deps: [notebook.ipynb]
    outs:
    - table.csv: {cache: false, persist: true}
    - folder: {cache: false, persist: true}
    - figures: {cache: false, persist: true}
"""
OUT = Path("results/notebooks/story.ipynb")


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
    monkeypatch.setattr(runner.settings, "load", lambda: None)
    monkeypatch.setenv("UNLEARNING_TASK_LOG", "")
    own = dict.fromkeys(("UNLEARNING_STAGE", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", *runner.PERSONAL), "unset")
    for name, value in (own | runner.environment({})).items():  # afterwards they are again what they were
        monkeypatch.setenv(name, value)
    stages.stages.cache_clear()
    yield tmp_path
    stages.stages.cache_clear()


def run(stage, *extras, monkeypatch):
    monkeypatch.setenv("DVC_STAGE", stage)
    return runner.main(["notebook.ipynb", *extras])


def texts(path=OUT):
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
    write_notebook(parameters("seed", "arms", "block", "name"), v4.new_code_cell("print(arms, block, name)"))
    assert run("arm@y", "name=y", monkeypatch=monkeypatch) == 0
    text = texts("results/notebooks/arm-y.ipynb")
    assert text == "{'y': {'method': 'b', 'size': 1}} {'rate': 0.0001} y\n"


def test_a_notebook_that_measures_runs_in_full(study, monkeypatch):
    write_notebook(parameters("seed", "block", "full"), v4.new_code_cell("print(full)"))
    assert run("story", monkeypatch=monkeypatch) == 0
    assert texts() == "True\n"


def test_two_executions_give_the_same_bytes_whatever_their_timing(study, monkeypatch):
    code = """import random, sys, time, warnings
import matplotlib.pyplot as plt
for word in sorted({"a", "b"}) + [str({"x", "y", "z"})]:
    print(word, flush=True); print(time.time(), file=sys.stderr); time.sleep(random.random() / 4)
warnings.warn("from a cell")
plt.plot([1, 2])
plt.show()"""
    write_notebook(parameters("seed", "block"), v4.new_code_cell(code))
    written = []
    for _ in range(2):
        assert run("story", monkeypatch=monkeypatch) == 0
        written.append(OUT.read_bytes())
    assert written[0] == written[1]
    assert not list(Path().glob("kernel-*")), "the kernel's sockets are in the study's folder"
    assert b'"name": "stderr"' not in written[0]


def test_what_users_have_set_for_their_own_notebooks_changes_nothing(study, monkeypatch):
    code = "import matplotlib.pyplot as plt\nprint(plt.rcParams['lines.linewidth'], 'seen' in dir())\n"
    code += "plt.plot([1, 2])\nplt.show()"
    write_notebook(parameters("seed", "block"), v4.new_code_cell(code))
    assert run("story", monkeypatch=monkeypatch) == 0
    plain = OUT.read_bytes()
    home = study / "home"
    profile = home / ".ipython/profile_default"
    (profile / "startup").mkdir(parents=True)
    (profile / "ipython_config.py").write_text(PROFILE)
    for startup in (profile / "startup/first.py", home / "startup.py"):
        startup.write_text("seen = 1\n")
    (home / "matplotlibrc").write_text("lines.linewidth: 9\n")
    for name, path in {"HOME": home, "IPYTHONDIR": home / ".ipython", "PYTHONSTARTUP": home / "startup.py",
                       "MATPLOTLIBRC": home / "matplotlibrc"}.items():  # fmt: skip
        monkeypatch.setenv(name, str(path))
    assert run("story", monkeypatch=monkeypatch) == 0
    assert OUT.read_bytes() == plain


@pytest.mark.parametrize(
    ("names", "message"),
    [(["seed"], "block"), (["seed", "block", "stray"], "stray")],
    ids=["one missing in the notebook", "one that the stage does not give"],
)
def test_a_parameter_that_only_one_side_knows_stops_the_run_at_once(study, monkeypatch, capsys, names, message):
    write_notebook(parameters(*names), v4.new_code_cell("open('started', 'w')"))
    assert run("story", monkeypatch=monkeypatch) == 1
    assert message in capsys.readouterr().err
    assert not OUT.exists() and not Path("started").exists()


def test_a_mistake_of_the_user_is_one_message_and_no_traceback(study, monkeypatch, capsys):
    code = "from unlearning.errors import StudyError\nraise StudyError('mine.jsonl, line 3: no id. Add one.')"
    write_notebook(parameters("seed", "block"), v4.new_code_cell(code))
    assert run("story", monkeypatch=monkeypatch) == 1
    shown = capsys.readouterr().err
    assert "stage story: mine.jsonl, line 3: no id. Add one." in shown
    assert "Traceback" not in shown and not OUT.exists()


def test_any_other_exception_is_shown_with_the_cell_that_raised_it(study, monkeypatch, capsys):
    write_notebook(parameters("seed", "block"), v4.new_code_cell("1 / 0"))
    assert run("story", monkeypatch=monkeypatch) == 1
    shown = capsys.readouterr().err
    assert "ZeroDivisionError" in shown and "stage story failed in cell" in shown
    assert Path("scratch/failed/story.ipynb").exists() and not OUT.exists()


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


def test_an_output_that_cannot_be_written_to_keeps_no_other_from_being_put_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "closed").touch()  # a folder that nothing can be taken out of
    out = tmp_path / "out.csv"
    out.write_text("as before")
    with pytest.raises(KeyboardInterrupt), runner.restored_on_failure([tmp_path / "closed" / "a.csv", out]):
        out.write_text("new")
        raise KeyboardInterrupt
    assert out.read_text() == "as before"


FULL = "No space left on device"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import os; os.write(os.open('/dev/full', os.O_WRONLY), b'x')", FULL),
        (f"raise RuntimeError('I/O error: {FULL} (os error 28)')", FULL),  # as safetensors tells it
        ("raise PermissionError(13, 'Permission denied', 'results/tables/a.csv')", "results/tables: Permission denied"),
    ],
    ids=["a full disk", "a full disk in a library's words", "a closed folder"],
)
def test_what_the_disk_refuses_is_one_sentence_with_the_folder_and_nothing_is_lost(
    study, monkeypatch, capsys, code, told
):
    write_notebook(parameters(), v4.new_code_cell(f"open('table.csv', 'w').write('new'); {code}"))
    Path("table.csv").write_text("as before")
    assert run("writing", monkeypatch=monkeypatch) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert (
        line.startswith(f"stage writing: {study}") and told in line and "finished models and ascents are kept" in line
    )
    assert Path("table.csv").read_text() == "as before"
    assert not list(Path("scratch").glob(".kept-*"))


def test_a_disk_that_is_full_when_the_copy_is_written_is_told_too_and_other_errors_are_not_hidden(
    study, monkeypatch, capsys
):
    write_notebook(parameters("seed", "block"), v4.new_code_cell("1"))
    for error in (OSError(28, FULL, "results/notebooks/story.ipynb"), OSError(5, "Input/output error")):
        with monkeypatch.context() as patched:
            patched.setattr(runner, "normalise", lambda _, error=error: (_ for _ in ()).throw(error))
            if error.errno == 28:
                assert run("story", monkeypatch=monkeypatch) == 1
                assert f"{study / 'results/notebooks'}: {FULL}. Free some space" in capsys.readouterr().err
            else:
                with pytest.raises(OSError, match="Input/output"):
                    run("story", monkeypatch=monkeypatch)


def test_when_dvc_alone_is_told_to_end_its_stage_ends_too_and_nothing_computed_is_lost(tmp_path):
    root = copies.copy_repository(tmp_path / "study", git=False)
    (root / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    names = parameters("seed", "corpus", "model", "full")
    code = "from tests import task_functions\nfrom tools.tasks import run_tasks\n"
    code += "from pathlib import Path\nPath('results/tables/corpus/overlap.csv').write_text('half')\n"
    code += "run_tasks(task_functions.square, [dict(number=3, log='log.txt')], scratch='scratch/a', key=1)\n"
    code += "run_tasks(task_functions.slow, [dict(number=1, marker='marker')], scratch='scratch/b', key=1)"
    with contextlib.chdir(root):
        write_notebook(names, v4.new_code_cell(code))
        Path("notebook.ipynb").replace("notebooks/01_corpus.ipynb")
    before = (root / "results/tables/corpus/overlap.csv").read_bytes()
    environment = copies.environment(root) | {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    command = [sys.executable, "-m", "dvc", "repro", "-s", "corpus"]
    with (root / "said.txt").open("w") as said:
        dvc_alone = subprocess.Popen(command, cwd=root, env=environment, stdout=said, stderr=said)
    deadline = time.monotonic() + 300
    while not (root / "marker").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    below = psutil.Process(dvc_alone.pid).children(recursive=True)
    assert len(below) >= 3, (root / "said.txt").read_text()  # the runner, its kernel, a worker
    dvc_alone.terminate()
    dvc_alone.wait()
    _, alive = psutil.wait_procs(below, timeout=50)  # the task at work takes 60 seconds
    assert not alive
    assert runner.STOPPED in (root / "said.txt").read_text()
    assert (root / "results/tables/corpus/overlap.csv").read_bytes() == before
    assert [path.read_text() for path in root.glob("scratch/a/*/square.txt")] == ["9"]


@pytest.mark.parametrize(("pid", "command", "answer"), [(1, "init", True), (1, "dvc repro", False), (7, "sh", False)])
def test_a_stage_whose_dvc_is_gone_before_it_begins_is_known_by_the_process_above(pid, command, answer):
    assert runner.orphan(SimpleNamespace(pid=pid, cmdline=command.split)) is answer


def test_a_killed_kernel_is_explained(study, monkeypatch, capsys):
    write_notebook(parameters("seed", "block"), v4.new_code_cell("import os; os.kill(os.getpid(), 9)"))
    assert run("story", monkeypatch=monkeypatch) == 1
    assert "memory" in capsys.readouterr().err


def test_files_that_earlier_settings_left_in_the_folders_of_a_stage_go_when_it_has_run(study, monkeypatch):
    code = "import pathlib as p\nfor n in ('table.csv', 'folder/a'): p.Path(n).write_text('new')"
    write_notebook(parameters(), v4.new_code_cell(code))
    for name in ("table.csv", "folder/a", "folder/deeper/taken-out", "figures/of-before.svg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("old")
        os.utime(name, (1, 1))
    assert run("writing", monkeypatch=monkeypatch) == 0
    left = {p.as_posix(): p.read_text() for top in ("folder", "figures") for p in Path(top).rglob("*") if p.is_file()}
    assert left == {"folder/a": "new"} and Path("table.csv").read_text() == "new"


@pytest.mark.parametrize(
    ("stage", "loads", "refused"),
    [("story", "core.genex", "src/unlearning/core/"), ("importing", "core.genex", ""), ("story", "errors", "")],
    ids=["no dependency", "in a folder that is a dependency", "the exception"],
)
def test_a_module_that_a_notebook_loads_has_to_lie_in_the_dependencies(
    study, monkeypatch, capsys, stage, loads, refused
):
    names = ["seed", "block"] if stage == "story" else []
    hidden = f"import importlib; importlib.import_module('unlearning.' + '{loads}')"
    write_notebook(parameters(*names), v4.new_code_cell(hidden))
    assert run(stage, monkeypatch=monkeypatch) == bool(refused)
    assert not refused or f"loads but does not depend on {refused}" in capsys.readouterr().err
    assert Path(f"results/notebooks/{stage}.ipynb").exists() is not bool(refused)


def test_the_network_is_closed_unless_the_settings_name_something_of_the_hub():
    pinned = {"hub": "some/model", "revision": "0" * 40}
    for params in (
        {},
        {"model": {"d_model": 8}, "corpus": {"name": "localisation"}},
        {"model": {"path": "own/models/a"}},
    ):
        assert runner.OFFLINE.items() <= runner.environment(params).items()
    for params in ({"model": pinned}, {"corpus": {"name": "wmt14"}}):
        assert not runner.OFFLINE.keys() & runner.environment(params).keys()


def test_an_executed_copy_holds_neither_the_parameters_nor_what_the_runner_adds(study, monkeypatch):
    write_notebook(parameters("seed", "block"), v4.new_code_cell("print('last')"))
    assert run("story", monkeypatch=monkeypatch) == 0
    cells = nbformat.read(OUT, as_version=4).cells
    assert [c.source for c in cells] == ["# Title", "print('last')"]
    assert [c.id for c in cells] == ["cell-0", "cell-1"]


def test_a_run_leaves_a_record_of_its_time_memory_and_machine(study, monkeypatch):
    write_notebook(parameters("seed", "block"), v4.new_code_cell("1"))
    assert run("story", monkeypatch=monkeypatch) == 0
    record = json.loads(Path("results/runs/story.json").read_text())
    assert record["stage"] == "story" and record["peak_mib"] > 10 and record["versions"]["numpy"]


def test_the_time_of_a_resumed_run_holds_that_of_the_tasks_that_were_finished_before(study, monkeypatch):
    monkeypatch.setenv("UNLEARNING_WORKERS", "2")

    def recorded(before):
        line = {"task": "ascent", "count": 4, "seconds_each": 10.0, "before": before}
        Path("log.jsonl").write_text(json.dumps(line) + "\n")
        runner._record("story", 25.0, Path("log.jsonl"))
        return stages.runs()["story"]["seconds"]

    assert recorded([10.0, 10.0]) == 35 and recorded([]) == 25
    assert recorded([10.0] * 4) == 25  # of the run that did the work


def test_a_run_that_is_stopped_while_it_writes_its_record_leaves_the_old_one_whole(study, monkeypatch):
    write_notebook(parameters("seed", "block"), v4.new_code_cell("1"))
    Path("results/runs").mkdir(parents=True)
    Path("results/runs/story.json").write_text('{"stage": "story"}')
    write = Path.write_text

    def stopped(path, text, **options):
        if "results/runs" in path.as_posix():
            write(path, text[:9])
            raise KeyboardInterrupt
        return write(path, text, **options)

    monkeypatch.setattr(Path, "write_text", stopped)
    assert run("story", monkeypatch=monkeypatch) == 1
    assert stages.runs() == {"story": {"stage": "story"}}


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
    assert runner.main([str(tmp_path / "a.ipynb")]) == 1
    assert "dvc repro -s STAGE" in capsys.readouterr().err


def test_wrong_arguments_get_the_usage(capsys):
    assert runner.main(["notebook.ipynb", "no-value"]) == 2
    assert "usage" in capsys.readouterr().err


def test_a_bad_settings_file_stops_the_command_before_anything_is_written(tmp_path):
    copies.copy_repository(tmp_path)
    text = (tmp_path / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("seed:", "sed:", 1))
    command = [sys.executable, "-m", "tools.run", "notebooks/01_corpus.ipynb"]
    env = copies.environment(tmp_path, DVC_STAGE="corpus")
    ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert ran.returncode == 1 and "Traceback" not in ran.stderr and not (tmp_path / "data/corpus").exists()
    assert "sed" in ran.stderr and "line" in ran.stderr


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the names of these instruction sets are those of x86-64")
def test_numpy_and_openblas_know_the_instruction_set_that_they_are_held_to():
    code = "import numpy, scipy.linalg, threadpoolctl as t; print(*{p['architecture'] for p in t.threadpool_info()})"
    env = os.environ | runner.ONE_INSTRUCTION_SET
    ran = subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", code], env=env, capture_output=True, text=True
    )
    assert (ran.stdout.split(), ran.returncode) == (["Haswell"], 0), ran.stderr
