"""What unlearning is judged by where no model was retrained: metrics of one model's scores, one value a text.

Scores by token are (..., T), NaN past the end of a text; a text without tokens has NaN. ℓ: log-likelihood of the whole
target, nats; n: its tokens. Unless a metric says more, a never-seen text has no fixed value, and models without it are
needed to know one. Relative exposure, exposure by rank and AUC stand in `stand_ins`.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from unlearning.core import stand_ins

Array = np.ndarray


def mean_token_probability(tokens: ArrayLike) -> Array:
    """Mean probability of a text's tokens, from 0 to 1; the larger, the better known.

    TOFU's *probability* is the geometric mean in its place, exp(ℓ/n), which is one over perplexity.
    tokens: (..., T) log-probabilities, nats. Returns (...). Source: Maini et al. 2024, section 2.2, but for the mean.
    """
    # Σ_t p(y_t) / n
    return _mean(np.exp(np.asarray(tokens, dtype=float)))


def token_loss(log_likelihoods: ArrayLike, *, n_tokens: ArrayLike) -> Array:
    """LOSS: (..., n) nats per token, from 0; the smaller, the better known.

    open-unlearning (5420d43) divides by the labels counted before they are shifted: by one more if the first token is
    a label. log_likelihoods: (..., n), nats; n_tokens: (n,). Source: Yeom et al. 2018.
    """
    # −ℓ/n
    return -np.asarray(log_likelihoods, dtype=float) / n_tokens


def perplexity(log_likelihoods: ArrayLike, *, n_tokens: ArrayLike) -> Array:
    """(..., n) from 1, no unit; the smaller, the better known. Guessing gives the vocabulary's size.

    log_likelihoods: (..., n), nats; n_tokens: (n,). Source: Jelinek et al. 1977.
    """
    # exp(−ℓ/n)
    return np.exp(token_loss(log_likelihoods, n_tokens=n_tokens))


def zlib_ratio(log_likelihoods: ArrayLike, *, n_tokens: ArrayLike, n_bytes: ArrayLike) -> Array:
    """(..., n) loss over the text's compressed size, nats per token and byte, from 0; the smaller, the better known.

    n_bytes: (n,) lengths of `zlib.compress(text.encode())`. mink-plus-plus (62281ab) gives minus this.
    Source: Carlini et al. 2021, section 5.2.
    """
    return token_loss(log_likelihoods, n_tokens=n_tokens) / n_bytes


def exact_memorization(n_correct: ArrayLike, *, n_tokens: ArrayLike) -> Array:
    """(..., n) share of tokens that are the most likely one, given the true ones before: from 0 to 1, large: known.

    n_correct: (..., n), n_tokens: (n,), end of sequence included, which open-unlearning (2db47ec) leaves out.
    Source: Tirumala et al. 2022, section 3.
    """
    return np.asarray(n_correct, dtype=float) / n_tokens


def extraction_strength(correct: ArrayLike) -> Array:
    """Share of a text that greedy decoding completes from the rest before it; from 0 to 1, large: known.

    open-unlearning (2db47ec) gives 1/n where not even the last token is right, and leaves out the end of sequence.
    correct: (..., T), 1 where the token is the most likely one, else 0. Returns (...).
    Source: Carlini et al. 2021; as a metric of unlearning, Wang et al. 2025.
    """
    # 1 − k/n, k the shortest beginning after which every token is right
    correct = np.asarray(correct, dtype=float)
    n = np.sum(np.isfinite(correct), axis=-1)
    backwards = np.where(np.isnan(correct), 1.0, correct)[..., ::-1]
    right = np.sum(np.cumprod(backwards, axis=-1), axis=-1) - (correct.shape[-1] - n)
    return np.where(n > 0, right / np.maximum(n, 1), np.nan)


def min_k(tokens: ArrayLike, *, share: float) -> Array:
    """Mean log-probability of a text's least likely tokens, nats, at most 0; large: known.

    Of share · n tokens, rounded down, but of one at least, as in open-unlearning; mink-plus-plus has NaN for none.
    tokens: (..., T), nats; share: above 0, at most 1. Returns (...). Source: Shi et al. 2024 (Min-K %), equation 1.
    """
    tokens = np.sort(np.asarray(tokens, dtype=float), axis=-1)  # NaN comes last
    n = np.sum(np.isfinite(tokens), axis=-1, keepdims=True)
    taken = np.arange(tokens.shape[-1]) < np.minimum(np.maximum(np.floor(share * n + 1e-9), 1), n)
    return _mean(np.where(taken, tokens, np.nan))


def min_k_plus_plus(
    tokens: ArrayLike, *, mean: ArrayLike, sd: ArrayLike, share: float, least_sd: float = 0.01
) -> Array:
    """Min-K % of log-probabilities standardised at their place, standard deviations; large: known. Zero: as likely as
    the model's own draws.

    mean, sd: (..., T) of log p under p over the vocabulary, nats. least_sd: what a smaller sd counts as, nats (tables
    hold hundredths; open-unlearning takes 0.001). Returns (...). Source: Zhang et al. 2025 (Min-K %++), equation 3.
    """
    # (log p(y_t) − μ_t) / σ_t
    return min_k((np.asarray(tokens, dtype=float) - mean) / np.maximum(sd, least_sd), share=share)


def privleak(auc: ArrayLike, *, reference: ArrayLike) -> Array:
    """How much worse the forget set is told from never-seen texts than under a retrained model, per cent.

    Zero: alike, also for a never-seen set. Negative, from −100: exposed. Positive, without bound: over-unlearned. The
    AUC of MUSE is that of *non-members*; open-unlearning turns its own round first.
    auc, reference: (...), shares of pairs in which the forget set's text looks more like a member, in the model and in
    a retrained one (or the mean of several); NaN where the latter is 1. Source: Shi et al. 2024 (MUSE), section 3.
    """
    # 100 · ((1 − AUC) − (1 − AUC_ref)) / (1 − AUC_ref)
    auc, reference = np.asarray(auc, dtype=float), np.asarray(reference, dtype=float)
    return np.where(reference < 1, 100 * (reference - auc) / np.where(reference < 1, 1 - reference, 1), np.nan)


def forget_quality(values: ArrayLike, *, reference: ArrayLike) -> Array:
    """p of a text's statistic having one distribution in two models; above 0.05 counts as forgotten.

    Small when exposed as well as when over-unlearned; of never-seen sets uniform, were their examples independent.
    TOFU takes truth ratios; any statistic will do, in any unit.
    values: (..., n) of the model, reference: any shape, of one retrained model or several; NaN is left out, and the
    result where a side has nothing else. Returns (...).
    Source: two-sample Kolmogorov-Smirnov, as in Maini et al. 2024, section 2.2.
    """
    values, reference = np.asarray(values, dtype=float), np.ravel(np.asarray(reference, dtype=float))
    if not (values.size and np.isfinite(reference).any()):
        return np.full(values.shape[:-1], np.nan)
    there = reference[np.isfinite(reference)].reshape((1,) * (values.ndim - 1) + (-1,))
    return np.asarray(stats.ks_2samp(values, there, axis=-1, nan_policy="omit").pvalue)


def truth_ratio(*, perturbed: ArrayLike, paraphrased: ArrayLike) -> Array:
    """How likely wrong answers are beside the right one, from 0; never seen: near 1, known: below.

    perturbed: (..., P), paraphrased: (...), log-likelihoods *per token*, nats. Returns (...).
    Source: Maini et al. 2024, section 2.2. They write a mean of probabilities; their code and open-unlearning take the
    geometric one, as here.
    """
    return np.exp(np.mean(perturbed, axis=-1) - paraphrased)


def rouge_l(*, continuation: Sequence, target: Sequence) -> float:
    """Recall: length of the longest common subsequence over that of the target, from 0 to 1; large: known.

    Over tokens as given; rouge-score cuts text into lower-case words. NaN without a target. Source: Lin 2004, eq. 2.
    """
    longest = np.zeros(len(target) + 1, dtype=int)  # of the continuation so far with each beginning of the target
    for word in continuation:
        one_more = longest[:-1] + np.array([word == other for other in target], dtype=int)
        longest = np.maximum.accumulate(np.maximum(longest, np.append(0, one_more)))
    return float(longest[-1] / len(target)) if len(target) else float("nan")


def gradient_norm(gradients: Iterable[ArrayLike]) -> float:
    """Length of the gradient of one text's loss, an array a parameter; from 0, small: known. Wang et al. 2024."""
    # √ Σ g²
    return float(np.sqrt(sum(np.sum(np.square(np.asarray(g, dtype=float))) for g in gradients)))


def relearning_robustness(*, gained: ArrayLike, reference_gained: ArrayLike) -> Array:
    """What a retrained model gains by relearning, over what the unlearned one does; at most 1: it had forgotten.

    gained, reference_gained: (...), a metric after relearning minus before, large: known. NaN where nothing is gained.
    Source: Dorna et al. 2025, equation 2.
    """
    gained = np.asarray(gained, dtype=float)
    return np.minimum(1.0, np.divide(reference_gained, gained, out=np.full(gained.shape, np.nan), where=gained != 0))


def precision_robustness(*, full: ArrayLike, reduced: ArrayLike) -> Array:
    """A metric (large: known, from 0) over itself in reduced precision, (...); at most 1: nothing comes back there.

    Source: Dorna et al. 2025, equation 3.
    """
    reduced = np.asarray(reduced, dtype=float)
    return np.minimum(1.0, np.divide(full, reduced, out=np.ones(reduced.shape), where=reduced != 0))


def exposure_interval(
    *, log_likelihoods: ArrayLike, never_trained: ArrayLike, seed: int, resamples: int = 100, confidence: float = 0.95
) -> Array:
    """Limits of `stand_ins.exposure_by_skew_normal` over which never-trained texts it is fitted to: (2, n) bits.

    log_likelihoods: (n,), never_trained: (p,), nats. Source: percentile bootstrap, Efron 1979.
    """
    never = np.asarray(never_trained, dtype=float)
    drawn = np.random.default_rng(seed).choice(never, (resamples, len(never)))
    bits = [stand_ins.exposure_by_skew_normal(log_likelihoods=log_likelihoods, never_trained=row) for row in drawn]
    return np.quantile(bits, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)


def readable_up_to(bits: ArrayLike, *, width: ArrayLike, difference: float) -> float:
    """Exposure from which on its interval is always wider than a difference to be read from it; ∞ if it never is.

    bits, width: (n,), difference: bits. Source: this study.
    """
    bits, wide = np.asarray(bits, dtype=float), np.asarray(width) > difference
    least = bits[~wide].max(initial=-np.inf)  # up to here some are narrow enough
    return float(bits[bits > least].min(initial=np.inf))


def _mean(values: Array) -> Array:
    # over the last axis, NaN left out
    n = np.sum(np.isfinite(values), axis=-1)
    return np.where(n > 0, np.nansum(values, axis=-1) / np.maximum(n, 1), np.nan)
