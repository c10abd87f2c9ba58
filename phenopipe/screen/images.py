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
from phenopipe.formats.files import Files, Found
from phenopipe.formats.images import write_images, write_pixels
from phenopipe.formats.tables import Stamp
from phenopipe.formats.wells import write_wells
from phenopipe.knobs import parse_step, run_step
from phenopipe.screen.adapters import ADAPTERS
from phenopipe.screen.columns import read_rows, select_rows
from phenopipe.screen.config import ImagesKnobs
from phenopipe.screen.layouts import Experiment, list_experiment
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


def list_table(
    rows: pl.DataFrame, knobs: ImagesKnobs, root: Path, *, screen: str, experiment: str
) -> Experiment:
    """Wells of one experiment of the user's table, and the files of its sites.

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
    return Experiment(wells, files.sort(at, "site", maintain_order=True), [])


def list_source(
    tables: Sequence[Path], knobs: ImagesKnobs, root: Path, *, screen: str, experiment: str
) -> Experiment:
    """Wells of one experiment and the files of its sites, from a table or a public layout."""
    names = {"screen": screen, "experiment": experiment}
    if knobs.source in (None, "images"):
        return list_table(read_rows(tables), knobs, root, **names)
    listed = ADAPTERS[str(knobs.source)].read(tables, root, knobs, experiment)
    return list_experiment(listed, knobs, root, **names)


def look_at_all(files: pl.DataFrame, root: Path) -> dict[str, Found]:
    """Read the header of every named file."""
    names = files[FILE].drop_nulls().unique(maintain_order=True).to_list()
    with ThreadPoolExecutor(_threads()) as pool:
        return dict(zip(names, pool.map(Files(root).look, names), strict=True))


class Decoder:
    """Pixels of the sites that can be stored, decoded by threads ahead of the writer.

    Attributes
    ----------
    faults : dict of str to str
        Sites whose file turned out to be damaged; their row of pixels is left black.
    """

    def __init__(
        self, files: pl.DataFrame, images: pl.DataFrame, knobs: ImagesKnobs, root: Path
    ) -> None:
        stored = images.filter(pl.col("index").is_not_null())["image_id"]
        self._listed = files.filter(pl.col("image_id").is_in(stored.implode()))
        self._knobs = knobs
        self._files = Files(root)
        self.faults: dict[str, str] = {}

    def sites(self, usual: Format) -> Iterator[NDArray[np.integer]]:
        """Yield each site as an array of shape (channels, height, width)."""
        shape = (len(self._knobs.channels), usual.height, usual.width)

        def site(named: tuple[str, list[str]]) -> NDArray[np.integer]:
            image_id, files = named
            pixels = np.zeros(shape, dtype=usual.dtype)
            for at, file in enumerate(files):
                try:
                    pixels[at] = self._plane(file, shape[1:])
                except UserError as error:
                    self.faults[image_id] = str(error)
                    pixels[:] = 0
                    break
            return pixels

        with ThreadPoolExecutor(_threads()) as pool:
            yield from _ahead(pool, site, files_of_site(self._listed, self._knobs.channels))

    def _plane(self, file: str, shape: tuple[int, int]) -> NDArray[np.integer]:
        plane = self._files.decode(file, shape)
        if self._knobs.blank_is_damaged and not plane.any():
            raise UserError(f"{file}: all its pixels are 0")
        return plane


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
    tables: Sequence[Path],
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
    wells, files, told = list_source(tables, knobs, root, screen=screen, experiment=experiment)
    found = look_at_all(files, root)
    usual = usual_format(found, knobs, experiment)
    images, faults = list_images(files, found, knobs.channels, usual)
    check_share(images, knobs.max_unreadable, experiment, faults[0] if faults else "")
    decoder = Decoder(files, images, knobs, root)
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
    for line in told + faults:
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
    root = Path(knobs.root) if knobs.root is not None else files.table[0].parent
    wells, images = convert(
        files.table,
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
