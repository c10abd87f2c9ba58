"""Knobs of the qc stage."""

from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from phenopipe.knobs import Knobs

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class ImagesKnobs(Knobs):
    """Knobs of the measures of images."""

    nuclear_channel: str | None = None
    """Channel that shows nuclei; none: the first whose name speaks of DNA, else the first."""
    saturated: PositiveInt | None = None
    """Value from which a pixel is saturated; none: the largest of the pixels' type."""
    nucleus_threshold: Share = 0.3
    """Where a nucleus begins, as a part of the brightness of the plate's control nuclei."""
    dead_condensation: PositiveFloat = 3.0
    """A dead cell's nucleus is brighter than a control nucleus, and for its size by this."""


class ProfilesKnobs(Knobs):
    """Knobs of the measures of profiles; there are none."""


class WellsKnobs(Knobs):
    """Knobs of the tests that a well must pass.

    Scores "against controls" compare a site with the negative controls and empty wells of
    its own plate; the score of a well is the median of its sites.
    """

    enabled: bool = True
    """Off: only wells that cannot be embedded at all are flagged."""
    max_blur: PositiveFloat = 6.0
    """Robust deviations by which both measures of focus may lie below those of controls."""
    max_dead_cells: Share = 0.4
    """Share of dead cells that a well may have more than controls."""
    max_saturation: Share = 0.2
    """Share of the pixels with cells that may be saturated, in any channel."""
    max_artefact: PositiveFloat = 4.0
    """Robust deviations by which the brightest spot of a field may stick out of the plate."""
    min_foreground: Share = 0.01
    """Share of pixels, mean over channels, that cells must cover."""
    min_objects: NonNegativeFloat = 0.1
    """Number of nuclei that a field must have, as a part of that of controls."""
    min_contrast: NonNegativeFloat = 0.1
    """Contrast below this part of that of controls means that a channel is missing."""
    max_perturbations: PositiveInt = 3
    """Perturbations that a well may have; its background does not count (paper A.1)."""
    max_missing_features: Share = 0.0
    """Share of features that a profile may lack."""
    assay: str = ""
    """Assay conditions: an SQL expression over the wells' columns, such as
    ``cell_type = 'HUVEC' AND plate <> '9'``; a well where it is not true fails."""
    min_reference: PositiveInt = 8
    """Control sites that a plate needs; with fewer, all of its sites are the reference."""
