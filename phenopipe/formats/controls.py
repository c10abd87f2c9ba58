"""controls.parquet: what the controls of each experiment can tell an alignment."""

import polars as pl

from phenopipe.formats.tables import Schema

CONTROLS = Schema(
    "controls",
    {
        "experiment": (pl.String, "experiment; null: all that the transform is fitted on"),
        "n_controls": (pl.Int64, "controls that are not held out"),
        "n_features": (pl.Int64, "features of an embedding"),
        "n_constant": (pl.Int64, "features that are alike in all these controls"),
        "rank": (pl.Int64, "directions in which these controls vary"),
        "n_kept": (pl.Int64, "directions that the transform keeps, the same in every row"),
        "n_dropped": (pl.Int64, "features less directions kept, the same in every row"),
        "n_unscaled": (pl.Int64, "directions kept beyond the rank: other controls scale them"),
        "largest": (pl.Float64, "variance along the first principal axis, features scaled"),
        "smallest": (pl.Float64, "variance along the last axis that varies; null if none does"),
        "condition": (pl.Float64, "largest over smallest; null if none varies"),
    },
    unique=("experiment",),
)
