"""Pixels of the sites that can be stored: decoded by threads, scaled, ahead of their writer."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.errors import UserError
from phenopipe.formats.bit_depth import Limits, Tables, lookups, to_8_bit
from phenopipe.formats.files import Files, Found
from phenopipe.screen.config import ImagesKnobs
from phenopipe.screen.scaling import Histogram, control_sites, fixed_limits
from phenopipe.screen.sites import FILE, Format, files_of_site
from phenopipe.threads import ahead, n_threads

# Sites decoded ahead of the writer, for each thread: enough to keep it fed, few enough
# that memory holds.
AHEAD = 4


def look_at_all(files: pl.DataFrame, root: Path) -> dict[str, Found]:
    """Read the header of every named file."""
    names = files[FILE].drop_nulls().unique(maintain_order=True).to_list()
    with ThreadPoolExecutor(n_threads()) as pool:
        return dict(zip(names, pool.map(Files(root).look, names), strict=True))


class Decoder:
    """Reads the stored sites of one experiment.

    Parameters
    ----------
    wells, files, images : DataFrame
        Wells and files of the experiment; images as
        :func:`phenopipe.screen.sites.list_images` returns them.
    knobs : ImagesKnobs
        Channels, scaling.
    root : Path
        Folder that files start from.
    usual : Format
        Size and type of a stored site, in its files.

    Attributes
    ----------
    faults : dict of str to str
        Sites whose file turned out to be damaged; their row of pixels is left black.
    plate_of : dict of str to str
        Plate of each stored site.
    """

    def __init__(
        self,
        wells: pl.DataFrame,
        files: pl.DataFrame,
        images: pl.DataFrame,
        knobs: ImagesKnobs,
        root: Path,
        usual: Format,
    ) -> None:
        self._wells, self._knobs, self._usual = wells, knobs, usual
        self._images = images.filter(pl.col("index").is_not_null())
        self._files = Files(root)
        own = files.filter(pl.col("image_id").is_in(self._images["image_id"].implode()))
        self.planes = dict(files_of_site(own, knobs.channels))
        plates = self._images.join(wells.select("well_id", "plate"), on="well_id")
        self.plate_of = dict(plates.select("image_id", "plate").iter_rows())
        self.faults: dict[str, str] = {}

    def limits(self) -> Limits | None:
        """Values that become 0 and 255 on every plate; None if pixels stay as they are."""
        scaling, channels = self._knobs.scaling, self._knobs.channels
        if scaling is None or scaling.method == "none" or self._usual.dtype != "uint16":
            return None
        if scaling.method == "range":
            return fixed_limits(scaling, sorted(set(self.plate_of.values())), channels)
        found = {}
        for plate, sites in control_sites(self._wells, self._images, scaling).items():
            counted = Histogram(len(channels))
            for name, pixels in zip(sites, self._decoded(sites), strict=True):
                if name not in self.faults:
                    counted.add(pixels)
            pairs = counted.limits(scaling.percentiles)
            found[plate] = dict(zip(channels, pairs, strict=True))
        return found

    def sites(self, limits: Limits | None) -> Iterator[NDArray[np.integer]]:
        """Yield each stored site in order, as an array of shape (channels, height, width)."""
        tables = None if limits is None else lookups(limits, self._knobs.channels)
        yield from self._decoded(self.planes, tables)

    def _decoded(
        self, sites: Iterable[str], tables: Tables | None = None
    ) -> Iterator[NDArray[np.integer]]:
        """Yield sites in order, each only until the next is asked for: its memory is reused."""
        size = (self._usual.height, self._usual.width)
        shape = (len(self._knobs.channels), *size)
        free: SimpleQueue[NDArray[np.integer]] = SimpleQueue()

        def one(image_id: str) -> NDArray[np.integer]:
            try:
                pixels = free.get_nowait()
            except Empty:
                pixels = np.empty(shape, dtype=self._usual.dtype)
            self._site(image_id, pixels)
            if tables is None:
                return pixels
            scaled = to_8_bit(pixels, tables[self.plate_of[image_id]])
            free.put(pixels)
            return scaled

        for pixels in ahead(one, sites, n_threads(), each=AHEAD):
            yield pixels
            if tables is None:
                free.put(pixels)

    def _site(self, image_id: str, pixels_CHW: NDArray[np.integer]) -> None:
        for plane_HW, file in zip(pixels_CHW, self.planes[image_id], strict=True):
            try:
                self._files.decode(file, plane_HW)
                if self._knobs.blank_is_damaged and not plane_HW.any():
                    raise UserError(f"{file}: all its pixels are 0")
            except UserError as error:
                self.faults[image_id] = str(error)
                pixels_CHW[:] = 0
                break
