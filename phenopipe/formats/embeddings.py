"""Embeddings: every well's vector at every block, one zarr store an experiment."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from phenopipe.errors import UserError
from phenopipe.formats.atomic import atomic, clear_leftovers
from phenopipe.formats.shards import is_plain, read_plain_block
from phenopipe.formats.stores import content_digest, open_store, save_attributes, torn
from phenopipe.formats.tables import Stamp

# A chunk holds one block of some wells, a shard all blocks of them: so one block is read
# without the others, and a writer holds no more than one shard, of any encoder.
SHARD_BYTES = 2**25
HALF_MAX = float(np.finfo(np.float16).max)
WELLS, SITES = "embedding", "site_embedding"


class EmbeddingsWriter:
    """Takes wells (or sites) in their order and writes whenever a shard is full.

    Parameters
    ----------
    array : zarr array of shape (n_wells, n_blocks, dim)
        Where they go.
    sites : EmbeddingsWriter, optional
        Takes the sites of these wells, where they are kept too.
    """

    def __init__(self, array: zarr.Array, sites: "EmbeddingsWriter | None" = None) -> None:
        self.array = array
        self.sites = sites
        self.n_wells = array.shape[0]
        self.first = self.n_taken = 0
        self.digests: list[str] = []
        self._fresh()

    def put(self, row: int, x_BD: NDArray[np.floating]) -> None:
        """Take one well's embedding; rows ascend, those left out become NaN.

        Raises
        ------
        UserError
            If a value does not fit into float16.
        """
        assert self.first <= row < self.n_wells, (self.first, row)
        while row >= self.first + len(self.held_WBD):
            self.flush()
        if self.held_WBD.dtype == np.float16 and (np.abs(x_BD) > HALF_MAX).any():
            raise UserError(
                f"an embedding reaches {np.nanmax(np.abs(x_BD)):.3g}, more than float16 holds:"
                " set embed.wells.dtype to float32"
            )
        self.held_WBD[row - self.first] = x_BD
        self.n_taken = row + 1

    def append(self, x_BD: NDArray[np.floating]) -> None:
        """Take the embedding of the next row."""
        self.put(self.n_taken, x_BD)

    def flush(self) -> None:
        """Write the shard that is held and begin the next."""
        last = self.first + len(self.held_WBD)
        self.array[self.first : last] = self.held_WBD
        self.digests.append(content_digest(self.held_WBD))
        self.first = last
        self._fresh()

    def finish(self) -> None:
        """Write what is left."""
        while self.first < self.n_wells:
            self.flush()

    def _fresh(self) -> None:
        n = min(self.array.shards[0], self.n_wells - self.first)
        shape = (n, *self.array.shape[1:])
        self.held_WBD = np.full(shape, np.nan, dtype=self.array.dtype)


def wells_a_shard(n_wells: int, bytes_a_well: int) -> int:
    """Wells of a shard of at most ``SHARD_BYTES``, so that all shards hold about as many.

    Examples
    --------
    >>> wells_a_shard(20_000, 12 * 384 * 4), wells_a_shard(1_400, 12 * 384 * 4)
    (1819, 1400)
    """
    most = max(1, SHARD_BYTES // bytes_a_well)
    n_shards = -(-max(n_wells, 1) // most)
    return -(-max(n_wells, 1) // n_shards)


@contextmanager
def embeddings_writer(
    path: Path,
    well_ids: Sequence[str],
    *,
    block_numbers: Sequence[int],
    block_dims: Sequence[int],
    dtype: str,
    stamp: Stamp,
    attributes: Mapping[str, Any] | None = None,
    site_rows: Sequence[int] | None = None,
    site_dtype: str = "float32",
) -> Iterator[EmbeddingsWriter]:
    """Open a store for writing, well by well; it appears whole or not at all.

    What a killed writer left beside the path is removed. Parameters as in
    :func:`write_embeddings`, which writes an array that lies in memory; ``site_rows``, the row
    of each site's well, opens a second array for sites (``writer.sites``) of ``site_dtype``.
    """
    n_blocks, dim = len(block_numbers), max(block_dims)
    assert n_blocks == len(block_dims)
    clear_leftovers(path)
    with atomic(path) as temporary:
        group = zarr.create_group(store=str(temporary))
        writer = EmbeddingsWriter(_array(group, WELLS, (len(well_ids), n_blocks, dim), dtype))
        facts = {
            "well_id": list(well_ids),
            "blocks": [int(b) for b in block_numbers],
            "block_dims": [int(d) for d in block_dims],
            **(attributes or {}),
            "stamp": dict(stamp),
        }
        if site_rows is not None:
            shape = (len(site_rows), n_blocks, dim)
            writer.sites = EmbeddingsWriter(_array(group, SITES, shape, site_dtype))
            facts["site_row"] = [int(row) for row in site_rows]
        yield writer
        writer.finish()
        digests = writer.digests
        if writer.sites is not None:
            writer.sites.finish()
            digests = digests + writer.sites.digests
        save_attributes(group, facts, digests)


def _array(group: zarr.Group, name: str, shape: tuple[int, int, int], dtype: str) -> zarr.Array:
    """Create an array whose chunks are one block of some wells, and its shards all of them."""
    n_rows, n_blocks, dim = shape
    rows = wells_a_shard(n_rows, n_blocks * dim * np.dtype(dtype).itemsize)
    return group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=(rows, 1, dim),
        shards=(rows, n_blocks, dim),
        compressors=None,
        # Zeros too, so that a file which is not there is one which was lost.
        config={"write_empty_chunks": True},
    )


def write_embeddings(
    path: Path,
    x_WBD: NDArray[np.floating],
    well_ids: Sequence[str],
    *,
    block_numbers: Sequence[int],
    block_dims: Sequence[int],
    stamp: Stamp,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write the embeddings of one experiment so that one block is read without the others.

    Parameters
    ----------
    path : Path
        The zarr store (a folder); it appears whole or not at all.
    x_WBD : float array of shape (n_wells, n_blocks, dim)
        Well embeddings; rows of NaN for wells without usable sites. Blocks narrower than
        ``dim`` are padded with zeros.
    well_ids : list of str
        Well of each row.
    block_numbers : list of int
        Blocks counted from 1.
    block_dims : list of int
        True width of each block.
    stamp, attributes : mapping
        The step's stamp, and facts such as encoder fingerprint, pooling, crops a well.
    """
    assert x_WBD.shape == (len(well_ids), len(block_numbers), max(block_dims))
    with embeddings_writer(
        path,
        well_ids,
        block_numbers=block_numbers,
        block_dims=block_dims,
        dtype=str(x_WBD.dtype),
        stamp=stamp,
        attributes=attributes,
    ) as writer:
        for row, x_BD in enumerate(x_WBD):
            writer.put(row, x_BD)


def open_embeddings(path: Path) -> Any:  # noqa: ANN401 - a zarr group
    """Open a store of embeddings for reading.

    Raises
    ------
    UserError
        If the store is torn: its writer did not finish, or a part of it is gone.
    """
    store = open_store(path)
    for name in (WELLS, SITES) if "site_row" in store.attrs else (WELLS,):
        if name not in store:
            raise torn(path)
        array = store[name]
        rows = (array.shards or array.chunks)[0]
        for shard in range(-(-array.shape[0] // rows)):
            # zarr would read zeros where a file is missing.
            if not (path / name / "c" / str(shard) / "0" / "0").is_file():
                raise torn(path)
    return store


def read_block(
    path: Path, block: int | None = None, *, sites: bool = False
) -> NDArray[np.floating]:
    """Read one block (the last if none is named) as an array of shape (n_wells, dim).

    Parameters
    ----------
    path : Path
        The store.
    block : int, optional
        Counted from 1.
    sites : bool
        Whether to read the embeddings of sites, (n_sites, dim), in place of the wells'.

    Raises
    ------
    UserError
        If the store is torn, lacks the block, or keeps no sites.
    """
    store = open_embeddings(path)
    blocks = list(store.attrs["blocks"])
    wanted = blocks[-1] if block is None else block
    if wanted not in blocks:
        raise UserError(f"{path}: no block {wanted}, found {blocks}")
    at = blocks.index(wanted)
    name = SITES if sites else WELLS
    if sites:
        read_site_wells(path)
    array, dim = store[name], store.attrs["block_dims"][at]
    if is_plain(array):
        return read_plain_block(path / name, array, at)[:, :dim]
    return np.asarray(array[:, at, :dim])


def read_well_ids(path: Path) -> list[str]:
    """Read the well of each row."""
    return list(open_store(path).attrs["well_id"])


def read_site_wells(path: Path) -> list[str]:
    """Read the well of each site.

    Raises
    ------
    UserError
        If the store keeps no sites.
    """
    attributes = open_store(path).attrs
    if "site_row" not in attributes:
        raise UserError(
            f"{path}: keeps no sites, wanted embed.wells.sites to be set for an encoder that"
            " sees pixels"
        )
    wells = list(attributes["well_id"])
    return [wells[row] for row in attributes["site_row"]]


def read_attributes(path: Path) -> dict[str, Any]:
    """Read blocks, block_dims, stamp and the facts that the writer added."""
    attributes = dict(open_store(path).attrs)
    del attributes["well_id"]
    attributes.pop("site_row", None)
    return attributes
