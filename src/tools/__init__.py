"""What runs the study: settings, stages, notebooks, tasks side by side, and the checks of what came out."""

import re
import sys
from pathlib import Path
from typing import Any

from unlearning.errors import StudyError

# jsonschema, which checks notebooks, would compile a grammar of addresses that none needs: two seconds a stage
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


_FREE, _OPEN = "Free some space", "Make it readable and writable"
_CLOSED = {"No space left on device": _FREE, "Disk quota exceeded": _FREE}
_CLOSED |= {"Read-only file system": _OPEN, "Permission denied": _OPEN}


def cannot_write(error: object, where: Path | str) -> str:
    """What an error says of a full disk or a folder that may not be written to, in one sentence; else nothing.

    Known by the system's words, which libraries repeat in errors of their own. where: the folder, if it names no file.
    """
    for reason, mend in _CLOSED.items():
        if reason in str(error):
            file = re.search(r"'([^']+)'", str(error))
            folder = (Path(file[1]).parent if file else Path(where)).resolve()
            return f"{folder}: {reason}. {mend}, then run again: finished models and ascents are kept."
    return ""


def _tell_in_a_sentence(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """A mistake of the user's, or of the disk, ends a command with one message and no traceback."""
    told = str(error) if kind is StudyError else issubclass(kind, OSError) and cannot_write(error, ".")
    print(told, file=sys.stderr) if told else sys.__excepthook__(kind, error, trace)


sys.excepthook = _tell_in_a_sentence
