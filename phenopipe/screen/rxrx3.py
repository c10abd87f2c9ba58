"""RxRx3: one 16-bit PNG a channel, one site a well of 1536, guides and compounds.

    metadata_rxrx3.csv    well_id, experiment_name, plate, address, gene, treatment, SMILES,
    (or metadata.csv)     concentration, perturbation_type, cell_type
    images/gene-001/Plate1/AF48_s1_w1.png

Images are published as one archive a plate: unpack each where its plate belongs.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from phenopipe.errors import UserError
from phenopipe.screen.columns import ROW, TABLE, needed, read_rows, text
from phenopipe.screen.config import ImagesKnobs
from phenopipe.screen.layouts import Listed, rows_of_experiment

EXPERIMENT = "experiment_name"
TABLES = ("metadata_rxrx3.csv", "metadata.csv")
CHANNELS = [str(number) for number in range(1, 7)]


def tables(folder: Path) -> list[Path]:
    """The table of wells."""
    return [find_table(folder, TABLES)]


def experiments(folder: Path) -> list[str]:
    """Experiments that the table names and whose folder of images is there."""
    return [
        name
        for name in named(folder, TABLES, EXPERIMENT)
        if (folder / "images" / name).is_dir()
    ]


def named(folder: Path, names: Sequence[str], column: str) -> list[str]:
    """Values of one column of a layout's table, in order."""
    rows = read_rows([find_table(folder, names)])
    return needed(rows, column, key="experiments").unique().sort().to_list()


def read(given: Sequence[Path], folder: Path, knobs: ImagesKnobs, experiment: str) -> Listed:
    """One experiment; every row of the table is a well with one site."""
    rows = read_wells(given, knobs, experiment)
    start = pl.repeat("images", rows.height, eager=True)
    site = pl.repeat("1", rows.height, eager=True)
    planes = planes_of_rows(rows, "address", start, site, str(rows[EXPERIMENT][0]))
    return Listed(rows, on_disk(planes, folder), [])


def read_wells(given: Sequence[Path], knobs: ImagesKnobs, experiment: str) -> pl.DataFrame:
    """Rows of one experiment, with the columns that the preset names.

    ``control`` is the word of a control well, else ``query``; ``gene`` and ``guide`` are blank
    where a compound or nothing was applied. SMILES lose what is appended behind " |".
    """
    rows = rows_of_experiment(read_rows(given), EXPERIMENT, knobs, experiment)
    kind = text(rows, "perturbation_type", key="columns.treatments.0.kind")
    treatment = text(rows, "treatment", key="columns.treatments.0.perturbation")
    control = treatment.str.ends_with("_control").fill_null(value=False)
    query = pl.repeat("query", rows.height, eager=True)
    knockout = (kind == "CRISPR").fill_null(value=False) & ~control
    nothing = pl.repeat(None, rows.height, dtype=pl.String, eager=True)
    gene = text(rows, "gene", key="columns.treatments.0.gene")
    smiles = text(rows, "SMILES", key="columns.labels.SMILES")
    if "well_type_label" not in rows.columns:
        rows = rows.with_columns(well_type_label=nothing)
    return rows.with_columns(
        control=treatment.zip_with(control, query),
        gene=gene.zip_with(knockout, nothing),
        guide=treatment.zip_with(knockout, nothing),
        SMILES=smiles.str.replace(r" \|.*\|$", ""),
    )


def find_table(folder: Path, names: Sequence[str]) -> Path:
    """The first of some tables that is in a folder.

    Raises
    ------
    UserError
        If none is there.
    """
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise UserError(f"{folder}: no table of wells, wanted {' or '.join(names)}")


def planes_of_rows(
    rows: pl.DataFrame, well: str, start: pl.Series, site: pl.Series, experiment: str
) -> pl.DataFrame:
    """Files of six channels of every row, as Recursion names them."""
    plate = text(rows, "plate", key="columns.plate").fill_null("")
    address = text(rows, well, key="columns.well").fill_null("")
    named = pl.DataFrame(
        {
            "plate": plate,
            "well": address,
            "site": site.cast(pl.Int32, strict=False),
            "place": rows[TABLE] + ", row " + rows[ROW].cast(pl.String),
            "start": start,
        }
    ).with_columns(
        stem=pl.format(
            "{}/{}/Plate{}/{}_s{}_w", "start", pl.lit(experiment), "plate", "well", "site"
        ),
    )
    return pl.concat(
        named.select(
            *("plate", "well", "site"),
            channel=pl.lit(number),
            file=pl.concat_str("stem", pl.lit(f"{number}.png")),
            place="place",
        )
        for number in CHANNELS
    )


def on_disk(planes: pl.DataFrame, folder: Path) -> pl.DataFrame:
    """Leave out plates whose folder is absent: the set is brought plate by plate."""
    parents = {file: str(Path(file).parent) for file in planes["file"]}
    there = {name: (folder / name).is_dir() for name in set(parents.values())}
    known = [there[parents[file]] for file in planes["file"]]
    return planes.filter(pl.Series(known, dtype=pl.Boolean))
