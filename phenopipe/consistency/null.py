"""The null of Eq. 3: sets of wells whose labels differ, drawn within one experiment.

Shape suffixes: W wells of the pool, D features, L labels, K draws, N wells in a set.
"""

import numpy as np
from numpy.typing import NDArray

# A Gram matrix of more wells takes over 128 MiB; above, sums of vectors are cheaper to hold.
MOST_WELLS_OF_A_GRAM = 4096
# Draws whose vector sums are held at a time.
DRAWS_A_BLOCK = 500


def draw_sets(
    count_L: NDArray[np.integer], n_draws: int, n_wells: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Random sets of wells, each with as many different labels as there are.

    Parameters
    ----------
    count_L : int array of shape (n_labels,)
        Wells of each label; wells are numbered label by label.
    n_draws : int
        Number of sets.
    n_wells : int
        Wells in a set, at most the sum of ``count_L``.
    rng : Generator
        Source of the draws.

    Returns
    -------
    int array of shape (n_wells, n_draws)
        Each column is a set. Its first n rows are themselves a random set of size n, and
        do not depend on ``n_wells``: one array of draws serves every size.

    Raises
    ------
    ValueError
        If the sets would need more wells than there are.

    Notes
    -----
    A set takes a random label, then a random well of it, and never a label twice before
    all have been taken; then a second round begins, over the labels that have a well
    left. No well is in a set twice.
    """
    if n_wells > count_L.sum():
        raise ValueError(f"sets of {n_wells} wells wanted from {count_L.sum()} wells")
    start_L = np.concatenate([[0], np.cumsum(count_L)[:-1]])
    set_NK = np.empty((n_wells, n_draws), dtype=np.int64)
    drawn, turn = 0, 0
    while drawn < n_wells:
        left_L = np.flatnonzero(count_L > turn)
        taken = np.empty((min(len(left_L), n_wells - drawn), n_draws), dtype=np.int64)
        first = drawn
        for at in range(len(taken)):
            low, high = np.zeros(n_draws, np.int64), np.full(n_draws, len(left_L))
            taken[at] = _unlike(taken[:at], low, high, rng)
            label_K = left_L[taken[at]]
            low = start_L[label_K]
            set_NK[drawn] = _unlike(set_NK[:first], low, low + count_L[label_K], rng)
            drawn += 1
        turn += 1
    return set_NK


def _unlike(
    taken_JK: NDArray[np.int64],
    low_K: NDArray[np.int64],
    high_K: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Draw a number from low to high (excluded) that is not yet in the same column."""
    value_K = rng.integers(low_K, high_K)
    again = np.flatnonzero((taken_JK == value_K).any(axis=0))
    while again.size:
        value_K[again] = rng.integers(low_K[again], high_K[again])
        again = again[(taken_JK[:, again] == value_K[again]).any(axis=0)]
    return value_K


def gram_of(unit_WD: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosines of all pairs of wells, for at most ``MOST_WELLS_OF_A_GRAM`` of them.

    Notes
    -----
    A double precision product of one array with its own transpose may crash in OpenBLAS
    from 16,000 rows on; no pool of that size comes here.
    """
    gram_WW: NDArray[np.float64] = unit_WD @ unit_WD.T
    return gram_WW


def set_statistics(
    unit_WD: NDArray[np.float64],
    set_NK: NDArray[np.int64],
    gram_WW: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Eq. 2 of the first n wells of each set, for every n.

    Parameters
    ----------
    unit_WD : float array of shape (n_pool_wells, n_features)
        Embeddings of length one.
    set_NK : int array of shape (n_wells, n_draws)
        Sets of rows of ``unit_WD``, one a column.
    gram_WW : float array of shape (n_pool_wells, n_pool_wells), optional
        Cosines of all pairs of rows, where they are known already.

    Returns
    -------
    float array of shape (n_wells, n_draws)
        Row n - 1 holds the statistic of sets of size n.
    """
    size_N1 = np.arange(1, len(set_NK) + 1)[:, None]
    few = len(unit_WD) <= MOST_WELLS_OF_A_GRAM and len(set_NK) <= 2 * unit_WD.shape[1]
    if gram_WW is None and few:
        gram_WW = gram_of(unit_WD)
    if gram_WW is None:
        double_sum_NK = _double_sums_by_vectors(unit_WD, set_NK)
    else:
        double_sum_NK = _double_sums_by_pairs(gram_WW, set_NK)
    statistic_NK: NDArray[np.float64] = double_sum_NK / size_N1**2
    return statistic_NK


def _double_sums_by_pairs(
    gram_WW: NDArray[np.float64], set_NK: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Sum of all n² cosines of each set, looked up in the Gram matrix of the pool."""
    n_wells, gram = len(gram_WW), gram_WW.ravel()
    added_NK = gram.take(set_NK * (n_wells + 1))
    for at in range(1, len(set_NK)):
        pairs = gram.take(set_NK[:at] * n_wells + set_NK[at])
        added_NK[at] += 2 * pairs.sum(axis=0)
    total_NK: NDArray[np.float64] = np.cumsum(added_NK, axis=0)
    return total_NK


def _double_sums_by_vectors(
    unit_WD: NDArray[np.float64], set_NK: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Sum of all n² cosines of each set, as the squared length of its running sum."""
    total_NK = np.empty(set_NK.shape)
    for first in range(0, set_NK.shape[1], DRAWS_A_BLOCK):
        block = slice(first, first + DRAWS_A_BLOCK)
        sum_KD = np.zeros((set_NK[:, block].shape[1], unit_WD.shape[1]))
        for at, wells_K in enumerate(set_NK[:, block]):
            sum_KD += unit_WD[wells_K]
            total_NK[at, block] = np.einsum("kd,kd->k", sum_KD, sum_KD)
    return total_NK
