"""Replicate consistency (Eq. 2), its p-value (Eq. 3), and their Cauchy combination.

Shape suffixes: N replicates, W wells, D features, C conditions, L labels, K draws.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from phenopipe.combination import cauchy_combination
from phenopipe.consistency.null import draw_sets, set_statistics
from phenopipe.seeds import generator

__all__ = ["cauchy_combination", "consistency_pvalues", "replicate_consistency"]

# Equal statistics are reached by sums in different orders: what lies closer counts as equal.
ROUNDING = 1e-12


def replicate_consistency(x_ND: NDArray[np.floating]) -> float:
    """Mean cosine similarity over all pairs of one perturbation's replicates.

    Parameters
    ----------
    x_ND : float array of shape (n_replicates, n_features)
        Aligned well embeddings of one perturbation in one experiment.

    Returns
    -------
    float
        From 0 (the directions cancel out) to 1 (all replicates point one way).

    Raises
    ------
    ValueError
        If there is no replicate, or one has length zero, so that it points nowhere.

    Notes
    -----
    Paper Eq. 2 averages over all n² ordered pairs, each replicate with itself among
    them. For unit vectors that double sum is the squared length of their mean, so no
    (n, n) matrix is built.

    Examples
    --------
    >>> replicate_consistency(np.array([[1.0, 0.0], [0.0, 2.0]]))
    0.5
    """
    if len(x_ND) == 0:
        raise ValueError("no replicate, wanted at least one")
    mean_D = unit_rows(x_ND).mean(axis=0)
    return float(mean_D @ mean_D)


def unit_rows(x_WD: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the embeddings scaled to length one, in float64.

    Raises
    ------
    ValueError
        If an embedding has length zero or is not finite.
    """
    # Row-major, so that a row's sum does not depend on how the caller laid it out.
    x_WD = np.ascontiguousarray(x_WD, dtype=np.float64)
    length_W1 = np.linalg.norm(x_WD, axis=1, keepdims=True)
    if not (np.isfinite(length_W1) & (length_W1 > 0)).all():
        raise ValueError("a replicate embedding has length zero or is not finite")
    unit_WD: NDArray[np.float64] = x_WD / length_W1
    return unit_WD


def consistency_pvalues(
    x_WD: NDArray[np.floating], labels_W: Sequence[str], *, n_null: int, seed: int
) -> pl.DataFrame:
    """Permutation p-value of every perturbation's replicate consistency.

    Parameters
    ----------
    x_WD : float array of shape (n_wells, n_features)
        Aligned well embeddings of one experiment; all of them make the null's pool.
    labels_W : list of str of length n_wells
        Perturbation of each well.
    n_null : int
        Random sets of each size (K in Eq. 3).
    seed : int
        Seed of the draws. The order of the wells does not matter.

    Returns
    -------
    DataFrame
        ``perturbation, n_replicates, statistic, p_value``, sorted by perturbation. One
        with fewer than 2 replicates has no row.

    Raises
    ------
    ValueError
        If a well has no label, or ``n_null`` is not positive.

    Notes
    -----
    Eq. 3: p = max(#{null >= statistic}, 1) / K, never 0. Null sets have as many wells as
    the perturbation has replicates, since Eq. 2 depends on that number; their wells have
    different labels, as long as there are labels enough.

    Examples
    --------
    >>> x_WD = np.random.default_rng(0).normal(size=(40, 8))
    >>> x_WD[:4] += 5
    >>> labels = [f"guide_{well // 4}" for well in range(40)]
    >>> consistency_pvalues(x_WD, labels, n_null=1000, seed=0)["p_value"][0]
    0.001
    """
    n_labels = sum(label is not None for label in labels_W)
    if not len(x_WD) == len(labels_W) == n_labels:
        raise ValueError(f"{len(x_WD)} wells and {n_labels} labels, wanted one each")
    if n_null < 1:
        raise ValueError(f"n_null {n_null}, wanted 1 or more")
    labels = np.asarray(labels_W).astype(str)
    rng = generator(seed, "consistency")
    everywhere = np.ones(len(labels), dtype=bool)
    judged = judge(unit_rows(x_WD), labels, labels, everywhere, n_null=n_null, rng=rng)
    return judged.drop("n_labels").rename({"label": "perturbation"})


def judge(
    unit_WD: NDArray[np.float64],
    label_W: NDArray[np.str_],
    pool_label_W: NDArray[np.str_],
    in_pool_W: NDArray[np.bool_],
    *,
    n_null: int,
    rng: np.random.Generator,
) -> pl.DataFrame:
    """Compare each label's statistic with random sets of wells from the pool.

    Parameters
    ----------
    unit_WD : float array of shape (n_wells, n_features)
        Embeddings of length one.
    label_W : str array of shape (n_wells,)
        The condition that a well is a replicate of; empty for wells that only serve
        the pool.
    pool_label_W : str array of shape (n_wells,)
        Label that may occur once in a null set.
    in_pool_W : bool array of shape (n_wells,)
        Wells that null sets are drawn from.
    n_null : int
        Number of null sets (K in Eq. 3).
    rng : Generator
        Source of the draws.

    Returns
    -------
    DataFrame
        ``label, n_replicates, statistic, p_value, n_labels`` (labels of the pool), sorted
        by label: conditions with at least 2 replicates and no more than the pool has
        wells. No row if the pool has fewer than 2 labels: a null needs unlike wells.
    """
    # Rows of one label are ordered by their content, so neither the order of the wells
    # nor the names of plates decide which well a random number means.
    order = content_order(unit_WD, label_W)
    label_C, first_C, count_C = np.unique(label_W[order], return_index=True, return_counts=True)
    sum_CD = np.add.reduceat(unit_WD[order], first_C, axis=0)
    statistic_C = np.einsum("cd,cd->c", sum_CD, sum_CD) / count_C**2

    pool = np.flatnonzero(in_pool_W)
    pool = pool[content_order(unit_WD[pool], pool_label_W[pool])]
    count_L = np.unique(pool_label_W[pool], return_counts=True)[1]
    keep_C = (count_C >= 2) & (count_C <= len(pool)) & (label_C != "") & (len(count_L) >= 2)
    n_C, statistic_C = count_C[keep_C], statistic_C[keep_C]
    p_value_C = np.empty(len(n_C))
    if len(n_C):
        set_NK = draw_sets(count_L, n_null, int(n_C.max()), rng)
        null_NK = np.sort(set_statistics(unit_WD[pool], set_NK), axis=1)
        for n in np.unique(n_C):
            below = np.searchsorted(null_NK[n - 1], statistic_C[n_C == n] - ROUNDING)
            p_value_C[n_C == n] = np.maximum(n_null - below, 1) / n_null
    n_labels_C = np.full(len(n_C), len(count_L))
    return judged_frame(label_C[keep_C].tolist(), n_C, statistic_C, p_value_C, n_labels_C)


def judged_frame(
    label_C: Sequence[str],
    n_C: ArrayLike,
    statistic_C: ArrayLike,
    p_value_C: ArrayLike,
    n_labels_C: ArrayLike,
) -> pl.DataFrame:
    """Lay out judged labels: ``label, n_replicates, statistic, p_value, n_labels``."""
    return pl.DataFrame(
        {
            "label": pl.Series(label_C, dtype=pl.String),
            "n_replicates": pl.Series(np.asarray(n_C, dtype=np.int32)),
            "statistic": np.asarray(statistic_C, dtype=np.float64),
            "p_value": np.asarray(p_value_C, dtype=np.float64),
            "n_labels": pl.Series(np.asarray(n_labels_C, dtype=np.int32)),
        }
    )


def content_order(x_WD: NDArray[np.float64], label_W: NDArray[np.str_]) -> NDArray[np.intp]:
    """Order rows by label, then by their bytes: the same however they were given."""
    # Adding zero turns -0.0 into 0.0, so that equal rows have equal bytes.
    rows = np.ascontiguousarray(x_WD + 0.0)
    as_bytes_W = rows.view(np.dtype((np.void, rows.strides[0] or 8))).ravel()
    by_content = np.argsort(as_bytes_W, kind="stable")
    return by_content[np.argsort(label_W[by_content], kind="stable")]
