"""What all public layouts share: sound rows become wells, planes become files of sites.

An adapter (``rxrx1.py``, ``rxrx3_core.py`` ...) is a module with three functions:

``tables(folder)``
    Files under the folder of a screen that say what was done to which well.
``experiments(folder)``
    Names of the experiments that these tell of.
``read(tables, folder, knobs, experiment)``
    One experiment as :class:`Listed`.

A public layout is nobody's to mend. What the user's own table is refused for is left out here,
each fault told in one line, as long as it is a small part of the experiment.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from phenopipe.errors import UserError
from phenopipe.formats.files import inside
from phenopipe.formats.wells import KINDS, ROLES, parse_well, well_name
from phenopipe.screen.columns import place, select_rows, text
from phenopipe.screen.config import ImagesKnobs, TableKnobs
from phenopipe.screen.sites import CHANNEL, FILE
from phenopipe.screen.user_wells import one_row_a_well, wells_of_rows

WELL_KEY = ["plate", "well"]
PLANES = {
    "plate": pl.String,
    "well": pl.String,
    "site": pl.Int32,
    CHANNEL: pl.String,
    FILE: pl.String,
    "place": pl.String,
}


class Listed(NamedTuple):
    """One experiment as an adapter finds it.

    Attributes
    ----------
    rows : DataFrame
        Rows about wells, with the columns that the preset names, as
        :func:`phenopipe.screen.columns.read_rows` numbers them.
    planes : DataFrame
        Columns of ``PLANES``, one row a plane of pixels: ``channel`` in the layout's own
        words, ``file`` a reference (:mod:`phenopipe.formats.files`).
    told : list of str
        What the adapter left out, one line a fault.
    in_order : bool
        Whether planes must be read in the order in which they are listed.
    pixel_size_um : float or None
        Side of a pixel, if the layout says it.
    """

    rows: pl.DataFrame
    planes: pl.DataFrame
    told: list[str]
    in_order: bool = False
    pixel_size_um: float | None = None


class Experiment(NamedTuple):
    """Wells (wells format) and files of one experiment, what was left out, size of a pixel.

    Files are as :func:`phenopipe.screen.sites.files_of_rows` returns them.
    """

    wells: pl.DataFrame
    files: pl.DataFrame
    told: list[str]
    pixel_size_um: float | None


def list_experiment(
    listed: Listed, knobs: ImagesKnobs, root: Path, *, screen: str, experiment: str
) -> Experiment:
    """Wells of one experiment and the files of its sites, without what is not sound.

    Raises
    ------
    UserError
        If a column is absent, too many rows cannot be understood, or no image belongs to a
        well.
    """
    names = {"screen": screen, "experiment": experiment}
    wells, told = sound_wells(with_layouts(listed.rows, knobs), knobs, **names)
    files, unsound = _files_of_planes(listed.planes, wells, knobs, root)
    if not files.height:
        wanted = ", ".join(knobs.channels)
        raise UserError(f"{experiment}: no image of a known well, wanted one of {wanted}")
    wells, absent = _without_absent_plates(wells, files)
    if not listed.in_order:
        order = {well_id: at for at, well_id in enumerate(wells["well_id"])}
        at = pl.col("well_id").replace_strict(order, return_dtype=pl.Int64)
        files = files.sort(at, "site", maintain_order=True)
    every = [*listed.told, *told, *unsound, *absent]
    return Experiment(wells, files, every, listed.pixel_size_um)


def sound_wells(
    rows: pl.DataFrame, knobs: ImagesKnobs, *, screen: str, experiment: str
) -> tuple[pl.DataFrame, list[str]]:
    """Wells of the rows that can be understood and do not contradict each other.

    Returns
    -------
    wells : DataFrame
        Wells format.
    told : list of str
        One line for each kind of fault: the first row that has it, and how many do.

    Raises
    ------
    UserError
        If a column is absent, or more rows than ``max_unreadable`` have a fault.
    """
    fault = _faults(rows, knobs)
    counts = fault.drop_nulls().value_counts().sort("count", "fault", descending=True)
    told = [
        f"{place(rows.filter(fault == found))}: {found}; left out, {n} rows in all"
        for found, n in counts.iter_rows()
    ]
    _check_share(fault.count(), rows.height, knobs, experiment, told)
    sound = rows.filter(fault.is_null())
    every = wells_of_rows(sound, knobs, screen=screen, experiment=experiment)
    unlike = _contradicted(every)
    if len(unlike):
        first = str(unlike.sort()[0])
        at = every["well_id"].index_of(first) or 0
        told.append(
            f"{place(sound, at)}: rows of well {first} say different things about it; left "
            f"out, {len(unlike)} wells in all"
        )
        _check_share(len(unlike), every["well_id"].n_unique(), knobs, experiment, told)
        known = ~every["well_id"].is_in(unlike.implode())
        every, sound = every.filter(known), sound.filter(known)
    return one_row_a_well(every, sound), told


def with_layouts(rows: pl.DataFrame, knobs: TableKnobs) -> pl.DataFrame:
    """Rows with a column ``layout``: plates that hold the same at the same addresses share it.

    No public set lists which plates are technical pairs; their tables show it.
    """
    columns = knobs.columns
    if columns.layout != "layout" or "layout" in rows.columns:
        return rows
    told = [text(rows, columns.well, key="columns.well").alias("0")]
    for at, one in enumerate(columns.treatments):
        for key in ("perturbation", "concentration"):
            told.append(text(rows, getattr(one, key), key=f"columns.treatments.{at}.{key}"))
            told[-1] = told[-1].alias(f"{at}.{key}")
    said = pl.DataFrame(told).select(pl.concat_str(pl.all().fill_null(""), separator="\t"))
    plate = text(rows, columns.plate, key="columns.plate").fill_null("")
    by_plate = (
        pl.DataFrame({"plate": plate, "said": said.to_series()})
        .group_by("plate")
        .agg(pl.col("said").unique().sort().str.join("\n"))
    )
    digest = {
        name: sha256(said.encode()).hexdigest()[:12] for name, said in by_plate.iter_rows()
    }
    return rows.with_columns(plate.replace_strict(digest).alias("layout"))


def rows_of_experiment(
    rows: pl.DataFrame, column: str, knobs: ImagesKnobs, experiment: str
) -> pl.DataFrame:
    """Rows of one experiment: those that ``where`` chooses, else those that bear its name.

    Raises
    ------
    UserError
        If the column is absent or no row is left.
    """
    named = {} if column in knobs.where else {column: (experiment,)}
    return select_rows(rows, {**named, **knobs.where})


def _faults(rows: pl.DataFrame, knobs: TableKnobs) -> pl.Series:
    """What is wrong with each row; null where nothing is."""
    columns = knobs.columns
    plate = text(rows, columns.plate, key="columns.plate")
    well = text(rows, columns.well, key="columns.well")
    role = text(rows, columns.role, key="columns.role").fill_null("")
    tests: list[tuple[pl.Series, pl.Series | str]] = [
        (plate.is_null(), "no plate"),
        (~_are_addresses(well), "well address " + _shown(well)),
        (~role.is_in(_words(knobs.roles, ROLES)), "unknown role " + _shown(role)),
    ]
    for at, one in enumerate(columns.treatments):
        key = f"columns.treatments.{at}"
        perturbation = text(rows, one.perturbation, key=f"{key}.perturbation")
        treated = perturbation.is_not_null() & ~perturbation.is_in(knobs.untreated)
        kind = text(rows, one.kind, key=f"{key}.kind").fill_null("")
        unknown = treated & ~kind.is_in(_words(knobs.kinds, KINDS))
        tests.append((unknown, "unknown kind " + _shown(kind)))
        dose = text(rows, one.concentration, key=f"{key}.concentration")
        blank = dose.is_null() | dose.str.to_lowercase().is_in(["nan"])
        number = dose.cast(pl.Float64, strict=False)
        unread = treated & ~blank & number.is_null()
        tests.append((unread, "concentration " + _shown(dose) + ", wanted a number"))
    fault = pl.Series("fault", [None] * rows.height, dtype=pl.String)
    for wrong, told in reversed(tests):
        as_text = pl.Series([told] * rows.height) if isinstance(told, str) else told
        fault = as_text.zip_with(wrong, fault).alias("fault")
    return fault


def _words(listed: Mapping[str, Sequence[str]], allowed: Sequence[str]) -> list[str]:
    return [*allowed, *(word for words in listed.values() for word in words)]


def _shown(found: pl.Series) -> Any:  # noqa: ANN401 - a series; its sum with a text is one
    return "'" + found.fill_null("") + "'"


def _are_addresses(well: pl.Series) -> pl.Series:
    return well.fill_null("").str.to_uppercase().str.contains("^([A-Z]|A[A-F])[0-9]{1,2}$") & (
        ~well.fill_null("").str.contains("[A-Za-z]00?$")
    )


def _contradicted(wells: pl.DataFrame) -> pl.Series:
    """Wells of which two rows say different things."""
    told = pl.element().struct.json_encode()
    shown = wells.with_columns(pl.col("treatments").list.eval(told).list.join(" + "))
    counts = shown.group_by("well_id").agg(pl.exclude("well_id").n_unique())
    return counts.filter(pl.any_horizontal(pl.exclude("well_id") > 1))["well_id"]


def _check_share(
    n: int, of: int, knobs: ImagesKnobs, experiment: str, told: Sequence[str]
) -> None:
    if n > knobs.max_unreadable * of:
        raise UserError(
            f"{experiment}: {n} of {of} rows or wells cannot be understood, wanted at most "
            f"{knobs.max_unreadable:.0%} (max_unreadable); {told[0]}"
        )


def _files_of_planes(
    planes: pl.DataFrame, wells: pl.DataFrame, knobs: ImagesKnobs, root: Path
) -> tuple[pl.DataFrame, list[str]]:
    """Planes of known wells in the screen's channels, each once; and what was left out."""
    words = {word: name for name, listed in knobs.channel_words.items() for word in listed}
    named = planes.with_columns(
        pl.col(CHANNEL).replace(words), well=_house_addresses(planes["well"])
    ).filter(pl.col(CHANNEL).is_in(knobs.channels))
    if named.height < planes.height and not named.height:
        found = planes[CHANNEL].unique().sort().to_list()
        raise UserError(
            f"{root}: no channel {knobs.channels[0]!r}, found {found} (channels, channel_words)"
        )
    known = wells.select(*WELL_KEY, "well_id")
    files = named.join(known, on=WELL_KEY, how="left", maintain_order="left").with_columns(
        image_id=pl.concat_str("well_id", "site", separator="/")
    )
    told = []
    strange = files.filter(pl.col("well_id").is_null())
    if strange.height:
        n = strange.select(*WELL_KEY, "site").n_unique()
        told.append(f"{strange[FILE][0]}: of no well that is known; {n} sites left out")
    files = files.filter(pl.col("well_id").is_not_null())
    doubled = ~files.select(pl.struct("image_id", CHANNEL).is_first_distinct()).to_series()
    if doubled.any():
        first = files.filter(doubled).row(0, named=True)
        told.append(
            f"{first['place']}: site {first['image_id']}, channel {first[CHANNEL]} for the "
            f"second time; {doubled.sum()} left out"
        )
    files = files.filter(~doubled).select(
        "image_id", "well_id", pl.col("site").cast(pl.Int32), CHANNEL, FILE, "place"
    )
    named = files.select(pl.col(FILE).str.replace("#(row|plane)=.*$", ""), "place").drop_nulls()
    for file, where in named.unique(FILE, maintain_order=True).iter_rows():
        try:
            inside(root, file)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
    return files, told


def _house_addresses(wells: pl.Series) -> pl.Series:
    """Addresses as the wells format writes them; what is none stays as it is."""
    unique = wells.drop_nulls().unique()
    sound = unique.filter(_are_addresses(unique))
    return wells.replace({one: well_name(*parse_well(one)) for one in sound})


def _without_absent_plates(
    wells: pl.DataFrame, files: pl.DataFrame
) -> tuple[pl.DataFrame, list[str]]:
    """Leave out plates of which no image is there, such as those not downloaded."""
    there = wells["well_id"].is_in(files["well_id"].unique().implode())
    plates = wells.filter(there)["plate"].unique()
    absent = wells.filter(~pl.col("plate").is_in(plates.implode()))
    told = [
        f"plate {plate}: no image of its {n} wells is there, left out"
        for plate, n in absent.group_by("plate").len().sort("plate").iter_rows()
    ]
    return wells.filter(pl.col("plate").is_in(plates.implode())), told
