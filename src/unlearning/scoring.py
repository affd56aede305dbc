"""Log-likelihoods, token accuracy and BLEU of a model on encoded examples."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import sacrebleu
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unlearning.models import Encoded, collate, sum_by_example, token_log_likelihoods


@dataclass(frozen=True)
class Scores:
    """One entry an example, shape (n,): log-likelihood in nats over target tokens (end of sequence included)."""

    log_likelihood: np.ndarray
    n_correct: np.ndarray
    n_tokens: np.ndarray

    @property
    def per_token(self) -> float:
        """Log-likelihood per target token of the whole set, nats per token."""
        return float(self.log_likelihood.sum() / self.n_tokens.sum())

    @property
    def token_accuracy(self) -> float:
        """Share of target tokens that are the most likely one under teacher forcing."""
        return float(self.n_correct.sum() / self.n_tokens.sum())


def padded_batches(order: np.ndarray, lengths: np.ndarray, *, budget: int) -> Iterator[np.ndarray]:
    """Cut `order` into batches of at most `budget` padded tokens.

    Args:
        order: (n,) row indices in the order in which they are to be taken.
        lengths: (rows, 2) source and target lengths of every row.
        budget: rows x (longest source + longest target) stays at or below it, but a batch holds one row at least.
    """
    start, longest = 0, np.zeros(2, dtype=int)
    for stop, row in enumerate(order):
        grown = np.maximum(longest, lengths[row])
        if stop > start and (stop - start + 1) * grown.sum() > budget:
            yield order[start:stop]
            start, grown = stop, lengths[row]
        longest = grown
    if len(order):
        yield order[start:]


def example_lengths(examples: Sequence[Encoded]) -> np.ndarray:
    """(n, 2) source and target lengths in tokens."""
    return np.array([(len(source), len(target)) for source, target in examples]).reshape(-1, 2)


@torch.no_grad()
def score(model: PreTrainedModel, examples: Sequence[Encoded], *, batch_tokens: int = 4096) -> Scores:
    """Score every example by teacher forcing; one forward pass gives both measures. Order is kept."""
    lengths = example_lengths(examples)
    log_likelihood = np.empty(len(examples), dtype=np.float32)
    n_correct = np.empty(len(examples), dtype=np.int32)
    by_length = np.argsort(lengths.sum(axis=1), kind="stable")
    for rows in padded_batches(by_length, lengths, budget=batch_tokens):
        batch = collate([examples[i] for i in rows], model.config)
        values, correct = token_log_likelihoods(model, batch)
        log_likelihood[rows] = sum_by_example(values, batch).numpy()
        n_correct[rows] = sum_by_example(correct.float(), batch).numpy()
    return Scores(log_likelihood, n_correct, lengths[:, 1])


def _words(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    end = tokenizer.eos_token_id
    ids = list(ids)
    ids = ids[: ids.index(end)] if end in ids else ids
    return tokenizer.decode([i for i in ids if i != tokenizer.pad_token_id])


@torch.no_grad()
def bleu(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Encoded],
    *,
    max_new_tokens: int,
    batch_size: int = 100,
) -> float:
    """Corpus BLEU (sacrebleu, 0 to 100) of greedy translations of an encoder-decoder model; NaN for others."""
    if not model.config.is_encoder_decoder:
        return float("nan")
    order = np.argsort([len(s) for s, _ in examples], kind="stable")
    hypotheses, references = [], []
    for start in range(0, len(order), batch_size):
        chunk = [examples[i] for i in order[start : start + batch_size]]
        inputs = collate(chunk, model.config).inputs
        out = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
        )
        hypotheses += [_words(tokenizer, row.tolist()[1:]) for row in out]
        references += [_words(tokenizer, target) for _, target in chunk]
    return float(sacrebleu.corpus_bleu(hypotheses, [references]).score)
