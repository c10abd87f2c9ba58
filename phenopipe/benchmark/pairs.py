"""Known relationships: read from a user's file, cleaned, and found on the map."""

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.errors import UserError
from phenopipe.formats.tables import read_any

PAIR = ("entity1", "entity2")
GROUP = ("group", "gene")


def read_pairs(path: Path) -> pl.DataFrame:
    """Read pairs from a file of pairs or of groups; in a group, everyone knows everyone.

    Blanks around names do not count.

    Parameters
    ----------
    path : Path
        A table with columns ``entity1, entity2``, or ``group, gene``; others are ignored.

    Returns
    -------
    DataFrame
        ``entity1, entity2``, as found or as implied by the groups.

    Raises
    ------
    UserError
        If the file has neither pair of columns.
    """
    table = read_any(path)
    if set(PAIR) <= set(table.columns):
        return table.select(_names(PAIR))
    if set(GROUP) <= set(table.columns):
        return pairs_within_groups(table.select(_names(GROUP)))
    raise UserError(
        f"{path}: columns {table.columns}, wanted {', '.join(PAIR)} or {', '.join(GROUP)}"
    )


def _names(columns: tuple[str, str]) -> pl.Expr:
    return pl.col(columns).cast(pl.String).str.strip_chars().replace("", None)


def pairs_within_groups(groups: pl.DataFrame) -> pl.DataFrame:
    """All pairs of genes that share a group.

    Examples
    --------
    >>> groups = pl.DataFrame({"group": ["x", "x", "y"], "gene": ["B", "A", "C"]})
    >>> pairs_within_groups(groups).rows()
    [('A', 'B')]
    """
    members = groups.select(pl.col(GROUP).cast(pl.String)).drop_nulls().unique()
    both = members.join(members, on="group", suffix="2").filter(
        pl.col("gene") < pl.col("gene2")
    )
    return both.select(entity1="gene", entity2="gene2").unique().sort(PAIR)


def clean_pairs(pairs: pl.DataFrame) -> pl.DataFrame:
    """Order the names within each pair, and drop self pairs, repeats and gaps.

    Examples
    --------
    >>> pairs = pl.DataFrame({"entity1": ["B", "A", "A"], "entity2": ["A", "B", "A"]})
    >>> clean_pairs(pairs).rows()
    [('A', 'B')]
    """
    return (
        pairs.select(entity1=pl.min_horizontal(PAIR), entity2=pl.max_horizontal(PAIR))
        .filter(pairs["entity1"].is_not_null() & pairs["entity2"].is_not_null())
        .filter(pl.col("entity1") != pl.col("entity2"))
        .unique()
        .sort(PAIR)
    )


def pairs_on_map(
    pairs: pl.DataFrame, genes_G: NDArray[np.str_]
) -> tuple[pl.DataFrame, NDArray[np.int64], NDArray[np.int64]]:
    """Clean pairs whose genes are both on the map, with their rows.

    Raises
    ------
    UserError
        If no pair is on the map.
    """
    rows = pl.DataFrame({"gene": genes_G, "row": np.arange(len(genes_G))})
    found = (
        clean_pairs(pairs)
        .join(rows.rename({"gene": "entity1", "row": "first"}), on="entity1")
        .join(rows.rename({"gene": "entity2", "row": "second"}), on="entity2")
        .sort(PAIR)
    )
    if not found.height:
        raise UserError(
            f"none of {pairs.height} pairs has both genes on the map of {len(genes_G)} genes"
            f" (such as {genes_G[0]}), wanted at least one"
        )
    return found.select(PAIR), found["first"].to_numpy(), found["second"].to_numpy()
