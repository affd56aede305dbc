"""What is compared with whom: ARMS, one row an arm, and TARGETS, how much faster the study's code should be.

A new arm is one row here and, where nobody wrote it yet, one function in peers.py. The gate compares what it computes
without being told; `python -m pytest tests/test_benchmarks.py` runs it at toy size.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from benchmarks import ours, peers
from benchmarks.clock import Job, Timed, timed
from benchmarks.work import Work

WORKLOADS = {  # what a unit is; padding is work, but no unit
    "training": "tokens/s",
    "matmul": "GFLOP/s",
    "ascent": "steps/s",
    "scoring": "examples/s",
    "scoring_50k": "examples/s",
    "translation": "sentences/s",
}
TAKE_TURNS = [["training", "matmul"], ["ascent"], ["scoring", "scoring_50k"], ["translation"]]
WORDS_50K = {"vocabulary": 50_000}  # of the size that multilingual and large models have


@dataclass(frozen=True)
class Arm:
    """A row: which workload, its name, who writes it so, what is done in whose favour, and how it runs."""

    workload: str
    name: str
    who: str
    favour: str
    job: Job

    @property
    def bfloat16(self) -> bool:
        """Does it compute in bfloat16? Then the gate cannot hold it to float32's digits."""
        return self.job.options.get("precision") == "bfloat16"


def alone(function: Callable, **options: Any) -> Job:
    """One process of two threads, as users run one program."""
    return Job(function, options)


def kept(function: Callable, **options: Any) -> Job:
    """The same; freed memory stays with the process."""
    return replace(alone(function, **options), memory_kept=True)


def pair(function: Callable, **options: Any) -> Job:
    """Two processes of one thread, each with the whole of the work, as the study runs its tasks."""
    return replace(kept(function, **options), processes=2, threads=1)


def capped(job: Job) -> Job:
    """The same with the instruction set of the study's runs, AVX2, so that machines of one maker agree."""
    return replace(job, capped=True)


def products(work: Work, *, precision: str, n: int = 2048) -> Timed:
    """Matrix products alone: what the machine can do."""
    a, b = torch.randn(2, n, n).to(work.device, getattr(torch, precision))
    times = 8 if work.device == "cpu" else 2000
    return timed(times * 2 * n**3 / 1e9, lambda: [a @ b for _ in range(times)][-1])


STUDY = "this study"
STAGES = "this study, as its stages run"
PAIR = "ours: two processes, freed memory kept"
KEPT = "ours: freed memory kept"
CAP = "theirs: only our instruction set is capped"
LOOP = "theirs: setting up is not timed; lists, not Arrow tables"
SAME = "theirs: setting up is not timed; else as ours"
ONCE = "theirs: what is scored is padded once, not timed"
GROUPED = {"train_sampling_strategy": "group_by_length"}
HALF = {"precision": "bfloat16"}
BOTH = HALF | GROUPED

ARMS = [
    Arm("training", "ours float32", STUDY, PAIR, pair(ours.train)),
    Arm("training", "ours bfloat16", STUDY, PAIR, pair(ours.train, **HALF)),
    Arm("training", "ours float32, AVX2", STAGES, CAP, capped(pair(ours.train))),
    Arm("training", "Trainer default", "users of Seq2SeqTrainer as it is", LOOP, alone(peers.train_trainer)),
    Arm("training", "Trainer grouped", "users who set group_by_length", LOOP, alone(peers.train_trainer, **GROUPED)),
    Arm("training", "Trainer bfloat16, grouped", "users who set bf16, too", LOOP, alone(peers.train_trainer, **BOTH)),
    Arm("training", "Trainer grouped, side by side", "users who start two", SAME, pair(peers.train_trainer, **GROUPED)),
    Arm("training", "Trainer bfloat16, side by side", "users who start two", SAME, pair(peers.train_trainer, **BOTH)),
    Arm("training", "plain loop", "PyTorch tutorials", "", alone(peers.train_plain, fixed=False)),
    Arm("training", "fixed padding", "fine-tuning scripts, 64 + 64 tokens", "", alone(peers.train_plain, fixed=True)),
    Arm("matmul", "float32", "the machine", "", pair(products, precision="float32")),
    Arm("matmul", "bfloat16", "the machine", "", pair(products, **HALF)),
    Arm("ascent", "ours", STUDY, PAIR, pair(ours.unlearn)),
    Arm("ascent", "ours, AVX2", STAGES, CAP, capped(pair(ours.unlearn))),
    Arm("ascent", "Trainer", "unlearning papers: minus the loss", ONCE, alone(peers.unlearn_trainer)),
    Arm("ascent", "Trainer, to the longest", "the same, less padding", ONCE, alone(peers.unlearn_trainer, fixed=False)),
    Arm("ascent", "Trainer bfloat16", "the same, with bf16", ONCE, alone(peers.unlearn_trainer, **HALF)),
    Arm("scoring", "ours", STUDY, KEPT, kept(ours.score)),
    Arm("scoring", "ours side by side", STUDY, PAIR, pair(ours.score)),
    Arm("scoring", "ours, AVX2", STAGES, CAP, capped(kept(ours.score))),
    Arm("scoring", "full logits", "scripts: all logits, 64 at once", "", alone(peers.score_full)),
    Arm("scoring", "full logits, by eight", "the same, less memory", "", alone(peers.score_full, size=8)),
    Arm("scoring", "full logits, by eight, to the longest", "the same, less padding", "",
        alone(peers.score_full, size=8, fixed=False)),
    Arm("scoring_50k", "ours", STUDY, KEPT, kept(ours.score, **WORDS_50K)),
    Arm("scoring_50k", "ours side by side", STUDY, PAIR, pair(ours.score, **WORDS_50K)),
    Arm("scoring_50k", "full logits", "as above", "", alone(peers.score_full, **WORDS_50K)),
    Arm("scoring_50k", "full logits, by eight", "as above", "", alone(peers.score_full, size=8, **WORDS_50K)),
    Arm("scoring_50k", "full logits, by eight, to the longest", "as above", "",
        alone(peers.score_full, size=8, fixed=False, **WORDS_50K)),
    Arm("translation", "ours", STUDY, KEPT, kept(ours.translate)),
    Arm("translation", "ours side by side", STUDY, PAIR, pair(ours.translate)),
    Arm("translation", "batches of eight", "scripts with generate", "", alone(peers.translate_in_order, size=8)),
    Arm("translation", "all at once", "the same, 200 at once", "", alone(peers.translate_in_order, size=200)),
]  # fmt: skip

TRAINERS = ["Trainer default", "Trainer grouped", "Trainer bfloat16, grouped"]
ASCENTS = ["Trainer", "Trainer, to the longest", "Trainer bfloat16"]
LOGITS = ["full logits", "full logits, by eight", "full logits, by eight, to the longest"]
TARGETS = [  # workload, arm, how many times as fast, as the fastest of
    *[("training", arm, 7, TRAINERS[:1]) for arm in ("ours float32", "ours float32, AVX2", "ours bfloat16")],
    *[("training", arm, 3, TRAINERS) for arm in ("ours float32", "ours float32, AVX2", "ours bfloat16")],
    *[("ascent", "ours", 4, others) for others in (ASCENTS[:1], ASCENTS)],
    ("ascent", "ours, AVX2", 4, ASCENTS),
    *[(workload, "ours", 3, [arm]) for workload in ("scoring", "scoring_50k") for arm in LOGITS],
]
SMALLER = [(workload, arm) for workload in ("scoring", "scoring_50k") for arm in LOGITS]  # memory at most a third
PEAK = 0.5  # of the rate of bare products: what training should reach
