"""A user's corpus or forget set, from JSONL, JSON, CSV or Parquet: every text as written, every mistake with its place.

JSON is read line by line here: the loader of `datasets` would turn a text that looks like a date into a time stamp,
and take the second of two equal keys. CSV and Parquet come through that loader, CSV with every column as text.
"""

import csv
import io
import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unlearning.data.jsonl import Row, example_of, mistakes_in, objects, once, text_lines
from unlearning.errors import StudyError, refuse

Fields = Mapping[str, str | None]  # source, target, id, group -> name in the file; no source: plain text
# Names that are recognised without a setting, the first that a file's first row has.
PRESETS: list[Fields] = [
    {"source": "source", "target": "target"},
    {"source": "question", "target": "answer"},
    {"source": "prompt", "target": "completion"},
    {"source": "instruction", "target": "output"},
    {"target": "text"},
]


class Place(NamedTuple):
    """Where a row stands: its file, and its line or (without the header) row, from 1."""

    path: str
    unit: str
    number: int

    def __str__(self) -> str:
        return f"{self.path}, {self.unit} {self.number}"

    @property
    def name(self) -> str:
        """An id for a row that has none."""
        return f"{self.unit}-{self.number}"


Mistake = tuple[Place, str]


def read_pairs_of(path: Path | str, fields: Fields | None = None) -> list[tuple[Place, Row]]:
    """The rows of a user's corpus: source (empty in plain text), target, group; without a group each is its own.

    fields: what the file calls them; None: a preset. Raises StudyError: its mistakes, with file, line or row, and mend.
    """
    rows, wrong = _read(path, fields, ["group"], others=None)
    _refuse(wrong)
    return [(place, {"group": place.name} | row) for place, row in rows]


def read_examples(path: Path | str, fields: Fields | None = None) -> list[tuple[Place, Row]]:
    """The rows of a user's forget set: id (without one, its line), source, target, perhaps origin.

    No id and no example stands there twice. Otherwise as `read_pairs_of`.
    """
    first = dict[Any, Place]()
    rows, wrong = _read(path, fields, ["id", "origin"], others=["origin"])
    rows = [(place, {"id": place.name} | row) for place, row in rows]
    for place, row in rows:
        again = {row["id"]: ("id", "Rename one."), (row["source"], row["target"]): ("example", "Delete one.")}
        for key, (what, mend) in again.items():
            if (other := first.setdefault(key, place)) != place:
                wrong.append((place, f"this {what} stands in {other.unit} {other.number} too. {mend}"))
    _refuse(wrong)
    return rows


def refuse_empty_source(rows: Sequence[tuple[Place, Row]]) -> None:
    """StudyError at the first row without a source; for encoder-decoders only."""
    for place, row in rows:
        if not row["source"].strip():
            raise StudyError(
                f"{place}: the source is empty, and the model is an encoder-decoder. Write what the "
                "target answers to; only a decoder-only model does without."
            )


def _read(
    path: Path | str, fields: Fields | None, optional: Sequence[str], *, others: Sequence[str] | None
) -> tuple[list[tuple[Place, Row]], list[Mistake]]:
    """Each row under our names, and what is wrong with the others; with the first one, if that does not fit.

    optional: ours that a file may do without; others: known besides, None: any.
    """
    names, rows, wrong = dict[str, str](), [], list[Mistake]()
    for place, row in _raw_rows(Path(path), _in_order(["source", "target", *optional[:1]])):
        first = not names
        if first:
            preset = next((p for p in PRESETS if isinstance(row, dict) and set(p.values()) <= set(row)), PRESETS[0])
            names = _fields_of(row, fields or preset, optional)
            # what a file has besides the names of a preset may belong to the text; `fields` say what counts
            known = None if fields else others if preset is PRESETS[0] else ["id", "group"]
        told = len(wrong)
        for mistake in mistakes_in(row, list(names.values()), [names.get("source", "")], known):
            mend = ""
            if "is unknown" in mistake and known != others:
                given = ", ".join(f"{ours}: {theirs}" for ours, theirs in names.items())
                mend = f" Or say in params.yaml which fields count, fields: {{{given}}}."
            elif "is missing" in mistake and first and not fields:
                mend = " Or say in params.yaml which fields they are, fields: {source: …, target: …}."
            wrong.append((place, f"{mistake}{mend}"))
        if first and wrong:  # nor will any other row fit
            break
        if len(wrong) > told:
            continue
        if late := next((name for name in optional[:1] if name in row and name not in names), ""):
            wrong.append((place, f"the field '{late}' stands here and not in the first. Give it to all or none."))
        extra = {name: row[name] for name in others or () if name in row}
        rows.append((place, {"source": ""} | extra | {ours: row[theirs] for ours, theirs in names.items()}))
    if not names:
        raise StudyError(f"{path} is empty. Write one object a line: {example_of(['source', 'target'])}")
    return rows, wrong


def _refuse(wrong: list[Mistake]) -> None:
    refuse(f"{place}: {message}" for place, message in sorted(wrong, key=lambda item: item[0].number))


def _fields_of(row: Any, fields: Fields, optional: Sequence[str]) -> dict[str, str]:
    """Our name -> the file's, of all that each row must have."""
    names = {ours: theirs for ours, theirs in fields.items() if theirs}
    if "origin" in optional and "group" in names:
        names["origin"] = names.pop("group")
    found = {name: name for name in optional[:1] if isinstance(row, dict) and name in row}
    return {ours: (found | names)[ours] for ours in _in_order(found | names)}


def _in_order(names: Iterable[str]) -> list[str]:
    return sorted(names, key=["id", "source", "target", "group", "origin"].index)


def _raw_rows(path: Path, required: Sequence[str]) -> Iterator[tuple[Place, Any]]:
    if path.suffix == ".csv":
        read, unit = _csv(path), "row"
    elif path.suffix == ".parquet":
        read, unit = _parquet(path), "row"
    elif path.suffix == ".json" and (text := "\n".join(text_lines(path))).lstrip().startswith("["):
        read, unit = _array(path, text), "line"
    else:
        read, unit = objects(path, required), "line"
    yield from ((Place(str(path), unit, number), row) for number, row in read)


def _array(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """The entries of a JSON array, each with the line on which it begins."""
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        where, reason = f"{path}, line {getattr(error, 'lineno', 1)}", getattr(error, "msg", "too deeply nested")
        raise StudyError(f"{where}: not JSON ({reason}). Write a list of objects, or one object a line.") from None
    decoder, between = json.JSONDecoder(object_pairs_hook=once), re.compile(r"[\s,]*")
    number, seen, at = 1, 0, text.index("[") + 1
    while text[at := between.match(text, at).end()] != "]":
        number, seen = number + text.count("\n", seen, at), at
        try:
            row, at = decoder.raw_decode(text, at)
        except StudyError as error:
            raise StudyError(f"{path}, line {number}: {error}") from None
        yield number, row


def _csv(path: Path) -> Iterator[tuple[int, Row]]:
    """Rows by number; every value is the text that stands there, also `007`, `NA` and what looks like a number."""
    from datasets import Dataset, Features, Value

    reader = csv.reader(io.StringIO("\n".join(text_lines(path)), newline=""), strict=True)
    try:
        header, *rows = (row for row in reader if row)
    except ValueError:
        return
    except csv.Error as error:
        mend = "Put double quotes around text, and double those in it."
        raise StudyError(f"{path}, line {reader.line_num}: not CSV ({error}). {mend}") from None
    uneven = [(number, len(row)) for number, row in enumerate(rows, start=1) if len(row) != len(header)]
    mend = f"fields, the header {len(header)}. Put text that holds commas in double quotes."
    refuse(f"{path}, row {number}: it has {size} {mend}" for number, size in uneven)
    for name in header:
        if header.count(name) > 1:
            raise StudyError(f"{path}, row 0 (the header): the field '{name}' stands there twice. Take one out.")
    as_text = Features(dict.fromkeys(header, Value("string")))
    options = {"features": as_text, "keep_default_na": False, "encoding": "utf-8-sig"}
    loaded = list(_loaded(Dataset.from_csv, path, **options)) if rows else []
    if [list(row.values()) for _, row in loaded] != rows:
        raise StudyError(f"{path}: two readers of CSV find different texts in it. Save it anew, or as JSONL.")
    yield from loaded


def _parquet(path: Path) -> Iterator[tuple[int, Row]]:
    from datasets import Dataset

    yield from _loaded(Dataset.from_parquet, path)


def _loaded(load: Any, path: Path, **options: Any) -> Iterator[tuple[int, Row]]:
    """Rows by number, as `datasets` loads them, with nothing left in its cache. Raises StudyError: not that format."""
    import datasets

    datasets.disable_progress_bars()
    if not path.is_file():
        raise StudyError(f"{path}: there is no such file. Correct its path in params.yaml.")
    told = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # it is told here, in one sentence
    with tempfile.TemporaryDirectory() as cache:
        try:
            rows = load(str(path), cache_dir=cache, keep_in_memory=True, **options).to_list()
        except Exception as error:  # pandas, pyarrow and datasets raise many kinds
            name = path.suffix[1:]
            raise StudyError(f"{path}: no {name} ({type(error.__cause__ or error).__name__}). Save it anew.") from None
        finally:
            datasets.logging.set_verbosity(told)
    yield from enumerate(rows, start=1)
