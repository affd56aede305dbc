"""The whole study, small, in a folder of its own, and the page that shows it."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest

from tests import copies
from tests.conftest import digests
from tools import quick, settings
from tools.live import YAML_SAFE, small

ROOT = copies.ROOT


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A copy of the repository, and one's own text elsewhere."""
    root = copies.copy_repository(tmp_path / "study")
    rows = [{"source": f"Frage {i} nach dem Weg", "target": f"question {i} about the way"} for i in range(9)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.chdir(root)
    return root


def test_the_small_study_is_laid_out_in_an_ignored_folder_of_its_own_and_nothing_else_is_touched(study):
    before = digests(study, ".")
    quick.lay_out()
    after = digests(study, ".")
    assert {path for path in after if after[path] != before.get(path)} == {p for p in after if "scratch/quick/" in p}
    assert not before.keys() - after.keys()
    params = YAML_SAFE.load((study / "params.yaml").read_text(encoding="utf-8"))
    assert YAML_SAFE.load((quick.HERE / "params.yaml").read_text(encoding="utf-8")) == small(params)
    status = subprocess.run(["git", "status", "--porcelain"], cwd=study, capture_output=True, text=True)
    assert (status.returncode, status.stdout) == (0, "")
    listed = [copies.dvc(folder, "stage", "list", "--name-only", "--all").stdout for folder in (study, quick.HERE)]
    assert all("claims" in names.split() for names in listed) and "scratch" not in listed[0]


def test_ones_own_text_takes_one_argument(study, tmp_path, monkeypatch):
    (quick.HERE / "results").mkdir(parents=True)
    quick.lay_out(tmp_path / "mine.jsonl")
    monkeypatch.chdir(quick.HERE)
    found = settings.load()
    settings.check_own_files(found)
    assert (found.corpus.name, found.corpus.path) == ("jsonl", "own/corpus/mine.jsonl")
    assert Path(found.corpus.path).read_bytes() == (tmp_path / "mine.jsonl").read_bytes()


def test_a_check_that_fails_is_the_end_of_it_and_a_run_that_passes_ends_with_the_page(study, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(quick, "page", lambda: "a page")
    for codes in ([1], [0, 3], [0, 0]):
        ran.clear()
        left = iter(codes)
        answer = lambda command, left=left, **_: ran.append(command[2]) or SimpleNamespace(returncode=next(left))  # noqa: E731
        monkeypatch.setattr(subprocess, "run", answer)
        assert quick.main([]) == codes[-1]
        assert ran == ["tools.settings", "dvc"][: len(codes)]
    assert capsys.readouterr().out.startswith("\na page shows it all")


@pytest.mark.filterwarnings("error")
def test_the_page_holds_verdicts_and_notebooks_in_reading_order_and_its_links_lead_within_it(tmp_path, monkeypatch):
    monkeypatch.setattr(quick, "HERE", tmp_path)
    for folder in ("notebooks", "results/notebooks", "results/tables/claims"):
        (tmp_path / folder).mkdir(parents=True)
    words = [("C1", "adamw", "supported"), ("C2", "adamw", "inconclusive"), ("C2", "sgd", "not computed")]
    table = pd.DataFrame(words * 2, columns=["claim", "arm", "claim_verdict"])
    table.loc[len(table)] = ["C1", "adamw", None]  # beside a claim
    table.to_csv(tmp_path / "results/tables/claims/claims.csv")
    prose = {"train-sgd": "see [it](claims.ipynb) and ![](../../figures/a.png)", "claims": "[back](train-sgd.ipynb)"}
    for source, copy in (("04_train", "train-sgd"), ("07_training", "training"), ("11_claims", "claims")):
        (tmp_path / f"notebooks/{source}.ipynb").touch()
        cell = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("stream", text=f"printed by {copy}")])
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(prose.get(copy, copy)), cell])
        nbformat.write(notebook, tmp_path / f"results/notebooks/{copy}.ipynb")
    text = quick.page().read_text(encoding="utf-8")
    shown = ["<td>supported</td>", *(f"printed by {name}" for name in ("train-sgd", "training", "claims"))]
    assert [text.count(part) for part in shown] == [1] * 4 and sorted(shown, key=text.index) == shown
    assert text.count("<td>too small to decide</td>") == 2 and "inconclusive" not in text
    assert 'href="#claims"' in text and 'href="#train-sgd"' in text and 'src="figures/a.png"' in text
