"""Intervals, tests and verdicts: by hand, against scipy, by coverage."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from unlearning.core import stats

settings.register_profile("calm", deadline=None)  # a busy machine is no failure
settings.load_profile("calm")

RNG = np.random.default_rng(0)


def test_the_t_interval_agrees_with_scipy():
    values = RNG.normal(size=9)
    expected = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    got = stats.t_interval(values)
    assert (got.low, got.high, got.n) == (pytest.approx(expected.low), pytest.approx(expected.high), 9)


def test_t_intervals_cover_95_percent_of_simulated_runs():
    samples = RNG.normal(3, 2, (4000, 5))
    covered = [i.low <= 3 <= i.high for i in map(stats.t_interval, samples)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)


def test_one_value_has_no_interval_and_none_has_no_mean():
    assert math.isnan(stats.t_interval([2.0]).low) and stats.t_interval([2.0]).estimate == 2.0
    assert math.isnan(stats.t_interval([math.nan]).estimate) and stats.t_interval([]).n == 0


def test_holm_by_hand_and_a_test_not_made_counts_and_stays_empty():
    np.testing.assert_allclose(stats.holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(stats.holm([0.01, math.nan, 0.03]), [0.03, math.nan, 0.06])
    np.testing.assert_allclose(stats.holm([0.01], n_tests=12), [0.12])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_never_makes_p_smaller(p):
    adjusted = stats.holm(p)
    assert np.all(adjusted >= np.array(p) - 1e-12) and np.all(adjusted <= 1)
    assert np.all(np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0)


def test_without_a_third_variable_it_is_spearmans_correlation():
    a, b = RNG.normal(size=40), RNG.normal(size=40)
    assert stats.partial_rank_correlation(a, b) == pytest.approx(scipy_stats.spearmanr(a, b).statistic)


def test_with_one_variable_held_fixed_it_is_the_textbook_formula():
    a, b, c = RNG.normal(size=(3, 40)) + RNG.normal(size=40)
    ab, ac, bc = (scipy_stats.spearmanr(x, y).statistic for x, y in ((a, b), (a, c), (b, c)))
    expected = (ab - ac * bc) / math.sqrt((1 - ac**2) * (1 - bc**2))
    assert stats.partial_rank_correlation(a, b, given=c) == pytest.approx(expected)


def test_a_constant_held_fixed_changes_nothing_and_a_constant_variable_has_no_correlation():
    a, b = RNG.normal(size=20), RNG.normal(size=20)
    fixed = stats.partial_rank_correlation(a, b, given=np.full(20, 11))
    assert fixed == pytest.approx(stats.partial_rank_correlation(a, b))
    assert math.isnan(stats.partial_rank_correlation(np.ones(20), b))
    assert math.isnan(stats.partial_rank_correlation(a, b, given=a))


def test_fishers_z_is_finite_at_one():
    assert stats.fisher_z(0.5) == pytest.approx(math.atanh(0.5)) and np.isfinite(stats.fisher_z([1.0, -1.0])).all()


@pytest.mark.parametrize(
    ("low", "high", "direction", "word"),
    [
        (0.2, 0.4, 1, "supported"), (0.2, 0.4, -1, "contradicted"), (0.2, 0.4, 0, "supported"),
        (-0.4, -0.2, 1, "contradicted"), (-0.4, -0.2, -1, "supported"), (-0.4, -0.2, 0, "supported"),
        (-0.1, 0.1, 1, "equivalent"), (0.01, 0.09, 1, "small"), (-0.09, -0.01, 1, "small"),
        (-0.05, 0.2, 1, "inconclusive"), (0.05, 0.2, 1, "inconclusive"), (math.nan, math.nan, 1, "not computed"),
        (0.2, math.inf, 1, "supported"), (0.0, math.inf, 1, "inconclusive"), (-math.inf, -0.2, 1, "contradicted"),
    ],
)  # fmt: skip
def test_verdicts_follow_from_the_interval_and_the_margin(low, high, direction, word):
    interval = stats.Interval((low + high) / 2, low, high, 5)
    assert stats.verdict(interval, delta=0.1, direction=direction) == word
    assert word in (*stats.VERDICTS, stats.NOT_COMPUTED)


def test_without_a_margin_nothing_is_small():
    assert stats.verdict(stats.Interval(0.2, 0.1, 0.3, 5), delta=0.0, direction=1) == "supported"
    assert stats.verdict(stats.Interval(0.0, -0.1, 0.1, 5), delta=0.0, direction=1) == "inconclusive"


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        (["supported", "supported"], "supported"), (["supported", "inconclusive"], "inconclusive"),
        (["supported", "small"], "not borne out"), (["equivalent", "supported"], "not borne out"),
        (["contradicted", "not computed"], "not borne out"), (["not computed", "supported"], "not computed"),
        (["small"], "small"), (["contradicted"], "contradicted"), (["equivalent", "equivalent"], "not borne out"),
    ],
)  # fmt: skip
def test_a_claim_of_several_parts_needs_all_of_them(parts, whole):
    assert stats.verdict_of_parts(parts) == whole
