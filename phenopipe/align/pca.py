"""Principal components of the controls, centred and scaled on each experiment's controls.

Shape suffixes: W wells, N controls of one experiment, D features, R principal components.
"""

from collections.abc import Iterable
from functools import partial
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phenopipe.align.controls import ControlNormalizer, Floats, map_each, rows_by_experiment
from phenopipe.align.statistics import Moments, moments, pooled, principal_axes, spread

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


class ControlPCANormalizer(ControlNormalizer):
    """Rotate wells to principal components of all controls, then scale each experiment.

    Parameters
    ----------
    n_components : int, optional
        Principal components that are kept; default: all that vary.

    Notes
    -----
    Paper 6: components are fitted on the controls of all experiments (features centred,
    not scaled), and every component gets mean 0 and standard deviation 1 on the controls
    of each experiment. Where an experiment's controls do not vary along a component
    (an experiment with one control), the standard deviation of all controls serves.
    """

    def __init__(self, n_components: int | None = None) -> None:
        self.n_components = n_components

    @property
    def centers_each(self) -> bool:
        """Whether each experiment has its own centre: it does."""
        return True

    def fit_shared(self, parts: Iterable[Moments]) -> Self:
        """Fit principal components on all controls, each divided by its spread.

        Raises
        ------
        ValueError
            If there are no controls, or they do not vary.
        """
        total = pooled(parts)
        axes_DR, variance_R = principal_axes(total.scatter / total.count, self.n_components)
        if not variance_R.size:
            raise ValueError(f"{total.count} controls, all alike, wanted some that vary")
        self.center_ = np.zeros_like(total.mean)
        self.projection_ = axes_DR / np.sqrt(variance_R)
        self.middle_ = np.zeros(len(variance_R))
        return self

    def even_out(self, own: Moments, control_ND: Floats) -> NDArray[np.float64]:
        """Divide each component by its standard deviation on the experiment's controls."""
        scatter_RR = self.projection_.T @ own.scatter @ self.projection_
        scale_R = np.sqrt(np.maximum(np.diag(scatter_RR) / own.count, 0))
        return np.diag(1 / np.where(scale_R > FLAT, scale_R, 1.0))
