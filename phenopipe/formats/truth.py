"""truth.parquet: what the simulator planted. No stage reads it, only tests and the report."""

import polars as pl

from phenopipe.formats.tables import Schema

STATUSES = ("active", "inactive", "arm", "weak", "control", "unknown")
# What can be wrong with a well. Two perturbations are no defect: such a well is sound, but
# says nothing about either alone.
DEFECTS = (
    "dead",
    "out_of_focus",
    "saturated",
    "debris",
    "missing_channel",
    "missing_label",
    "four_perturbations",
)
TRUTH = Schema(
    "truth",
    {
        "well_id": (pl.String, "the well; one row for each of its treatments"),
        "defect": (pl.String, f"empty, or one of {', '.join(DEFECTS)}"),
        "perturbation": (pl.String, "guide or compound; null if nothing was applied"),
        "kind": (pl.String, "kind of perturbation"),
        "gene": (pl.String, "target gene of a knockout"),
        "group": (pl.String, "gene group of the gene, or of the compound's targets; or null"),
        "concentration_um": (pl.Float64, "micromolar, null for knockouts"),
        "status": (
            pl.String,
            "active: has a phenotype; inactive: planted noise; arm: unexpressed gene of a "
            "biased chromosome arm; weak: a low dose of an active compound; control; "
            "unknown: the label was lost",
        ),
        "effect": (pl.Float64, "length of the phenotype, in the simulator's units"),
    },
)
