"""Near-duplicates: token-set Jaccard similarity between texts, exact, by sparse matrix products."""

from collections import Counter
from collections.abc import Iterator, Sequence
from math import ceil

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from unlearning.data.scripts import words

PLACEHOLDER = "<ph>"
_ROWS_AT_ONCE = 500  # memory only: rows of the similarity matrix that exist at one time


def token_set(text: str) -> frozenset[str]:
    """The distinct `scripts.words` of a text, without placeholders."""
    return frozenset(words(text.replace(PLACEHOLDER, " ")))


def similar(
    left: Sequence[str], right: Sequence[str], *, threshold: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs of texts whose token sets have a Jaccard similarity, in [0, 1], of at least `threshold`, above 0.

    Texts without words resemble nothing. Yields chunks (i, j, jaccard), three arrays of one length; i ascends by chunk.
    Only texts with a rare word in common are compared: sets that reach J share J · |A| words of each, so that they meet
    among the |A| - J · |A| + 1 rarest words of A and the same of B (prefix filtering, which loses no pair).
    """
    sets = [list(map(token_set, texts)) for texts in (left, right)]
    counts = Counter(word for side in sets for words in side for word in words)
    columns = {word: i for i, word in enumerate(sorted(counts, key=lambda word: (counts[word], word)))}  # rarest first
    a, b = (_incidence(side, columns) for side in sets)
    rare_a, rare_b = (_incidence(side, columns, threshold=threshold) for side in sets)
    size_a, size_b = np.diff(a.indptr), np.diff(b.indptr)
    transposed = rare_b.T.tocsr()
    for start in range(0, len(left), _ROWS_AT_ONCE):
        candidates = (rare_a[start : start + _ROWS_AT_ONCE] @ transposed).tocoo()
        i, j = candidates.row + start, candidates.col
        common = np.asarray(a[i].multiply(b[j]).sum(axis=1)).ravel()
        jaccard = common / (size_a[i] + size_b[j] - common)  # |A ∩ B| / |A ∪ B|
        keep = jaccard >= threshold
        yield i[keep], j[keep], jaccard[keep]


def _incidence(sets: Sequence[frozenset[str]], columns: dict[str, int], *, threshold: float = 0.0) -> csr_matrix:
    """(n, words) ones where a text has a word; with a threshold, only where it is one of its rarest words."""
    rows = [sorted(columns[word] for word in words) for words in sets]
    rows = [row[: len(row) - ceil(threshold * len(row) - 1e-9) + 1] for row in rows]
    starts = np.cumsum([0, *map(len, rows)])
    indices = np.array([column for row in rows for column in row], dtype=np.int32)
    return csr_matrix((np.ones(len(indices)), indices, starts), shape=(len(rows), max(len(columns), 1)))


def nearest(texts: Sequence[str], others: Sequence[str], *, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """(n,) Jaccard similarity of the most similar of the others, 0 where none reaches it; (n,) its index, or -1."""
    best, where = np.zeros(len(texts)), np.full(len(texts), -1)
    for i, j, jaccard in similar(texts, others, threshold=threshold):
        order = np.argsort(jaccard, kind="stable")  # the last assignment to an index wins: the largest
        best[i[order]], where[i[order]] = jaccard[order], j[order]
    return best, where


def nearest_pair(pairs: pd.DataFrame, others: pd.DataFrame, *, threshold: float) -> np.ndarray:
    """(n,) largest Jaccard similarity of each pair with any other pair, on source or target; 0 below threshold."""
    return np.maximum(*(nearest(pairs[s], others[s], threshold=threshold)[0] for s in ("source", "target")))
