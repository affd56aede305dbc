"""The same work as others write it: Hugging Face's Trainer, a plain loop, padding to a fixed length, full logits.

Each function sets up and returns what is timed, with the same results as its namesake in ours.py.
"""

import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import sacrebleu
import torch
import transformers as hf
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from benchmarks.clock import Span, Timed, now, timed
from benchmarks.ours import Hook
from benchmarks.work import SEED, Work, tokens
from unlearning.measure.models import Encoded

IGNORED = -100  # the label that Hugging Face's losses leave out


def pad(examples: Sequence[Encoded], *, size: int, width: int | None, device: str) -> list[dict[str, Tensor]]:
    """Inputs of a Hugging Face model, `size` at a time in the order given, padded to `width` or to the longest."""

    def side(rows: Sequence[list[int]], value: int) -> Tensor:
        length = width or max(map(len, rows))
        return torch.tensor([row + [value] * (length - len(row)) for row in rows], device=device)

    batches = []
    for start in range(0, len(examples), size):
        sources, targets = zip(*examples[start : start + size], strict=True)
        mask = side([[1] * len(s) for s in sources], 0)
        batches.append({"input_ids": side(sources, 0), "attention_mask": mask, "labels": side(targets, IGNORED)})
    return batches


@torch.no_grad()
def full_log_likelihoods(model: PreTrainedModel, batches: Sequence[dict[str, Tensor]]) -> Tensor:
    """(n,) log-likelihoods in nats from logits of batch x length x vocabulary."""
    values = []
    for batch in batches:
        labels = batch["labels"]
        shifted = model.prepare_decoder_input_ids_from_labels(labels)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        logits = model(**inputs, decoder_input_ids=shifted).logits
        by_token = logits.float().log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        values.append(by_token.masked_fill(labels == IGNORED, 0).sum(-1))
    return torch.cat(values).cpu()


def train_plain(work: Work, *, fixed: bool, epochs: int = 0, hook: Hook = None) -> Timed:
    """The loop of a PyTorch tutorial, one pass in its own order; for the gate `epochs` over the batches of `fit`."""
    s, model, width = work.training, work.new_model(), work.width if fixed else None
    order = np.random.default_rng(SEED).permutation(len(work.train))
    own = [order[i : i + work.batch_size] for i in range(0, len(order), work.batch_size)]
    batches = work.batches(epochs) if epochs else own

    def action() -> None:
        adam = {"lr": s["learning_rate"], "betas": s["betas"], "eps": s["eps"], "weight_decay": s["weight_decay"]}
        optimizer = torch.optim.AdamW(model.parameters(), **adam)
        model.train()
        for rows in batches:
            examples = [work.train[i] for i in rows]
            (inputs,) = pad(examples, size=len(rows), width=width, device=work.device)
            loss = model(**inputs).loss
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), s["clip_norm"])
            optimizer.step()
            if hook:
                hook(model)

    return timed(tokens(work.train), action)


class Watch(hf.TrainerCallback):
    """When the Trainer's loop began and ended (its set-up does not count); something to do after every step."""

    def __init__(self, hook: Hook):
        self.hook, self.started, self.ended = hook, 0.0, 0.0

    def on_train_begin(self, *_, **__) -> None:
        self.started = now()

    def on_step_end(self, *_, model: PreTrainedModel, **__) -> None:
        if self.hook:
            self.hook(model)

    def on_train_end(self, *_, **__) -> None:
        self.ended = now()

    def timed(self, made: hf.Trainer, units: float, result: Any = None) -> Timed:
        """What takes the time of the loop."""
        return lambda: made.train() and Span(self.started, self.ended, units, result)


class AscentTrainer(hf.Trainer):
    """Gradient ascent as it is usually written: the loss with a minus."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        return (-outputs.loss, outputs) if return_outputs else -outputs.loss


def trainer(kind: type[hf.Trainer], work: Work, watch: Watch, *, padding: dict, precision: str, **more) -> hf.Trainer:
    """A Trainer with the study's settings as it names them; what is not named stays at its default."""
    if kind is AscentTrainer:
        model, s, examples = work.trained_model(), work.ascent, work.forget
    else:
        model, s, examples = work.new_model(), work.training, work.train
    more |= {"learning_rate": s["learning_rate"], "weight_decay": s["weight_decay"], "lr_scheduler_type": "constant"}
    more |= {"adam_beta1": s["betas"][0], "adam_beta2": s["betas"][1], "adam_epsilon": s["eps"]}
    more |= {"max_grad_norm": s.get("clip_norm") or 0.0, "bf16": precision == "bfloat16"}
    more |= {"use_cpu": work.device == "cpu", "dataloader_pin_memory": False}
    more |= {"output_dir": tempfile.gettempdir(), "save_strategy": "no", "report_to": "none", "disable_tqdm": True}
    rows = [{"input_ids": s, "attention_mask": [1] * len(s), "labels": t} for s, t in examples]
    collator = hf.DataCollatorForSeq2Seq(work.load_tokenizer(), model=model, **padding)
    parts = {"args": hf.Seq2SeqTrainingArguments(**more), "data_collator": collator, "callbacks": [watch]}
    made = kind(model=model, train_dataset=rows, **parts)
    made.remove_callback(hf.PrinterCallback)
    return made


def train_trainer(work: Work, *, epochs: int = 0, hook: Hook = None, precision: str = "float32", **more: Any) -> Timed:
    """`Seq2SeqTrainer`, dynamic padding, one pass in its own order; for the gate `epochs` over the batches of `fit`."""
    watch, more = Watch(hook), more | {"num_train_epochs": 1, "per_device_train_batch_size": work.batch_size}
    made = trainer(hf.Seq2SeqTrainer, work, watch, padding={}, precision=precision, **more)
    if epochs:
        given = {"batch_sampler": [batch.tolist() for batch in work.batches(epochs)], "collate_fn": made.data_collator}
        made.get_train_dataloader = lambda: DataLoader(made.train_dataset, **given)

    return watch.timed(made, tokens(work.train))


def unlearn_trainer(work: Work, *, fixed: bool = True, precision: str = "float32") -> Timed:
    """`Trainer` on minus the loss, whole forget set in each update; after each, it and held-out examples are scored."""
    at_once = {"size": 64, "width": work.width} if fixed else {"size": 8, "width": None}
    padding = {"padding": "max_length", "max_length": work.width} if fixed else {"padding": True}
    scored = pad([*work.forget, *work.heldout[: work.watched]], **at_once, device=work.device)
    found: list[float] = []

    def score(model: PreTrainedModel) -> None:
        model.eval()
        found.append(float(full_log_likelihoods(model, scored)[: len(work.forget)].double().sum()))
        model.train()

    watch, more = Watch(score), {"max_steps": work.steps, "per_device_train_batch_size": len(work.forget)}
    made = trainer(AscentTrainer, work, watch, padding=padding, precision=precision, **more)
    return watch.timed(made, work.steps, found)


def score_full(work: Work, *, size: int = 64, fixed: bool = True, vocabulary: int = 0) -> Timed:
    """Full logits of so many examples at a time, padded to a fixed width or to the longest."""
    model = work.new_model(vocabulary).eval() if vocabulary else work.trained_model()
    padded = {"size": size, "width": work.width if fixed else None, "device": work.device}
    return timed(len(work.heldout), lambda: full_log_likelihoods(model, pad(work.heldout, **padded)).numpy())


def translate_in_order(work: Work, *, size: int) -> Timed:
    """BLEU of greedy translations, so many at a time in the order given."""
    model, tokenizer, examples = work.trained_model(), work.load_tokenizer(), work.heldout[: work.decoded]

    @torch.no_grad()
    def action() -> float:
        hypotheses: list[str] = []
        for batch in pad(examples, size=size, width=None, device=work.device):
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
            out = model.generate(**inputs, max_new_tokens=work.width, do_sample=False, num_beams=1)
            hypotheses += tokenizer.batch_decode(out, skip_special_tokens=True)
        references = tokenizer.batch_decode([target for _, target in examples], skip_special_tokens=True)
        return float(sacrebleu.corpus_bleu(hypotheses, [references]).score)

    return timed(len(examples), action)
