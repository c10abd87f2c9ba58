"""One block straight from the files of a sharded zarr array without a codec.

zarr copies what it reads several times; for an array whose chunks lie in its shards as they
are in memory, one read a shard does. Anything else is left to zarr.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phenopipe.formats.stores import torn

# A shard ends with the place and size of each of its chunks and a checksum of these.
ENTRY_BYTES, CHECKSUM_BYTES = 16, 4
PLAIN_CODECS = ["bytes"]
INDEX_CODECS = ["bytes", "crc32c"]


def is_plain(array: Any) -> bool:  # noqa: ANN401 - a zarr array
    """Whether a (wells, blocks, dim) array lies on disk as shards of whole, plain blocks."""
    codecs = [codec.to_dict() for codec in array.metadata.codecs]
    if len(codecs) != 1 or codecs[0]["name"] != "sharding_indexed" or array.ndim != 3:
        return False
    inner = codecs[0]["configuration"]
    names = [[one["name"] for one in inner[key]] for key in ("codecs", "index_codecs")]
    return (
        names == [PLAIN_CODECS, INDEX_CODECS]
        and inner["index_location"] == "end"
        and array.shards[0] == array.chunks[0]
        and array.chunks[1:] == (1, array.shape[2])
        and array.dtype.newbyteorder("<") == array.dtype
    )


def read_plain_block(path: Path, array: Any, at: int) -> NDArray[np.floating]:  # noqa: ANN401
    """Read block ``at`` of an array that :func:`is_plain`, as (n_wells, dim).

    Parameters
    ----------
    path : Path
        Folder of the array.
    array : zarr array
        The same, opened; gives shape, type and shards.
    at : int
        Place of the block on the second axis.

    Raises
    ------
    UserError
        If a shard is not as long as all of its blocks and their index.
    """
    n_wells, n_blocks, dim = array.shape
    rows = array.shards[0]
    found_WD = np.empty((n_wells, dim), dtype=array.dtype)
    index_bytes = n_blocks * ENTRY_BYTES + CHECKSUM_BYTES
    shard_bytes = rows * n_blocks * dim * array.dtype.itemsize + index_bytes
    for shard in range(-(-n_wells // rows)):
        part = found_WD[shard * rows : (shard + 1) * rows]
        with (path / "c" / str(shard) / "0" / "0").open("rb", buffering=0) as handle:
            # What a shorter file has at its end is no index, and may name any place.
            if handle.seek(0, 2) != shard_bytes:
                raise torn(path.parent)
            handle.seek(-index_bytes, 2)
            entries = np.frombuffer(handle.read(n_blocks * ENTRY_BYTES), dtype="<u8")
            handle.seek(int(entries[2 * at]))
            wanted = memoryview(part.data).cast("B")
            if handle.readinto(wanted) != len(wanted):
                raise torn(path.parent)
    return found_WD
