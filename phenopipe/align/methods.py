"""From settings to a normalizer, and from a fitted normalizer to a transform and back."""

from collections.abc import Mapping
from typing import Any

from phenopipe.align.controls import ControlNormalizer
from phenopipe.align.pca import ControlPCANormalizer
from phenopipe.align.tvn import TypicalVariationNormalizer
from phenopipe.formats.transforms import Transform


def make_normalizer(method: str, settings: Mapping[str, Any]) -> ControlNormalizer | None:
    """Return the normalizer of a method, not yet fitted; None for the method ``none``."""
    if method == "none":
        return None
    normalizer: ControlNormalizer
    if method == "pca":
        normalizer = ControlPCANormalizer(settings["n_components"])
    else:
        normalizer = TypicalVariationNormalizer(
            settings["regularization"],
            settings["center_by_experiment"],
            settings["n_components"],
        )
    normalizer.trim = settings["trim"]
    return normalizer


def restore_normalizer(transform: Transform, cell_type: str = "") -> ControlNormalizer | None:
    """Return the normalizer of a transform for a cell type, its shared part fitted."""
    normalizer = make_normalizer(transform.method, transform.settings)
    if normalizer is not None:
        normalizer.center_ = transform.center
        normalizer.projection_ = transform.projection
        normalizer.middle_ = transform.middle_of(cell_type)
    return normalizer
