"""What runs the study: settings, stages, notebooks, tasks side by side, and the checks of what came out."""

import sys
from typing import Any

from unlearning.errors import StudyError

# jsonschema, which checks notebooks, would compile a grammar of addresses that none needs: two seconds a stage
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


def _tell_in_a_sentence(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """A mistake of the user's ends a command with one message and no traceback."""
    print(error, file=sys.stderr) if kind is StudyError else sys.__excepthook__(kind, error, trace)


sys.excepthook = _tell_in_a_sentence
