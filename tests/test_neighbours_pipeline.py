"""The pipeline in neighbours/: it keeps the rules of the study's own, and the study's own leaves it alone."""

import shutil
import subprocess

import pandas as pd
import pytest

from neighbours.methods import gradients_a_step
from tests import copies
from tests.conftest import SmokeRun, digests
from tools import check, run, settings, stages
from tools.live import YAML_SAFE, overlay
from tools.readme import dag
from tools.tasks import code_hash, reachable
from unlearning.errors import StudyError

ROOT = copies.ROOT
FOLDER = ROOT / "neighbours"
STAGES = ("methods", "neighbours", "theory")


def source(stage):
    words = stages.stage_of(stage).cmd.split()
    assert words[:3] == ["python", "-m", "tools.run"] and len(words) == 4
    return ROOT / words[3]


@pytest.mark.parametrize("stage", STAGES)
def test_a_notebook_declares_exactly_the_parameters_of_its_stage(stage, at_root):
    assert run.parameters(source(stage), stages.params(stage), stage)


@pytest.mark.parametrize("stage", STAGES)
def test_the_modules_that_a_notebook_and_its_tasks_lead_to_lie_in_the_dependencies_of_its_stage(stage, at_root):
    code = copies.code_of(source(stage))
    found = reachable("\n".join([code, *(p.read_text() for p in (ROOT / "src/paper").glob("*.py"))]))
    assert stages.undeclared(stage, found if "paper" in code else reachable(code)) == []
    assert source(stage).relative_to(ROOT).as_posix() in map(str, stages.stage_of(stage).deps)


def test_the_reading_notebook_starts_from_tables_and_loads_no_torch(at_root):
    deps = list(map(str, stages.stage_of("neighbours").deps))
    assert not [d for d in deps if d.startswith(("data/", "models/"))]
    told = "import sys, neighbours.reading; print('torch' in sys.modules)"
    ran = subprocess.run(["python", "-c", told], env=copies.environment(ROOT), capture_output=True, text=True)
    assert ran.stdout == "False\n", ran.stderr


def test_handing_out_tasks_loads_no_torch():
    told = "import sys, neighbours.jobs; print('torch' in sys.modules)"
    ran = subprocess.run(["python", "-c", told], env=copies.environment(ROOT), capture_output=True, text=True)
    assert ran.stdout == "False\n", ran.stderr


def test_a_task_rests_on_the_methods_that_it_leads_to():
    from neighbours import jobs

    modules = reachable((ROOT / "src/neighbours/jobs.py").read_text())
    assert {"neighbours.grail", "neighbours.newton", "unlearning.measure.ascent"} <= modules
    assert "neighbours.reading" not in modules and not any(m.startswith("paper") for m in modules)
    assert len(code_hash(jobs.rates)) == 64


def test_the_studys_own_pipeline_does_not_know_of_it(at_root):
    assert not set(STAGES) & set(stages.stages()) and not any(name in dag() for name in STAGES)
    assert {f"neighbours/dvc.yaml:{name}" for name in STAGES} <= set(stages.stages(beside=True))


def test_what_was_never_run_has_nothing_to_fit_and_what_it_made_is_no_leftover(at_root, monkeypatch):
    never = stages.never_run("neighbours/dvc.yaml:methods")
    assert never is not (FOLDER / "dvc.lock").exists()
    assert not stages.never_run("corpus")
    monkeypatch.setattr(stages, "misfits", lambda name: iter([f"looked at {name}"]))
    assert ("looked at neighbours/dvc.yaml:methods" in list(check.unfit())) is not never
    made = [str(out) for out in stages.stage_of("methods").outs]
    assert "results/tables/methods" in made
    assert not [p for p in stages.leftovers() if p.as_posix().startswith("results/tables/methods")]


def test_stages_write_folders_of_their_own_name(at_root):
    for stage in STAGES:
        outs = set(map(str, stages.stage_of(stage).outs))
        own = {f"results/tables/{stage}", f"figures/{stage}", f"results/notebooks/{stage}.ipynb"}
        assert outs <= own and f"results/notebooks/{stage}.ipynb" in outs


# Settings


def test_its_settings_are_valid_at_full_and_at_toy_size(at_root, tmp_path):
    found = settings.load_beside()
    assert set(found.neighbours.draws.values()) == {4}
    toy = overlay(*(YAML_SAFE.load((FOLDER / name).read_text()) for name in ("params.yaml", "small.yaml")))
    with (tmp_path / "params.yaml").open("w", encoding="utf-8") as stream:
        YAML_SAFE.dump(toy, stream)
    small = settings.load_beside(tmp_path / "params.yaml")
    assert small.neighbours.k_max < found.neighbours.k_max
    assert set(small.neighbours.methods) == set(found.neighbours.methods)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("beta: 0.1", "betta: 0.1", "unknown key 'neighbours.methods.npo.betta'. Did you mean"),
        ("loss: kl", "loss: kll", "kll"),
        ("{ind: 4,", "{inn: 4,", "Unknown family. Did you mean 'ind'"),
        ("noise: 1.0e-3, ", "", "noisy-fine-tuning is unlearned with noisy-sgd. Give it a noise."),
        ("share: [0.1, 0.2]", "share: [0.1, 1.0]", "neighbours.masks.share.1 is 1.0"),
        ("penalty: 0.1 ", "penalty: 0.0 ", "theory.penalty is 0.0"),
    ],
)
def test_a_mistake_is_told_with_file_and_line(at_root, tmp_path, old, new, told):
    text = (FOLDER / "params.yaml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "params.yaml").write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(StudyError) as error:
        settings.load_beside(tmp_path / "params.yaml")
    assert told in str(error.value) and ", line " in str(error.value)


def test_a_step_of_newtons_method_takes_at_most_twelve_gradients(at_root):
    methods = YAML_SAFE.load((FOLDER / "params.yaml").read_text())["neighbours"]["methods"]
    assert sum(gradients_a_step(methods["newton"])) <= 12
    assert all(sum(gradients_a_step(m)) <= 2 for m in methods.values() if m["loss"] != "newton")


# All of it at toy size


@pytest.mark.slow
@pytest.mark.long
def test_the_pipeline_runs_at_toy_size_after_the_studys_and_changes_nothing_of_it(smoke: SmokeRun, tmp_path):
    study = tmp_path / "study"
    shutil.copytree(smoke.root, study, symlinks=True)
    params = overlay(*(YAML_SAFE.load((FOLDER / name).read_text()) for name in ("params.yaml", "small.yaml")))
    with (study / "neighbours/params.yaml").open("w", encoding="utf-8") as stream:
        YAML_SAFE.dump(params, stream)
    before = digests(study, "results", "figures", "models")
    assert "neighbours" not in copies.dvc(study, "repro", "--dry").stdout
    ran = copies.dvc(study, "repro", "neighbours/dvc.yaml")
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-6000:]
    after = digests(study, "results", "figures", "models")
    assert {path: after.get(path) for path in before} == before
    table = pd.read_csv(study / "results/tables/methods/runs.csv")
    assert set(table["method"]) == set(params["neighbours"]["methods"])
    assert {"reached", "censored"} <= set(table["status"]), "the toy no longer shows all that may happen"
    means = pd.read_csv(study / "results/tables/neighbours/methods.csv")
    assert set(means["family"]) == set(params["neighbours"]["draws"])
    for name in STAGES:
        assert (study / f"results/notebooks/{name}.ipynb").exists()
    checked = copies.module(study, "tools.check")
    assert "methods" not in checked.stdout and "theory" not in checked.stdout, checked.stdout
