"""JUMP-CP (cpg0016): tables of plates, wells and perturbations; 16-bit TIFFs, many microscopes.

    metadata/plate.csv.gz, well.csv.gz; crispr.csv.gz, orf.csv.gz, compound.csv.gz,
    perturbation_control.csv, microscope_config.csv where they are there
    source_13/workspace/load_data_csv/BATCH/PLATE/load_data_with_illum.csv
    source_13/images/BATCH/images/PLATE/...tif

A batch is an experiment. Which file holds which channel of which site stands in load_data
alone: each microscope names files in its own way.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from phenopipe.errors import UserError, reason
from phenopipe.formats.tables import read_any
from phenopipe.screen.columns import ROW, needed, read_rows, select_rows, text
from phenopipe.screen.config import ImagesKnobs
from phenopipe.screen.layouts import PLANES, Listed
from phenopipe.screen.rxrx3 import find_table

SOURCE, BATCH, PLATE = "Metadata_Source", "Metadata_Batch", "Metadata_Plate"
CODE, SYMBOL, CONTROL = "Metadata_JCP2022", "Metadata_Symbol", "Metadata_pert_type"
NEEDED = ("plate", "well")
KNOWN = ("crispr", "orf", "compound")
LOAD_DATA = ("load_data_with_illum", "load_data")
ENDS = (".csv", ".csv.gz", ".parquet")
# Perturbations are of one kind on a plate; types that are not listed are of compounds.
KIND_OF_TYPE = {"CRISPR": "CRISPR", "ORF": "ORF"}
# Control codes, for trees without perturbation_control.csv. Wells without a guide are told
# from non-targeting ones, which the table also calls negative controls.
CONTROLS = {
    "JCP2022_999999": "empty",
    "JCP2022_033924": "negcon",
    "JCP2022_800002": "negcon",
    "JCP2022_805264": "poscon",
}
NO_GUIDE = {"JCP2022_800001": "no-guide"}


def tables(folder: Path) -> list[Path]:
    """The tables of metadata that are there, those of plates and wells first."""
    home = folder / "metadata"
    listed = [find_table(home, _names(name)) for name in NEEDED]
    for name in (*KNOWN, "perturbation_control", "microscope_config"):
        listed += [home / one for one in _names(name) if (home / one).exists()][:1]
    return listed


def experiments(folder: Path) -> list[str]:
    """Batches of which at least one plate has its load_data."""
    plates = _as_text(read_rows(tables(folder)[:1]), SOURCE, BATCH, PLATE)
    there = [_load_data(folder, row) is not None for row in plates.iter_rows(named=True)]
    chosen = plates.filter(pl.Series(there, dtype=pl.Boolean))
    return needed(chosen, BATCH, key="experiments").unique().sort().to_list()


def read(given: Sequence[Path], folder: Path, knobs: ImagesKnobs, experiment: str) -> Listed:
    """One batch: its plates that have load_data, and their wells."""
    plates = read_rows(given[:1])
    where = {key: allowed for key, allowed in knobs.where.items() if key in plates.columns}
    named = {} if BATCH in where else {BATCH: (experiment,)}
    plates = _as_text(select_rows(plates, {**named, **where}), SOURCE, BATCH, PLATE)
    told: list[str] = []
    planes = []
    for row in plates.iter_rows(named=True):
        path = _load_data(folder, row)
        if path is None:
            told.append(f"plate {row[PLATE]}: no load_data of it is there, left out")
            continue
        planes.append(_planes_of(path, folder, row[SOURCE], told))
    if not planes:
        wanted = f"{_place(plates.row(0, named=True))}/{LOAD_DATA[0]}.csv"
        raise UserError(f"{experiment}: no plate has a load_data, wanted {wanted}")
    found = pl.concat(planes)
    here = plates.filter(pl.col(PLATE).is_in(found["plate"].unique().implode()))
    rest = {key: allowed for key, allowed in knobs.where.items() if key not in where}
    rows = select_rows(_wells(given, here), rest)
    return Listed(rows, found, told, pixel_size_um=_pixel_size(given, here))


def _wells(given: Sequence[Path], plates: pl.DataFrame) -> pl.DataFrame:
    """Rows about wells of some plates: kind, gene and word of control of each."""
    of_plate = plates.select(SOURCE, PLATE, BATCH, kind=_kind(plates))
    wells = _as_text(read_rows(given[1:2]), SOURCE, PLATE, "Metadata_Well", CODE)
    wells = wells.join(of_plate, on=[SOURCE, PLATE], maintain_order="left")
    control = _table(given, "perturbation_control")
    words = CONTROLS
    if control is not None:
        words = {**words, **dict(control.select(CODE, CONTROL).iter_rows())}
    of_code = {SYMBOL: (_symbols(given), None), CONTROL: ({**words, **NO_GUIDE}, "trt")}
    return wells.with_columns(
        pl.col(CODE).replace_strict(known, default=other, return_dtype=pl.String).alias(column)
        for column, (known, other) in of_code.items()
    )


def _kind(plates: pl.DataFrame) -> pl.Series:
    found = text(plates, "Metadata_PlateType", key="columns.treatments.0.kind").fill_null("")
    return found.replace_strict(KIND_OF_TYPE, default="COMPOUND", return_dtype=pl.String)


def _symbols(given: Sequence[Path]) -> dict[str, str]:
    """Gene of every knockout and open reading frame."""
    found: dict[str, str] = {}
    for name in ("crispr", "orf"):
        table = _table(given, name)
        if table is not None:
            found |= dict(table.select(CODE, SYMBOL).drop_nulls().iter_rows())
    return found


def _pixel_size(given: Sequence[Path], plates: pl.DataFrame) -> float | None:
    """Side of a pixel of the source's microscope, in micrometres, if all sources agree."""
    table = _table(given, "microscope_config")
    size = "Metadata_Pixel_Size_Microns"
    if table is None or not {SOURCE, size} <= set(table.columns):
        return None
    source = pl.format("source_{}", pl.col(SOURCE).cast(pl.String).str.strip_prefix("source_"))
    own = table.filter(source.is_in(plates[SOURCE].unique().implode()))[size].unique()
    return float(own[0]) if len(own) == 1 else None


def _planes_of(path: Path, folder: Path, source: str, told: list[str]) -> pl.DataFrame:
    """Files of all channels of the sites of one plate, as its load_data maps them."""
    relative = path.relative_to(folder).as_posix()
    empty = pl.DataFrame(schema=PLANES)
    try:
        rows = read_rows([path])
        plate = needed(rows, PLATE, key="load_data")
        well = needed(rows, "Metadata_Well", key="load_data")
        site = needed(rows, "Metadata_Site", key="load_data").cast(pl.Int32)
        files = {name: _file(rows, name) for name in _channels(rows)}
    except (UserError, pl.exceptions.PolarsError) as error:
        told.append(f"{reason(error)}; plate left out")
        return empty
    if not files:
        told.append(f"{relative}: no column URL_Orig... or FileName_Orig...; plate left out")
        return empty
    place = pl.format(f"{relative}, row {{}}", pl.Series(rows[ROW]))
    common = pl.DataFrame({"plate": plate, "well": well, "site": site}).with_columns(
        place=pl.select(place).to_series()
    )
    return pl.concat(
        common.with_columns(channel=pl.lit(name), file=_local(file, source)).select(*PLANES)
        for name, file in files.items()
    )


def _channels(rows: pl.DataFrame) -> list[str]:
    starts = ("URL_Orig", "FileName_Orig")
    return list(
        dict.fromkeys(
            name.removeprefix(start)
            for start in starts
            for name in rows.columns
            if name.startswith(start)
        )
    )


def _file(rows: pl.DataFrame, channel: str) -> pl.Series:
    """Where a channel's file was, from its address or from its folder and name."""
    url = f"URL_Orig{channel}"
    if url in rows.columns:
        return text(rows, url, key="load_data")
    folder = text(rows, f"PathName_Orig{channel}", key="load_data").str.strip_suffix("/")
    return folder + "/" + text(rows, f"FileName_Orig{channel}", key="load_data")


def _local(file: pl.Series, source: str) -> pl.Series:
    """Paths under the folder: what follows the source's first folder of images."""
    after = file.str.extract("(?:^|/)images/(.*)$", 1)
    return (f"{source}/images/" + after).alias("file")


def _load_data(folder: Path, plate: dict[str, object]) -> Path | None:
    home = folder / _place(plate)
    names = [f"{name}{end}" for name in LOAD_DATA for end in ENDS]
    return next((home / name for name in names if (home / name).exists()), None)


def _place(plate: dict[str, object]) -> str:
    return f"{plate[SOURCE]}/workspace/load_data_csv/{plate[BATCH]}/{plate[PLATE]}"


def _as_text(rows: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """Rows with columns that tables are joined by as text: barcodes may look like numbers."""
    return rows.with_columns(
        text(rows, column, key="source jump").alias(column) for column in columns
    )


def _table(given: Sequence[Path], name: str) -> pl.DataFrame | None:
    """One of the tables that may be absent."""
    return next((read_any(path) for path in given if path.name.split(".")[0] == name), None)


def _names(name: str) -> list[str]:
    return [f"{name}{end}" for end in (".csv.gz", ".csv", ".parquet")]
