"""The harness finds what it looks for; its thousands are run by hand."""

import pandas as pd
import pytest

from tests import harness
from unlearning.errors import StudyError


def raises(error):
    raise error


@pytest.mark.parametrize(("check", "found"), [
    (lambda: lambda: None, "accepted"),
    (lambda: raises(StudyError("params.yaml, line 3: seed is -1. It should be at least 0.")), "refused"),
    (lambda: raises(StudyError("no")), "badly said"),
    (lambda: raises(KeyError("mine")), "traceback"),
    (lambda: lambda: raises(ValueError("late")), "fails later"),
])  # fmt: skip
def test_every_input_has_one_outcome(check, found):
    assert harness.outcome(check)[0] == found


@pytest.mark.parametrize(("name", "n"), [("settings", 20), ("files", 40)])
def test_some_broken_inputs_are_taken_and_some_refused_and_none_ends_otherwise(name, n, tmp_path):
    counts = harness.RUNS[name][0](n, tmp_path)
    assert counts["accepted"] + counts["refused"] == n and counts["refused"] > 0


def test_its_table_is_of_as_many_as_it_says():
    table = pd.read_csv(harness.RESULT).set_index("inputs")
    assert (table[harness.OUTCOMES].sum(axis=1) == table["tried"]).all()
    assert (table[["traceback", "over 5 s", "badly said"]] == 0).all(axis=None)
