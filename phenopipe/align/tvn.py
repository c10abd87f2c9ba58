"""Typical variation normalization: what varies among controls is made equal and small.

Shape suffixes: D features, R principal components.
"""

from collections.abc import Iterable
from typing import Self

import numpy as np
from numpy.typing import NDArray

from phenopipe.align.controls import ControlNormalizer, Floats
from phenopipe.align.statistics import Moments, pooled, principal_axes, spread


class TypicalVariationNormalizer(ControlNormalizer):
    """Whiten wells on all controls, then even out each experiment's own control spread.

    Parameters
    ----------
    regularization : float
        Added to the variances of an experiment's controls, above 0.
    center_by_experiment : bool
        Subtract each experiment's centre first.
    n_components : int, optional
        Principal components that are kept; default: all that vary.

    Raises
    ------
    ValueError
        If the regularization is not above 0: few controls leave directions without
        variance.

    Notes
    -----
    In order: every feature gets mean 0 and standard deviation 1 on all controls; principal
    components of the controls; every component gets standard deviation 1 on all controls;
    the wells of experiment e are multiplied by (C_e + r I)^(-1/2), where C_e is the
    covariance (n - 1) of its controls and r the regularization. An experiment with one
    control has C_e = 0. None of this removes the mean of an experiment, so
    ``center_by_experiment`` does it first. Components without variance among the controls
    are dropped; where others whiten them, too, they amplify rounding.

    References
    ----------
    Ando, McLean and Berndl (2017), Improving phenotypic measurements in high-content
    imaging screens, bioRxiv 161422.
    """

    def __init__(
        self,
        regularization: float = 0.5,
        center_by_experiment: bool = False,
        n_components: int | None = None,
    ) -> None:
        if not regularization > 0:
            raise ValueError(f"regularization {regularization}, wanted a number above 0")
        self.regularization = regularization
        self.center_by_experiment = center_by_experiment
        self.n_components = n_components

    @property
    def centers_each(self) -> bool:
        """Whether each experiment has its own centre."""
        return self.center_by_experiment

    def fit_shared(self, parts: Iterable[Moments]) -> Self:
        """Fit scaling, principal components and whitening on all controls.

        Raises
        ------
        ValueError
            If there are no controls, or they do not vary.
        """
        total = pooled(parts, within=self.center_by_experiment)
        scale_D = spread(total)
        correlation_DD = total.scatter / total.count / np.outer(scale_D, scale_D)
        axes_DR, variance_R = principal_axes(correlation_DD, self.n_components)
        if not variance_R.size:
            raise ValueError(f"{total.count} controls, all alike, wanted some that vary")
        self.center_ = np.zeros_like(total.mean) if self.center_by_experiment else total.mean
        self.projection_ = axes_DR / np.sqrt(variance_R) / scale_D[:, None]
        self.middle_ = np.zeros(len(variance_R))
        return self

    def even_out(self, own: Moments, control_ND: Floats) -> NDArray[np.float64]:
        """Inverse square root of the experiment's covariance plus the regularization."""
        if own.count < self.projection_.shape[1]:
            rows_NR = (control_ND - own.mean) @ self.projection_
            return inverse_root_of_rows(rows_NR, self.regularization)
        scatter_RR = self.projection_.T @ own.scatter @ self.projection_
        return inverse_root(scatter_RR / max(own.count - 1, 1), self.regularization)


def inverse_root(covariance_RR: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
    """Inverse square root of ``covariance + ridge * I``, symmetric."""
    variance_R, axes_RR = np.linalg.eigh(covariance_RR)
    # Rounding can make the smallest variances slightly negative.
    half_RR = axes_RR / (np.maximum(variance_R, 0) + ridge) ** 0.25
    root_RR: NDArray[np.float64] = half_RR @ half_RR.T
    return root_RR


def inverse_root_of_rows(rows_NR: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
    """The same of the covariance (n - 1) of a few centred rows, without forming it.

    Parameters
    ----------
    rows_NR : float array of shape (n_rows, n_components)
        Rows with mean zero, fewer than components.
    ridge : float
        Above 0.

    Notes
    -----
    With Y the rows over sqrt(n - 1) and Y Y' = U diag(v) U', a matrix of n rows only,

        (Y'Y + r I)^(-1/2) = r^(-1/2) I - Y' U diag(g) U' Y,
        g = 1 / (sqrt(r (v + r)) (sqrt(v + r) + sqrt(r))),

    where nothing is divided by a variance that may be zero.
    """
    scaled_NR = rows_NR / np.sqrt(max(len(rows_NR) - 1, 1))
    variance_N, turn_NN = np.linalg.eigh(scaled_NR @ scaled_NR.T)
    length_N = np.sqrt(np.maximum(variance_N, 0) + ridge)
    shrink_N = 1 / (np.sqrt(ridge) * length_N * (length_N + np.sqrt(ridge)))
    half_RN = scaled_NR.T @ (turn_NN * np.sqrt(shrink_N))
    root_RR: NDArray[np.float64] = half_RN @ half_RN.T
    np.negative(root_RR, out=root_RR)
    root_RR[np.diag_indices_from(root_RR)] += 1 / np.sqrt(ridge)
    return root_RR
