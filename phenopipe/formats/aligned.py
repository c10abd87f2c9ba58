"""embeddings.parquet of the align stage: wells that pass qc, each with its aligned vector."""

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.formats.tables import Schema, Stamp, read_table, write_table
from phenopipe.formats.wells import COLUMNS, METADATA, check_words

ALIGNED = Schema(
    "aligned",
    {
        **COLUMNS,
        "fitted": (pl.Boolean, "the transform was fitted on this well"),
        "embedding": (pl.Array, "aligned embedding, float32"),
    },
    unique=("well_id",),
    extra=(METADATA,),
)


def write_aligned(
    path: Path, wells: pl.DataFrame, x_WD: NDArray[np.floating], stamp: Stamp
) -> None:
    """Write wells (with ``fitted``) and their embeddings, one row a well."""
    embedding = pl.Series(
        "embedding", x_WD.astype(np.float32), dtype=pl.Array(pl.Float32, x_WD.shape[1])
    )
    write_table(path, wells.with_columns(embedding), ALIGNED, stamp)


def read_aligned(path: Path) -> tuple[pl.DataFrame, NDArray[np.float32]]:
    """Read wells and their embeddings as an array of shape (n_wells, n_features)."""
    frame = read_table(path, ALIGNED)
    check_words(frame, path)
    x_WD = frame["embedding"].to_numpy()
    return frame.drop("embedding"), np.asarray(x_WD, dtype=np.float32)
