"""Read one experiment of a screen that comes as a table of image files."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.errors import UserError
from phenopipe.formats.bit_depth import Limits
from phenopipe.formats.images import write_images, write_pixels
from phenopipe.formats.in_place import PLATE, write_in_place
from phenopipe.formats.tables import Stamp
from phenopipe.formats.wells import write_wells
from phenopipe.knobs import parse_step, run_step
from phenopipe.screen.adapters import ADAPTERS
from phenopipe.screen.columns import read_rows, select_rows
from phenopipe.screen.config import ImagesKnobs
from phenopipe.screen.decoder import Decoder, look_at_all
from phenopipe.screen.layouts import Experiment, list_experiment
from phenopipe.screen.sites import (
    Format,
    files_of_rows,
    list_images,
    usual_format,
)
from phenopipe.screen.user_wells import one_row_a_well, wells_of_rows


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
    return Experiment(wells, files.sort(at, "site", maintain_order=True), [], None)


def list_source(
    tables: Sequence[Path], knobs: ImagesKnobs, root: Path, *, screen: str, experiment: str
) -> Experiment:
    """Wells of one experiment and the files of its sites, from a table or a public layout."""
    names = {"screen": screen, "experiment": experiment}
    if knobs.source in (None, "images"):
        return list_table(read_rows(tables), knobs, root, **names)
    listed = ADAPTERS[str(knobs.source)].read(tables, root, knobs, experiment)
    return list_experiment(listed, knobs, root, **names)


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
    is set aside: its ``index`` is null, and one line tells what was found. Where files are
    read in place, damage that headers do not show is found by who reads them.
    """
    wells, files, told, size = list_source(
        tables, knobs, root, screen=screen, experiment=experiment
    )
    found = look_at_all(files, root)
    usual = usual_format(found, knobs, experiment)
    images, faults = list_images(files, found, knobs.channels, usual)
    check_share(images, knobs.max_unreadable, experiment, faults[0] if faults else "")
    decoder = Decoder(wells, files, images, knobs, root, usual)
    limits = decoder.limits()
    facts = facts_of_pixels(knobs, size, limits)
    if knobs.decode == "in_place":
        write_in_place(
            pixels,
            _planes(decoder, knobs),
            root=root,
            size=(usual.height, usual.width),
            dtype=usual.dtype,
            limits=limits,
            channels=knobs.channels,
            facts=facts,
            stamp=stamp,
        )
    else:
        _write_decoded(pixels, decoder, images, usual, knobs, facts, stamp, experiment)
    places = dict(files.select("image_id", "place").iter_rows())
    for name, fault in sorted(decoder.faults.items()):
        faults.append(f"{places[name]}: {name} set aside: {fault}")
    for line in told + faults:
        print(f"warning: {line}", file=sys.stderr)
    return wells, without_damaged(images, decoder.faults)


def facts_of_pixels(
    knobs: ImagesKnobs, pixel_size_um: float | None, limits: Limits | None
) -> dict[str, Any]:
    """Tell what stored pixels are: how they were scaled, how large they are; if known."""
    size = knobs.pixel_size_um or pixel_size_um
    pixels: dict[str, Any] = {} if size is None else {"pixel_size_um": size}
    if limits is None:
        return {"pixels": pixels} if pixels else {}
    assert knobs.scaling is not None
    return {"pixels": {**pixels, **knobs.scaling.facts()}, "limits": limits}


def _planes(decoder: Decoder, knobs: ImagesKnobs) -> pl.DataFrame:
    """Plate and references of every stored site, for reading in place."""
    rows = [(decoder.plate_of[name], *files) for name, files in decoder.planes.items()]
    schema = dict.fromkeys([PLATE, *knobs.channels], pl.String)
    return pl.DataFrame(rows, schema=schema, orient="row")


def _write_decoded(
    pixels: Path,
    decoder: Decoder,
    images: pl.DataFrame,
    usual: Format,
    knobs: ImagesKnobs,
    facts: dict[str, Any],
    stamp: Stamp,
    experiment: str,
) -> None:
    def sites() -> Iterator[NDArray[np.integer]]:
        yield from decoder.sites(facts.get("limits"))
        # Raised here, it keeps the writer from finishing the store.
        check_share(
            without_damaged(images, decoder.faults),
            knobs.max_unreadable,
            experiment,
            min(decoder.faults.values(), default=""),
        )

    write_pixels(
        pixels,
        sites(),
        shape=(len(decoder.planes), len(knobs.channels), usual.height, usual.width),
        channels=knobs.channels,
        dtype="uint8" if "limits" in facts else usual.dtype,
        facts=facts,
        stamp=stamp,
    )


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
