"""How fast the study's code is, against what others would write for the same work. `make bench` runs it."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is fetched; read when transformers is imported
