"""fetched.parquet: what was brought of a public screen, and what each file holds."""

import polars as pl

from phenopipe.formats.tables import Schema

FETCHED = Schema(
    "fetched",
    {
        "path": (pl.String, "under the screen's folder"),
        "bytes": (pl.Int64, "its size"),
        "sha256": (pl.String, "digest of its content"),
        "checked": (pl.String, "what the digest was held against; null if nothing was told"),
    },
    unique=("path",),
)
