"""Step ``images``: focus, cells, light and artefacts of every site of an experiment.

Shape suffixes: N sites, C channels, H rows, W columns, M objects of all sites.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import zarr
from numpy.typing import NDArray

from phenopipe.errors import UserError
from phenopipe.formats.images import open_pixels, pixel_channels, read_images
from phenopipe.formats.qc import write_metrics
from phenopipe.formats.wells import read_wells
from phenopipe.knobs import parse_step, run_step
from phenopipe.qc.artefacts import brightest_squares
from phenopipe.qc.channels import channel_metrics
from phenopipe.qc.config import ImagesKnobs
from phenopipe.qc.nuclei import SPECK, Objects, condensation, find_objects, usual_nucleus
from phenopipe.qc.robust import REFERENCE_ROLES, plate_medians

DNA_WORDS = ("dna", "nucle", "hoechst", "dapi", "draq")
# Pixels that are held as floats at a time, over all channels.
_PIXELS_AT_ONCE = 2**23

Float = NDArray[np.float64]


class Sites(NamedTuple):
    """The stored sites of an experiment, in the order of their pixels.

    Attributes
    ----------
    index_N : int array of shape (n_sites,)
        Rows of the pixel store.
    plate_N : str array of shape (n_sites,)
        Plate.
    is_reference_N : bool array of shape (n_sites,)
        Site of a control well.
    """

    index_N: NDArray[np.int64]
    plate_N: NDArray[np.str_]
    is_reference_N: NDArray[np.bool_]


def measure_sites(
    wells: pl.DataFrame,
    images: pl.DataFrame,
    pixels: zarr.Array | NDArray[Any],
    channels: Sequence[str],
    knobs: ImagesKnobs,
) -> pl.DataFrame:
    """Measure every site of an experiment.

    Parameters
    ----------
    wells, images : DataFrame
        Wells and images of the experiment.
    pixels : array of shape (n_sites, n_channels, height, width)
        Pixels, read in chunks.
    channels : list of str
        Names of the channels.
    knobs : ImagesKnobs
        Settings.

    Returns
    -------
    DataFrame
        ``image_id, well_id, height, width, channels``; ``<metric>.<channel>`` of
        :func:`~phenopipe.qc.channels.channel_metrics`; the brightest squares; ``objects``,
        the number of nuclei, and ``dead_cells``, the share that is condensed and bright.
        Null where a site has no pixels.

    Notes
    -----
    Two passes: what is a nucleus, a dead one, or too bright a spot is measured against the
    control wells of the same plate, which the first pass must have seen.

    Pixels are held eight million at a time, so that memory does not grow with the
    experiment: 588 sites of 6 x 96 x 96 pixels take 6 s and 0.25 GB on one core.
    """
    listed = images.select("image_id", "well_id", "height", "width", "channels", "index")
    stored = listed.filter(pl.col("index").is_not_null()).sort("index")
    placed = stored.join(
        wells.select("well_id", "plate", "role"),
        on="well_id",
        how="left",
        maintain_order="left",
    )
    sites = Sites(
        stored["index"].to_numpy(),
        placed["plate"].fill_null("").to_numpy().astype(str),
        placed["role"].is_in(REFERENCE_ROLES).fill_null(value=False).to_numpy(),
    )
    measured: dict[str, Float] = {}
    if len(sites.index_N):
        light = _measure_light(pixels, sites, knobs)
        level_NC = _plate_level(light["bright"] - light["background"], sites)
        nuclear = nuclear_channel(channels, knobs.nuclear_channel)
        fields = _measure_fields(pixels, sites, light["background"], level_NC, nuclear, knobs)
        measured = {
            f"{name}.{channel}": values_NC[:, c]
            for name, values_NC in light.items()
            for c, channel in enumerate(channels)
        } | fields
    table = pl.DataFrame({"image_id": stored["image_id"], **measured}, nan_to_null=True)
    return listed.drop("index").join(table, on="image_id", how="left", maintain_order="left")


def nuclear_channel(channels: Sequence[str], name: str | None) -> int:
    """Number of the channel that shows nuclei.

    Raises
    ------
    UserError
        If the named channel is not among the screen's.

    Examples
    --------
    >>> nuclear_channel(["FKHR-EGFP", "DNA"], None)
    1
    """
    if name is not None:
        if name not in channels:
            wanted = ", ".join(channels)
            raise UserError(f"qc.images.nuclear_channel: found {name!r}, wanted {wanted}")
        return list(channels).index(name)
    speaking = [
        number
        for number, channel in enumerate(channels)
        if any(word in channel.lower() for word in DNA_WORDS)
    ]
    return speaking[0] if speaking else 0


def _chunks(
    pixels: zarr.Array | NDArray[Any], index_N: NDArray[np.int64]
) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Read sites a few at a time, so that memory does not grow with the experiment."""
    step = max(_PIXELS_AT_ONCE // int(np.prod(pixels.shape[1:])), 1)
    for first in range(0, len(index_N), step):
        rows = index_N[first : first + step]
        # One read from the first to the last row is far quicker than one a row.
        block = np.asarray(pixels[int(rows[0]) : int(rows[-1]) + 1])[rows - rows[0]]
        yield slice(first, first + len(rows)), block


def _measure_light(
    pixels: zarr.Array | NDArray[Any], sites: Sites, knobs: ImagesKnobs
) -> dict[str, Float]:
    """First pass: what one channel of one site tells on its own, (n_sites, n_channels)."""
    saturated = knobs.saturated or int(np.iinfo(pixels.dtype).max)
    parts: list[dict[str, Float]] = []
    for _, x_NCHW in _chunks(pixels, sites.index_N):
        by_channel = [channel_metrics(x_NCHW[:, c], saturated) for c in range(x_NCHW.shape[1])]
        parts.append(
            {
                name: np.stack([one[name] for one in by_channel], axis=1)
                for name in by_channel[0]
            }
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _plate_level(bright_NC: Float, sites: Sites) -> Float:
    """How bright the control cells of each site's plate are, in every channel."""
    level_NC = np.stack(
        [
            plate_medians(bright_N, sites.plate_N, sites.is_reference_N, min_reference=1)
            for bright_N in bright_NC.T
        ],
        axis=1,
    )
    return np.maximum(level_NC, 1.0)


def _measure_fields(
    pixels: zarr.Array | NDArray[Any],
    sites: Sites,
    background_NC: Float,
    level_NC: Float,
    nuclear: int,
    knobs: ImagesKnobs,
) -> dict[str, Float]:
    """Second pass: artefacts and nuclei, against the controls of the plate."""
    squares: list[dict[str, Float]] = []
    objects: list[Objects] = []
    for rows, x_NCHW in _chunks(pixels, sites.index_N):
        squares.append(brightest_squares(x_NCHW, background_NC[rows], level_NC[rows]))
        found = find_objects(
            x_NCHW[:, nuclear],
            background_NC[rows, nuclear],
            knobs.nucleus_threshold * level_NC[rows, nuclear],
        )
        objects.append(found._replace(site_M=found.site_M + rows.start))
    merged = Objects(*(np.concatenate(parts) for parts in zip(*objects, strict=True)))
    fields = {name: np.concatenate([part[name] for part in squares]) for name in squares[0]}
    return fields | _count_nuclei(merged, sites, knobs)


def _count_nuclei(objects: Objects, sites: Sites, knobs: ImagesKnobs) -> dict[str, Float]:
    """Number of nuclei of each site, and the share of dead cells among them."""
    n_sites, plate_M = len(sites.plate_N), sites.plate_N[objects.site_M]
    area_M, light_M = np.full((2, len(plate_M)), np.nan)
    for plate in np.unique(plate_M):
        here_M = plate_M == plate
        controls_M = here_M & sites.is_reference_N[objects.site_M]
        usual = usual_nucleus(objects.of(controls_M if controls_M.any() else here_M))
        area_M[here_M], light_M[here_M] = usual
    nucleus_M = objects.area_M > SPECK * area_M
    # A nucleus that the border cuts looks small without being so.
    whole_M = nucleus_M & objects.is_whole_M
    dead_M = whole_M & (condensation(objects, area_M, light_M) > knobs.dead_condensation)
    count_N, whole_N, dead_N = (
        np.bincount(objects.site_M[chosen_M], minlength=n_sites)
        for chosen_M in (nucleus_M, whole_M, dead_M)
    )
    return {
        "objects": count_N.astype(np.float64),
        "dead_cells": dead_N / np.maximum(whole_N, 1),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``qc_images``."""
    files, knobs = parse_step(
        ImagesKnobs,
        inputs=["wells", "images", "pixels"],
        outputs=["metrics"],
        names=["screen", "experiment"],
        doc=__doc__,
        argv=argv,
    )
    wells, images = read_wells(files.wells), read_images(files.images)
    pixels, channels = open_pixels(files.pixels), pixel_channels(files.pixels)
    metrics = measure_sites(wells, images, pixels, channels, knobs)
    write_metrics(files.metrics, metrics, files.stamp)


if __name__ == "__main__":
    run_step(main)
