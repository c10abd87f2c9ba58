"""metrics.parquet and wells.parquet of the qc stage."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from phenopipe.formats.tables import Schema, Stamp, read_table, write_table
from phenopipe.formats.wells import COLUMNS, METADATA

METRICS = Schema(
    "metrics",
    {
        "image_id": (pl.String, "the site; the well's id where a screen has no images"),
        "well_id": (pl.String, "the site's well"),
    },
    unique=("image_id",),
    extra=("",),
)
FAILS = "fails_"
QC_WELLS = Schema(
    "qc_wells",
    {
        **COLUMNS,
        "passes": (pl.Boolean, "no test failed"),
        "reason": (pl.String, "failed tests joined by commas; empty if none"),
    },
    unique=("well_id",),
    extra=(METADATA, FAILS),
)


def read_metrics(path: Path) -> pl.DataFrame:
    """Read and check the metrics of an experiment's sites."""
    return read_table(path, METRICS)


def write_metrics(path: Path, metrics: pl.DataFrame, stamp: Stamp) -> None:
    """Check and write the metrics of an experiment's sites."""
    write_table(path, metrics, METRICS, stamp)


def read_qc_wells(path: Path) -> pl.DataFrame:
    """Read wells with one boolean column ``fails_<test>`` a test, ``passes`` and ``reason``."""
    return read_table(path, QC_WELLS)


def write_qc_wells(path: Path, wells: pl.DataFrame, stamp: Stamp) -> None:
    """Check and write wells with their flags."""
    write_table(path, wells, QC_WELLS, stamp)


def passing_wells(paths: Sequence[Path]) -> pl.DataFrame:
    """Wells of all given experiments that pass every test, without the flags."""
    frames = [
        read_qc_wells(path).filter("passes").select(pl.exclude(f"^{FAILS}.*$", "passes", "reason"))
        for path in paths
    ]
    return pl.concat(frames, how="diagonal") if frames else pl.DataFrame()
