"""arms.parquet: what the chromosome arm adds to the embedding of each gene's knockouts."""

import polars as pl

from phenopipe.formats.tables import Schema

ARMS = Schema(
    "arms",
    {
        "gene": (pl.String, "gene with knockouts in the screen"),
        "arm": (pl.String, "chromosome arm such as chr1p, null if unknown"),
        "corrected": (pl.Boolean, "the arm has enough unexpressed genes to be corrected"),
        "offset": (pl.Array, "subtract from the gene's aligned wells; zero if not corrected"),
    },
    unique=("gene",),
)
