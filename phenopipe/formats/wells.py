"""wells.parquet: what was done to which well, one row a well."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.errors import UserError
from phenopipe.formats.tables import Schema, Stamp, read_table, write_table

ROLES = ("negative_control", "positive_control", "empty", "perturbation")
KINDS = ("knockout", "sirna", "overexpression", "compound", "soluble_factor")
# Kinds that act on a gene: several guides or constructs of one are judged together, too.
GENE_KINDS = ("knockout", "sirna", "overexpression")
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
# What qc adds for those that count millions of wells.
N_IMAGES, CONDITIONS = "n_images", "conditions"
COUNTED = {
    N_IMAGES: (pl.Int32, "images of the well"),
    CONDITIONS: (pl.String, "treatments without background, as one text; null if none"),
}
WELLS = Schema("wells", COLUMNS, unique=("well_id",), extra=(METADATA, *COUNTED))
COUNTED_WELLS = Schema("wells", {**COLUMNS, **COUNTED}, unique=("well_id",), extra=(METADATA,))

CONDITION = ("kind", "perturbation", "concentration_um")


def read_wells(path: Path) -> pl.DataFrame:
    """Read and check a wells table."""
    return read_table(path, WELLS)


def write_wells(path: Path, wells: pl.DataFrame, stamp: Stamp) -> None:
    """Check and write a wells table."""
    check_words(wells, path)
    write_table(path, wells, WELLS, stamp)


def check_words(wells: pl.DataFrame, where: Path | str) -> None:
    """Raise if a role or a kind of perturbation is not one of the known words, or absent.

    Names of perturbations and genes must not hold the characters that separate them where a
    well's conditions are one text.
    """
    unknown = wells.filter(~pl.col("role").is_in(ROLES))
    if unknown.height:
        well_id, role = unknown.select("well_id", "role").row(0)
        raise UserError(f"{where}: well {well_id} has role {role!r}, wanted {', '.join(ROLES)}")
    applied = wells["treatments"].explode()
    kinds = applied.struct.field("kind")
    lost = kinds.is_null() & applied.struct.field("perturbation").is_not_null()
    if lost.any():
        name = applied.filter(lost)[0]["perturbation"]
        raise UserError(f"{where}: {name!r} has no kind, wanted {', '.join(KINDS)}")
    for kind in sorted(set(kinds.drop_nulls()) - set(KINDS)):
        raise UserError(f"{where}: kind of perturbation {kind!r}, wanted {', '.join(KINDS)}")
    for field in ("perturbation", "gene"):
        names = applied.struct.field(field)
        torn = names.filter(names.str.contains("[\x1d-\x1f]"))
        if len(torn):
            raise UserError(
                f"{where}: {field} {torn[0]!r}, wanted a name without control characters"
            )


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
    found = listed(wells["treatments"])
    background = (
        found.fields.with_columns(row=found.row_A)
        .filter(kind=BACKGROUND_KIND)
        .select("row", background="perturbation")
        .unique()
        .sort("row", "background")
        .group_by("row", maintain_order=True)
        .agg(pl.col("background").str.join("+"))
    )
    return (
        found.fields.with_columns(
            wells["well_id"].gather(found.row_A),
            row=found.row_A,
            n_perturbations=found.number_A,
            beside=found.beside_A,
        )
        .filter(found.is_condition_A)
        .join(background, on="row", how="left", maintain_order="left")
        .select(
            "well_id",
            "perturbation",
            "kind",
            "gene",
            "guide",
            "concentration_um",
            "n_perturbations",
            background=pl.when("beside").then("background").fill_null(""),
        )
    )


class Listed(NamedTuple):
    """All treatments of some wells, one after the other.

    Attributes
    ----------
    fields : DataFrame
        The fields of each treatment.
    row_A : uint32 array of shape (n_treatments,)
        Row of the well that has it, from 0 and ascending.
    is_condition_A : bool array of shape (n_treatments,)
        Whether it is a condition, not the background of others in its well.
    number_A : int32 array of shape (n_treatments,)
        Perturbations of the well, without its background.
    beside_A : bool array of shape (n_treatments,)
        Whether the well has anything but soluble factors, so that these are background.
    """

    fields: pl.DataFrame
    row_A: NDArray[np.uint32]
    is_condition_A: NDArray[np.bool_]
    number_A: NDArray[np.int32]
    beside_A: NDArray[np.bool_]


def listed(treatments: pl.Series) -> Listed:
    """List the treatments of a wells table, and tell conditions from backgrounds."""
    n_W = treatments.list.len().fill_null(0).to_numpy()
    row_A = np.repeat(np.arange(len(n_W), dtype=np.uint32), n_W)
    fields = treatments.explode(empty_as_null=False, keep_nulls=False).struct.unnest()
    is_other_A = (fields["kind"] != BACKGROUND_KIND).fill_null(value=False).to_numpy()
    others_W = np.bincount(row_A[is_other_A], minlength=len(n_W))
    beside_A = others_W[row_A] > 0
    number_A = np.where(beside_A, others_W[row_A], n_W[row_A]).astype(np.int32)
    return Listed(fields, row_A, is_other_A | ~beside_A, number_A, beside_A)


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
