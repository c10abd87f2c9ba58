"""What a screen looks like as a whole, from a first pass over its experiments.

One experiment after another is reduced to counts and digests, so that a screen of any
size fits: eight bytes an image and a well.
"""

from collections.abc import Iterable
from typing import NamedTuple

import polars as pl

Tables = tuple[pl.DataFrame, pl.DataFrame]
FORMAT = ("height", "width", "channels")
PAIRED_BY = ("layout", "cell_type")


class Survey(NamedTuple):
    """What defects of one experiment are judged by that others decide.

    Attributes
    ----------
    usual : tuple of int
        Height, width and channels of most readable images; None without images.
    repeated_wells, repeated_images : Series
        Digests of well ids, and of the files of an image, that occur more than once.
    experiments_of : dict
        For each layout and cell type, the experiments that have it.
    n : dict of str to int
        Images, wells, plates and experiments of the screen.
    """

    usual: tuple[int, int, int] | None
    repeated_wells: pl.Series
    repeated_images: pl.Series
    experiments_of: dict[tuple[str, str], set[str]]
    n: dict[str, int]


def survey(experiments: Iterable[Tables]) -> Survey:
    """Look at every experiment once.

    Parameters
    ----------
    experiments : iterable of (wells, images)
        Tables of the screen stage, one pair an experiment.
    """
    formats, well_digests, image_digests = [], [], []
    layouts: dict[tuple[str, str], set[str]] = {}
    n = dict.fromkeys(("image", "well", "plate", "experiment"), 0)
    for wells, images in experiments:
        formats.append(images.filter(pl.col("height") > 0).group_by(FORMAT).len())
        well_digests.append(digests(wells["well_id"]))
        image_digests.append(digests(images["uri"].drop_nulls()))
        for experiment, *key in wells.select("experiment", *PAIRED_BY).unique().rows():
            layouts.setdefault((key[0], key[1]), set()).add(experiment)
        n["image"] += images.height
        n["well"] += wells.height
        n["plate"] += wells["plate"].n_unique()
        n["experiment"] += 1
    return Survey(
        _most_frequent(formats), _repeated(well_digests), _repeated(image_digests), layouts, n
    )


def digests(names: pl.Series) -> pl.Series:
    """Digest names to eight bytes each; comparable within one run of the step only."""
    return names.hash(seed=0)


def without_pair(wells: pl.DataFrame, found: Survey) -> bool:
    """Whether no other experiment shares a layout with this one in one cell type."""
    own = set(wells["experiment"])
    keys = wells.select(PAIRED_BY).unique().rows()
    return not any(found.experiments_of[key] - own for key in keys)


def _most_frequent(formats: list[pl.DataFrame]) -> tuple[int, int, int] | None:
    """Most frequent format of the screen; of several the largest."""
    counts = pl.concat(formats).group_by(FORMAT).agg(pl.col("len").sum())
    if counts.is_empty():
        return None
    height, width, channels, _ = counts.sort("len", *FORMAT, descending=True).row(0)
    return height, width, channels


def _repeated(parts: list[pl.Series]) -> pl.Series:
    every = pl.concat(parts)
    return every.filter(every.is_duplicated()).unique()
