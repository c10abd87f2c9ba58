"""From 16 to 8 bits: which pixel values become 0 and 255, channel by channel.

Self-standardization adds 1e-5 to the variance on the scale 0..1. Pixels of 16 bits that use a
hundredth of their range are far below that, and what should have variance 1 is damped to
almost nothing: scaled to 8 bits they use the whole range.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from phenopipe.errors import UserError
from phenopipe.formats.bit_depth import VALUES, Limits
from phenopipe.knobs import Knobs

ALL = "all"


class Scaling(Knobs):
    """How pixels of 16 bits become pixels of 8; those of 8 bits stay as they are."""

    method: Literal["none", "range", "percentiles"] = "none"
    """none: they stay at 16 bits. range: between two fixed values a channel. percentiles:
    between two percentiles of each plate's negative controls, channel by channel."""

    percentiles: tuple[float, float] = (0.1, 99.9)
    """Percentiles that become 0 and 255."""

    ranges: dict[str, tuple[int, int]] = Field(default_factory=dict)
    """Channel to the values that become 0 and 255; ``all`` for those that are not named."""

    control_sites: PositiveInt = 32
    """Sites of negative controls of a plate that percentiles are taken from."""

    @model_validator(mode="after")
    def _ascending(self) -> "Scaling":
        pairs = {**self.ranges, "percentiles": self.percentiles}
        for name, (low, high) in pairs.items():
            if not low < high:
                raise ValueError(f"{name}: {low} to {high}, wanted the smaller one first")
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"percentiles {low} to {high}, wanted 0 to 100")
        return self

    def facts(self) -> dict[str, Any]:
        """Tell what an encoder must know of pixels that were scaled so."""
        told: dict[str, Any] = {"scaling": self.method}
        if self.method == "percentiles":
            told["percentiles"] = list(self.percentiles)
        if self.method == "range":
            told["ranges"] = {name: list(pair) for name, pair in sorted(self.ranges.items())}
        return told


def fixed_limits(scaling: Scaling, plates: Iterable[str], channels: Sequence[str]) -> Limits:
    """Limits of every plate and channel as the knobs state them.

    Raises
    ------
    UserError
        If a channel has none.
    """
    known = scaling.ranges
    missing = [name for name in channels if name not in known and ALL not in known]
    if missing:
        raise UserError(
            f"scaling.ranges: none for channel {missing[0]!r}, wanted one for it or for {ALL!r}"
        )
    own = {name: known.get(name, known.get(ALL, (0, 1))) for name in channels}
    return dict.fromkeys(plates, own)


def control_sites(
    wells: pl.DataFrame, images: pl.DataFrame, scaling: Scaling
) -> dict[str, list[str]]:
    """Stored sites of each plate's negative controls, evenly chosen; of all wells without any.

    Returns
    -------
    dict of str to list of str
        Plate to ``image_id``.
    """
    sites = images.filter(pl.col("index").is_not_null()).join(
        wells.select("well_id", "plate", "role"), on="well_id", maintain_order="left"
    )
    chosen: dict[str, list[str]] = {}
    for (plate,), own in sites.group_by("plate", maintain_order=True):
        controls = own.filter(pl.col("role") == "negative_control")
        names = (controls if controls.height else own)["image_id"].to_list()
        at = np.linspace(0, len(names) - 1, min(len(names), scaling.control_sites))
        chosen[str(plate)] = [names[int(one)] for one in at.round()]
    return chosen


class Histogram:
    """How often each value occurs in every channel, over any number of sites."""

    def __init__(self, channels: int) -> None:
        self.counts_CV = np.zeros((channels, VALUES), dtype=np.int64)

    def add(self, pixels_CHW: NDArray[np.integer]) -> None:
        """Count the pixels of one site."""
        for channel, plane in enumerate(pixels_CHW):
            found = np.bincount(plane.ravel())
            self.counts_CV[channel, : len(found)] += found

    def limits(self, percentiles: tuple[float, float]) -> list[tuple[int, int]]:
        """Percentiles of every channel, the higher one at least 1 above the lower.

        Notes
        -----
        The least value that at least that share of the pixels does not exceed. Where nothing
        was counted, the limits are those of the type.
        """
        if not self.counts_CV.any():
            return [(0, VALUES - 1)] * len(self.counts_CV)
        reached_CV = self.counts_CV.cumsum(axis=1)
        low, high = (
            [int(np.searchsorted(one_V, max(one_V[-1] * (p / 100), 1))) for one_V in reached_CV]
            for p in percentiles
        )
        return [(a, max(b, a + 1)) for a, b in zip(low, high, strict=True)]
