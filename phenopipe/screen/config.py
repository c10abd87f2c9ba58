"""Knobs of stage ``screen``."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from phenopipe.knobs import Knobs, Unique
from phenopipe.screen.presets import Source, unknown_channel, with_preset
from phenopipe.screen.scaling import Scaling

# --- user tables: which column says what ---------------------------------------------


class Constant(Knobs):
    """One value for every row of a table."""

    constant: str | int | float
    """The value."""


class Template(Knobs):
    """Text made from a row's columns, as Python's ``str.format`` makes it."""

    template: str
    """Column names in braces, such as ``"{plate}/{well}_s{site:02d}.png"``."""


Value = str | Constant | Template
"""Where a value comes from: a column's name, a constant, or a template."""


class TreatmentColumns(Knobs):
    """What was done to a well, once a treatment."""

    perturbation: Value
    """Name of the condition without its dose: a compound, a guide, an siRNA."""

    kind: Value
    """``knockout``, ``sirna``, ``overexpression``, ``compound`` or ``soluble_factor``; see
    ``kinds``."""

    gene: Value | None = None
    """Target gene of a knockout or siRNA."""

    guide: Value | None = None
    """Name of the single guide RNA."""

    concentration: Value | None = None
    """Concentration, a number; blank where there is none."""

    concentration_unit: Value = Constant(constant="uM")
    """Unit of the concentration: ``M``, ``mM``, ``uM``, ``nM`` or ``pM``."""


class WellColumns(Knobs):
    """Where a table says which well a row is about, and what was done to it."""

    plate: Value
    """Name of the plate."""

    well: Value
    """Address on the plate, such as ``A01``, ``a1`` or ``AF48``."""

    role: Value
    """Word that says what the well is for; ``roles`` lists the words."""

    cell_type: Value
    """Name of the cells."""

    layout: Value | None = None
    """Name of the plate layout, shared by technical pairs; None: the plate's own name."""

    treatments: tuple[TreatmentColumns, ...] = ()
    """Treatments of a well; one whose perturbation is blank or in ``untreated`` is none."""

    labels: dict[str, Value] = Field(default_factory=dict)
    """Further columns to keep; ``{"dose": ...}`` becomes column ``Metadata_dose``."""


class TableKnobs(Knobs):
    """What every source that reads the user's own table needs to know."""

    columns: WellColumns
    """Which column says what."""

    roles: dict[str, tuple[str, ...]]
    """Words for each role: ``negative_control``, ``positive_control``, ``empty``,
    ``perturbation``; the empty word ``""`` stands for a blank cell."""

    kinds: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Words for each kind of perturbation, besides the kind's own name."""

    untreated: tuple[str, ...] = ()
    """Words of the perturbation column that mean that nothing was applied, such as ``DMSO``."""

    where: dict[str, tuple[str | int | float, ...]] = Field(default_factory=dict)
    """Rows of the experiment: column name to the values that it may have."""


class ImagesKnobs(TableKnobs):
    """Knobs of ``screen.images``, for a table of image files or a public layout."""

    source: Source | None = None
    """Public layout that wells and images are found in; None: the user's table."""

    channels: Unique[str] = Field(min_length=1)
    """Names of the channels, in the order in which pixels are stored."""

    files: dict[str, Value] = Field(default_factory=dict)
    """For a table with one row a site: channel name to the column of its file."""

    file: Value | None = None
    """For a table with one row a site and channel: the column of the file."""

    channel: Value | None = None
    """For a table with one row a site and channel: the column that names the channel."""

    channel_words: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Words for a channel in that column, besides the channel's own name."""

    site: Value = Constant(constant=1)
    """Number of the field of view in its well."""

    root: str | None = None
    """Folder that paths in the table start from and must not leave; None: the table's."""

    height: int | None = Field(default=None, ge=1)
    """Height of an image in pixels; None: the most frequent one of the experiment."""

    width: int | None = Field(default=None, ge=1)
    """Width of an image in pixels; None: the most frequent one of the experiment."""

    max_unreadable: float = Field(default=0.05, ge=0, le=1)
    """Share of an experiment's sites with a missing or damaged file above which to stop; in a
    public layout also of its rows that cannot be understood."""

    blank_is_damaged: bool = False
    """Whether an image whose pixels are all 0 counts as damaged (JUMP has some)."""

    scaling: Scaling | None = None
    """How pixels of 16 bits become pixels of 8; None: they stay at 16."""

    decode: Literal["once", "in_place"] = "once"
    """once: into images.zarr, the quicker way for all that follows. in_place: whenever a file
    is read, and images.zarr only says where files are."""

    pixel_size_um: float | None = Field(default=None, gt=0)
    """Side of a pixel in micrometres, kept beside the pixels; None: as the layout says, if it
    does."""

    @classmethod
    def merged(cls, *layers: Mapping[str, Any]) -> "ImagesKnobs":
        """Check settings from several places; the preset of a source is below all of them."""
        return cls.model_validate({k: v for one in layers for k, v in one.items()})

    @classmethod
    def expanded(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Write out what the source's preset stands for, under what is set beside it."""
        return with_preset(dict(settings))

    @model_validator(mode="after")
    def _one_way_to_name_files(self) -> "ImagesKnobs":
        if self.source not in (None, "images"):
            if self.files or self.file is not None or self.channel is not None:
                raise ValueError(f"source {self.source} names its own files and channels")
            if told := unknown_channel(self.source, self.channels, self.channel_words):
                raise ValueError(told)
            return self
        by_row = self.file is not None and self.channel is not None
        if bool(self.files) == by_row or (self.file is None) != (self.channel is None):
            raise ValueError("wanted either files, or both file and channel")
        unknown = set(self.files or self.channel_words) - set(self.channels)
        missing = set(self.channels) - set(self.files) if self.files else set()
        if unknown or missing:
            raise ValueError(
                f"files and channel_words must name the screen's channels {list(self.channels)}"
            )
        return self


class ProfilesKnobs(TableKnobs):
    """Knobs of ``screen.profiles``, for a table of features of wells."""

    metadata_prefix: str = "Metadata_"
    """Columns that start so are not features, nor is any that ``columns`` or ``where`` name;
    blank: these alone."""

    feature_prefixes: tuple[str, ...] = ()
    """Only columns that start so are features; none: all that are not metadata."""

    leave_out: tuple[str, ...] = ()
    """Features to leave out."""

    max_missing: float = Field(default=0.5, ge=0, le=1)
    """Share of an experiment's wells that may lack a feature; beyond it the step stops and
    names the features, to be left out of every experiment alike."""


class GeneColumns(Knobs):
    """Where a table of genes says which arm and how expressed."""

    gene: str = "gene"
    """Column of the gene's symbol."""

    arm: str = "arm"
    """Column of the chromosome arm."""

    expression: str | None = "expression"
    """Column of the expression (zFPKM); None: not known for any gene."""


class InteractionColumns(Knobs):
    """Where a table of compound-gene interactions says which compound, gene and strength."""

    treatment: str = "treatment"
    """Column of the compound's name, as in the screen's perturbations."""

    gene: str = "gene_symbol"
    """Column of the target gene, or of a list of genes."""

    separator: str | None = None
    """Text between the genes of a list; None: one gene a row."""

    potency: Value = "nM_value"
    """Potency in nM."""


# --- the simulator: a world, and experiments in it ------------------------------------

Share = Annotated[float, Field(ge=0.0, le=1.0)]


CHANNELS = ("dna", "er", "actin", "rna", "mitochondria", "golgi")
"""Channels of a simulated screen, in order."""


class WorldKnobs(Knobs):
    """The biology of a simulated screen: every experiment of the screen shares it."""

    seed: int = 0
    """Seed of all draws; each takes its own stream by name."""

    active_groups: PositiveInt = 8
    """Anax groups whose genes change the cells, each in a direction of its own."""

    silent_groups: NonNegativeInt = 4
    """Anax groups whose genes change nothing: planted noise."""

    genes_per_group: PositiveInt = 3
    """Genes of each group."""

    guides: PositiveInt = 2
    """Guides of each gene."""

    axes_per_group: int = Field(default=3, ge=1, le=8)
    """Traits of a cell that a group changes together."""

    strength: NonNegativeFloat = 5.2
    """Length of a group's change, in units of a trait."""

    brightness: NonNegativeFloat = 1.0
    """Length of a group's change in channel brightness, which encoders do not see."""

    gene_spread: NonNegativeFloat = 0.15
    """How far a gene strays from its group, as a part of the change."""

    weakest_guide: Share = 0.8
    """Efficacy of the weakest guide; the strongest has 1."""

    compounds: NonNegativeInt = 8
    """Compounds, each with the genes of one group as targets; active groups come first."""

    concentrations_um: tuple[float, ...] = (0.1, 1.0, 10.0)
    """Concentrations of each compound, micromolar."""

    biased_arms: NonNegativeInt = 2
    """Chromosome arms that change the cells whichever of their genes is cut."""

    genes_per_arm: NonNegativeInt = Field(default=24, le=40)
    """Unexpressed genes on each biased arm, with one guide each."""

    arm_effect: NonNegativeFloat = 3.0
    """Length of the change that a biased arm makes."""


class SimulateKnobs(WorldKnobs):
    """Knobs of ``screen.simulate``: one experiment, its plates, images and defects."""

    cell_type: str = "HUVEC"
    """Name of the cells; the name decides how they look untreated."""

    layout: str = "A"
    """Experiments with the same word here are a technical pair: their plates share layouts."""

    addresses: Literal["random", "fixed"] = "random"
    """Each plate its own random layout; or one address a condition on all plates."""

    plates: PositiveInt = 4
    """Plates of the experiment; each holds every condition."""

    replicates: PositiveInt = 1
    """Wells of a condition on each plate."""

    negative_controls: PositiveInt = 20
    """Wells a plate with non-targeting guides."""

    positive_controls: NonNegativeInt = 2
    """Wells a plate with a knockout that kills cells."""

    empty: NonNegativeInt = 2
    """Wells a plate to which nothing was applied."""

    doubles: NonNegativeInt = 2
    """Wells a plate with two perturbations."""

    quadruples: NonNegativeInt = 2
    """Wells a plate with four perturbations."""

    missing_labels: NonNegativeInt = 2
    """Wells a plate whose treatment nobody wrote down."""

    frequent_conditions: NonNegativeInt = 1
    """Conditions that are over-represented,"""

    frequent_wells: NonNegativeInt = 6
    """in so many further wells a plate."""

    rare_conditions: NonNegativeInt = 3
    """Conditions that only the first plate holds, in one well each."""

    image_size: int = Field(default=96, ge=16)
    """Height and width of a site, pixels."""

    sites: PositiveInt = 1
    """Sites of a well."""

    cells: NonNegativeFloat = 1.6
    """Mean number of cells in a square of 32 pixels."""

    cell_spread: NonNegativeFloat = 0.35
    """Spread of the cells of one well around it, in units of a trait."""

    well_spread: NonNegativeFloat = 0.15
    """Spread of the wells of one condition."""

    experiment_spread: NonNegativeFloat = 0.15
    """Spread of experiments: what the cells' mood does to all wells of a day."""

    position_effect: NonNegativeFloat = 0.2
    """Change of cells at the plate's border, and along its rows."""

    batch_effect: NonNegativeFloat = 1.0
    """Strength with which gain, background, blur and illumination vary by experiment."""

    site_effect: NonNegativeFloat = 0.3
    """The same from site to site, as a part of it."""

    photons: float = Field(default=15.0, gt=0.0)
    """Photons of a fully lit pixel: the fewer, the noisier. The noise stands for the grain
    of stains too, so that defocus blurs it; a random filter cannot see through it."""

    read_noise: NonNegativeFloat = 0.1
    """Noise of the camera in the dark, as the light whose photons would make as much."""

    defects: NonNegativeInt = 1
    """Wells a plate with each of the defects: dead cells, out of focus, saturated, debris,
    a missing channel."""


class AnnotateKnobs(WorldKnobs):
    """Knobs of ``screen.annotate``: what is known of the screen's genes and compounds."""

    source: Literal["simulated", "tables"] = "tables"
    """Whether the simulated world or the user's tables say it."""

    gene_columns: GeneColumns = GeneColumns()
    """Which column of the table of genes says what."""

    interaction_columns: InteractionColumns = InteractionColumns()
    """Which column of the table of interactions says what."""
