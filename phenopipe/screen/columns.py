"""From a user's table to the wells format: which column says what.

Rows are counted from 1 under the header, in the order in which the table files were
given; the names of the files travel in column ``TABLE``, the numbers in column ``ROW``.
"""

import string
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from phenopipe.errors import UserError
from phenopipe.formats.tables import read_any
from phenopipe.knobs import Knobs
from phenopipe.screen.config import Constant, Template, Value

TABLE = "\0table"
ROW = "\0row"


def read_rows(paths: Sequence[Path]) -> pl.DataFrame:
    """Read the user's tables one under the other, each row with its table and number.

    Raises
    ------
    UserError
        If no table is given, one cannot be read, or their columns differ.
    """
    if not paths:
        raise UserError("no table given, wanted at least one (tables)")
    frames: list[pl.DataFrame] = []
    for path in paths:
        frame = read_any(path)
        if frames and set(frame.columns) != set(frames[0].columns):
            other = sorted(set(frame.columns) ^ set(frames[0].columns))[0]
            raise UserError(
                f"{path}: column {other!r} is in this table or {paths[0]}, not both"
            )
        frames.append(frame if not frames else frame.select(frames[0].columns))
    numbered = [
        frame.with_columns(
            pl.lit(str(path)).alias(TABLE), pl.int_range(1, pl.len() + 1).alias(ROW)
        )
        for path, frame in zip(paths, frames, strict=True)
    ]
    return pl.concat(numbered, how="vertical_relaxed")


def place(rows: pl.DataFrame, at: int = 0) -> str:
    """Name the table and row of one row, for an error.

    Examples
    --------
    >>> place(pl.DataFrame({TABLE: ["plates.csv"], ROW: [7]}))
    'plates.csv, row 7'
    """
    return f"{rows[TABLE][at]}, row {rows[ROW][at]}"


def columns_read(value: object) -> set[str]:
    """Names of the columns that a value, or a whole map of columns, is read from.

    Examples
    --------
    >>> plate = Template(template="{week}-{barcode}")
    >>> sorted(columns_read({"plate": plate, "well": "address"}))
    ['address', 'barcode', 'week']
    """
    match value:
        case None | Constant():
            return set()
        case Template():
            return set(_fields(value.template))
        case Knobs() | Mapping():
            return columns_read(list(dict(value).values()))
        case list() | tuple():
            return set().union(*map(columns_read, value))
    return {str(value)}


def select_rows(
    rows: pl.DataFrame, where: Mapping[str, Sequence[str | int | float]]
) -> pl.DataFrame:
    """Rows whose columns have one of the allowed values each.

    Examples
    --------
    >>> rows = pl.DataFrame({"plate": [1, 2, 2], TABLE: ["t.csv"] * 3, ROW: [1, 2, 3]})
    >>> select_rows(rows, {"plate": ["2"]})[ROW].to_list()
    [2, 3]

    Raises
    ------
    UserError
        If a column is absent or no row is left.
    """
    chosen = rows
    for name, allowed in where.items():
        words = [str(value) for value in allowed]
        chosen = chosen.filter(text(chosen, name, key=f"where.{name}").is_in(words))
        if not chosen.height:
            source = rows[TABLE][0] if rows.height else "table"
            raise UserError(f"{source}: no row is left with {name} in {words} (where.{name})")
    return chosen


def text(rows: pl.DataFrame, value: Value | None, *, key: str) -> pl.Series:
    """Text of every row from a column, constant or template; null where blank.

    Parameters
    ----------
    rows : DataFrame
        Rows of the user's table.
    value : str, Constant, Template or None
        Where the text comes from; None gives nulls.
    key : str
        Key of the configuration, for errors.

    Raises
    ------
    UserError
        If a column is absent.

    Examples
    --------
    >>> rows = pl.DataFrame({"well": ["A1"], "site": [3], TABLE: ["t.csv"], ROW: [1]})
    >>> text(rows, Template(template="{well}_s{site:02d}.png"), key="file").to_list()
    ['A1_s03.png']
    """
    if value is None:
        return pl.repeat(None, rows.height, dtype=pl.String, eager=True)
    if isinstance(value, Constant):
        return pl.repeat(str(value.constant), rows.height, dtype=pl.String, eager=True)
    if isinstance(value, Template):
        return _fill(rows, value.template, key)
    column = _column(rows, value, key)
    if column.dtype.is_float() and bool((column.fill_nan(None).drop_nulls() % 1 == 0).all()):
        column = column.fill_nan(None).cast(pl.Int64)  # 3.0 names the same plate as 3
    stripped = column.cast(pl.String).str.strip_chars()
    return stripped.replace("", None)


def needed(rows: pl.DataFrame, value: Value, *, key: str) -> pl.Series:
    """Text of every row, as :func:`text`; a blank cell is an error that names its row."""
    found = text(rows, value, key=key)
    if found.null_count():
        at = found.is_null().arg_max()
        raise UserError(f"{place(rows, at or 0)}: no {key}, wanted a value")
    return found


def number(rows: pl.DataFrame, value: Value | None, *, key: str) -> pl.Series:
    """Read a number from every row, null where blank; what is no number is an error."""
    found = text(rows, value, key=key)
    numbers = found.cast(pl.Float64, strict=False).fill_nan(None)
    wrong = numbers.is_null() & found.is_not_null() & ~found.str.to_lowercase().is_in(["nan"])
    if wrong.any():
        at = wrong.arg_max() or 0
        raise UserError(f"{place(rows, at)}: {key} {found[at]!r}, wanted a number")
    return numbers


def translate(
    rows: pl.DataFrame,
    found: pl.Series,
    words: Mapping[str, Sequence[str]],
    allowed: Sequence[str],
    *,
    key: str,
) -> pl.Series:
    """Replace the table's words by the house's, from lists of words for each of them.

    Raises
    ------
    UserError
        If the configuration names an unknown word of the house or one word twice, or
        the table has a word that is in no list.
    """
    for name in words:
        if name not in allowed:
            raise UserError(f"{key}s.{name}: unknown {key}, wanted {', '.join(allowed)}")
    pairs = [(word, name) for name, listed in words.items() for word in listed]
    ours = {word: name for word, name in pairs}
    for word, name in pairs:
        if ours[word] != name:
            raise UserError(f"{key}s: {word!r} is listed for {name} and for {ours[word]}")
    for name in allowed:
        ours.setdefault(name, name)
    given = found.fill_null("")
    known = given.is_in(list(ours))
    if not known.all():
        at = (~known).arg_max() or 0
        raise UserError(
            f"{place(rows, at)}: unknown {key} {given[at]!r}, wanted one of {sorted(ours)}"
        )
    return given.replace_strict(ours, return_dtype=pl.String)


def _column(rows: pl.DataFrame, name: str, key: str) -> pl.Series:
    if name not in rows.columns:
        source = rows[TABLE][0] if rows.height else "table"
        raise UserError(f"{source}: no column {name!r}, wanted by {key}")
    return rows[name]


def _fill(rows: pl.DataFrame, template: str, key: str) -> pl.Series:
    try:
        columns = {field: _column(rows, field, key).to_list() for field in _fields(template)}
        filled = [
            template.format(**{field: column[at] for field, column in columns.items()})
            for at in range(rows.height)
        ]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"{key}: template {template!r} cannot be filled ({error})") from None
    return pl.Series(filled, dtype=pl.String)


def _fields(template: str) -> list[str]:
    return [field for _, field, _, _ in string.Formatter().parse(template) if field]
