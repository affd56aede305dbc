import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import copies, task_functions
from tools import tasks as module
from tools.tasks import code_hash, default_workers, hash_files, reachable, run_tasks
from unlearning.errors import StudyError


def run_squares(tmp_path, numbers, *, key="k", workers=2):
    tasks = [{"number": n, "log": str(tmp_path / "log.txt")} for n in numbers]
    return run_tasks(task_functions.square, tasks, scratch=tmp_path / "scratch", key=key, workers=workers)


def executions(tmp_path):
    return sorted(int(line) for line in (tmp_path / "log.txt").read_text().split())


def test_results_come_in_the_order_of_the_tasks(tmp_path):
    folders = run_squares(tmp_path, [3, 1, 2])
    assert [(f / "square.txt").read_text() for f in folders] == ["9", "1", "4"]


def test_a_finished_task_is_never_repeated(tmp_path):
    run_squares(tmp_path, [1, 2])
    run_squares(tmp_path, [1, 2, 3])
    assert executions(tmp_path) == [1, 2, 3]


def test_another_key_runs_a_task_again(tmp_path):
    first = run_squares(tmp_path, [1], key={"learning_rate": 1e-3})
    second = run_squares(tmp_path, [1], key={"learning_rate": 1e-4})
    assert first != second
    assert executions(tmp_path) == [1, 1]


def test_one_worker_and_two_give_the_same_folders_with_the_same_bytes(tmp_path):
    results = []
    for workers in (1, 2):
        root = tmp_path / str(workers)
        root.mkdir()
        results.append([(f / "square.txt").read_bytes() for f in run_squares(root, [1, 2, 3], workers=workers)])
    assert results[0] == results[1]


def test_a_failed_task_is_told_in_its_own_words_and_the_others_are_kept(tmp_path):
    tasks = [{"number": n} for n in (1, 2, 3)]
    with pytest.raises(StudyError, match=r"two is not allowed\. Take three"):
        run_tasks(task_functions.fail_on_two, tasks, scratch=tmp_path, key="k", workers=2)
    kept = sorted(p.read_text() for p in tmp_path.glob("*/number.txt"))
    assert kept == ["1", "3"]


def test_a_task_whose_disk_is_full_says_which_folder_and_what_is_kept(tmp_path):
    with pytest.raises(StudyError, match=r"finished ones are kept") as caught:
        run_tasks(task_functions.fill_the_disk, [{"number": 1}], scratch=tmp_path / "models", key="k", workers=1)
    told = str(caught.value)
    assert "Traceback" not in told and f"{tmp_path / 'models'}" in told and "No space left on device. Free some" in told


def test_a_failed_task_leaves_nothing_that_looks_finished(tmp_path):
    for _ in range(2):
        with pytest.raises(StudyError):
            run_tasks(task_functions.fail_on_two, [{"number": 2}], scratch=tmp_path, key="k", workers=1)
    assert not [p for p in tmp_path.iterdir() if not p.name.startswith(".")]


def test_a_killed_task_is_explained_by_memory_and_workers(tmp_path):
    with pytest.raises(StudyError, match=r"memory(.|\n)*UNLEARNING_WORKERS=1"):
        run_tasks(
            task_functions.die, [{"number": 1, "log": str(tmp_path / "l")}], scratch=tmp_path / "s", key="k", workers=1
        )


def test_a_task_whose_worker_is_killed_once_is_tried_again_and_the_run_succeeds(tmp_path, capfd):
    log = tmp_path / "log.txt"
    tasks = [{"number": n, "log": str(log), "deadly": 3} for n in (1, 2, 3, 4)]
    folders = run_tasks(task_functions.die_once, tasks, scratch=tmp_path / "scratch", key="k", workers=1)
    assert [(f / "number.txt").read_text() for f in folders] == ["1", "2", "3", "4"]
    assert executions(tmp_path) == [1, 2, 3, 3, 4]
    told = capfd.readouterr().err  # the word that 2 is done may be lost with the worker of 3; it is not done again
    assert re.search(r"a worker was killed: [23] task task\(s\) start again", told)


def test_a_task_is_killed_twice_before_it_is_given_up(tmp_path):
    with pytest.raises(StudyError, match="in each of 2 attempts"):
        run_tasks(task_functions.die, [{"number": 1, "log": str(tmp_path / "log.txt")}], scratch=tmp_path, key="k")
    assert executions(tmp_path) == [1, 1]


def test_a_task_that_fails_by_itself_is_not_tried_again(tmp_path):
    tasks = [{"number": n, "log": str(tmp_path / "log.txt")} for n in (1, 2)]
    with pytest.raises(StudyError, match="ZeroDivisionError: division by zero"):
        run_tasks(task_functions.divide_by_zero, tasks, scratch=tmp_path / "scratch", key="k", workers=2)
    assert executions(tmp_path) == [1, 2]


def test_what_a_task_says_goes_before_what_a_killed_one_cannot_say(tmp_path):
    tasks = [{"number": 1, "log": str(tmp_path / "log.txt")}, {"number": 2, "log": str(tmp_path / "log.txt")}]
    with pytest.raises(StudyError, match=r"2 task task\(s\) failed(.|\n)*First failure, (.|\n)*two is not allowed"):
        run_tasks(task_functions.die_on_one_fail_on_two, tasks, scratch=tmp_path / "scratch", key="k", workers=2)


@pytest.mark.parametrize(("workers", "together"), [(1, 1), (2, 2)])
def test_as_many_tasks_run_side_by_side_as_there_are_workers_and_all_in_child_processes(tmp_path, workers, together):
    tasks = [{"number": n} for n in range(6)]
    folders = run_tasks(task_functions.span, tasks, scratch=tmp_path, key="k", workers=workers)
    spans = [tuple(map(float, (f / "span.txt").read_text().split())) for f in folders]
    at_once = [sum(other[0] <= began < other[1] for other in spans) for began, _, _ in spans]
    assert max(at_once) == together
    assert os.getpid() not in {int(pid) for _, _, pid in spans}


def test_a_later_run_uses_no_process_of_an_earlier_one(tmp_path):
    pids = []
    for key in ("first", "second"):
        folders = run_tasks(task_functions.span, [{"number": 1}], scratch=tmp_path, key=key, workers=1)
        pids.append((folders[0] / "span.txt").read_text().split()[2])
    assert pids[0] != pids[1] and not _alive(pids[0]) and not _alive(pids[1])


def test_an_engine_that_does_not_exist_is_told_with_those_that_do(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARNING_ENGINE", "rya")
    with pytest.raises(StudyError, match=r"UNLEARNING_ENGINE.*processes, ray.*'rya'"):
        run_squares(tmp_path, [1])


def test_a_missing_ray_is_told_with_the_mend(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARNING_ENGINE", "ray")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(StudyError, match=r"pip install -e '\.\[ray\]'"):
        run_squares(tmp_path, [1])


def test_threads_of_a_task_do_not_depend_on_the_workers(tmp_path):
    for workers in (1, 2):
        folders = run_tasks(
            task_functions.threads,
            [{"number": 1}, {"number": 2}],
            scratch=tmp_path / str(workers),
            key="k",
            workers=workers,
            threads=1,
        )
        assert {(f / "threads.txt").read_text() for f in folders} == {"1"}


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_killed_or_interrupted_run_leaves_no_process_at_work(tmp_path, sent):
    marker = tmp_path / "marker"
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in a background job
        "from tests import task_functions; from tools.tasks import run_tasks\n"
        f"run_tasks(task_functions.slow, [dict(number=1, marker={str(marker)!r})], "
        f"scratch={str(tmp_path / 's')!r}, key=1, workers=1)\n"
    )
    env = copies.environment(copies.ROOT) | {"PYTHONPATH": f"{copies.ROOT}{os.pathsep}{copies.ROOT / 'src'}"}
    parent = subprocess.Popen([sys.executable, "-c", code], env=env)
    deadline = time.monotonic() + 60
    while not (marker.exists() and marker.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    child = int(marker.read_text())
    parent.send_signal(sent)
    parent.wait(timeout=30)
    while Path(f"/proc/{child}").exists() and _alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(child)


def _alive(pid):
    status = Path(f"/proc/{pid}/status")
    try:
        return "State:\tZ" not in status.read_text()
    except OSError:
        return False


def test_progress_is_one_line_a_task_when_nobody_watches(tmp_path, capfd):
    run_squares(tmp_path, [1, 2])
    assert "task 2 of 2" in capfd.readouterr().err


def test_the_number_of_workers_must_be_a_positive_integer(monkeypatch):
    monkeypatch.setenv("UNLEARNING_WORKERS", "many")
    with pytest.raises(StudyError, match="UNLEARNING_WORKERS"):
        default_workers()


def test_the_hash_of_a_folder_changes_with_a_name_and_with_a_byte(tmp_path):
    (tmp_path / "a").write_text("1")
    first = hash_files(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = hash_files(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, second, hash_files(tmp_path)}) == 3


def test_hashing_what_is_not_there_names_it_and_the_mend(tmp_path):
    with pytest.raises(StudyError, match=r"nothing.*dvc repro"):
        hash_files(tmp_path / "nothing")


def test_the_hash_of_a_folder_follows_links_to_folders(tmp_path):
    for name in ("weights", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model").write_text(name)
    link = tmp_path / "study/model"
    link.parent.mkdir()
    seen = []
    for name in ("weights", "other"):
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / name)
        seen.append(hash_files(tmp_path / "study"))
    assert seen[0] != seen[1]


# The code of a task


@pytest.fixture
def science(tmp_path, monkeypatch):
    """A package of made-up modules in place of the science, and a function that leads to two of them."""
    sources = {
        "core/first": "from unlearning.core import second\nif TYPE_CHECKING:\n    import unlearning.core.other",
        "core/second": "# one word",
        "core/lazy": "",
        "core/other": "",
        "errors": "",
    }
    for name, text in sources.items():
        (tmp_path / f"unlearning/{name}.py").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"unlearning/{name}.py").write_text(text)
    (tmp_path / "unlearning/__init__.py").touch()
    (tmp_path / "made_up.py").write_text(
        "from unlearning.core.first import a\ndef work(out):\n    import unlearning.core.lazy\n"
    )
    monkeypatch.setattr(module.unlearning, "__file__", str(tmp_path / "unlearning/__init__.py"))
    monkeypatch.syspath_prepend(tmp_path)

    def work(out):
        """What the module says is what counts."""

    work.__module__ = "made_up"
    return tmp_path, work


def test_the_code_of_a_task_is_all_that_its_module_leads_to_also_inside_functions(science):
    root, _ = science
    assert reachable((root / "made_up.py").read_text()) == {f"unlearning.core.{n}" for n in ("first", "second", "lazy")}


@pytest.mark.parametrize(
    ("changed", "another"),
    [("made_up", True), *((f"unlearning/core/{n}", n != "other") for n in ("first", "second", "lazy", "other"))],
)
def test_a_change_of_the_code_that_a_task_leads_to_makes_it_another_task(science, changed, another):
    root, work = science
    before = code_hash(work)
    with (root / f"{changed}.py").open("a") as stream:
        stream.write("\n# another word\n")
    assert (code_hash(work) != before) is another
