"""Whatever is wrong with settings and own files is told at once, in lines that are short, and soon."""

import json
import re
import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError

from tests.copies import ROOT
from tools import settings
from tools.live import YAML_SAFE
from tools.schema import Settings
from unlearning.errors import StudyError

TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")
VALUES = YAML_SAFE.load(TEXT)


def told(folder: Path, *changes: tuple[str, str], text: str = TEXT) -> list[str]:
    """The lines that are told of a params.yaml with changes."""
    for old, new in changes:
        assert old in text, f"params.yaml no longer holds {old!r}"
        text = text.replace(old, new, 1)
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(StudyError) as caught:
        settings.load(folder / "params.yaml")
    lines = str(caught.value).splitlines()
    assert all(len(line) <= 400 + len(str(folder)) and ("params.yaml" in line or line[0] == "…") for line in lines)
    return [line.partition("params.yaml")[2] or line for line in lines]


# All at once


def test_all_mistakes_of_the_settings_are_told_in_the_order_of_the_file(tmp_path):
    wrong = [("track: tiny", "track: [1]"), ("  epochs: 8", "  epochs: many"), ("  grid: [1.0e-5,", "  grid: [-1.0,")]
    lines = told(tmp_path, *wrong)
    assert [re.match(r", line (\d+): (\S+)", line)[2] for line in lines] == ["track", "base.epochs", "pilot.grid.0"]
    numbers = [int(re.match(r", line (\d+)", line)[1]) for line in lines]
    assert numbers == [TEXT[: TEXT.index(old)].count("\n") + 1 for old, _ in wrong]


def test_contradictions_between_blocks_are_told_together_too(tmp_path):
    lines = told(tmp_path, ("bleu_tokens: 64 ", "bleu_tokens: 32 "), ("  ood: ood-canary", "  ood: ind"))
    assert [line.split(": ")[1] for line in lines] == ["unlearn.bleu_tokens", "claims.ood"]


def test_of_more_than_twenty_mistakes_twenty_are_told_and_the_others_counted(tmp_path):
    lines = told(tmp_path, ("  arms: [adamw, sgd,", f"  arms: [{', '.join(f'no-{i}' for i in range(30))}, adamw, sgd,"))
    assert len(lines) == 21 and lines[-1] == "… and 10 more"


def test_a_mistyped_key_is_not_told_as_a_missing_one_besides(tmp_path):
    assert len(told(tmp_path, ("  near_duplicate:", "  near_duplicat:"))) == 1
    both = "\n".join(told(tmp_path, ("\ndesign:", "\nunused:")))
    assert "unknown key 'unused'" in both and "the key 'design' is missing" in both


# Short, and on one line


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("device: cpu", f"device: {'x' * 5000}"),
        ("device: cpu", 'device: "a\\nb\\nc"'),
        ("device: cpu", f"device: {list(range(2000))}"),
        ("seed: 4388", f"seed: {'1' * 200}"),
        ("track: tiny", f"track: tiny\n{'k' * 900}: 1"),
        ("\nforget_sets:\n", f"\nforget_sets:\n  {'s' * 900}: {{kind: natural, size: 1, repetitions: 1}}\n"),
        ("  sgd: [ind-a,", f"  sgd: [{'s' * 900},"),
    ],
    ids=["a word", "lines", "a list", "a number", "a key", "a set", "a name"],
)
def test_a_message_repeats_no_long_value_and_stays_on_its_line(tmp_path, old, new):
    lines = told(tmp_path, (old, new))  # which looks at the length
    assert len(lines) <= 3 and all(line.startswith(", line ") for line in lines)


def test_names_that_yaml_reads_as_numbers_or_dates_are_to_be_quoted(tmp_path):
    line = "\nforget_sets:\n"
    for name in ("2024", "2024-01-01", "1.5", "true"):
        lines = told(tmp_path, (line, f"{line}  {name}: {{kind: natural, size: 64, repetitions: 1}}\n"))
        assert any(re.search(r"Put it in quotes: \".+\"\.", text) for text in lines), lines
    assert "ascents.sgd.0" in (found := told(tmp_path, ("  sgd: [ind-a,", "  sgd: [2024,"))[0]) and '"2024"' in found
    for name in ("nan", "null"):  # which tables would read back as nothing
        assert (
            "Rename the set"
            in told(tmp_path, (line, f'{line}  "{name}": {{kind: natural, size: 64, repetitions: 1}}\n'))[0]
        )
    assert not any("[key]" in text for text in told(tmp_path, (line, f"{line}  A b: {{kind: natural}}\n")))


# Bounds


def numbers(node: Any, place: tuple = ()) -> Iterator[tuple]:
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield (*place, key)
        yield from numbers(value, (*place, key))


@pytest.mark.parametrize("extreme", [10**15, -(10**15), 1e300, float("nan"), float("inf")])
def test_no_number_of_the_settings_is_without_bounds(extreme):
    places = list(numbers(VALUES))
    assert len(places) > 100
    accepted = []
    for place in places:
        values = deepcopy(VALUES)
        node = values
        for key in place[:-1]:
            node = node[key]
        node[place[-1]] = type(node[place[-1]])(extreme) if extreme == extreme and abs(extreme) < 1e301 else extreme
        try:
            Settings.model_validate(values, context=values)
            accepted.append(place)
        except ValidationError:
            pass
    assert accepted == []


@pytest.mark.parametrize(
    "changes",
    [
        [("  models: 32", "  models: 128"), ("  largest_alias: 0.25", "  largest_alias: 0.1")],
        [("  ind: {kind: natural, size: 64, repetitions: 1, draws: 10}",
          "\n".join(f"  ind{i or ''}: {{kind: natural, size: 64, repetitions: 1, draws: 26}}" for i in range(9)))],
    ],
    ids=["the strictest design", "hundreds of sets"],
)  # fmt: skip
def test_the_largest_design_is_judged_in_seconds(tmp_path, changes):
    began = time.process_time()
    told(tmp_path, *changes)
    assert time.process_time() - began < 5


# More than values


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
BOMB += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
MERGES = "m0: &m0 {x: 1}\n" + "".join(f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}\n" for i in range(1, 12))
ODD = {
    "an object": ("track: !!python/object/apply:os.system [ls]\n", "a tag"),
    "a tag of one's own": ("seed: !mine 3\n", "a tag"),
    "a tag of YAML": ("seed: !!float 3\n", "a tag"),
    "aliases of aliases": (BOMB, "within a block that has an anchor"),
    "merges of merges": (MERGES, "within a block that has an anchor"),
    "itself within itself": ("a: &a [*a]\n", "within a block that has an anchor"),
    "deep nesting": (f"a: {'[' * 5000}{']' * 5000}\n", "nested too deeply"),
    "a long file": (f"{TEXT}# {'x' * 200_000}\n", "characters"),
    "no date": ("track: 2024-99-99\n", "not YAML"),
    "no number": (f"seed: {'1' * 5000}\n", "not YAML"),
    "two files": (f"{TEXT}\n---\n{TEXT}", "not YAML"),
    "a list": ("- 1\n", "holds no settings"),
    "nothing": ("", "holds no settings"),
    "no text": ("track: \x07\n", "not YAML"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_yaml_can_do_besides_values_is_refused_at_once(tmp_path, name):
    text, message = ODD[name]
    began = time.process_time()
    (line,) = told(tmp_path, text=text)
    assert message in line and time.process_time() - began < 2


def test_a_block_that_takes_over_another_is_read(tmp_path):
    (tmp_path / "params.yaml").write_text(TEXT, encoding="utf-8")
    assert "<<: *adamw" in TEXT and settings.load(tmp_path / "params.yaml").arms["adamw-half"].rate == 0.5


# Files of one's own


SET = "  {}: {{kind: own, path: own/forget_sets/{}.jsonl, repetitions: 1}}\n"


def own_sets(folder: Path, **files: list[dict[str, str]]) -> Settings:
    """Settings of a folder with sets of the user's."""
    (folder / "own/forget_sets").mkdir(parents=True)
    for name, rows in files.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"own/forget_sets/{name}.jsonl").write_text(text, encoding="utf-8")
    lines = "".join(SET.format(name, name) for name in files)
    text = TEXT.replace("\nforget_sets:\n", f"\nforget_sets:\n{lines}").replace("models: 32", "models: 44")
    text = text.replace("largest_alias: 0.25", "largest_alias: 1.0")
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    return settings.load(folder / "params.yaml")


def checked(found: Settings) -> list[str]:
    with pytest.raises(StudyError) as caught:
        settings.check_own_files(found)
    return str(caught.value).splitlines()


def test_mistakes_of_several_files_are_told_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = own_sets(tmp_path, one=[{"source": "a"}], two=[{"source": "", "target": "b"}])
    assert [re.match(r"own/forget_sets/(\w+)\.jsonl, line 1: the (\S+)", line).groups() for line in checked(found)] == [
        ("one", "field"),
        ("two", "source"),
    ]
    Path("own/forget_sets/one.jsonl").unlink()
    Path("own/forget_sets/two.jsonl").unlink()
    assert len(missing := checked(found)) == 2 and all("is not there" in line for line in missing)


@pytest.fixture
def splits(tmp_path, monkeypatch):
    """A folder in which stage corpus has run."""
    from unlearning.data import corpus as data

    monkeypatch.chdir(tmp_path)
    rows = {name: [(f"{name}:1", f"source of {name}", f"the target of {name}", "o")] for name in data.SPLITS}
    pairs = {name: pd.DataFrame(row, columns=data.COLUMNS) for name, row in rows.items()}
    data.as_datasets(pairs).save_to_disk("data/corpus")
    data.train_tokenizer(["one two three"], vocabulary_size=300).save_pretrained("data/tokenizer")
    monkeypatch.setattr(settings.stages, "misfits", lambda _: [])
    return tmp_path


def test_once_the_corpus_is_split_the_check_knows_lengths_round_trip_and_overlap(splits, monkeypatch, capsys):
    rows = {
        "long": {"source": "x", "target": "y" * 200},
        "lost": {"source": "x", "target": "a </s> in it"},
        "twin": {"source": "x", "target": "the target of core"},
        "good": {"source": "x", "target": "of the reserve alone: the target of reserve"},
    }
    found = own_sets(splits, **{name: [row] for name, row in rows.items()})
    long, lost, twin = checked(found)
    assert "the target has 201 tokens" in long and "holds the reserved token </s>" in lost
    assert re.search(r"twin\.jsonl, line 1: the target \(nearly\) stands in core as 'core:1'", twin)
    monkeypatch.setattr(settings.stages, "misfits", lambda _: ["corpus ran with other settings"])
    settings.check_own_files(found)  # these are not the splits of these settings
    settings.main()
    assert capsys.readouterr().out.endswith(
        "ok; tokens and near-duplicates of own sets are checked once stage corpus has run\n"
    )


# The device


def test_a_device_that_is_not_there_is_told_with_its_line(tmp_path, monkeypatch):
    import torch

    (tmp_path / "params.yaml").write_text(TEXT.replace("device: cpu", "device: cuda"), encoding="utf-8")
    found = settings.load(tmp_path / "params.yaml")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (line,) = settings.no_device(found, tmp_path / "params.yaml")
    number = TEXT[: TEXT.index("device: cpu")].count("\n") + 1
    assert re.search(rf"params\.yaml, line {number}: device is cuda, and PyTorch \S+ finds none here\. Write cpu", line)
    monkeypatch.setenv("UNLEARNING_ENGINE", "ray")  # other machines have it
    assert not list(settings.no_device(found, tmp_path / "params.yaml"))
    monkeypatch.delenv("UNLEARNING_ENGINE")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not list(settings.no_device(found, tmp_path / "params.yaml"))
