"""Nuclei of a field, and which of them belong to dead cells.

Shape suffixes: N sites, H rows, W columns, M nuclei of all sites.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, label

# Objects under this part of the usual area are specks, not nuclei.
SPECK = 0.2
_IN_PLANE = np.zeros((3, 3, 3), dtype=bool)
_IN_PLANE[1] = True


class Objects(NamedTuple):
    """Bright objects of many sites.

    Attributes
    ----------
    site_M : int array of shape (n_objects,)
        Number of the site.
    area_M : float array of shape (n_objects,)
        Pixels brighter than half of the object's brightest.
    light_M : float array of shape (n_objects,)
        That brightest one, above the site's background.
    """

    site_M: NDArray[np.int64]
    area_M: NDArray[np.float64]
    light_M: NDArray[np.float64]

    def of(self, chosen_M: NDArray[np.bool_]) -> "Objects":
        """Return the chosen objects."""
        return Objects(self.site_M[chosen_M], self.area_M[chosen_M], self.light_M[chosen_M])


def find_objects(
    x_NHW: NDArray[np.unsignedinteger],
    background_N: NDArray[np.floating],
    threshold_N: NDArray[np.floating],
) -> Objects:
    """Find what is brighter than a threshold above the background, and connected.

    Parameters
    ----------
    x_NHW : array of shape (n_sites, height, width)
        The nuclear channel.
    background_N, threshold_N : float arrays of shape (n_sites,)
        Brightness without cells, and how far above it objects begin.
    """
    smooth_NHW = gaussian_filter(x_NHW.astype(np.float32), sigma=(0, 1, 1))
    above_NHW = smooth_NHW - background_N.astype(np.float32)[:, None, None]
    mask_NHW = above_NHW > threshold_N.astype(np.float32)[:, None, None]
    label_NHW, count = label(mask_NHW, structure=_IN_PLANE)
    inside_P = np.flatnonzero(mask_NHW)
    label_P, above_P = label_NHW.ravel()[inside_P] - 1, above_NHW.ravel()[inside_P]
    light_M = np.zeros(count)
    np.maximum.at(light_M, label_P, above_P)
    # Half of its own maximum: a bright nucleus' halo would make it look large.
    core_P = above_P > light_M[label_P] / 2
    area_M = np.bincount(label_P[core_P], minlength=count).astype(np.float64)
    # All pixels of an object lie in one site, so any of them tells which.
    site_M = np.zeros(count, dtype=np.int64)
    site_M[label_P] = inside_P // (x_NHW.shape[1] * x_NHW.shape[2])
    return Objects(site_M, area_M, light_M)


def usual_nucleus(objects: Objects) -> tuple[float, float]:
    """Area and brightness of the nucleus that holds the median pixel of all objects.

    Notes
    -----
    Weighing by area keeps a swarm of specks from deciding what a nucleus is.
    """
    if objects.area_M.size == 0:
        return np.nan, np.nan
    usual = []
    for values_M in (objects.area_M, objects.light_M):
        order_M = np.argsort(values_M, kind="stable")
        share_M = np.cumsum(objects.area_M[order_M])
        usual.append(float(values_M[order_M][np.searchsorted(share_M, share_M[-1] / 2)]))
    return usual[0], usual[1]


def is_condensed(
    objects: Objects,
    usual: tuple[NDArray[np.floating], NDArray[np.floating]],
    *,
    area: float,
    light: float,
) -> NDArray[np.bool_]:
    """Whether each object is smaller and brighter than usual: the nucleus of a dead cell.

    Parameters
    ----------
    objects : Objects
        Nuclei.
    usual : pair of float arrays of shape (n_objects,)
        Area and brightness of a usual nucleus of each object's plate.
    area, light : float
        A dead cell's nucleus is below ``area`` and above ``light`` times the usual.
    """
    usual_area_M, usual_light_M = usual
    small_M = objects.area_M < area * usual_area_M
    return np.asarray(small_M & (objects.light_M > light * usual_light_M))
