"""Step ``wells``: embed every well of one experiment at every block, in one pass.

Peak memory: the model, one batch of crops, the sites of the next batch, and the result
(n_wells x n_blocks x dim x 12 bytes); it does not grow with the number of sites.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from phenopipe.embed.config import WellsKnobs
from phenopipe.embed.crops import crop_corners, cut_crops
from phenopipe.encoders.base import Encoder
from phenopipe.encoders.folder import load_encoder
from phenopipe.errors import UserError
from phenopipe.formats.embeddings import write_embeddings
from phenopipe.formats.images import open_pixels, pixel_channels, read_images
from phenopipe.formats.wells import read_wells
from phenopipe.knobs import parse_step, run_step


def embed_wells(
    encoder: Encoder,
    wells: pl.DataFrame,
    images: pl.DataFrame,
    pixels: Any,  # noqa: ANN401 - a zarr array
    channels: Sequence[int],
    knobs: WellsKnobs,
) -> NDArray[np.float32]:
    """Average the embeddings of all crops of each well, at every block.

    Parameters
    ----------
    encoder : Encoder
        In evaluation mode.
    wells, images : DataFrame
        Wells in the order of the result, and their sites.
    pixels : zarr array of shape (n_sites, channels, height, width)
        Row ``index`` of the images table holds a site.
    channels : list of int
        Where the pixels hold each channel of the encoder.
    knobs : WellsKnobs
        Batch, precision, and which blocks to keep.

    Returns
    -------
    float32 array of shape (n_wells, n_blocks, dim)
        Rows of NaN for wells without a stored site.

    Raises
    ------
    UserError
        If the sites are smaller than a crop.
    """
    row_of = {well_id: row for row, well_id in enumerate(wells["well_id"])}
    stored = images.filter(pl.col("index").is_not_null()).sort("index")
    stored = stored.filter(pl.col("well_id").is_in(list(row_of)))
    kept = kept_blocks(encoder, knobs)
    shape = (len(row_of), len(kept), max(encoder.block_dims))
    total_WBD, count_W = np.zeros(shape), np.zeros(len(row_of))
    if stored.is_empty():
        return np.full(shape, np.nan, dtype=np.float32)
    height, width = pixels.shape[2:]
    crop, ring = encoder.config.crop, knobs.leave_out_ring
    corners = crop_corners(height, width, crop, leave_out_ring=ring)
    per_batch = max(1, knobs.batch // len(corners))
    rows = [row_of[well_id] for well_id in stored["well_id"]]
    batches = read_ahead(pixels, stored["index"].to_list(), per_batch)
    for first, sites_NCHW in batches:
        crops_NCHW = cut_crops(sites_NCHW[:, channels], corners, crop)
        x_NBD = _forward(encoder, crops_NCHW, knobs)[:, kept]
        x_SBD = x_NBD.reshape(len(sites_NCHW), len(corners), *shape[1:]).sum(axis=1)
        here = rows[first : first + len(sites_NCHW)]
        np.add.at(total_WBD, here, x_SBD)
        np.add.at(count_W, here, len(corners))
    count_W[count_W == 0] = np.nan
    return (total_WBD / count_W[:, None, None]).astype(np.float32)


def kept_blocks(encoder: Encoder, knobs: WellsKnobs) -> list[int]:
    """Positions of the blocks that are stored, from 0."""
    positions = list(range(len(encoder.block_dims)))
    return positions if knobs.blocks == "all" else positions[-1:]


def crops_a_well(images: pl.DataFrame, pixels: Any, crop: int, *, leave_out_ring: bool) -> int:  # noqa: ANN401
    """Crops that most wells with stored sites are the mean of; 0 where no site is stored."""
    stored = images.filter(pl.col("index").is_not_null())
    if stored.is_empty():
        return 0
    sites = int(stored.group_by("well_id").len()["len"].mode().to_numpy().max())
    height, width = pixels.shape[2:]
    return sites * len(crop_corners(height, width, crop, leave_out_ring=leave_out_ring))


def read_ahead(
    pixels: Any,  # noqa: ANN401 - a zarr array
    indices: Sequence[int],
    size: int,
) -> Iterator[tuple[int, NDArray[np.integer]]]:
    """Yield sites in batches, reading the next while the last is worked on."""

    def read(first: int) -> NDArray[np.integer]:
        wanted = indices[first : first + size]
        if wanted[-1] - wanted[0] + 1 == len(wanted):
            return np.asarray(pixels[wanted[0] : wanted[-1] + 1])
        return np.asarray(pixels.get_orthogonal_selection(np.asarray(wanted)))

    with ThreadPoolExecutor(max_workers=1) as reader:
        waiting = reader.submit(read, 0)
        for first in range(0, len(indices), size):
            sites_NCHW = waiting.result()
            if first + size < len(indices):
                waiting = reader.submit(read, first + size)
            yield first, sites_NCHW


def channel_places(encoder: Encoder, found: Sequence[str], where: Path) -> list[int]:
    """Find each of the encoder's channels, by name, among those of a pixel store.

    Raises
    ------
    UserError
        If the screen lacks a channel of the encoder.
    """
    if encoder.config.kind == "ca_mae":
        # Takes whatever channels there are: its weights are the same for all.
        return list(range(len(found)))
    missing = [name for name in encoder.config.channels if name not in found]
    if missing:
        raise UserError(
            f"{where}: no channel {missing[0]!r}, found {list(found)}, "
            f"wanted those of the encoder: {list(encoder.config.channels)}"
        )
    return [found.index(name) for name in encoder.config.channels]


def _forward(
    encoder: Encoder, crops_NCHW: NDArray[np.integer], knobs: WellsKnobs
) -> NDArray[np.float32]:
    device = next(encoder.parameters(), torch.empty(0)).device
    parts = []
    for start in range(0, len(crops_NCHW), knobs.batch):
        batch = torch.from_numpy(crops_NCHW[start : start + knobs.batch]).to(device)
        bfloat16 = knobs.precision == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            parts.append(encoder.forward_blocks(batch).float().cpu().numpy())
    return np.concatenate(parts)


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
    encoder.to("cuda" if torch.cuda.is_available() else "cpu")
    wells, images = read_wells(files.wells), read_images(files.images)
    places = channel_places(encoder, pixel_channels(files.pixels), files.pixels)
    pixels, config = open_pixels(files.pixels), encoder.config
    try:
        x_WBD = embed_wells(encoder, wells, images, pixels, places, knobs)
    except UserError as error:
        raise UserError(f"{files.pixels}: {error}, wanted by encoder {files.encoder}") from None
    kept = kept_blocks(encoder, knobs)
    crops = crops_a_well(images, pixels, config.crop, leave_out_ring=knobs.leave_out_ring)
    write_embeddings(
        files.embeddings,
        x_WBD.astype(knobs.dtype),
        wells["well_id"].to_list(),
        block_numbers=[encoder.block_numbers[at] for at in kept],
        block_dims=[encoder.block_dims[at] for at in kept],
        stamp=files.stamp,
        attributes={
            "encoder": files.stamp["inputs"]["model"][0],
            "pooling": config.pooling,
            "crop": config.crop,
            "crops_a_well": crops,
            "trimmed": config.best_block is not None,
        },
    )


if __name__ == "__main__":
    run_step(main)
