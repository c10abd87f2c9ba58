"""The Cauchy combination: one p-value from many that need not be independent."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def cauchy_score(
    p_K: ArrayLike, *, floor: float = 1e-15, ceiling: float | None = None
) -> NDArray[np.float64]:
    """Cauchy variable of each p-value: the weighted mean of these is again Cauchy.

    Parameters
    ----------
    p_K : array of float
        P-values from 0 to 1, of any shape.
    floor, ceiling : float
        Smaller and larger p-values are moved to these bounds; ``ceiling=None`` means
        ``1 - floor``.

    Returns
    -------
    float array of the shape of ``p_K``
        tan((1/2 - p) π), which is 1 / tan(p π): large for small p.

    Raises
    ------
    ValueError
        If a p-value is not between 0 and 1, or the bounds are not in order.
    """
    p = np.asarray(p_K, dtype=np.float64)
    highest = 1 - floor if ceiling is None else ceiling
    if not 0 < floor <= highest < 1:
        raise ValueError(f"bounds {floor} and {highest}, wanted 0 < floor <= ceiling < 1")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("a p-value lies outside 0 to 1")
    # The reciprocal keeps all digits of a small p, which 1/2 - p would round away.
    score: NDArray[np.float64] = 1 / np.tan(np.clip(p, floor, highest) * np.pi)
    return score


def cauchy_tail(score: ArrayLike) -> NDArray[np.float64]:
    """Probability that a standard Cauchy variable exceeds each score.

    Examples
    --------
    >>> cauchy_tail([0.0, 1.0]).tolist()
    [0.5, 0.25]
    """
    # The two-argument arc tangent is exact in the tail, where 1/2 - atan(t)/π is not.
    tail: NDArray[np.float64] = np.arctan2(1.0, np.asarray(score, dtype=np.float64)) / np.pi
    return tail


def cauchy_combination(
    p_K: ArrayLike,
    weights_K: Sequence[float] | NDArray[np.floating] | None = None,
    *,
    floor: float = 1e-15,
    ceiling: float | None = None,
) -> float:
    """One p-value for the hypothesis that none of several tests found anything.

    Parameters
    ----------
    p_K : float array of shape (n_tests,)
        P-values of the tests, which may depend on one another.
    weights_K : float array of shape (n_tests,), optional
        Weight of each test, from 0; only ratios matter. Default: all alike.
    floor, ceiling : float
        Bounds that p-values are moved to; ``ceiling=None`` means ``1 - floor``.

    Returns
    -------
    float
        Combined p-value, above 0 and below 1.

    Raises
    ------
    ValueError
        If there is no p-value, one lies outside 0 to 1, or the weights do not fit.

    Notes
    -----
    T = Σ w_k tan((1/2 - p_k) π) with Σ w_k = 1 is compared with the standard Cauchy law.
    A p-value of 1 would be minus infinity and swallow every other test. A permutation
    test with n_null draws cannot say more than 1/n_null, so the pipeline passes that as
    the floor, and 0.99 as the ceiling. With a floor f, one test among n can bring the
    combination down to about n f and no further: 1,000 draws are too few for 24 tests at
    0.01, 10,000 are enough.

    References
    ----------
    Liu and Xie (2020), Cauchy combination test, J. Am. Stat. Assoc. 115, 393-402.

    Examples
    --------
    >>> round(cauchy_combination([0.001, 1.0], floor=1e-4, ceiling=0.99), 4)
    0.0022
    """
    score_K = cauchy_score(p_K, floor=floor, ceiling=ceiling).ravel()
    if score_K.size == 0:
        raise ValueError("no p-value to combine")
    weight_K = np.ones_like(score_K) if weights_K is None else np.asarray(weights_K, float)
    if weight_K.shape != score_K.shape or not (weight_K >= 0).all() or weight_K.sum() <= 0:
        raise ValueError(f"weights {weights_K!r}, wanted one from 0 for each p-value")
    return float(cauchy_tail(score_K @ (weight_K / weight_K.sum())))
