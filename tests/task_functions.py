"""Tasks for the tests of tools.tasks: processes of the pool have to be able to import them."""

import os
import signal
import time
from pathlib import Path

from unlearning.errors import StudyError


def _begin(number: int | str, log: str) -> None:
    with open(log, "a", encoding="utf-8") as stream:
        stream.write(f"{number}\n")


def square(out: Path, *, number: int, log: str) -> None:
    """Write the square; leave a line in a log outside, so that executions can be counted."""
    _begin(number, log)
    (out / "square.txt").write_text(str(number**2), encoding="utf-8")


def fail_on_two(out: Path, *, number: int) -> None:
    """Fail for the number two, in words."""
    if number == 2:
        raise StudyError("two is not allowed. Take three.")
    (out / "number.txt").write_text(str(number), encoding="utf-8")


def fill_the_disk(out: Path, *, number: int) -> None:
    """Fail as safetensors does when no space is left."""
    raise RuntimeError("I/O error: No space left on device (os error 28)")


def die(out: Path, *, number: int, log: str) -> None:
    """Be killed, as the system does when memory runs out; leave a line for each time this was begun."""
    _begin(number, log)
    os.kill(os.getpid(), signal.SIGKILL)


def die_on_one_fail_on_two(out: Path, *, number: int, log: str) -> None:
    """Fail for the number two, in words; then, for the number one, be killed."""
    _begin(number, log)
    if number == 2:
        raise StudyError("two is not allowed. Take three.")
    while "2" not in Path(log).read_text(encoding="utf-8"):
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(out: Path, *, number: int, log: str, deadly: int, times: int = 1) -> None:
    """Be killed the first time (or times), if this is the deadly number; leave a line each time this is begun."""
    _begin(number, log)
    if number == deadly and Path(log).read_text(encoding="utf-8").split().count(str(number)) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    (out / "number.txt").write_text(str(number), encoding="utf-8")


def divide_by_zero(out: Path, *, number: int, log: str) -> None:
    """Fail by an exception that nobody has put in words; leave a line for each time this was begun."""
    _begin(number, log)
    (out / "number.txt").write_text(str(number / 0), encoding="utf-8")


def span(out: Path, *, number: int) -> None:
    """Take a moment, and write when it began and ended, and in which process."""
    started = time.monotonic()
    time.sleep(0.2)
    (out / "span.txt").write_text(f"{started} {time.monotonic()} {os.getpid()}", encoding="utf-8")


def train(out: Path, *, seed: int) -> None:
    """Train a tiny model for a few steps, with dropout, and write its weights."""
    import torch  # here: workers of the other tests need not wait for it
    from safetensors.torch import save_file

    from tests import tiny

    model = tiny.encoder_decoder(seed=seed, dropout=0.1).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    torch.manual_seed(seed)
    for source, target in tiny.examples(8, seed=seed):
        loss = model(input_ids=torch.tensor([source]), labels=torch.tensor([target])).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    save_file(weights, out / "model.safetensors")
    how = f"{torch.get_num_threads()} {torch.backends.cpu.get_cpu_capability()}"
    (out / "loss.txt").write_text(f"{loss.item()!r} {how}", encoding="utf-8")


def threads(out: Path, *, number: int) -> None:
    """Write the number of threads that this process was given."""
    (out / "threads.txt").write_text(os.environ["OMP_NUM_THREADS"], encoding="utf-8")


def settings(out: Path, *, number: int) -> None:
    """Write what depends on settings that a process has to find when it starts."""
    import torch

    found = f"{hash('a')} {torch.backends.cpu.get_cpu_capability()}"
    (out / "settings.txt").write_text(found, encoding="utf-8")


def gpus(out: Path, *, device: str) -> None:
    """Write which GPUs this process may see."""
    (out / "gpus.txt").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "all"), encoding="utf-8")


def node(out: Path, *, number: int) -> None:
    """Take a moment, and write the node of the cluster, the process, its threads, and its working directory."""
    import ray

    time.sleep(1)
    here = [ray.get_runtime_context().get_node_id(), os.getpid(), os.environ["MKL_NUM_THREADS"], Path.cwd()]
    (out / "node.txt").write_text(" ".join(map(str, here)), encoding="utf-8")


def hang_on_node(out: Path, *, number: int, log: str, lost: str) -> None:
    """Write the node of the cluster into the log; do not come to an end on one of them."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    _begin(f"{number} {here}", log)
    time.sleep(600 if here == lost else 0)
    (out / "done.txt").write_text(str(number), encoding="utf-8")


def slow(out: Path, *, number: int, marker: str) -> None:
    """Say that it has begun, then take a while."""
    Path(marker).write_text(str(os.getpid()), encoding="utf-8")
    time.sleep(60)
