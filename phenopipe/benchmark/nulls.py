"""Nulls of relationship recall: sorted cosines of gene pairs, and ranks within them.

Shape suffixes: G genes, D features, P pairs, Z cosines of the null, B rows of a block.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from phenopipe.threads import side_by_side

# Celik et al. (2024) draw two lists of this many genes for each seed pair.
SAMPLE_SIZE = 5_000
ROWS_A_BLOCK = 512
# A megabyte: larger copies of rows leave the cache, and the system clears their memory anew.
NUMBERS_A_PASS = 2**17
# From this share of all pairs on, a product of whole blocks is cheaper than pair by pair.
MANY_PAIRS = 1 / 64

# Bits that single precision leaves free in double precision.
FREE_BITS = np.uint64(2**29 - 1)


@dataclass(frozen=True)
class Null:
    """Sorted cosines of pairs, how often each counts, and the seeds that drew them.

    Cosines are rounded to single precision, here and in :func:`pair_cosines`: a pair that
    is in the null then equals itself whatever order its sum was taken in, and ranks
    are exact.

    Attributes
    ----------
    sorted_Z : float array of shape (n_cosines,)
        From the lowest.
    upto_Z : int array of shape (n_cosines,) or None
        Pairs up to and with each cosine; None where each counts once.
    seed : str or None
        Seeds, None if nothing was drawn.
    """

    sorted_Z: NDArray[np.float32]
    upto_Z: NDArray[np.int64] | None = None
    seed: str | None = None

    @property
    def size(self) -> int:
        """Pairs in the null."""
        return len(self.sorted_Z) if self.upto_Z is None else int(self.upto_Z[-1])

    def ranks(
        self, cosine_P: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Shares of the null strictly below each cosine, and at or below it."""
        return self._share(cosine_P, "left"), self._share(cosine_P, "right")

    def cuts(self, low: float, high: float) -> tuple[float, float]:
        """Cosines under which a pair lies in the left tail, and over which in the right."""
        n_left, n_right = cut_ranks(self.size, low, high)
        left = np.inf if n_left >= self.size else self._value(n_left)
        return left, -np.inf if n_right <= 0 else self._value(n_right - 1)

    def _value(self, k: int) -> float:
        """Find the k-th lowest cosine, from 0."""
        at = k if self.upto_Z is None else int(np.searchsorted(self.upto_Z, k, side="right"))
        return float(self.sorted_Z[at])

    def _share(
        self, cosine_P: NDArray[np.float32], side: Literal["left", "right"]
    ) -> NDArray[np.float64]:
        at_P = np.searchsorted(self.sorted_Z, cosine_P, side=side)
        if self.upto_Z is not None:
            at_P = np.where(at_P > 0, self.upto_Z[at_P - 1], 0)
        share_P: NDArray[np.float64] = at_P / self.size
        return share_P


def cut_ranks(size: int, low: float, high: float) -> tuple[int, int]:
    """How many cosines of a null lie in its left tail, and how many outside its right one.

    Notes
    -----
    At most ``low`` of the null lies at or below a cosine just where the cosine is under
    the next value of the null; at least ``high`` strictly below it just where it is over
    the last of these. Two values thus stand for the ranks of any number of pairs.

    Examples
    --------
    >>> cut_ranks(100, 0.05, 0.95)
    (5, 95)
    """
    n_left = int(low * size)
    n_left += int((n_left + 1) / size <= low) - int(n_left / size > low)
    n_right = int(high * size)
    n_right += int(n_right / size < high) - int((n_right - 1) / size >= high)
    return n_left, n_right


def pair_cosines(
    unit_GD: NDArray[np.floating], first_P: NDArray[np.integer], second_P: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Cosine of each pair of rows, rounded as the nulls are."""
    if len(first_P) > MANY_PAIRS * len(unit_GD) ** 2:
        return all_cosines(unit_GD, first_P, second_P)
    cosine_P = np.empty(len(first_P), dtype=np.float32)
    step = max(1, NUMBERS_A_PASS // unit_GD.shape[1])

    def fill(start: int) -> None:
        part = slice(start, start + step)
        cosine_P[part] = np.einsum("pd,pd->p", unit_GD[first_P[part]], unit_GD[second_P[part]])

    deque(side_by_side(fill, range(0, len(first_P), step)), maxlen=0)
    return cosine_P


def all_cosines(
    unit_GD: NDArray[np.floating],
    first_P: NDArray[np.integer],
    second_P: NDArray[np.integer],
    take: Callable[[NDArray[np.float32]], None] | None = None,
) -> NDArray[np.float32]:
    """Cosine of each pair of different rows, on the way through all pairs of the map.

    Parameters
    ----------
    unit_GD : float array of shape (n_genes, n_features)
        Unit rows.
    first_P, second_P : int arrays of shape (n_pairs,)
        The pairs wanted, in any order.
    take : callable, optional
        Is given the cosines of all pairs, some thousands at a time.

    Notes
    -----
    Blocks of rows bound the memory, and keep clear of one large product of an array with
    itself, in which numpy's BLAS has crashed.
    """
    low_P, high_P = np.minimum(first_P, second_P), np.maximum(first_P, second_P)
    order_P = np.argsort(low_P, kind="stable")
    low_P, high_P = low_P[order_P], high_P[order_P]
    found_P = np.empty(len(order_P), dtype=np.float32)
    for start, cosine_BG in _blocks(unit_GD):
        reach = slice(*np.searchsorted(low_P, [start, start + len(cosine_BG)]))
        found_P[reach] = cosine_BG[low_P[reach] - start, high_P[reach] - start]
        for row in range(len(cosine_BG) if take is not None else 0):
            take(cosine_BG[row, row + 1 :].astype(np.float32))  # type: ignore[misc]
    cosine_P = np.empty_like(found_P)
    cosine_P[order_P] = found_P
    return cosine_P


def _blocks(unit_GD: NDArray[np.floating]) -> Iterator[tuple[int, NDArray[np.floating]]]:
    """Cosines of a block of rows with themselves and all later rows, block by block."""
    for start in range(0, len(unit_GD), ROWS_A_BLOCK):
        yield start, unit_GD[start : start + ROWS_A_BLOCK] @ unit_GD[start:].T


def all_pairs_null(
    unit_GD: NDArray[np.float64],
    first_P: NDArray[np.integer],
    second_P: NDArray[np.integer],
) -> tuple[Null, NDArray[np.float32]]:
    """Cosines of all pairs of different rows, known ones among them, and of some pairs.

    Parameters
    ----------
    unit_GD : float array of shape (n_genes, n_features)
        Unit rows.
    first_P, second_P : int arrays of shape (n_pairs,)
        The pairs whose cosines are wanted.
    """
    parts: list[NDArray[np.float32]] = []
    cosine_P = all_cosines(unit_GD, first_P, second_P, parts.append)
    null_Z = np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)
    null_Z.sort()
    return Null(null_Z), cosine_P


def sampled_null(unit_GD: NDArray[np.float64], seeds: tuple[int, int]) -> Null:
    """Cosines between two lists of 5,000 rows drawn with replacement, self pairs apart.

    Notes
    -----
    The published null ("3 random seeds" of Table 1) comes from numpy's legacy generator;
    with its seeds and the map's row order the same rows are drawn.
    """
    draws = [np.random.RandomState(seed).choice(len(unit_GD), SAMPLE_SIZE) for seed in seeds]
    (row_A, count_A), (row_B, count_B) = (np.unique(d, return_counts=True) for d in draws)
    parts = []
    for start in range(0, len(row_A), ROWS_A_BLOCK):
        block = slice(start, start + ROWS_A_BLOCK)
        cosine_AB = (unit_GD[row_A[block]] @ unit_GD[row_B].T).astype(np.float32)
        # A pair of rows counts as often as it was drawn. One sort orders cosines with
        # their counts, which ride in the bits below single precision.
        count_AB = np.multiply.outer(count_A[block], count_B).astype(np.uint64)
        packed_AB = cosine_AB.astype(np.float64).view(np.uint64) | count_AB
        parts.append(packed_AB[row_A[block][:, None] != row_B[None, :]].view(np.float64))
    packed_Z = np.concatenate(parts)
    packed_Z.sort()
    bits_Z = packed_Z.view(np.uint64)
    cosine_Z = (bits_Z & ~FREE_BITS).view(np.float64).astype(np.float32)
    upto_Z = np.cumsum((bits_Z & FREE_BITS).astype(np.int64))
    return Null(cosine_Z, upto_Z, "_".join(map(str, seeds)))
