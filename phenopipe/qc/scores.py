"""What each test looks at: one number a site, from the metrics of its plate.

Shape suffixes: N sites, C channels, D directions.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.qc.artefacts import PARTS
from phenopipe.qc.robust import REFERENCE_ROLES, deviations, plate_medians

Float = NDArray[np.float64]
_TINY = 1e-9


class Plates:
    """Sites of an experiment with their metrics, plates and control wells.

    Parameters
    ----------
    sites : DataFrame
        Metrics joined with ``plate`` and ``role``.
    min_reference : int
        Control sites that a plate needs.
    """

    def __init__(self, sites: pl.DataFrame, min_reference: int) -> None:
        self._sites = sites
        self._plate_N = sites["plate"].to_numpy().astype(str)
        self._is_reference_N = sites["role"].is_in(REFERENCE_ROLES).to_numpy()
        self._min_reference = min_reference

    def values(self, name: str) -> Float:
        """Return a metric, shape (n_sites,); NaN where it is unknown."""
        return self._sites[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()

    def by_channel(self, metric: str) -> Float:
        """Return a metric of every channel, shape (n_sites, n_channels)."""
        names = [name for name in self._sites.columns if name.startswith(f"{metric}.")]
        return np.stack([self.values(name) for name in names], axis=1)

    def away(self, values_NC: Float) -> Float:
        """Robust deviations of values from those of the plate's controls."""
        return deviations(
            values_NC, self._plate_N, self._is_reference_N, min_reference=self._min_reference
        )

    def away_from_all(self, values_N: Float) -> Float:
        """Robust deviations of values from those of all sites of the plate."""
        nowhere_N = np.zeros_like(self._is_reference_N)
        return deviations(values_N[:, None], self._plate_N, nowhere_N, min_reference=1)[:, 0]

    def usual(self, values_N: Float) -> Float:
        """Median over the controls of each site's plate."""
        return plate_medians(
            values_N, self._plate_N, self._is_reference_N, min_reference=self._min_reference
        )

    def usual_by_channel(self, metric: str) -> Float:
        """Median of a metric of every channel over the controls of each site's plate."""
        return np.stack(
            [self.usual(values_N) for values_N in self.by_channel(metric).T], axis=1
        )


def blur_score(plates: Plates) -> Float:
    """Robust deviations by which a site is less sharp than the plate's controls.

    Notes
    -----
    Both measures of focus count alike, and of the channels the median: blur takes all
    channels, a phenotype that smooths out one of them does not.
    """
    away_N = np.zeros(0)
    for metric in ("focus_slope", "focus_edges"):
        typical_N = _channel_median(plates.away(plates.by_channel(metric)))
        away_N = typical_N if away_N.size == 0 else away_N + typical_N
    return -plates.away(away_N[:, None])[:, 0]


def artefact_score(plates: Plates) -> Float:
    """Robust deviations by which a field's brightest square sticks out of its plate.

    Notes
    -----
    It must be bright compared with the brightest squares of other fields, which a field
    of few cells is not, and half as much compared with the rest of its own field, which a
    field of bright cells is not. The larger of two sizes of square counts.
    """
    scores = [
        np.fmin(
            plates.away_from_all(plates.values(f"peak_{part}")),
            2.0 * plates.away_from_all(plates.values(f"rise_{part}")),
        )
        for part in PARTS
    ]
    return np.asarray(np.fmax.reduce(scores))


def outlier_score(plates: Plates) -> Float:
    """Robust distance of a site from all sites of its plate, over statistics of channels.

    Notes
    -----
    Root mean square, over channels and their mean, bright end and contrast (logarithms), of
    the robust deviations from the plate. A phenotype changes a few of these; what changes
    most of them by many deviations is no picture of cells as the plate shows them.
    """
    away = [
        plates.away_from_all(np.log(np.maximum(values_N, 1.0)))
        for metric in ("mean", "bright", "contrast")
        for values_N in plates.by_channel(metric).T
    ]
    # Where most fields of a plate agree to the last bit, distances have no unit.
    known = np.ma.masked_invalid(away)
    return np.asarray(np.sqrt(np.square(known).mean(axis=0)).filled(np.nan))


def dead_cells_score(plates: Plates) -> Float:
    """Share of dead cells above that of the plate's controls."""
    dead_N = plates.values("dead_cells")
    return dead_N - plates.usual(dead_N)


def objects_score(plates: Plates) -> Float:
    """Number of nuclei as a part of that of the plate's controls."""
    count_N = plates.values("objects")
    return count_N / np.maximum(plates.usual(count_N), _TINY)


def saturation_score(plates: Plates) -> Float:
    """Saturated pixels as a part of those with cells, in the channel where it is largest.

    Notes
    -----
    Counted against the whole field, an overexposed field of few cells would pass. A field
    with hardly any cells is judged as if they covered a fiftieth of it.
    """
    cells_NC = np.maximum(plates.by_channel("foreground"), 0.02)
    return np.asarray((plates.by_channel("saturation") / cells_NC).max(axis=1))


def background_score(plates: Plates) -> Float:
    """Rise of the darkest parts above those of controls, in the channel where it is largest.

    Notes
    -----
    The unit is the brightness of the plate's control cells in that channel: light that
    lies over the whole field counts, however little the controls vary.
    """
    rise_NC = plates.by_channel("background") - plates.usual_by_channel("background")
    level_NC = plates.usual_by_channel("bright") - plates.usual_by_channel("background")
    return np.asarray((rise_NC / np.maximum(level_NC, 1.0)).max(axis=1))


def shading_score(plates: Plates) -> Float:
    """Robust deviations by which the cells' brightness changes from border to border.

    Notes
    -----
    The microscope lights all fields of a plate alike, so the usual slope is subtracted
    with its sign; and the median over channels counts, since bad light shows in most.
    The steeper of the directions down and across decides.
    """
    slopes = [
        _channel_median(plates.by_channel(name) - plates.usual_by_channel(name))
        for name in ("shade_down", "shade_across")
    ]
    away_DN = np.stack([plates.away(slope_N[:, None])[:, 0] for slope_N in slopes])
    return np.asarray(np.abs(away_DN).max(axis=0))


def foreground_score(plates: Plates) -> Float:
    """Share of pixels with cells, mean over channels."""
    return np.asarray(plates.by_channel("foreground").mean(axis=1))


def contrast_score(plates: Plates) -> Float:
    """Least contrast of any channel as a part of that of the plate's controls.

    Notes
    -----
    A field without cells has no contrast in any channel, and misses none of them: the
    number is relative to the field's best channel if that is below its usual contrast.
    """
    contrast_NC = plates.by_channel("contrast")
    part_NC = contrast_NC / np.maximum(plates.usual_by_channel("contrast"), _TINY)
    best_N = np.clip(part_NC.max(axis=1), _TINY, 1.0)
    return np.asarray(part_NC.min(axis=1) / best_N)


def _channel_median(values_NC: Float) -> Float:
    """Median over the channels in which a site has a value."""
    known_N = (~np.isnan(values_NC)).any(axis=1)
    median_N = np.full(len(values_NC), np.nan)
    if known_N.any():
        median_N[known_N] = np.nanmedian(values_NC[known_N], axis=1)
    return median_N
