"""Principal components of the controls, centred and scaled on each experiment's controls.

Shape suffixes: W wells, N controls of one experiment, D features, R principal components.
"""

from collections.abc import Iterable
from functools import partial
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

# An experiment whose controls vary less than this share of all controls has no own scale.
FLAT = 1e-10


def center_scale_on_controls(
    x_WD: Floats, is_control_W: ArrayLike, experiment_W: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Features with mean 0 and standard deviation 1 on the controls.

    Parameters
    ----------
    x_WD : float array of shape (n_wells, n_features)
        Well embeddings.
    is_control_W : bool array of shape (n_wells,)
        Which wells are controls.
    experiment_W : array of shape (n_wells,), optional
        Experiment of each well, to be centred and scaled on its own controls. Default:
        all wells on all controls.

    Returns
    -------
    float array of shape (n_wells, n_features)
        A feature that is constant among the controls is centred only.

    Raises
    ------
    ValueError
        If an experiment has no control.
    """
    names_W = np.zeros(len(x_WD), int) if experiment_W is None else experiment_W
    controls = rows_by_experiment(x_WD, is_control_W, names_W)
    own = {name: moments(x_ND) for name, x_ND in controls.items()}
    scalers = {name: partial(_center_scale, m.mean, spread(m)) for name, m in own.items()}
    return map_each(x_WD, names_W, scalers)


def _center_scale(
    mean_D: NDArray[np.float64], scale_D: NDArray[np.float64], x_WD: Floats
) -> NDArray[np.float64]:
    scaled_WD: NDArray[np.float64] = (x_WD - mean_D) / scale_D
    return scaled_WD


class ControlPCANormalizer:
    """Rotate wells to principal components of all controls, then scale each experiment.

    Parameters
    ----------
    n_components : int, optional
        Principal components that are kept; default: all that vary.

    Attributes
    ----------
    projection_ : float array of shape (n_features, n_components)
        Rotation to principal components, each divided by its standard deviation.

    Notes
    -----
    Paper 6: components are fitted on the controls of all experiments (features centred,
    not scaled), and every component gets mean 0 and standard deviation 1 on the controls
    of each experiment. Where an experiment's controls do not vary along a component
    (an experiment with one control), the standard deviation of all controls serves.
    """

    def __init__(self, n_components: int | None = None) -> None:
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
        self.projection_ = fit_components(map(moments, controls.values()), self.n_components)
        self.maps_ = {
            name: experiment_map(x_ND, centers[name], self.projection_)
            for name, x_ND in controls.items()
        }
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


def fit_components(
    parts: Iterable[Moments], n_components: int | None = None
) -> NDArray[np.float64]:
    """Principal components of all controls, each divided by its standard deviation.

    Returns
    -------
    float array of shape (n_features, n_components)
        The centre is left to each experiment.

    Raises
    ------
    ValueError
        If the controls do not vary.
    """
    total = pooled(parts)
    axes_DR, variance_R = principal_axes(total.scatter / total.count, n_components)
    if not variance_R.size:
        raise ValueError(f"{total.count} controls that are all alike, wanted some that vary")
    return axes_DR / np.sqrt(variance_R)


def experiment_map(
    control_ND: Floats, center_D: NDArray[np.float64], projection_DR: NDArray[np.float64]
) -> LinearMap:
    """Map of one experiment, given its centre, its controls, and the components of all."""
    own = moments(control_ND)
    covariance_RR = projection_DR.T @ (own.scatter / own.count) @ projection_DR
    scale_R = np.sqrt(np.maximum(np.diag(covariance_RR), 0))
    return LinearMap(center_D, projection_DR / np.where(scale_R > FLAT, scale_R, 1.0))
