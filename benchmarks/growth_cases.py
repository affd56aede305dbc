"""What grows, and the work at one value of it. Every function sets up and returns what is timed."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import ours
from benchmarks.clock import Span, timed
from benchmarks.processes import Job
from benchmarks.workloads import Workload, tokens

FEW, SHORT = 300, 2  # training examples and ascent steps where something else grows


def train_models(work: Workload, count: int, examples: int) -> Callable[[], Span]:
    """Train so many models, one after another, for one epoch of so many examples."""
    work = dataclasses.replace(work, train=work.train[:examples])
    fresh = [work.new_model() for _ in range(count)]
    return timed(count * tokens(work.train), lambda: [ours.train(model, work) for model in fresh])


def train_larger(work: Workload, vocabulary: int | None = None, d_model: int | None = None) -> Callable[[], Span]:
    """Train one model with a larger vocabulary, or wider (feed-forward width and heads grow along)."""
    work, changes = dataclasses.replace(work, train=work.train[:FEW]), {}
    if vocabulary:
        changes["vocabulary_size"] = vocabulary
    if d_model:
        changes = {"d_model": d_model, "d_ff": 2 * d_model, "num_heads": max(1, d_model // work.model["d_kv"])}
    model = work.new_model(**changes)
    return timed(tokens(work.train), lambda: ours.train(model, work))


def ascend(work: Workload, ascents: int, steps: int) -> Callable[[], Span]:
    """So many ascents, one after another, each from the trained model, scored at every step."""
    work = dataclasses.replace(work, steps=steps)
    return timed(ascents * steps, lambda: [ours.unlearn(work.trained_model(), work) for _ in range(ascents)])


@dataclass(frozen=True)
class Factor:
    """One panel of the figure: what grows, its values, and the job at a value."""

    name: str
    values: tuple[int, ...]
    job: Callable[[int], Job]


def _job(function: Callable, *, processes: int = 1, **options: int) -> Job:
    name = f"{__name__}:{function.__name__}"
    return Job(name, options, processes=processes, threads=1, memory_kept=True)


FACTORS = [
    Factor("training examples", (250, 500, 1000, 2000), lambda n: _job(train_models, count=1, examples=n)),
    Factor("ascent steps", (2, 4, 8, 16), lambda n: _job(ascend, ascents=1, steps=n)),
    Factor("models", (1, 2, 4, 8), lambda n: _job(train_models, count=n, examples=FEW)),
    Factor("forget sets (one ascent each)", (1, 2, 4, 8), lambda n: _job(ascend, ascents=n, steps=SHORT)),
    Factor("workers (8 models in all)", (1, 2), lambda n: _job(train_models, processes=n, count=8 // n, examples=FEW)),
    Factor("vocabulary", (4096, 8192, 16384, 32768, 65536), lambda n: _job(train_larger, vocabulary=n)),
    Factor("width d_model", (64, 128, 256, 512), lambda n: _job(train_larger, d_model=n)),
]
