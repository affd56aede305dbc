"""The arms: who does which work how. Every function sets up, untimed, and returns what is timed."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks import ours, peers
from benchmarks.clock import Span, timed
from benchmarks.processes import Job
from benchmarks.workloads import SEED, Workload, tokens
from benchmarks.yardstick import reference_gflops
from unlearning.measure.scoring import bleu, score

WORDS_50K = 50_000  # a vocabulary of the size that multilingual and large models have
MATMUL = 2048  # n of the n x n product that stands for the machine's peak
PRODUCTS = {"cpu": 8, "cuda": 2000}  # so many of them a repeat
UNITS = {
    "training": "tokens/s",
    "matmul": "GFLOP/s",
    "ascent": "steps/s",
    "scoring": "examples/s",
    "scoring_50k": "examples/s",
    "translation": "sentences/s",
}
INTERLEAVED = [["training", "matmul"], ["ascent"], ["scoring", "scoring_50k"], ["translation"]]

Timed = Callable[[], Span]


def train_ours(work: Workload, precision: str) -> Timed:
    model = work.new_model()
    return timed(tokens(work.train), lambda: ours.train(model, work, precision=precision))


def train_trainer(work: Workload, **settings: object) -> Timed:
    model = work.new_model()

    def run() -> Span:
        watch = peers.train_trainer(model, work, **settings)
        return Span(watch.started, watch.ended, tokens(work.train))

    return run


def train_plain(work: Workload, fixed: bool) -> Timed:
    model, width = work.new_model(), work.width if fixed else None
    order = np.random.default_rng(SEED).permutation(len(work.train))
    batches = [order[i : i + work.batch_size] for i in range(0, len(order), work.batch_size)]
    return timed(tokens(work.train), lambda: peers.train_plain(model, work, batches, width=width))


def matmul(work: Workload, dtype: str) -> Timed:
    a, b = torch.randn(2, MATMUL, MATMUL).to(work.device, getattr(torch, dtype))
    products = PRODUCTS[work.device]

    def action() -> None:
        for _ in range(products):
            a @ b

    return timed(products * 2 * MATMUL**3 / 1e9, action)


def unlearn_ours(work: Workload) -> Timed:
    model = work.trained_model()
    return timed(work.steps, lambda: ours.unlearn(model, work))


def unlearn_trainer(work: Workload, **settings: object) -> Timed:
    model = work.trained_model()
    return lambda: peers.unlearn_trainer(model, work, **settings)


def score_ours(work: Workload, vocabulary: int | None = None) -> Timed:
    model = work.new_model(vocabulary_size=vocabulary or work.vocabulary).eval()
    return timed(len(work.heldout), lambda: score(model, work.heldout))


def score_full(work: Workload, size: int, fixed: bool = True, vocabulary: int | None = None) -> Timed:
    model, width = work.new_model(vocabulary_size=vocabulary or work.vocabulary).eval(), work.width if fixed else None

    def action() -> None:
        peers.full_log_likelihoods(model, peers.full_batches(work.heldout, width=width, size=size))

    return timed(len(work.heldout), action)


def translate_ours(work: Workload) -> Timed:
    model, tokenizer, examples = work.trained_model(), work.load_tokenizer(), work.heldout[: work.decoded]
    return timed(len(examples), lambda: bleu(model, tokenizer, examples, max_new_tokens=work.width))


def translate_in_order(work: Workload, size: int) -> Timed:
    model, tokenizer, examples = work.trained_model(), work.load_tokenizer(), work.heldout[: work.decoded]
    more = {"size": size, "max_new_tokens": work.width}
    return timed(len(examples), lambda: peers.bleu_in_order(model, tokenizer, examples, **more))


@dataclass(frozen=True)
class Arm:
    """One row of the table."""

    workload: str
    name: str
    job: Job

    @property
    def bfloat16(self) -> bool:
        """Does it compute in bfloat16? The names of these arms say so."""
        return "bfloat16" in self.name


def _arm(workload: str, name: str, function: Callable, *, side_by_side: bool = False, **settings) -> Arm:
    """An arm of this module: two processes of one thread side by side, or one process of two threads."""
    layout = {"processes": 2, "threads": 1} if side_by_side else {"processes": 1, "threads": 2}
    job = {name: settings.pop(name) for name in ("memory_kept", "capped") if name in settings}
    job.setdefault("memory_kept", name.startswith("ours"))
    return Arm(workload, name, Job(f"{__name__}:{function.__name__}", settings, **layout, **job))


def bfloat16_pays(*, size: int = 256) -> bool:
    """Has this processor instructions for bfloat16? Without them a product takes some hundred times as long."""
    return reference_gflops("bfloat16", size=size) > 0.1 * reference_gflops("float32", size=size)


GROUPED = {"train_sampling_strategy": "group_by_length"}
BEST = {"bf16": True, **GROUPED}
ARMS = [
    _arm("training", "ours float32", train_ours, side_by_side=True, precision="float32"),
    _arm("training", "ours bfloat16", train_ours, side_by_side=True, precision="bfloat16"),
    _arm("training", "ours float32, AVX2", train_ours, side_by_side=True, precision="float32", capped=True),
    _arm("training", "Trainer default", train_trainer),
    _arm("training", "Trainer grouped", train_trainer, **GROUPED),
    _arm("training", "Trainer bfloat16, grouped", train_trainer, **BEST),
    _arm("training", "Trainer grouped, side by side", train_trainer, side_by_side=True, memory_kept=True, **GROUPED),
    _arm("training", "Trainer bfloat16, side by side", train_trainer, side_by_side=True, memory_kept=True, **BEST),
    _arm("training", "plain loop", train_plain, fixed=False),
    _arm("training", "fixed padding", train_plain, fixed=True),
    _arm("matmul", "float32", matmul, side_by_side=True, dtype="float32"),
    _arm("matmul", "bfloat16", matmul, side_by_side=True, dtype="bfloat16"),
    _arm("ascent", "ours", unlearn_ours, side_by_side=True),
    _arm("ascent", "ours, AVX2", unlearn_ours, side_by_side=True, capped=True),
    _arm("ascent", "Trainer", unlearn_trainer),
    _arm("ascent", "Trainer, to the longest", unlearn_trainer, fixed=False),
    _arm("ascent", "Trainer bfloat16", unlearn_trainer, bf16=True),
    _arm("scoring", "ours", score_ours),
    _arm("scoring", "ours side by side", score_ours, side_by_side=True),
    _arm("scoring", "ours, AVX2", score_ours, capped=True),
    _arm("scoring", "full logits", score_full, size=peers.AT_ONCE),
    _arm("scoring", "full logits, by eight", score_full, size=8),
    _arm("scoring", "full logits, by eight, to the longest", score_full, size=8, fixed=False),
    _arm("scoring_50k", "ours", score_ours, vocabulary=WORDS_50K),
    _arm("scoring_50k", "ours side by side", score_ours, side_by_side=True, vocabulary=WORDS_50K),
    _arm("scoring_50k", "full logits", score_full, size=peers.AT_ONCE, vocabulary=WORDS_50K),
    _arm("scoring_50k", "full logits, by eight", score_full, size=8, vocabulary=WORDS_50K),
    _arm("scoring_50k", "full logits, by eight, to the longest", score_full, size=8, fixed=False, vocabulary=WORDS_50K),
    _arm("translation", "ours", translate_ours),
    _arm("translation", "ours side by side", translate_ours, side_by_side=True),
    _arm("translation", "batches of eight", translate_in_order, size=8),
    _arm("translation", "all at once", translate_in_order, size=200),
]
