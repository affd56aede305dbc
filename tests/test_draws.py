"""Contrasts with the draw as unit: coverage in simulated studies, cases by hand, what cannot be said."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from unlearning.core import draws

settings.register_profile("calm", deadline=None)  # a busy machine is no failure
settings.load_profile("calm")

MODELS, DRAWS, IN_MODELS, STUDIES = 32, 10, 4, 2000
# sd of draw, model within a kind, residual: of the first study (docs/first_study.csv), the larger of its arms
OUTCOMES = {
    "k_star": (2.3, 2.7, 1.6),
    "lost_100": (0.018, 0.030, 0.018),
    "lost_50": (0.005, 0.009, 0.004),
    "second half": (0.009, 0.021, 0.018),
    "rate with memorization, z": (0.015, 0.083, 0.153),
    "rate with difficulty, z": (0.063, 0.053, 0.114),
    "draws alike": (0.0, 1.0, 1.0),
    "models alike": (1.0, 0.0, 0.0),
}


def layout(rng, *, n_draws=(DRAWS, DRAWS), in_models=(IN_MODELS, IN_MODELS)):
    """Balanced columns, and which in-models each draw is unlearned by: design (models, draws), draw, model, side."""
    half = np.repeat([1.0, -1.0], MODELS // 2)
    design = np.column_stack([rng.permutation(half) for _ in range(sum(n_draws))])
    kind = np.repeat([1, -1], n_draws)
    chosen = [rng.choice(np.flatnonzero(column > 0), in_models[0 if side > 0 else 1], replace=False)
              for column, side in zip(design.T, kind, strict=True)]  # fmt: skip
    draw = np.repeat(np.arange(len(kind)), [len(c) for c in chosen])
    return design, draw, np.concatenate(chosen), kind


def made_up(rng, sd, draw, model, kind):
    """Values with effects of draw, of model within its kind, and of the run."""
    by_draw, by_model = rng.normal(0, sd[0], len(kind)), rng.normal(0, sd[1], (MODELS, 2))
    return by_draw[draw] + by_model[model, (kind[draw] > 0).astype(int)] + rng.normal(0, sd[2], len(draw))


def covered(contrasts, truth=0.0):
    return np.mean([found.low <= truth <= found.high for found in contrasts])


# Coverage


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_intervals_cover_other_draws_and_other_models(outcome):
    rng, found = np.random.default_rng(1), []
    for i in range(STUDIES):
        if i % 20 == 0:
            _, draw, model, kind = layout(rng)
        y = made_up(rng, OUTCOMES[outcome], draw, model, kind)
        found.append(draws.two_way(y, draw=draw, model=model, side=kind[draw]))
    assert 0.93 <= covered(found) <= 0.975


def test_intervals_cover_with_what_the_references_of_a_kind_share_and_with_other_sentences():
    rng, found, naive = np.random.default_rng(2), [], []
    n_sentences, fall, slope = 40, 0.8, 0.004  # nats a step; nats per token lost a step
    for i in range(STUDIES):
        if i % 20 == 0:
            design, draw, model, kind = layout(rng)
            base, weights = rng.permutation(design[:, 0]), draws.contrast_weights(draw, kind[draw])
        shared = rng.normal(0, 2.0, (MODELS, 2))[:, (kind > 0).astype(int)]  # of a model, on all sets of a kind
        means = shared + rng.normal(0, 2.0, design.shape) + 12 * design + 2 * base[:, None]
        error = np.mean((means - 12 * design - 2 * base[:, None]) * (design < 0), axis=0) * 2  # over the out-models
        steps = made_up(rng, OUTCOMES["k_star"], draw, model, kind) - error[draw] / fall
        tokens = rng.integers(4, 20, n_sentences)
        nats = 0.02 * tokens * rng.normal(0, 1, (2, n_sentences))[(kind > 0).astype(int)][draw]
        nats += slope * steps[:, None] * tokens + 0.02 * tokens * rng.normal(0, 1, (len(draw), n_sentences))
        known = {"design": design, "base": base, "per_nat": np.full(len(kind), -slope / fall), "side": kind}
        more = {"reference": draws.reference_variance(means, **known)}
        more["sentences"] = draws.sentence_variance(nats, n_tokens=tokens, weights=weights)
        loss, where = nats.sum(axis=1) / tokens.sum(), {"draw": draw, "model": model, "side": kind[draw]}
        found.append(draws.two_way(loss, **where, **more))
        naive.append(draws.two_way(loss, **where))
    assert 0.93 <= covered(found) <= 0.975
    assert covered(naive) < 0.92  # so both parts are needed


def test_intervals_cover_with_unequal_numbers_and_with_kinds_of_unequal_spread():
    rng, found = np.random.default_rng(3), []
    for i in range(STUDIES):
        if i % 20 == 0:
            _, draw, model, kind = layout(rng, n_draws=(10, 6), in_models=(4, 3))
            wide = np.where(kind > 0, 1.5, 1.0)[draw]
        y = made_up(rng, OUTCOMES["k_star"], draw, model, kind) * wide
        found.append(draws.two_way(y, draw=draw, model=model, side=kind[draw]))
    assert 0.93 <= covered(found) <= 0.975


# By hand


def test_two_draws_of_two_models_by_hand():
    y, draw, model = [5.0, 7.0, 9.0, 11.0, 1.0, 1.0, 3.0, 3.0], [0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 1, 2, 0, 1, 1, 2]
    side = [1, 1, 1, 1, -1, -1, -1, -1]
    got = draws.two_way(y, draw=draw, model=model, side=side)
    # kinds' means 8 and 2; c = ±(y − mean)/4 = −.75 −.25 .25 .75 | .25 .25 −.25 −.25
    assert got.estimate == 6 and got.n_draws == (2, 2) and got.n_models == 3 and got.n_runs == 8
    assert got.variances["draw"] == pytest.approx(2 * (1 + 1 + 0.25 + 0.25))
    assert got.variances["model"] == pytest.approx(1.5 * (0.5**2 + 0 + 0.5**2))
    assert got.variances["cell"] == pytest.approx(2 * (0.75**2 + 0.25**2) + 4 * 0.25**2)
    assert got.variances["total"] == 5  # of the draws, the largest of the three
    assert got.df == 2 and got.high - got.estimate == pytest.approx(scipy_stats.t.ppf(0.975, 2) * math.sqrt(5))


def test_with_a_model_a_run_it_is_the_t_test_of_draws():
    rng = np.random.default_rng(4)
    y, side = rng.normal(size=12), np.repeat([1, -1], 6)
    got = draws.two_way(y, draw=range(12), model=range(12), side=side)
    by_scipy = scipy_stats.ttest_ind(y[:6], y[6:]).confidence_interval(0.95)
    assert got.df == 10 and got.low == pytest.approx(by_scipy.low, abs=0.12 * got.se)  # 12/11 of V_model
    mean = draws.two_way(y, draw=range(12), model=np.arange(12) % 7, side=np.ones(12))
    assert mean.estimate == pytest.approx(y.mean()) and mean.n_draws == (12, 0) and mean.df <= 11


def test_draws_and_models_of_a_draw_count_alike_whatever_their_numbers():
    draw, side = np.array([0, 0, 0, 1, 2, 2]), np.array([1, 1, 1, 1, -1, -1])
    weights = draws.contrast_weights(draw, side)
    assert list(weights) == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2, -1 / 2, -1 / 2])
    values = [3.0, 6.0, 9.0, 2.0, 1.0, 1.0]
    got = draws.two_way(values, draw=[0, 0, 0, 1, 2, 3], model=[0, 1, 2, 0, 1, 1], side=side)
    assert got.estimate == pytest.approx((6 + 2) / 2 - 1) and got.n_draws == (2, 2)
    with pytest.raises(ValueError, match="one side"):
        draws.contrast_weights([0, 0], [1, -1])


def test_known_variances_widen_the_interval_and_a_missing_run_is_left_out():
    rng = np.random.default_rng(5)
    _, draw, model, kind = layout(rng)
    y, side = rng.normal(size=len(draw)), kind[draw]
    plain = draws.two_way(y, draw=draw, model=model, side=side)
    wider = draws.two_way(y, draw=draw, model=model, side=side, reference=0.3, sentences=0.2)
    assert wider.se**2 == pytest.approx(plain.se**2 + 0.5) and wider.df == plain.df
    y[draw == 3] = np.nan
    y[0] = np.nan
    less = draws.two_way(y, draw=draw, model=model, side=side)
    assert less.n_draws == (9, 10) and less.n_runs == 80 - 5 and np.isfinite(less.low)


# What cannot be said


@pytest.mark.parametrize(
    ("values", "draw", "side", "why"),
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], [1, 1, -1, -1], "one draw of a kind"),
        ([1, 2, 3, 4], [0, 0, 0, 0], [1, 1, 1, 1], "one draw of a kind"),
        ([1, np.nan, np.nan, np.nan], [0, 1, 2, 3], [1, 1, -1, -1], "no run of one kind has a value"),
        ([np.nan] * 4, [0, 1, 2, 3], [1, 1, -1, -1], "no run has a value"),
    ],
)
def test_without_a_second_draw_there_is_no_interval_and_a_reason(values, draw, side, why):
    got = draws.two_way(values, draw=draw, model=[0, 1, 2, 3], side=side)
    assert why in got.reason and math.isnan(got.low) and math.isnan(draws.p_beyond(got))
    assert np.isfinite(got.estimate) == why.startswith("one draw")


def test_one_model_has_no_interval_either():
    got = draws.two_way([1.0, 2.0, 3.0, 4.0], draw=[0, 1, 2, 3], model=[0] * 4, side=[1, 1, -1, -1])
    assert got.estimate == -2 and got.reason.startswith("one model")


# p


@given(st.floats(-5, 5), st.floats(0.1, 3), st.floats(2, 30), st.floats(0, 2))
def test_p_is_small_exactly_where_the_interval_lies_beyond_or_inside_the_margin(estimate, se, df, delta):
    half = scipy_stats.t.ppf(0.975, df) * se
    contrast = draws.Contrast(estimate, estimate - half, estimate + half, se, df)
    beyond = max(contrast.low - delta, -delta - contrast.high)
    if abs(beyond) > 1e-6:
        assert (draws.p_beyond(contrast, delta=delta) < 0.05) == (beyond > 0)
    inside = min(contrast.low + delta, delta - contrast.high)
    if abs(inside) > 1e-6:
        assert (draws.p_inside(contrast, low=-delta, high=delta) < 0.05) == (inside > 0)


def test_the_permutation_is_exact_over_all_labellings():
    values, side = np.array([4.0, 6.0, 5.0, 1.0, 2.0, 3.5]), np.array([1, 1, 1, -1, -1, -1])
    by_hand = [abs(values[list(c)].sum() - values.sum() / 2) for c in combinations(range(6), 3)]
    expected = np.mean(np.array(by_hand) >= by_hand[0] - 1e-9)
    assert draws.permutation_p(values, side) == (pytest.approx(expected), 20, True)
    apart = draws.permutation_p(np.r_[np.arange(10.0), np.arange(100.0, 110.0)], np.repeat([1, -1], 10))
    assert apart == (pytest.approx(2 / 184756), 184756, True)


def test_too_many_labellings_are_drawn_and_said_to_be():
    values, side = np.r_[np.zeros(12), np.ones(12)] + np.arange(24) / 100, np.repeat([1, -1], 12)
    got = draws.permutation_p(values, side, drawn=500)
    assert got == (pytest.approx(1 / 501), 500, False) and got == draws.permutation_p(values, side, drawn=500)
    assert math.isnan(draws.permutation_p([1.0, 2.0], [1, 1]).p)


# References, sentences, power


def test_the_shared_error_of_the_references_is_that_of_models_on_all_sets_of_a_kind():
    rng, got, errors = np.random.default_rng(6), [], []
    design, _, _, kind = layout(rng)
    base = design[:, 0]
    for _ in range(300):
        shared = rng.normal(0, 3.0, (MODELS, 2))[:, (kind > 0).astype(int)]
        means = shared + rng.normal(0, 1.0, design.shape) + 10 * design
        settings_of = {"design": design, "base": base, "per_nat": np.full(20, -0.5), "side": kind}
        got.append(draws.reference_variance(means, **settings_of))
        error = -0.5 * 2 * np.mean(shared * (design < 0), axis=0)
        errors.append(error[kind > 0].mean() - error[kind < 0].mean())
    assert np.mean(got) == pytest.approx(np.var(errors), rel=0.25)
    own = rng.normal(0, 3.0, design.shape) + 10 * design
    assert draws.reference_variance(own, **settings_of) < 0.2 * np.mean(got)  # a draw's own error is not shared
    assert draws.reference_variance(own[:3], **settings_of | {"design": design[:3], "base": base[:3]}) == 0


def test_the_variance_by_sentences_is_that_of_a_mean_where_all_are_of_one_length():
    nats = np.random.default_rng(7).normal(size=(2, 40))
    got = draws.sentence_variance(nats, n_tokens=np.full(40, 5), weights=[1.0, -1.0])
    assert got == pytest.approx(np.var((nats[0] - nats[1]) / 5, ddof=1) / 40)
    assert draws.sentence_variance(nats[:, :1], n_tokens=[5], weights=[1.0, -1.0]) == 0


def test_power_is_what_simulated_studies_find():
    rng, sd, found = np.random.default_rng(8), {"draw": 2.0, "model": 1.5, "residual": 1.5}, []
    for _ in range(600):
        _, draw, model, kind = layout(rng)
        y = 3.2 * (kind[draw] > 0) + made_up(rng, tuple(sd.values()), draw, model, kind)
        found.append(draws.two_way(y, draw=draw, model=model, side=kind[draw]))
    expected = draws.power(3.2, margin=1.0, n_draws=10, n_models=4, sd=sd, pool=MODELS)
    assert np.mean([c.low > 1.0 for c in found]) == pytest.approx(expected.beyond, abs=0.07)
    assert np.std([c.estimate for c in found]) == pytest.approx(expected.se, rel=0.1) and expected.df == 18


def test_power_grows_with_draws_and_one_draw_has_none():
    sd = {"draw": 1.0, "residual": 1.0, "reference": 0.1}
    by_draws = [draws.power(2.0, margin=0.5, n_draws=n, n_models=4, sd=sd, pool=32).beyond for n in (2, 5, 10)]
    assert by_draws == sorted(by_draws) and by_draws[-1] > 0.75
    assert draws.power(0.0, margin=2.0, n_draws=10, n_models=4, sd=sd, pool=32).inside > 0.9
    assert math.isnan(draws.power(2.0, margin=0.5, n_draws=1, n_models=4, sd=sd, pool=32).beyond)
