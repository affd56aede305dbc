"""Started by `torchrun` in each process: train a tiny model with HF Accelerate, save it and its losses."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from tests.tiny import encoder_decoder, examples
from unlearning.measure.models import save_model
from unlearning.measure.optimizers import make_optimizer
from unlearning.measure.training import fit


def main(out: Path) -> None:
    """Every process takes its share of each batch; the first writes."""
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    for loss in ("mean", "sum"):
        model = encoder_decoder()
        settings = {"learning_rate": 3e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0}
        optimizer = make_optimizer(model.parameters(), "adamw", settings)
        loop = {"epochs": 2, "batch_tokens": 100, "warmup_steps": 2, "schedule": "linear", "clip_norm": 1.0}
        loop |= {"loss": loss, "precision": "float32", "seed": 0, "accelerator": accelerator}
        losses = [epoch.loss for epoch in fit(model, optimizer, examples(41), np.arange(41), **loop)]
        if accelerator.is_main_process:
            save_model(model, out / loss)
            facts = {"processes": accelerator.num_processes, "losses": losses}
            (out / loss / "losses.json").write_text(json.dumps(facts))
    accelerator.end_training()  # leaves the process group


if __name__ == "__main__":
    main(Path(sys.argv[1]))
