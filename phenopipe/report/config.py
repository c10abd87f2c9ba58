"""Knobs of the report stage."""

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from phenopipe.knobs import Knobs


class PageKnobs(Knobs):
    """Knobs of the page."""

    title: str = "From pixels to a map of biology"
    """Heading of the page."""
    example_sites: NonNegativeInt = 14
    """Sites shown of each screen."""
    flagged_sites: NonNegativeInt = 14
    """Sites shown of the wells that failed qc, the worst of each test first."""
    thumbnail_pixels: int = Field(default=144, ge=16, le=512)
    """Width of a shown site."""
    sample_wells: int = Field(default=1200, ge=10, le=4000)
    """Wells drawn as points in each scatter of embeddings, out of all."""
    near: PositiveInt = 6
    """Nearest, and most opposed, names kept for each row of a map."""
    map_rows: PositiveInt = 6000
    """Rows of a map that can be searched; further ones are left out, and counted."""
    left_out: tuple[str, ...] = ()
    """Experiments that the screens' ``without`` leaves out; filled in by the workflow."""
    max_mb: PositiveFloat = 6.0
    """Size of the page above which the step stops."""
    seed: int = 0
    """Seed of samples."""


class TruthKnobs(Knobs):
    """Knobs of the comparison with what the simulator planted."""

    trained: str = "mae"
    """Encoder trained in this run, whose best block must beat the untrained one's."""
    untrained: str = "untrained"
    """Encoder of random weights."""
    pixels: str = "pixels"
    """Encoder of per-channel pixel statistics: what needs no encoder at all."""
    encoders: tuple[str, ...] = ()
    """Encoders whose alignment, arm correction and map are judged; when empty the trained
    one, or all where there is none of that name."""
    levels: tuple[float, ...] = (0.01, 0.05)
    """Levels at which planted noise must not be called more often than by chance."""
    tails: tuple[float, float] = (0.05, 0.95)
    """Ranks in the null under and over which a planted pair counts as recalled."""
    folds: int = Field(default=5, ge=2)
    """Folds of the classifiers that try to tell experiments apart."""
    max_wells: PositiveInt = 1500
    """Wells that a classifier sees at most, as many from each experiment."""
    bootstraps: PositiveInt = 2000
    """Resamples behind each interval."""
    seed: int = 0
    """Seed of folds, samples and resamples."""


class TablesKnobs(Knobs):
    """Knobs of the tables in the paper's shape."""

    baselines: tuple[str, ...] = ()
    """Encoders whose best scores are italic; those not trained on microscopy images when left
    out of the configuration."""
    random: tuple[str, ...] = ()
    """Encoders of random embeddings, over which z-scores are; kind ``random`` when left out."""
