"""Small pictures of sites: all channels in one colour image, as a PNG data URI.

Shape suffixes: C channels, H height, W width.
"""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import imagecodecs
import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.formats.images import IMAGES, open_pixels, pixel_channels
from phenopipe.formats.names import names_of
from phenopipe.formats.tables import read_table

# One colour a channel; names that biologists colour by habit come first, then a wheel.
BY_NAME = {
    "dna": (0.25, 0.45, 1.0), "hoechst": (0.25, 0.45, 1.0), "dapi": (0.25, 0.45, 1.0),
    "er": (0.2, 0.95, 0.5), "gfp": (0.2, 0.95, 0.5), "fkhr": (0.2, 0.95, 0.5),
    "actin": (1.0, 0.35, 0.25), "agp": (1.0, 0.35, 0.25), "rna": (0.95, 0.85, 0.3),
    "mito": (1.0, 0.35, 0.9), "golgi": (0.3, 0.9, 0.95),
}  # fmt: skip
WHEEL = tuple(dict.fromkeys(BY_NAME.values()))
LOW, HIGH = 10.0, 99.7


def channel_colours(channels: Sequence[str]) -> NDArray[np.float64]:
    """Colour of each channel, of shape (n_channels, 3), from 0 to 1; a single one is white."""
    if len(channels) == 1:
        return np.ones((1, 3))
    chosen: dict[str, tuple[float, ...]] = {}
    # Known names choose first, so that no other channel takes a familiar colour away.
    for name in channels:
        rgb = _habit(name)
        if rgb is not None and rgb not in chosen.values():
            chosen[name] = rgb
    for name in channels:
        free = [rgb for rgb in WHEEL if rgb not in chosen.values()]
        chosen.setdefault(name, (free or list(WHEEL))[0])
    return np.array([chosen[name] for name in channels])


def _habit(name: str) -> tuple[float, ...] | None:
    """Colour that a channel of this name usually has."""
    return next((rgb for word, rgb in BY_NAME.items() if word in name.lower()), None)


def contrast(
    sites: Sequence[NDArray[np.number]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Grey values of each channel, over all given sites, that become black and bright."""
    flat = np.concatenate([site.reshape(len(site), -1)[:, ::7] for site in sites], axis=1)
    low_C, high_C = np.percentile(flat, [LOW, HIGH], axis=1)
    return low_C, np.maximum(high_C, low_C + 1)


def compose(
    site_CHW: NDArray[np.number],
    low_C: NDArray[np.float64],
    high_C: NDArray[np.float64],
    colour_C3: NDArray[np.float64],
) -> NDArray[np.uint8]:
    """Lay the channels of one site over one another, to an image of shape (H, W, 3).

    Notes
    -----
    Each channel has its colour and the brightest one shows: six channels added up would be
    white wherever there is a cell.
    """
    scaled_CHW = (site_CHW - low_C[:, None, None]) / (high_C - low_C)[:, None, None]
    bright_CHW = np.clip(scaled_CHW, 0, 1)
    mixed_HW3 = (bright_CHW[..., None] * colour_C3[:, None, None, :]).max(axis=0)
    image: NDArray[np.uint8] = (255 * np.clip(mixed_HW3, 0, 1)).astype(np.uint8)
    return image


def shrink(site_CHW: NDArray[np.number], size: int) -> NDArray[np.float64]:
    """Cut the middle square of a site and average it down to at most ``size`` pixels."""
    side = min(site_CHW.shape[1:])
    top, left = ((length - side) // 2 for length in site_CHW.shape[1:])
    square = site_CHW[:, top : top + side, left : left + side]
    step = max(1, -(-side // size))
    side = side // step * step
    blocks = square[:, :side, :side].reshape(
        len(square), side // step, step, side // step, step
    )
    return np.asarray(blocks.mean(axis=(2, 4)), dtype=np.float64)


def data_uri(image: NDArray[np.uint8]) -> str:
    """Write a grey or colour image as a PNG that stands in the page itself."""
    png = imagecodecs.png_encode(np.ascontiguousarray(image), level=9)
    return "data:image/png;base64," + base64.b64encode(png).decode()


class Album:
    """The sites of a run, found by well.

    Parameters
    ----------
    images, pixels : list of Path
        Images tables and pixel stores of all experiments.
    size : int
        Width of a picture in pixels.
    """

    def __init__(self, images: Sequence[Path], pixels: Sequence[Path], size: int) -> None:
        self.size = size
        self._images = {_experiment(path): path for path in images}
        self._pixels = {_experiment(path): path for path in pixels}

    def pictures(self, wells: pl.DataFrame, labels: Sequence[str]) -> list[tuple[str, str]]:
        """Picture the first site of each well, with one contrast for each screen.

        Parameters
        ----------
        wells : DataFrame
            ``screen, experiment, well_id``; wells without stored pixels are left out.
        labels : list of str
            What to write under each.
        """
        found: list[tuple[str, str, NDArray[np.float64], list[str]]] = []
        for row, label in zip(wells.iter_rows(named=True), labels, strict=True):
            site = self._site(row["screen"], row["experiment"], row["well_id"])
            if site is not None:
                found.append((row["screen"], label, *site))
        limits: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
        for screen in {screen for screen, *_ in found}:
            limits[screen] = contrast([site for other, _, site, _ in found if other == screen])
        return [
            (data_uri(compose(site, *limits[screen], channel_colours(channels))), label)
            for screen, label, site, channels in found
        ]

    def channels(self, wells: pl.DataFrame) -> list[tuple[str, str]]:
        """Picture the channels of the first well of each screen, one by one, in grey."""
        pictures = []
        firsts = wells.unique("screen", maintain_order=True) if wells.height else wells
        for row in firsts.iter_rows(named=True):
            found = self._site(row["screen"], row["experiment"], row["well_id"])
            if found is None:
                continue
            site, names = found
            low_C, high_C = contrast([site])
            for at, name in enumerate(names):
                part = slice(at, at + 1)
                image = compose(site[part], low_C[part], high_C[part], np.ones((1, 3)))
                pictures.append((data_uri(image[..., 0]), f"{row['screen']}: {name}"))
        return pictures

    def _site(
        self, screen: str, experiment: str, well_id: str
    ) -> tuple[NDArray[np.float64], list[str]] | None:
        key = (screen, experiment)
        if key not in self._images or key not in self._pixels:
            return None
        images = read_table(self._images[key], IMAGES, columns=["well_id", "site", "index"])
        stored = images.filter(pl.col("well_id") == well_id, pl.col("index").is_not_null())
        if stored.is_empty():
            return None
        store = open_pixels(self._pixels[key])
        site = np.asarray(store[int(stored.sort("site")["index"][0])])
        return shrink(site, self.size), pixel_channels(self._pixels[key])


def _experiment(path: Path) -> tuple[str, str]:
    names: Mapping[str, str] = names_of(path)
    return names.get("screen", ""), names.get("experiment", "")
