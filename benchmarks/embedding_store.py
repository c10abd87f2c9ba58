"""Stores of embeddings: which chunks, shards, codec and type, and what one block costs.

    python benchmarks/embedding_store.py [--all] [--folder FOLDER]

20,000 wells x 12 blocks x 384 numbers. The store that the workflow writes is read block by
block beside ``numpy.memmap`` of the same numbers, in turn, and its size and write speed are
told; with ``--all`` the alternatives too. Ratios are medians of pairs with their 95 %
interval, by wall clock and by processor time, which other work on the machine disturbs less;
the bound is kept if either keeps it. Reading is from the page cache: run it twice, or
name a folder in memory (/dev/shm). Exit code 1 if a bound is not kept.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from phenopipe.formats.embeddings import embeddings_writer, read_block

WELLS, BLOCKS, DIM = 20_000, 12, 384
BOUND = 4.0
PAIRS = 15
# Rows of a chunk, rows of a shard, codec, type.
ALTERNATIVES = (
    (500, 500, None, "float32"),
    (500, 4000, None, "float32"),
    (4000, 4000, None, "float32"),
    (1819, 1819, "zstd", "float32"),
    (1819, 1819, None, "float16"),
)


def write_ours(path: Path, x_WBD: NDArray[Any]) -> None:
    """Write as the step does, well by well."""
    facts: dict[str, Any] = {
        "block_numbers": range(1, BLOCKS + 1),
        "block_dims": [DIM] * BLOCKS,
    }
    ids = [f"experiment-{row}" for row in range(WELLS)]
    with embeddings_writer(path, ids, dtype=str(x_WBD.dtype), stamp={}, **facts) as writer:
        for row, x_BD in enumerate(x_WBD):
            writer.put(row, x_BD)


def write_plain(path: Path, x_WBD: NDArray[Any], rows: int, shard: int, codec: Any) -> None:
    """Write with other settings, shard by shard."""
    array = zarr.create_group(store=str(path)).create_array(
        "embedding",
        shape=x_WBD.shape,
        dtype=x_WBD.dtype,
        chunks=(rows, 1, DIM),
        shards=(shard, BLOCKS, DIM),
        compressors=zarr.codecs.ZstdCodec(level=1) if codec else None,
    )
    for first in range(0, WELLS, shard):
        array[first : first + shard] = x_WBD[first : first + shard]


def read_plain(path: Path, block: int) -> NDArray[Any]:
    """Read one block of such a store."""
    return np.asarray(zarr.open(str(path), mode="r")["embedding"][:, block - 1])


def seconds(run: Callable[[], Any]) -> NDArray[np.float64]:
    """Wall and processor time of one run."""
    start = np.array([time.perf_counter(), time.process_time()])
    run()
    return np.array([time.perf_counter(), time.process_time()]) - start


def measure(
    name: str,
    path: Path,
    write: Callable[[], None],
    read: Callable[[int], NDArray[Any]],
    memmap: NDArray[Any],
) -> float:
    """Write, read in turn with a memory map, and tell; returns the ratio."""
    written = seconds(write)[0]
    size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    ratio_P, ours_P = [], []
    for pair in range(PAIRS + 1):
        block = 1 + pair % BLOCKS
        base = seconds(lambda: np.array(memmap[:, block - 1]))  # noqa: B023
        ours_P.append(seconds(lambda: read(block)))  # noqa: B023
        ratio_P.append(ours_P[-1] / base)
    ratio_P2, wall = np.array(ratio_P[1:]), np.median(np.array(ours_P[1:])[:, 0])
    draw = np.random.default_rng(0).integers(0, PAIRS, (2000, PAIRS))
    low_2, high_2 = np.quantile(np.median(ratio_P2[draw], axis=1), (0.025, 0.975), axis=0)
    ratio_2 = np.median(ratio_P2, axis=0)
    megabytes = memmap.nbytes / 1e6
    print(
        f"{name}: one block {1e3 * wall:.1f} ms, times numpy.memmap {ratio_2[0]:.2f} "
        f"({low_2[0]:.2f} to {high_2[0]:.2f}) by wall clock, {ratio_2[1]:.2f} "
        f"({low_2[1]:.2f} to {high_2[1]:.2f}) by processor; {size / 1e6:.0f} MB, written at "
        f"{megabytes / written:.0f} MB/s",
        flush=True,
    )
    assert np.array_equal(read(3), memmap[:, 2])
    shutil.rmtree(path)
    return float(min(ratio_2))


def main() -> int:
    """Print the figures; 1 if the bound is not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    x_WBD = np.random.default_rng(0).standard_normal((WELLS, BLOCKS, DIM), dtype=np.float32)
    with tempfile.TemporaryDirectory(dir=given.folder) as place:
        folder = Path(place)
        np.save(folder / "x.npy", x_WBD)
        memmap = np.load(folder / "x.npy", mmap_mode="r")
        path = folder / "e.zarr"
        ratio = measure(
            "as the step writes (1,819 wells a chunk and a shard, no codec, float32)",
            path,
            lambda: write_ours(path, x_WBD),
            lambda block: read_block(path, block),
            memmap,
        )
        print(f"one block to numpy.memmap: {ratio:.2f} times (bound at most {BOUND:.0f})")
        for rows, shard, codec, dtype in ALTERNATIVES if given.all else ():
            cast = x_WBD.astype(dtype)
            np.save(folder / "cast.npy", cast)
            measure(
                f"{rows} wells a chunk, {shard} a shard, {codec or 'no codec'}, {dtype}",
                path,
                lambda: write_plain(path, cast, rows, shard, codec),  # noqa: B023
                lambda block: read_plain(path, block),
                np.load(folder / "cast.npy", mmap_mode="r"),
            )
    return 0 if ratio <= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
