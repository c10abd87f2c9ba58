"""Embeddings: every well's vector at every block, one zarr store an experiment."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from phenopipe.errors import UserError
from phenopipe.formats.atomic import atomic
from phenopipe.formats.stores import content_digest, open_store, save_attributes
from phenopipe.formats.tables import Stamp

WELLS_A_CHUNK = 500


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
    n_wells, n_blocks, dim = x_WBD.shape
    assert n_wells == len(well_ids) and n_blocks == len(block_numbers) == len(block_dims)
    chunk = min(WELLS_A_CHUNK, max(n_wells, 1))
    shard = -(-max(n_wells, 1) // chunk) * chunk
    with atomic(path) as temporary:
        group = zarr.create_group(store=str(temporary))
        array = group.create_array(
            "embedding",
            shape=x_WBD.shape,
            dtype=x_WBD.dtype,
            chunks=(chunk, 1, dim),
            shards=(shard, n_blocks, dim),
            compressors=None,
        )
        array[:] = x_WBD
        facts = {
            "well_id": list(well_ids),
            "blocks": [int(b) for b in block_numbers],
            "block_dims": [int(d) for d in block_dims],
            **(attributes or {}),
            "stamp": dict(stamp),
        }
        save_attributes(group, facts, [content_digest(x_WBD)])


def read_block(path: Path, block: int | None = None) -> NDArray[np.floating]:
    """Read one block (the last if none is named) as an array of shape (n_wells, dim).

    Raises
    ------
    UserError
        If the store is torn or lacks the block.
    """
    store = open_store(path)
    blocks = list(store.attrs["blocks"])
    wanted = blocks[-1] if block is None else block
    if wanted not in blocks:
        raise UserError(f"{path}: no block {wanted}, found {blocks}")
    at = blocks.index(wanted)
    return np.asarray(store["embedding"][:, at, : store.attrs["block_dims"][at]])


def read_well_ids(path: Path) -> list[str]:
    """Read the well of each row."""
    return list(open_store(path).attrs["well_id"])


def read_attributes(path: Path) -> dict[str, Any]:
    """Read blocks, block_dims, stamp and the facts that the writer added."""
    attributes = dict(open_store(path).attrs)
    del attributes["well_id"]
    return attributes
