"""images.parquet and images.zarr: the sites of each well, and their pixels."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import polars as pl
import zarr
from numpy.typing import NDArray

from phenopipe.errors import UserError
from phenopipe.formats.atomic import atomic, sync
from phenopipe.formats.stores import open_store, save_attributes
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
SITES_A_SHARD, SHARD_BYTES = 64, 128 << 20
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
    """Write the pixels of all sites: one chunk a site, up to 64 sites a shard.

    Parameters
    ----------
    path : Path
        The zarr store (a folder).
    sites : iterable of arrays of shape (channels, height, width)
        Pixels in the order of ``index``; held in memory two shards at a time.
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
    together = sites_a_shard(shape, dtype)
    digests: list[Future[str]] = []
    with atomic(path) as temporary, ThreadPoolExecutor(3) as pool:
        store = zarr.create_array(
            store=str(temporary),
            shape=shape,
            dtype=dtype,
            chunks=(1, *shape[1:]),
            shards=(min(together, max(shape[0], 1)), *shape[1:]),
            compressors=zarr.codecs.ZstdCodec(level=1),
            # To look for chunks of zeros takes a third of the time, and few sites are black.
            config={"write_empty_chunks": True},
        )
        written: Future[None] | None = None
        for first, block in _blocks(sites, (together, *shape[1:]), dtype):
            # One block is digested and compressed while the next one is gathered.
            if written is not None:
                written.result()
                digests[-1].result()
                # What is on disk at the end need not be waited for then.
                pool.submit(sync, temporary / "c" / str(first // together - 1))
            digests.append(pool.submit(_digest, block))
            written = pool.submit(store.__setitem__, slice(first, first + len(block)), block)
        if written is not None:
            written.result()
        attributes = {"channels": list(channels), **(facts or {}), "stamp": dict(stamp)}
        save_attributes(store, attributes, [digest.result() for digest in digests])


def sites_a_shard(shape: tuple[int, int, int, int], dtype: str) -> int:
    """Sites that are written together: 64, or as many large ones as 128 MB hold.

    Examples
    --------
    >>> sites_a_shard((1000, 6, 512, 512), "uint8"), sites_a_shard((9, 6, 2048, 2048), "uint16")
    (64, 2)
    """
    site = int(np.prod(shape[1:])) * np.dtype(dtype).itemsize
    return max(1, min(SITES_A_SHARD, SHARD_BYTES // max(site, 1)))


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


def _digest(block: NDArray[np.integer]) -> str:
    """Digest sites by the checksum of each: pixels are many, and this is eight times as fast.

    What it must tell apart are stores that other files or settings made, not forgeries.
    """
    sums = [imagecodecs.deflate_crc32(site.reshape(-1).view(np.uint8)) for site in block]
    return f"{block.dtype}{block.shape}{sums}"


def _blocks(
    sites: Iterable[NDArray[np.integer]], shape: tuple[int, ...], dtype: str
) -> Iterator[tuple[int, NDArray[np.integer]]]:
    """Gather sites into blocks, in two buffers in turn: the block before is still in use."""
    first, held, buffers = 0, 0, [np.empty(shape, dtype=dtype)]
    for site in sites:
        assert site.shape == shape[1:], (site.shape, shape)
        buffers[0][held] = site
        held += 1
        if held == len(buffers[0]):
            yield first, buffers[0]
            first, held = first + held, 0
            buffers = [
                buffers[1] if len(buffers) > 1 else np.empty_like(buffers[0]),
                buffers[0],
            ]
    if held:
        yield first, buffers[0][:held]
