"""Knobs of the benchmark stage."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from phenopipe.knobs import Knobs, Unique

Role = Literal["negative_control", "positive_control", "empty", "perturbation"]
Aggregation = Literal["spherical", "mean", "guide_then_gene"]
Threshold = tuple[float, float]
LegacySeed = Annotated[int, Field(ge=0, lt=2**32)]

# numpy's legacy generator, seeded with these, drew the null of Celik et al. (2024): the
# "3 random seeds" of Table 1.
PUBLISHED_SEEDS = (
    (478163327, 107420369),
    (1181241943, 1051802512),
    (958682846, 599310825),
)


class TreatedKnobs(Knobs):
    """Which wells enter, and where the origin lies."""

    cell_type: str | None = None
    """Only wells of this cell type; all when left out."""
    background: str | None = None
    """Only wells on this background ("none" for wells without one); all when left out."""
    origin: Role = "negative_control"
    """Role of the wells whose mean becomes the origin."""


class AggregateKnobs(TreatedKnobs):
    """Knobs of the map."""

    aggregation: Aggregation = "spherical"
    """spherical: mean of unit vectors over all wells (paper); mean: plain mean, as the
    public reference has it; guide_then_gene: spherical mean of each guide, then of these."""
    level: Literal["gene", "guide"] = "gene"
    """One row a gene (knockouts, siRNA, overexpression, each its own), or one a guide;
    compounds have one a dose."""
    arms_on: Literal["wells", "map"] = "wells"
    """What is corrected for chromosome arms: wells, before all else (paper), or the finished
    map, as the public reference has it."""
    max_expression: float = -3.0
    """With ``arms_on: map``, genes under this expression (zFPKM) count as unexpressed."""
    min_genes: PositiveInt = 20
    """With ``arms_on: map``, an arm is corrected if it has more unexpressed genes."""
    nearest: NonNegativeInt = 10
    """Nearest, and most opposed, rows listed for each row of the map."""


class RecallKnobs(Knobs):
    """Knobs of relationship recall (A.6)."""

    sources: tuple[str, ...] = ()
    """Names of the pair files, in their order; file names when left out."""
    thresholds: Unique[Threshold] = Field(((0.05, 0.95), (0.1, 0.9)), min_length=1)
    """Ranks in the null under and over which a pair counts as recalled."""
    nulls: Unique[Literal["all_pairs", "sampled"]] = Field(
        ("all_pairs", "sampled"), min_length=1
    )
    """all_pairs: every pair of the map; sampled: 5,000 x 5,000 draws for each seed pair."""
    null_seeds: Unique[tuple[LegacySeed, LegacySeed]] = Field(PUBLISHED_SEEDS, min_length=1)
    """Seed pairs of the sampled null."""
    kinds: Unique[str] = Field(("knockout", "sirna"), min_length=1)
    """Rows of the map that enter: kinds of perturbation."""
    keep: Literal["all", "expressed", "phenoprint"] = "all"
    """Genes of the map that enter: all; those that the cells express, by the screen's table
    of genes; or those with a phenoprint, by the p-values of ``manifest``."""
    min_expression: float = -3.0
    """Least expression (zFPKM) of an expressed gene; unknown counts as not expressed."""
    manifest: str | None = None
    """Manifest whose judges say which genes have a phenoprint."""
    max_p: float = Field(default=0.01, gt=0, le=1)
    """Largest combined p-value, of any judge, of a gene with a phenoprint."""
    checksums: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of the files of pairs, unpacked, by the source's name; others are refused."""
    min_genes: PositiveInt = 20
    """A map with fewer genes is refused."""
    bootstraps: PositiveInt = 500
    """Resamples of genes behind each interval."""
    permutations: PositiveInt = 20
    """Shuffles of the map's gene names behind the control rows."""
    seed: int = 0
    """Seed of resamples and shuffles."""

    @field_validator("thresholds")
    @classmethod
    def _ordered(cls, thresholds: tuple[Threshold, ...]) -> tuple[Threshold, ...]:
        for low, high in thresholds:
            if not 0 <= low < high <= 1:
                raise ValueError(f"thresholds {low}, {high}, wanted 0 <= low < high <= 1")
        return thresholds

    @model_validator(mode="after")
    def _judged(self) -> "RecallKnobs":
        if self.keep == "phenoprint" and self.manifest is None:
            raise ValueError("keep: phenoprint without a manifest, wanted one with judges")
        return self


class ReplicatesKnobs(TreatedKnobs):
    """Knobs of replicate consistency (A.7)."""

    match: Literal["address", "condition"] = "address"
    """What makes two wells of a technical pair a match: the same address, or the same
    condition at any address."""
    label: Literal["perturbation", "gene"] = "perturbation"
    """What the two wells of a null pair never share."""
    min_wells: PositiveInt = 10
    """Technical pairs with fewer matched wells are left out."""
    max_expression: float = -3.0
    """Knockouts of genes under this expression (zFPKM) are looked at apart."""
    bootstraps: PositiveInt = 1000
    """Resamples of technical pairs behind each interval."""
    seed: int = 0
    """Seed of null pairs and resamples."""


class MagnitudeKnobs(TreatedKnobs):
    """Knobs of perturbation magnitude (Celik et al. 2024)."""

    level: Literal["condition", "gene"] = "condition"
    """What is measured: each guide or dose, or each gene."""
    controls: Role = "negative_control"
    """Role of the wells from which distance is measured."""
    held_out_controls: bool = False
    """Only controls that the alignment was not fitted on: where these are few for the number
    of features, it draws the fitted ones together, and everything else seems far away."""
    max_controls: PositiveInt = 1000
    """Control wells used at most, drawn at random."""
    min_wells: PositiveInt = 3
    """Conditions with fewer wells are left out."""
    null_draws: PositiveInt = 1000
    """Draws of control wells, as many as the condition has wells, behind each p-value."""
    bootstraps: PositiveInt = 1000
    """Resamples of conditions behind the interval of the mean."""
    seed: int = 0
    """Seed of all draws."""


class CompoundsKnobs(TreatedKnobs):
    """Knobs of compound-gene retrieval (paper 6)."""

    aggregation: Literal["spherical", "mean"] = "spherical"
    """Mean of unit vectors, or plain mean as the public reference has it."""
    genes_from: Literal["knockouts", "other_compounds"] = "knockouts"
    """What stands for a gene: its knockouts, or, in a screen without any, the other
    compounds known to act on it (never the compound that is asked about)."""
    concentrations: Unique[float] = ()
    """Concentrations (micromolar) that enter; all when empty."""
    min_compounds: PositiveInt = 20
    """Concentrations with fewer compounds get no row of their own; they enter the max."""
    seeds: PositiveInt = 100
    """Draws of other genes (seeds 0, 1, ...)."""
    permutations: PositiveInt = 20
    """Shuffles of the compounds' names behind the permuted baseline."""
    seed: int = 0
    """Seed of the baselines, random and permuted."""


class ArmBiasKnobs(TreatedKnobs):
    """Knobs of the check of chromosome arms."""

    aggregation: Literal["spherical", "mean"] = "spherical"
    """How wells become one embedding a gene."""
    min_genes: int = Field(default=5, ge=2)
    """Arms with fewer knocked-out genes are left out."""
    pairs: PositiveInt = 2000
    """Pairs of genes drawn at most within each arm, and as many between it and the others."""
    permutations: PositiveInt = 200
    """Times that arms are dealt anew among genes, behind each p-value."""
    bootstraps: PositiveInt = 1000
    """Resamples of arms behind the interval of the mean."""
    seed: int = 0
    """Seed of pairs and resamples."""


class ClassesKnobs(TreatedKnobs):
    """Knobs of the check of classes."""

    perturbation: str = "perturbation"
    """Column of the table of classes that names the compound, as wells do."""
    concentration: str | None = None
    """Column with the concentration (micromolar), where classes go by dose."""
    label: str = "label"
    """Column with the class."""
    aggregation: Literal["spherical", "mean"] = "spherical"
    """How wells become one embedding a condition."""
    permutations: PositiveInt = 200
    """Times that classes are dealt anew among compounds."""
    bootstraps: PositiveInt = 1000
    """Resamples of compounds behind each interval."""
    seed: int = 0
    """Seed of both."""
