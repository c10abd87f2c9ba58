"""Typical variation normalization: what varies among controls is made equal and small.

Shape suffixes: D features, R principal components.
"""

from collections.abc import Iterable
from typing import Self

import numpy as np
from numpy.typing import NDArray

from phenopipe.align.controls import ControlNormalizer
from phenopipe.align.moments import Moments, pooled, principal_axes, spread


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
        self.median_ = np.zeros(len(variance_R))
        return self

    def even_out(self, own: Moments) -> NDArray[np.float64]:
        """Inverse square root of the experiment's covariance plus the regularization."""
        scatter_RR = self.projection_.T @ own.scatter @ self.projection_
        return inverse_root(scatter_RR / max(own.count - 1, 1), self.regularization)


def inverse_root(covariance_RR: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
    """Inverse square root of ``covariance + ridge * I``, symmetric."""
    variance_R, axes_RR = np.linalg.eigh(covariance_RR)
    # Rounding can make the smallest variances slightly negative.
    length_R = np.sqrt(np.maximum(variance_R, 0) + ridge)
    root_RR: NDArray[np.float64] = (axes_RR / length_R) @ axes_RR.T
    return root_RR
