"""pvalues.parquet: of one experiment, and combined over experiments."""

import polars as pl

from phenopipe.formats.tables import Schema

LEVELS = ("condition", "gene")
_WHAT = {
    "map_type": (pl.String, "screen|cell type|kind|background"),
    "perturbation": (pl.String, "guide or compound; null at gene level"),
    "kind": (pl.String, "kind of perturbation"),
    "gene": (pl.String, "target gene, null if unknown"),
    "concentration_um": (pl.Float64, "micromolar, null for knockouts"),
    "level": (pl.String, "condition or gene"),
}
PVALUES = Schema(
    "pvalues",
    {
        "experiment": (pl.String, "the experiment in which the test was made"),
        **_WHAT,
        "n_replicates": (pl.Int32, "wells of the condition in the experiment"),
        "statistic": (pl.Float64, "Eq. 2, from 0 to 1"),
        "p_value": (pl.Float64, "Eq. 3, from 1/n_null to 1"),
        "q_value": (pl.Float64, "Benjamini-Hochberg within level and map type"),
        "n_null": (pl.Int32, "random draws (K in Eq. 3)"),
        "n_labels": (pl.Int32, "labels in the null's pool; fewer than n_replicates: repeated"),
    },
)
COMBINED = Schema(
    "combined_pvalues",
    {
        "encoder": (pl.String, "the judge"),
        **_WHAT,
        "n_replicates": (pl.Int32, "wells of the condition in all experiments"),
        "n_experiments": (pl.Int32, "experiments with a p-value"),
        "statistic": (pl.Float64, "mean of Eq. 2 over experiments"),
        "p_value": (pl.Float64, "Cauchy combination over experiments"),
        "p_any": (pl.Float64, "smallest p-value of one experiment"),
        "q_value": (pl.Float64, "Benjamini-Hochberg within encoder, level and map type"),
        "n_null": (pl.Int32, "random draws in one experiment"),
    },
)
