"""The null of one position: wells of other conditions from where the replicates lie.

Shape suffixes: N replicates, W wells, P wells of the pool, D features, L labels, K draws.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.consistency.null import MOST_WELLS_OF_A_GRAM, gram_of, set_statistics
from phenopipe.consistency.statistics import ROUNDING, content_order, judged_frame

# Other labels within reach of a replicate's address, for each replicate: few enough to stay
# near, enough for K different sets.
LABELS_A_REPLICATE = 2


@dataclass(frozen=True)
class Window:
    """Wells around one address whose label is not the judged one.

    Attributes
    ----------
    label : int array of shape (n_labels,)
        Labels that have a well in the window, sorted.
    start, count : int array of shape (n_labels,)
        Where the wells of each label begin in ``well``, and how many there are.
    well : int array of shape (n_window_wells,)
        Rows of the pool, label by label.
    """

    label: NDArray[np.int64]
    start: NDArray[np.int64]
    count: NDArray[np.int64]
    well: NDArray[np.int64]


def judge_by_address(
    unit_WD: NDArray[np.float64],
    label_W: NDArray[np.str_],
    pool_label_W: NDArray[np.str_],
    in_pool_W: NDArray[np.bool_],
    address_W2: NDArray[np.integer],
    *,
    n_null: int,
    rng_of: Callable[[str], np.random.Generator],
) -> pl.DataFrame:
    """Compare each label's statistic with wells of other labels at the same addresses.

    Parameters
    ----------
    unit_WD : float array of shape (n_wells, n_features)
        Embeddings of length one.
    label_W, pool_label_W : str array of shape (n_wells,)
        As for :func:`phenopipe.consistency.statistics.judge`.
    in_pool_W : bool array of shape (n_wells,)
        Wells that null sets are drawn from.
    address_W2 : int array of shape (n_wells, 2)
        Row and column on the plate.
    n_null : int
        Null sets of each label (K in Eq. 3).
    rng_of : function of str
        Generator of a label's draws, so that another label changes none of them.

    Returns
    -------
    DataFrame
        ``label, n_replicates, statistic, p_value, n_labels`` (of the smallest window),
        sorted by label; conditions with fewer than 2 replicates, or with fewer other labels
        than replicates, have no row.

    Notes
    -----
    A null set takes, for each replicate, one well of another condition from the same address
    on any plate of the experiment or, where the address holds too few other conditions, from
    the smallest square window around it that holds twice as many as there are replicates; no
    label is in a set twice.
    Where every plate has a condition at the same address, its replicates share more than the
    null does: their own address, against one or two steps beside it.
    """
    order = content_order(np.column_stack([address_W2.astype(np.float64), unit_WD]), label_W)
    label_C, first_C, count_C = np.unique(label_W[order], return_index=True, return_counts=True)
    pool = np.flatnonzero(in_pool_W)
    located_PD = np.column_stack([address_W2[pool].astype(np.float64), unit_WD[pool]])
    pool = pool[content_order(located_PD, pool_label_W[pool])]
    names_L, start_L, code_P = np.unique(
        pool_label_W[pool], return_index=True, return_inverse=True
    )
    pool_PD, address_P2 = unit_WD[pool], address_W2[pool]
    gram = gram_of(pool_PD) if len(pool) <= MOST_WELLS_OF_A_GRAM else None
    rows = []
    for label, first, n in zip(label_C.tolist(), first_C, count_C, strict=True):
        others = len(names_L) - int(label in names_L)
        if not label or n < 2 or others < n:
            continue
        replicates = order[first : first + n]
        places_A2, place_N = np.unique(address_W2[replicates], axis=0, return_inverse=True)
        wanted = min(LABELS_A_REPLICATE * int(n), others)
        windows = [
            window_around(place_2, address_P2, code_P, start_L, names_L == label, wanted)
            for place_2 in places_A2
        ]
        set_NK = draw_at(windows, place_N.ravel(), n_null, rng_of(label))
        null_K = _last_statistic(pool_PD, set_NK, gram)
        sum_D = np.add.reduce(unit_WD[replicates], axis=0)
        statistic = float(np.einsum("d,d->", sum_D, sum_D) / n**2)
        at_least = int((null_K >= statistic - ROUNDING).sum())
        n_labels = min(len(window.label) for window in windows)
        rows.append((label, int(n), statistic, max(at_least, 1) / n_null, n_labels))
    return judged_frame(*zip(*rows, strict=True)) if rows else judged_frame([], [], [], [], [])


def window_around(
    place_2: NDArray[np.integer],
    address_P2: NDArray[np.integer],
    code_P: NDArray[np.int64],
    start_L: NDArray[np.int64],
    is_own_L: NDArray[np.bool_],
    wanted: int,
) -> Window:
    """Smallest square window around an address that holds enough other labels.

    Parameters
    ----------
    place_2 : int array of shape (2,)
        Row and column of its middle.
    address_P2 : int array of shape (n_pool_wells, 2)
        Addresses of the pool, whose wells are sorted by label.
    code_P : int array of shape (n_pool_wells,)
        Label of each, as a number.
    start_L : int array of shape (n_labels,)
        Where each label begins among them.
    is_own_L : bool array of shape (n_labels,)
        The judged label, which stays out.
    wanted : int
        Labels that the window must hold, at most as many as there are others.
    """
    steps_P = np.abs(address_P2 - place_2).max(axis=1)
    nearest_L = np.minimum.reduceat(steps_P, start_L)
    radius = np.sort(nearest_L[~is_own_L])[wanted - 1]
    well = np.flatnonzero((steps_P <= radius) & ~is_own_L[code_P])
    label, start, count = np.unique(code_P[well], return_index=True, return_counts=True)
    return Window(label, start, count, well)


def draw_at(
    windows: list[Window], place_N: NDArray[np.int64], n_draws: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Random sets with one well from each replicate's window, no label twice in a set.

    Parameters
    ----------
    windows : list of Window
        Each with at least as many labels as there are replicates.
    place_N : int array of shape (n_replicates,)
        Window of each replicate.
    n_draws : int
        Number of sets.
    rng : Generator
        Source of the draws.

    Returns
    -------
    int array of shape (n_replicates, n_draws)
        Rows of the pool; each column is a set.
    """
    label_NK = np.empty((len(place_N), n_draws), dtype=np.int64)
    well_NK = np.empty_like(label_NK)
    for at, place in enumerate(place_N):
        window = windows[place]
        pick_K = rng.integers(0, len(window.label), n_draws)
        taken_JK = label_NK[:at]
        again = np.flatnonzero((taken_JK == window.label[pick_K]).any(axis=0))
        while again.size:
            pick_K[again] = rng.integers(0, len(window.label), again.size)
            again = again[(taken_JK[:, again] == window.label[pick_K[again]]).any(axis=0)]
        label_NK[at] = window.label[pick_K]
        well_NK[at] = window.well[window.start[pick_K] + rng.integers(0, window.count[pick_K])]
    return well_NK


def _last_statistic(
    pool_PD: NDArray[np.float64],
    set_NK: NDArray[np.int64],
    gram: NDArray[np.float64] | None,
) -> NDArray[np.float64]:
    """Eq. 2 of whole sets; of a large pool only the wells that were drawn are multiplied."""
    if gram is None:
        drawn, local = np.unique(set_NK, return_inverse=True)
        pool_PD, set_NK = pool_PD[drawn], local.reshape(set_NK.shape)
    null_K: NDArray[np.float64] = set_statistics(pool_PD, set_NK, gram)[-1]
    return null_K
