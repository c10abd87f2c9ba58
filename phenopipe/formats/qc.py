"""defects.parquet, metrics.parquet and wells.parquet of the qc stage."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from phenopipe.formats.conditions import condition_texts
from phenopipe.formats.tables import Schema, Stamp, read_table, write_table
from phenopipe.formats.wells import COLUMNS, COUNTED, METADATA, check_words

METRICS = Schema(
    "metrics",
    {
        "image_id": (pl.String, "the site; the well's id where a screen has no images"),
        "well_id": (pl.String, "the site's well"),
    },
    unique=("image_id",),
    extra=("",),
)
LEVELS = ("image", "well", "plate", "experiment")
DEFECTS = Schema(
    "defects",
    {
        "experiment": (pl.String, "where"),
        "plate": (pl.String, "where; null if a defect belongs to no plate"),
        "level": (pl.String, f"what is counted: {', '.join(LEVELS)}"),
        "defect": (pl.String, "what is wrong"),
        "n": (pl.Int64, "how many images, wells, plates or experiments have it"),
        "n_checked": (pl.Int64, "of how many in this place"),
        "examples": (pl.String, "the first few of them"),
        "mend": (pl.String, "how to mend it"),
    },
    unique=("experiment", "plate", "defect"),
)
FAILS = "fails_"
SCORE = "score_"
LIMIT = "limit_"
# What the gate adds: an experiment whose wells all fail, and what it was judged by.
NO_GO = f"{FAILS}experiment"
FAILING, MAX_FAILING = f"{SCORE}experiment", f"{LIMIT}experiment"
CONTROLS, MIN_CONTROLS = f"{SCORE}controls", f"{LIMIT}controls"
# Tests of what is known about a well (paper A.1 step 2); all others judge its data (step 1).
METADATA_TESTS = ("perturbation_missing", "perturbations", "size", "channels")
QC_WELLS = Schema(
    "qc_wells",
    {
        **COLUMNS,
        **COUNTED,
        "passes": (pl.Boolean, "no test failed"),
        "reason": (pl.String, "failed tests joined by commas; empty if none"),
    },
    unique=("well_id",),
    extra=(METADATA, FAILS, SCORE, LIMIT),
)


def read_defects(path: Path) -> pl.DataFrame:
    """Read and check the defects of a screen; no row is the good case."""
    return read_table(path, DEFECTS)


def write_defects(path: Path, defects: pl.DataFrame, stamp: Stamp) -> None:
    """Check and write the defects of a screen."""
    write_table(path, defects, DEFECTS, stamp)


def read_metrics(path: Path) -> pl.DataFrame:
    """Read and check the metrics of an experiment's sites."""
    return read_table(path, METRICS)


def write_metrics(path: Path, metrics: pl.DataFrame, stamp: Stamp) -> None:
    """Check and write the metrics of an experiment's sites."""
    write_table(path, metrics, METRICS, stamp)


def read_qc_wells(path: Path) -> pl.DataFrame:
    """Read wells with ``passes``, ``reason``, and each test's flag, score and limit."""
    return read_table(path, QC_WELLS)


def write_qc_wells(path: Path, wells: pl.DataFrame, stamp: Stamp) -> None:
    """Check and write wells with their flags; their conditions' texts are added here."""
    check_words(wells, path)
    texts = condition_texts(wells["treatments"])
    write_table(path, wells.with_columns(texts), QC_WELLS, stamp)


def is_flag(column: str) -> bool:
    """Whether a column is one that qc added to the columns of the wells format."""
    added = (*COUNTED, "passes", "reason")
    return column in added or column.startswith((FAILS, SCORE, LIMIT))


def without_flags(wells: pl.DataFrame) -> pl.DataFrame:
    """Drop what qc added, so that the columns of the wells format are left."""
    return wells.select(name for name in wells.columns if not is_flag(name))


def passing_wells(paths: Sequence[Path]) -> pl.DataFrame:
    """Wells of all given experiments that pass every test, without the flags."""
    frames = [without_flags(read_qc_wells(path).filter("passes")) for path in paths]
    return pl.concat(frames, how="diagonal") if frames else pl.DataFrame()
