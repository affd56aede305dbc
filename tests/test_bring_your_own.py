"""A forget set, a corpus and a pre-trained model of one's own, through the stages that they change."""

import json

import numpy as np
import pandas as pd
import pytest

from tests import copies
from tests.test_checkpoint import save
from unlearning.measure.models import load_model

EDITS = {
    "corpus": {"name": "jsonl", "path": "own/corpus/mine.jsonl", "second_language": None, "limit": None},
    "model": {"path": "own/models/mine"},
    "forget_sets": {
        "ind": {"kind": "natural", "size": 16, "repetitions": 1},
        "mine": {"kind": "own", "path": "own/forget_sets/mine.jsonl", "repetitions": 2},
    },
    "populations": {"natural": 16, "canary": 40, "shuffled": 16, "secret": 40},
    "design": {"models": 4, "min_free_columns": 0, "largest_alias": 1.0, "tokens_per_example": None},
    "ascents": {"adamw": ["mine", "ind"]},
    "claims": {"ood": "mine", "level": "ind", "headline": ["adamw"]},
    "train": {"exact_partners": {"forget_sets": ["ind"]}},
    "unlearn": {"placebo": ["adamw"]},
}


def texts(n: int, *, seed: int) -> list[str]:
    """`n` sentences of six made-up words."""
    letters = np.random.default_rng(seed).integers(ord("a"), ord("z"), size=(n, 6, 7))
    return [" ".join("".join(map(chr, word)) for word in sentence) for sentence in letters]


@pytest.mark.slow
@pytest.mark.long
def test_an_own_forget_set_in_an_own_corpus_is_unlearned_by_an_own_decoder_and_read_from_the_tables(tmp_path):
    root = copies.copy_repository(tmp_path / "study")
    copies.use_small_settings(root, **EDITS)
    copies.clear_results(root)
    save(root / "own/models/mine", "gpt2")
    pairs = zip(texts(500, seed=1), texts(500, seed=2), strict=True)
    corpus = [{"source": s, "target": t, "group": f"g{i % 50}"} for i, (s, t) in enumerate(pairs)]
    # a decoder does without sources
    mine = [{"id": str(i), "source": "", "target": f"{{{text}}}"} for i, text in enumerate(texts(12, seed=3))]
    for name, rows in (("corpus", corpus), ("forget_sets", mine)):
        (root / "own" / name / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ran = copies.dvc(root, "repro", "unlearn@adamw", "training", "exposure")
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-4000:]

    start, base = load_model(root / "own/models/mine"), load_model(root / "models/base/0")
    assert base.config.model_type == "gpt2" and base.config.vocab_size == start.config.vocab_size
    moved = [(a - b).abs().max().item() for a, b in zip(start.parameters(), base.parameters(), strict=True)]
    assert 0 < max(moved) < 1, "stage base did not start from the checkpoint"
    drawn = [json.loads(line)["target"] for line in (root / "data/forget_sets/mine.jsonl").read_text().splitlines()]
    assert drawn == [row["target"] for row in mine], "braces and what stands in them are as they were written"
    runs = pd.read_csv(root / "results/tables/unlearn/adamw/runs.csv")
    scores = pd.read_parquet(root / "results/tables/unlearn/adamw/log_likelihoods.parquet")
    roles = runs.query("forget_set == 'mine'").groupby("role").size()
    assert roles["in"] == 2 and {f"mine:{i}" for i in range(12)} <= set(scores["example_id"].astype(str))
    learnt = pd.read_csv(root / "results/tables/training/learnt.csv").set_index("forget_set")
    assert set(learnt.loc[["mine"], "memorized"]) == {"unknown"}  # nobody wrote never-trained examples of its kind
    said = [(root / f"results/notebooks/{stage}.ipynb").read_text() for stage in ("training", "exposure")]
    assert "Not known: mine." in said[0] and "Not memorized: mine" not in said[0]
    assert "mine" in said[1] and "nan%" not in said[1]
