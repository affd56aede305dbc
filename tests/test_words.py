"""Numbers in tables and sentences: means with intervals, and what is said where there are none."""

import numpy as np
import pandas as pd
import pytest

from paper import words
from unlearning.core.stats import Interval


def test_an_interval_is_made_over_models_and_leaves_out_missing_ones():
    runs = pd.DataFrame({"arm": "a", "k": [1.0, 3.0, np.nan]})
    row = words.means(runs, "k", by=["arm"], confidence=0.95).iloc[0]
    assert row["estimate"] == 2 and row["n"] == 2 and row["high"] == pytest.approx(2 + 12.706, abs=1e-2)


def test_intervals_keep_the_order_in_which_groups_appear_and_columns_without_a_row():
    runs = pd.DataFrame({"arm": ["b", "a", "b"], "k": 1.0})
    assert words.means(runs, "k", by=["arm"], confidence=0.95)["arm"].tolist() == ["b", "a"]
    none = words.means(runs.iloc[:0], "k", by=["arm"], confidence=0.95)
    assert none.empty and list(none) == ["arm", "estimate", "low", "high", "n"]


def test_why_a_value_is_missing_is_counted():
    runs = pd.DataFrame({"arm": "a", "k": [1.0, np.nan, np.nan], "reason": ["", "not scored", "not scored"]})
    assert words.means(runs, "k", by=["arm"], confidence=0.95)["reason"].item() == "2 of 3: not scored"


def test_a_mean_with_a_censored_run_is_a_bound_without_limits():
    runs = pd.DataFrame({"forget_set": ["f"] * 3, "k_star": [10.0, 12.0, np.nan], "last_step": [20, 20, 50]})
    row = words.means(runs, "k_star", by=["forget_set"], bound="last_step", confidence=0.95).iloc[0]
    assert row["estimate"] == 24 and np.isnan(row["low"]) and row["censored"] == 1


@pytest.mark.parametrize(
    ("value", "form", "said"),
    [(-0.5, ".2f", "−0.50"), (0.1234, ".3g", "0.123"), (12345.6, ".3g", "12346"), (np.nan, ".2f", "unknown")],
)
def test_a_number_has_three_digits_and_a_real_minus_sign(value, form, said):
    assert words.number(value, form) == said


def test_a_mean_is_said_with_its_interval_its_unit_and_the_number_of_models():
    assert words.mean(Interval(-0.5, -1.0, 0.25, 16), "nats") == "−0.50 [−1.00, 0.25] nats (n = 16)"
    assert words.mean(Interval(0.5, np.nan, np.nan, 1), "nats") == "0.50 (no interval) nats (n = 1)"
    assert words.mean(Interval(np.nan, np.nan, np.nan, 0), "nats") == "nothing to average"


def test_a_lower_bound_is_said_to_be_one():
    row = pd.Series({"estimate": 24.0, "low": np.nan, "high": np.nan, "reason": "the estimate is a lower bound"})
    assert words.interval(row) == "≥ 24"
    assert words.interval(row.drop("reason")) == "24"
    assert words.interval(Interval(np.nan, np.nan, np.nan, 0)) == "–"


def test_an_interval_that_is_a_bound_ends_at_infinity():
    row = pd.Series({"estimate": 12.0, "low": 8.25, "high": np.inf, "reason": "the estimate is a lower bound"})
    assert words.interval(row) == "≥ 12 [8.25, ∞]"
    row = pd.Series({"estimate": 12.0, "low": -np.inf, "high": 14.0, "reason": "the estimate is an upper bound"})
    assert words.interval(row) == "≤ 12 [−∞, 14]"


def test_a_table_for_reading_has_whole_numbers_without_decimals_and_a_dash_for_what_is_missing():
    table = words.shown(pd.DataFrame({"x": [0.123, np.nan], "n": [8.0, np.nan]}))
    assert table["x"].tolist() == ["0.12", "–"] and table["n"].tolist() == ["8", "–"]


def test_a_table_for_reading_has_its_index_as_columns_and_no_two_level_names():
    table = pd.DataFrame({"arm": ["a"], "state": ["k*"], "x": [1.5]}).set_index(["arm", "state"]).unstack("state")
    assert list(words.shown(table)) == ["arm", "x k*"]


def test_names_are_listed_and_ordered_with_some_first():
    assert words.joined(["a", "b"]) == "a, b" and words.joined([]) == "none"
    assert words.ordered(["a", "b", "c"], first=["c", "x"]) == ["c", "a", "b"]


def test_a_written_table_has_nine_digits_and_an_empty_one_its_header(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words.write(pd.DataFrame({"x": [1 / 3]}), "stage/table")
    words.write(pd.DataFrame(columns=["x", "y"]), "stage/empty")
    assert (tmp_path / "results/tables/stage/table.csv").read_text() == "x\n0.333333333\n"
    assert (tmp_path / "results/tables/stage/empty.csv").read_text() == "x,y\n"
