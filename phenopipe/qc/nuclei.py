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
        Mean brightness of these, above the site's background.
    is_whole_M : bool array of shape (n_objects,)
        The object does not touch the border of the field.
    """

    site_M: NDArray[np.int64]
    area_M: NDArray[np.float64]
    light_M: NDArray[np.float64]
    is_whole_M: NDArray[np.bool_]

    def of(self, chosen_M: NDArray[np.bool_]) -> "Objects":
        """Return the chosen objects."""
        return Objects(
            self.site_M[chosen_M],
            self.area_M[chosen_M],
            self.light_M[chosen_M],
            self.is_whole_M[chosen_M],
        )


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
    height, width = x_NHW.shape[1:]
    above_NHW = x_NHW.astype(np.float32) - background_N.astype(np.float32)[:, None, None]
    smooth_NHW = gaussian_filter(above_NHW, sigma=(0, 1, 1))
    mask_NHW = smooth_NHW > threshold_N.astype(np.float32)[:, None, None]
    label_NHW, count = label(mask_NHW, structure=_IN_PLANE)
    inside_P = np.flatnonzero(mask_NHW)
    label_P, smooth_P = label_NHW.ravel()[inside_P] - 1, smooth_NHW.ravel()[inside_P]
    peak_M = np.zeros(count)
    np.maximum.at(peak_M, label_P, smooth_P)
    # Half of its own maximum: a bright nucleus' halo would make it look large.
    core_P = smooth_P > peak_M[label_P] / 2
    area_M = np.bincount(label_P[core_P], minlength=count).astype(np.float64)
    light_P = above_NHW.ravel()[inside_P[core_P]]
    light_M = np.bincount(label_P[core_P], light_P, minlength=count) / area_M
    # All pixels of an object lie in one site, so any of them tells which.
    site_M = np.zeros(count, dtype=np.int64)
    site_M[label_P] = inside_P // (height * width)
    row_P, column_P = inside_P // width % height, inside_P % width
    on_border_P = np.isin(row_P, (0, height - 1)) | np.isin(column_P, (0, width - 1))
    is_whole_M = np.ones(count, dtype=bool)
    is_whole_M[label_P[on_border_P]] = False
    return Objects(site_M, area_M, light_M, is_whole_M)


def usual_nucleus(objects: Objects) -> tuple[float, float]:
    """Area and brightness of the nucleus that holds the median pixel of whole objects.

    Notes
    -----
    Weighing by area keeps a swarm of specks from deciding what a nucleus is.
    """
    whole = objects.of(objects.is_whole_M)
    if whole.area_M.size == 0:
        return np.nan, np.nan
    usual = []
    for values_M in (whole.area_M, whole.light_M):
        order_M = np.argsort(values_M, kind="stable")
        share_M = np.cumsum(whole.area_M[order_M])
        usual.append(float(values_M[order_M][np.searchsorted(share_M, share_M[-1] / 2)]))
    return usual[0], usual[1]


def condensation(
    objects: Objects, usual_area_M: NDArray[np.floating], usual_light_M: NDArray[np.floating]
) -> NDArray[np.float64]:
    """How much brighter for its size each nucleus is than a usual one of its plate.

    Returns
    -------
    float array of shape (n_objects,)
        Brightness over area, both relative to the usual nucleus: 1 for that, 3 and more
        for the shrunken bright nucleus of a dead cell. 0 where a nucleus is no brighter
        than usual, for a small one may just be small.
    """
    light_M = objects.light_M / usual_light_M
    return np.where(light_M > 1.0, light_M * usual_area_M / objects.area_M, 0.0)
