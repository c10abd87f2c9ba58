"""wells.parquet: what was done to which well, one row a well."""

import re
from pathlib import Path

import polars as pl

from phenopipe.errors import UserError
from phenopipe.formats.tables import Schema, Stamp, read_table, write_table

ROLES = ("negative_control", "positive_control", "empty", "perturbation")
KINDS = ("knockout", "sirna", "compound", "soluble_factor")
# The kind that makes a background where something else is applied to the same well.
BACKGROUND_KIND = "soluble_factor"
METADATA = "Metadata_"

TREATMENT = pl.Struct(
    {
        "perturbation": pl.String,
        "kind": pl.String,
        "gene": pl.String,
        "guide": pl.String,
        "concentration_um": pl.Float64,
    }
)
COLUMNS = {
    "screen": (pl.String, "all that one assay produced"),
    "experiment": (pl.String, "plates run together"),
    "plate": (pl.String, "plate, unique within its experiment"),
    "well": (pl.String, "address on the plate, such as B07"),
    "row": (pl.Int32, "row of the plate, from 1"),
    "column": (pl.Int32, "column of the plate, from 1"),
    "cell_type": (pl.String, "cell type"),
    "role": (pl.String, f"one of {', '.join(ROLES)}"),
    "treatments": (pl.List(TREATMENT), "everything applied to the well; empty if unknown"),
    "layout": (pl.String, "name of the plate's layout; technical pairs share it"),
    "well_id": (pl.String, "unique over the screen"),
}
WELLS = Schema("wells", COLUMNS, unique=("well_id",), extra=(METADATA,))

CONDITION = ("kind", "perturbation", "concentration_um")


def read_wells(path: Path) -> pl.DataFrame:
    """Read and check a wells table."""
    return read_table(path, WELLS)


def write_wells(path: Path, wells: pl.DataFrame, stamp: Stamp) -> None:
    """Check and write a wells table."""
    check_words(wells, path)
    write_table(path, wells, WELLS, stamp)


def check_words(wells: pl.DataFrame, where: Path | str) -> None:
    """Raise if a role or a kind of perturbation is not one of the known words."""
    unknown = wells.filter(~pl.col("role").is_in(ROLES))
    if unknown.height:
        well_id, role = unknown.select("well_id", "role").row(0)
        raise UserError(f"{where}: well {well_id} has role {role!r}, wanted {', '.join(ROLES)}")
    kinds = wells["treatments"].explode().struct.field("kind").drop_nulls().unique()
    for kind in sorted(set(kinds) - set(KINDS)):
        raise UserError(f"{where}: kind of perturbation {kind!r}, wanted {', '.join(KINDS)}")


def conditions(wells: pl.DataFrame) -> pl.DataFrame:
    """List each well's conditions, one row a well and treatment.

    Parameters
    ----------
    wells : DataFrame
        Columns of the wells format.

    Returns
    -------
    DataFrame
        ``well_id, perturbation, kind, gene, guide, concentration_um, n_perturbations,
        background``. A soluble factor beside another treatment is the well's background
        and has no row of its own; ``n_perturbations`` does not count it. Wells without
        treatments have no row.
    """
    each = (
        wells.select("well_id", "treatments")
        .explode("treatments", empty_as_null=False, keep_nulls=False)
        .unnest("treatments")
    )
    factor = pl.col("kind") == BACKGROUND_KIND
    others = (~factor).sum().over("well_id")
    background = (
        pl.col("perturbation").filter(factor).unique().sort().implode().over("well_id")
    ).list.join("+")
    return (
        each.with_columns(
            background=pl.when(others > 0).then(background).otherwise(pl.lit("")),
            n_perturbations=pl.when(others > 0)
            .then(others)
            .otherwise(pl.len().over("well_id")),
        )
        .filter(~factor | (others == 0))
        .select(
            "well_id",
            "perturbation",
            "kind",
            "gene",
            "guide",
            "concentration_um",
            pl.col("n_perturbations").cast(pl.Int32),
            "background",
        )
    )


def map_type(screen: str, cell_type: str, kind: str, background: str) -> str:
    """Name a map type: conditions are only ever compared within one.

    Examples
    --------
    >>> map_type("rxrx3", "HUVEC", "knockout", "")
    'rxrx3|HUVEC|knockout|none'
    """
    return "|".join((screen, cell_type, kind, background or "none"))


def with_map_type(frame: pl.DataFrame) -> pl.DataFrame:
    """Add ``map_type`` to a frame with screen, cell_type, kind and background."""
    background = pl.when(pl.col("background") == "").then(pl.lit("none"))
    parts = ["screen", "cell_type", "kind", background.otherwise(pl.col("background"))]
    return frame.with_columns(map_type=pl.concat_str(parts, separator="|"))


def well_name(row: int, column: int) -> str:
    """Write an address: letters for the row, two digits for the column.

    Examples
    --------
    >>> well_name(1, 1), well_name(32, 48)
    ('A01', 'AF48')
    """
    letters = chr(64 + row) if row <= 26 else "A" + chr(64 + row - 26)
    return f"{letters}{column:02d}"


def parse_well(text: str) -> tuple[int, int]:
    """Read an address such as ``a1``, ``B07`` or ``AF48`` as (row, column), from 1.

    Examples
    --------
    >>> parse_well("a1"), parse_well("AF48")
    ((1, 1), (32, 48))
    """
    found = re.fullmatch(r"([A-Z]|A[A-F])(\d{1,2})", text.strip().upper())
    if not found or int(found[2]) == 0:
        raise UserError(f"well address {text!r}, wanted letters and a number such as B07")
    letters = found[1]
    row = ord(letters[-1]) - 64 + (26 if len(letters) == 2 else 0)
    return row, int(found[2])
