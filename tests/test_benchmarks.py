"""The benchmark at toy size: every arm runs, the gate shuts, and its tables say what was measured."""

import dataclasses
import json
import mmap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import (
    arms,
    extrapolation,
    gate,
    growth,
    large,
    ours,
    pipeline_times,
    profile,
    report,
    run,
    targets,
    workloads,
)
from benchmarks.arms import ARMS
from benchmarks.clock import MIB, held, with_peak
from benchmarks.exponents import exponent, exponents
from benchmarks.growth_cases import Factor, _job, train_models
from benchmarks.processes import MEMORY_KEPT, Job, crews


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    made = workloads.toy(folder)
    made.save(folder)
    return made


@pytest.fixture
def folder(work):
    return Path(work.start).parent


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def set_up(arm, work):
    module, _, name = arm.job.function.partition(":")
    return getattr(__import__(module, fromlist=[name]), name)(work, **arm.job.options)


def test_what_a_workload_writes_it_reads_again(work, folder):
    assert workloads.load(folder) == work


def test_the_gate_finds_that_all_arms_compute_the_same(work):
    table = gate.check(work)
    assert table["equal"].all(), table[~table["equal"]]
    assert set(table.loc[table["what"] == "loss after training steps", "arm"]) == set(gate.TRAINING)


def test_the_gate_sees_an_arm_that_clips_otherwise_and_then_nothing_is_timed(tmp_path, capsys):
    def wrong(model, work, epochs, batches, after_step):
        other = dataclasses.replace(work, training=work.training | {"clip_norm": 0.01, "eps": 1e-3})
        gate.TRAINING["plain loop"](model, other, epochs, batches, after_step)

    arms = gate.TRAINING | {"wrong": wrong}
    status = run.run(tmp_path, smoke=True, repeats=1, only=["matmul"], training=arms)
    table = pd.read_csv(tmp_path / "gate.csv")
    assert status == 1
    assert set(table.loc[~table["equal"], "arm"]) == {"wrong"}
    assert [p.name for p in tmp_path.iterdir()] == ["gate.csv"]
    assert "Nothing is timed" in capsys.readouterr().err


def test_the_gate_sees_logits_of_more_positions_than_allowed(work, monkeypatch):
    monkeypatch.setattr("unlearning.measure.models.LOGITS", 10 * work.new_model().config.vocab_size)
    assert gate.projection(work)["equal"].all()
    monkeypatch.setattr(ours, "largest_projection", lambda work: 11)
    assert not gate.projection(work)["equal"].any()


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: f"{arm.workload}: {arm.name}")
def test_every_arm_does_all_of_its_work(arm, work, monkeypatch):
    monkeypatch.setattr("benchmarks.arms.MATMUL", 50)
    span = set_up(arm, work)()
    assert span.ended > span.started
    expected = {
        "training": workloads.tokens(work.train),
        "matmul": 8 * 2 * 50**3 / 1e9,
        "ascent": work.steps,
        "scoring": len(work.heldout),
        "scoring_50k": len(work.heldout),
        "translation": work.decoded,
    }
    assert span.units == expected[arm.workload]


@pytest.mark.slow
def test_processes_side_by_side_start_together_and_are_counted_together(work, folder):
    arm = next(a for a in ARMS if a.name == "ours float32")
    with crews([arm.job], folder) as (crew,):
        results = [crew.run(), crew.run()]
    assert [r.span.units for r in results] == [2 * workloads.tokens(work.train)] * 2
    assert all(r.seconds > 0 and r.peak_mib > 0 for r in results)


def test_a_process_that_dies_is_reported_with_its_last_words(folder):
    with (
        pytest.raises(RuntimeError, match="no_such_function"),
        crews([Job("benchmarks.arms:no_such_function")], folder),
    ):
        pass


def test_only_arms_that_ask_for_it_keep_freed_memory(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    plain, kept = Job("x:y").environment(), Job("x:y", threads=1, memory_kept=True).environment()
    assert not {*MEMORY_KEPT, "ATEN_CPU_CAPABILITY"} & set(plain)
    assert MEMORY_KEPT.items() <= kept.items()
    assert (plain["OMP_NUM_THREADS"], kept["OMP_NUM_THREADS"]) == ("2", "1")


def test_the_peak_of_memory_is_what_the_work_takes_at_once():
    def touch():
        with mmap.mmap(-1, 16 * MIB) as block:  # straight from the kernel: no freed memory of this process is used
            block[::4096] = bytes(len(block) // 4096)

    before = held()
    _, peak = with_peak(lambda: [touch() for _ in range(5)])
    assert 15 < peak - before < 40


def test_padding_is_computed_but_no_token(work):
    assert ours.flops_per_token(work) > 0
    assert workloads.tokens([([5, 1], [6, 7, 1])]) == 5


@pytest.mark.parametrize("power", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_the_exponent_of_an_exact_power_law_is_found_without_error(power):
    x = np.array([1, 2, 4, 8])
    slope, error = exponent(x, 3 * x**power)
    assert slope == pytest.approx(power, abs=1e-12)
    assert error == pytest.approx(0, abs=1e-6)


def test_two_points_have_an_exponent_but_no_error():
    slope, error = exponent([1, 2], [5, 20])
    assert slope == pytest.approx(2)
    assert np.isnan(error)


def test_memory_grows_by_the_first_repeats_alone():
    points = pd.DataFrame(
        [("n", v, r, v, v**2 if r == 0 else 1) for v in (1, 2, 4) for r in (0, 1)],
        columns=["factor", "value", "repeat", "seconds", "peak_mib"],
    )
    found = exponents(points).iloc[0]
    assert (found["time_exponent"], found["memory_exponent"]) == (pytest.approx(1), pytest.approx(2))


def made_up_summary(**changes):
    """Every arm at 10 a second and 30 MiB, but for `changes`: {"workload: arm": (median, peak)}."""
    rows = [(arm.workload, arm.name, 10.0, 30.0) for arm in ARMS]
    rows = [(w, n, *changes.get(f"{w}: {n}", (m, p))) for w, n, m, p in rows]
    return pd.DataFrame(rows, columns=["workload", "arm", "median", "peak_mib"])


FACTS = {
    "flops_per_token": 1e9,
    "largest_projection": 500,
    "allowed_projection": 512,
    "models": 16,
    "sets": 9,
    "references": 8,
}


def test_targets_are_ratios_of_medians_and_the_peers_best_setting_is_the_fastest_one():
    summary = made_up_summary(
        **{
            "training: ours float32": (70.0, 0.0),
            "training: Trainer grouped": (20.0, 0.0),
            "matmul: float32": (100.0, 0.0),
            "ascent: ours": (39.0, 0.0),
            "scoring: ours": (30.0, 10.0),
            "scoring_50k: ours": (29.0, 11.0),
        }
    )
    table = targets.targets(summary, FACTS).set_index("target")

    def row(*words):
        (found,) = [i for i in table.index if all(w in i for w in words)]
        return tuple(table.loc[found])

    assert row("float32, against", "at its default") == ("≥ 7.0 ×", "7.0 ×", True)
    assert row("float32, AVX2", "at its default") == ("≥ 7.0 ×", "1.0 ×", False)
    assert row("float32, against", "best (Trainer grouped)") == ("≥ 3.0 ×", "3.5 ×", True)
    assert row("bfloat16", "at its default") == ("≥ 7.0 ×", "1.0 ×", False)
    assert row("ascent") == ("≥ 4.0 ×", "3.9 ×", False)
    assert row("the same, AVX2") == ("≥ 4.0 ×", "1.0 ×", False)
    whole = "full logits, one"
    assert row("scoring: speed", whole)[2] and row("scoring: peak", whole)[2]
    assert not row("scoring_50k: speed", whole)[2] and not row("scoring_50k: peak", whole)[2]
    assert row("matmul peak", "float32") == ("≥ 50%", "70%", True)
    assert row("no tensor") == ("≤ 512", "500", True)
    assert row("trainings for 8") == ("< 72", "16", True)


def test_without_instructions_for_bfloat16_the_targets_are_those_of_float32():
    whole = made_up_summary()
    some = whole[~whole["arm"].str.contains("bfloat16")]
    missing = set(targets.targets(whole, FACTS)["target"]) - set(targets.targets(some, FACTS)["target"])
    assert len(missing) == 3
    assert all("bfloat16" in target for target in missing)


def test_a_processor_whose_bfloat16_crawls_is_found_out(monkeypatch):
    speeds = {"float32": 100.0, "bfloat16": 0.3}
    monkeypatch.setattr(arms, "reference_gflops", lambda dtype, *, size: speeds[dtype])
    assert not arms.bfloat16_pays()
    speeds["bfloat16"] = 90.0
    assert arms.bfloat16_pays()


def test_the_balanced_design_needs_sixteen_models_for_eight_references_of_nine_sets():
    assert targets.models_needed(9, 8, min_free_columns=4) == 16
    assert targets.models_needed(9, 16, min_free_columns=4) == 32


def test_a_summary_has_median_and_quartiles_of_every_arm_and_a_figure_shows_them(tmp_path):
    rows = [(a.workload, a.name, r, 1.0 + r, 5.0 - r) for a in ARMS for r in range(5)]
    repeats = pd.DataFrame(rows, columns=["workload", "arm", "repeat", "rate", "peak_mib"])
    summary = report.summarise(repeats)
    assert len(summary) == len(ARMS)
    assert set(map(tuple, summary[["quartile_1", "median", "quartile_3", "peak_mib"]].to_numpy())) == {(2, 3, 4, 1)}
    report.draw(summary, tmp_path)
    assert (tmp_path / "speed.png").stat().st_size > 10_000
    assert (tmp_path / "speed.svg").exists()


def test_the_rates_of_the_extrapolation_are_the_fastest_measured_in_each_precision():
    table = pd.read_csv(extrapolation.MEASURED / "large.csv")
    rates = extrapolation.measured_rates()
    assert rates["training"] == 1e12 * table.loc[table["precision"] == "bfloat16", "tflops"].max()
    assert rates["update"] == 1e12 * table.loc[table["work"] == "update", "tflops"].max()
    assert rates["scoring"] == 1e12 * table.loc[table["work"] == "scoring", "tflops"].max()


def test_seven_billion_parameters_fit_eight_gpus_but_not_one():
    study = extrapolation.Counts("made up", 16, 1e6, 10, 50, 1e3, 1e4)
    table = extrapolation.table(study).set_index(["counts", "parameters", "gpus"])
    assert table["extrapolated"].all()
    assert not table.loc[("made up", "7 B", 1), "fits_80_gb"]
    assert table.loc[("made up", "7 B", 8), "fits_80_gb"]
    hours = table.loc[("made up", "1 B", 1), "hours"]
    rate = extrapolation.measured_rates()
    ascents = 10 * 50 * (8e3 / rate["update"] + 2e4 / rate["scoring"])
    seconds = 1e9 * (16 * 8e6 / rate["training"] + ascents)
    assert hours == pytest.approx(seconds / 3600)
    assert table.loc[("made up", "1 B", 8), "hours"] == pytest.approx(hours / 8)
    assert "not measured" in extrapolation.assumptions(study)


def test_rates_of_a_large_model_are_measured_case_by_case(tmp_path):
    assert large.main(["--smoke", "--repeats", "2", "--out", str(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / "large.csv")
    assert len(table) == len(large.CASES) and table["fits"].all()
    assert table["tflops"].to_numpy() == pytest.approx(
        table["work"].map(large.FLOPS) * table["parameters"] * table["tokens_a_second"] / 1e12, rel=1e-3
    )


def test_the_shares_of_a_profile_add_up_to_the_time_of_each_work(tmp_path):
    assert profile.main(["--smoke", "--repeats", "1", "--out", str(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / "profile.csv")
    assert table.groupby("work")["share"].sum().to_numpy() == pytest.approx([1, 1, 1], abs=0.01)
    assert (table["share"] >= 0).all()
    assert "aten::mm" in set(table.loc[table["work"] == "training", "operator"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_no_large_model_is_begun(tmp_path, capsys):
    assert large.main(["--out", str(tmp_path)]) == 1
    assert "--smoke" in capsys.readouterr().err


@pytest.mark.slow
def test_growth_is_measured_in_fresh_processes_and_drawn(work, folder, tmp_path):
    factor = Factor("models", (1, 2), lambda n: _job(train_models, count=n, examples=20))
    points = growth.measure(folder, [factor], repeats=2)
    assert list(points["value"]) == [1, 1, 2, 2]
    growth.draw(points, exponents(points), tmp_path)
    assert (tmp_path / "growth.png").exists()


def test_without_the_studys_data_it_says_how_to_make_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run.main(["--out", str(tmp_path / "out")]) == 1
    assert "dvc repro forget_sets" in capsys.readouterr().err


def test_dvc_is_timed_in_a_finished_study_only(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert pipeline_times.main(["--out", str(tmp_path / "out")]) == 1
    assert "dvc status" in capsys.readouterr().err


def test_seconds_of_dvc_are_told_by_median_and_quartiles():
    repeats = pd.DataFrame({"what": ["b", "a", "b", "b", "b", "b"], "seconds": [4.0, 9.0, 1.0, 2.0, 3.0, 5.0]})
    table = pipeline_times.summarise(repeats)
    assert table.to_dict("records") == [
        {"what": "b", "median_seconds": 3.0, "quartile_1": 2.0, "quartile_3": 4.0, "repeats": 5},
        {"what": "a", "median_seconds": 9.0, "quartile_1": 9.0, "quartile_3": 9.0, "repeats": 1},
    ]


@pytest.mark.slow
def test_arms_take_turns_and_every_round_begins_with_another_one(folder, capsys):
    few = [a for a in ARMS if (a.workload, a.name) in {("scoring", "ours"), ("translation", "ours")}]
    rows = run.time_arms(folder, few, repeats=2)
    assert list(rows["workload"]) == ["scoring", "translation", "translation", "scoring"]
    assert (rows[["seconds", "rate", "peak_mib"]] > 0).all(axis=None)
    assert "2 of 2  translation, ours" in capsys.readouterr().out


def test_a_whole_run_writes_all_tables_and_the_figure(tmp_path, monkeypatch):
    def made_up(folder, arms, *, repeats):
        return pd.DataFrame([(a.workload, a.name, r, 1.0, 2.0, 3.0) for a in arms for r in range(repeats)],
                            columns=["workload", "arm", "repeat", "seconds", "rate", "peak_mib"])  # fmt: skip

    monkeypatch.setattr(run, "time_arms", made_up)
    assert run.main(["--smoke", "--repeats", "2", "--out", str(tmp_path)]) == 0
    tables = {f"{n}.csv" for n in ("gate", "repeats", "speed", "targets")}
    assert {p.name for p in tmp_path.iterdir()} == tables | {"machine.json", "speed.png", "speed.svg"}
    facts = json.loads((tmp_path / "machine.json").read_text())
    timed = pd.read_csv(tmp_path / "speed.csv")[["workload", "arm"]].to_numpy()
    assert set(map(tuple, timed)) == {(a.workload, a.name) for a in ARMS if facts["bfloat16"] or not a.bfloat16}
    assert facts["toy"]


def test_where_bfloat16_does_not_pay_its_arms_are_not_timed(tmp_path, monkeypatch):
    timed = []
    passed = {"what": ["positions in a projection"], "value": [1.0], "relative": [0.0], "equal": [True]}
    monkeypatch.setattr(run.gate, "check", lambda work, training: pd.DataFrame(passed))  # tested above
    monkeypatch.setattr(run, "time_arms", lambda folder, arms, *, repeats: timed.extend(arms) or pd.DataFrame([{}]))
    for pays in (True, False):
        monkeypatch.setattr(run, "bfloat16_pays", lambda pays=pays: pays)
        assert run.main(["--smoke", "--only", "training", "--out", str(tmp_path)]) == 0
        assert any(a.bfloat16 for a in timed) is pays
        assert any(a.name == "ours float32" for a in timed)
        timed.clear()
