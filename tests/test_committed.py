"""The committed results: what they show when run again, and what they have to fit."""

import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from ruamel.yaml import YAML

from tests import copies
from tools import run

ROOT = copies.ROOT


@pytest.mark.parametrize("stage", copies.READING)
def test_a_committed_reading_notebook_says_what_it_said_when_run_again(stage, tmp_path):
    """Strict nbval, in a copy of the committed tables: nothing here may be written to."""
    executed = ROOT / "results/notebooks" / f"{stage}.ipynb"
    assert executed.exists(), f"no executed copy of {stage}: dvc repro {stage}"
    shutil.copy(executed, tmp_path)
    shutil.copytree(ROOT / "results/tables", tmp_path / "results/tables")
    (tmp_path / "conftest.py").write_text(
        "def pytest_collectstart(collector):\n"
        "    if getattr(collector, 'skip_compare', None) is not None:\n"
        "        collector.skip_compare += 'stderr',\n"
    )
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "--nbval-cell-timeout=300",
               "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-q", f"{stage}.ipynb"]  # fmt: skip
    env = copies.environment(ROOT) | run_notebook.environment({}) | {"DVC_STAGE": stage}
    ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-5000:]


def test_no_text_of_a_figure_is_a_printed_table():
    headers = [path.open(encoding="utf-8").readline() for path in ROOT.glob("results/tables/*.csv")]
    columns = {name for header in headers for name in header.strip().split(",") if "_" in name}
    for figure in ROOT.glob("figures/*.svg"):
        words = set(re.findall(r"\w+", " ".join(re.findall(r"<!--(.*?)-->", figure.read_text(encoding="utf-8"), re.S))))
        assert not columns & words, f"{figure.name} shows a column's name: {sorted(columns & words)}"


def test_executed_notebooks_and_images_are_small_enough_for_github():
    too_big = [p for p in ROOT.glob("results/notebooks/*.ipynb") if p.stat().st_size > 1_000_000]
    too_big += [p for p in ROOT.glob("figures/*.png") if p.stat().st_size > 400_000]
    assert not too_big


def test_the_learning_rates_of_ascent_are_those_that_the_pilots_rule_chose():
    params = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text())
    chosen = pd.read_csv(ROOT / "results/tables/learning_rates.csv").query("chosen").sort_values("trained_with")
    by_method = chosen.groupby("method")["learning_rate"].last().to_dict()  # of two trainings, that with AdamW
    assert by_method == {m: pytest.approx(params["methods"][m]["learning_rate"]) for m in params["pilot"]["methods"]}


def test_every_model_is_better_than_its_base_on_held_out_text():
    gains = pd.read_csv(ROOT / "results/tables/training_gains.csv")
    assert len(gains) == 32 and gains["gain"].min() > 0
    assert gains.groupby("trained_with")["gain"].mean().min() >= 0.2


def test_tables_in_git_are_together_under_15_mb():
    assert sum(p.stat().st_size for p in ROOT.glob("results/**/*.*") if p.suffix in (".csv", ".parquet")) < 15e6
