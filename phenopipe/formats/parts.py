"""Tables longer than memory: read in parts, prepared ahead, and written part by part."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from phenopipe.errors import UserError
from phenopipe.formats.atomic import atomic
from phenopipe.formats.tables import (
    COMPRESSION,
    Schema,
    Stamp,
    check_format,
    parquet_form,
    stamp_of,
)
from phenopipe.threads import ahead

# Rows that are worked on at once; two or three such parts are in memory.
ROWS_A_PART = 250_000
WORKERS = 2
S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """Some rows of a table that lies in one file or in several.

    Attributes
    ----------
    paths : tuple of Path
        Files of equal columns, read one after the other.
    offset, n_rows : int
        First row and number of rows, counted over these files.
    columns : tuple of str
        Columns of these files.
    """

    paths: tuple[Path, ...]
    offset: int
    n_rows: int
    columns: tuple[str, ...]

    def read(self, wanted: Callable[[str], bool]) -> pl.DataFrame:
        """Read the rows of the columns that are wanted."""
        names = [name for name in self.columns if wanted(name)]
        # A slice of what is scanned: the other row groups of a long file are not read.
        rows = pl.scan_parquet(list(self.paths), glob=False).slice(self.offset, self.n_rows)
        return rows.select(names).collect()


def parts_of_files(
    paths: Sequence[Path], schema: Schema, rows: int = ROWS_A_PART
) -> tuple[list[Part], dict[str, pl.DataType]]:
    """Gather neighbouring files of equal columns into parts of about so many rows.

    Returns
    -------
    parts : list of Part
        Whole files, in the order given.
    columns : dict of str to dtype
        All columns that any file has: those of the format first, in its order.

    Raises
    ------
    UserError
        If a file is not of the format, or two files have one column with two types.
    """
    columns: dict[str, pl.DataType] = {}
    groups: list[tuple[list[Path], dict[str, pl.DataType], list[int]]] = []
    for path in paths:
        found, height = _open(path, schema)
        for name, dtype in found.items():
            if columns.setdefault(name, dtype) != dtype:
                raise UserError(
                    f"{path}: column {name!r} is {dtype}, in files before {columns[name]}"
                )
        if groups and groups[-1][1] == found and sum(groups[-1][2]) + height <= rows:
            groups[-1][0].append(path)
            groups[-1][2].append(height)
        else:
            groups.append(([path], found, [height]))
    parts = [Part(tuple(g), 0, sum(heights), tuple(found)) for g, found, heights in groups]
    ordered = [*(n for n in schema.columns if n in columns), *columns]
    return parts, {name: columns[name] for name in ordered}


def parts_of_file(
    path: Path, schema: Schema, rows: int = ROWS_A_PART
) -> tuple[list[Part], dict[str, pl.DataType]]:
    """Cut one file into parts of so many rows; returns as :func:`parts_of_files`."""
    columns, height = _open(path, schema)
    cuts = [*range(0, height, rows), height]
    names = tuple(columns)
    return [Part((path,), a, b - a, names) for a, b in pairwise(cuts)], columns


def _open(path: Path, schema: Schema) -> tuple[dict[str, pl.DataType], int]:
    """Check a file's format and return its columns and its height, without its rows."""
    check_format(path, schema)
    found = dict(pl.scan_parquet(path, glob=False).collect_schema())
    schema.check_columns(found, path)
    return found, pq.read_metadata(path).num_rows


def prepared(work: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """Yield the result of some work on each item, in their order, a few items ahead."""
    return ahead(work, items, WORKERS)


def scanned(paths: Sequence[Path], columns: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    """Rows of files one after the other; a column that some files lack is null there."""
    return pl.scan_parquet(
        list(paths),
        schema=dict(columns),
        missing_columns="insert",
        extra_columns="ignore",
        glob=False,
    )


def chosen_rows(
    rows: pl.LazyFrame, stays_W: NDArray[np.bool_], **beside: NDArray[Any]
) -> pl.LazyFrame:
    """Rows that stay, with further columns; arrays are in the order of all rows."""
    marks = pl.LazyFrame({**beside, "stays": stays_W})
    return pl.concat([rows, marks], how="horizontal").filter("stays").drop("stays")


def write_rows(
    path: Path,
    rows: pl.LazyFrame,
    schema: Schema,
    stamp: Stamp,
    *,
    rows_a_group: int = ROWS_A_PART,
) -> None:
    """Write a table that need not fit into memory.

    Parameters
    ----------
    path : Path
        The parquet file; it appears whole or not at all.
    rows : LazyFrame
        A query that reads, filters and adds columns row by row.
    schema : Schema
        The format. Columns, types and uniqueness are checked as by ``write_table``.
    stamp : mapping
        Deterministic facts about the step.
    rows_a_group : int
        Rows of a row group.

    Raises
    ------
    UserError
        If the rows do not fit the format, or two of them share the column that names a row
        (told when the file is complete, so that it never appears).

    Notes
    -----
    Equal queries give equal bytes, whatever the number of threads. Memory: some parts of
    the rows, and eight bytes a row to find doubles.
    """
    columns = rows.collect_schema()
    schema.check_columns(columns, path)
    with atomic(path) as temporary:
        rows.select(schema.in_order(columns)).sink_parquet(
            temporary,
            **COMPRESSION,
            statistics=False,
            row_group_size=rows_a_group,
            metadata=stamp_of(schema, stamp),
            maintain_order=True,
            engine="streaming",
        )
        if schema.unique:
            named = pl.scan_parquet(temporary, glob=False).select(_hash_of(schema))
            hashes = [named.collect(engine="streaming").to_series().to_numpy()]
            _refuse_doubles(hashes, temporary, path, schema)


@contextmanager
def table_writer(
    path: Path, schema: Schema, columns: Mapping[str, pl.DataType], stamp: Stamp
) -> Iterator[Callable[[pl.DataFrame], None]]:
    """Yield a function that appends rows to a new table, a row group a call.

    Parameters
    ----------
    path : Path
        The parquet file; it appears whole or not at all.
    schema : Schema
        The format. Columns, types and uniqueness are checked as by ``write_table``.
    columns : mapping of str to dtype
        The columns to be written; those of the format come first.
    stamp : mapping
        Deterministic facts about the step.

    Raises
    ------
    UserError
        If the rows do not fit the format, or two rows of any calls share the column that
        names a row (told when the file is complete, so that it never appears).

    Notes
    -----
    Equal calls give equal bytes, whatever the number of threads. Memory: eight bytes a row,
    to find doubles.
    """
    schema.check_columns(columns, path)
    ordered = schema.in_order(columns)
    empty = pl.DataFrame(schema={name: columns[name] for name in ordered})
    target = empty.to_arrow().schema.with_metadata(stamp_of(schema, stamp))
    hashes: list[NDArray[np.uint64]] = []
    with atomic(path) as temporary:
        with pq.ParquetWriter(temporary, target, **parquet_form(schema, target)) as writer:

            def write(frame: pl.DataFrame) -> None:
                whole = pl.concat([empty, frame], how="diagonal")
                if schema.unique:
                    hashes.append(whole.select(_hash_of(schema)).to_series().to_numpy())
                writer.write_table(whole.select(ordered).to_arrow().cast(target))

            yield write
        _refuse_doubles(hashes, temporary, path, schema)


def _hash_of(schema: Schema) -> pl.Expr:
    """Number what names a row; equal numbers are a suspicion, not a proof."""
    return pl.struct(schema.unique).hash()


def _refuse_doubles(
    hashes: list[NDArray[np.uint64]], written: Path, path: Path, schema: Schema
) -> None:
    """Raise if two rows of a written file have equal names; equal hashes are looked at."""
    if not hashes:
        return
    sorted_R = np.concatenate(hashes)
    hashes.clear()
    sorted_R.sort()
    alike = np.unique(sorted_R[1:][sorted_R[1:] == sorted_R[:-1]])
    if not len(alike):
        return
    names = pl.read_parquet(written, columns=list(schema.unique), glob=False)
    hashes_R = names.select(_hash_of(schema)).to_series().to_numpy()
    suspects = names.filter(pl.Series(np.isin(hashes_R, alike)))
    doubled = suspects.filter(suspects.is_duplicated())
    if doubled.height:
        row = doubled.row(0)
        raise UserError(f"{path}: two rows with {schema.unique} = {row}, wanted one")
