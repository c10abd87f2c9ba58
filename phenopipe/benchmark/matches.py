"""Which experiments are technical replicates, and which of their wells belong together.

Shape suffixes: N matched pairs of wells, M null pairs.
"""

from itertools import combinations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.seeds import generator, hash_uniform

CONDITION = ("cell_type", "background", "kind", "perturbation", "concentration_um")
ADDRESS = ("layout", "well")


def technical_pairs(wells: pl.DataFrame) -> list[tuple[str, str]]:
    """Pairs of experiments that share a layout in one cell type.

    Examples
    --------
    >>> wells = pl.DataFrame(
    ...     {"experiment": ["e2", "e1", "e3"], "layout": ["l", "l", "m"], "cell_type": "u"}
    ... )
    >>> technical_pairs(wells)
    [('e1', 'e2')]
    """
    layouts: dict[str, set[tuple[str, ...]]] = {}
    for name, *layout in wells.select("experiment", "layout", "cell_type").unique().rows():
        layouts.setdefault(name, set()).add(tuple(layout))
    return [(a, b) for a, b in combinations(sorted(layouts), 2) if layouts[a] & layouts[b]]


def matched_wells(
    wells: pl.DataFrame, pair: tuple[str, str], match: str, seed: int
) -> pl.DataFrame:
    """Wells of one condition, one from each experiment, that match.

    Parameters
    ----------
    wells : DataFrame
        Treated wells with ``row`` numbers (``at``).
    pair : (str, str)
        The two experiments.
    match : {"address", "condition"}
        Whether wells must share layout and address besides their condition. Where either
        has several wells under one key, they are matched in the order of their plates
        (address) or of a hash of their names (condition), so that positions mix.
    seed : int
        Seed of that hash.

    Returns
    -------
    DataFrame
        ``at``, ``at_b`` and the columns of the first well.
    """
    keys = [*CONDITION, *(ADDRESS if match == "address" else ())]
    by = "plate" if match == "address" else "_hash"
    if match == "condition":
        wells = wells.with_columns(_hash=pl.Series(hash_uniform(seed, wells["well_id"])))
    sides = [
        wells.filter(pl.col("experiment") == experiment)
        .sort(by, "well_id")
        .with_columns(_nth=pl.int_range(pl.len()).over(keys))
        for experiment in pair
    ]
    right = (
        sides[1]
        .with_columns(well_b="well")
        .select(*keys, "_nth", "well_b", at_b="at", well_id_b="well_id")
    )
    both = sides[0].join(right, on=[*keys, "_nth"], nulls_equal=True)
    return both.sort("at")


def same_address(
    both: pl.DataFrame,
    label_N: NDArray[np.str_],
    n_pairs: int,
    seed: int,
    pair: tuple[str, str],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Null pairs that share their address on the plate, but not what was done to them.

    Parameters
    ----------
    both : DataFrame
        Matched wells, with ``well`` of the first and ``well_b`` of the second.
    label_N : str array of shape (n_matched,)
        What the two wells of a null pair never share.
    n_pairs : int
        Pairs wanted.
    seed : int
        Seed of the draw.
    pair : (str, str)
        The two experiments.

    Returns
    -------
    first_M, second_M : int arrays
        Rows of ``both`` of either side, drawn with replacement if there are fewer than
        wanted; empty if an address never holds two treatments (a screen of one plate layout).
    """
    rows = both.select("well", "well_b", label=pl.Series(label_N)).with_row_index("row")
    others = rows.select(well="well_b", row_b="row", label_b="label")
    met = rows.join(others, on="well").filter(pl.col("label") != pl.col("label_b"))
    met = met.select("row", "row_b").sort("row", "row_b").cast(pl.Int64)
    if not met.height:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    rng = generator(seed, "replicates", "position", *pair)
    drawn = rng.choice(met.height, n_pairs, replace=met.height < n_pairs)
    return met["row"].to_numpy()[drawn], met["row_b"].to_numpy()[drawn]
