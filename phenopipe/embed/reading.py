"""Sites in the order of their wells, read and cut into batches.

Shape suffixes: S sites, N crops, C channels, H W pixels.
"""

from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.embed.crops import crop_corners


class Sites(NamedTuple):
    """Stored sites, well by well: row of each one's well, and its index in the pixels."""

    rows: NDArray[np.int64]
    indices: NDArray[np.int64]


def sites_of(wells: pl.DataFrame, images: pl.DataFrame) -> Sites:
    """List the stored sites of some wells, in the order of the wells."""
    rows = wells.select("well_id").with_row_index("row")
    stored = images.filter(pl.col("index").is_not_null()).join(rows, on="well_id")
    stored = stored.sort("row", "index")
    return Sites(
        stored["row"].to_numpy().astype(np.int64), stored["index"].to_numpy().astype(np.int64)
    )


def read_sites(pixels: Any, indices: NDArray[np.int64]) -> NDArray[np.integer]:  # noqa: ANN401
    """Read some sites (S, C, H, W), at one go where they lie side by side."""
    first, n = int(indices[0]), len(indices)
    if np.array_equal(indices, np.arange(first, first + n)):
        return np.asarray(pixels[first : first + n])
    return np.asarray(pixels.get_orthogonal_selection(indices))


def cut_into_batches(n_sites: int, crops_a_site: int, batch: int) -> list[slice]:
    """Cut a list of sites into runs of about ``batch`` crops, whole sites each.

    Examples
    --------
    >>> cut_into_batches(5, 4, 8)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 6, None)]
    """
    size = max(1, batch // crops_a_site)
    return [slice(first, first + size) for first in range(0, n_sites, size)]


def crops_a_well(images: pl.DataFrame, pixels: Any, crop: int, *, leave_out_ring: bool) -> int:  # noqa: ANN401
    """Crops that most wells with stored sites are the mean of; 0 where no site is stored."""
    stored = images.filter(pl.col("index").is_not_null())
    if stored.is_empty():
        return 0
    sites = int(stored.group_by("well_id").len()["len"].mode().to_numpy().max())
    height, width = pixels.shape[2:]
    return sites * len(crop_corners(height, width, crop, leave_out_ring=leave_out_ring))
