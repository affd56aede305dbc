"""No result is lost to a run that fails: outputs are kept aside while a stage runs, and put back if it fails."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path


@contextlib.contextmanager
def restored_on_failure(paths: Sequence[Path]) -> Iterator[None]:
    """Keep copies of files and folders; put them back when the block is left by an exception (or Ctrl-C)."""
    with tempfile.TemporaryDirectory(prefix="unlearning-") as folder:
        kept = {path: Path(folder) / str(number) for number, path in enumerate(paths) if path.exists()}
        for path, copy in kept.items():
            (shutil.copytree if path.is_dir() else shutil.copy2)(path, copy)
        try:
            yield
        except BaseException:
            for path in paths:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            for path, copy in kept.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(copy, path)
            raise
