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
            _copy(path, copy)
        try:
            yield
        except BaseException:
            for path in paths:
                _remove(path)
            for path, copy in kept.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                _copy(copy, path)
            raise


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def written_before(moment: float, paths: Sequence[Path]) -> list[Path]:
    """Those of some files and folders that hold a file older than `moment` (seconds since the epoch), or nothing."""

    def old(path: Path) -> bool:
        files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
        return not files or any(not f.exists() or f.stat().st_mtime < moment for f in files)

    return [path for path in paths if old(path)]
