"""What the same study would cost with models of 1 and 7 billion parameters: arithmetic, from rates measured at 1 B."""

from dataclasses import dataclass

import pandas as pd

SIZES = {"1 B": 1e9, "7 B": 7e9}
# FLOP/s (by these formulas) of one H100 and a Llama of 1.08 B of random weights, 16 384 tokens a step (LOG, 2026-11-26)
TRAINING = 280e12  # in bfloat16
ASCENT = 47e12  # in float32, in which the study ascends and scores: of scoring (an update of 1 536 tokens: 37)
SHARDED = 0.85  # of that, where one model is spread over several GPUs, assumed
GPU_BYTES = 80e9
BYTES = {"float32 master weights": 4, "AdamW's two moments": 8, "float32 gradients": 4, "bfloat16 working copy": 2}
ACTIVATIONS = 8e9  # bytes a GPU, assumed: with activations recomputed, which is not in the code
TRAIN, FORWARD = 6, 2  # FLOPs a parameter and token: forward and backward; forward alone


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

    def seconds_per_parameter(self) -> float:
        """Of one GPU, all trainings and ascents."""
        ascent = self.steps * (TRAIN * self.step_tokens + FORWARD * self.scored_tokens)
        return self.models * TRAIN * self.train_tokens / TRAINING + self.ascents * ascent / ASCENT


# 16 fine-tunings on 100 M tokens; 9 forget sets x 8 models, 100 steps on 400 answers of 100 tokens, 1 M tokens scored
LLM = Counts("typical of LLMs", 16, 100e6, 72, 100, 40e3, 1e6)


def cost(counts: Counts, *, parameters: float, gpus: int) -> dict[str, object]:
    """Hours, bytes a GPU and whether they fit: one model a GPU where it fits, else one model over all of them."""
    held = parameters * sum(BYTES.values())
    alone = held + ACTIVATIONS <= GPU_BYTES
    fits = alone or held / gpus + ACTIVATIONS <= GPU_BYTES
    share = 1.0 if alone else SHARDED
    hours = counts.seconds_per_parameter() * parameters / (gpus * share) / 3600
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
    rows = []
    for counts in (study, LLM):
        for size, parameters in SIZES.items():
            for gpus in (1, 8):
                row = {"extrapolated": True, "parameters": size}
                rows.append({**row, **cost(counts, parameters=parameters, gpus=gpus)})
    return pd.DataFrame(rows)


def assumptions(study: Counts) -> str:
    """The assumptions in words."""
    held = ", ".join(f"{name} {size}" for name, size in BYTES.items())
    return (
        f"Extrapolated, not measured. FLOPs: {TRAIN} x parameters x tokens for training and updates, {FORWARD} x for "
        f"scoring, at {TRAINING / 1e12:.0f} TFLOP/s (training, bfloat16) and {ASCENT / 1e12:.0f} (scores, and taken "
        f"for ascents, float32), as measured once on an H100 with a model of 1 B; {SHARDED:.0%} of that where one "
        f"model is spread over several. Bytes a parameter: {held}; {ACTIVATIONS / 1e9:.0f} GB for "
        f"activations (with recomputation, which is not in the code). Counts: {study} and {LLM}. Left out: base "
        f"models, loading, saving, idle GPUs, and that steps of so few tokens as this study's keep no GPU busy."
    )
