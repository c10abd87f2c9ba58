"""Knobs of the qc stage."""

from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from phenopipe.knobs import Knobs

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class CheckKnobs(Knobs):
    """Knobs of the check of a whole screen, before any expensive step."""

    max_images: Share = 0.1
    """Share of the screen's images that may have a defect; beyond it the step stops."""
    max_wells: Share = 0.2
    """Share of its wells that may have one."""
    max_plates: Share = 0.2
    """Share of its plates that may have one, such as too few negative controls."""
    max_experiments: Share = 1.0
    """Share of its experiments that may have one; not every screen has technical pairs."""
    min_controls: PositiveInt = 1
    """Negative controls that a plate needs."""


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
    max_background: PositiveFloat = 0.5
    """How far the darkest parts may lie above those of controls, in any channel, in units of
    the brightness of control cells."""
    max_shading: PositiveFloat = 6.0
    """Robust deviations by which the cells' brightness may change from border to border."""
    max_artefact: PositiveFloat = 4.0
    """Robust deviations by which the brightest spot of a field may stick out of the plate."""
    max_outlier: PositiveFloat | None = None
    """Robust deviations by which a field may lie away from all fields of its plate, over the
    statistics of all channels together. None: the score is told and flags nothing, because
    strong phenotypes lie farther out than debris does; ``max_artefact`` tells these apart."""
    min_foreground: Share = 0.01
    """Share of pixels, mean over channels, that cells must cover."""
    min_objects: NonNegativeFloat = 0.1
    """Number of nuclei that a field must have, as a part of that of controls."""
    min_contrast: NonNegativeFloat = 0.1
    """Contrast below this part of that of controls means that a channel is missing."""
    odd_sites: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Share of a well's sites from which an unusual size or channel count fails the well."""
    max_perturbations: PositiveInt = 3
    """Perturbations that a well may have; its background does not count (paper A.1)."""
    max_missing_features: Share = 0.0
    """Share of features that a profile may lack."""
    assay: str = ""
    """Assay conditions: an SQL expression over the wells' columns, such as
    ``cell_type = 'HUVEC' AND plate <> '9'``; a well where it is not true fails."""
    min_reference: PositiveInt = 8
    """Control sites that a plate needs; with fewer, all of its sites are the reference."""
    max_failing: Share = 0.5
    """Share of an experiment's wells that may fail; beyond it all of its wells do."""
    min_controls: NonNegativeInt = 1
    """Negative controls of an experiment that must pass; with fewer, all of its wells fail.
    An experiment that has none at all is told by ``qc.check``."""
