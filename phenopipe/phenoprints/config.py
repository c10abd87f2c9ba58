"""Knobs of the phenoprints stage."""

from typing import Annotated, Literal

from pydantic import Field

from phenopipe.knobs import Knobs, Unique

Level = Literal["condition", "gene"]
Evidence = Literal["combined", "any_experiment"]
Rescue = Literal["perturbation", "condition"]


class CombineKnobs(Knobs):
    """Knobs of the Cauchy combination over experiments."""

    weights: Literal["equal", "replicates"] = "equal"
    """Weight of an experiment: all alike, or by its number of replicates."""
    ceiling: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.99
    """Larger p-values are moved here: a p-value of 1 would swallow all others."""


class SelectKnobs(Knobs):
    """Knobs of what counts as a phenoprint, and which wells it keeps."""

    threshold: Annotated[float, Field(gt=0.0, le=1.0)] = 0.01
    """P-values under it are phenoprints (paper 3.1)."""
    evidence: Evidence = "combined"
    """P-value that is judged: combined over experiments, or the smallest of one experiment."""
    rescue: Rescue = "perturbation"
    """What a phenoprint keeps: all concentrations of its perturbation, or its own alone."""
    levels: Unique[Level] = Field(("condition", "gene"), min_length=1)
    """Levels whose p-values count; a gene's phenoprint keeps all its guides."""
    keep_untestable: bool = True
    """Keep negative controls and empty wells, which have no condition to test."""


class DiversityKnobs(Knobs):
    """Knobs of how much variety the manifest keeps."""

    quantile: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95
    """A well differs from negative controls if it lies farther out than this share of them."""
