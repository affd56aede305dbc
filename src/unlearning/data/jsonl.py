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

    Args:
        path: the file, UTF-8.
        required: fields that each line must have, as strings with something in them.
        may_be_empty: those of them that may be the empty string (a decoder-only model's source).
        others: fields that a line may have besides, as strings; None: any.

    Raises:
        StudyError: no such file, undecodable bytes, not JSON, no line; a field missing, empty, unknown, of another
            type, or there twice.
    """
    rows = []
    for number, line in enumerate(_lines(Path(path)), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            row = _object(line, where, required)
            for wrong in _field_mistakes(row, required, may_be_empty, others):
                raise StudyError(f"{where}: the field {wrong}")
            rows.append((number, row))
    if not rows:
        raise StudyError(f"{path} is empty. Write one object a line: {_example(required)}")
    return rows


def read_examples(path: Path | str) -> list[tuple[int, Row]]:
    """The lines of a user's forget set with their numbers: everything that can be checked without a corpus.

    Raises:
        StudyError: what `read_jsonl` finds, or an id or an example that stands there twice.
    """
    rows = read_jsonl(path, required=["id", "source", "target"], may_be_empty=["source"], others=["origin"])
    first: dict[Any, int] = {}
    for number, row in rows:
        for what, key in (("id", row["id"]), ("example", (row["source"], row["target"]))):
            if first.setdefault(key, number) != number:
                mend = "Rename one." if what == "id" else "Delete one; what is seen more often has `repetitions`."
                name = f"the id '{key}'" if what == "id" else "the same source and target"
                raise StudyError(f"{path}, line {number}: {name} stands in line {first[key]} too. {mend}")
    return rows


def _lines(path: Path) -> Iterator[str]:
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
            where = f"{path}, line {number}"
            raise StudyError(f"{where}: byte {error.start + 1} is not UTF-8. Save the file as UTF-8.") from None


def _object(line: str, where: str, required: Sequence[str]) -> Row:
    def once(pairs: list[tuple[str, Any]]) -> Row:
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:  # JSON would take the last of them without a word
                raise StudyError(f"{where}: the field '{name}' stands there twice. Take one out.")
        return dict(pairs)

    try:
        row = json.loads(line, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", "too deeply nested")
        raise StudyError(f"{where}: not JSON ({reason}). Write one object a line: {_example(required)}") from None
    if not isinstance(row, dict):
        raise StudyError(f"{where}: holds a {type(row).__name__}, not an object. Write {_example(required)}")
    return row


def _field_mistakes(
    row: Row, required: Sequence[str], may_be_empty: Sequence[str], others: Sequence[str] | None
) -> Iterator[str]:
    for field in (*required, *(field for field in others or () if field in row)):
        value = row.get(field)
        if field not in row:
            yield f"'{field}' is missing. Write {_example(required)}"
        elif not isinstance(value, str):
            yield f"'{field}' is of type {type(value).__name__}. Put it in double quotes."
        elif not value.strip() and field not in may_be_empty:
            yield f"'{field}' is empty. Fill it or delete the line."
        elif any("\ud800" <= character <= "\udfff" for character in value):
            yield f"'{field}' holds half a surrogate pair. Write the character itself."
    for field in row:
        if others is not None and field not in (*required, *others):
            yield f"'{field}' is unknown. Take it out; known are {', '.join((*required, *others))}."


def _example(required: Sequence[str]) -> str:
    return "{" + ", ".join(f'"{field}": "…"' for field in required) + "}"


def write_jsonl(path: Path | str, rows: Iterable[Mapping[str, str]]) -> None:
    """Write one object a line, UTF-8, in the order given; same rows, same bytes."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8", newline="\n")
