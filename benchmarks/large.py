"""Tokens a second of a model of a billion parameters on one GPU, weights and tokens at random.

python -m benchmarks.large [--smoke]: large.csv and large_machine.json. The study's own functions at work; the
extrapolation to clusters takes its rates from here.
"""

import gc
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from benchmarks import command, report
from benchmarks.clock import now
from unlearning.measure.ascent import ascend
from unlearning.errors import StudyError
from unlearning.measure.models import Encoded
from unlearning.measure.optimizers import make_optimizer
from unlearning.measure.scoring import prepare, score
from unlearning.measure.training import fit

LLAMA = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
}
TOY = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 60,
}
SIDE = 128  # tokens of every source and of every target
FLOPS = {"training": 6, "update": 6, "scoring": 2}  # a parameter and token: forward and backward; forward alone
ADAMW = {"learning_rate": 1e-6, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0}
STEPS = 4  # training steps in one measurement


@dataclass(frozen=True)
class Case:
    """What is done, in which precision of the forward pass, with so many tokens at a time."""

    work: str
    precision: str
    tokens: int


CASES = (
    Case("training", "bfloat16", 2048),
    Case("training", "bfloat16", 16384),
    Case("training", "float32", 2048),
    Case("update", "float32", 1536),
    Case("update", "float32", 4096),
    Case("scoring", "float32", 1024),
    Case("scoring", "float32", 16384),
)


def new_model(config: dict[str, int], device: str) -> PreTrainedModel:
    """A Llama with random float32 weights, made where it stays."""
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "tie_word_embeddings": False}
    with torch.device(device):
        return LlamaForCausalLM(LlamaConfig(**config, **special)).eval()


def made_up(tokens: int, vocabulary: int, side: int) -> list[Encoded]:
    """Random examples of so many tokens in all."""
    ids = np.random.default_rng(1).integers(3, vocabulary, (tokens // (2 * side), 2, side)).tolist()
    return [(source, target) for source, target in ids]


def work_of(case: Case, model: PreTrainedModel, *, pieces: int, side: int) -> Iterator[object]:
    """Comes back after every piece of a case's work: `STEPS` training steps, an update, a pass of scoring."""
    vocabulary = model.config.vocab_size
    optimizer = make_optimizer(model.parameters(), "adamw", ADAMW)
    if case.work == "training":
        rows = made_up(STEPS * case.tokens, vocabulary, side)
        loop = {"batch_tokens": case.tokens, "loss": "mean", "warmup_steps": 0, "schedule": "constant"}
        more = {"epochs": pieces, "clip_norm": 1.0, "precision": case.precision, "seed": 1}
        return fit(model, optimizer, rows, np.arange(len(rows)), **loop, **more)
    rows = made_up(case.tokens, vocabulary, side)
    if case.work == "update":
        return ascend(model, optimizer, itertools.repeat(prepare(rows, model.config)), reduction="mean")
    ready = prepare(rows, model.config, batch_tokens=case.tokens)
    return (score(model, ready) for _ in range(pieces))


def seconds(work: Iterator[object], *, pieces: int) -> np.ndarray:
    """Of so many pieces of work but the first two, which warm up."""
    times = [now() for _ in itertools.islice(work, pieces)]
    return np.diff(times)[1:]


def measure(case: Case, new: Callable[[], PreTrainedModel], *, repeats: int, side: int) -> dict[str, object]:
    """One row: the rate by median and quartiles, FLOP/s by 6 or 2 FLOPs a parameter and token, and peak memory.

    Rates are missing where the work does not fit the GPU's memory.
    """
    model = new()
    parameters = sum(p.numel() for p in model.parameters())
    row = {"work": case.work, "precision": case.precision, "tokens": case.tokens, "parameters": parameters}
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        took = seconds(work_of(case, model, pieces=repeats + 2, side=side), pieces=repeats + 2)
    except torch.cuda.OutOfMemoryError:
        return {**row, "fits": False}
    counted = (STEPS if case.work == "training" else 1) * (case.tokens // (2 * side)) * 2 * side
    low, median, high = np.quantile(counted / took, [0.25, 0.5, 0.75])
    row |= {"fits": True, "tokens_a_second": median, "quartile_1": low, "quartile_3": high, "repeats": len(took)}
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else float("nan")
    return {**row, "tflops": FLOPS[case.work] * parameters * median / 1e12, "peak_gib": peak / 2**30}


def run(out: Path, *, smoke: bool, repeats: int) -> int:
    """Tables large.csv and large_machine.json.

    Raises:
        StudyError: there is no GPU.
    """
    if not smoke and not torch.cuda.is_available():
        raise StudyError("a billion parameters want a GPU, and this machine has none that PyTorch sees; try --smoke")
    config, device = (TOY, "cpu") if smoke else (LLAMA, "cuda")
    side = 8 if smoke else SIDE
    rows = []
    for case in CASES:
        rows.append(measure(case, lambda: new_model(config, device), repeats=repeats, side=side))
        print(rows[-1], flush=True)
    out.mkdir(parents=True, exist_ok=True)
    report.write_csv(pd.DataFrame(rows), out / "large.csv")
    report.write_machine(out / "large_machine.json", {"toy": smoke, "config": config})
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. 0; 1 when something is missing."""
    parser = command.options("large", __doc__, repeats=10)
    parser.add_argument("--smoke", action="store_true", help="toy size, on the processor: does everything run?")
    return command.call(run, parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
