"""Read one experiment of a screen that comes as a table of image files."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.errors import UserError
from phenopipe.formats.images import write_images, write_pixels
from phenopipe.formats.tables import Stamp
from phenopipe.formats.wells import write_wells
from phenopipe.knobs import parse_step, run_step
from phenopipe.screen.columns import read_rows, select_rows
from phenopipe.screen.config import ImagesKnobs
from phenopipe.screen.pixels import Found, decode, inside, look
from phenopipe.screen.sites import (
    FILE,
    Format,
    files_of_rows,
    files_of_site,
    list_images,
    usual_format,
)
from phenopipe.screen.user_wells import one_row_a_well, wells_of_rows

A = TypeVar("A")
B = TypeVar("B")
# Sites decoded ahead of the writer, for each thread: enough to keep it fed, few enough
# that memory holds.
AHEAD = 4


def list_screen(
    rows: pl.DataFrame, knobs: ImagesKnobs, root: Path, *, screen: str, experiment: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Wells of one experiment, and the files of its sites.

    Returns
    -------
    wells : DataFrame
        Wells format.
    files : DataFrame
        As :func:`phenopipe.screen.sites.files_of_rows` returns them, in the order of wells.

    Raises
    ------
    UserError
        If the table lacks something; the line names the table and the row.
    """
    chosen = select_rows(rows, knobs.where)
    wells_of_row = wells_of_rows(chosen, knobs, screen=screen, experiment=experiment)
    wells = one_row_a_well(wells_of_row, chosen)
    files = files_of_rows(chosen, wells_of_row["well_id"], knobs, root)
    if not files.height:
        raise UserError(f"{experiment}: no row has one of the channels {knobs.channels}")
    order = {well_id: at for at, well_id in enumerate(wells["well_id"])}
    at = pl.col("well_id").replace_strict(order, return_dtype=pl.Int64)
    return wells, files.sort(at, "site", maintain_order=True)


def look_at_all(files: pl.DataFrame, root: Path) -> dict[str, Found]:
    """Read the header of every named file."""
    names = files[FILE].drop_nulls().unique(maintain_order=True).to_list()
    with ThreadPoolExecutor(_threads()) as pool:
        return dict(
            zip(names, pool.map(lambda name: look(inside(root, name)), names), strict=True)
        )


class Decoder:
    """Pixels of the sites that can be stored, decoded by threads ahead of the writer.

    Attributes
    ----------
    faults : dict of str to str
        Sites whose file turned out to be damaged; their row of pixels is left black.
    """

    def __init__(
        self, files: pl.DataFrame, images: pl.DataFrame, channels: Sequence[str], root: Path
    ) -> None:
        stored = images.filter(pl.col("index").is_not_null())["image_id"]
        self._files = files.filter(pl.col("image_id").is_in(stored.implode()))
        self._channels = channels
        self._root = root
        self.faults: dict[str, str] = {}

    def sites(self, usual: Format) -> Iterator[NDArray[np.integer]]:
        """Yield each site as an array of shape (channels, height, width)."""
        shape = (len(self._channels), usual.height, usual.width)

        def site(named: tuple[str, list[str]]) -> NDArray[np.integer]:
            image_id, files = named
            pixels = np.zeros(shape, dtype=usual.dtype)
            for at, file in enumerate(files):
                try:
                    pixels[at] = decode(inside(self._root, file), shape[1:])
                except UserError as error:
                    self.faults[image_id] = str(error)
                    pixels[:] = 0
                    break
            return pixels

        with ThreadPoolExecutor(_threads()) as pool:
            yield from _ahead(pool, site, files_of_site(self._files, self._channels))


def without_damaged(images: pl.DataFrame, damaged: Iterable[str]) -> pl.DataFrame:
    """Images with the sites set aside whose pixels could not be decoded."""
    bad = pl.col("image_id").is_in(list(damaged))
    none = pl.lit(None, dtype=pl.Int64)
    return images.with_columns(
        pl.when(bad).then(0).otherwise(pl.col("height")).cast(pl.Int32).alias("height"),
        pl.when(bad).then(0).otherwise(pl.col("width")).cast(pl.Int32).alias("width"),
        pl.when(bad).then(none).otherwise(pl.col("index")).alias("index"),
    )


def check_share(images: pl.DataFrame, max_unreadable: float, where: str, example: str) -> None:
    """Raise if more sites than permitted could not be read at all."""
    share = (images["height"] == 0).mean()
    if isinstance(share, float) and share > max_unreadable:
        n = int((images["height"] == 0).sum())
        raise UserError(
            f"{where}: {n} of {images.height} sites cannot be read, "
            f"wanted at most {max_unreadable:.0%} (max_unreadable); {example}"
        )


def convert(
    rows: pl.DataFrame,
    knobs: ImagesKnobs,
    root: Path,
    pixels: Path,
    stamp: Stamp,
    *,
    screen: str,
    experiment: str,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Write the pixels of one experiment; return its wells and images tables.

    A site of unusual size, channel count or pixel type, or with an absent or damaged file,
    is set aside: its ``index`` is null, and one line tells what was found.
    """
    wells, files = list_screen(rows, knobs, root, screen=screen, experiment=experiment)
    found = look_at_all(files, root)
    usual = usual_format(found, knobs, experiment)
    images, faults = list_images(files, found, knobs.channels, usual)
    check_share(images, knobs.max_unreadable, experiment, faults[0] if faults else "")
    decoder = Decoder(files, images, knobs.channels, root)
    shape = (int(images["index"].count()), len(knobs.channels), usual.height, usual.width)

    def sites() -> Iterator[NDArray[np.integer]]:
        yield from decoder.sites(usual)
        # Raised here, it keeps the writer from finishing the store.
        readable = without_damaged(images, decoder.faults)
        check_share(
            readable, knobs.max_unreadable, experiment, min(decoder.faults.values(), default="")
        )

    write_pixels(
        pixels,
        sites(),
        shape=shape,
        channels=knobs.channels,
        dtype=usual.dtype,
        stamp=stamp,
    )
    places = dict(files.select("image_id", "place").iter_rows())
    for name, fault in sorted(decoder.faults.items()):
        faults.append(f"{places[name]}: {name} set aside: {fault}")
    for line in faults:
        print(f"warning: {line}", file=sys.stderr)
    return wells, without_damaged(images, decoder.faults)


def _threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", len(os.sched_getaffinity(0))))


def _ahead(pool: ThreadPoolExecutor, work: Callable[[A], B], todo: Iterable[A]) -> Iterator[B]:
    """Results in order, with a bounded number of them computed ahead."""
    running: deque[Future[B]] = deque()
    for one in todo:
        running.append(pool.submit(work, one))
        if len(running) > AHEAD * _threads():
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


def main(argv: Sequence[str] | None = None) -> None:
    """Run the step from the command line."""
    files, knobs = parse_step(
        ImagesKnobs,
        inputs=["table*"],
        outputs=["wells", "images", "pixels"],
        names=["screen", "experiment"],
        doc=__doc__,
        argv=argv,
    )
    rows = read_rows(files.table)
    root = Path(knobs.root) if knobs.root is not None else files.table[0].parent
    wells, images = convert(
        rows,
        knobs,
        root,
        files.pixels,
        files.stamp,
        screen=files.screen,
        experiment=files.experiment,
    )
    write_images(files.images, images, files.stamp)
    write_wells(files.wells, wells, files.stamp)
    print(f"{files.experiment}: {wells.height} wells, {images.height} sites")


if __name__ == "__main__":
    run_step(main)
