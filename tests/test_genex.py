"""Generalized exposure, its floor and references, k*, what forgetting costs: by hand, by limits, by coverage."""

import math
import re
from inspect import isfunction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.linalg import hadamard

from unlearning.core import effects, genex, performance, properties, stand_ins
from unlearning.core import stats as core_stats

settings.register_profile("calm", deadline=None)  # a busy machine is no failure
settings.load_profile("calm")

nats = st.floats(-200, 0)
models = arrays(float, (4, 3), elements=nats)
RNG = np.random.default_rng(0)
SHAPE = r"\((\.\.\.|n|M|C|steps|states|n_\w+)[,)]|any shape|interval"
UNIT = "nats|bits|step|share|bool|unit|probabilit|number|−1, 1"


@pytest.mark.parametrize("module", [effects, genex, performance, properties, stand_ins, core_stats])
def test_every_formula_says_its_shape_its_unit_and_where_it_is_from(module):
    public = [f for name, f in vars(module).items() if not name.startswith("_") and isfunction(f)]
    for function in (f for f in public if f.__module__ == module.__name__):
        said = function.__doc__
        assert re.search(SHAPE, said), f"{function.__name__}: no shape"
        assert re.search(UNIT, said, re.IGNORECASE), f"{function.__name__}: no unit"
        assert "Source: " in said, function


# --- generalized exposure


@given(models, st.sampled_from(genex.ESTIMATORS))
def test_exposure_of_models_against_themselves_is_zero(x, estimator):
    exposure = genex.generalized_exposure(unlearned=x, reference=x, estimator=estimator)
    np.testing.assert_allclose(exposure, 0, atol=1e-12)


@given(models, models, st.sampled_from(genex.ESTIMATORS))
def test_swapping_the_arguments_flips_the_sign(x, y, estimator):
    there = genex.generalized_exposure(unlearned=x, reference=y, estimator=estimator)
    back = genex.generalized_exposure(unlearned=y, reference=x, estimator=estimator)
    np.testing.assert_allclose(there, -back, atol=1e-10)


@given(models, models, st.floats(-50, 50))
def test_a_constant_added_to_one_side_is_added_to_exposure(x, y, c):
    for estimator in genex.ESTIMATORS:
        before = genex.generalized_exposure(unlearned=x, reference=y, estimator=estimator)
        after = genex.generalized_exposure(unlearned=x + c, reference=y, estimator=estimator)
        np.testing.assert_allclose(after, before + c, atol=1e-9)


def test_log_mean_is_the_log_of_the_mean_probability_by_hand():
    unlearned, reference = np.log([[0.2], [0.4]]), np.log([[0.1], [0.1], [0.4]])
    got = genex.generalized_exposure(unlearned=unlearned, reference=reference)
    assert got == pytest.approx(math.log(0.3 / 0.2))


def test_mean_log_is_the_difference_of_means_by_hand():
    unlearned, reference = np.array([[-2.0, -4.0], [-4.0, -4.0]]), np.array([[-5.0, -1.0]])
    got = genex.generalized_exposure(unlearned=unlearned, reference=reference, estimator="mean_log")
    assert list(got) == [2.0, -3.0]


def test_log_mean_survives_log_likelihoods_of_minus_ten_thousand():
    x = np.full((3, 2), -1e4)
    got = genex.generalized_exposure(unlearned=x, reference=x - 5)
    np.testing.assert_allclose(got, 5.0)


def test_exposure_keeps_leading_axes():
    got = genex.generalized_exposure(unlearned=np.zeros((7, 5, 4, 3)), reference=np.zeros((2, 3)))
    assert got.shape == (7, 5, 3)


def test_an_unknown_estimator_is_refused_by_name():
    with pytest.raises(ValueError, match="unknown estimator 'median'; choose one of log_mean, mean_log"):
        genex.generalized_exposure(unlearned=np.zeros((2, 2)), reference=np.zeros((2, 2)), estimator="median")


def test_equal_models_all_count_and_one_dominating_model_counts_alone():
    np.testing.assert_allclose(genex.effective_models(np.full((5, 1), -1e4)), 5)
    np.testing.assert_allclose(genex.effective_models(np.array([[0.0], [-100], [-100]])), 1)
    np.testing.assert_allclose(genex.effective_models(np.log([[0.3], [0.1]])), 0.16 / 0.10)


# --- noise floor


def test_without_shrinkage_the_floor_is_the_textbook_formula():
    sd = np.array([1.0, 2.0])
    got = genex.noise_floor(reference_sd=sd, n_unlearned=1, n_reference=8, shrink=False)
    np.testing.assert_allclose(got, stats.t.ppf(0.975, 7) * sd * math.sqrt(1 + 1 / 8))


def test_one_reference_leaves_the_floor_unknown():
    assert np.isinf(genex.noise_floor(reference_sd=np.ones(3), n_unlearned=1, n_reference=1)).all()


def test_equal_true_variances_are_shrunk_to_the_pooled_value():
    sd = RNG.normal(size=(8, 300)).std(axis=0, ddof=1)
    shrunk, df = genex.shrunk_sd(sd, df=7)
    assert df > 100 and np.ptp(shrunk) < 0.15 and shrunk.mean() == pytest.approx(1, abs=0.05)


def test_shrinkage_recovers_the_prior_that_the_variances_were_drawn_from():
    true = 3 * 4.0 / stats.chi2.rvs(4, size=20000, random_state=1)  # s0² = 3, d0 = 4
    sd = np.sqrt(true * stats.chi2.rvs(7, size=20000, random_state=2) / 7)
    _, df = genex.shrunk_sd(sd, df=7)
    assert df - 7 == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("shrink", [True, False])
@pytest.mark.parametrize("runs", [1, 8])
def test_a_perfect_unlearner_lies_inside_the_floor_in_95_percent_of_examples(shrink, runs):
    n, inside = 4000, []
    sd = np.sqrt(2.0 * 10 / stats.chi2.rvs(10, size=n, random_state=3))
    for _ in range(5):
        unlearned, reference = RNG.normal(0, sd, (runs, n)), RNG.normal(0, sd, (8, n))
        exposure = genex.generalized_exposure(unlearned=unlearned, reference=reference, estimator="mean_log")
        floor = genex.noise_floor(reference_sd=reference.std(axis=0, ddof=1), n_unlearned=runs, n_reference=8,
                                    shrink=shrink)  # fmt: skip
        inside.append(np.mean(np.abs(exposure) <= floor))
    assert np.mean(inside) == pytest.approx(0.95, abs=0.008)


# --- parts and the worst case


def test_generator_and_instance_part_add_up_to_exposure():
    exposure, generator = RNG.normal(size=(6, 4)), RNG.normal(size=6)
    instance = genex.instance_part(exposure=exposure, generator_part=generator)
    np.testing.assert_allclose(instance + generator[:, None], exposure)


def test_the_worst_case_of_one_example_is_the_lower_limit_of_welchs_interval():
    a, b = RNG.normal(3, 1, (8, 1)), RNG.normal(0, 2, (6, 1))
    low, high = stats.ttest_ind(a[:, 0], b[:, 0], equal_var=False).confidence_interval(0.95)
    assert genex.worst_case(unlearned=a, reference=b) == pytest.approx(min(abs(low), abs(high)))


def test_the_worst_case_sees_over_unlearning_as_well():
    a, b = RNG.normal(0, 1, (8, 5)), RNG.normal(0, 1, (8, 5))
    a[:, 2] -= 30
    assert 25 < genex.worst_case(unlearned=a, reference=b) < 30


def test_the_worst_case_is_zero_in_95_percent_of_studies_where_nothing_is_left():
    zeros = [genex.worst_case(unlearned=RNG.normal(size=(8, 20)), reference=RNG.normal(size=(8, 20))) == 0
             for _ in range(300)]  # fmt: skip
    assert np.mean(zeros) >= 0.92


# --- references


def test_the_predicted_reference_recovers_main_effects_without_noise():
    design = hadamard(8)[:, [1, 2, 4]]
    effects, intercept = RNG.normal(size=(3, 5)), RNG.normal(size=5)
    table = intercept + design @ effects
    got = genex.predicted_reference(table, design, model=0, column=1)
    row = design[0].astype(float)
    row[1] = -1
    np.testing.assert_allclose(got, intercept + row @ effects)


def test_in_a_balanced_design_main_effects_are_halved_differences_of_averages():
    design, table = hadamard(16)[:, [1, 2, 4, 7]], RNG.normal(size=(16, 3))
    fit = effects.main_effects(table, design)
    for c in range(4):
        inside, outside = table[design[:, c] > 0], table[design[:, c] < 0]
        np.testing.assert_allclose(2 * fit.effects[c], inside.mean(axis=0) - outside.mean(axis=0))
    assert fit.df == 11


def test_the_influence_matrix_agrees_with_an_independent_regression():
    design, y = hadamard(16)[:, [1, 2, 4, 7]], RNG.normal(size=(16, 1))
    got = effects.influence_matrix(y, design)
    x = np.column_stack([np.ones(16), (design + 1) / 2])  # dummy coding: the coefficient is the whole change
    beta = np.linalg.solve(x.T @ x, x.T @ y)
    sigma2 = float(np.sum((y - x @ beta) ** 2)) / 11
    half = stats.t.ppf(0.975, 11) * np.sqrt(sigma2 * np.linalg.inv(x.T @ x)[2, 2])
    assert got.effect[1, 0] == pytest.approx(beta[2, 0])
    assert got.high[1, 0] - got.effect[1, 0] == pytest.approx(half)


def test_a_saturated_design_has_effects_but_no_limits():
    got = effects.influence_matrix(RNG.normal(size=(4, 2)), hadamard(4)[:, 1:])
    assert np.isfinite(got.effect).all() and np.isnan(got.low).all() and got.df == 0


def test_confounded_columns_and_missing_models_are_refused():
    design = hadamard(4)[:, [1, 1]]
    with pytest.raises(ValueError, match="2 columns cannot be told apart in 4 models"):
        effects.main_effects(np.zeros((4, 1)), design)
    with pytest.raises(ValueError, match="3 models in the table, 4 rows in the design"):
        effects.main_effects(np.zeros((3, 1)), design)


# --- steps


@pytest.mark.parametrize(
    ("exposure", "k_star"),
    [([4, 2, -2], 1.5), ([4, 2, 0], 2.0), ([0, 1, -1], 0.0), ([4, 3, 2], math.nan), ([4, math.nan, -2], math.nan)],
)
def test_steps_to_forget_by_hand(exposure, k_star):
    got = genex.steps_to_forget(np.array(exposure, dtype=float), np.arange(3))
    assert got == pytest.approx(k_star, nan_ok=True)


def test_steps_to_forget_uses_the_step_numbers_and_works_per_example():
    exposure = np.array([[3.0, 1.0], [1.0, 1.0], [-1.0, 1.0]])
    np.testing.assert_allclose(genex.steps_to_forget(exposure, np.array([0, 3, 9])), [6.0, np.nan])


@given(arrays(float, 12, elements=st.floats(-5, 20)))
def test_exposure_is_zero_at_the_steps_to_forget(exposure):
    exposure[0] = abs(exposure[0]) + 1
    steps = np.arange(12)
    k_star = genex.steps_to_forget(exposure, steps)
    if np.isfinite(k_star):
        assert np.all(exposure[: math.ceil(k_star)] > 0)
        assert performance.interpolate(exposure, steps, k_star) == pytest.approx(0, abs=1e-9)
    else:
        assert np.all(exposure > 0)


def test_k95_is_the_first_step_at_which_at_most_one_in_twenty_is_above_the_floor():
    exposure = np.full((4, 20), 5.0)
    exposure[1, :18], exposure[2, :19], exposure[3, :] = 0.0, 0.0, -9.0
    steps = np.array([0, 1, 2, 6])
    assert genex.steps_to_share_inside(exposure, steps, floor=np.ones(20)) == 2
    assert genex.steps_to_share_inside(exposure, steps, floor=np.ones(20), share=1.0) == 6
    assert math.isnan(genex.steps_to_share_inside(exposure[:1], steps[:1], floor=np.ones(20)))


def test_interpolation_is_linear_between_steps_and_nothing_outside():
    values, steps = np.array([0.0, 1.0, 5.0]), np.array([0, 1, 3])
    assert performance.interpolate(values, steps, 2) == 3.0
    assert performance.interpolate(values, steps, 3) == 5.0
    assert math.isnan(performance.interpolate(values, steps, 3.1))
    assert math.isnan(performance.interpolate(values, steps, math.nan))


def test_performance_lost_is_positive_for_damage():
    assert performance.performance_lost(unlearned=-4.5, reference=-4.0) == 0.5
