"""Encoded images in the rows of a parquet file, read as a stream.

Files come with row groups of any size, up to one for the whole file. A row group is never read
as a whole: batches of it are, and the last few of them stay in memory, so that rows that are
asked for in about the order of the file are decompressed once.
"""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

# Bytes of encoded images in a batch, and rows at most.
BATCH_BYTES, BATCH_ROWS = 4 << 20, 64
# What stays in memory behind the row that was read last: rows and bytes at most, and the rows
# that stay however large they are, since threads read sites side by side.
HELD_ROWS, HELD_BYTES, LEAST_ROWS = 512, 16 << 20, 64
# Read at a time from disk: without a buffer pyarrow reads the column of a row group whole.
BUFFER = 1 << 20


class ParquetRows:
    """One column of bytes of a parquet file, by row; may be asked by several threads.

    Parameters
    ----------
    path : Path
        The file; its first column of bytes (or struct with one) holds the images.

    Raises
    ------
    ValueError
        If no column holds bytes.
    """

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False)
        self._column, leaf = _column_of_bytes(self._file.schema_arrow)
        metadata = self._file.metadata
        groups = [metadata.row_group(at) for at in range(metadata.num_row_groups)]
        self._starts = np.cumsum([0, *(group.num_rows for group in groups)])
        size = sum(group.column(leaf).total_uncompressed_size for group in groups)
        fitting = BATCH_BYTES * metadata.num_rows // max(size, 1)
        self._batch = int(np.clip(fitting, 1, BATCH_ROWS))
        self._held: deque[tuple[int, pa.Array]] = deque()
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._group, self._next = -1, 0
        self._lock = Lock()

    def read(self, row: int) -> bytes:
        """Encoded image of a row.

        Raises
        ------
        IndexError
            If the file has no such row.
        ValueError
            If the row is empty.
        """
        with self._lock:
            if not 0 <= row < self._starts[-1]:
                raise IndexError(f"no row {row}, found {self._starts[-1]}")
            while True:
                for start, images in self._held:
                    if start <= row < start + len(images):
                        return _bytes(images[row - start])
                self._advance_towards(row)

    def _advance_towards(self, row: int) -> None:
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        if group != self._group or self._next > row:
            self._batches = self._file.iter_batches(
                batch_size=self._batch,
                row_groups=[group],
                columns=[self._column],
                use_threads=False,
            )
            self._group, self._next = group, int(self._starts[group])
        images = next(self._batches).column(0)
        self._held.append((self._next, images))
        self._next += len(images)
        if self._next == self._starts[group + 1]:
            # The reader of a row group keeps its last page, which may be all of it.
            self._batches, self._group = iter(()), -1
        self._forget()

    def _forget(self) -> None:
        rows = sum(len(images) for _, images in self._held)
        size = sum(images.get_total_buffer_size() for _, images in self._held)
        while len(self._held) > 1:
            first = self._held[0][1]
            left = rows - len(first)
            if left < LEAST_ROWS or (rows <= HELD_ROWS and size <= HELD_BYTES):
                return
            self._held.popleft()
            rows, size = left, size - first.get_total_buffer_size()


def _column_of_bytes(schema: pa.Schema) -> tuple[str, int]:
    """Name of the first column of bytes, and its number among the leaves of all columns."""
    leaf = 0
    for field in schema:
        parts = list(field.type) if pa.types.is_struct(field.type) else [field]
        for part in parts:
            if pa.types.is_binary(part.type) or pa.types.is_large_binary(part.type):
                nested = pa.types.is_struct(field.type)
                return f"{field.name}.{part.name}" if nested else field.name, leaf
            leaf += 1
    raise ValueError(f"no column of images, found {', '.join(schema.names)}")


def _bytes(value: pa.Scalar) -> bytes:
    found = value.as_py()
    if isinstance(found, dict):
        found = next(iter(found.values()))
    if not isinstance(found, bytes):
        raise ValueError("no image in its row")
    return found
