"""Tables between stages: parquet with a checked schema and a stamp, JSON with a stamp."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from phenopipe.errors import UserError, reason
from phenopipe.formats.atomic import atomic

STAMP_KEY = "phenopipe"
FORMAT_VERSION = 1
# The first level of zstd is as small as the third.
COMPRESSION: dict[str, Any] = {"compression": "zstd", "compression_level": 1}
Stamp = Mapping[str, Any]


@dataclass(frozen=True)
class Schema:
    """What a table holds: columns in order, each with its type and its meaning.

    Attributes
    ----------
    name : str
        Name of the format, stored in the file and checked by readers.
    columns : mapping of str to (dtype, str)
        Type and unit or meaning of each column. ``pl.Array(pl.Float32)`` without a width
        accepts any width.
    unique : tuple of str
        Columns that together name a row; no two rows may share them.
    extra : tuple of str
        Prefixes of further columns that a table may have after its own.
    """

    name: str
    columns: Mapping[str, tuple[Any, str]]
    unique: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    def empty(self) -> pl.DataFrame:
        """Return a table of this format without rows."""
        return pl.DataFrame(schema={name: dtype for name, (dtype, _) in self.columns.items()})

    def in_order(self, names: Iterable[str]) -> list[str]:
        """Columns of the format first, in its order, then all others that are named."""
        return [*self.columns, *(name for name in names if name not in self.columns)]

    def check(self, frame: pl.DataFrame, where: Path | str) -> None:
        """Raise if a column is absent, of another type, or unknown, or a row is doubled."""
        self.check_columns(frame.schema, where)
        if self.unique:
            doubled = frame.select(self.unique).is_duplicated()
            if doubled.any():
                row = frame.filter(doubled).select(self.unique).row(0)
                raise UserError(f"{where}: two rows with {self.unique} = {row}, wanted one")

    def check_columns(self, found: Mapping[str, pl.DataType], where: Path | str) -> None:
        """Raise if a column is absent, of another type, or unknown."""
        for name, (dtype, _) in self.columns.items():
            if name not in found:
                raise UserError(f"{where}: no column {name!r}, wanted by format {self.name}")
            if not _fits(found[name], dtype):
                raise UserError(f"{where}: column {name!r} is {found[name]}, wanted {dtype}")
        for name in found:
            if name not in self.columns and not name.startswith(self.extra or "\0"):
                raise UserError(f"{where}: unknown column {name!r} for format {self.name}")


def _fits(found: pl.DataType, wanted: object) -> bool:
    if isinstance(wanted, type) and issubclass(wanted, pl.DataType):
        return isinstance(found, wanted)
    return found == wanted


def write_table(path: Path, frame: pl.DataFrame, schema: Schema, stamp: Stamp) -> None:
    """Write a checked table with its stamp; equal tables and stamps give equal bytes.

    Parameters
    ----------
    path : Path
        The parquet file; it appears whole or not at all.
    frame : DataFrame
        Columns of the schema in any order, then permitted further ones.
    schema : Schema
        The format.
    stamp : mapping
        Deterministic facts about the step (``files.stamp``).

    Raises
    ------
    UserError
        If the table does not fit the schema.
    """
    schema.check(frame, path)
    ordered = frame.select(schema.in_order(frame.columns))
    table = ordered.to_arrow()
    target = table.schema.with_metadata(stamp_of(schema, stamp))
    with atomic(path) as temporary:
        pq.write_table(table.cast(target), temporary, **parquet_form(schema, target))


def parquet_form(schema: Schema, columns: pa.Schema) -> dict[str, Any]:
    """Return how a table of a format is written, as pyarrow's writer takes it.

    Notes
    -----
    Texts get a dictionary, those inside of lists too, unless they name a row: numbers and
    names hardly repeat. Smallest and largest values of a row group are kept where they lead
    a reader to an experiment; of all columns they cost a fifth.
    """
    repeated = [name for name in columns.names if (name,) != schema.unique]
    return {
        **COMPRESSION,
        "use_dictionary": [
            text for name in repeated for text in _texts(name, columns.field(name).type)
        ],
        "write_statistics": ["screen", "experiment"],
    }


def _texts(path: str, dtype: pa.DataType) -> list[str]:
    """List the paths of all texts in a column, as parquet writes them."""
    if pa.types.is_list(dtype) or pa.types.is_large_list(dtype):
        return _texts(f"{path}.list.element", dtype.value_type)
    if pa.types.is_struct(dtype):
        return [text for one in dtype for text in _texts(f"{path}.{one.name}", one.type)]
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary)
    return [path] if any(is_text(dtype) for is_text in texts) else []


def stamp_of(schema: Schema, stamp: Stamp) -> dict[str, str]:
    """Return the entry of a parquet file's metadata that names its format and its step."""
    facts = {"format": schema.name, "format_version": FORMAT_VERSION, **stamp}
    return {STAMP_KEY: _dump(facts)}


def read_table(path: Path, schema: Schema, columns: list[str] | None = None) -> pl.DataFrame:
    """Read a table and check it; ``columns`` reads only some, unchecked rows apart.

    Raises
    ------
    UserError
        If the file is not readable parquet of this format.
    """
    check_format(path, schema)
    if columns is not None:
        return pl.read_parquet(path, columns=columns, glob=False)
    frame = pl.read_parquet(path, glob=False)
    schema.check(frame, path)
    return frame


def check_format(path: Path, schema: Schema) -> None:
    """Raise if a parquet file's stamp names another format, or another version of it."""
    stamp = read_stamp(path)
    if stamp.get("format") != schema.name:
        raise UserError(f"{path}: holds format {stamp.get('format')!r}, wanted {schema.name!r}")
    if stamp.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path}: format version {stamp.get('format_version')}, wanted {FORMAT_VERSION}"
        )


def read_stamp(path: Path) -> dict[str, Any]:
    """Read the stamp of a parquet or JSON file without its rows.

    Raises
    ------
    UserError
        If the file cannot be read or carries no stamp.
    """
    if path.suffix == ".json":
        return dict(_load(path).get(STAMP_KEY, {}))
    try:
        metadata = pl.read_parquet_metadata(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError(f"{path}: not a readable parquet file ({reason(error)})") from None
    if STAMP_KEY not in metadata:
        raise UserError(f"{path}: no phenopipe stamp, wanted a file that a rule made")
    return dict(json.loads(metadata[STAMP_KEY]))


def write_json(path: Path, content: Mapping[str, Any], stamp: Stamp) -> None:
    """Write a mapping and its stamp as JSON, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(_dump({**content, STAMP_KEY: dict(stamp)}, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read what :func:`write_json` wrote, without the stamp."""
    return {key: value for key, value in _load(path).items() if key != STAMP_KEY}


def read_any(path: Path) -> pl.DataFrame:
    """Read a user's own table: parquet, or CSV or TSV, gzipped or not.

    Raises
    ------
    UserError
        If the kind of file is unknown or the file cannot be parsed.
    """
    name = path.name.removesuffix(".gz")
    try:
        if name.endswith(".parquet"):
            return pl.read_parquet(path, glob=False)
        if name.endswith((".csv", ".tsv", ".txt")):
            first = "\t" if name.endswith(".tsv") else ","
            # All rows decide a column's type: a sample of them guesses wrong.
            return pl.read_csv(path, separator=first, infer_schema_length=None)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError(f"{path}: cannot be read as a table ({reason(error)})") from None
    raise UserError(f"{path}: unknown kind of table, wanted .parquet, .csv or .tsv (.gz)")


def _load(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable JSON ({error})") from None


def _dump(content: Mapping[str, Any], indent: int | None = None) -> str:
    return json.dumps(content, indent=indent, sort_keys=True, default=str)
