"""RxRx3-core: parquet shards of JPEG 2000, six rows a well, 512 x 512 pixels of 8 bits.

    metadata_rxrx3_core.csv    columns as RxRx3, and well_type_label
    data/train-00000-of-00035.parquet    __key__, jp2 {bytes, path}

A key reads ``gene-001/Plate1/A01_s1_1``: experiment, plate, address, site, channel. The rows
of a well may lie in two row groups, or in two shards. They are read in the order of the
shards, a batch at a time, so that memory does not grow with a shard.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from phenopipe.errors import UserError, reason
from phenopipe.formats.files import ROW as ROW_OF_SHARD
from phenopipe.screen.config import ImagesKnobs
from phenopipe.screen.layouts import Listed
from phenopipe.screen.rxrx3 import EXPERIMENT, find_table, named, read_wells

TABLES = ("metadata_rxrx3_core.csv", "metadata.csv")
SHARDS = "data/*.parquet"
KEY = (
    r"^(?<experiment>[^/]+)/Plate(?<plate>[^/]+)/"
    r"(?<well>[^/_]+)_s(?<site>[0-9]+)_(?<channel>[0-9]+)$"
)


def tables(folder: Path) -> list[Path]:
    """The table of wells."""
    return [find_table(folder, TABLES)]


def experiments(folder: Path) -> list[str]:
    """Experiments that the table names and that some shard has images of."""
    keys = pl.col("__key__").str.split("/").list.first()
    found: set[str] = set()
    for path in folder.glob(SHARDS):
        # A torn shard is told of by the step that reads its images.
        with contextlib.suppress(OSError, pl.exceptions.PolarsError):
            found |= set(pl.scan_parquet(path).select(keys.unique()).collect().to_series())
    return [name for name in named(folder, TABLES, EXPERIMENT) if name in found]


def read(given: Sequence[Path], folder: Path, knobs: ImagesKnobs, experiment: str) -> Listed:
    """One experiment, its planes in the order of the shards."""
    rows = read_wells(given, knobs, experiment)
    name = str(rows[EXPERIMENT][0])
    shards = sorted(folder.glob(SHARDS))
    if not shards:
        raise UserError(f"{folder}: no shard, wanted {SHARDS}")
    told: list[str] = []
    read = (_planes_of_shard(path, folder, name, told) for path in shards)
    found = [one for one in read if one is not None]
    if not found:
        raise UserError(told[0])
    planes = pl.concat(found)
    return Listed(rows, planes, told, in_order=True)


def _planes_of_shard(
    path: Path, folder: Path, experiment: str, told: list[str]
) -> pl.DataFrame | None:
    """Planes of one experiment in a shard, from its column of keys alone."""
    file = path.relative_to(folder).as_posix()
    try:
        keys = pl.scan_parquet(path).select("__key__").with_row_index("at").collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        told.append(f"{file}: cannot be read ({reason(error)}); its images are left out")
        return None
    own = keys.filter(pl.col("__key__").str.starts_with(f"{experiment}/"))
    read = own.with_columns(pl.col("__key__").str.extract_groups(KEY)).unnest("__key__")
    unknown = read["experiment"].is_null()
    if unknown.any():
        key = own.filter(unknown)["__key__"][0]
        told.append(
            f"{file}: key {key!r}, wanted EXPERIMENT/PlateN/A01_s1_1; {unknown.sum()} left out"
        )
    return read.filter(~unknown).select(
        *("plate", "well", pl.col("site").cast(pl.Int32), "channel"),
        file=pl.format(f"{file}{ROW_OF_SHARD}{{}}", "at"),
        place=pl.lit(file),
    )
