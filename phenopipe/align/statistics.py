"""Count, mean and scatter of rows, gathered portion by portion in double precision.

Shape suffixes: N rows, D features.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROWS_A_PORTION = 4096


@dataclass(frozen=True)
class Moments:
    """What a fit needs to know of any number of rows.

    Attributes
    ----------
    count : int
        Number of rows.
    mean : float array of shape (n_features,)
        Their mean.
    scatter : float array of shape (n_features, n_features)
        Sum of products of deviations from the mean.
    """

    count: int
    mean: NDArray[np.float64]
    scatter: NDArray[np.float64]


def moments(x_ND: NDArray[np.floating]) -> Moments:
    """Moments of one array of rows, of any float type.

    Notes
    -----
    Deviations from the mean are multiplied, never raw values: the scatter of features far
    from zero keeps its digits.
    """
    mean_D = x_ND.mean(axis=0, dtype=np.float64)
    scatter_DD = np.zeros((x_ND.shape[1], x_ND.shape[1]))
    for first in range(0, len(x_ND), ROWS_A_PORTION):
        deviation_ND = x_ND[first : first + ROWS_A_PORTION] - mean_D
        scatter_DD += deviation_ND.T @ deviation_ND
    return Moments(len(x_ND), mean_D, scatter_DD)


def pooled(parts: Iterable[Moments], *, within: bool = False) -> Moments:
    """Moments of all rows together, from the moments of their parts.

    Parameters
    ----------
    parts : iterable of Moments
        At least one; taken one at a time.
    within : bool
        Count deviations from each part's own mean only, as if all parts had one mean.

    Raises
    ------
    ValueError
        If there is no part.
    """
    total: Moments | None = None
    for part in parts:
        total = part if total is None else _merged(total, part, within=within)
    if total is None:
        raise ValueError("no rows, wanted at least one experiment with controls")
    return total


def _merged(one: Moments, other: Moments, *, within: bool) -> Moments:
    if not (one.count and other.count):
        return one if one.count else other
    count = one.count + other.count
    step_D = other.mean - one.mean
    scatter_DD = one.scatter + other.scatter
    if not within:
        scatter_DD += np.outer(step_D, step_D) * (one.count * other.count / count)
    return Moments(count, one.mean + step_D * (other.count / count), scatter_DD)


def spread(total: Moments) -> NDArray[np.float64]:
    """Return the standard deviation (n) of each feature, 1 where a feature is constant.

    Notes
    -----
    A feature counts as constant if its variance is no more than what rounding of its mean
    can make, n eps |mean| squared.
    """
    variance_D = _variance(total)
    return np.where(variance_D > _rounding(total), np.sqrt(variance_D), 1.0)


def principal_axes(
    covariance_DD: NDArray[np.float64], n_components: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Axes of largest variance and the variance along each, largest first.

    Parameters
    ----------
    covariance_DD : float array of shape (n_features, n_features)
        Symmetric; axes whose variance is nothing but rounding are left out, so that few
        controls or doubled features do no harm.
    n_components : int, optional
        Keep at most this many.

    Returns
    -------
    axes_DR : float array of shape (n_features, n_axes)
        Unit vectors as columns; the largest entry of each is positive.
    variance_R : float array of shape (n_axes,)
        Variance along each.
    """
    variance_D, axes_DD = np.linalg.eigh(covariance_DD)
    # eigh sorts from small to large.
    chosen = np.flatnonzero(_varies(variance_D))[::-1][:n_components]
    axes_DR, variance_R = axes_DD[:, chosen], variance_D[chosen]
    largest_R = np.take_along_axis(axes_DR, np.abs(axes_DR).argmax(axis=0)[None], axis=0)
    return axes_DR * np.where(largest_R < 0, -1.0, 1.0), variance_R


def spectrum(total: Moments) -> NDArray[np.float64]:
    """Variances along the principal axes of rows, features scaled to variance one.

    Returns
    -------
    float array of shape (n_directions,)
        Largest first; those that are nothing but rounding are left out, so that their
        number is the rank. Empty where there are fewer than two rows.
    """
    if total.count < 2:
        return np.empty(0)
    scale_D = spread(total)
    correlation_DD = total.scatter / total.count / np.outer(scale_D, scale_D)
    variance_D = np.asarray(np.linalg.eigvalsh(correlation_DD), dtype=np.float64)
    return variance_D[_varies(variance_D)][::-1]


def n_constant(total: Moments) -> int:
    """Number of features that are alike in all rows, but for rounding."""
    return int((_variance(total) <= _rounding(total)).sum())


def _variance(total: Moments) -> NDArray[np.float64]:
    variance_D: NDArray[np.float64] = np.diag(total.scatter) / max(total.count, 1)
    return variance_D


def _rounding(total: Moments) -> NDArray[np.float64]:
    rounding_D: NDArray[np.float64] = np.abs(total.mean) * np.finfo(np.float64).eps
    return (total.count * rounding_D) ** 2


def _varies(variance_D: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which eigenvalues, sorted from small to large, are more than rounding."""
    rounding = 10 * len(variance_D) * np.finfo(np.float64).eps
    varies_D: NDArray[np.bool_] = variance_D > max(variance_D[-1], 0.0) * rounding
    return varies_D
