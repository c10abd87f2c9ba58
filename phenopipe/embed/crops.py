"""The fixed grid of crops that covers a site.

Shape suffixes: N crops or sites, C channels, H W pixels.
"""

import numpy as np
from numpy.typing import NDArray

from phenopipe.errors import UserError


def crop_corners(
    height: int, width: int, crop: int, *, leave_out_ring: bool = False
) -> list[tuple[int, int]]:
    """List the upper left corners of the crops that tile a site, row by row.

    Parameters
    ----------
    height, width, crop : int
        Pixels.
    leave_out_ring : bool
        Leave the crops along the border out, where that leaves any.

    Raises
    ------
    UserError
        If the site is smaller than a crop.

    Notes
    -----
    As many whole crops as fit; what is left over is split evenly between both sides.

    Examples
    --------
    >>> len(crop_corners(2048, 2048, 256)), len(crop_corners(512, 512, 256))
    (64, 4)
    >>> len(crop_corners(2048, 2048, 256, leave_out_ring=True))
    36
    >>> crop_corners(96, 70, 64)
    [(16, 3)]
    """
    down, across = _starts(height, crop), _starts(width, crop)
    if not down or not across:
        raise UserError(f"a site of {height} x {width} pixels has no crop of {crop}")
    if leave_out_ring and len(down) > 2 and len(across) > 2:
        down, across = down[1:-1], across[1:-1]
    return [(top, left) for top in down for left in across]


def cut_crops(
    sites_NCHW: NDArray[np.integer], corners: list[tuple[int, int]], crop: int
) -> NDArray[np.integer]:
    """Cut sites into crops, site by site: (n_sites * n_corners, channels, crop, crop)."""
    cuts = [sites_NCHW[:, :, y : y + crop, x : x + crop] for y, x in corners]
    # corner N C H W -> N corner C H W
    stacked = np.stack(cuts, axis=1)
    return np.ascontiguousarray(stacked.reshape(-1, *stacked.shape[2:]))


def _starts(length: int, crop: int) -> list[int]:
    count = length // crop
    first = (length - count * crop) // 2
    return [first + i * crop for i in range(count)]
