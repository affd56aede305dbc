"""Read and write files of one JSON object a line; every mistake is told with file, line and mend."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from unlearning.errors import StudyError


def read_jsonl(
    path: Path | str, *, required: Sequence[str], may_be_empty: Sequence[str] = ()
) -> list[tuple[int, dict[str, str]]]:
    """The objects of a JSONL file with their line numbers (from 1); blank lines are skipped.

    Args:
        path: the file, UTF-8.
        required: fields that each line must have, as strings with something in them.
        may_be_empty: those of them that may be the empty string (a decoder-only model's source).

    Raises:
        StudyError: no such file, undecodable bytes, not JSON, a field missing, empty or of another type, no line.
    """
    rows = []
    for number, line in enumerate(_lines(Path(path)), start=1):
        if line.strip():
            rows.append((number, _parse(line, f"{path}, line {number}", required, may_be_empty)))
    if not rows:
        raise StudyError(f"{path} is empty. Write one object a line: {_example(required)}")
    return rows


def read_examples(path: Path | str) -> list[tuple[int, dict[str, str]]]:
    """The lines of a user's forget set with their numbers: everything that can be checked without a corpus.

    Raises:
        StudyError: what `read_jsonl` finds, or an id that stands there twice.
    """
    rows = read_jsonl(path, required=["id", "source", "target"], may_be_empty=["source"])
    first: dict[str, int] = {}
    for number, row in rows:
        where = f"{path}, line {number}"
        if row["id"] in first:
            raise StudyError(f"{where}: the id '{row['id']}' stands in line {first[row['id']]} too. Rename one.")
        first[row["id"]] = number
        if not isinstance(row.get("origin", ""), str):
            raise StudyError(f"{where}: the field 'origin' is no string. Put it in double quotes.")
    return rows


def _lines(path: Path) -> list[str]:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise StudyError(f"{path}: there is no such file. Correct its path in params.yaml.") from None
    except OSError as error:
        raise StudyError(f"{path} cannot be read: {error.strerror}.") from None
    lines = []
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            lines.append(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            where = f"{path}, line {number}"
            raise StudyError(f"{where}: byte {error.start + 1} is not UTF-8. Save the file as UTF-8.") from None
    return lines


def _parse(line: str, where: str, required: Sequence[str], may_be_empty: Sequence[str]) -> dict[str, str]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", "too deeply nested")
        example = _example(required)
        raise StudyError(f"{where}: not JSON ({reason}). Write one object a line: {example}") from None
    if not isinstance(row, dict):
        raise StudyError(f"{where}: holds a {type(row).__name__}, not an object. Write {_example(required)}")
    for field in required:
        if field not in row:
            raise StudyError(f"{where}: the field '{field}' is missing. Write {_example(required)}")
        value = row[field]
        if not isinstance(value, str):
            kind = type(value).__name__
            raise StudyError(f"{where}: the field '{field}' is of type {kind}. Put it in double quotes.")
        if not value.strip() and field not in may_be_empty:
            raise StudyError(f"{where}: the field '{field}' is empty. Fill it or delete the line.")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise StudyError(f"{where}: the field '{field}' holds half a surrogate pair. Write the character itself.")
    return row


def _example(required: Sequence[str]) -> str:
    return "{" + ", ".join(f'"{field}": "…"' for field in required) + "}"


def write_jsonl(path: Path | str, rows: Iterable[Mapping[str, str]]) -> None:
    """Write one object a line, UTF-8, in the order given; same rows, same bytes."""
    text = "".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
