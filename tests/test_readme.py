"""README.md: what it shows is what lies here, what it says of tables is so, and its examples work."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ruamel.yaml import YAML

from tests.test_checkpoint import save
from unlearning.data import checkpoint, corpus
from unlearning.data.forget_sets import read_own
from unlearning.data.design import assign_columns
from unlearning.errors import StudyError
from tools import readme, readme_parts, settings
from paper.summaries import RUN_UNITS

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
YAML_SAFE = YAML(typ="safe", pure=True)


def test_the_readme_shows_the_results_that_lie_here(monkeypatch):
    monkeypatch.chdir(ROOT)
    command = ["git", "status", "--porcelain", "--", "results/runs", "results/tables", "figures"]
    if subprocess.run(command, capture_output=True, text=True).stdout:
        pytest.skip("the results that lie here are not the committed ones; `make readme` shows them")
    assert readme.fill(TEXT, Path(".")) == TEXT, "README.md is out of date: run `make readme`"


def test_a_block_without_its_markers_is_told_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text(TEXT.replace("<!-- end figure -->", ""))
    assert readme.main(["--check"]) == 1
    assert "<!-- end figure -->" in capsys.readouterr().err


# Rendering, with and without results


def bare(folder: Path) -> Path:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.mark.parametrize("block", sorted(set(readme.BLOCKS) - {"dag"}))
def test_without_results_every_block_says_so_in_words(tmp_path, block):
    text = readme.BLOCKS[block](bare(tmp_path))
    assert re.search(r"not |No |after the first full run|Nothing", text)
    assert "nan" not in text


def claims_row(claim: str, arm: str, **more: Any) -> dict[str, Any]:
    row = {"claim": claim, "part": "", "arm": arm, "estimate": 3.25, "low": 1.5, "high": 5.0, "unit": "steps"}
    row |= {"delta": 0.5, "n": 4, "p_holm": 0.03}
    return row | {"verdict": "supported", "claim_verdict": "supported", "reason": ""} | more


def test_verdicts_and_numbers_come_from_the_tables(tmp_path):
    tables = bare(tmp_path) / "results/tables"
    tables.mkdir(parents=True)
    rows = [claims_row("C2", "adamw"), claims_row("C2", "adamw", part="beside", estimate=99.0)]
    pd.DataFrame(rows).to_csv(tables / "claims.csv", index=False)
    bound = {"arm": "adamw", "forget_set": "ind-a", "quantity": "k_star", "estimate": 200.0, "unit": "steps", "n": 8}
    bound["reason"] = "2 of 8 runs censored: the estimate is a lower bound"
    pd.DataFrame([bound | {"low": float("nan"), "high": float("nan")}]).to_csv(tables / "sets.csv", index=False)
    shown = readme.claims(tmp_path)
    assert "**supported**<br>3.25 [1.5, 5] steps (margin 0.5, n = 4)<br>p = 0.03 after Holm" in shown
    assert "99" not in shown
    assert "not computed: no row in claims.csv" in shown
    assert "≥ 200" in readme.numbers(tmp_path)


def test_a_row_beside_a_claim_is_shown_where_it_goes_against_the_claim(tmp_path):
    tables = bare(tmp_path) / "results/tables"
    tables.mkdir(parents=True)
    beside = {"part": "beside", "statement": "another ruler"}
    rows = [claims_row("C2", "adamw", statement="the ruler"), claims_row("C2", "adamw", **beside)]
    pd.DataFrame(rows).to_csv(tables / "claims.csv", index=False)
    assert "another ruler" not in readme.claims(tmp_path)
    rows.append(claims_row("C2", "adamw", verdict="contradicted", **beside))
    pd.DataFrame(rows).to_csv(tables / "claims.csv", index=False)
    assert "- C2, `adamw`: another ruler: 3.25 [1.5, 5] steps: contradicted" in readme.claims(tmp_path)


def test_what_differs_in_a_parenthesis_alone_is_told_in_one_line(tmp_path):
    tables = bare(tmp_path) / "results/tables"
    tables.mkdir(parents=True)
    rows = [claims_row("C2", "adamw", statement="the ruler")]
    for times, low in (("½", 1.5), ("2", 2.5)):
        beside = {"part": "beside", "statement": f"another ruler (rate × {times})", "low": low}
        rows.append(claims_row("C2", "adamw", verdict="inconclusive", **beside))
    pd.DataFrame(rows).to_csv(tables / "claims.csv", index=False)
    line = "- C2, `adamw`: another ruler: 3.25 [1.5, 5] (rate × ½); 3.25 [2.5, 5] (rate × 2) steps: inconclusive"
    assert line in readme.claims(tmp_path)


def test_numbers_are_shown_for_every_set_and_arm_headline_first(tmp_path):
    tables = bare(tmp_path) / "results/tables"
    tables.mkdir(parents=True)
    keys = [(arm, name) for arm in ("sgd", "adamw") for name in ("ood-canary-a", "ind-a")]
    cells = {"estimate": 1.0, "low": 0.5, "high": 1.5, "unit": "-", "n": 8, "reason": ""}
    rows = [{"arm": arm, "forget_set": name, "quantity": q} | cells for arm, name in keys for q in RUN_UNITS]
    pd.DataFrame(rows).to_csv(tables / "sets.csv", index=False)
    lines = [line.split(" | ")[:2] for line in readme.numbers(tmp_path).splitlines() if line.startswith("| `")]
    expected = [(arm, name) for arm in ("adamw", "sgd") for name in ("ind-a", "ood-canary-a")]
    assert lines == [[f"| `{name}`", f"`{arm}`"] for arm, name in expected]
    assert set(readme.QUANTITIES) <= {*RUN_UNITS, "k_star_reference"}


def test_a_stage_that_was_resumed_counts_its_finished_tasks():
    record = {"seconds": 20, "cores": 2, "tasks": [{"task": "base model", "count": 2, "seconds_each": 600}]}
    assert readme_parts.spent(record) == 600
    assert readme_parts.spent(record | {"seconds": 700}) == 700


def test_time_is_summed_over_the_stages_that_were_recorded(tmp_path):
    folder = bare(tmp_path) / "results/runs"
    folder.mkdir(parents=True)
    machine = {"processor": "P", "cores": 2, "memory_gib": 8, "system": "Linux", "python": "3.11.7"}
    record = {"seconds": 120, "peak_mib": 1024, "tasks": [], **machine}
    for stage in ("corpus", "train@adamw"):
        (folder / f"{stage}.json").write_text(json.dumps(record))
    (folder / "machine.json").write_text(json.dumps(machine | {"reference_gflops": {"float32": 321}}))
    text = readme.time(tmp_path)
    assert "| **together** |  | **4.0** |" in text
    assert "1 of 2" in text and "321 GFLOP/s in float32" in text and "`train@adafactor`" in text


def test_every_target_of_the_benchmark_is_shown_also_a_missed_one(tmp_path):
    folder = bare(tmp_path) / "benchmarks/results"
    folder.mkdir(parents=True)
    rows = [("training", "≥ 3 ×", "3.2 ×", True), ("ascent", "≥ 4 ×", "3.9 ×", False)]
    pd.DataFrame(rows, columns=["target", "asked", "measured", "reached"]).to_csv(folder / "targets.csv", index=False)
    machine = {"processor": "P", "cores": 2, "memory_gib": 8, "system": "Linux", "bfloat16": False}
    (folder / "machine.json").write_text(json.dumps(machine))
    ours = {"ours float32": 30.0, "ours float32, AVX2": 22.0, "Trainer grouped, side by side": 20.0}
    rates = [("training", arm, rate) for arm, rate in ours.items()]
    pd.DataFrame(rates, columns=["workload", "arm", "median"]).to_csv(folder / "speed.csv", index=False)
    text = readme.speed(tmp_path)
    assert "| training | ≥ 3 × | 3.2 × | yes |" in text
    assert "| ascent | ≥ 4 × | 3.9 × | **no** |" in text
    assert (
        "without instructions for bfloat16" in text
        and "side by side, training is 1.5 × as fast, under AVX2 1.1 ×" in text
    )


def test_an_edge_that_follows_from_others_is_left_out():
    assert readme_parts.reduced({("a", "b"), ("b", "c"), ("a", "c")}) == {("a", "b"), ("b", "c")}


def test_the_stage_names_are_those_of_dvc(monkeypatch):
    monkeypatch.chdir(ROOT)
    command = [sys.executable, "-m", "dvc", "stage", "list", "--name-only"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert sorted(readme_parts.stage_names(ROOT)) == sorted(listed)


def test_every_claim_points_at_a_figure_and_a_notebook_of_the_pipeline():
    outs = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    for figure, notebook in readme.SHOWN_BY.values():
        assert f"figures/{figure}.png" in outs
        assert readme_parts.stage_of(ROOT, notebook)[0]
    assert f"figures/{readme.MAIN_FIGURE}.png" in outs


# What is said of files


def test_links_lead_to_files_that_are_here_or_are_made_by_a_stage():
    made = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    for path in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", TEXT):
        known = path.startswith("https://") or (ROOT / path).exists() or path in made
        assert known, f"dead link {path}"


def test_every_folder_is_in_the_map():
    for folder in ROOT.iterdir():
        shown = folder.is_dir() and not folder.name.startswith((".", "__")) and not folder.name.endswith(".egg-info")
        assert not shown or f"`{folder.name}/" in TEXT or folder.name in ("src", "benchmarks"), folder.name


def test_every_setting_and_make_target_that_is_named_exists():
    params = YAML_SAFE.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for path in re.findall(r"`((?:corpus|unlearn|design|claims)\.(?!py`|csv`)[a-z_]+)`", TEXT):
        block, key = path.split(".")
        assert key in params[block], path
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", TEXT)) <= targets


def documented() -> list[tuple[list[str], list[str], list[str]]]:
    """(patterns of file names, columns, units) of each table in the dictionary."""
    found = []
    for entry in re.split(r"\n(?=`[^`\n]+\.(?:csv|parquet)`)", TEXT.split("## Dictionary of the tables")[1]):
        head = entry.splitlines()[0]
        rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| [^|]+ \|$", entry, re.MULTILINE)
        if rows:
            columns, units = zip(*rows, strict=True)
            patterns = re.findall(r"`([^`]+\.(?:csv|parquet))`", head)
            found.append((patterns, list(columns), [u.strip() for u in units]))
    return found


def columns_of(path: Path) -> list[str]:
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, nrows=5)
    if path.name != "design.csv":
        return list(table.columns)
    return [*table.columns[:2], *["<forget set>"] * (len(table.columns) > 2)]


TABLES = ROOT / "results/tables"
FILES = sorted(p for p in TABLES.rglob("*") if p.suffix in (".csv", ".parquet"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(TABLES).as_posix())
def test_the_dictionary_has_exactly_the_columns_of(path):
    name = path.relative_to(TABLES).as_posix()
    entries = [columns for patterns, columns, _ in documented() if any(fnmatch(name, p) for p in patterns)]
    assert len(entries) == 1, f"{name} stands in {len(entries)} entries of the README's dictionary"
    here = columns_of(path)
    assert sorted(here) == sorted(entries[0]) or (here == [] and path.stat().st_size < 3)


def test_every_documented_column_has_a_unit():
    for patterns, _, units in documented():
        assert all(units), patterns


# The examples


def example(label: str) -> str:
    """The code block below an example's comment."""
    match = re.search(rf"<!-- example {re.escape(label)} -->\n```[a-z]*\n(.*?)```", TEXT, re.DOTALL)
    assert match, f"README.md has no example {label}"
    return match[1]


def edited(folder: Path, edit: str) -> settings.Settings:
    """The settings after an example's edit, in a folder of its own."""
    yaml = YAML(typ="rt")  # keeps the order of the sets, which decides their columns
    params = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
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
    before = settings.load(ROOT / "params.yaml")
    room = {"models": found.design.models, "min_free_columns": found.design.min_free_columns}
    old, new = (assign_columns({n: s.kind for n, s in p.forget_sets.items()}, **room) for p in (before, found))
    assert new == old | {"mine": new["mine"]}
    assert found.ascents["mine-adamw"].forget_set == "mine"
    tokenizer = corpus.train_tokenizer(["Das Licht im Flur", "the hallway light"], vocabulary_size=300)
    none = pd.DataFrame(columns=corpus.COLUMNS, dtype=object)
    limits = {"max_tokens": found.corpus.max_tokens * 2, "near_duplicate": found.corpus.near_duplicate}
    path = found.forget_sets["mine"].path
    table = read_own("mine", path, tokenizer=tokenizer, protected={"core": none, "heldout": none}, **limits)
    assert list(table["id"]) == ["mine:mine-1", "mine:mine-2"]


def test_the_example_corpus_is_read_in_groups(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "own/corpus/mine.jsonl", example("corpus: file own/corpus/mine.jsonl"))
    found = edited(tmp_path, example("corpus: edit"))
    pairs = corpus.read_pairs(found.corpus.model_dump(), seed=found.seed)
    assert list(pairs["origin"]) == ["greetings", "station"]
    assert len(corpus.clean(pairs, found.corpus.model_dump())[0]) == len(pairs)


def test_the_example_model_is_larger_and_the_default_is_as_large_as_is_said(tmp_path):
    from unlearning.measure.models import new_t5

    sizes = []
    for found in (settings.load(ROOT / "params.yaml"), edited(tmp_path, example("model: edit"))):
        vocabulary = found.corpus.vocabulary_size
        model = new_t5(found.model.model_dump(), vocabulary_size=vocabulary, dropout=0.0, seed=0)
        sizes.append(sum(p.numel() for p in model.parameters()))
    assert sizes[1] > 3 * sizes[0]
    assert f"{sizes[0] / 1e6:.1f} million parameters" in TEXT


def test_the_example_pretrained_model_takes_the_place_of_the_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    edit = YAML(typ="safe", pure=True).load(example("pretrained: edit"))
    params["model"] = edit.pop("model")  # takes the place of the block, others are changed
    params["base"].update(edit.pop("base"))
    for optimizer, change in edit.pop("train").items():
        params["train"][optimizer].update(change)
    assert not edit
    with (tmp_path / "params.yaml").open("w", encoding="utf-8") as stream:
        YAML(typ="safe", pure=True).dump(params, stream)
    found = settings.load(tmp_path / "params.yaml")
    with pytest.raises(StudyError, match=r"no folder own/models/mine"):
        settings.check_own_files(found)
    save(tmp_path / "own/models/mine", "llama")
    settings.check_own_files(found)
    assert checkpoint.folder_of(found.model.model_dump()) == Path("own/models/mine")
    families = re.search(r"with the library's own: (.*?)\. ", TEXT)[1]
    assert tuple(re.findall(r"`(\w+)`", families)) == checkpoint.FAMILIES


def test_the_citation_file_names_the_paper_and_its_authors():
    found = YAML_SAFE.load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "license", "version"} <= set(found)
    paper = found["references"][0]
    assert paper["authors"][0]["family-names"] == "Baluta"
    assert "2411.04388" in paper["identifiers"][0]["value"]


def test_every_formula_names_a_function_that_is_there():
    text = (ROOT / "docs/formulas.md").read_text(encoding="utf-8")
    named = re.findall(r"`(\w+)\.(\w+)`", text)
    assert len(named) > 25
    for module, function in named:
        assert callable(getattr(importlib.import_module(f"unlearning.{module}"), function))
