"""map.parquet and neighbours.parquet: the map of biology itself."""

import polars as pl

from phenopipe.formats.tables import Schema

MAP = Schema(
    "map",
    {
        "entity": (pl.String, "gene or compound"),
        "kind": (pl.String, "kind of perturbation"),
        "concentration_um": (pl.Float64, "micromolar, null for knockouts"),
        "n_wells": (pl.Int32, "wells behind the embedding"),
        "embedding": (pl.Array, "mean direction of the wells, float32"),
    },
    unique=("entity", "kind", "concentration_um"),
)
NEIGHBOURS = Schema(
    "neighbours",
    {
        "entity": (pl.String, "gene or compound"),
        "kind": (pl.String, "kind of perturbation"),
        "concentration_um": (pl.Float64, "micromolar, null for knockouts"),
        "neighbour": (pl.String, "gene or compound nearby"),
        "neighbour_kind": (pl.String, "its kind of perturbation"),
        "neighbour_concentration_um": (pl.Float64, "micromolar, null for knockouts"),
        "rank": (pl.Int32, "1 for the nearest; negative ranks count from the most opposed"),
        "cosine": (pl.Float64, "cosine similarity"),
    },
)
