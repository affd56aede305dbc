"""README.md, docs/ and own/: short, nothing typed that a program knows, every link alive, every example works."""

import importlib
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from tests.test_checkpoint import save
from tools import readme, settings
from unlearning.data import checkpoint, corpus
from unlearning.data.design import assign_columns
from unlearning.data.forget_sets import read_own
from unlearning.errors import StudyError

ROOT = Path(__file__).parents[1]
TABLES = ROOT / "results/tables"
YAML_SAFE = YAML(typ="safe", pure=True)


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


README, OWN, DICTIONARY = read("README.md"), read("own/README.md"), read("docs/tables.md")
PAGES = ["README.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
GUIDES = [*PAGES, "own/README.md", "CONTRIBUTING.md", "notebooks/README.md"]
PARAMS = YAML_SAFE.load(read("params.yaml"))


def without_comments(text: str) -> str:
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


# Length


def test_the_readme_has_at_most_900_words_and_12_headings():
    text = without_comments(README)
    assert len(text.split()) <= 900
    assert len(re.findall(r"^#+ ", text, re.MULTILINE)) <= 12


def test_the_log_has_at_most_2500_words_and_the_newest_day_first():
    days = re.findall(r"^## (\d{4}-\d\d-\d\d)", read("LOG.md"), re.MULTILINE)
    assert len(read("LOG.md").split()) <= 2500
    assert len(days) > 2 and days == sorted(days, reverse=True)


def test_the_glossary_has_at_most_fifteen_terms():
    assert 10 <= len(re.findall(r"^\| \*\*", read("docs/glossary.md"), re.MULTILINE)) <= 15


# No result is typed


def test_every_block_is_what_the_programs_write(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert readme.main(["--check"]) == 0


NAMED = r"\b(?:Python|PyTorch|Ray|Transformers|arXiv|sections?|notebooks?) [\d.]+|Apache-2\.0"
THOUSANDS, DECIMAL = r"\d{1,3}(?:[, ]\d{3})+(?!\d)", r"\d+(?:\.\d+)?(?:e[-−]?\d+)?"


def prose(text: str) -> str:
    """What is typed by hand: no blocks, code, link targets, row numbers, versions, sections."""
    text = re.sub(r"<!-- begin (\w+) -->.*?<!-- end \1 -->", "", text, flags=re.DOTALL)
    text = re.sub(r"```.*?```|`[^`\n]*`", "", without_comments(text), flags=re.DOTALL)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    return re.sub(NAMED, "", re.sub(r"^\| \d+ \|", "|", text, flags=re.MULTILINE))


def written(text: str) -> Iterator[tuple[str, float, int]]:
    """(as written, value, significant digits) of each number with two significant digits or more."""
    for match in re.finditer(rf"(?<![\w.,/])(?:{THOUSANDS}|{DECIMAL})", text):
        plain = re.sub("[, ]", "", match[0]).replace("−", "-")
        mantissa = plain.split("e")[0]
        shown = mantissa.replace(".", "").lstrip("0")
        digits = len(shown if "." in mantissa else shown.rstrip("0"))
        if digits >= 2:
            yield match[0], float(plain), digits


def numbers_in(block: Any) -> Iterator[float]:
    if isinstance(block, dict | list):
        for value in block.values() if isinstance(block, dict) else block:
            yield from numbers_in(value)
    elif isinstance(block, int | float) and not isinstance(block, bool):
        yield from (float(block), 100 * float(block))  # 0.95 is also written as 95 %


def result_tables() -> list[pd.DataFrame]:
    inputs = {"design.csv", "columns.csv", "learning_rates.csv"}
    return [pd.read_csv(p) for p in sorted(TABLES.rglob("*.csv")) if p.name not in inputs and "unlearn" not in p.parts]


@pytest.fixture(scope="module")
def results() -> dict[int, set[float]]:
    """Digits -> the results of the tables as they would be written with so many, also in per cent."""
    found = np.concatenate([np.abs(t.select_dtypes("number").to_numpy(dtype=float).ravel()) for t in result_tables()])
    found = found[np.isfinite(found) & (found > 0)]
    found = np.concatenate([found, 100 * found[found <= 1]])
    return {digits: {float(f"{x:.{digits}g}") for x in found} for digits in (2, 3, 4, 5)}


def typed_results(text: str, results: dict[int, set[float]]) -> list[str]:
    settings_of_the_study = set(numbers_in(PARAMS))
    found = [(n, v) for n, v, digits in written(prose(text)) if v in results[min(digits, 5)]]
    return [number for number, value in found if value not in settings_of_the_study]


@pytest.mark.parametrize("page", PAGES)
def test_no_number_outside_the_markers_equals_a_result(page, results):
    assert typed_results(read(page), results) == []


def test_a_typed_result_is_found_however_it_is_rounded(results):
    claims = pd.read_csv(TABLES / "claims/claims.csv").dropna(subset="estimate")
    for estimate in claims["estimate"].abs():
        per_cent = [f"{100 * estimate:#.3g}"] if estimate < 1 else []
        for number in (f"{estimate:#.2g}", f"{estimate:#.3g}", *per_cent):
            if float(number) not in set(numbers_in(PARAMS)):
                assert typed_results(f"Canaries lose {number} more.", results) == [number.rstrip(".")]
    assert typed_results("<!-- begin x -->\n5.52\n<!-- end x --> in 64 examples of 4 models", results) == []


# Links, commands, settings


MARKDOWN = sorted(
    p.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "own/**/*.md", "notebooks/*.md", "benchmarks/*.md")
    for p in ROOT.glob(pattern)
)


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}


@pytest.mark.parametrize("page", MARKDOWN)
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_comments(read(page))):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page}: dead link {target}"
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), f"{page}: no heading {target}"


def test_every_folder_is_in_the_tree():
    for folder in ROOT.iterdir():
        shown = folder.is_dir() and not folder.name.startswith((".", "__")) and not folder.name.endswith(".egg-info")
        assert not shown or f"{folder.name}/" in README, folder.name


@pytest.mark.parametrize("page", GUIDES)
def test_every_make_target_and_setting_that_is_named_exists(page):
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    named = re.findall(r"(?:`|^)make ([a-z-]+)", read(page), re.MULTILINE)
    assert set(named) <= targets
    for block, key in re.findall(r"`([a-z_]+)\.([a-z_]+)`", read(page)):
        if block in PARAMS and key not in ("py", "csv", "parquet"):
            assert key in PARAMS[block], f"{block}.{key}"


def test_a_stage_that_is_named_in_a_command_exists():
    stages = YAML_SAFE.load(read("dvc.yaml"))["stages"]
    for page in GUIDES:
        for stage, _, name in re.findall(r"(?:STAGE=|dvc repro -s |dvc repro )([a-z_]+)(@([\w-]+))?", read(page)):
            assert stage in stages, f"{page}: {stage}"
            assert name in (*PARAMS["ascents"], *PARAMS["train"], ""), f"{page}: {stage}@{name}"


def test_a_new_kind_is_said_to_touch_three_files_that_exist():
    line = next(x for x in read("CONTRIBUTING.md").splitlines() if x.startswith("- **A kind of forget set:**"))
    files = re.findall(r"`([\w/]+\.(?:py|yaml))`", line)
    assert "three files" in line and len(files) == 3
    assert all((ROOT / f).exists() for f in files)


def test_every_formula_names_a_function_that_is_there():
    named = re.findall(r"`(\w+)\.(\w+)`", read("docs/formulas.md"))
    assert len(named) > 30
    for module, function in named:
        part = "measure" if module == "ascent" else "core"
        assert callable(getattr(importlib.import_module(f"unlearning.{part}.{module}"), function))


def test_the_citation_file_names_the_paper_and_its_authors():
    found = YAML_SAFE.load(read("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors", "license", "version"} <= set(found)
    paper = found["references"][0]
    assert paper["authors"][0]["family-names"] == "Baluta"
    assert "2411.04388" in paper["identifiers"][0]["value"]


# The dictionary of the tables


def documented() -> list[tuple[list[str], list[str], list[str]]]:
    """(patterns of file names, columns, units) of each table in the dictionary."""
    found = []
    for entry in re.split(r"\n(?=`[^`\n]+\.(?:csv|parquet)`)", DICTIONARY)[1:]:
        rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| [^|]+ \|$", entry, re.MULTILINE)
        columns, units = zip(*rows, strict=True)
        patterns = re.findall(r"`([^`]+\.(?:csv|parquet))`", entry.splitlines()[0])
        found.append((patterns, list(columns), [u.strip() for u in units]))
    return found


def columns_of(path: Path) -> list[str]:
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, nrows=5)
    if path.name != "design.csv":
        return list(table.columns)
    return [*table.columns[:2], *["<forget set>"] * (len(table.columns) > 2)]


BESIDE = ("methods", "neighbours", "theory")  # tables of the pipeline in neighbours/, whose README has their dictionary
FILES = sorted(p.relative_to(TABLES).as_posix() for p in TABLES.rglob("*") if p.suffix in (".csv", ".parquet"))
FILES = [name for name in FILES if name.split("/")[0] not in BESIDE]


@pytest.mark.parametrize("name", FILES)
def test_the_dictionary_has_exactly_the_columns_of(name):
    entries = [columns for patterns, columns, _ in documented() if any(fnmatch(name, p) for p in patterns)]
    assert len(entries) == 1, f"{name} stands in {len(entries)} entries of the dictionary"
    here = columns_of(TABLES / name)
    assert sorted(here) == sorted(entries[0]) or (here == [] and (TABLES / name).stat().st_size < 3)


def test_every_documented_column_has_a_unit_and_every_table_a_file():
    for patterns, _, units in documented():
        assert all(units), patterns
        for pattern in patterns:
            assert any(fnmatch(name, pattern) for name in FILES), pattern


# The examples


def example(label: str) -> str:
    """The code block below an example's comment."""
    match = re.search(rf"<!-- example {re.escape(label)} -->\n```[a-z]*\n(.*?)```", OWN, re.DOTALL)
    assert match, f"own/README.md has no example {label}"
    return match[1]


def edited(folder: Path, edit: str, *, without: str = "") -> settings.Settings:
    """The settings after an example's edit, in a folder of its own; `without` a family, wherever it is named."""
    yaml = YAML(typ="rt")  # keeps the order of the sets, which decides their columns
    params = yaml.load(read("params.yaml"))
    if without:
        del params["forget_sets"][without]
        for names in params["ascents"].values():
            names[:] = [name for name in names if name != without]
    for block, changes in yaml.load(edit).items():
        params[block].update(changes)
    with (folder / "params.yaml").open("w", encoding="utf-8") as stream:
        yaml.dump(params, stream)
    return settings.load(folder / "params.yaml")


def write(folder: Path, path: str, text: str) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(text, encoding="utf-8")


def test_the_example_forget_set_becomes_one_more_column_and_an_ascent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "own/forget_sets/mine.jsonl", example("forget set: file own/forget_sets/mine.jsonl"))
    found = edited(tmp_path, example("forget set: edit"))
    settings.check_own_files(found)
    room = {"models": found.design.models, "min_free_columns": found.design.min_free_columns}
    old, new = (assign_columns(p.model_dump()["forget_sets"], **room)
                for p in (settings.load(ROOT / "params.yaml"), found))  # fmt: skip
    assert new == old | {"mine": new["mine"]} and found.ascents["adamw"][-1] == "mine"
    tokenizer = corpus.train_tokenizer(["Das Licht im Flur", "the hallway light"], vocabulary_size=300)
    none = pd.DataFrame(columns=corpus.COLUMNS, dtype=object)
    limits = {"max_tokens": found.corpus.max_tokens * 2, "near_duplicate": found.corpus.near_duplicate}
    path = found.forget_sets["mine"].path
    table = read_own("mine", path, tokenizer=tokenizer, protected={"core": none, "heldout": none}, **limits)
    assert list(table["id"]) == ["mine:mine-1", "mine:mine-2"]


def test_the_example_corpus_is_read_in_groups(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "own/corpus/mine.jsonl", example("corpus: file own/corpus/mine.jsonl"))
    found = edited(tmp_path, example("corpus: edit"), without="ood-language")
    pairs = corpus.read_pairs(found.corpus.model_dump(), seed=found.seed)
    assert list(pairs["origin"]) == ["greetings", "station"]
    assert len(corpus.clean(pairs, found.corpus.model_dump())[0]) == len(pairs)


def test_the_example_model_is_larger(tmp_path):
    from unlearning.measure.models import new_t5

    sizes = []
    for found in (settings.load(ROOT / "params.yaml"), edited(tmp_path, example("model: edit"))):
        vocabulary = found.corpus.vocabulary_size
        model = new_t5(found.model.model_dump(), vocabulary_size=vocabulary, dropout=0.0, seed=0)
        sizes.append(sum(p.numel() for p in model.parameters()))
    assert sizes[1] > 3 * sizes[0]


def test_the_example_pretrained_model_takes_the_place_of_the_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = YAML_SAFE.load(read("params.yaml"))
    edit = YAML_SAFE.load(example("pretrained: edit"))
    params["model"] = edit.pop("model")  # takes the place of the block, others are changed
    params["base"].update(edit.pop("base"))
    for optimizer, change in edit.pop("train").items():
        params["train"][optimizer].update(change)
    assert not edit
    with (tmp_path / "params.yaml").open("w", encoding="utf-8") as stream:
        YAML_SAFE.dump(params, stream)
    found = settings.load(tmp_path / "params.yaml")
    with pytest.raises(StudyError, match="own/models/mine"):
        settings.check_own_files(found)
    save(tmp_path / "own/models/mine", "llama")
    settings.check_own_files(found)
    assert checkpoint.folder_of(found.model.model_dump()) == Path("own/models/mine")
