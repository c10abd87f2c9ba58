"""images.zarr without pixels: where each site's planes are, decoded whenever they are read.

Written in place of decoded pixels where a screen says so. It is read as the array that the
other form is: by index, by slice, by a list of indices.
"""

import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import zarr
from numpy.typing import NDArray

from phenopipe.errors import UserError
from phenopipe.formats.atomic import atomic
from phenopipe.formats.bit_depth import Limits, lookups, to_8_bit
from phenopipe.formats.files import Files
from phenopipe.formats.stores import content_digest, save_attributes
from phenopipe.formats.tables import Stamp
from phenopipe.threads import n_threads

SITES, PLATE, KEY = "sites.parquet", "plate", "in_place"


def write_in_place(
    path: Path,
    planes: pl.DataFrame,
    *,
    root: Path,
    size: tuple[int, int],
    dtype: str,
    limits: Limits | None,
    channels: Sequence[str],
    facts: Mapping[str, Any],
    stamp: Stamp,
) -> None:
    """Write where the pixels of all sites are.

    Parameters
    ----------
    path : Path
        The store (a folder).
    planes : DataFrame
        ``plate`` and one column a channel, in order: the reference of each plane
        (:mod:`phenopipe.formats.files`); one row a site, in the order of ``index``.
    root : Path
        Folder that references start from.
    size : tuple of int
        Height and width of a site, pixels.
    dtype : str
        Type of the pixels in the files.
    limits : mapping or None
        How pixels of 16 bits become pixels of 8, by plate and channel; None: they stay.
    channels, facts, stamp
        As :func:`phenopipe.formats.images.write_pixels` has them.
    """
    assert planes.columns == [PLATE, *channels]
    with atomic(path) as temporary:
        group = zarr.create_group(store=str(temporary))
        planes.write_parquet(temporary / SITES)
        said = np.frombuffer(planes.write_csv().encode(), dtype=np.uint8)
        where = {"root": str(root), "size": list(size), "dtype": dtype, "limits": limits}
        attributes = {"channels": list(channels), KEY: where, **facts, "stamp": dict(stamp)}
        save_attributes(group, attributes, [content_digest(said)])


class PixelsInPlace:
    """Pixels (n_sites, channels, height, width) that are decoded when they are read.

    A plane that cannot be decoded makes its site black, and one line tells of it.

    Parameters
    ----------
    path : Path
        What :func:`write_in_place` wrote.
    group : zarr.Group
        The same, opened.
    """

    def __init__(self, path: Path, group: zarr.Group) -> None:
        where: Any = {**dict(group.attrs), **dict(group.attrs[KEY])}
        self.attrs = group.attrs
        self.channels = [str(name) for name in where["channels"]]
        self._planes = pl.read_parquet(path / SITES)
        self._files = Files(Path(where["root"]))
        self._dtype, self._size = where["dtype"], tuple(where["size"])
        limits = where["limits"]
        self._tables = None if limits is None else lookups(limits, self.channels)
        self.dtype = np.dtype(self._dtype if limits is None else np.uint8)
        self.shape: tuple[int, ...] = (self._planes.height, len(self.channels), *self._size)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[np.integer]:  # noqa: ANN401 - index, slice or tuple
        first, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(first, slice):
            whole = self.get_orthogonal_selection(range(*first.indices(len(self))))
            return whole[(slice(None), *rest)]
        site = self._site(range(len(self))[int(first)])
        return site[tuple(rest)] if rest else site

    def get_orthogonal_selection(self, indices: Sequence[int]) -> NDArray[np.integer]:
        """Decode some sites, as many at a time as there are threads."""
        found = np.empty((len(indices), *self.shape[1:]), dtype=self.dtype)
        with ThreadPoolExecutor(n_threads()) as pool:
            for at, site in enumerate(pool.map(self._site, map(int, indices))):
                found[at] = site
        return found

    def _site(self, index: int) -> NDArray[np.integer]:
        plate, *references = self._planes.row(index)
        pixels = np.zeros(self.shape[1:], dtype=self._dtype)
        try:
            for at, reference in enumerate(references):
                self._files.decode(reference, pixels[at])
        except UserError as error:
            print(f"warning: {error}; the site is black", file=sys.stderr)
            return np.zeros(self.shape[1:], dtype=self.dtype)
        return pixels if self._tables is None else to_8_bit(pixels, self._tables[plate])
