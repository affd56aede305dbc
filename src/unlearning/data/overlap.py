"""Near-duplicates: token-set Jaccard similarity between texts, exact, by sparse matrix products."""

import re
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

PLACEHOLDER = "<ph>"
_WORD = re.compile(r"[^\W\d_]+")
_ROWS_AT_ONCE = 500  # memory only: rows of the similarity matrix that exist at one time


def token_set(text: str) -> frozenset[str]:
    """The distinct words of a text without case, digits, punctuation and placeholders, composed or decomposed."""
    return frozenset(_WORD.findall(unicodedata.normalize("NFC", text).replace(PLACEHOLDER, " ").lower()))


def similar(
    left: Sequence[str], right: Sequence[str], *, threshold: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs of texts whose token sets have a Jaccard similarity, in [0, 1], of at least `threshold`, above 0.

    Texts without words resemble nothing. Yields chunks (i, j, jaccard), three arrays of one length; i ascends by chunk.
    """
    columns = {word: i for i, word in enumerate(sorted(set().union(*map(token_set, [*left, *right]))))}
    a, b = _incidence(left, columns), _incidence(right, columns)
    size_a, size_b = np.diff(a.indptr), np.diff(b.indptr)
    transposed = b.T.tocsr()
    for start in range(0, len(left), _ROWS_AT_ONCE):
        common = (a[start : start + _ROWS_AT_ONCE] @ transposed).tocoo()
        i, j = common.row + start, common.col
        jaccard = common.data / (size_a[i] + size_b[j] - common.data)  # |A ∩ B| / |A ∪ B|
        keep = jaccard >= threshold
        yield i[keep], j[keep], jaccard[keep]


def _incidence(texts: Sequence[str], columns: dict[str, int]) -> csr_matrix:
    sets = [sorted(columns[word] for word in token_set(text)) for text in texts]
    starts = np.cumsum([0, *map(len, sets)])
    indices = np.array([column for row in sets for column in row], dtype=np.int32)
    return csr_matrix((np.ones(len(indices)), indices, starts), shape=(len(texts), max(len(columns), 1)))


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
