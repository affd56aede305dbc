"""The benchmark at toy size: all arms compute the same, all are timed, and the tables say what was measured."""

import dataclasses
import json
import mmap
import re

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from benchmarks import clock, gate, growth, ours, peers, report, run
from benchmarks.compare import ARMS, SMALLER, TAKE_TURNS, TARGETS, WORKLOADS, Arm, alone
from benchmarks.work import Work, tokens
from tests.tiny import T5, examples


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {f"w{i}": i for i in range(3, 60)}
    inner = Tokenizer(WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = WhitespaceSplit()
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(folder / "tokenizer")
    adamw = {"learning_rate": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, "loss": "mean"}
    made = Work(
        model=T5,
        vocabulary=len(words),
        training={**adamw, "batch_tokens": 128, "clip_norm": 1.0},
        ascent={**adamw, "learning_rate": 5e-5},
        width=16,
        train=examples(60),
        heldout=examples(24, seed=1),
        forget=examples(12, seed=2),
        watched=10,
        decoded=10,
        steps=2,
        tokenizer=str(folder / "tokenizer"),
        start=str(folder / "start"),
    )
    ours.make_start(made, epochs=1)
    return made


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_every_arm_has_a_workload_with_a_unit_and_takes_its_turn():
    assert {arm.workload for arm in ARMS} == set(WORKLOADS) == {w for group in TAKE_TURNS for w in group}
    assert len({(arm.workload, arm.name) for arm in ARMS}) == len(ARMS)


def test_every_target_compares_arms_of_the_table():
    known = {(arm.workload, arm.name) for arm in ARMS}
    named = {(w, a) for w, arm, _, others in TARGETS for a in (arm, *others)} | {*SMALLER}
    assert named <= known


def test_all_arms_compute_the_same(work):
    table = gate.check(work)
    assert table["equal"].all(), table[~table["equal"]]
    rows = set(zip(table["what"], table["arm"], strict=True))
    compared = [(a.job.function, a.job.options) for a in ARMS if (a.workload, a.name) in rows]
    left_out = [a for a in ARMS if (a.job.function, a.job.options) not in compared]
    assert all(a.bfloat16 or a.workload == "matmul" for a in left_out)


def test_an_arm_with_another_epsilon_is_found_and_then_nothing_is_timed(work, tmp_path):
    def other(work, **more):
        changed = dataclasses.replace(work, training=work.training | {"eps": 1e-4})
        return peers.train_plain(changed, fixed=False, **more)

    wrong = Arm("training", "wrong", "nobody", "", alone(other))
    with pytest.raises(SystemExit, match="Nothing is timed"):
        run.run(work, tmp_path, repeats=1, arms=[ARMS[0], wrong])
    table = pd.read_csv(tmp_path / "gate.csv")
    assert list(table.loc[~table["equal"], "arm"]) == ["wrong"]
    assert [p.name for p in tmp_path.iterdir()] == ["gate.csv"]


def test_an_arm_that_computes_nothing_at_all_is_not_equal(work):
    lost = Arm("scoring", "lost", "nobody", "", alone(lambda work: clock.timed(1, lambda: np.full(24, np.nan))))
    ours_first = next(arm for arm in ARMS if arm.workload == "scoring")
    assert list(gate.check(work, [ours_first, lost])["equal"]) == [True, False]


def test_a_unit_is_a_real_token_and_padding_is_none(work):
    assert tokens([([5, 1], [6, 7, 1])]) == 5
    assert {arm.job.function(work, **arm.job.options)().units for arm in ARMS if arm.workload == "training"} == {
        tokens(work.train)
    }


def test_only_arms_that_say_so_keep_freed_memory_and_cap_the_instruction_set(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    plain, kept = clock.Job(print).environment(), clock.Job(print, threads=1, memory_kept=True).environment()
    assert not {*clock.MEMORY_KEPT, *clock.ONE_INSTRUCTION_SET} & set(plain)
    assert clock.MEMORY_KEPT.items() <= kept.items()
    assert (plain["OMP_NUM_THREADS"], kept["OMP_NUM_THREADS"]) == ("2", "1")
    assert clock.ONE_INSTRUCTION_SET.items() <= clock.Job(print, capped=True).environment().items()


def test_the_peak_of_memory_is_what_the_work_takes_at_once():
    before = clock.memory("VmRSS", "cpu")
    clock.forget_peak("cpu")
    for _ in range(5):
        with mmap.mmap(-1, 16 * 2**20) as block:  # straight from the kernel: no freed memory of this process is used
            block[::4096] = bytes(len(block) // 4096)
    assert 15 < clock.memory("VmHWM", "cpu") - before < 40


@pytest.mark.parametrize("power", [-1.0, 0.5, 2.0])
def test_the_exponent_of_an_exact_power_law_is_found_without_error(power):
    x = np.array([1, 2, 4, 8])
    points = pd.DataFrame({"factor": "n", "value": x, "repeat": 0, "seconds": 3.0 * x**power, "peak_mib": 5.0 * x})
    found = growth.exponents(points).iloc[0]
    assert (found["time_exponent"], found["memory_exponent"]) == (pytest.approx(power), pytest.approx(1))
    assert found["time_error"] == pytest.approx(0, abs=1e-6)


def test_memory_grows_by_first_repeats_alone_and_two_points_have_no_error():
    rows = [("n", v, r, v, v**2 if r == 0 else 1) for v in (1, 2) for r in (0, 1)]
    points = pd.DataFrame(rows, columns=["factor", "value", "repeat", "seconds", "peak_mib"])
    found = growth.exponents(points).iloc[0]
    assert found["memory_exponent"] == pytest.approx(2)
    assert np.isnan(found["memory_error"]) and not np.isnan(found["time_error"])


def test_a_summary_has_median_quartiles_and_the_smallest_peak_of_every_arm():
    rows = [(a.workload, a.name, r, 1.0 + r, 5.0 - r) for r in range(5) for a in ARMS]
    summary = report.summarise(pd.DataFrame(rows, columns=["workload", "arm", "repeat", "rate", "peak_mib"]))
    assert list(summary["arm"]) == [arm.name for arm in ARMS]
    assert set(map(tuple, summary[["quartile_1", "median", "quartile_3", "peak_mib"]].to_numpy())) == {(2, 3, 4, 1)}


def targets(drop="nothing", **changes):
    """Every arm at 10 a second and 30 MiB, but for changes {"workload: arm": (median, peak)}; by what is compared."""
    rows = [(a.workload, a.name, *changes.get(f"{a.workload}: {a.name}", (10.0, 30.0))) for a in ARMS]
    summary = pd.DataFrame([r for r in rows if drop not in r[1]], columns=["workload", "arm", "median", "peak_mib"])
    return report.targets(summary, 1e9).set_index("what")


def test_targets_are_ratios_of_medians_and_the_best_setting_of_the_others_is_their_fastest():
    changes = {"training: ours float32": (70.0, 0.0), "training: Trainer grouped": (20.0, 0.0),
               "matmul: float32": (100.0, 0.0), "ascent: ours": (39.0, 0.0), "scoring: ours": (30.0, 10.0),
               "scoring_50k: ours": (29.0, 11.0)}  # fmt: skip
    found = targets(**changes)
    for what, expected in {
        "training: ours float32 against Trainer default": ("≥ 7 ×", "7.0 ×", True),
        "training: ours float32 against the best, Trainer grouped": ("≥ 3 ×", "3.5 ×", True),
        "training: ours bfloat16 against Trainer default": ("≥ 7 ×", "1.0 ×", False),
        "ascent: ours against Trainer": ("≥ 4 ×", "3.9 ×", False),
        "scoring: ours against full logits": ("≥ 3 ×", "3.0 ×", True),
        "scoring: peak memory against full logits": ("≤ 33%", "33%", True),
        "scoring_50k: ours against full logits": ("≥ 3 ×", "2.9 ×", False),
        "scoring_50k: peak memory against full logits": ("≤ 33%", "37%", False),
        "training: share of the rate of bare products, float32": ("≥ 50%", "70%", True),
    }.items():
        assert tuple(found.loc[what]) == expected


def test_without_arms_in_bfloat16_no_target_speaks_of_them():
    missing = set(targets().index) - set(targets(drop="bfloat16").index)
    assert len(missing) == 3 and all("bfloat16" in what for what in missing)


def test_a_processor_whose_bfloat16_crawls_is_found_out(monkeypatch):
    seconds = {"float32": 1.0, "bfloat16": 350.0}
    monkeypatch.setattr(run, "products", lambda work, *, precision, n: lambda: clock.Span(0, seconds[precision], 1))
    assert not run.bfloat16_pays(None)
    seconds["bfloat16"] = 0.5
    assert run.bfloat16_pays(None)


def test_the_readme_shows_the_arms_and_the_results_that_are_there():
    text = (report.HERE / "README.md").read_text(encoding="utf-8")
    assert text == report.filled(text), "python -m benchmarks.report"
    shown = re.findall(r"<!-- begin (\w+) -->", text)
    assert sorted(shown) == sorted(report.blocks())


def test_the_targets_shown_follow_from_the_medians_shown():
    facts = json.loads((report.RESULTS / "machine.json").read_text(encoding="utf-8"))
    made = report.targets(pd.read_csv(report.RESULTS / "speed.csv"), facts["flops_per_token"])
    pd.testing.assert_frame_equal(made, pd.read_csv(report.RESULTS / "targets.csv"))


def test_without_the_studys_data_it_says_how_to_make_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="dvc repro forget_sets"):
        run.main(["--out", str(tmp_path / "out")])


def test_a_run_writes_all_tables_and_the_figure(work, tmp_path, monkeypatch):
    def made_up(arms, work, *, repeats):
        columns = ["workload", "arm", "repeat", "seconds", "rate", "peak_mib"]
        return pd.DataFrame(
            [(a.workload, a.name, r, 1.0, 2.0, 3.0) for a in arms for r in range(repeats)], columns=columns
        )

    equal = pd.DataFrame({"equal": [True], "relative": [0.0]})
    monkeypatch.setattr(gate, "check", lambda work, arms: equal)  # tested above
    monkeypatch.setattr(run, "take_turns", made_up)  # tested below
    monkeypatch.setattr(growth, "take_turns", made_up)
    for pays in (True, False):
        monkeypatch.setattr(run, "bfloat16_pays", lambda work, pays=pays: pays)
        run.run(work, tmp_path, repeats=2)
        timed = set(map(tuple, pd.read_csv(tmp_path / "speed.csv")[["workload", "arm"]].to_numpy()))
        assert timed == {(a.workload, a.name) for a in ARMS if pays or not a.bfloat16}
    growth.run(work, tmp_path, repeats=2)
    assert pd.read_csv(tmp_path / "exponents.csv")["to"].tolist() == [2000, 16, 8, 8, 2, 65536, 512]
    tables = {f"{name}.csv" for name in ("gate", "repeats", "speed", "targets", "growth", "exponents")}
    written = {p.name for p in tmp_path.iterdir()}
    assert written == tables | {"machine.json", "growth-machine.json", "speed.png"}
    assert (tmp_path / "speed.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_process_that_dies_is_reported(work):
    with pytest.raises(RuntimeError, match="ended early"):
        clock.take_turns([Arm("scoring", "none", "", "", alone(len))], work, repeats=1)


@pytest.mark.slow
def test_fresh_processes_start_together_and_arms_take_turns(work):
    chosen = {("training", "ours float32"), ("ascent", "Trainer")}
    arms = [*[a for a in ARMS if (a.workload, a.name) in chosen], growth.FACTORS[3][1]]
    rows = clock.take_turns(arms, work, repeats=2)
    names = [a.name for a in arms]
    assert list(rows["arm"]) == [*names, *names[1:], names[0]]
    assert (rows[["seconds", "rate", "peak_mib"]] > 0).all(axis=None)
    units = (rows["rate"] * rows["seconds"]).round(6)
    assert dict(zip(rows["arm"], units, strict=True)) == {"ours float32": 2 * tokens(work.train), "Trainer": 2, 2: 2}
