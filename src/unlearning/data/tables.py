"""The rows of the tidy tables (their dictionary stands in docs/tables.md), and how they are written."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:  # notebooks write tables without loading torch
    from unlearning.data.groups import Group
    from unlearning.measure.scoring import Scores

CATEGORIES = ("track", "trained_with", "forget_set", "method", "role", "example_id", "split")
MILLI = 1e-3  # log-likelihoods are stored to a thousandth of a nat: fp32 sums are not better than that
CENTI = 1e-2  # of single tokens to a hundredth: there are many, and few different ones then


def log_likelihood_rows(key: dict, group: "Group", scores: "Scores") -> pd.DataFrame:
    """One row an example: the key, example_id, n_tokens, log_likelihood (nats), n_correct."""
    counts = {"n_tokens": scores.n_tokens.astype(np.int16), "log_likelihood": scores.log_likelihood}
    return pd.DataFrame({**key, "example_id": group.ids, **counts, "n_correct": scores.n_correct.astype(np.int16)})


def token_rows(key: dict, group: "Group", tokens: np.ndarray) -> pd.DataFrame:
    """One row a target token: the key, example_id, position, log_likelihood (nats), correct, mean and sd of log p.

    tokens: (N, 4) of `scoring.score_tokens`.
    """
    counts = [len(target) for _, target in group.encoded]
    ids, position = np.repeat(group.ids, counts), np.concatenate([np.arange(n) for n in counts]).astype(np.int16)
    value = dict(zip(["log_likelihood", "correct", "mean", "sd"], tokens.T, strict=True))
    return pd.DataFrame({**key, "example_id": ids, "position": position, **value, "correct": tokens[:, 1] > 0})


def performance_row(key: dict, split: str, scores: "Scores", *, bleu: float = float("nan")) -> dict:
    """One row a split: the key, log-likelihood per token (nats), token accuracy, BLEU, target tokens."""
    means = {"log_likelihood_per_token": scores.per_token, "token_accuracy": scores.token_accuracy, "bleu": bleu}
    return {**key, "split": split, **means, "n_tokens": int(scores.n_tokens.sum())}


def write_parquet(table: pd.DataFrame, path: Path | str, *, unit: float = MILLI) -> None:
    """Write a long table small: categories, zstd; log-likelihoods rounded to `unit`, nats, with split bytes.

    unit: CENTI has so few different values that a dictionary of them takes less than split bytes.
    """
    table = table.copy()
    split = [name for name in ("log_likelihood", "mean", "sd") if name in table]
    for name in split:
        table[name] = ((table[name].astype(float) / unit).round() * unit).astype(np.float32)
    for name in (name for name in CATEGORIES if name in table):
        table[name] = pd.Categorical(table[name].astype(str))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    split = split if unit == MILLI else []
    options = {"use_dictionary": [name for name in table if name not in split]}
    options["column_encoding"] = dict.fromkeys(split, "BYTE_STREAM_SPLIT") or None
    table.to_parquet(path, index=False, compression="zstd", compression_level=15, **options)


def write_csv(table: pd.DataFrame, path: Path | str) -> None:
    """Write a short table: no index, nine significant digits, Unix line ends."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, float_format="%.9g", lineterminator="\n")
