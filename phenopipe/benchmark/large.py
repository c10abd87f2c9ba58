"""The null of all pairs of a large map: where it is cut, to the last bit, without sorting it.

Shape suffixes: G genes, D features, P pairs, R rows and C columns of a tile or C cosines
near a cut, B bins, S random pairs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from phenopipe.benchmark.nulls import Null, all_pairs_null, cut_ranks, pair_cosines
from phenopipe.threads import side_by_side

# Pairs from which a null is not sorted.
LARGE = 20_000_000
# Small enough that products stay in a processor's cache while they are counted.
ROWS_A_TILE, COLUMNS_A_TILE, FEATURES_A_PRODUCT = 512, 1_024, 416
# Random pairs that tell where the cuts lie, and within how many of their standard errors.
PILOT, ERRORS = 100_000, 6.0
# Bins between the lowest and the highest cosine of random pairs and half as far beyond; a
# further one is for what is no pair.
BINS = 16_384
# No bin is narrower, so that single precision tells bins apart.
MIN_WIDTH = 2e-7
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
    unit_GD32 = unit_GD.astype(np.float32)
    bins, windows = _windows(unit_GD32, sorted(wanted), size, error)
    tiles = Tiles(unit_GD32, bins, windows, first_P, second_P)
    count_B = np.zeros(BINS, dtype=np.int64)
    parts, n_kept = [], 0
    for count_of_tile_B, part in side_by_side(tiles.cosines, tiles.corners()):
        count_B += count_of_tile_B
        parts.append(part)
        n_kept += len(part.cosine_C)
        if n_kept > size // 8:
            return None
    near = Near(*(np.concatenate(one) for one in zip(*parts, strict=True)))
    exact = {}
    for window in windows:
        value = near.value(unit_GD, window, int(count_B[: window.first].sum()), error)
        if value is None:
            return None
        exact[window.k] = value
    return LargeNull(size, exact, *_knots(bins, count_B, exact, ranks)), tiles.found_P


class Bins(NamedTuple):
    """Equal bins of cosines; the first and the last hold whatever lies beyond."""

    low: np.float32
    a_unit: np.float32

    def of(self, cosine_C: NDArray[np.float32]) -> NDArray[np.intp]:
        """Bin of each cosine; a higher one is in no lower bin."""
        at_C = (cosine_C - self.low) * self.a_unit
        return np.clip(at_C, 0, BINS - 1, out=at_C).astype(np.intp)

    def position(self, cosine: float) -> float:
        """Where a cosine lies, in bins."""
        return (cosine - float(self.low)) * float(self.a_unit)


class Window(NamedTuple):
    """Cosines between which the k-th lowest of the null is looked for, and their bins."""

    k: int
    low: float
    high: float
    first: int
    last: int


class Tiles:
    """Cosines of all pairs of different rows, a tile of rows with later rows at a time.

    Parameters
    ----------
    unit_GD : float array of shape (n_genes, n_features)
        Unit rows.
    bins : Bins
        Bins that count them.
    windows : list of Window
        Bins whose pairs are kept.
    first_P, second_P : int arrays of shape (n_pairs,)
        Pairs whose cosines are wanted.

    Attributes
    ----------
    found_P : float array of shape (n_pairs,)
        Their cosines, once all tiles are done.
    """

    def __init__(
        self,
        unit_GD: NDArray[np.float32],
        bins: Bins,
        windows: Sequence[Window],
        first_P: NDArray[np.integer],
        second_P: NDArray[np.integer],
    ) -> None:
        self._unit_GD, self._bins = unit_GD, bins
        self._is_near_B = np.zeros(BINS + 1, dtype=np.bool_)
        for window in windows:
            self._is_near_B[window.first : window.last + 1] = True
        self._low_P = np.minimum(first_P, second_P)
        self._high_P = np.maximum(first_P, second_P)
        tile_P = self._low_P // ROWS_A_TILE * len(unit_GD) + self._high_P // COLUMNS_A_TILE
        self._order_P = np.argsort(tile_P, kind="stable")
        self._tile_P = tile_P[self._order_P]
        self.found_P = np.empty(len(first_P), dtype=np.float32)

    def corners(self) -> list[tuple[int, int]]:
        """First row and first column of each tile with a pair of different rows."""
        n_genes = len(self._unit_GD)
        return [
            (row, column)
            for row in range(0, n_genes, ROWS_A_TILE)
            for column in range(0, n_genes, COLUMNS_A_TILE)
            if column + COLUMNS_A_TILE > row
        ]

    def cosines(self, corner: tuple[int, int]) -> tuple[NDArray[np.intp], "Near"]:
        """Count a tile's cosines by bin, and keep those in a window."""
        row, column = corner
        number = row // ROWS_A_TILE * len(self._unit_GD) + column // COLUMNS_A_TILE
        column_end = column + COLUMNS_A_TILE
        column = max(row, column)
        cosine_RC = _products(
            self._unit_GD[row : row + ROWS_A_TILE], self._unit_GD[column:column_end]
        )
        at_P = self._order_P[slice(*np.searchsorted(self._tile_P, [number, number + 1]))]
        self.found_P[at_P] = cosine_RC[self._low_P[at_P] - row, self._high_P[at_P] - column]
        bin_RC = self._bins.of(cosine_RC)
        if column < row + ROWS_A_TILE:
            bin_RC[np.tri(len(bin_RC), bin_RC.shape[1], row - column, dtype=np.bool_)] = BINS
        count_B = np.bincount(bin_RC.ravel(), minlength=BINS)[:BINS]
        at_C = np.flatnonzero(self._is_near_B.take(bin_RC))
        row_C, column_C = np.divmod(at_C.astype(np.int32), np.int32(cosine_RC.shape[1]))
        near_C, bin_C = cosine_RC.ravel()[at_C], bin_RC.ravel()[at_C].astype(np.int16)
        return count_B, Near(near_C, bin_C, row_C + row, column_C + column)


class Near(NamedTuple):
    """Pairs whose cosine lies in a window's bins: cosine, its bin, both rows."""

    cosine_C: NDArray[np.float32]
    bin_C: NDArray[np.int16]
    first_C: NDArray[np.int32]
    second_C: NDArray[np.int32]

    def value(
        self, unit_GD: NDArray[np.float64], window: Window, n_below: int, error: float
    ) -> float | None:
        """Find the k-th lowest cosine; None if it may lie outside of its window."""
        within_C = (self.bin_C >= window.first) & (self.bin_C <= window.last)
        near_C = self.cosine_C[within_C]
        k = window.k - n_below
        if not 0 <= k < len(near_C):
            return None
        middle = float(np.partition(near_C, k)[k])
        low, high = middle - 2 * error, middle + 2 * error
        if low < window.low or high > window.high:
            return None
        n_under = int(np.count_nonzero(near_C < low))
        close_C = np.flatnonzero(within_C & (self.cosine_C >= low) & (self.cosine_C <= high))
        exact_C = pair_cosines(unit_GD, self.first_C[close_C], self.second_C[close_C])
        return float(np.sort(exact_C)[k - n_under])


def _products(
    one_RD: NDArray[np.float32], other_CD: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Cosines of some rows with others.

    Notes
    -----
    Some features at a time: a sum of n products of unit vectors' numbers is off by n
    roundings at most, whatever order the library takes them in.
    """
    total_RC = one_RD[:, :FEATURES_A_PRODUCT] @ other_CD[:, :FEATURES_A_PRODUCT].T
    for start in range(FEATURES_A_PRODUCT, one_RD.shape[1], FEATURES_A_PRODUCT):
        part = slice(start, start + FEATURES_A_PRODUCT)
        total_RC += one_RD[:, part] @ other_CD[:, part].T
    return total_RC


def _windows(
    unit_GD: NDArray[np.float32], ranks: Sequence[int], size: int, error: float
) -> tuple[Bins, list[Window]]:
    """Bins of cosines, and those where each rank's lies, by random pairs."""
    rng = np.random.default_rng(0)
    first_S, second_S = rng.integers(len(unit_GD), size=(2, PILOT))
    apart_S = first_S != second_S
    drawn_S = np.sort(pair_cosines(unit_GD, first_S[apart_S], second_S[apart_S]))
    reach = max(float(drawn_S[-1] - drawn_S[0]), MIN_WIDTH * BINS) / 2
    bins = Bins(np.float32(drawn_S[0] - reach), np.float32(BINS / 4 / reach))
    windows = []
    for k in ranks:
        share = (k + 0.5) / size
        slack = ERRORS * np.sqrt(share * (1 - share) / len(drawn_S)) + 2 / len(drawn_S)
        low = -2.0 if share < slack else float(np.quantile(drawn_S, share - slack))
        high = 2.0 if share + slack > 1 else float(np.quantile(drawn_S, share + slack))
        # Wide enough for whoever is close to the cut, ties of its own value among them.
        low, high = low - 4 * error, high + 4 * error
        # Rounding moves a cosine by less than a bin.
        first, last = int(bins.position(low)) - 1, int(bins.position(high)) + 1
        windows.append(Window(k, low, high, max(first, 0), min(last, BINS - 1)))
    return bins, windows


def _knots(
    bins: Bins,
    count_B: NDArray[np.int64],
    value_of: Mapping[int, float],
    ranks: Sequence[tuple[int, int]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends of the bins and the cuts, with the cosines under each."""
    edges = float(bins.low) + np.arange(BINS + 1) / float(bins.a_unit)
    edges[0], edges[-1] = min(edges[0], -1.0), max(edges[-1], 1.0)
    upto = np.concatenate([[0], np.cumsum(count_B)])
    cuts = [(value_of[left], left) for left, _ in ranks if left in value_of]
    cuts += [(value_of[right - 1], right) for _, right in ranks if right - 1 in value_of]
    at, n = zip(*cuts, strict=True) if cuts else ((), ())
    edges_B = np.concatenate([edges, at])
    upto_B = np.concatenate([upto, n]).astype(np.float64)
    order_B = np.lexsort((upto_B, edges_B))
    # In single precision a bin may have got a pair that belongs beyond a cut.
    return edges_B[order_B], np.maximum.accumulate(upto_B[order_B])
