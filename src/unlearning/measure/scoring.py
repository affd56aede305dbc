"""Log-likelihoods, token accuracy and BLEU of a model on encoded examples."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import sacrebleu
import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from unlearning.measure.models import Batch, Encoded, collate, sum_by_example, token_log_likelihoods, token_moments

TRANSLATED = 200  # sentences at a time
SHORT = 16  # tokens of a translation after which the unfinished ones go on by themselves
BATCH_TOKENS = 1024  # padded tokens of a scoring batch: small enough for the caches, large enough for the matrices


class Scores(NamedTuple):
    """One entry an example, shape (n,): log-likelihood in nats over target tokens (end of sequence included)."""

    log_likelihood: np.ndarray
    n_correct: np.ndarray
    n_tokens: np.ndarray

    def first(self, n: int) -> "Scores":
        """Of the first `n` examples (all, when there are fewer)."""
        return Scores(*(values[:n] for values in self))

    @property
    def per_token(self) -> float:
        """Log-likelihood per target token of the whole set, nats per token."""
        return float(self.log_likelihood.sum() / self.n_tokens.sum())

    @property
    def token_accuracy(self) -> float:
        """Share of target tokens that are the most likely one under teacher forcing."""
        return float(self.n_correct.sum() / self.n_tokens.sum())


def padded_batches(order: np.ndarray, lengths: np.ndarray, *, budget: int) -> Iterator[np.ndarray]:
    """Cut `order`, (n,) row indices, into batches of rows x (longest source + longest target) <= budget, or one row.

    lengths: (rows, 2) source and target lengths of every row.
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


def by_length(lengths: np.ndarray) -> np.ndarray:
    """(n,) row indices in an order whose batches pad little: by the longer side, then by both together.

    lengths: (n, 2) source and target lengths.
    """
    return np.lexsort((lengths.sum(axis=1), lengths.max(axis=1)))


def example_lengths(examples: Sequence[Encoded]) -> np.ndarray:
    """(n, 2) source and target lengths in tokens."""
    return np.array([(len(source), len(target)) for source, target in examples]).reshape(-1, 2)


class Prepared(NamedTuple):
    """Examples collated once, for as many passes as there will be: batches of like length, hence of little padding."""

    batches: list[Batch]  # the examples in order of length
    place: Tensor  # (n,) where each example stands in that order
    n_tokens: np.ndarray  # (n,) target tokens of each example


def prepare(examples: Sequence[Encoded], config: PretrainedConfig, *, batch_tokens: int = BATCH_TOKENS) -> Prepared:
    """Sort by length, cut into batches of at most `batch_tokens` padded tokens, collate for a model of this config."""
    lengths = example_lengths(examples)
    order = by_length(lengths)
    parts = padded_batches(order, lengths, budget=batch_tokens)
    batches = [collate([examples[i] for i in rows], config) for rows in parts]
    return Prepared(batches, torch.from_numpy(np.argsort(order)), lengths[:, 1])


def log_likelihoods(model: PreTrainedModel, examples: Prepared) -> tuple[Tensor, Tensor]:
    """(n,) log-likelihoods, nats, differentiable, and (n,) counts of most likely target tokens, in their order."""
    values, counts = [], []
    for batch in examples.batches:
        tokens, correct = token_log_likelihoods(model, batch)
        values.append(sum_by_example(tokens, batch))  # ℓ(x) = Σ_t log p(y_t | y_<t, source)
        counts.append(sum_by_example(correct.float(), batch))
    place = examples.place.to(values[0].device)
    return torch.cat(values)[place], torch.cat(counts)[place]


@torch.no_grad()
def score(
    model: PreTrainedModel, examples: Sequence[Encoded] | Prepared, *, batch_tokens: int = BATCH_TOKENS
) -> Scores:
    """Score every example by teacher forcing; one forward pass gives both measures. Order is kept."""
    ready = examples if isinstance(examples, Prepared) else prepare(examples, model.config, batch_tokens=batch_tokens)
    if not len(ready.n_tokens):
        return Scores(np.empty(0, np.float32), np.empty(0, np.int32), ready.n_tokens)
    values, counts = log_likelihoods(model, ready)
    return Scores(values.cpu().numpy(), counts.cpu().numpy().astype(np.int32), ready.n_tokens)


@torch.no_grad()
def score_tokens(model: PreTrainedModel, examples: Prepared) -> np.ndarray:
    """(N, 4) of all target tokens, example after example in their order, columns as in `models.token_moments`."""
    found = [token_moments(model, batch).cpu().numpy() for batch in examples.batches]
    counts = examples.n_tokens[np.argsort(examples.place.numpy())]  # of the examples as the batches hold them
    by_example = np.split(np.concatenate(found), np.cumsum(counts)[:-1])
    return np.concatenate([by_example[i] for i in examples.place])


def _words(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    ids = ids[: [*ids, tokenizer.eos_token_id].index(tokenizer.eos_token_id)]
    return tokenizer.decode([i for i in ids if i != tokenizer.pad_token_id])


def _greedy(model: PreTrainedModel, inputs: dict[str, Tensor], *, max_new_tokens: int) -> Tensor:
    return model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1)


@torch.no_grad()
def bleu(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Encoded],
    *,
    max_new_tokens: int,
    words: str = "13a",
) -> float:
    """Corpus BLEU (sacrebleu, 0 to 100) of greedy translations of an encoder-decoder model; NaN for others.

    words: the tokenizer of sacrebleu that cuts a translation into words (`StudyData.bleu_tokenizer`).
    """
    if not model.config.is_encoder_decoder:
        return float("nan")
    order = np.argsort([len(s) for s, _ in examples], kind="stable")
    hypotheses, references = [], []
    for start in range(0, len(order), TRANSLATED):
        chunk = [examples[i] for i in order[start : start + TRANSLATED]]
        inputs = collate(chunk, model.config).to(model.device).inputs
        inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        out = _greedy(model, inputs, max_new_tokens=min(SHORT, max_new_tokens))
        said = [row.tolist() for row in out]
        open_ = [i for i, row in enumerate(said) if model.config.eos_token_id not in row[1:]]
        if open_ and max_new_tokens > SHORT:
            begun = {name: value[open_] for name, value in inputs.items()} | {"decoder_input_ids": out[open_]}
            longer = _greedy(model, begun, max_new_tokens=max_new_tokens - SHORT)
            for i, row in zip(open_, longer, strict=True):
                said[i] = row.tolist()
        hypotheses += [_words(tokenizer, row[1:]) for row in said]  # the first is the start token
        references += [_words(tokenizer, target) for _, target in chunk]
    return float(sacrebleu.corpus_bleu(hypotheses, [references], tokenize=words).score)
