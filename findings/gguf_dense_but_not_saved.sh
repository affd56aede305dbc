#!/bin/sh
# transformers 5.23.0 with gguf 0.19.0: a model read from GGUF is dense float32, and yet cannot be saved.
#
# Guess before the run: `from_pretrained(folder, gguf_file=…)` de-quantizes (its progress bar says so), so that what comes
# back is an ordinary model, which save_pretrained writes as safetensors.
# Seen: its weights are ordinary float32 parameters with gradients, but the model stays flagged as quantized
# (`is_quantized` is True), and save_pretrained raises ValueError: "quantized with gguf and is not serializable".
# With `quantization_config=GgufConfig(dequantize=True)` the same file gives the same weights, and they are saved.
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3.11} -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q transformers==5.23.0 gguf==0.19.0 accelerate==1.15.0
cat > "$folder/try.py" <<'PYTHON'
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM, GgufConfig

folder = tempfile.mkdtemp()
width, inner, words, draw = 64, 128, 300, np.random.default_rng(0)
file = gguf.GGUFWriter(str(Path(folder, "tiny.gguf")), "llama")
for add, value in {"block_count": 1, "context_length": 64, "embedding_length": width, "feed_forward_length": inner,
                   "head_count": 2, "head_count_kv": 2, "layer_norm_rms_eps": 1e-5, "rope_dimension_count": 32,
                   "vocab_size": words, "file_type": 7, "tokenizer_model": "gpt2", "bos_token_id": 1,
                   "eos_token_id": 2}.items():
    getattr(file, f"add_{add}")(value)
file.add_token_list([f"<{i}>" for i in range(words)])
file.add_token_types([1] * words)
file.add_token_merges(["< 1"])
square = (width, width)
shapes = {"token_embd": (words, width), "output_norm": (width,), "blk.0.attn_norm": (width,), "blk.0.ffn_norm": (width,)}
shapes |= {f"blk.0.attn_{name}": square for name in ("q", "k", "v", "output")}
shapes |= {"blk.0.ffn_gate": (inner, width), "blk.0.ffn_up": (inner, width), "blk.0.ffn_down": (width, inner)}
kind = gguf.GGMLQuantizationType.Q8_0
for name, shape in shapes.items():
    values = draw.normal(0, 0.02, shape).astype(np.float32)
    matrix = len(shape) == 2
    file.add_tensor(f"{name}.weight", gguf.quants.quantize(values, kind) if matrix else values, raw_dtype=kind if matrix else None)
file.write_header_to_file()
file.write_kv_data_to_file()
file.write_tensors_to_file()
file.close()

seen, weights = {}, {}
for name, more in {"as it is": {}, "dequantize=True": {"quantization_config": GgufConfig(dequantize=True)}}.items():
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file="tiny.gguf", dtype=torch.float32, **more)
    weight = model.model.layers[0].self_attn.q_proj.weight
    weights[name] = weight.detach()
    try:
        model.save_pretrained(Path(folder, "saved"))
        saved = "saved"
    except ValueError as error:
        saved = "not serializable" if "not serializable" in str(error) else str(error)
    seen[name] = (str(weight.dtype), weight.requires_grad, bool(getattr(model, "is_quantized", False)), saved)
    print(f"{name}: {seen[name]}")
same = torch.equal(*weights.values())
print("same weights:", same)
expected = {"as it is": ("torch.float32", True, True, "not serializable"),
            "dequantize=True": ("torch.float32", True, False, "saved")}
sys.exit(seen != expected or not same)
PYTHON
"$folder/venv/bin/python" "$folder/try.py" > "$folder/said" 2> "$folder/errors" || { cat "$folder/said" "$folder/errors"; echo "no longer so"; exit 1; }
cat "$folder/said"
