"""The null of all pairs of a large map: where it is cut, to the last bit, without sorting it.

Shape suffixes: G genes, D features, P pairs, B rows of a block, K cuts, C candidates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phenopipe.benchmark.nulls import Null, all_pairs_null, cut_ranks, pair_cosines

# Pairs from which a null is not sorted.
LARGE = 20_000_000
ROWS_A_BLOCK, FEATURES_A_PRODUCT = 256, 384
# Random pairs that tell where the cuts lie, and within how many of their standard errors.
PILOT, ERRORS = 100_000, 6.0
# Bins a unit of cosine; below the diagonal stands a number that no cosine reaches.
BINS, NO_PAIR = 8_192, np.float32(1.5)
# Half a unit in the last place of single precision.
ROUNDING = 2.0**-24


@dataclass(frozen=True)
class LargeNull:
    """Exact cuts of a null, and a fine histogram of all of it.

    Attributes
    ----------
    size : int
        Pairs in the null.
    value_of : mapping of int to float
        The k-th lowest cosine, from 0, for each k at which the null is cut.
    edges_B, upto_B : arrays of shape (n_edges,)
        Ends of bins, the cuts among them, and how many cosines lie under each.
    seed : None
        Nothing is drawn.
    """

    size: int
    value_of: Mapping[int, float]
    edges_B: NDArray[np.float64]
    upto_B: NDArray[np.float64]
    seed: str | None = None

    def cuts(self, low: float, high: float) -> tuple[float, float]:
        """Cosines under which a pair lies in the left tail, and over which in the right."""
        n_left, n_right = cut_ranks(self.size, low, high)
        left = np.inf if n_left >= self.size else self.value_of[n_left]
        return left, -np.inf if n_right <= 0 else self.value_of[n_right - 1]

    def ranks(
        self, cosine_P: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Share of the null below each cosine, interpolated, and the same as that up to it."""
        share_P = np.interp(cosine_P, self.edges_B, self.upto_B) / self.size
        return share_P, share_P


def genome_null(
    unit_GD: NDArray[np.float64],
    first_P: NDArray[np.integer],
    second_P: NDArray[np.integer],
    thresholds: Sequence[tuple[float, float]],
) -> tuple[Null | LargeNull, NDArray[np.float32]]:
    """The null of all pairs of the map, and cosines of some pairs.

    Parameters
    ----------
    unit_GD : float array of shape (n_genes, n_features)
        Unit rows.
    first_P, second_P : int arrays of shape (n_pairs,)
        The pairs whose cosines are wanted: on a large map in single precision.
    thresholds : list of (float, float)
        Ranks at which the null will be cut.

    Notes
    -----
    Products of a large map are taken in single precision, off by at most ``e``. The k-th
    lowest of them is then within ``e`` of the k-th lowest cosine, and a pair that is more
    than ``2 e`` from it lies on its true side; the few others are computed again in double
    precision. So the cuts are those of the sorted null.
    """
    n_genes = len(unit_GD)
    if n_genes * (n_genes - 1) // 2 > LARGE:
        found = large_null(unit_GD, first_P, second_P, thresholds)
        if found is not None:
            return found
    return all_pairs_null(unit_GD, first_P, second_P)


def large_null(
    unit_GD: NDArray[np.float64],
    first_P: NDArray[np.integer],
    second_P: NDArray[np.integer],
    thresholds: Sequence[tuple[float, float]],
) -> tuple[LargeNull, NDArray[np.float32]] | None:
    """Make the null without sorting it; None where random pairs do not tell its cuts."""
    n_genes, n_features = unit_GD.shape
    size = n_genes * (n_genes - 1) // 2
    ranks = [cut_ranks(size, low, high) for low, high in thresholds]
    wanted = {k for left, right in ranks for k in (left, right - 1) if 0 <= k < size}
    error = (
        min(n_features, FEATURES_A_PRODUCT) + n_features // FEATURES_A_PRODUCT + 4
    ) * ROUNDING
    windows = _windows(unit_GD, sorted(wanted), size, error)
    unit_GD32 = unit_GD.astype(np.float32)
    count_B = np.zeros(4 * BINS, dtype=np.int64)
    low_P, high_P = np.minimum(first_P, second_P), np.maximum(first_P, second_P)
    order_P = np.argsort(low_P, kind="stable")
    low_P, high_P = low_P[order_P], high_P[order_P]
    found_P = np.empty(len(order_P), dtype=np.float32)
    for start in range(0, n_genes, ROWS_A_BLOCK):
        cosine_BG = _products(unit_GD32, start)
        reach = slice(*np.searchsorted(low_P, [start, start + len(cosine_BG)]))
        found_P[reach] = cosine_BG[low_P[reach] - start, high_P[reach] - start]
        square_BB = cosine_BG[:, : len(cosine_BG)]
        square_BB[np.tri(len(square_BB), dtype=np.bool_)] = NO_PAIR
        bin_BG = (cosine_BG * np.float32(BINS) + np.float32(2 * BINS)).astype(np.intp)
        count_B += np.bincount(bin_BG.ravel(), minlength=4 * BINS)
        for window in windows:
            window.take(cosine_BG, start)
        if sum(window.n_kept for window in windows) > size // 8:
            return None
    cosine_P = np.empty_like(found_P)
    cosine_P[order_P] = found_P
    values = {window.k: window.value(unit_GD, error) for window in windows}
    if any(value is None for value in values.values()):
        return None
    exact = {k: value for k, value in values.items() if value is not None}
    return LargeNull(size, exact, *_knots(count_B, exact, ranks)), cosine_P


def _products(unit_GD: NDArray[np.float32], start: int) -> NDArray[np.float32]:
    """Cosines of a block of rows with themselves and all later rows.

    Notes
    -----
    Some features at a time: a sum of n products of unit vectors' numbers is off by n
    roundings at most, whatever order the library takes them in.
    """
    total_BG: NDArray[np.float32] | None = None
    for part in range(0, unit_GD.shape[1], FEATURES_A_PRODUCT):
        some_GD = unit_GD[start:, part : part + FEATURES_A_PRODUCT]
        product_BG = some_GD[:ROWS_A_BLOCK] @ some_GD.T
        total_BG = (
            product_BG if total_BG is None else np.add(total_BG, product_BG, out=total_BG)
        )
    assert total_BG is not None, "a map without features"
    return total_BG


class Window:
    """Pairs whose cosine may be the k-th lowest of the null.

    Parameters
    ----------
    k : int
        From 0.
    low, high : float
        Cosines between which it is looked for.
    """

    def __init__(self, k: int, low: float, high: float) -> None:
        self.k, self.low, self.high = k, np.float32(low), np.float32(high)
        self.n_below = self.n_kept = 0
        self.parts: list[tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]]] = []

    def take(self, cosine_BG: NDArray[np.float32], start: int) -> None:
        """Take the cosines of a block of rows with themselves and all later rows."""
        is_below_BG = cosine_BG < self.low
        self.n_below += int(np.count_nonzero(is_below_BG))
        at_C = np.flatnonzero(is_below_BG != (cosine_BG <= self.high))
        row_C, column_C = np.divmod(at_C, cosine_BG.shape[1])
        first_C, second_C = (
            (start + row_C).astype(np.int32),
            (start + column_C).astype(np.int32),
        )
        self.parts.append((cosine_BG.ravel()[at_C], first_C, second_C))
        self.n_kept += len(at_C)

    def value(self, unit_GD: NDArray[np.float64], error: float) -> float | None:
        """Find the k-th lowest cosine; None if it may lie outside of the window."""
        near_C, first_C, second_C = (
            np.concatenate(one) for one in zip(*self.parts, strict=True)
        )
        k = self.k - self.n_below
        if not 0 <= k < len(near_C):
            return None
        middle = float(np.partition(near_C, k)[k])
        low, high = middle - 2 * error, middle + 2 * error
        if low < self.low or high > self.high:
            return None
        n_under = int(np.count_nonzero(near_C < low))
        is_close_C = (near_C >= low) & (near_C <= high)
        exact_C = pair_cosines(unit_GD, first_C[is_close_C], second_C[is_close_C])
        return float(np.sort(exact_C)[k - n_under])


def _windows(
    unit_GD: NDArray[np.float64], ranks: Sequence[int], size: int, error: float
) -> list[Window]:
    """Where each rank's cosine lies, by random pairs."""
    rng = np.random.default_rng(0)
    first_S, second_S = rng.integers(len(unit_GD), size=(2, PILOT))
    apart_S = first_S != second_S
    drawn_S = np.sort(pair_cosines(unit_GD, first_S[apart_S], second_S[apart_S]))
    windows = []
    for k in ranks:
        share = (k + 0.5) / size
        slack = ERRORS * np.sqrt(share * (1 - share) / len(drawn_S)) + 2 / len(drawn_S)
        low = -1.0 if share < slack else np.quantile(drawn_S, share - slack)
        high = 1.0 if share + slack > 1 else np.quantile(drawn_S, share + slack)
        # Wide enough for whoever is close to the cut, ties of its own value among them.
        windows.append(Window(k, float(low) - 4 * error, float(high) + 4 * error))
    return windows


def _knots(
    count_B: NDArray[np.int64],
    value_of: Mapping[int, float],
    ranks: Sequence[tuple[int, int]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends of the bins and the cuts, with the cosines under each."""
    edges = np.arange(-2 * BINS, 2 * BINS + 1) / BINS
    upto = np.concatenate([[0], np.cumsum(count_B)])
    within = (edges >= -1.25) & (edges <= 1.25)
    cuts = [(value_of[left], left) for left, _ in ranks if left in value_of]
    cuts += [(value_of[right - 1], right) for _, right in ranks if right - 1 in value_of]
    at, n = zip(*cuts, strict=True) if cuts else ((), ())
    edges_B = np.concatenate([edges[within], at])
    upto_B = np.concatenate([upto[within], n]).astype(np.float64)
    order_B = np.lexsort((upto_B, edges_B))
    # In single precision a bin may have got a pair that belongs beyond a cut.
    return edges_B[order_B], np.maximum.accumulate(upto_B[order_B])
