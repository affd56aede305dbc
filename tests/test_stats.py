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


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=8), st.floats(0, 2))
def test_p_is_small_exactly_when_the_interval_lies_beyond_the_margin(values, delta):
    interval, p = stats.t_interval(values), stats.p_beyond(values, delta=delta)
    gap = max(interval.low - delta, -delta - interval.high)
    if abs(gap) > 1e-9:
        assert (p < 0.05) == (gap > 0)


def test_sign_flips_by_hand():
    assert stats.sign_flip_p([1.0, 2.0, 3.0]) == 2 / 8
    assert stats.sign_flip_p([1.0, -1.0]) == 1.0
    assert stats.sign_flip_p([3.0, 3.0, 3.0], delta=1.0) == 2 / 8
    assert stats.sign_flip_p([0.5, 0.6], delta=1.0) == 1.0


def test_sign_flip_agrees_with_scipys_exact_permutation_test():
    values = RNG.normal(0.4, 1, 7)
    expected = scipy_stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert stats.sign_flip_p(values) == pytest.approx(expected.pvalue)


def test_more_than_twenty_values_are_not_enumerated():
    with pytest.raises(ValueError, match="21 values have 2\\^21 sign flips; at most 20 are enumerated"):
        stats.sign_flip_p(np.ones(21))


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


def test_the_mean_correlation_lies_inside_its_limits_and_inside_one():
    got = stats.mean_correlation([0.5, 0.7, 0.9, 1.0])
    assert -1 <= got.low < got.estimate < got.high <= 1 and got.n == 4
    assert stats.mean_correlation([0.5, 0.5]).estimate == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("low", "high", "direction", "word"),
    [
        (0.2, 0.4, 1, "supported"), (0.2, 0.4, -1, "contradicted"), (0.2, 0.4, 0, "supported"),
        (-0.4, -0.2, 1, "contradicted"), (-0.4, -0.2, -1, "supported"), (-0.4, -0.2, 0, "supported"),
        (-0.1, 0.1, 1, "equivalent"), (-0.05, 0.2, 1, "inconclusive"), (math.nan, math.nan, 1, "not computed"),
    ],
)  # fmt: skip
def test_verdicts_follow_from_the_interval_and_the_margin(low, high, direction, word):
    interval = stats.Interval((low + high) / 2, low, high, 5)
    assert stats.verdict(interval, delta=0.1, direction=direction) == word


def test_a_censored_value_decides_a_pair_only_by_its_bound():
    got = stats.sign_test_by_bounds(
        a=[200, 200, 30, 20, 50], b=[30, 200, 200, 25, 40],
        a_censored=[True, True, False, False, True], b_censored=[False, True, True, False, False],
    )  # fmt: skip
    assert (got.positive, got.negative, got.unknown) == (2, 2, 1)
    assert got.p == 1.0


def test_a_censored_value_below_the_other_decides_nothing():
    got = stats.sign_test_by_bounds(a=[20], b=[30], a_censored=[True], b_censored=[False])
    assert (got.positive, got.negative, got.unknown) == (0, 0, 1) and math.isnan(got.p)
