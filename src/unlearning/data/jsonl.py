"""Read and write files of one JSON object a line; every mistake is told with file, line and mend."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unlearning.errors import StudyError

Row = dict[str, Any]


def read_jsonl(
    path: Path | str, *, required: Sequence[str], may_be_empty: Sequence[str] = (), others: Sequence[str] | None = None
) -> list[tuple[int, Row]]:
    """The objects of a JSONL file with their line numbers (from 1); blank lines are skipped.

    required: fields that each line must have, as strings with something in them, but for those that `may_be_empty` (a
    decoder-only model's source). others: fields that a line may have besides, as strings; None: any.
    Raises StudyError: no such file, not UTF-8, not JSON, no line; a field missing, empty, unknown, no string, or twice.
    """
    rows = []
    for number, row in objects(path, required):
        for mistake in mistakes_in(row, required, may_be_empty, others):
            raise StudyError(f"{path}, line {number}: {mistake}")
        rows.append((number, row))
    if not rows:
        raise StudyError(f"{path} is empty. Write one object a line: {example_of(required)}")
    return rows


def objects(path: Path | str, required: Sequence[str]) -> Iterator[tuple[int, Any]]:
    """Line number and value of each line of a JSONL file that is not blank, as `json` reads it.

    In place of a line that is wrong stands a StudyError, which `mistakes_in` tells. Raised: what `text_lines` raises.
    """
    for number, line in enumerate(text_lines(Path(path)), start=1):
        if line.strip():
            try:
                row = json.loads(line, object_pairs_hook=once)
            except StudyError as error:
                row = error
            except (ValueError, RecursionError) as error:
                reason = getattr(error, "msg", "too deeply nested")
                row = StudyError(f"not JSON ({reason}). Write one object a line: {example_of(required)}")
            yield number, row


def example_of(required: Sequence[str]) -> str:
    """A line with these fields, as messages show it."""
    return "{" + ", ".join(f'"{field}": "…"' for field in required) + "}"


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a file without a byte-order mark. Raises StudyError: no such file, not readable, not UTF-8."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise StudyError(f"{path}: there is no such file. Correct its path in params.yaml.") from None
    except OSError as error:
        raise StudyError(f"{path} cannot be read: {error.strerror}.") from None
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            where = f"{path}, line {number}: byte {error.start + 1}"
            raise StudyError(f"{where} is not UTF-8. Save the file as UTF-8.") from None


def once(pairs: list[tuple[str, Any]]) -> Row:
    """A JSON object whose fields each stand there once; else StudyError."""
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:  # JSON would take the last of them without a word
            raise StudyError(f"the field '{name}' stands there twice. Take one out.")
    return dict(pairs)


def mistakes_in(
    row: Any, required: Sequence[str], may_be_empty: Sequence[str] = (), others: Sequence[str] | None = None
) -> Iterator[str]:
    """What is wrong with a row, a sentence each, by the rules of `read_jsonl`."""
    if not isinstance(row, dict):
        wrong = f"holds a {type(row).__name__}, not an object. Write {example_of(required)}"
        yield str(row) if isinstance(row, StudyError) else wrong
        return
    for field in (*required, *(field for field in others or () if field in row)):
        value = row.get(field)
        if field not in row:
            yield f"the field '{field}' is missing. Write {example_of(required)}"
        elif not isinstance(value, str):
            yield f"the field '{field}' is of type {type(value).__name__}. Put it in double quotes."
        elif not value.strip() and field not in may_be_empty:
            yield f"the field '{field}' is empty. Fill it or delete the line."
        elif any("\ud800" <= character <= "\udfff" for character in value):
            yield f"the field '{field}' holds half a surrogate pair. Write the character itself."
    unknown = [field for field in row if others is not None and field not in (*required, *others)]
    if unknown:
        yield f"the field '{unknown[0]}' is unknown. Take it out; known are {', '.join((*required, *others))}."


def write_jsonl(path: Path | str, rows: Iterable[Mapping[str, str]]) -> None:
    """Write one object a line, UTF-8, in the order given; same rows, same bytes."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows)
    Path(path).write_text(text, encoding="utf-8", newline="\n")
