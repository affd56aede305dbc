"""The house as a whole: one name for each function, one address, and limits that keep it easy to read."""

import ast
from collections import Counter
from pathlib import Path

import nbformat
import numpy as np
import pytest

from tests.copies import ROOT

SOURCES = sorted(ROOT.glob("src/*/**/*.py"))
NOTEBOOKS = {path.stem: nbformat.read(path, as_version=4).cells for path in sorted(ROOT.glob("notebooks/*.ipynb"))}


def lines(*paths: Path) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


def test_no_two_functions_have_one_name():
    found = [node.name for path in SOURCES for node in ast.parse(path.read_text(encoding="utf-8")).body
             if isinstance(node, ast.FunctionDef | ast.ClassDef)]  # fmt: skip
    twice = {name for name, count in Counter(found).items() if count > 1}
    assert not twice - {"main"}  # what a command `python -m tools.x` starts


def test_a_package_hands_on_nothing_from_its_modules():
    for path in (path for path in SOURCES if path.name == "__init__.py"):
        package = ".".join(path.parent.relative_to(ROOT / "src").parts)
        imports = [
            node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)
        ]
        assert not [node.module for node in imports if node.level or f"{node.module}.".startswith(f"{package}.")]


@pytest.mark.parametrize(
    ("pattern", "limit"),
    [
        ("src/unlearning/**/*.py", 3960),
        ("src/**/*.py", 10900),
        ("src/neighbours/*.py", 1100),
        ("benchmarks/**/*.py", 1120),
        ("dvc.yaml", 200),
        ("neighbours/dvc.yaml", 100),
    ],
)
def test_code_is_no_longer_than_it_takes(pattern, limit):
    assert lines(*ROOT.glob(pattern)) <= limit


def test_tests_are_at_least_four_fifths_as_long_as_the_code():
    assert lines(*ROOT.glob("tests/*.py")) >= 0.8 * lines(*SOURCES)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_cells_of_a_notebook_are_short(name):
    sizes = [len(cell.source.splitlines()) for cell in NOTEBOOKS[name] if cell.cell_type == "code"]
    assert np.percentile(sizes, 90) <= 12 and max(sizes) <= 18


def test_most_cells_of_code_have_prose_before_and_after():
    kinds = [[cell.cell_type for cell in cells] for cells in NOTEBOOKS.values()]
    around = [of[i - 1] == of[i + 1] == "markdown" for of in kinds for i in range(1, len(of) - 1) if of[i] == "code"]
    assert np.mean(around) >= 0.7
