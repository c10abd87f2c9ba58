"""Step ``wells``: embed every well of one experiment at every block, in one pass.

Peak memory: the model, one pass, the crops that are read ahead, and 32 MB of the result, as
much again where sites are kept; it grows neither with the sites nor with the wells of the
experiment.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.embed.config import WellsKnobs
from phenopipe.embed.crops import crop_corners, cut_crops
from phenopipe.embed.devices import one_device
from phenopipe.embed.passes import Passes
from phenopipe.embed.reading import crops_a_well, cut_into_batches, read_sites, sites_of
from phenopipe.encoders.base import Encoder
from phenopipe.encoders.folder import load_encoder
from phenopipe.errors import UserError
from phenopipe.formats.embeddings import embeddings_writer
from phenopipe.formats.images import open_pixels, pixel_channels, pixel_facts, read_images
from phenopipe.formats.wells import read_wells
from phenopipe.knobs import parse_step, run_step
from phenopipe.threads import ahead


def embed_wells(
    passes: Passes,
    wells: pl.DataFrame,
    images: pl.DataFrame,
    pixels: Any,  # noqa: ANN401 - a zarr array
    channels: Sequence[int],
    knobs: WellsKnobs,
    keep: Callable[[NDArray[np.float64]], None] | None = None,
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Average the embeddings of all crops of each well, at every kept block.

    Parameters
    ----------
    passes : Passes
        The encoder, ready to run.
    wells, images : DataFrame
        Wells, and their sites.
    pixels : zarr array of shape (n_sites, channels, height, width)
        Row ``index`` of the images table holds a site.
    channels : list of int
        Where the pixels hold each channel of the encoder.
    knobs : WellsKnobs
        Batch, and how sites are tiled.
    keep : callable, optional
        Is given the mean over each site's crops, in the order of ``sites_of``.

    Yields
    ------
    row, embedding : int, float array of shape (n_kept_blocks, dim)
        In the order of the wells; those without a stored site are left out.

    Raises
    ------
    UserError
        If the sites are smaller than a crop.

    Notes
    -----
    A well's crops are added site by site in double precision, in an order that the batch does
    not change, so that another batch changes no more than how the model rounds.
    """
    sites = sites_of(wells, images)
    if not len(sites.rows):
        return
    crop, ring = passes.encoder.config.crop, knobs.leave_out_ring
    height, width = pixels.shape[2:]
    corners = crop_corners(height, width, crop, leave_out_ring=ring)

    def prepare(run: slice) -> tuple[NDArray[np.int64], Any]:
        raw_SCHW = read_sites(pixels, sites.indices[run])[:, channels]
        return sites.rows[run], passes.prepare(cut_crops(raw_SCHW, corners, crop))

    runs = cut_into_batches(len(sites.rows), len(corners), knobs.batch)
    of_sites = (
        (int(row), x_KBD.sum(axis=0, dtype=np.float64))
        for rows, prepared in ahead(prepare, runs, knobs.readers)
        for row, x_KBD in zip(rows, _by_site(passes(prepared), len(corners)), strict=True)
    )
    for row, sums in groupby(of_sites, key=itemgetter(0)):
        total_BD, n_sites = np.zeros(passes.kept.shape), 0
        for _, sum_BD in sums:
            if keep is not None:
                keep(sum_BD / len(corners))
            total_BD += sum_BD
            n_sites += 1
        yield row, total_BD / (n_sites * len(corners))


def _by_site(x_NBD: NDArray[np.float32], crops_a_site: int) -> NDArray[np.float32]:
    return x_NBD.reshape(-1, crops_a_site, *x_NBD.shape[1:])


def channel_places(encoder: Encoder, found: Sequence[str], where: Path) -> list[int]:
    """Find each of the encoder's channels, by name, among those of a pixel store.

    Raises
    ------
    UserError
        If the screen lacks a channel of the encoder, or has more than it takes.
    """
    if encoder.config.kind == "ca_mae":
        # Its weights are the same for all channels; its positions say how many there may be.
        most = encoder.config.model_args["channels"]
        if len(found) > most:
            raise UserError(f"{where}: {len(found)} channels, the encoder takes {most} at most")
        return list(range(len(found)))
    missing = [name for name in encoder.config.channels if name not in found]
    if missing:
        raise UserError(
            f"{where}: no channel {missing[0]!r}, found {list(found)}, "
            f"wanted those of the encoder: {list(encoder.config.channels)}"
        )
    return [found.index(name) for name in encoder.config.channels]


def unlike_pixels(encoder: Encoder, facts: Mapping[str, Any], where: Path) -> str | None:
    """Tell how a screen's pixels differ from those that an encoder was trained on, if known."""
    known = encoder.config.pixels
    if not known or not facts or facts in known:
        return None
    return f"{where}: pixels {facts}, the encoder was trained on {known}"


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``embed_wells``."""
    files, knobs = parse_step(
        WellsKnobs,
        inputs=["wells", "images", "pixels", "model", "config"],
        outputs=["embeddings"],
        names=["screen", "encoder", "experiment"],
        doc=__doc__,
        argv=argv,
    )
    encoder = load_encoder(files.model.parent)
    wells, images = read_wells(files.wells), read_images(files.images)
    places = channel_places(encoder, pixel_channels(files.pixels), files.pixels)
    pixels, config = open_pixels(files.pixels), encoder.config
    if told := unlike_pixels(encoder, pixel_facts(files.pixels), files.pixels):
        print(f"warning: {told}", file=sys.stderr)
    ring = knobs.leave_out_ring
    try:
        crops = crops_a_well(images, pixels, config.crop, leave_out_ring=ring)
    except UserError as error:
        raise UserError(f"{files.pixels}: {error}, wanted by encoder {files.encoder}") from None
    with one_device() as device:
        passes = Passes(encoder.to(device), knobs)
        with embeddings_writer(
            files.embeddings,
            wells["well_id"].to_list(),
            block_numbers=passes.kept.numbers,
            block_dims=passes.kept.dims,
            dtype=knobs.dtype,
            stamp=files.stamp,
            attributes={
                "encoder": files.stamp["inputs"]["model"][0],
                "pooling": config.pooling,
                "crop": config.crop,
                "crops_a_well": crops,
                "trimmed": config.best_block is not None,
            },
            site_rows=sites_of(wells, images).rows.tolist() if knobs.sites else None,
            site_dtype=knobs.sites or knobs.dtype,
        ) as writer:
            keep = writer.sites.append if writer.sites is not None else None
            for row, x_BD in embed_wells(passes, wells, images, pixels, places, knobs, keep):
                writer.put(row, x_BD)
    print(
        f"{files.experiment}: {wells.height} wells on {device}, passes of {passes.batch} crops"
    )


if __name__ == "__main__":
    run_step(main)
