"""manifest.parquet: the wells that make a training set, and what saved each."""

import polars as pl

from phenopipe.formats.tables import Schema
from phenopipe.formats.wells import COLUMNS, METADATA, N_IMAGES

MANIFEST = Schema(
    "manifest",
    {
        **COLUMNS,
        "saved_by": (pl.String, "condition with the phenoprint; null if kept untested"),
        "judge": (pl.String, "encoder whose p-value saved the well; null if kept untested"),
        "p_value": (pl.Float64, "that p-value; null if kept untested"),
    },
    unique=("well_id",),
    extra=(METADATA, N_IMAGES),
)
