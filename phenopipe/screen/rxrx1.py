"""RxRx1: one PNG a channel, two sites a well, siRNA; 51 experiments in four cell types.

metadata.csv    site_id, well_id, cell_type, dataset, experiment, plate, well, site,
well_type, sirna, sirna_id
images/HUVEC-01/Plate1/B02_s1_w1.png, or train/ and test/ in place of images/
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from phenopipe.screen.columns import needed, read_rows
from phenopipe.screen.config import ImagesKnobs
from phenopipe.screen.layouts import Listed, rows_of_experiment
from phenopipe.screen.rxrx3 import find_table, named, on_disk, planes_of_rows

EXPERIMENT = "experiment"
TABLES = ("metadata.csv", "metadata_rxrx1.csv")
FOLDERS = ("images", "train", "test")


def tables(folder: Path) -> list[Path]:
    """The table of sites."""
    return [find_table(folder, TABLES)]


def experiments(folder: Path) -> list[str]:
    """Experiments that the table names and whose folder of images is there."""
    every = named(folder, TABLES, EXPERIMENT)
    return [name for name in every if any((folder / at / name).is_dir() for at in FOLDERS)]


def read(given: Sequence[Path], folder: Path, knobs: ImagesKnobs, experiment: str) -> Listed:
    """One experiment; every row of the table is a site."""
    rows = rows_of_experiment(read_rows(given), EXPERIMENT, knobs, experiment)
    name = str(rows[EXPERIMENT][0])
    if (folder / "images" / name).is_dir() or "dataset" not in rows.columns:
        start = pl.repeat("images", rows.height, eager=True)
    else:
        start = rows["dataset"]
    if "dataset" not in rows.columns:
        rows = rows.with_columns(dataset=pl.lit(None, dtype=pl.String))
    planes = planes_of_rows(rows, "well", start, needed(rows, "site", key="site"), name)
    return Listed(rows, on_disk(planes, folder), [])
