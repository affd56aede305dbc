"""One small interface to encoder-decoder and decoder-only language models: encode examples, logits at target positions.

An example is a pair (source, target) of token ids, each with its end of sequence; a source may be empty.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import transformers as hf
from torch import Tensor, nn

from unlearning.errors import StudyError

Encoded = tuple[list[int], list[int]]  # source ids, target ids

TOLERANCE = 1e-3  # nats per token, by which likelihoods may differ from those of a model's own logits
LOGITS = 2**21  # so many logits exist at a time: 512 target positions x 4096 words, 41 x 50 000


def encode(tokenizer: hf.PreTrainedTokenizerBase, sources: Iterable[str], targets: Iterable[str]) -> list[Encoded]:
    """Token ids of each (source, target), each ending with end-of-sequence; an empty source stays empty."""

    def ids(text: str) -> list[int]:
        return [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]

    return [(ids(s) if s else [], ids(t)) for s, t in zip(sources, targets, strict=True)]


class Batch(NamedTuple):
    """Padded examples. B examples, N target tokens in all, T input positions of the (decoder's) stream."""

    inputs: dict[str, Tensor]  # keyword arguments of the model, each (B, length)
    predicts: Tensor  # (B, T) bool, True at the positions whose output predicts a target token
    targets: Tensor  # (N,) the target tokens, example after example
    example: Tensor  # (N,) the row of the batch to which each target token belongs

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on a device."""
        inputs = {name: value.to(device) for name, value in self.inputs.items()}
        return Batch(inputs, *(tensor.to(device) for tensor in self[1:]))


def _pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    return nn.utils.rnn.pad_sequence([torch.tensor(r) for r in rows], batch_first=True, padding_value=value)


def collate(examples: Sequence[Encoded], config: hf.AutoConfig) -> Batch:
    """Pad encoded examples to a batch for a model with this config (right padding, masked)."""
    pad = config.pad_token_id or 0
    targets = [t for _, t in examples]
    # the output at a position predicts the next token: what goes in is the target shifted right by one
    if config.is_encoder_decoder:
        rows, shifted = [s for s, _ in examples], [[config.decoder_start_token_id, *t[:-1]] for t in targets]
        silent = [0] * len(targets)
    else:
        start = config.bos_token_id if config.bos_token_id is not None else config.eos_token_id
        rows, shifted = [(s or [start]) + t[:-1] for s, t in examples], None
        silent = [len(r) - len(t) for r, t in zip(rows, targets, strict=True)]
    inputs = {"input_ids": _pad(rows, pad), "attention_mask": _pad([[1] * len(r) for r in rows], 0)}
    if shifted:
        inputs["decoder_input_ids"] = _pad(shifted, pad)
    lengths = torch.tensor([len(t) for t in targets])
    return Batch(
        inputs=inputs,
        predicts=_pad([[0] * n + [1] * len(t) for n, t in zip(silent, targets, strict=True)], 0).bool(),
        targets=torch.tensor([token for t in targets for token in t]),
        example=torch.arange(len(targets)).repeat_interleave(lengths),
    )


def target_states(model: hf.PreTrainedModel, batch: Batch) -> Tensor:
    """What enters the output embeddings where target tokens are predicted, (N, width).

    Caught on its way, so that no batch x length x vocabulary ever exists.
    """
    caught = []

    def catch(_: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        caught.append(given[0][batch.predicts])
        return (given[0][:, :0],)  # nothing is left to project

    with model.get_output_embeddings().register_forward_pre_hook(catch):
        model(**batch.inputs, use_cache=False)
    return caught[0]


def logit_rows(model: hf.PreTrainedModel) -> int:
    """For how many target positions a model's logits are made at a time."""
    return max(1, LOGITS // model.get_output_embeddings().weight.shape[0])


def _pieces(model: hf.PreTrainedModel, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits (rows, vocabulary) at target positions, in float32, with the targets (rows,): a piece at a time."""
    project, rows, states = model.get_output_embeddings(), logit_rows(model), target_states(model, batch)
    for piece, targets in zip(states.split(rows), batch.targets.split(rows), strict=True):
        yield project(piece).float(), targets


def _most_likely(logits: Tensor, targets: Tensor) -> Tensor:
    logits = logits.detach()
    return logits.gather(-1, targets[:, None])[:, 0] >= logits.amax(-1)


def token_log_likelihoods(model: hf.PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """(N,) log-probabilities of target tokens, nats, differentiable; (N,) bool, whether no token is more likely."""
    # log p(y_t | y_<t, source) = −cross entropy of the logits at the position that predicts y_t
    values, correct = [], []
    for logits, targets in _pieces(model, batch.to(model.device)):
        values.append(-nn.functional.cross_entropy(logits, targets, reduction="none"))
        correct.append(_most_likely(logits, targets))
    return torch.cat(values), torch.cat(correct)


@torch.no_grad()
def token_moments(model: hf.PreTrainedModel, batch: Batch) -> Tensor:
    """(N, 4) of each target token: log-probability, 1.0 where no token is more likely, and of log p over the
    vocabulary its mean and sd under p, nats (what Min-K++ standardises by: Zhang et al. 2024)."""
    rows = []
    for logits, targets in _pieces(model, batch.to(model.device)):
        log_p = logits.log_softmax(-1)
        p, own = log_p.exp(), log_p.gather(-1, targets[:, None])[:, 0]
        mean = (p * log_p).sum(-1)
        sd = (p * (log_p - mean[:, None]).square()).sum(-1).sqrt()
        rows.append(torch.stack([own, _most_likely(logits, targets).float(), mean, sd], dim=1))
    return torch.cat(rows)


@torch.no_grad()
def check_likelihoods(model: hf.PreTrainedModel, name: object) -> None:
    """Compare likelihoods of a text and of its beginning with those of the model's own logits for the text.

    Raises StudyError, which names the model by `name`, where they differ: something is done to logits after the
    projection (a cap, a scale, a bias), or padding or later tokens have a say.
    """
    try:
        a, b, c, d, e = (model.get_output_embeddings().weight.shape[0] * i // 6 for i in range(1, 6))
        text, beginning = ([a, b], [c, d, e]), ([a, b], [c, d])
        found, _ = token_log_likelihoods(model, collate([text, beginning], model.config))
        batch = collate([text], model.config).to(model.device)
        logits = model(**batch.inputs, use_cache=False).logits[batch.predicts].float()
        own = logits.log_softmax(-1).gather(-1, batch.targets[:, None])[:, 0]
        difference = float((found - torch.cat([own, own[:2]])).abs().max())
    except Exception as error:  # models raise many kinds
        why = f"could not be compared with those of its own logits ({type(error).__name__})"
    else:
        if difference <= TOLERANCE:
            return
        why = f"differ from those of its own logits by up to {difference:.2g} nats per token"
    raise StudyError(f"{name}: likelihoods of the family {model.config.model_type!r} {why}; take another model.")


def sum_by_example(values: Tensor, batch: Batch) -> Tensor:
    """Sum (N,) token values to (B,) example values, on the device of the values."""
    zeros = torch.zeros(len(batch.predicts), dtype=values.dtype, device=values.device)
    return zeros.index_add(0, batch.example.to(values.device), values)


def new_t5(config: dict, *, vocabulary_size: int, dropout: float, seed: int) -> hf.PreTrainedModel:
    """A randomly initialised T5 (fp32) from a plain dict of `T5Config` arguments."""
    hf.set_seed(seed)
    special = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    config = hf.T5Config(vocab_size=vocabulary_size, dropout_rate=dropout, **special, **config)
    return hf.T5ForConditionalGeneration(config)


def load_model(folder: Path | str, *, dropout: float = 0.0) -> hf.PreTrainedModel:
    """Load fp32 weights (safetensors only) from a folder, as what its config says it is, and nothing but that.

    Raises StudyError: a weight is missing, unknown, of another shape, or not finite; or check_likelihoods does.
    """
    config = hf.AutoConfig.from_pretrained(folder)
    if hasattr(config, "dropout_rate"):
        config.dropout_rate = dropout
    if isinstance(config.eos_token_id, list):  # several that end a text: the first stands for them
        config.eos_token_id = config.eos_token_id[0]
    kind = hf.AutoModelForSeq2SeqLM if config.is_encoder_decoder else hf.AutoModelForCausalLM
    options = {"config": config, "dtype": torch.float32, "use_safetensors": True, "ignore_mismatched_sizes": True}
    model, report = kind.from_pretrained(folder, **options, output_loading_info=True)
    # the library would fill what is missing with random numbers
    found = {"missing": report["missing_keys"], "unknown": report["unexpected_keys"]}
    found["of another shape"] = {name for name, *_ in report["mismatched_keys"]}
    found["not finite"] = {name for name, p in model.named_parameters() if not torch.isfinite(p).all()}
    wrong = [f"{len(names)} weights are {what}, such as {min(names)}" for what, names in found.items() if names]
    if wrong:
        raise StudyError(f"{folder}: {'; '.join(wrong)}. Save the model again with model.save_pretrained(folder).")
    check_likelihoods(model.eval(), folder)
    return model


def save_model(model: hf.PreTrainedModel, folder: Path | str) -> None:
    """Write config and weights (safetensors)."""
    model.save_pretrained(folder, safe_serialization=True)
