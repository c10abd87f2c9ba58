"""Who acts like a gene or compound? ``python -m phenopipe.benchmark.neighbours --gene TP53``.

Reads every map that a run made, or those named, and prints what is nearest to and most opposed
to one row of each, with cosine similarities.
"""

import argparse
import difflib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from phenopipe.benchmark.aggregate import ENTITY
from phenopipe.benchmark.treated import unit_rows
from phenopipe.errors import UserError
from phenopipe.formats.maps import MAP
from phenopipe.formats.names import names_of
from phenopipe.formats.tables import read_table
from phenopipe.knobs import run_step

MAPS = "results/benchmark/*/*/map.parquet"
SUGGESTED = 5


def neighbours_of(table: pl.DataFrame, name: str) -> pl.DataFrame:
    """All other rows of the map by their similarity to every row of one name.

    Parameters
    ----------
    table : DataFrame
        The map format.
    name : str
        Gene or compound; a compound has a row for each concentration.

    Returns
    -------
    DataFrame
        ``asked_kind, asked_um, entity, kind, concentration_um, cosine``, nearest first.

    Raises
    ------
    UserError
        If the map has no such row; the message names similar ones.
    """
    at_R = np.flatnonzero((table["entity"] == name).to_numpy())
    if not len(at_R):
        known = table["entity"].unique().sort().to_list()
        near = difflib.get_close_matches(name, known, n=SUGGESTED, cutoff=0.5)
        told = f", such as {', '.join(near)}" if near else ""
        raise UserError(f"{name!r} is not on the map of {len(known)} names{told}")
    unit_GD = unit_rows(table["embedding"].to_numpy(), table["entity"].to_list())
    frames = []
    for row in at_R.tolist():
        asked = table.row(row, named=True)
        others = table.select(ENTITY).with_columns(
            cosine=pl.Series(unit_GD @ unit_GD[row]),
            asked_kind=pl.lit(asked["kind"]),
            asked_um=pl.lit(asked["concentration_um"], pl.Float64),
        )
        others = others.filter(pl.int_range(pl.len()) != row)
        frames.append(others.sort("cosine", "entity", descending=[True, False]))
    return pl.concat(frames).select("asked_kind", "asked_um", *ENTITY, "cosine")


def write_lines(found: pl.DataFrame, name: str, nearest: int) -> list[str]:
    """Lines that tell the nearest and the most opposed rows to a reader."""
    lines = []
    keys = ["asked_kind", "asked_um"]
    for (kind, dose), part in found.group_by(keys, maintain_order=True):
        lines.append(f"{_label(name, str(kind), dose)}")
        n_far = min(nearest, max(0, part.height - nearest))
        for title, rows in (("nearest", part.head(nearest)), ("opposed", part.tail(n_far))):
            ordered = rows if title == "nearest" else rows.reverse()
            for entity, of_kind, um, cosine in ordered.select(*ENTITY, "cosine").iter_rows():
                lines.append(f"  {title}  {cosine:+.3f}  {_label(entity, of_kind, um)}")
    return lines


def _label(entity: str, kind: str, concentration: object) -> str:
    dose = "" if concentration is None else f" at {concentration:g} µM"
    return f"{entity} ({kind}{dose})"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the neighbours of one gene or compound."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--gene", required=True, metavar="NAME", help="gene or compound")
    parser.add_argument("--map", nargs="*", type=Path, metavar="FILE", help=f"maps ({MAPS})")
    parser.add_argument("--nearest", type=int, default=10, help="rows at either end")
    asked = parser.parse_args(argv)
    if asked.nearest < 0:
        raise UserError(f"--nearest {asked.nearest}, wanted 0 or more")
    paths = asked.map or sorted(Path().glob(MAPS))
    if not paths:
        raise UserError(f"no map found at {MAPS}, wanted --map FILE")
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path}: no such file, wanted by --map")
        names = names_of(path)
        print(f"# {names.get('benchmark', '–')}, {names.get('encoder', path)}")
        found = neighbours_of(read_table(path, MAP), asked.gene)
        print("\n".join(write_lines(found, asked.gene, asked.nearest)))


if __name__ == "__main__":
    run_step(main)
