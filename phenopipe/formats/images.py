"""images.parquet and images.zarr: the sites of each well, and their pixels."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import zarr
from numpy.typing import NDArray

from phenopipe.errors import UserError
from phenopipe.formats.atomic import atomic
from phenopipe.formats.stores import content_digest, open_store, save_attributes
from phenopipe.formats.tables import Schema, Stamp, read_table, write_table

IMAGES = Schema(
    "images",
    {
        "image_id": (pl.String, "unique over the screen: {well_id}/{site}"),
        "well_id": (pl.String, "the site's well"),
        "site": (pl.Int32, "field of view in the well, from 1"),
        "height": (pl.Int32, "pixels, as found"),
        "width": (pl.Int32, "pixels, as found"),
        "channels": (pl.Int32, "number of channels, as found"),
        "index": (pl.Int64, "row of images.zarr; null if the site could not be stored"),
        "uri": (pl.String, "where the pixels came from, if not simulated"),
    },
    unique=("image_id",),
)
SITES_A_SHARD = 64
PIXEL_TYPES = ("uint8", "uint16")


def read_images(path: Path) -> pl.DataFrame:
    """Read and check an images table."""
    return read_table(path, IMAGES)


def write_images(path: Path, images: pl.DataFrame, stamp: Stamp) -> None:
    """Check and write an images table."""
    write_table(path, images, IMAGES, stamp)


def write_pixels(
    path: Path,
    sites: Iterable[NDArray[np.integer]],
    *,
    shape: tuple[int, int, int, int],
    channels: Sequence[str],
    dtype: str,
    stamp: Stamp,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write the pixels of all sites: one chunk a site, 64 sites a shard.

    Parameters
    ----------
    path : Path
        The zarr store (a folder).
    sites : iterable of arrays of shape (channels, height, width)
        Pixels in the order of ``index``; held in memory one shard at a time.
    shape : tuple of int
        (n_sites, channels, height, width).
    channels : list of str
        Channel names in order.
    dtype : str
        ``uint8`` or ``uint16``.
    stamp : mapping
        The step's stamp.
    facts : mapping
        What else is known of the pixels: ``pixels`` (``pixel_size_um``, ``scaling``), and the
        ``limits`` that they were scaled between.
    """
    assert dtype in PIXEL_TYPES and len(channels) == shape[1]
    digests = []
    with atomic(path) as temporary:
        store = zarr.create_array(
            store=str(temporary),
            shape=shape,
            dtype=dtype,
            chunks=(1, *shape[1:]),
            shards=(min(SITES_A_SHARD, max(shape[0], 1)), *shape[1:]),
            compressors=zarr.codecs.ZstdCodec(level=1),
        )
        for first, block in _blocks(sites, SITES_A_SHARD):
            assert block.shape[1:] == shape[1:], (block.shape, shape)
            store[first : first + len(block)] = block
            digests.append(content_digest(block))
        attributes = {"channels": list(channels), **(facts or {}), "stamp": dict(stamp)}
        save_attributes(store, attributes, digests)


def open_pixels(path: Path) -> Any:  # noqa: ANN401 - an array, or what is read as one
    """Open the pixels of an experiment; ``array[index]`` reads one site.

    Raises
    ------
    UserError
        If the store is not a whole one.
    """
    store = open_store(path)
    if not isinstance(store, zarr.Group):
        return store
    # Imported where it is needed: readers of image files take a while to load.
    from phenopipe.formats.in_place import PixelsInPlace

    return PixelsInPlace(path, store)


def pixel_facts(path: Path) -> dict[str, Any]:
    """Tell what is known of a store's pixels: ``pixel_size_um``, ``scaling``."""
    facts = open_store(path).attrs.get("pixels")
    return dict(facts) if isinstance(facts, Mapping) else {}


def pixel_channels(path: Path) -> list[str]:
    """Channel names of a pixel store, in the order of its second axis."""
    channels = open_store(path).attrs.get("channels")
    if not isinstance(channels, list):
        raise UserError(f"{path}: no channel names among its attributes")
    return [str(name) for name in channels]


def _blocks(
    sites: Iterable[NDArray[np.integer]], size: int
) -> Iterable[tuple[int, NDArray[np.integer]]]:
    first, held = 0, []
    for site in sites:
        held.append(site)
        if len(held) == size:
            yield first, np.stack(held)
            first, held = first + size, []
    if held:
        yield first, np.stack(held)
