"""Verdicts on anybody's log-likelihoods: right where the truth is made up, a reason for what cannot be said."""

import re
import subprocess
import sys
from itertools import product

import numpy as np
import pandas as pd
import pytest

from tests.copies import ROOT, environment
from tools import judge
from unlearning.errors import StudyError

PAGE = (ROOT / "docs/judge.md").read_text(encoding="utf-8")


def made_up(*, shift: float = 0.0, examples: int = 40, references: int = 8, name: str = "poems", seed: int = 0):
    """Scores of one model before and after unlearning and of references; `shift`: nats that are left of an example."""
    rng = np.random.default_rng(seed)
    level = rng.uniform(-130, -70, examples)
    models = [("before", "m", 30.0), ("after", "m", shift), *(("reference", f"r{i}", 0.0) for i in range(references))]
    rows = [(role, model, name, f"{name}-{i}", level[i] + more + rng.normal(0, 2))
            for (role, model, more), i in product(models, range(examples))]  # fmt: skip
    return pd.DataFrame(rows, columns=[*judge.KEYS, "log_likelihood"])


def one(table: pd.DataFrame) -> pd.Series:
    sets, _ = judge.judge(table)
    return sets.iloc[0]


@pytest.mark.parametrize(("shift", "verdict"), [(6.0, "exposed"), (0.0, "as if never seen"), (-6.0, "over-unlearned")])
def test_the_verdict_is_what_was_made_up(shift, verdict):
    row = one(made_up(shift=shift))
    assert row["verdict"] == verdict and row["genex"] == pytest.approx(shift, abs=1.5)
    assert row["before"] == pytest.approx(30, abs=1.5) and 0 < row["floor"] < 3


def test_genex_and_both_floors_by_hand():
    values = {"after": [-5.0, -7.0], "a": [-6.0, -10.0], "b": [-8.0, -9.0]}
    rows = [("after" if model == "after" else "reference", model, "s", example, value)
            for model, both in values.items() for example, value in zip("xy", both, strict=True)]  # fmt: skip
    sets, examples = judge.judge(pd.DataFrame(rows, columns=[*judge.KEYS, "log_likelihood"]))
    np.testing.assert_allclose(examples["genex"], [2.0, 2.5])
    t = 12.706204736  # of one degree of freedom
    np.testing.assert_allclose(examples["floor"], t * np.sqrt([2, 0.5]) * np.sqrt(1 + 1 / 2))
    assert sets.loc[0, "genex"] == pytest.approx(2.25)
    assert sets.loc[0, "floor"] == pytest.approx(t * np.std([-8.0, -8.5], ddof=1) * np.sqrt(1.5))


def test_a_mean_of_zero_over_exposed_and_over_unlearned_examples_is_called_an_average():
    table = made_up()
    after = (table["role"] == "after").to_numpy()
    table.loc[after, "log_likelihood"] += np.where(np.arange(after.sum()) % 2, 15, -15)
    row = one(table)
    assert row["verdict"] == "as if never seen" and "on average only" in row["reason"] and row["outside"] > 0.8
    assert "on average" not in one(made_up())["reason"]


def test_what_never_seen_texts_lose_as_well_is_taken_off():
    never = made_up(shift=-4.0, name="never-poems", seed=1)
    row = one(pd.concat([made_up(shift=-4.0), never]))
    assert row["verdict"] == "over-unlearned" and row["instance"] == pytest.approx(0, abs=1.5)
    assert len(judge.judge(pd.concat([made_up(), never]))[0]) == 1  # the never-seen set itself is not judged
    assert "no never-seen texts" in one(made_up())["reason"]


def test_several_models_after_unlearning_make_the_floor_narrower():
    alone, more = made_up(), made_up(seed=2)
    more = more[more["role"] == "after"].assign(model="n")
    assert one(pd.concat([alone, more]))["floor"] < one(alone)["floor"]


@pytest.mark.parametrize(
    ("change", "verdict", "reason"),
    [
        (lambda t: t[t["role"] != "before"], "as if never seen", "not scored before"),
        (lambda t: t[t["role"] != "after"], "not judged", "no model after"),
        (lambda t: t[~t["model"].isin([f"r{i}" for i in range(1, 8)])], "not judged", "fewer than two references"),
        (lambda t: t[t["example_id"] == "poems-0"], "as if never seen", "one example"),
        (lambda t: t[t["role"] != "reference"], "not judged", "fewer than two references"),
        (lambda t: t.assign(n_tokens=np.where(t["model"] == "r1", 7, 5)), "not judged", "another tokenizer"),
        (lambda t: t.assign(log_likelihood=np.where(t["example_id"] == "poems-1", np.nan, t["log_likelihood"])),
         "as if never seen", "1 of 40 examples left out"),
        (lambda t: t.assign(log_likelihood=np.where(t["model"] == "r1", -np.inf, t["log_likelihood"])), "not judged",
         "40 of 40 examples left out"),
        (lambda t: t.assign(log_likelihood=np.where(t["role"] == "reference", -50.0, t["log_likelihood"])),
         "not judged", "references are equal"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_has_its_reason(change, verdict, reason):
    row = one(change(made_up()))
    assert row["verdict"] == verdict and reason in row["reason"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.drop(columns="role"), "there is no column role"),
        (lambda t: t.assign(role="unlearned"), "line 2: role is none of before, after, reference"),
        (lambda t: t.assign(log_likelihood="n/k"), "line 2: log_likelihood is no number"),
        (lambda t: t.assign(log_likelihood=-t["log_likelihood"]), "write log-likelihoods, not losses"),
        (lambda t: pd.concat([t, t.tail(1)]), "reference r7 has poems-39 twice"),
    ],
)
def test_bad_input_is_told_in_one_sentence_with_its_place(tmp_path, capsys, change, says):
    path = tmp_path / "scores.csv"
    change(made_up()).to_csv(path, index=False)
    assert judge.main([str(path)]) == 1
    told = capsys.readouterr().err
    assert says in told and str(path) in told and len(told.splitlines()) == 1


def test_no_file_and_no_argument(tmp_path, capsys):
    assert judge.main([str(tmp_path)]) == 1 and "docs/judge.md" in capsys.readouterr().err
    assert judge.main([str(tmp_path / "none.csv")]) == 1 and judge.main([]) == 2
    with pytest.raises(StudyError, match=r"there is no CSV"):
        judge.read(tmp_path / "none.csv")


def test_a_folder_of_both_formats_is_read_as_one_table(tmp_path):
    table = made_up()
    after = table["role"] == "after"
    table[after].to_csv(tmp_path / "after.csv", index=False)
    table[~after].to_parquet(tmp_path / "others.parquet", index=False)
    assert one(judge.read(tmp_path))["genex"] == pytest.approx(one(table)["genex"])


def test_the_example_of_the_documentation_runs_and_says_what_it_says_there(tmp_path, capsys):
    rows = re.search(r"<!-- example judge -->\n```csv\n(.*?)```", PAGE, re.DOTALL)[1]
    (tmp_path / "poems.csv").write_text(rows, encoding="utf-8")
    assert judge.main([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    verdict = re.search(r"Here the poems are \*([\w-]+)\*", PAGE)[1]
    assert re.search(rf"poems +{verdict}", said) and "Furthest beyond their own floors" in said
    assert PAGE.split("<!--")[0].strip().count("\n") <= 5  # a heading and three lines


MEASURE = """
import resource, sys
from tools import judge
assert judge.main([sys.argv[1]]) == 0
used = resource.getrusage(resource.RUSAGE_SELF)
# not ru_maxrss: it begins with what the process that started this one had
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
print(used.ru_utime + used.ru_stime, peak, [m for m in ("torch", "matplotlib") if m in sys.modules])
"""


def test_ten_thousand_examples_and_sixteen_models_take_seconds_little_memory_and_no_torch(tmp_path):
    made_up(examples=10_000, references=14).to_csv(tmp_path / "scores.csv", index=False)
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, env=environment(ROOT)
    )
    seconds, mib, loaded = ran.stdout.splitlines()[-1].split(maxsplit=2)  # of the processor: a busy machine is no fault
    assert float(seconds) < 5 and float(mib) < 500 and loaded == "[]", ran.stdout[-500:] + ran.stderr
