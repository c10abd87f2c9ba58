"""Knobs of the export stage."""

from pydantic import Field, PositiveInt

from phenopipe.knobs import Knobs


class H5adKnobs(Knobs):
    """Aligned wells as one AnnData file."""

    rows_a_chunk: PositiveInt = 1024
    """Wells that are read from the file at once."""


class ZarrKnobs(Knobs):
    """Aligned wells as one AnnData store; zarr v3."""

    rows_a_chunk: PositiveInt = 1024
    """Wells of a file of the store."""


class ProfilesKnobs(Knobs):
    """Aligned wells of one experiment as a wide table."""


class GalleryKnobs(Knobs):
    """Aligned wells as a project of the Cell Painting Gallery."""

    project: str = Field(default="phenopipe", pattern=r"^[a-z0-9_-]+$")
    """Folder of the project, such as cpg0016-jump."""
    source: str = Field(default="lab", pattern=r"^[a-z0-9_-]+$")
    """Folder of the institution that made the images, such as source_4."""


class MapsKnobs(Knobs):
    """A map of biology as an AnnData file."""


class ManifestsKnobs(Knobs):
    """A manifest with one flat row a well."""
