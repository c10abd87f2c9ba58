"""Controls of each experiment, and the linear map that they give the experiment.

Shape suffixes: W wells, N controls of one experiment, D features, R aligned features.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating]
Aligner = Callable[[Floats], NDArray[np.float64]]


@dataclass(frozen=True)
class LinearMap:
    """What aligns the wells of one experiment: ``(x - shift) @ matrix``.

    Attributes
    ----------
    shift : float array of shape (n_features,)
        Goes to the origin.
    matrix : float array of shape (n_features, n_aligned_features)
        Turns and scales features.
    """

    shift: NDArray[np.float64]
    matrix: NDArray[np.float64]

    def __call__(self, x_WD: Floats) -> NDArray[np.float64]:
        """Align wells: ``(n_wells, n_features)`` to ``(n_wells, n_aligned_features)``."""
        aligned_WR: NDArray[np.float64] = (x_WD - self.shift) @ self.matrix
        return aligned_WR


def rows_by_experiment(
    x_WD: Floats, is_control_W: ArrayLike, experiment_W: ArrayLike
) -> dict[Any, Floats]:
    """Rows of each experiment's controls, experiments in sorted order.

    Raises
    ------
    ValueError
        If an experiment has no control, an array's length differs from the number of
        wells, or a control is not finite.
    """
    x_WD, control_W = np.asarray(x_WD), np.asarray(is_control_W, dtype=bool)
    names_W = np.asarray(experiment_W)
    if not len(x_WD) == len(control_W) == len(names_W):
        lengths = f"{len(x_WD)}, {len(control_W)} and {len(names_W)}"
        raise ValueError(f"wells, controls and experiments of lengths {lengths}, wanted one")
    if not np.isfinite(x_WD[control_W]).all():
        raise ValueError("a control has a value that is not finite")
    found: dict[Any, Floats] = {}
    for name in np.unique(names_W).tolist():
        found[name] = x_WD[control_W & (names_W == name)]
        if not len(found[name]):
            raise ValueError(f"experiment {name} has no control, wanted at least one")
    return found


def map_each(
    x_WD: Floats, experiment_W: ArrayLike, map_of: Mapping[Any, Aligner]
) -> NDArray[np.float64]:
    """Align wells of several experiments, each by its experiment's map.

    Raises
    ------
    ValueError
        If a well's experiment has no map.
    """
    x_WD, names_W = np.asarray(x_WD), np.asarray(experiment_W)
    parts: list[tuple[NDArray[np.intp], NDArray[np.float64]]] = []
    for name in np.unique(names_W).tolist():
        if name not in map_of:
            raise ValueError(f"experiment {name} was not fitted, wanted one of {list(map_of)}")
        rows = np.flatnonzero(names_W == name)
        parts.append((rows, map_of[name](x_WD[rows])))
    width = parts[0][1].shape[1] if parts else x_WD.shape[1]
    aligned_WR = np.empty((len(x_WD), width))
    for rows, aligned in parts:
        aligned_WR[rows] = aligned
    return aligned_WR


def control_mean(control_ND: Floats) -> NDArray[np.float64]:
    """Mean of the controls of one experiment."""
    mean_D: NDArray[np.float64] = control_ND.mean(axis=0, dtype=np.float64)
    return mean_D


def well_median(x_WD: Floats) -> NDArray[np.float64]:
    """Median of the wells of one experiment: strong phenotypes hardly move it."""
    median_D: NDArray[np.float64] = np.median(x_WD.astype(np.float64), axis=0)
    return median_D


def experiment_centers(
    x_WD: Floats,
    controls: Mapping[Any, Floats],
    experiment_W: ArrayLike,
    is_center_W: ArrayLike | None,
) -> dict[Any, NDArray[np.float64]]:
    """Centre of each experiment: its controls' mean, or the median of the wells named."""
    if is_center_W is None:
        return {name: control_mean(x_ND) for name, x_ND in controls.items()}
    central = rows_by_experiment(x_WD, is_center_W, experiment_W)
    return {name: well_median(x_ND) for name, x_ND in central.items()}
