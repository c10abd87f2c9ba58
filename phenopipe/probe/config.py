"""Knobs of the probe stage."""

from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from phenopipe.knobs import Knobs, Unique

LABELS = ("gene", "perturbation", "condition", "group")
METADATA = "Metadata_"
GROUP = "group"
MAX_ITER = 2000
TOLERANCE = 1e-5
Solver = Literal["preconditioned", "sklearn"]


class BlocksKnobs(Knobs):
    """Knobs of the probes (A.4): what is predicted, and which experiments train and test."""

    label: str = "gene"
    """gene, perturbation (a guide or compound), condition (perturbation and dose), group
    (the gene's, from the groups file), or any column that begins with Metadata_."""
    train: Unique[str] = ()
    """Experiments on which probes are fitted."""
    test: Unique[str] = ()
    """Experiments on which they are judged, none of them among the former."""
    level: Literal["wells", "sites"] = "wells"
    """What is classified: wells, or each of their sites (embed.wells.sites keeps these).
    Sites of one well stay together in every resample."""
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
    hold_out_genes: float = Field(default=0.0, ge=0, lt=1)
    """Share of every group's genes that probes never see: they are fitted on wells of the
    others and judged on wells of these alone. 0 splits by experiments only; else the label
    is group."""
    solver: Solver = "preconditioned"
    """preconditioned (ours) or sklearn (its lbfgs): one objective, see docs/probes.md."""
    max_iter: PositiveInt = MAX_ITER
    """Iterations of the solver at most."""
    tolerance: PositiveFloat = TOLERANCE
    """Our solver stops where the estimated gap to the minimum is at most this share of the
    objective and no entry of the gradient is above it."""
    warm_start: bool = True
    """Whether a block starts from the weights of the block before it (our solver)."""
    bootstraps: PositiveInt = 1000
    """Resamples of test wells, and of test experiments, behind intervals and behind the
    certainty of the choice."""
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
        if self.hold_out_genes and self.label != GROUP:
            raise ValueError(f"hold_out_genes wants label {GROUP!r}, found {self.label!r}")
        return self


class TrimKnobs(Knobs):
    """Knobs of trimming: none, the best block decides."""
