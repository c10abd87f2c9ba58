"""Wells from a user's table: one row a well, with its role and treatments."""

from collections.abc import Sequence

import polars as pl

from phenopipe.errors import UserError
from phenopipe.formats.wells import (
    COLUMNS,
    KINDS,
    METADATA,
    ROLES,
    TREATMENT,
    parse_well,
    well_name,
)
from phenopipe.screen.columns import needed, number, place, text, translate
from phenopipe.screen.config import TableKnobs, TreatmentColumns, Value

# Micromolar in one of each unit; both signs for micro are in use.
UNITS = {"M": 1e6, "mM": 1e3, "uM": 1.0, "µM": 1.0, "μM": 1.0, "nM": 1e-3, "pM": 1e-6}


def wells_of_rows(
    rows: pl.DataFrame, knobs: TableKnobs, *, screen: str, experiment: str
) -> pl.DataFrame:
    """Wells format of every row of a user's table, in the order of the rows.

    Parameters
    ----------
    rows : DataFrame
        Rows of one experiment, from :func:`phenopipe.screen.columns.read_rows`.
    knobs : TableKnobs
        Column map and word lists.
    screen, experiment : str
        Names of the screen and of the experiment.

    Returns
    -------
    DataFrame
        The columns of the wells format and the user's labels; a well that has several
        rows in the table (sites, channels) has several here.

    Raises
    ------
    UserError
        If a needed column is absent, a needed cell blank, or a word, address, number or
        unit unknown.
    """
    columns = knobs.columns
    plate = needed(rows, columns.plate, key="columns.plate")
    address = _addresses(rows, needed(rows, columns.well, key="columns.well"))
    role = text(rows, columns.role, key="columns.role")
    layout = columns.layout if columns.layout is not None else columns.plate
    treatments = [
        _treatment(rows, one, knobs, key=f"columns.treatments.{at}")
        for at, one in enumerate(columns.treatments)
    ]
    frame = pl.DataFrame(
        {
            "plate": plate,
            "cell_type": needed(rows, columns.cell_type, key="columns.cell_type"),
            "role": translate(rows, role, knobs.roles, ROLES, key="role"),
            "treatments": _together(treatments, rows.height),
            "layout": needed(rows, layout, key="columns.layout"),
            **{
                f"{METADATA}{name}": _label(rows, value, name)
                for name, value in columns.labels.items()
            },
        }
    )
    named = frame.with_columns(
        address,
        screen=pl.lit(screen),
        experiment=pl.lit(experiment),
        well_id=pl.concat_str(pl.lit(experiment), "plate", address["well"], separator="/"),
    )
    return named.select(*COLUMNS, f"^{METADATA}.*$")


def one_row_a_well(wells: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Wells of all rows, each once, ordered by plate and address.

    Parameters
    ----------
    wells : DataFrame
        From :func:`wells_of_rows`.
    rows : DataFrame
        The user's rows that they came from.

    Raises
    ------
    UserError
        If two rows of one well disagree.
    """
    # A list of structs cannot be compared in polars, so its text stands for it.
    told = pl.element().struct.json_encode()
    shown = wells.with_columns(pl.col("treatments").list.eval(told).list.join(" + "))
    for name in shown.columns:
        counts = shown.group_by(well=pl.col("well_id")).agg(pl.col(name).n_unique().alias("n"))
        unlike = counts.filter(pl.col("n") > 1)["well"]
        if len(unlike):
            well_id = str(unlike.sort()[0])
            values = shown.filter(pl.col("well_id") == well_id)[name]
            at = shown["well_id"].index_of(well_id) or 0
            raise UserError(
                f"{place(rows, at)}: rows of well {well_id} disagree about {name}: "
                f"{values.unique(maintain_order=True).to_list()}, wanted one value"
            )
    unique = wells.unique("well_id", keep="first", maintain_order=True)
    return unique.sort("plate", "row", "column")


def _addresses(rows: pl.DataFrame, found: pl.Series) -> pl.DataFrame:
    read: dict[str, tuple[str, int, int]] = {}
    for at, given in enumerate(found):
        if given in read:
            continue
        try:
            row, column = parse_well(given)
        except UserError as error:
            raise UserError(f"{place(rows, at)}: {error}") from None
        read[given] = (well_name(row, column), row, column)
    schema = {"well": pl.String, "row": pl.Int32, "column": pl.Int32}
    return pl.DataFrame([read[given] for given in found], schema=schema, orient="row")


def _treatment(
    rows: pl.DataFrame, columns: TreatmentColumns, knobs: TableKnobs, *, key: str
) -> pl.Series:
    """Struct of one treatment of every row; null where nothing was applied."""
    perturbation = text(rows, columns.perturbation, key=f"{key}.perturbation")
    applied = perturbation.is_not_null() & ~perturbation.is_in(knobs.untreated)
    treated = rows.filter(applied)
    kind = translate(
        treated, text(treated, columns.kind, key=f"{key}.kind"), knobs.kinds, KINDS, key="kind"
    )
    frame = pl.DataFrame(
        {
            "perturbation": perturbation.filter(applied),
            "kind": kind,
            "gene": text(treated, columns.gene, key=f"{key}.gene"),
            "guide": text(treated, columns.guide, key=f"{key}.guide"),
            "concentration_um": _micromolar(treated, columns, key),
        },
        schema=dict(TREATMENT),
    )
    # Back to the table's rows: the k-th treated row has the k-th struct, the others none.
    at = pl.select(pl.when(applied).then(applied.cast(pl.Int64).cum_sum() - 1)).to_series()
    return frame.to_struct().gather(at)


def _micromolar(rows: pl.DataFrame, columns: TreatmentColumns, key: str) -> pl.Series:
    value = number(rows, columns.concentration, key=f"{key}.concentration")
    unit = text(rows, columns.concentration_unit, key=f"{key}.concentration_unit")
    unknown = value.is_not_null() & ~unit.fill_null("").is_in(list(UNITS))
    if unknown.any():
        at = unknown.arg_max() or 0
        wanted = ", ".join(UNITS)
        raise UserError(f"{place(rows, at)}: unit {unit[at]!r}, wanted one of {wanted}")
    scale = unit.replace_strict(UNITS, default=None, return_dtype=pl.Float64)
    # Ten digits: 250 nM and 0.25 uM must name one condition.
    return (value * scale).round_sig_figs(10)


def _together(treatments: Sequence[pl.Series], height: int) -> pl.Series:
    """One list of treatments a row, without those that are null."""
    kind = pl.List(TREATMENT)
    if not treatments:
        return pl.Series([[]] * height, dtype=kind)
    frame = pl.DataFrame({str(at): series for at, series in enumerate(treatments)})
    return frame.select(pl.concat_list(pl.all()).list.drop_nulls().cast(kind)).to_series()


def _label(rows: pl.DataFrame, value: Value, name: str) -> pl.Series:
    """Keep a column's own type, so that doses sort as numbers."""
    if isinstance(value, str) and value in rows.columns:
        return rows[value]
    return text(rows, value, key=f"columns.labels.{name}")
