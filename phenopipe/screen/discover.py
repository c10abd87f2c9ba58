"""Write the sheet of experiments of a folder, and say which entry of a configuration reads it.

    python -m phenopipe.screen.discover FOLDER
    python -m phenopipe.screen.discover TABLE --by COLUMN

FOLDER holds a screen in a public layout, which is recognized by its files. TABLE is a table of
images or profiles of your own; the values of one of its columns are the experiments.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import yaml

from phenopipe.errors import UserError
from phenopipe.formats.atomic import atomic
from phenopipe.knobs import run_step
from phenopipe.screen import ome_zarr, rxrx1, rxrx3, rxrx3_core
from phenopipe.screen.adapters import ADAPTERS
from phenopipe.screen.columns import needed, read_rows
from phenopipe.screen.presets import PRESETS

# What only one layout has; the two that share a name of their table are told by its columns.
MARKS = {
    "ome_zarr": ome_zarr.PLATES,
    "jump": "metadata/plate.csv*",
    "rxrx3_core": rxrx3_core.SHARDS,
}
COLUMNS = {
    "rxrx1": (rxrx1.TABLES, "sirna"),
    "rxrx3": (rxrx3.TABLES, rxrx3.EXPERIMENT),
}


def recognize(folder: Path) -> str:
    """Name the layout of a folder.

    Raises
    ------
    UserError
        If it is none that is known.
    """
    for source, pattern in MARKS.items():
        if any(folder.glob(pattern)):
            return source
    for source, (names, column) in COLUMNS.items():
        there = [folder / name for name in names if (folder / name).exists()]
        if there and column in read_rows(there[:1]).columns:
            return source
    marks = ", ".join([*MARKS.values(), *rxrx1.TABLES[:1], *rxrx3.TABLES[:1]])
    raise UserError(f"{folder}: no layout that is known, wanted one of {marks}")


def sheet_of_folder(folder: Path, source: str) -> pl.DataFrame:
    """Experiments of a folder of which there are images, one a row."""
    names = ADAPTERS[source].experiments(folder)
    if not names:
        raise UserError(f"{folder}: no experiment of {source} has images there")
    return pl.DataFrame({"experiment": names}, schema={"experiment": pl.String})


def sheet_of_table(table: Path, column: str) -> pl.DataFrame:
    """Experiments of a user's table: each value of a column, and the rows that have it."""
    rows = read_rows([table])
    names = needed(rows, column, key="--by").unique().sort()
    return pl.DataFrame({"experiment": names}).with_columns(
        where=pl.struct(pl.concat_list("experiment").alias(column))
    )


def entry(folder: Path, source: str, sheet: Path) -> str:
    """Write the entry of a configuration that reads a folder, as YAML."""
    one: dict[str, object] = {
        "source": source,
        "path": str(folder),
        "experiments": str(sheet),
    }
    if source == "ome_zarr":
        labels, size = ome_zarr.first_field(folder)
        one |= {"channels": labels, "pixel_size_um": size, "columns": {}, "roles": {}}
    else:
        one["channels"] = PRESETS[source]["channels"]
    named = {folder.resolve().name: one}
    return yaml.safe_dump({"screens": named}, sort_keys=False, default_flow_style=None)


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("path", type=Path, help="folder of a screen, or a table")
    parser.add_argument("--by", help="column of the table that names the experiment")
    parser.add_argument("--source", choices=list(ADAPTERS), help="layout, where it is known")
    parser.add_argument("--sheet", type=Path, help="file to write: .csv, .tsv or .parquet")
    given = parser.parse_args(argv)
    if given.by:
        sheet = given.sheet or given.path.parent / "experiments.parquet"
        _write(sheet, sheet_of_table(given.path, given.by))
        return
    if not given.path.is_dir():
        raise UserError(f"{given.path}: no folder, wanted one, or a table and --by COLUMN")
    source = given.source or recognize(given.path)
    sheet = given.sheet or given.path / "experiments.csv"
    _write(sheet, sheet_of_folder(given.path, source))
    print(entry(given.path, source, sheet), end="")


def _write(path: Path, sheet: pl.DataFrame) -> None:
    if path.suffix != ".parquet" and "where" in sheet.columns:
        raise UserError(f"{path}: wanted .parquet, which can hold the rows of an experiment")
    with atomic(path) as temporary:
        if path.suffix == ".parquet":
            sheet.write_parquet(temporary)
        else:
            sheet.write_csv(temporary, separator="\t" if path.suffix == ".tsv" else ",")
    print(f"# {path}: {sheet.height} experiments")


if __name__ == "__main__":
    run_step(main)
