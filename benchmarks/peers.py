"""The same work as others write it: Hugging Face's Trainer, a plain loop, padding to a fixed length, full logits."""

import tempfile
from collections.abc import Callable, Sequence

import numpy as np
import sacrebleu
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainerCallback,
)

from benchmarks.clock import Span, now
from benchmarks.workloads import Workload
from unlearning.measure.models import Encoded

IGNORED = -100  # the label that Hugging Face's losses leave out
AT_ONCE = 64  # examples a batch of the peers' scoring, where an arm does not say otherwise


def pad(examples: Sequence[Encoded], *, width: int | None) -> dict[str, Tensor]:
    """Inputs of a Hugging Face model, padded to the longest of the batch or to `width`."""

    def side(rows: list[list[int]], value: int) -> Tensor:
        length = width or max(map(len, rows))
        return torch.tensor([row + [value] * (length - len(row)) for row in rows])

    sources, targets = [s for s, _ in examples], [t for _, t in examples]
    mask = side([[1] * len(s) for s in sources], 0)
    return {"input_ids": side(sources, 0), "attention_mask": mask, "labels": side(targets, IGNORED)}


def _to(device: torch.device, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in batch.items()}


def train_plain(
    model: PreTrainedModel,
    work: Workload,
    batches: Sequence[np.ndarray],
    *,
    width: int | None = None,
    after_step: Callable[[], None] | None = None,
) -> None:
    """The loop of a PyTorch tutorial."""
    s = work.training
    adam = {"lr": s["learning_rate"], "betas": tuple(s["betas"]), "eps": s["eps"], "weight_decay": s["weight_decay"]}
    optimizer = torch.optim.AdamW(model.parameters(), **adam)
    model.train()
    for rows in batches:
        inputs = _to(model.device, pad([work.train[i] for i in rows], width=width))
        loss = model(**inputs).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), s["clip_norm"])
        optimizer.step()
        if after_step:
            after_step()


class Watch(TrainerCallback):
    """When the trainer's loop began and ended (its set-up does not count); something to do after every step."""

    def __init__(self, after_step: Callable[[], None] | None = None):
        self.after_step, self.started, self.ended = after_step, 0.0, 0.0

    def on_train_begin(self, *_, **__) -> None:
        self.started = now()

    def on_step_end(self, *_, **__) -> None:
        if self.after_step:
            self.after_step()

    def on_train_end(self, *_, **__) -> None:
        self.ended = now()


class GivenBatches(Seq2SeqTrainer):
    """A trainer that takes the batches it is given. Only the gate needs it."""

    batches: Sequence[np.ndarray] = ()

    def get_train_dataloader(self) -> DataLoader:
        rows = [list(map(int, batch)) for batch in self.batches]
        return DataLoader(self.train_dataset, batch_sampler=rows, collate_fn=self.data_collator)


class AscentTrainer(Trainer):
    """Gradient ascent as it is usually written: the loss with a minus."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        loss = -outputs.loss
        return (loss, outputs) if return_outputs else loss


def trainer_arguments(block: dict, *, device: str, **more) -> Seq2SeqTrainingArguments:
    """The study's settings as the Trainer names them; what is not named stays at its default."""
    return Seq2SeqTrainingArguments(
        output_dir=tempfile.gettempdir(),
        learning_rate=block["learning_rate"],
        adam_beta1=block["betas"][0],
        adam_beta2=block["betas"][1],
        adam_epsilon=block["eps"],
        weight_decay=block["weight_decay"],
        max_grad_norm=block.get("clip_norm") or 0.0,
        lr_scheduler_type="constant",
        use_cpu=device == "cpu",
        dataloader_pin_memory=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **more,
    )


def _rows(examples: Sequence[Encoded]) -> list[dict[str, list[int]]]:
    return [{"input_ids": s, "attention_mask": [1] * len(s), "labels": t} for s, t in examples]


def train_trainer(
    model: PreTrainedModel,
    work: Workload,
    batches: Sequence[np.ndarray] | None = None,
    *,
    after_step: Callable[[], None] | None = None,
    **more,
) -> Watch:
    """`Seq2SeqTrainer` with dynamic padding, one epoch in its own order, or over given batches."""
    watch, size = Watch(after_step), work.batch_size
    more |= {"device": work.device, "num_train_epochs": 1, "per_device_train_batch_size": size}
    arguments = trainer_arguments(work.training, **more)
    collator = DataCollatorForSeq2Seq(work.load_tokenizer(), model=model)
    kind = Seq2SeqTrainer if batches is None else GivenBatches
    trainer = kind(
        model=model, args=arguments, train_dataset=_rows(work.train), data_collator=collator, callbacks=[watch]
    )
    trainer.remove_callback(PrinterCallback)
    if batches is not None:
        trainer.batches = batches
    trainer.train()
    return watch


def unlearn_trainer(
    model: PreTrainedModel,
    work: Workload,
    *,
    fixed: bool = True,
    each: Callable[[Tensor], None] | None = None,
    **more,
) -> Span:
    """`Trainer` on minus the loss, whole forget set in each update; after each, forget set and held-out are scored.

    All is padded to the same width, or (`fixed` is False) to the longest of a batch, which is eight where it is scored.
    """
    batching = {"width": work.width} if fixed else {"width": None, "size": 8}
    scored = full_batches([*work.forget, *work.heldout[: work.watched]], **batching)

    def measure() -> None:
        model.eval()
        found = full_log_likelihoods(model, scored)
        model.train()
        if each:
            each(found[: len(work.forget)])

    watch, whole = Watch(measure), len(work.forget)
    more |= {"device": work.device, "max_steps": work.steps, "per_device_train_batch_size": whole}
    arguments = trainer_arguments(work.method, **more)
    padded = {"padding": "max_length", "max_length": work.width} if fixed else {"padding": True}
    collator = DataCollatorForSeq2Seq(work.load_tokenizer(), model=model, **padded)
    trainer = AscentTrainer(
        model=model, args=arguments, train_dataset=_rows(work.forget), data_collator=collator, callbacks=[watch]
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return Span(watch.started, watch.ended, work.steps)


def full_batches(examples: Sequence[Encoded], *, width: int | None, size: int = AT_ONCE) -> list[dict[str, Tensor]]:
    """Batches of so many examples in the order given."""
    return [pad(examples[i : i + size], width=width) for i in range(0, len(examples), size)]


@torch.no_grad()
def full_log_likelihoods(model: PreTrainedModel, batches: Sequence[dict[str, Tensor]]) -> Tensor:
    """(n,) log-likelihoods in nats from logits of batch x length x vocabulary."""
    values = []
    for batch in (_to(model.device, batch) for batch in batches):
        labels = batch["labels"]
        shifted = model.prepare_decoder_input_ids_from_labels(labels)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        logits = model(**inputs, decoder_input_ids=shifted).logits
        by_token = logits.float().log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        values.append(by_token.masked_fill(labels == IGNORED, 0).sum(-1))
    return torch.cat(values).cpu()


@torch.no_grad()
def bleu_in_order(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Encoded],
    *,
    size: int,
    max_new_tokens: int,
) -> float:
    """Corpus BLEU of greedy translations, so many at a time in the order given."""
    hypotheses: list[str] = []
    for batch in full_batches(examples, width=None, size=size):
        inputs = _to(model.device, {name: batch[name] for name in ("input_ids", "attention_mask")})
        out = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1)
        hypotheses += tokenizer.batch_decode(out, skip_special_tokens=True)
    references = tokenizer.batch_decode([target for _, target in examples], skip_special_tokens=True)
    return float(sacrebleu.corpus_bleu(hypotheses, [references]).score)
