"""genes.parquet and interactions.parquet: what is known of genes and compounds."""

import polars as pl

from phenopipe.formats.tables import Schema

GENES = Schema(
    "genes",
    {
        "gene": (pl.String, "gene symbol"),
        "arm": (pl.String, "chromosome arm such as chr1p, null if unknown"),
        "expression": (pl.Float64, "zFPKM in the screen's cells, null if unknown"),
    },
    unique=("gene",),
)
INTERACTIONS = Schema(
    "interactions",
    {
        "treatment": (pl.String, "compound, as its perturbation is named in wells"),
        "gene_symbol": (pl.String, "target gene"),
        "nM_value": (pl.Float64, "measured affinity, nanomolar"),
    },
)
