"""The committed results: what they show when run again, and what they have to fit."""

import re
import subprocess
import sys

import nbformat
import pandas as pd
import pytest
from ruamel.yaml import YAML

from tests import copies
from tools import run
from unlearning.data import kinds

ROOT = copies.ROOT


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the repository: nothing here may be written to."""
    return copies.copy_repository(tmp_path_factory.mktemp("committed") / "study")


@pytest.mark.parametrize("stage", copies.READING)
def test_a_reading_notebook_that_a_person_runs_says_what_its_committed_copy_says(stage, copy):
    """From its own folder, with no parameters, every output compared; nothing that is committed is overwritten."""
    (source,) = copy.glob(f"notebooks/*_{stage}.ipynb")
    parameters = next(c for c in nbformat.read(source, as_version=4).cells if c.cell_type == "code")
    notebook = nbformat.read(copy / f"results/notebooks/{stage}.ipynb", as_version=4)
    cells = [c for c in notebook.cells if c.cell_type == "code"]
    # by hand a block of parameters is shown whole, where the stage takes one key; and there are choosers
    for cell in [cells[0], *(c for c in cells if "UNLEARNING_STAGE" in c.source)]:
        cell.metadata["tags"] = ["nbval-ignore-output"]
    notebook.cells.insert(0, parameters)  # an executed copy has it no longer
    nbformat.write(notebook, copy / f"notebooks/by-hand-{stage}.ipynb")
    command = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=300", "-p", "no:cacheprovider", "-q"]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *command, f"by-hand-{stage}.ipynb"],
        cwd=copy / "notebooks",
        env=copies.environment(copy) | run.environment({}),
        capture_output=True,
        text=True,
    )
    (copy / f"notebooks/by-hand-{stage}.ipynb").unlink()
    assert ran.returncode == 0, ran.stdout[-5000:]
    for path in (copy / "results/tables" / stage).rglob("*.csv"):
        here, there = pd.read_csv(copy / "scratch/by-hand" / path.relative_to(copy)), pd.read_csv(path)
        pd.testing.assert_frame_equal(here, there, rtol=1e-5, atol=1e-7)  # another processor rounds otherwise
    status = ["git", "status", "--porcelain", "--untracked-files=all"]
    assert subprocess.run(status, cwd=copy, capture_output=True, text=True).stdout == ""


def test_no_text_of_a_figure_is_a_printed_table():
    headers = [path.open(encoding="utf-8").readline() for path in ROOT.glob("results/tables/**/*.csv")]
    columns = {name for header in headers for name in header.strip().split(",") if "_" in name}
    for figure in ROOT.glob("figures/**/*.svg"):
        words = set(re.findall(r"\w+", " ".join(re.findall(r"<!--(.*?)-->", figure.read_text(encoding="utf-8"), re.S))))
        assert not columns & words, f"{figure.name} shows a column's name: {sorted(columns & words)}"


def test_executed_notebooks_and_images_are_small_enough_for_github():
    too_big = [p for p in ROOT.glob("results/notebooks/*.ipynb") if p.stat().st_size > 1_100_000]
    too_big += [p for p in ROOT.glob("figures/**/*.png") if p.stat().st_size > 400_000]
    assert not too_big


def test_the_learning_rates_of_ascent_are_those_that_the_pilots_rule_chose():
    arms = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text())["arms"]
    table = pd.read_csv(ROOT / "results/tables/pilot/learning_rates.csv").query("chosen and forget_set == 'pilot'")
    # of two trainings, that with AdamW
    chosen = table.sort_values("trained_with").groupby("method")["learning_rate"].last()
    assert {arm["method"]: arm["learning_rate"] for arm in arms.values()} == pytest.approx(chosen.to_dict())


def test_the_models_that_sets_are_unlearned_from_are_those_that_were_drawn_before_training():
    params = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text())
    names = kinds.family_names(params["forget_sets"])
    drawn = pd.read_csv(ROOT / "results/tables/forget_sets/ascended.csv")
    for arm, listed in params["ascents"].items():
        sets = {name for entry in listed for name in names.get(entry, [entry])}
        roles = ["in", "placebo"] if arm in params["unlearn"]["placebo"] else ["in"]
        due = drawn[drawn["forget_set"].isin(sets) & drawn["role"].isin(roles)]
        ran = pd.read_csv(ROOT / f"results/tables/unlearn/{arm}/runs.csv")
        rows = [set(table[["forget_set", "role", "model"]].itertuples(index=False, name=None)) for table in (due, ran)]
        assert rows[1] <= rows[0] and {r for r in rows[0] if r[1] == "in"} <= rows[1], arm


def test_every_model_is_better_than_its_base_on_held_out_text():
    gains = pd.read_csv(ROOT / "results/tables/training/gains.csv")
    assert len(gains) == 64 and gains["gain"].min() > 0
    assert gains.groupby("trained_with")["gain"].mean().min() >= 0.2


def test_tables_in_git_are_together_under_25_mb():
    assert sum(p.stat().st_size for p in ROOT.glob("results/**/*.*") if p.suffix in (".csv", ".parquet")) < 25e6
