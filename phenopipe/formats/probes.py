"""predictions.parquet of the probe stage: what the probe said of each test well or site."""

import polars as pl

from phenopipe.formats.tables import Schema

PREDICTIONS = Schema(
    "predictions",
    {
        "encoder": (pl.String, "encoder that saw the wells"),
        "task": (pl.String, "probe task"),
        "block": (pl.Int32, "the best block, and the last one where it is another"),
        "well_id": (pl.String, "test well"),
        "site": (pl.Int32, "its site, from 1, in a probe of sites; null in one of wells"),
        "experiment": (pl.String, "its experiment"),
        "label": (pl.String, "true class"),
        "predicted": (pl.String, "predicted class"),
    },
    unique=("block", "well_id", "site"),
)
