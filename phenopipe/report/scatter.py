"""The principal plane of a sample of wells, as the page draws it.

Shape suffixes: N wells, D features.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def principal_plane(x_ND: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates on the first two principal components, and their shares of variance.

    Returns
    -------
    plane : float array of shape (n_wells, 2)
        Each axis points so that its largest value is positive, whatever the machine.
    shares : float array of shape (2,)
        Shares of the variance, from 0 to 1.
    """
    centred_ND = np.asarray(x_ND, dtype=np.float64) - np.mean(x_ND, axis=0)
    values_K, vectors_NK = _leading(centred_ND)
    plane_N2 = vectors_NK * values_K
    flip_2 = np.sign(plane_N2[np.abs(plane_N2).argmax(axis=0), np.arange(plane_N2.shape[1])])
    total = float((centred_ND**2).sum()) or 1.0
    return plane_N2 * np.where(flip_2 == 0, 1, flip_2), values_K**2 / total


def _leading(
    centred_ND: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    left, values, _ = np.linalg.svd(centred_ND, full_matrices=False)
    values_2, left_N2 = np.zeros(2), np.zeros((len(centred_ND), 2))
    found = min(2, len(values))
    values_2[:found], left_N2[:, :found] = values[:found], left[:, :found]
    return values_2, left_N2
