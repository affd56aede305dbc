"""What the same study would cost with models of 1 and 7 billion parameters: arithmetic, from rates measured at 1 B."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

SIZES = {"1 B": 1e9, "7 B": 7e9}
MEASURED = Path(__file__).parent / "results" / "gpu"  # what `python -m benchmarks.large` found
PRECISIONS = {"training": "bfloat16", "update": "float32", "scoring": "float32"}  # ascents and scores are float32
SHARDED = 0.85  # of that, where one model is spread over several GPUs, assumed
GPU_BYTES = 80e9
BYTES = {"float32 master weights": 4, "AdamW's two moments": 8, "float32 gradients": 4, "bfloat16 working copy": 2}
ACTIVATIONS = 8e9  # bytes a GPU, assumed: with activations recomputed, which is not in the code
TRAIN, FORWARD = 8, 2  # FLOPs a parameter and token: forward, again for activations, and backward; forward alone


@dataclass(frozen=True)
class Counts:
    """How much there is to do.

    Attributes:
        train_tokens: a model sees in its training, all epochs.
        step_tokens: of the forget set, seen by an update.
        scored_tokens: scored after every update.
    """

    name: str
    models: int
    train_tokens: float
    ascents: int
    steps: float
    step_tokens: float
    scored_tokens: float

    def seconds_per_parameter(self, rates: Mapping[str, float]) -> float:
        """Of one GPU, all trainings and ascents, at these FLOP/s of `training`, `update` and `scoring`."""
        step = TRAIN * self.step_tokens / rates["update"] + FORWARD * self.scored_tokens / rates["scoring"]
        return self.models * TRAIN * self.train_tokens / rates["training"] + self.ascents * self.steps * step


# 16 fine-tunings on 100 M tokens; 9 forget sets x 8 models, 100 steps on 400 answers of 100 tokens, 1 M tokens scored
LLM = Counts("typical of LLMs", 16, 100e6, 72, 100, 40e3, 1e6)


def measured_rates(folder: Path = MEASURED) -> dict[str, float]:
    """FLOP/s of each kind of work, by 6 or 2 FLOPs a parameter and token: the fastest that was measured."""
    table = pd.read_csv(folder / "large.csv")
    fastest = table.groupby(["work", "precision"])["tflops"].max()
    return {work: 1e12 * float(fastest[work, precision]) for work, precision in PRECISIONS.items()}


def cost(counts: Counts, *, parameters: float, gpus: int, rates: Mapping[str, float]) -> dict[str, object]:
    """Hours, bytes a GPU and whether they fit: one model a GPU where it fits, else one model over all of them."""
    held = parameters * sum(BYTES.values())
    alone = held + ACTIVATIONS <= GPU_BYTES
    fits = alone or held / gpus + ACTIVATIONS <= GPU_BYTES
    share = 1.0 if alone else SHARDED
    hours = counts.seconds_per_parameter(rates) * parameters / (gpus * share) / 3600
    per_gpu = held if alone else held / gpus
    layout = "one model a GPU" if alone else f"one model over {gpus} GPUs" if fits else "does not fit"
    return {
        "counts": counts.name,
        "gpus": gpus,
        "layout": layout,
        "gb_a_gpu": round((per_gpu + ACTIVATIONS) / 1e9, 1),
        "fits_80_gb": fits,
        "hours": hours if fits else float("nan"),
        "gpu_hours": hours * gpus if fits else float("nan"),
    }


def table(study: Counts) -> pd.DataFrame:
    """One row a size, number of GPUs and set of counts."""
    rows, rates = [], measured_rates()
    for counts in (study, LLM):
        for size, parameters in SIZES.items():
            for gpus in (1, 8):
                row = {"extrapolated": True, "parameters": size}
                rows.append({**row, **cost(counts, parameters=parameters, gpus=gpus, rates=rates)})
    return pd.DataFrame(rows)


def assumptions(study: Counts) -> str:
    """The assumptions in words."""
    held = ", ".join(f"{name} {size}" for name, size in BYTES.items())
    rates = ", ".join(f"{r / 1e12:.0f} ({work}, {PRECISIONS[work]})" for work, r in measured_rates().items())
    gpu = json.loads((MEASURED / "large_machine.json").read_text(encoding="utf-8"))["gpu"]
    update = pd.read_csv(MEASURED / "large.csv").query("work == 'update'").nlargest(1, "tokens").iloc[0]
    said = [
        f"Extrapolated, not measured. FLOPs: {TRAIN} x parameters x tokens for training and updates, of which 2 make",
        f"activations again; {FORWARD} x for scoring. TFLOP/s: {rates}, the fastest that one {gpu} reached with",
        f"a model of 1.1 B (gpu/large.csv); {SHARDED:.0%} of that where one model is spread over several. Bytes a",
        f"parameter: {held}; {ACTIVATIONS / 1e9:.0f} GB for activations. For this, activations would have to be made",
        "again and gradients added up batch by batch, which is not in the code: as it is, an update of",
        f"{update['tokens']} tokens took {update['peak_gib']:.0f} GiB in all, and one of 40 000 would not fit. Counts:",
        f"{study} and {LLM}. Left out: base models, loading, saving, idle GPUs, and that steps of so few tokens as",
        "this study's keep no GPU busy.",
    ]
    return " ".join(said)
