"""Knobs of stage ``screen``."""

from pydantic import Field, model_validator

from phenopipe.knobs import Knobs

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
    """``knockout``, ``sirna``, ``compound`` or ``soluble_factor``; see ``kinds``."""

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
    """Knobs of ``screen.images``, for a table of image files."""

    channels: tuple[str, ...] = Field(min_length=1)
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
    """Share of an experiment's sites with a missing or damaged file above which to stop."""

    @model_validator(mode="after")
    def _one_way_to_name_files(self) -> "ImagesKnobs":
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
    """Columns that start so are not features."""

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
