"""Metrics of unlearning: by hand, at their limits, and beside what public implementations print on the same numbers.

What these print was noted with torch 2.13.0 from locuslab/open-unlearning (src/evals/metrics: memorization.py 2db47ec,
utils.py 5420d43, mia/min_k_plus_plus.py f4d8463), zjysteven/mink-plus-plus (run.py 62281ab), swj0419/muse_bench
(metrics/privleak.py), rouge-score 0.1.2 and tensorflow/privacy (secret_sharer/exposures.py 0caa10f).
"""

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from unlearning.core import metrics, stand_ins

NAN = float("nan")

# What the implementations were given: a sequence of twelve tokens of a vocabulary of six, two of them the prompt; their
# labels leave the last one out, as an end of sequence.
PLACE, WORD = np.meshgrid(np.arange(12), np.arange(6), indexing="ij")
LOG_P = special.log_softmax(3 * np.sin(1.7 * PLACE + 2.9 * WORD + 0.3 * PLACE * WORD), axis=1)
IDS = np.array([0, 1, 0, 4, 4, 5, 5, 0, 3, 0, 2, 5])
TARGETS = IDS[2:11]  # predicted one place earlier
PEER = LOG_P[1:10]
TOKENS = PEER[np.arange(9), TARGETS]
CORRECT = (PEER.argmax(axis=1) == TARGETS).astype(float)
MEAN = (np.exp(PEER) * PEER).sum(axis=1)
SD = np.sqrt((np.exp(PEER) * PEER**2).sum(axis=1) - MEAN**2)


def test_the_mean_probability_of_tokens_by_hand_and_beside_the_geometric_one():
    tokens = np.log([[0.5, 0.25, NAN], [1.0, NAN, NAN], [NAN, NAN, NAN]])
    np.testing.assert_allclose(metrics.mean_token_probability(tokens), [0.375, 1.0, NAN])
    geometric = 1 / metrics.perplexity(np.log(0.5 * 0.25), n_tokens=2)
    assert geometric == pytest.approx(np.sqrt(0.125)) and geometric < 0.375


def test_loss_and_perplexity_by_hand():
    assert metrics.token_loss(np.array([-6.0, 0.0]), n_tokens=np.array([3, 2])) == pytest.approx([2.0, 0.0])
    assert metrics.perplexity(-4 * np.log(50), n_tokens=4) == pytest.approx(50)  # guessing among fifty


def test_loss_is_that_of_open_unlearning_but_for_a_label_without_a_prediction():
    whole = np.append(TOKENS, LOG_P[10, IDS[11]])
    ours = metrics.token_loss(whole.sum(), n_tokens=10)
    assert ours == pytest.approx(2.187322838851947) and np.exp(-ours) == pytest.approx(0.11221676921109014)
    every = LOG_P[np.arange(11), IDS[1:]]  # no prompt: twelve labels, eleven predictions
    assert metrics.token_loss(every.sum(), n_tokens=11) == pytest.approx(2.0382617661729134 * 12 / 11)


def test_zlib_is_loss_over_compressed_size_and_minus_what_mink_plus_plus_prints():
    size = len(zlib.compress(b"the hallway light is on"))
    ours = metrics.zlib_ratio(TOKENS.sum(), n_tokens=9, n_bytes=size)
    assert ours == pytest.approx(-TOKENS.mean() / size) and ours == pytest.approx(0.07686976949104807)


def test_exact_memorization_is_the_share_of_right_tokens():
    assert metrics.exact_memorization(np.array([3, 0]), n_tokens=np.array([4, 2])) == pytest.approx([0.75, 0.0])
    assert metrics.exact_memorization(CORRECT.sum(), n_tokens=9) == pytest.approx(0.6666666865348816)  # open-unlearning


def test_extraction_strength_is_the_share_after_the_shortest_beginning_that_suffices():
    correct = np.array([[1, 0, 1, 1], [1, 1, 1, 1], [1, 1, 1, 0], [0, 1, NAN, NAN], [NAN] * 4])
    np.testing.assert_allclose(metrics.extraction_strength(correct), [0.5, 1.0, 0.0, 0.5, NAN])
    assert metrics.extraction_strength(CORRECT) == pytest.approx(0.33333333333333337)  # open-unlearning


def test_open_unlearning_counts_a_last_token_that_is_wrong_as_extracted_and_this_does_not():
    wrong = CORRECT.copy()
    wrong[-1] = 0
    printed = 0.11111111111111116
    assert metrics.extraction_strength(wrong) == 0.0 and printed == pytest.approx(1 / len(wrong))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=8))
def test_extraction_strength_is_what_trying_every_beginning_gives(correct):
    beginnings = [k for k in range(len(correct) + 1) if all(correct[k:])]
    assert metrics.extraction_strength(np.array(correct)) == pytest.approx(1 - min(beginnings) / len(correct))


def test_min_k_takes_the_least_likely_tokens_and_one_at_least():
    tokens = np.array([[-1.0, -5.0, -2.0, -3.0, -4.0], [-7.0, -1.0, NAN, NAN, NAN], [NAN] * 5])
    np.testing.assert_allclose(metrics.min_k(tokens, share=0.4), [-4.5, -7.0, NAN])
    np.testing.assert_allclose(metrics.min_k(tokens, share=1.0), [-3.0, -4.0, NAN])


@pytest.mark.parametrize(("share", "printed"), [(0.2, 6.642941585523156), (0.4, 5.910343846987211)])
def test_min_k_is_minus_what_open_unlearning_prints_and_what_mink_plus_plus_prints(share, printed):
    assert metrics.min_k(TOKENS, share=share) == pytest.approx(-printed)


@pytest.mark.parametrize(("share", "printed"), [(0.2, 8.940325687568329), (0.4, 7.9870576141339775)])
def test_min_k_plus_plus_is_minus_what_open_unlearning_prints(share, printed):
    assert metrics.min_k_plus_plus(TOKENS, mean=MEAN, sd=SD, share=share) == pytest.approx(-printed, rel=1e-6)


def test_min_k_plus_plus_by_hand_and_where_the_model_is_certain():
    given = {"mean": np.array([-2.0, -1.0]), "sd": np.array([2.0, 0.0])}
    assert metrics.min_k_plus_plus(np.array([-4.0, -1.0]), **given, share=1.0) == pytest.approx(-0.5)
    assert metrics.min_k_plus_plus(np.array([-4.0, -1.5]), **given, share=0.5) == pytest.approx(-50)  # over least_sd


def test_privleak_is_negative_where_exposed_and_positive_where_over_unlearned():
    assert metrics.privleak([1.0, 0.5, 0.0], reference=0.5) == pytest.approx([-100, 0, 100])
    assert np.isnan(metrics.privleak(0.7, reference=1.0))


def test_privleak_has_the_sign_and_size_that_muse_and_open_unlearning_print():
    forget, unseen = np.array([-1.0, -2, -3, -1.5]), np.array([-2.5, -4, -2, -3])
    retrained = np.array([-2.0, -3, -2.5, -4]), np.array([-2.2, -3.5, -1.9, -2.8])
    auc = stand_ins.auc(positives=forget, negatives=unseen)
    reference = stand_ins.auc(positives=retrained[0], negatives=retrained[1])
    assert (1 - auc, 1 - reference) == pytest.approx((0.1875, 0.625))  # MUSE prints those of non-members
    assert metrics.privleak(auc, reference=reference) == pytest.approx(-70.0)
    assert metrics.privleak(auc, reference=reference) == pytest.approx(-69.9999999888)  # open-unlearning adds 1e-10


def test_forget_quality_is_the_ks_p_and_small_on_both_sides():
    rng = np.random.default_rng(0)
    retrained, unlearned = rng.normal(size=400), rng.normal(size=64)
    p = [metrics.forget_quality(unlearned + shift, reference=retrained) for shift in (-2, 0, 2)]
    assert p[0] < 1e-6 and p[1] > 0.05 and p[2] < 1e-6
    assert metrics.forget_quality([0.0, NAN, 1.0], reference=[2.0, 3.0]) == pytest.approx(1 / 3)  # 2 of 6 orders
    rows = metrics.forget_quality([[0.0, NAN, 1.0], [2.0, 3.0, NAN]], reference=[2.0, 3.0])
    assert rows == pytest.approx([1 / 3, 1.0])
    assert (
        np.isnan(metrics.forget_quality([0.0], reference=[NAN])) and metrics.forget_quality([], reference=[1]).ndim == 0
    )


def test_the_truth_ratio_is_the_geometric_one_that_open_unlearning_prints():
    perturbed, correct = -np.array([[1.2, 2.0, 3.1], [0.7, 0.9, 1.4]]), -np.array([0.8, 1.1])
    got = metrics.truth_ratio(perturbed=perturbed, paraphrased=correct)
    assert got == pytest.approx([0.27253179, 1.10517092])
    assert np.all(np.exp(perturbed).mean(axis=1) / np.exp(correct) > got)  # the mean of probabilities, as written


def test_rouge_l_is_the_recall_of_the_longest_common_subsequence():
    said, target = "the light of the hall was on now", "the light in the hall is on"
    assert metrics.rouge_l(continuation=said.split(), target=target.split()) == pytest.approx(5 / 7)
    assert metrics.rouge_l(continuation=[6, 1, 9, 3, 2, 4, 5], target=[1, 2, 3, 4, 5, 6]) == pytest.approx(4 / 6)
    assert metrics.rouge_l(continuation=[], target=[1]) == 0 and np.isnan(metrics.rouge_l(continuation=[1], target=[]))


def test_rouge_l_is_the_recall_that_rouge_score_prints():
    printed = {("the light of the hall was on now", "the light in the hall is on"): 0.7142857142857143,
               ("f a i c b d e", "a b c d e f"): 0.6666666666666666}  # fmt: skip
    for (said, target), recall in printed.items():
        assert metrics.rouge_l(continuation=said.split(), target=target.split()) == pytest.approx(recall)


def test_exposure_by_rank_is_in_the_order_of_its_input_and_counts_the_example_where_tensorflow_privacy_does_not():
    trained, never = np.array([3.0, 1.0, 2.5]), np.array([2.0, 4.0, 5.0, 6.0, 1.5, 3.5, 7.0])
    printed = np.array([2.80735492, 1.22239242, 1.22239242])  # by interpolation: sorted, whatever the order was
    ours = stand_ins.exposure_by_rank(log_likelihoods=-trained, never_trained=-never)
    assert np.argmax(ours) == 1 and np.argmax(printed) == 0
    np.testing.assert_allclose(np.sort(ours)[::-1] - np.log2(len(never) + 1), printed - np.log2(len(never)), atol=1e-7)


def test_extrapolated_exposure_is_what_tensorflow_privacy_prints():
    at = np.arange(40)
    found = stand_ins.exposure_by_skew_normal(
        log_likelihoods=-np.array([85.0, 95.0, 105.0]), never_trained=-(100 + 10 * np.sin(1.3 * at) + at / 4)
    )
    assert found == pytest.approx([8.161681868614707, 3.484825567982232, 0.9911369928690197], abs=1e-3)


def test_the_gradient_norm_runs_over_all_parameters():
    assert metrics.gradient_norm([np.array([[3.0], [0.0]]), np.array([4.0])]) == pytest.approx(5.0)


def test_robustness_is_one_where_nothing_comes_back():
    got = metrics.relearning_robustness(gained=[0.8, 0.2, 0.1, 0.0], reference_gained=[0.2, 0.2, 0.4, 0.3])
    np.testing.assert_allclose(got, [0.25, 1.0, 1.0, NAN])
    np.testing.assert_allclose(metrics.precision_robustness(full=[0.2, 0.4, 0.0], reduced=[0.4, 0.3, 0.0]), [0.5, 1, 1])


def test_the_interval_of_an_extrapolated_exposure_holds_the_truth_and_widens_with_distance():
    rng = np.random.default_rng(3)
    never, sds = rng.normal(-80, 5, 2000), np.array([1.0, 3.0, 5.0, 7.0])
    likely = -80 + 5 * sds
    low, high = metrics.exposure_interval(log_likelihoods=likely, never_trained=never, seed=1, resamples=30)
    true = -stats.norm.logsf(sds) / np.log(2)
    assert np.all((low < true + 0.2) & (true - 0.2 < high)) and np.all(np.diff(high - low) > 0)
    again = metrics.exposure_interval(log_likelihoods=likely, never_trained=never, seed=1, resamples=30)
    np.testing.assert_array_equal(again, [low, high])


def test_an_exposure_can_be_read_up_to_where_its_interval_stays_wider_than_the_difference():
    bits, width = np.array([9.0, 1.0, 5.0, 7.0]), np.array([4.0, 3.0, 1.0, 2.5])
    assert metrics.readable_up_to(bits, width=width, difference=2.0) == 7.0  # the wide one at 1 bit does not count
    assert metrics.readable_up_to(bits, width=width, difference=5.0) == np.inf
    assert metrics.readable_up_to(bits, width=width, difference=0.5) == 1.0


def test_metrics_of_one_kind_of_scores_have_the_shape_of_the_texts():
    tokens = np.log(np.random.default_rng(0).uniform(0.1, 1, (2, 3, 4, 5)))
    found = [metrics.mean_token_probability(tokens), metrics.extraction_strength(tokens > -1)]
    found += [metrics.min_k(tokens, share=0.2), metrics.min_k_plus_plus(tokens, mean=tokens, sd=-tokens, share=0.2)]
    assert [got.shape for got in found] == [(2, 3, 4)] * 4
