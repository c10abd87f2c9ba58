"""Typical variation normalization: what varies among controls is made equal and small.

Shape suffixes: W wells, N controls of one experiment, D features, R principal components.
"""

from collections.abc import Iterable
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phenopipe.align.controls import (
    Floats,
    LinearMap,
    experiment_centers,
    map_each,
    rows_by_experiment,
)
from phenopipe.align.moments import Moments, moments, pooled, principal_axes, spread


class TypicalVariationNormalizer:
    """Whiten wells on all controls, then even out each experiment's own control spread.

    Parameters
    ----------
    regularization : float
        Added to the variances of an experiment's controls, above 0.
    center_by_experiment : bool
        Subtract each experiment's control mean first.
    n_components : int, optional
        Principal components that are kept; default: all that vary.

    Attributes
    ----------
    center_ : float array of shape (n_features,)
        Mean of all controls; zero if each experiment has its own centre.
    projection_ : float array of shape (n_features, n_components)
        Scaling, rotation to principal components, and whitening.

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
        self.regularization = regularization
        self.center_by_experiment = center_by_experiment
        self.n_components = n_components

    def fit(
        self,
        x_WD: Floats,
        is_control_W: ArrayLike,
        experiment_W: ArrayLike,
        is_center_W: ArrayLike | None = None,
    ) -> Self:
        """Learn from the controls of all experiments and of each.

        Parameters
        ----------
        x_WD : float array of shape (n_wells, n_features)
            Well embeddings.
        is_control_W : bool array of shape (n_wells,)
            Which wells are controls.
        experiment_W : array of shape (n_wells,)
            Experiment of each well.
        is_center_W : bool array of shape (n_wells,), optional
            Wells whose median is their experiment's centre. Default: the centre is the
            mean of the controls, and no other well is looked at.

        Raises
        ------
        ValueError
            If an experiment has no control, or the controls do not vary.
        """
        controls = rows_by_experiment(x_WD, is_control_W, experiment_W)
        centers = experiment_centers(x_WD, controls, experiment_W, is_center_W)
        self.center_, self.projection_ = fit_typical_variation(
            map(moments, controls.values()),
            center_by_experiment=self.center_by_experiment,
            n_components=self.n_components,
        )
        self.maps_ = {}
        for name, x_ND in controls.items():
            own = self.center_by_experiment
            center_D = centers[name] if own else self.center_
            self.maps_[name] = experiment_map(
                x_ND, center_D, self.projection_, self.regularization
            )
        return self

    def transform(self, x_WD: Floats, experiment_W: ArrayLike) -> NDArray[np.float64]:
        """Align wells of the experiments that were fitted.

        Returns
        -------
        float array of shape (n_wells, n_components)
            Aligned embeddings.

        Raises
        ------
        ValueError
            If an experiment was not fitted.
        """
        return map_each(x_WD, experiment_W, self.maps_)


def fit_typical_variation(
    parts: Iterable[Moments], *, center_by_experiment: bool, n_components: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centre and projection that make all controls white.

    Parameters
    ----------
    parts : iterable of Moments
        Moments of each experiment's controls, taken one at a time.
    center_by_experiment : bool
        Whether each experiment will be centred on its own controls.
    n_components : int, optional
        Principal components that are kept.

    Returns
    -------
    center_D : float array of shape (n_features,)
        Zero if each experiment has its own centre.
    projection_DR : float array of shape (n_features, n_components)
        ``(x - center) @ projection`` has covariance I on the controls.

    Raises
    ------
    ValueError
        If the controls do not vary.
    """
    total = pooled(parts, within=center_by_experiment)
    scale_D = spread(total)
    correlation_DD = total.scatter / total.count / np.outer(scale_D, scale_D)
    axes_DR, variance_R = principal_axes(correlation_DD, n_components)
    if not variance_R.size:
        raise ValueError(f"{total.count} controls that are all alike, wanted some that vary")
    center_D = np.zeros_like(total.mean) if center_by_experiment else total.mean
    return center_D, axes_DR / np.sqrt(variance_R) / scale_D[:, None]


def experiment_map(
    control_ND: Floats,
    center_D: NDArray[np.float64],
    projection_DR: NDArray[np.float64],
    regularization: float,
) -> LinearMap:
    """Map of one experiment, given its centre, its controls, and what was fitted on all."""
    own = moments(control_ND)
    covariance_RR = projection_DR.T @ (own.scatter / max(own.count - 1, 1)) @ projection_DR
    return LinearMap(center_D, projection_DR @ inverse_root(covariance_RR, regularization))


def inverse_root(covariance_RR: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
    """Inverse square root of ``covariance + ridge * I``, symmetric.

    Raises
    ------
    ValueError
        If the ridge is not above 0: few controls leave directions without variance.
    """
    if not ridge > 0:
        raise ValueError(f"regularization {ridge}, wanted a number above 0")
    variance_R, axes_RR = np.linalg.eigh(covariance_RR)
    # Rounding can make the smallest variances slightly negative.
    root: NDArray[np.float64] = (
        axes_RR / np.sqrt(np.maximum(variance_R, 0) + ridge)
    ) @ axes_RR.T
    return root
