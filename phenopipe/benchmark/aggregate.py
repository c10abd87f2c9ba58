"""Step ``aggregate``: the map, one embedding a gene or compound dose, and its neighbours.

Shape suffixes: N replicates, W wells, G rows of the map, D features, K neighbours.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.benchmark.config import AggregateKnobs
from phenopipe.benchmark.treated import Floats, Treated, read_treated, unit_rows
from phenopipe.formats.arms import ARMS
from phenopipe.formats.maps import MAP, NEIGHBOURS
from phenopipe.formats.tables import read_table, write_table
from phenopipe.knobs import parse_step, run_step

ROWS_A_PASS = 65_536
GENETIC = ("knockout", "sirna")
# Controls mark the origin; positive controls are on the map like any perturbation.
ROLES = ("perturbation", "positive_control")
ENTITY = ("entity", "kind", "concentration_um")


def spherical_mean(x_ND: Floats) -> NDArray[np.float64]:
    """Mean of unit vectors: the mean direction, shorter the more the rows disagree.

    Parameters
    ----------
    x_ND : float array of shape (n_replicates, n_features)
        Embeddings seen from the origin (the mean of the negative controls).

    Returns
    -------
    float array of shape (n_features,)
        Its squared length is the replicate consistency of Eq. 2.

    Raises
    ------
    UserError
        If a row has length zero, so that it points nowhere.

    Examples
    --------
    >>> spherical_mean(np.array([[3.0, 0.0], [0.0, 0.5]]))
    array([0.5, 0.5])
    """
    mean_D: NDArray[np.float64] = unit_rows(x_ND).mean(axis=0)
    return mean_D


def group_means(
    x_WD: Floats, group_W: NDArray[np.integer], n_groups: int, *, unit: bool = True
) -> NDArray[np.float64]:
    """Mean of each group's rows, made unit vectors first unless told otherwise.

    Parameters
    ----------
    x_WD : float array of shape (n_wells, n_features)
        Embeddings.
    group_W : int array of shape (n_wells,)
        Group of each row, from 0; every group has a row.
    n_groups : int
        Number of groups.
    unit : bool
        Whether rows are scaled to length one first.

    Returns
    -------
    float array of shape (n_groups, n_features)
        Sums are kept in double precision; wells pass in portions, so that memory does not
        grow with their number.
    """
    sum_GD = np.zeros((n_groups, x_WD.shape[1]))
    order_W = np.argsort(group_W, kind="stable")
    for start in range(0, len(order_W), ROWS_A_PASS):
        rows = order_W[start : start + ROWS_A_PASS]
        x_PD = unit_rows(x_WD[rows]) if unit else x_WD[rows].astype(np.float64)
        group_P = group_W[rows]
        first = np.flatnonzero(np.diff(group_P, prepend=-1))
        sum_GD[group_P[first]] += np.add.reduceat(x_PD, first, axis=0)
    counts_G = np.bincount(group_W, minlength=n_groups)
    assert counts_G.min() > 0, "a group without rows"
    return sum_GD / counts_G[:, None]


def aggregate_wells(
    treated: Treated, *, aggregation: str = "spherical", level: str = "gene"
) -> pl.DataFrame:
    """Make the map: one row a gene (or guide) and one a compound dose.

    Parameters
    ----------
    treated : Treated
        Wells with the origin at the negative controls.
    aggregation : {"spherical", "mean", "guide_then_gene"}
        How wells become one embedding.
    level : {"gene", "guide"}
        What a row is for knockouts and siRNA.

    Returns
    -------
    DataFrame
        The map format, sorted by entity, kind and concentration.

    Notes
    -----
    Paper A.6 takes the spherical mean over all replicates of a perturbation. A knockout
    without a known gene stands for itself.
    """
    treated = treated.take(
        treated.wells["role"].is_in(ROLES) & treated.wells["perturbation"].is_not_null()
    )
    name = pl.col("perturbation")
    if level == "gene":
        name = (
            pl.when(pl.col("kind").is_in(GENETIC))
            .then(pl.coalesce("gene", "perturbation"))
            .otherwise(name)
        )
    wells = treated.wells.with_columns(entity=name)
    if aggregation == "guide_then_gene":
        guides, x_UD = _means(wells, treated.x_WD, (*ENTITY, "perturbation"), unit=True)
        rows, x_GD = _means(guides, x_UD, ENTITY, unit=True)
    else:
        rows, x_GD = _means(wells, treated.x_WD, ENTITY, unit=aggregation == "spherical")
    width = x_GD.shape[1]
    embedding = pl.Series("embedding", x_GD.astype(np.float32), pl.Array(pl.Float32, width))
    return rows.with_columns(embedding, pl.col("n_wells").cast(pl.Int32))


def _means(
    wells: pl.DataFrame, x_WD: Floats, keys: Sequence[str], *, unit: bool
) -> tuple[pl.DataFrame, NDArray[np.float64]]:
    """Means over wells that share the keys; rows come sorted by the keys."""
    count = pl.col("n_wells").sum() if "n_wells" in wells.columns else pl.len()
    rows = wells.group_by(keys).agg(n_wells=count).sort(keys).with_row_index("group")
    group_W = wells.join(rows, on=keys, how="left", nulls_equal=True, maintain_order="left")[
        "group"
    ].to_numpy()
    x_GD = group_means(x_WD, group_W, rows.height, unit=unit)
    return rows.drop("group"), x_GD


def nearest_neighbours(table: pl.DataFrame, k: int) -> pl.DataFrame:
    """List the k nearest and the k most opposed rows of each row of the map.

    Parameters
    ----------
    table : DataFrame
        The map format.
    k : int
        Rows listed at either end; fewer where the map is small, never one at both ends.

    Returns
    -------
    DataFrame
        The neighbours format: ranks 1, 2, ... from the nearest, -1, -2, ... from the most
        opposed.
    """
    unit_GD = unit_rows(table["embedding"].to_numpy(), table["entity"].to_list())
    n_rows = len(unit_GD)
    near_k = min(k, n_rows - 1)
    far_k = min(k, n_rows - 1 - near_k)
    which_GK = np.empty((n_rows, near_k + far_k), dtype=np.int64)
    cosine_GK = np.empty((n_rows, near_k + far_k))
    for start in range(0, n_rows, 1024):
        cosine_BG = unit_GD[start : start + 1024] @ unit_GD.T
        block = slice(start, start + len(cosine_BG))
        itself = (np.arange(len(cosine_BG)), np.arange(start, block.stop))
        for sign, columns in ((1, slice(0, near_k)), (-1, slice(near_k, near_k + far_k))):
            signed_BG = sign * cosine_BG
            signed_BG[itself] = -np.inf
            which_GK[block, columns] = _largest(signed_BG, columns.stop - columns.start)
        cosine_GK[block] = np.take_along_axis(cosine_BG, which_GK[block], axis=1)
    rank_K = np.concatenate([np.arange(1, near_k + 1), -np.arange(1, far_k + 1)])
    left = table.select(ENTITY)[np.repeat(np.arange(n_rows), len(rank_K))]
    names = {name: f"neighbour_{name}" for name in ENTITY} | {"entity": "neighbour"}
    right = table.select(ENTITY)[which_GK.ravel()].rename(names)
    return pl.concat([left, right], how="horizontal").with_columns(
        rank=pl.Series(np.tile(rank_K, n_rows), dtype=pl.Int32),
        cosine=pl.Series(cosine_GK.ravel(), dtype=pl.Float64),
    )


def _largest(values_BG: Floats, k: int) -> NDArray[np.int64]:
    """Columns of each row's k largest values, largest first, equals in column order."""
    if k == 0:
        return np.empty((len(values_BG), 0), dtype=np.int64)
    some_BK = np.sort(np.argpartition(-values_BG, k - 1, axis=1)[:, :k], axis=1)
    order_BK = np.argsort(-np.take_along_axis(values_BG, some_BK, 1), axis=1, kind="stable")
    return np.take_along_axis(some_BK, order_BK, axis=1)


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``benchmark_aggregate``."""
    files, knobs = parse_step(
        AggregateKnobs,
        inputs=["aligned*", "arms?"],
        outputs=["map", "neighbours"],
        names=["benchmark", "encoder"],
        doc=__doc__,
        argv=argv,
    )
    arms = read_table(files.arms, ARMS) if files.arms else None
    treated = read_treated(files.aligned, arms, knobs)
    table = aggregate_wells(treated, aggregation=knobs.aggregation, level=knobs.level)
    print(f"map: {table.height} rows of {treated.wells.height} wells")
    stamp = {**files.stamp, **treated.facts}
    write_table(files.map, table, MAP, stamp)
    neighbours = nearest_neighbours(table, knobs.nearest)
    write_table(files.neighbours, neighbours, NEIGHBOURS, stamp)


if __name__ == "__main__":
    run_step(main)
