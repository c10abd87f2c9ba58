"""Tables beside the tidy results of benchmarks: every pair, experiment and condition."""

import polars as pl

from phenopipe.formats.tables import Schema

RECALL_PAIRS = Schema(
    "recall_pairs",
    {
        "source": (pl.String, "source of known pairs"),
        "entity1": (pl.String, "first gene, in alphabetical order"),
        "entity2": (pl.String, "second gene"),
        "cosine": (pl.Float64, "cosine similarity on the map"),
        "rank": (pl.Float64, "share of the null below, from 0 to 1; ties count by half"),
    },
    unique=("source", "entity1", "entity2"),
)
REPLICATE_PAIRS = Schema(
    "replicate_pairs",
    {
        "experiment_a": (pl.String, "one experiment of the technical pair"),
        "experiment_b": (pl.String, "the other"),
        "ks": (pl.Float64, "Eq. 4"),
        "cvm": (pl.Float64, "Eq. 5"),
        "n": (pl.Int64, "matched pairs of wells, and as many null pairs"),
        "ks_permuted": (pl.Float64, "Eq. 4 after the second experiment's wells were shuffled"),
        "cvm_permuted": (pl.Float64, "Eq. 5 after the same"),
        "matched": (pl.Float64, "mean cosine of matched pairs"),
        "null": (pl.Float64, "mean cosine of null pairs"),
        "ks_over_position": (pl.Float64, "Eq. 4 against null pairs at one address, or null"),
        "cvm_over_position": (pl.Float64, "Eq. 5 against the same"),
        "position": (pl.Float64, "mean cosine of null pairs at one address"),
        "ks_unexpressed": (pl.Float64, "Eq. 4 of knockouts of unexpressed genes, or null"),
    },
    unique=("experiment_a", "experiment_b"),
)
REPLICATE_MATCHES = Schema(
    "replicate_matches",
    {
        "experiment_a": (pl.String, "one experiment of the technical pair"),
        "experiment_b": (pl.String, "the other"),
        "perturbation": (pl.String, "guide or compound in both wells"),
        "kind": (pl.String, "kind of perturbation"),
        "gene": (pl.String, "target gene, null if unknown"),
        "concentration_um": (pl.Float64, "micromolar, null for knockouts"),
        "well_id": (pl.String, "well of the one experiment"),
        "well_id_b": (pl.String, "well of the other"),
        "cosine": (pl.Float64, "cosine similarity of the two wells"),
        "rank": (pl.Float64, "share of the pair's null below, from 0 to 1; ties by half"),
    },
    unique=("well_id", "well_id_b"),
)
MAGNITUDES = Schema(
    "magnitudes",
    {
        "perturbation": (pl.String, "guide or compound; null at gene level"),
        "kind": (pl.String, "kind of perturbation"),
        "gene": (pl.String, "target gene, null if unknown"),
        "concentration_um": (pl.Float64, "micromolar, null for knockouts"),
        "n_wells": (pl.Int32, "wells of the condition"),
        "energy_distance": (pl.Float64, "from the controls"),
        "null": (pl.Float64, "mean of as many control wells, drawn anew; null if too few"),
        "p_value": (pl.Float64, "share of these draws at least as far, never 0; null if none"),
    },
)
NEAREST = Schema(
    "nearest",
    {
        "perturbation": (pl.String, "compound"),
        "concentration_um": (pl.Float64, "micromolar"),
        "label": (pl.String, "its class"),
        "nearest_perturbation": (pl.String, "compound of the nearest condition of another one"),
        "nearest_label": (pl.String, "its class"),
        "nearest_cosine": (pl.Float64, "cosine similarity"),
        "nearest_apart_perturbation": (pl.String, "the same, without experiments in common"),
        "nearest_apart_label": (pl.String, "its class"),
        "nearest_apart_cosine": (pl.Float64, "cosine similarity"),
    },
    unique=("perturbation", "concentration_um"),
)
