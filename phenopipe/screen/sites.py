"""Sites of a user's table: which files make the channels of each field of view."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from phenopipe.errors import UserError
from phenopipe.formats.files import Found, inside
from phenopipe.formats.images import IMAGES
from phenopipe.screen.columns import needed, number, place, text
from phenopipe.screen.config import ImagesKnobs

FILE = "file"
CHANNEL = "channel"


class Format(NamedTuple):
    """What all stored sites of an experiment share."""

    height: int
    width: int
    dtype: str


def files_of_rows(
    rows: pl.DataFrame, well_ids: pl.Series, knobs: ImagesKnobs, root: Path
) -> pl.DataFrame:
    """Files of every site and channel, one row each, checked to lie inside the root.

    Parameters
    ----------
    rows : DataFrame
        Rows of one experiment of the user's table.
    well_ids : Series
        Well of each row.
    knobs : ImagesKnobs
        Which columns name sites, channels and files.
    root : Path
        The folder that paths start from.

    Returns
    -------
    DataFrame
        ``image_id, well_id, site, channel, file, place``; a blank file is null.

    Raises
    ------
    UserError
        If a path leaves the root, a site is no number from 1, or two rows name one
        site and channel.
    """
    by_site = rows.select(
        well_ids.alias("well_id"),
        _site_numbers(rows, knobs),
        place=pl.Series([place(rows, at) for at in range(rows.height)], dtype=pl.String),
    ).with_columns(image_id=pl.concat_str("well_id", "site", separator="/"))
    if knobs.files:
        files = pl.concat(
            by_site.with_columns(
                pl.lit(name).alias(CHANNEL),
                text(rows, knobs.files[name], key=f"files.{name}").alias(FILE),
            )
            for name in knobs.channels
        )
    else:
        files = by_site.with_columns(
            _channels(rows, knobs), text(rows, knobs.file, key="file").alias(FILE)
        ).filter(pl.col(CHANNEL).is_in(knobs.channels))
    _check_once(files)
    for file, where in files.select(FILE, "place").drop_nulls().iter_rows():
        try:
            inside(root, file)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
    return files


def usual_format(found: Mapping[str, Found], knobs: ImagesKnobs, where: str) -> Format:
    """Size and type that most readable files have; the knobs' size comes first.

    Raises
    ------
    UserError
        If no file can be read.
    """
    readable = [one for one in found.values() if one.fault is None]
    if not readable:
        first = next((f"{path}: {one.fault}" for path, one in found.items()), "no file named")
        raise UserError(f"{where}: no image can be read ({first})")
    formats = pl.DataFrame(
        [(one.height, one.width, one.dtype) for one in readable],
        schema=["height", "width", "dtype"],
        orient="row",
    )
    counts = formats.group_by(pl.all()).len().sort("len", *formats.columns, descending=True)
    height, width, dtype, _ = counts.row(0)
    return Format(knobs.height or height, knobs.width or width, dtype)


def list_images(
    files: pl.DataFrame, found: Mapping[str, Found], channels: Sequence[str], usual: Format
) -> tuple[pl.DataFrame, list[str]]:
    """Images format with the row of each storable site, and what is wrong with the others.

    Parameters
    ----------
    files : DataFrame
        From :func:`files_of_rows`.
    found : mapping of str to Found
        What each file's header says.
    channels : list of str
        The screen's channels.
    usual : Format
        What a storable site must have.

    Returns
    -------
    images : DataFrame
        Images format. A site with an unreadable file has ``height`` and ``width`` 0.
    faults : list of str
        One line for each site that is set aside.
    """
    rows, faults, index = [], [], 0
    for (image_id,), site in files.group_by("image_id", maintain_order=True):
        height, width, planes, fault = _site_format(_look_up(site, found, channels), usual)
        stored = fault is None
        first = site.row(0, named=True)
        if fault is not None:
            faults.append(f"{first['place']}: {image_id} set aside: {fault}")
        named = dict(site.select(CHANNEL, FILE).iter_rows())
        uri = "|".join(named[name] for name in channels if named.get(name))
        name = (image_id, first["well_id"], first["site"])
        rows.append((*name, height, width, planes, index if stored else None, uri))
        index += stored
    schema = {name: dtype for name, (dtype, _) in IMAGES.columns.items()}
    return pl.DataFrame(rows, schema=schema, orient="row"), faults


def files_of_site(
    files: pl.DataFrame, channels: Sequence[str]
) -> Iterator[tuple[str, list[str]]]:
    """Each site's files in the order of the channels."""
    for (image_id,), site in files.group_by("image_id", maintain_order=True):
        by_channel = dict(site.select(CHANNEL, FILE).iter_rows())
        yield str(image_id), [by_channel[name] for name in channels]


def _look_up(
    site: pl.DataFrame, found: Mapping[str, Found], channels: Sequence[str]
) -> list[tuple[str, Found]]:
    """File of each channel and what its header says."""
    named = dict(site.select(CHANNEL, FILE).iter_rows())
    absent = Found(fault="no file named")
    return [
        (named[name], found[named[name]]) if named.get(name) else (f"channel {name}", absent)
        for name in channels
    ]


def _site_format(
    looked: Sequence[tuple[str, Found]], usual: Format
) -> tuple[int, int, int, str | None]:
    """Height, width and planes that a site turned out to have, and its fault if any."""
    planes = sum(one.planes for _, one in looked)
    for file, one in looked:
        if one.fault is None and one.dtype != usual.dtype:
            # No size of its own would flag it, so it counts as unreadable.
            one = one._replace(fault=f"pixels of {one.dtype}, wanted {usual.dtype}")
        if one.fault is not None:
            return 0, 0, planes, f"{file}: {one.fault}"
    for file, one in looked:
        if (one.height, one.width) != (usual.height, usual.width):
            wanted = f"{usual.height} x {usual.width}"
            fault = f"{file}: {one.height} x {one.width} pixels, wanted {wanted}"
            return one.height, one.width, planes, fault
    several = [file for file, one in looked if one.planes != 1]
    if several:
        fault = f"{several[0]}: {planes} channels, wanted {len(looked)} in all"
        return usual.height, usual.width, planes, fault
    return usual.height, usual.width, planes, None


def _site_numbers(rows: pl.DataFrame, knobs: ImagesKnobs) -> pl.Series:
    needed(rows, knobs.site, key="site")
    sites = number(rows, knobs.site, key="site")
    wrong = (sites % 1 != 0) | (sites < 0)
    if wrong.any():
        at = wrong.arg_max() or 0
        raise UserError(f"{place(rows, at)}: site {sites[at]}, wanted a whole number from 0")
    return sites.cast(pl.Int32).alias("site")


def _channels(rows: pl.DataFrame, knobs: ImagesKnobs) -> pl.Series:
    """House name of each row's channel; words that belong to no channel stay as they are."""
    assert knobs.channel is not None
    words = {word: name for name, listed in knobs.channel_words.items() for word in listed}
    return needed(rows, knobs.channel, key="channel").replace(words).alias(CHANNEL)


def _check_once(files: pl.DataFrame) -> None:
    doubled = files.filter(files.select("image_id", CHANNEL).is_duplicated())
    if doubled.height:
        first = doubled.row(0, named=True)
        same = doubled.filter(image_id=first["image_id"], channel=first[CHANNEL])["place"]
        raise UserError(
            f"{same[1]}: site {first['image_id']}, channel {first[CHANNEL]} is already in "
            f"{same[0]}, wanted one row"
        )
