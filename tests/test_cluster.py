"""Tasks on a Ray cluster of two nodes, both on this machine: the same bytes, and nothing lost when a worker dies."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests import copies, task_functions
from tests.conftest import digests
from tools.tasks import SECONDS, run_tasks
from unlearning.errors import StudyError

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[ray]'")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address():
    """Address of a cluster of two nodes with one processor each; the second one says that it has two GPUs."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=1, num_gpus=2)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture
def on_the_cluster(address, monkeypatch):
    monkeypatch.setenv("UNLEARNING_ENGINE", "ray")
    monkeypatch.setenv("RAY_ADDRESS", address)


def contents(folders):
    """Bytes of every file of every folder but the seconds; folders go by their place, names by their hash."""
    files = [p for f in folders for p in sorted(f.rglob("*")) if p.is_file() and p.name != SECONDS]
    return {f"{p.parent.name}/{p.name}": p.read_bytes() for p in files}


def train(scratch, workers=None):
    tasks = [{"seed": seed} for seed in (1, 2, 3)]
    return contents(run_tasks(task_functions.train, tasks, scratch=scratch, key="k", workers=workers))


def test_one_worker_two_processes_and_a_cluster_of_two_nodes_give_the_same_bytes(tmp_path, on_the_cluster, monkeypatch):
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")  # after the cluster's start: its nodes do not have it
    cluster = train(tmp_path / "cluster")
    monkeypatch.setenv("UNLEARNING_ENGINE", "processes")
    assert len(cluster) == 6 and len(set(cluster.values())) == 6
    assert train(tmp_path / "one", workers=1) == cluster
    assert train(tmp_path / "two", workers=2) == cluster


def test_models_and_tables_of_the_study_from_two_nodes_are_those_of_one_machine(smoke, address, tmp_path):
    study = tmp_path / "study"
    shutil.copytree(smoke.root, study, symlinks=True)
    shutil.rmtree(study / "scratch")
    ray = {"UNLEARNING_ENGINE": "ray", "RAY_ADDRESS": address}
    ran = copies.dvc(study, "repro", "-f", "-s", "train@adamw", "unlearn@ind-a-adamw", **ray)
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-3000:]
    assert "ascent ind-a-adamw 2 of 2" in ran.stderr
    parts = ("models", "results/tables", "results/notebooks")
    assert digests(study, *parts) == digests(smoke.root, *parts)


def test_tasks_run_on_both_nodes_each_in_a_process_of_its_own(tmp_path, on_the_cluster):
    tasks = [{"number": n} for n in range(4)]
    folders = run_tasks(task_functions.node, tasks, scratch=tmp_path, key="k", threads=1)
    nodes, pids, threads, homes = zip(*[(f / "node.txt").read_text().split() for f in folders], strict=True)
    assert len(set(nodes)) == 2 and len(set(pids)) == 4
    assert set(threads) == {"1"} and set(homes) == {str(Path.cwd())}


def test_a_task_on_the_cluster_computes_by_the_settings_of_the_process_that_hands_it_out(
    tmp_path, on_the_cluster, monkeypatch
):
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    folders = run_tasks(task_functions.settings, [{"number": 1}], scratch=tmp_path, key="k", threads=1)
    here = [sys.executable, "-c", "import torch; print(hash('a'), torch.backends.cpu.get_cpu_capability())"]
    assert (folders[0] / "settings.txt").read_text() == subprocess.check_output(here, text=True).strip()


def test_a_task_whose_device_is_cuda_sees_one_gpu_of_the_cluster(tmp_path, on_the_cluster):
    (folder,) = run_tasks(task_functions.gpus, [{"device": "cuda"}], scratch=tmp_path, key="k")
    assert (folder / "gpus.txt").read_text() in {"0", "1"}


def test_a_cluster_without_the_gpu_that_tasks_ask_for_is_told_before_they_wait_for_it(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARNING_ENGINE", "ray")
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(StudyError, match="device is cuda, but no machine of the Ray cluster has a GPU"):
        run_tasks(task_functions.gpus, [{"device": "cuda"}], scratch=tmp_path, key="k")


def test_one_worker_at_a_time_is_possible_on_a_cluster_too(tmp_path, on_the_cluster):
    tasks = [{"number": n} for n in range(3)]
    folders = run_tasks(task_functions.span, tasks, scratch=tmp_path, key="k", workers=1)
    spans = sorted(tuple(map(float, (f / "span.txt").read_text().split())) for f in folders)
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))
    assert os.getpid() not in {int(pid) for _, _, pid in spans}


def test_a_killed_worker_of_the_cluster_costs_its_own_task_one_attempt_and_the_others_nothing(
    tmp_path, on_the_cluster, capfd
):
    log = tmp_path / "log.txt"
    tasks = [{"number": n, "log": str(log), "deadly": 2} for n in (1, 2, 3, 4)]
    folders = run_tasks(task_functions.die_once, tasks, scratch=tmp_path / "scratch", key="k")
    assert [(f / "number.txt").read_text() for f in folders] == ["1", "2", "3", "4"]
    assert sorted(log.read_text().split()) == ["1", "2", "2", "3", "4"]
    assert "a worker was killed: 1 task task(s) start again" in capfd.readouterr().err


def test_a_task_of_the_cluster_that_dies_always_is_given_up_and_the_others_are_kept(tmp_path, on_the_cluster):
    log = tmp_path / "log.txt"
    tasks = [{"number": n, "log": str(log), "deadly": 2, "times": 9} for n in (1, 2, 3)]
    with pytest.raises(StudyError, match=r"1 task task\(s\) failed(.|\n)*in each of 2 attempts"):
        run_tasks(task_functions.die_once, tasks, scratch=tmp_path / "scratch", key="k")
    assert sorted(log.read_text().split()) == ["1", "2", "2", "3"]
    assert sorted(p.read_text() for p in tmp_path.glob("scratch/*/number.txt")) == ["1", "3"]


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_killed_or_interrupted_run_leaves_no_task_at_work_on_the_cluster(tmp_path, on_the_cluster, sent):
    marker = tmp_path / "marker"
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in a background job
        "from tests import task_functions; from tools.tasks import run_tasks\n"
        f"run_tasks(task_functions.slow, [dict(number=1, marker={str(marker)!r})], "
        f"scratch={str(tmp_path / 's')!r}, key=1)\n"
    )
    path = os.pathsep.join([str(copies.ROOT), os.environ.get("PYTHONPATH", "")])
    driver = subprocess.Popen([sys.executable, "-c", code], cwd=copies.ROOT, env=os.environ | {"PYTHONPATH": path})
    deadline = time.monotonic() + 50
    while not (marker.exists() and marker.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    worker = Path("/proc", marker.read_text())
    driver.send_signal(sent)
    driver.wait(timeout=30)
    while worker.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not worker.exists()


def test_an_error_of_a_task_on_the_cluster_is_told_in_its_own_words(tmp_path, on_the_cluster):
    with pytest.raises(StudyError, match=r"First failure, task \{'number': 2\}:\ntwo is not allowed\. Take three"):
        run_tasks(task_functions.fail_on_two, [{"number": 2}, {"number": 1}], scratch=tmp_path, key="k")


def test_tasks_of_a_node_that_is_lost_are_done_by_the_node_that_is_left(tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    monkeypatch.setenv("UNLEARNING_ENGINE", "ray")
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    lost, log, over = cluster.add_node(num_cpus=1), tmp_path / "log.txt", threading.Event()
    log.touch()

    def lose_the_node_at_work():
        while lost.node_id not in log.read_text() and not over.wait(0.05):
            pass
        cluster.remove_node(lost, allow_graceful=False)

    loser = threading.Thread(target=lose_the_node_at_work)
    loser.start()
    tasks = [{"number": n, "log": str(log), "lost": lost.node_id} for n in range(4)]
    try:
        folders = run_tasks(task_functions.hang_on_node, tasks, scratch=tmp_path / "scratch", key="k")
    finally:
        over.set()
        loser.join()
        cluster.shutdown()
    begun = [line.split() for line in log.read_text().splitlines()]
    assert all((f / "done.txt").exists() for f in folders)
    assert [node for _, node in begun].count(lost.node_id) == 1 and len(begun) == 5
