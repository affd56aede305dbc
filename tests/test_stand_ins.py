"""Stand-ins for generalized exposure, and properties of examples: by hand, by limits, by definition."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from unlearning.core import properties, stand_ins

settings.register_profile("calm", deadline=None)  # a busy machine is no failure
settings.load_profile("calm")

RNG = np.random.default_rng(0)


def test_relative_exposure_compares_with_never_trained_examples_of_the_same_length():
    got = stand_ins.relative_exposure_population(
        forget_set=np.array([-2.0, -9.0]), n_tokens=np.array([2, 3]),
        never_trained=np.array([-8.0, -12.0, -100.0]), never_trained_n_tokens=np.array([2, 4, 50]),
    )  # fmt: skip
    assert got == pytest.approx(((-1 - -4) + (-3 - np.mean([-4, -3]))) / 2)


def test_relative_exposure_by_the_original_model_starts_at_zero():
    path = RNG.normal(size=(5, 3))
    assert np.all(stand_ins.relative_exposure_original(unlearned=path, original=path[0])[0] == 0)
    assert np.all(stand_ins.relative_exposure_checkpoint(unlearned=path, base=path[-1])[-1] == 0)


def test_memorization_and_difficulty_by_hand():
    inside, outside = np.array([[-1.0], [-2.0]]), np.array([[-4.0], [-3.0]])
    assert properties.counterfactual_memorization(inside=inside, outside=outside) == 2.0
    assert properties.difficulty(base=np.array([[-10.0], [-20.0]]), n_tokens=np.array([5])) == 3.0


def test_the_rate_is_what_an_example_loses_per_token_and_step_over_the_first_half_of_k_star():
    log_likelihoods = np.array([[-10.0, -4.0], [-16.0, -4.0], [-30.0, -10.0], [-40.0, -40.0]])
    got = properties.rate(log_likelihoods, np.arange(4), n_tokens=np.array([5, 2]), k_star=3.0)
    assert got == pytest.approx([(23 - 10) / 5 / 1.5, (7 - 4) / 2 / 1.5])  # half of k* lies midway between two steps


@pytest.mark.parametrize("k_star", [math.nan, 0.0])
def test_without_a_k_star_above_zero_there_is_no_rate(k_star):
    assert np.isnan(properties.rate(np.zeros((3, 2)), np.arange(3), n_tokens=np.ones(2), k_star=k_star)).all()


# --- exposure by rank and by skew normal


def test_exposure_by_rank_by_hand_with_ties_at_their_mean_rank():
    others = np.array([-4.0, -3.0, -2.0])
    got = stand_ins.exposure_by_rank(log_likelihoods=np.array([-1.0, -2.5, -3.0, -9.0]), never_trained=others)
    np.testing.assert_allclose(got, 2 - np.log2([1, 2, 2.5, 4]))


def test_a_never_trained_example_has_an_expected_exposure_of_1_44_bits():
    values = RNG.normal(size=4000)
    got = [stand_ins.exposure_by_rank(log_likelihoods=values[i], never_trained=np.delete(values, i))
           for i in range(0, 4000, 4)]  # fmt: skip
    assert np.mean(got) == pytest.approx(1 / math.log(2), abs=0.1)


def test_the_ceiling_of_the_rank_is_marked():
    got = stand_ins.at_ceiling(log_likelihoods=np.array([-1.0, -2.0, -3.0]), never_trained=np.array([-2.0, -5.0]))
    assert list(got) == [True, False, False]


def test_skew_normal_exposure_agrees_with_the_rank_in_the_bulk_and_keeps_the_order_far_out():
    others = -stats.skewnorm.rvs(4, 30, 6, size=2000, random_state=4)
    bulk = np.quantile(others, [0.1, 0.5, 0.9])
    by_rank = stand_ins.exposure_by_rank(log_likelihoods=bulk, never_trained=others)
    np.testing.assert_allclose(
        stand_ins.exposure_by_skew_normal(log_likelihoods=bulk, never_trained=others), by_rank, atol=0.2
    )
    far = stand_ins.exposure_by_skew_normal(log_likelihoods=np.linspace(-30, 400, 60), never_trained=others)
    assert np.all(np.isfinite(far)) and np.all(np.diff(far) > 0)


def test_skew_normal_exposure_stops_at_the_size_of_the_space():
    got = stand_ins.exposure_by_skew_normal(
        log_likelihoods=np.array([0.0]), never_trained=RNG.normal(-90, 4, 300), ceiling=59.5
    )
    assert got == 59.5


# --- membership inference


@settings(max_examples=50)
@given(arrays(float, 7, elements=st.integers(-3, 3)), arrays(float, 5, elements=st.integers(-3, 3)))
def test_auc_is_the_share_of_pairs_in_order(positives, negatives):
    wins = np.greater.outer(positives, negatives) + 0.5 * np.equal.outer(positives, negatives)
    assert stand_ins.auc(positives=positives, negatives=negatives) == pytest.approx(wins.mean())


def test_auc_of_swapped_sides_is_one_minus_auc():
    a, b = RNG.normal(1, 1, 30), RNG.normal(0, 1, 40)
    assert stand_ins.auc(positives=a, negatives=b) == pytest.approx(1 - stand_ins.auc(positives=b, negatives=a))


def test_at_most_one_percent_of_negatives_pass_the_threshold():
    negatives = np.arange(100.0)
    assert stand_ins.tpr_at_fpr(positives=np.array([98.5, 97.9, 200.0]), negatives=negatives) == pytest.approx(2 / 3)
    assert stand_ins.tpr_at_fpr(positives=negatives, negatives=negatives) == 0.01


def test_the_likelihood_ratio_is_zero_halfway_between_equal_spreads():
    inside, outside = np.array([[1.0], [3.0]]), np.array([[-3.0], [-1.0]])
    score = stand_ins.likelihood_ratio_score(log_likelihoods=np.array([[-2.0], [0.0], [2.0]]), inside=inside,
                                           outside=outside)  # fmt: skip
    np.testing.assert_allclose(score[:, 0], [-4.0, 0.0, 4.0])
