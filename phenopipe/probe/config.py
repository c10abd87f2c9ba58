"""Knobs of the probe stage."""

from typing import Self

from pydantic import PositiveInt, field_validator, model_validator

from phenopipe.knobs import Knobs

LABELS = ("gene", "perturbation", "condition", "group")
METADATA = "Metadata_"


class BlocksKnobs(Knobs):
    """Knobs of the probes (A.4): what is predicted, and which experiments train and test."""

    label: str = "gene"
    """gene, perturbation (a guide or compound), condition (perturbation and dose), group
    (the gene's, from the groups file), or any column that begins with Metadata_."""
    train: tuple[str, ...] = ()
    """Experiments on which probes are fitted."""
    test: tuple[str, ...] = ()
    """Experiments on which they are judged, none of them among the former."""
    cell_type: str | None = None
    """Only wells of this cell type; all when left out."""
    background: str | None = None
    """Only wells on this background ("none" for wells without one); all when left out."""
    roles: tuple[str, ...] = ("perturbation",)
    """Roles of wells that enter; with a Metadata_ label every labelled well does."""
    controls: bool = False
    """Whether negative controls form a class of their own."""
    min_wells: PositiveInt = 2
    """Classes with fewer training wells, or none to test on, are left out."""
    max_iter: PositiveInt = 2000
    """Iterations of the solver at most."""
    bootstraps: PositiveInt = 1000
    """Resamples of test wells behind intervals and behind the certainty of the choice."""
    seed: int = 0
    """Seed of resamples and of the reassignment of genes to groups."""

    @field_validator("label")
    @classmethod
    def _known(cls, label: str) -> str:
        if label not in LABELS and not label.startswith(METADATA):
            raise ValueError(f"unknown label, wanted one of {', '.join(LABELS)} or {METADATA}*")
        return label

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        both = sorted(set(self.train) & set(self.test))
        if both:
            raise ValueError(f"experiments {both} both train and test, wanted either")
        return self


class TrimKnobs(Knobs):
    """Knobs of trimming: none, the best block decides."""
