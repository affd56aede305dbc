#!/bin/sh
# transformers 5.23.0, Trainer with T5: gradient accumulation over N micro-batches takes a step N times too long.
#
# Guess before the run: four micro-batches of two examples give the step (and the logged loss) of one batch of eight,
# since the Trainer divides by the number of micro-batches or of tokens.
# Seen: GPT-2 does; T5 takes a step of 4.00 times the length, and the logged loss is 4.00 times as large. The Trainer
# leaves the division to the model (`model_accepts_loss_kwargs` is True, since T5's forward takes **kwargs), and T5's
# forward does not divide by `num_items_in_batch`. With Adam the length of a single step hides it; clipping, weight
# decay relative to it, and the loss in the log do not.
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3.11} -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q transformers==5.23.0 accelerate==1.15.0
cat > "$folder/try.py" <<'PYTHON'
import sys
import tempfile

import torch
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration, Trainer, TrainingArguments

T5 = T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0.0,
              pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)
GPT2 = GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=16, resid_pdrop=0.0, embd_pdrop=0.0,
                  attn_pdrop=0.0, bos_token_id=1, eos_token_id=1)
draw = torch.Generator().manual_seed(1)
rows = [{name: torch.randint(2, 50, (6,), generator=draw) for name in ("input_ids", "labels")} for _ in range(8)]


def one_step(make, config, size, micro_batches):
    torch.manual_seed(0)
    model = make(config)
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            out, per_device_train_batch_size=size, gradient_accumulation_steps=micro_batches, max_steps=1, optim="sgd",
            learning_rate=1e-3, lr_scheduler_type="constant", max_grad_norm=0.0, use_cpu=True, save_strategy="no",
            report_to=[], disable_tqdm=True, seed=0)
        loss = Trainer(model=model, args=arguments, train_dataset=rows).train().training_loss
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    return float((after - before).norm()), loss


found = {}
for name, make, config in ("T5", T5ForConditionalGeneration, T5), ("GPT-2", GPT2LMHeadModel, GPT2):
    whole, parts = one_step(make, config, 8, 1), one_step(make, config, 2, 4)
    found[name] = [round(b / a, 2) for a, b in zip(whole, parts)]
    print(f"{name}: step {found[name][0]:.2f} times as long, loss in the log {found[name][1]:.2f} times as large")
sys.exit(found != {"T5": [4.0, 4.0], "GPT-2": [1.0, 1.0]})
PYTHON
"$folder/venv/bin/python" "$folder/try.py" > "$folder/said" 2> "$folder/errors" || { cat "$folder/said" "$folder/errors"; echo "no longer so"; exit 1; }
grep "times as long" "$folder/said"
