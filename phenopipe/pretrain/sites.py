"""The images that a training draws crops from, in memory where they fit."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.errors import UserError
from phenopipe.formats.images import open_pixels, pixel_channels, read_images
from phenopipe.formats.tables import read_stamp

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass
class Sites:
    """Sites of one or more pixel stores, addressed by their place in ``table``.

    Attributes
    ----------
    table : DataFrame
        ``image_id, well_id, store, index, height, width``, one row a site, in an order that
        does not depend on the order of the files.
    stores : list of zarr arrays
        Pixels, (n_sites, channels, height, width) each.
    orders : list of lists of int
        For each store, where its second axis holds the channels.
    channels : list of str
        Names of the channels.
    """

    table: pl.DataFrame
    stores: list[Any]
    orders: list[list[int]]
    channels: list[str]
    _held: list[Pixels] | None = field(default=None, repr=False)
    _places: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._places = self.table.select("store", "index").to_numpy()

    def __len__(self) -> int:
        return self.table.height

    @property
    def facts(self) -> list[dict[str, Any]] | None:
        """What is known of the pixels of the stores, each kind once; None if nothing is."""
        found = [dict(store.attrs.get("pixels") or {}) for store in self.stores]
        unlike = [one for at, one in enumerate(found) if one not in found[:at]]
        return unlike if any(unlike) else None

    @property
    def in_memory(self) -> bool:
        """Whether the pixels are held in memory."""
        return self._held is not None

    def pixels(self, site: int) -> Pixels:
        """Read one site, of shape (channels, height, width)."""
        if self._held is not None:
            return self._held[site]
        store, index = self._places[site]
        whole: Pixels = self.stores[store][index]
        return whole[self.orders[store]]

    def hold(self, memory_mb: int) -> None:
        """Read all pixels into memory if they need no more than ``memory_mb``."""
        sizes = self.table.select("height", "width").to_numpy().prod(axis=1)
        item = max((store.dtype.itemsize for store in self.stores), default=1)
        if sizes.sum() * item * len(self.channels) <= memory_mb * 2**20:
            self._held = [self.pixels(site) for site in range(len(self))]

    def only(self, rows: NDArray[np.bool_]) -> "Sites":
        """Keep the sites at which ``rows`` is true."""
        held = None if self._held is None else [self._held[at] for at in np.flatnonzero(rows)]
        return Sites(self.table.filter(rows), self.stores, self.orders, self.channels, held)


def find_sites(
    images: Sequence[Path], pixels: Sequence[Path], wells: pl.DataFrame, crop: int
) -> Sites:
    """Find the stored sites of some wells that are large enough to crop.

    Parameters
    ----------
    images, pixels : lists of paths
        Images tables and pixel stores of the same experiments in the same order.
    wells : DataFrame
        ``screen, well_id`` of the wanted wells.
    crop : int
        Least height and width, pixels.

    Raises
    ------
    UserError
        If the lists differ in length, two stores have unlike channels, or no site is left.

    Notes
    -----
    Channels come in the order of the experiment that is first by name, so that the order of
    files decides nothing.
    """
    if len(images) != len(pixels):
        raise UserError(f"found {len(images)} images tables and {len(pixels)} pixel stores")
    if wells.is_empty():
        raise UserError("no wells are wanted: the manifest is empty")
    names = [read_stamp(path).get("names", {}) for path in images]
    places = [(str(one.get("screen")), str(one.get("experiment"))) for one in names]
    first = min(zip(places, pixels, strict=True), default=None)
    channels = pixel_channels(first[1]) if first else []
    orders = [_order(path, channels) for path in pixels]
    frames = []
    for number, path in enumerate(images):
        table = read_images(path).filter(pl.col("index").is_not_null())
        screen = names[number].get("screen")
        wanted = wells if screen is None else wells.filter(pl.col("screen") == screen)
        sites = table.join(wanted.select("screen", "well_id").unique(), on="well_id")
        frames.append(sites.with_columns(store=pl.lit(number, dtype=pl.Int64)))
    every = pl.concat(frames) if frames else pl.DataFrame({"height": []})
    table = every.filter(pl.min_horizontal("height", "width") >= crop)
    if table.is_empty():
        raise UserError(
            f"no stored image of the wanted wells is {crop} pixels wide and high, "
            f"found {every.height} images"
        )
    if table.height < every.height:
        print(f"{every.height - table.height} images are smaller than a crop: left out")
    columns = ["image_id", "well_id", "store", "index", "height", "width"]
    table = table.sort("screen", "image_id").select("screen", *columns)
    return Sites(table, [open_pixels(path) for path in pixels], orders, channels)


def _order(path: Path, channels: Sequence[str]) -> list[int]:
    """Where a store holds each of the channels."""
    found = pixel_channels(path)
    for name in channels:
        if name not in found:
            raise UserError(f"{path}: no channel {name!r}, found {', '.join(found)}")
    for name in found:
        if name not in channels:
            raise UserError(f"{path}: channel {name!r}, which other stores have not")
    return [found.index(name) for name in channels]
