"""What dvc.yaml, the notebooks and the repository promise each other, and the whole study at toy size."""

import json
import re
import shutil
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pytest
from ruamel.yaml import YAML

from tests import copies
from tests.conftest import SmokeRun, digests
from tools import quick, run, stages
from tools.tasks import reachable

ROOT = copies.ROOT
SOURCES = sorted(ROOT.glob("notebooks/*.ipynb"))
OWN = "own/forget_sets/mine.jsonl"
PIPELINE = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


@cache
def all_stages():
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        return {s.addressing: s for s in repo.index.stages}


def groups():
    """One stage of each entry of dvc.yaml: the first of a loop."""
    params = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    first = {
        "foreach": lambda b: next(iter(params[b["foreach"].strip("${}")])),
        "matrix": lambda b: "-".join(str(values[0]) for values in b["matrix"].values()),
    }
    loops = {name: next((key for key in first if key in block), None) for name, block in PIPELINE.items()}
    return [f"{name}@{first[loop](PIPELINE[name])}" if loop else name for name, loop in loops.items()]


def source_and_extras(stage):
    words = all_stages()[stage].cmd.split()
    assert words[:3] == ["python", "-m", "tools.run"]
    return ROOT / words[3], dict(w.split("=", 1) for w in words[4:])


# The notebooks and dvc.yaml agree


@pytest.mark.parametrize("stage", groups())
def test_a_notebook_declares_exactly_the_parameters_of_its_stage(stage, at_root):
    source, extras = source_and_extras(stage)
    run.parameters(source, stages.params(stage) | extras, stage)


@pytest.mark.parametrize("stage", groups())
def test_the_modules_that_a_notebook_and_its_tasks_lead_to_lie_in_the_dependencies_of_its_stage(stage, at_root):
    code = copies.code_of(source_and_extras(stage)[0])
    if re.search(r"^(import|from) paper\b", code, re.M):
        assert "src/paper" in map(str, all_stages()[stage].deps)
        code = "\n".join([code, *(path.read_text() for path in ROOT.glob("src/paper/*.py"))])
    assert stages.undeclared(stage, reachable(code)) == []


@pytest.mark.parametrize("stage", groups())
def test_a_stage_depends_on_its_notebook_and_writes_folders_of_its_own_name(stage):
    source, _ = source_and_extras(stage)
    assert source.relative_to(ROOT).as_posix() in map(str, all_stages()[stage].deps)
    kept = {str(out) for out in all_stages()[stage].outs if not out.use_cache}
    own = {f"{top}/{stage.replace('@', '/')}" for top in ("results/tables", "figures")}
    assert kept <= own | {f"results/notebooks/{stage.replace('@', '-')}.ipynb"}
    assert f"results/notebooks/{stage.replace('@', '-')}.ipynb" in kept


def test_dvc_yaml_can_be_read_in_one_sitting():
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 200


def test_every_notebook_belongs_to_a_stage():
    assert {source_and_extras(s)[0] for s in all_stages()} == set(SOURCES)


def test_the_stages_stand_in_the_order_in_which_they_run():
    made = {}
    for position, name in enumerate(PIPELINE):
        for stage in [s for s in all_stages().values() if s.addressing.split("@")[0] == name]:
            made |= {str(out): position for out in stage.outs}
            assert all(made.get(str(dep), -1) <= position for dep in stage.deps), stage.addressing


@pytest.mark.parametrize("stage", copies.READING)
def test_a_reading_stage_starts_from_tables_in_git_and_imports_no_torch(stage):
    source, _ = source_and_extras(stage)
    assert not [d for d in map(str, all_stages()[stage].deps) if d.startswith(("data/", "models/"))]
    code = [copies.code_of(source), *(path.read_text() for path in ROOT.glob("src/paper/*.py"))]
    code += [(ROOT / f"src/{m.replace('.', '/')}.py").read_text() for m in reachable("\n".join(code))]
    code = [re.sub(r"^if TYPE_CHECKING:.*\n(    .*\n)+", "", c, flags=re.M) for c in code]  # never runs
    assert not [c for c in code if re.search(r"^\s*(import|from) (torch|transformers|datasets)\b", c, re.M)]


@pytest.mark.parametrize("name", ["train@adamw", "unlearn@adamw"])
def test_a_notebook_that_only_hands_out_tasks_loads_no_torch_to_do_so(name):
    jobs = {m for m in reachable(copies.code_of(source_and_extras(name)[0])) if m.endswith("_job")}
    told = "import sys; print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])"
    ran = subprocess.run(
        [sys.executable, "-c", "\n".join([*(f"import {m}" for m in jobs), told])], capture_output=True, text=True
    )
    assert jobs and ran.stdout == "[]\n", ran.stderr


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a source archive: git says nothing here")
def test_what_goes_to_git_is_not_ignored_and_what_is_cached_is():
    outs = [o for s in all_stages().values() for o in s.outs]
    for cached in (True, False):
        paths = [str(o) for o in outs if o.use_cache is cached]
        ignored = subprocess.run(
            ["git", "check-ignore", *paths], cwd=ROOT, capture_output=True, text=True
        ).stdout.split()
        assert sorted(ignored) == (sorted(paths) if cached else [])


# The sources


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_a_source_holds_no_outputs_and_says_what_papermill_needs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3" and notebook.metadata.language_info.name == "python"
    assert not any(c.outputs or c.execution_count for c in code)
    assert [c for c in code if "parameters" in c.metadata.get("tags", [])] == code[:1]
    assert notebook.cells[0].cell_type == "markdown"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_a_source_leaves_its_process_alone_and_seeds_by_parameter_only(path):
    code = copies.code_of(path)
    assert not re.search(r"\b(sys\.exit|exit\(|quit\(|os\._exit)", code)
    assert not re.search(r"seed\s*=\s*\d|(default_rng|manual_seed|RandomState|\.seed|random_state=)\(?\d", code)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_a_source_links_to_its_executed_copy(path):
    text = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
    linked = re.findall(r"\.\./(results/notebooks[\w./-]*)\)", text)
    assert linked, "no link to ../results/notebooks"
    written = {str(out) for s in all_stages().values() for out in s.outs}
    assert set(linked) <= written | {"results/notebooks"}  # the folder, for a notebook with many copies


@pytest.mark.parametrize("folder", ["notebooks", "results/notebooks"])
def test_every_link_of_a_notebook_leads_to_a_file_of_the_repository(folder):
    made = {str(out) for s in all_stages().values() for out in s.outs}
    for path in sorted((ROOT / folder).glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            for link in re.findall(r"\]\(([^)#]+)", cell.source) if cell.cell_type == "markdown" else []:
                target = (path.parent / link).resolve()
                there = target.exists() or (target.is_relative_to(ROOT) and str(target.relative_to(ROOT)) in made)
                assert link.startswith("http") or there, f"{path.name}: {link}"


def test_no_source_names_a_machine_or_a_user():
    named = re.compile(r"/(home|root|Users|work|mnt)/\w")
    bad = [p for p in copies.repository_files() if p.suffix in (".py", ".ipynb", ".yaml", ".yml", ".md", ".toml", "")
           and p.parts[0] not in ("results",) and p.name != "test_pipeline.py"
           and named.search((ROOT / p).read_text(encoding="utf-8", errors="ignore"))]  # fmt: skip
    assert not bad


# The whole study at toy size


@pytest.mark.slow
def test_the_whole_pipeline_runs_at_toy_size(smoke: SmokeRun):
    written = {p.relative_to(smoke.root).as_posix() for p in (smoke.root / "results").rglob("*") if p.is_file()}
    assert {f"results/notebooks/{s}.ipynb" for s in copies.READING} <= written
    params = YAML(typ="safe", pure=True).load((smoke.root / "params.yaml").read_text())
    assert {w.split("/")[3] for w in written if re.match(r"results/tables/unlearn/.*/runs\.csv", w)} == set(
        params["ascents"]
    )
    runs = pd.concat(map(pd.read_csv, smoke.root.glob("results/tables/unlearn/*/runs.csv")))
    assert set(runs["status"]) == {"reached", "censored", "placebo"}, "the toy no longer shows all that may happen"
    claims = pd.read_csv(smoke.root / "results/tables/claims/claims.csv")
    assert claims.loc[claims["part"] != "beside", "verdict"].notna().all()


@pytest.mark.slow
def test_the_toy_run_touches_no_committed_result(smoke: SmokeRun):
    after = digests(ROOT, "results", "figures")
    assert {path: after.get(path) for path in smoke.committed_before} == smoke.committed_before


@pytest.mark.slow
def test_a_second_run_of_the_pipeline_does_nothing(smoke: SmokeRun):
    before = digests(smoke.root, "results", "figures", "data/forget_sets")
    again = copies.dvc(smoke.root, "repro")
    assert again.returncode == 0 and "Running stage" not in again.stdout
    assert digests(smoke.root, "results", "figures", "data/forget_sets") == before


@pytest.mark.slow
def test_results_of_the_toy_run_follow_from_its_code_settings_and_inputs(smoke: SmokeRun):
    checked = copies.module(smoke.root, "tools.check")
    assert checked.returncode == 0 and " 0 outside" in checked.stdout, checked.stdout + checked.stderr


@pytest.mark.slow
def test_a_new_kind_of_forget_set_touches_the_three_files_that_contributing_names_and_goes_through(smoke: SmokeRun):
    files = {"src/unlearning/data/kinds.py", "src/paper/look.py", "params.yaml"}
    assert set(smoke.touched) == files
    assert all(f"`{name}`" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8") for name in files)
    examples = pd.read_parquet(smoke.root / "results/tables/forget_sets/examples.parquet")
    assert smoke.kind in set(examples["kind"].astype(str))


@pytest.mark.slow
def test_a_colour_a_caption_a_claims_words_and_a_docstring_make_no_measuring_stage_stale(smoke: SmokeRun, tmp_path):
    study = tmp_path / "study"
    shutil.copytree(smoke.root, study, symlinks=True)
    edits = {
        "src/paper/look.py": ("#0072b2", "#123456"),  # a colour
        "src/paper/verdicts.py": ("OOD data need more", "Strange data need more"),  # a claim's words
        "src/unlearning/core/stats.py": ('"""', '"""Other words. '),  # a docstring
        "notebooks/09_trade_off.ipynb": ("Thin: a draw, mean", "Thin lines: a draw, mean"),  # a caption
    }
    for name, (old, new) in edits.items():
        text = (study / name).read_text(encoding="utf-8")
        assert old in text, f"{name} does not say {old}"
        (study / name).write_text(text.replace(old, new, 1), encoding="utf-8")
    told = copies.dvc(study, "status", "--json", "dvc.yaml")  # not of the pipeline in a folder of its own
    assert {name.rpartition(":")[2] for name in json.loads(told.stdout)} == set(copies.READING), told.stdout


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was_and_ends_with_the_same_bytes_in_one_worker(smoke: SmokeRun):
    shutil.rmtree(smoke.root / "scratch")
    parts = ("results/tables", "results/notebooks", "models", "figures")
    before = digests(smoke.root, *parts)
    _kill_after_the_first_model(smoke.root, "train@adamw")
    finished = [p.name for p in (smoke.root / "scratch/models").iterdir() if not p.name.startswith(".")]
    ran = copies.dvc(smoke.root, "repro", "-s", "train@adamw", UNLEARNING_WORKERS="1")
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert f"{len(finished)} of 15 adamw model tasks were finished before" in ran.stdout + ran.stderr
    ran = copies.dvc(smoke.root, "repro", "-f", "-s", "unlearn@adamw-half", UNLEARNING_WORKERS="1")
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert digests(smoke.root, *parts) == before


def _kill_after_the_first_model(root: Path, stage: str) -> None:
    """SIGKILL dvc and the runner as soon as one model is there; wait until the kernel has noticed and gone."""
    command = [sys.executable, "-m", "dvc", "repro", "-f", "-s", stage]
    env = copies.environment(root, UNLEARNING_WORKERS="2")
    running = subprocess.Popen(command, cwd=root, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not any(p.name[0] != "." for p in (root / "scratch/models").glob("*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    tree = psutil.Process(running.pid).children(recursive=True)
    runners = [p for p in tree if "tools.run" in p.cmdline()]
    for process in (psutil.Process(running.pid), *runners):
        process.kill()
    running.wait()
    _, alive = psutil.wait_procs(tree, timeout=60)
    assert not alive


@pytest.mark.slow
@pytest.mark.parametrize(
    ("block", "change", "message"),
    [
        ("base", {"learning_rate": "1e-3"}, "base.learning_rate"),
        ("corpus", {"sha256": "0" * 64}, "sha256"),
        (
            "forget_sets",
            {"ind-x4": {"kind": "own", "path": "own/forget_sets/mine.jsonl", "repetitions": 1}},
            "mine.jsonl",
        ),
    ],
    ids=["settings", "archive", "own forget set"],
)
def test_bad_input_is_one_message_and_overwrites_nothing(smoke: SmokeRun, tmp_path, block, change, message):
    study = tmp_path / "study"
    shutil.copytree(smoke.root, study, symlinks=True)
    shutil.rmtree(study / ".git")  # from a commit alone, nothing could be put back
    assert copies.module(study, "tools.doctor").returncode == 0
    (study / OWN).write_text('{"id": "a", "source": "x", "target": 3}\n')
    yaml = YAML(typ="safe", pure=True)
    params = yaml.load((study / "params.yaml").read_text())
    params[block] |= change
    yaml.dump(params, study / "params.yaml")
    parts = ("results", "figures", "data/corpus", "data/forget_sets", "data/populations", "data/tokenizer")
    before = digests(study, *parts)
    ran = copies.dvc(study, "repro")
    assert ran.returncode != 0 and message in ran.stderr and "Traceback" not in ran.stderr, ran.stderr[-3000:]
    assert digests(study, *parts) == before


@pytest.mark.slow
def test_on_a_fresh_clone_a_stage_is_rerun_after_those_that_make_what_it_lacks(smoke: SmokeRun, tmp_path):
    clone = _clone(smoke.root, tmp_path / "clone")
    assert copies.module(clone, "tools.check").returncode == 0
    assert not (clone / "data/corpus").exists()
    chain = copies.module(clone, "tools.stages", "forget_sets").stdout.split()
    assert chain == ["corpus", "forget_sets"]
    ran = copies.dvc(clone, "repro", "-f", "-s", *chain)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    checked = copies.module(clone, "tools.check")
    assert checked.returncode == 0 and " 0 outside" in checked.stdout, checked.stdout


@pytest.mark.slow
def test_a_stage_that_fails_puts_the_committed_results_back(smoke: SmokeRun, tmp_path):
    clone = _clone(smoke.root, tmp_path / "clone")
    path = clone / "notebooks/11_claims.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-1] = nbformat.v4.new_code_cell("1 / 0")
    nbformat.write(notebook, path)
    before = digests(clone, "results/tables", "results/notebooks", "figures")
    ran = copies.dvc(clone, "repro", "-f", "-s", "claims")
    assert ran.returncode != 0 and "ZeroDivisionError" in ran.stderr
    assert digests(clone, "results/tables", "results/notebooks", "figures") == before


@pytest.mark.slow
def test_figures_are_redrawn_on_a_fresh_clone_without_data_or_models(smoke: SmokeRun, tmp_path):
    clone = _clone(smoke.root, tmp_path / "clone")
    before = digests(clone, "results/tables", "results/notebooks", "figures")
    ran = copies.dvc(clone, "repro", "-f", "-s", "claims")
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert digests(clone, "results/tables", "results/notebooks", "figures") == before


@pytest.mark.slow
def test_an_archive_without_git_is_made_to_work(smoke: SmokeRun, tmp_path):
    archive = _clone(smoke.root, tmp_path / "archive")
    shutil.rmtree(archive / ".git")
    assert "no .git" in copies.module(archive, "tools.doctor").stdout
    ran = copies.dvc(archive, "repro", "-s", "claims")
    assert ran.returncode == 0, ran.stderr[-2000:]


def _clone(repository: Path, target: Path) -> Path:
    subprocess.run(["git", "clone", "-q", str(repository), str(target)], check=True)
    raw = ROOT / "data/raw"
    if raw.is_dir():
        (target / "data").mkdir(exist_ok=True)
        (target / "data/raw").symlink_to(raw)
    return target


@pytest.mark.slow
def test_the_page_of_a_whole_run_shows_every_notebook_and_figure(smoke: SmokeRun, monkeypatch):
    monkeypatch.setattr(quick, "HERE", smoke.root)
    text = quick.page().read_text(encoding="utf-8")
    (smoke.root / "study.html").unlink()
    copied = [path.stem for path in (smoke.root / "results/notebooks").glob("*.ipynb")]
    assert all(f'id="{name}"' in text for name in copied) and len(copied) > 12
    assert set(re.findall(r'href="#([\w-]+)"', text)) & set(copied)
    assert text.count("data:image/png") >= 20
