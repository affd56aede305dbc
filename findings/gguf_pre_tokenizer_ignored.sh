#!/bin/sh
# transformers 5.23.0 with gguf 0.19.0: a tokenizer read from GGUF ignores the pre-tokenizer that the file names.
#
# Guess before the run: `tokenizer.ggml.pre` is honoured. It says "smollm" here, whose pre-tokenizer takes digits one by
# one, so that "12" is two tokens whatever the merges are.
# Seen: the pre-tokenizer is plain ByteLevel for "smollm" as for "gpt-2"; with a merge of "1" and "2" in the file, "12" is
# one token, and two blanks before a digit are cut otherwise than by the model's own tokenizer. Nothing is said.
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3.11} -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q transformers==5.23.0 gguf==0.19.0
cat > "$folder/try.py" <<'PYTHON'
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

seen = {}
for pre in ("smollm", "gpt-2"):
    folder = tempfile.mkdtemp()
    letters = list(bytes_to_unicode().values())
    file = gguf.GGUFWriter(str(Path(folder, "tiny.gguf")), "llama")
    for add, value in {"block_count": 1, "context_length": 64, "embedding_length": 64, "feed_forward_length": 64,
                       "head_count": 2, "head_count_kv": 2, "layer_norm_rms_eps": 1e-5, "vocab_size": 257,
                       "tokenizer_model": "gpt2", "tokenizer_pre": pre, "bos_token_id": 1, "eos_token_id": 2}.items():
        getattr(file, f"add_{add}")(value)
    file.add_token_list([*letters, "12"])
    file.add_token_types([1] * 257)
    file.add_token_merges(["1 2"])
    file.add_tensor("token_embd.weight", np.zeros((257, 64), dtype=np.float32))
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file="tiny.gguf")
    seen[pre] = (type(tokenizer.backend_tokenizer.pre_tokenizer).__name__, tokenizer.tokenize("12"))
    print(f"{pre}: {seen[pre]}")
sys.exit(seen != dict.fromkeys(("smollm", "gpt-2"), ("ByteLevel", ["12"])))
PYTHON
"$folder/venv/bin/python" "$folder/try.py" > "$folder/said" 2> "$folder/errors" || { cat "$folder/said" "$folder/errors"; echo "no longer so"; exit 1; }
cat "$folder/said"
