"""Step ``aggregate``: the map, one embedding a gene or compound dose, and its neighbours.

Shape suffixes: N replicates, W wells, G rows of the map, D features, K neighbours.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.benchmark.config import AggregateKnobs
from phenopipe.benchmark.means import Means, group_means, groups_of
from phenopipe.benchmark.treated import Floats, Treated, TreatedFiles, unit_rows
from phenopipe.chromosomes import arm_offsets
from phenopipe.errors import UserError
from phenopipe.formats.arms import ARMS
from phenopipe.formats.genes import GENES
from phenopipe.formats.maps import MAP, NEIGHBOURS
from phenopipe.formats.tables import read_table, write_table
from phenopipe.formats.wells import GENE_KINDS
from phenopipe.knobs import parse_step, run_step

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
        If there is no row, or one has length zero, so that it points nowhere.

    Examples
    --------
    >>> spherical_mean(np.array([[3.0, 0.0], [0.0, 0.5]]))
    array([0.5, 0.5])
    """
    if not len(x_ND):
        raise UserError("no replicate, wanted at least one")
    mean_D: NDArray[np.float64] = unit_rows(x_ND).mean(axis=0)
    return mean_D


def aggregate_wells(
    treated: Treated | Iterable[Treated], *, aggregation: str = "spherical", level: str = "gene"
) -> pl.DataFrame:
    """Make the map: one row a gene (or guide) and one a compound dose.

    Parameters
    ----------
    treated : Treated, or several
        Wells with the origin at the negative controls; all, or an experiment at a time.
    aggregation : {"spherical", "mean", "guide_then_gene"}
        How wells become one embedding.
    level : {"gene", "guide"}
        What a row is for knockouts, siRNA and overexpression.

    Returns
    -------
    DataFrame
        The map format, sorted by entity, kind and concentration.

    Raises
    ------
    UserError
        If no well has a perturbation to stand for.

    Notes
    -----
    Paper A.6 takes the spherical mean over all replicates of a perturbation. A knockout
    without a known gene stands for itself.
    """
    twice = aggregation == "guide_then_gene"
    keys = (*ENTITY, "perturbation") if twice else ENTITY
    means = Means(keys, unit=aggregation != "mean")
    found: set[str] = set()
    for part in [treated] if isinstance(treated, Treated) else treated:
        found |= set(part.wells["role"])
        wells, x_WD = _on_the_map(part, level)
        means.add(wells, x_WD)
    rows, x_GD = means.result()
    if not rows.height:
        raise UserError(
            f"no well with a perturbation for the map, wanted roles {', '.join(ROLES)},"
            f" found {sorted(found)}"
        )
    if twice:
        rows, group_U = groups_of(rows, ENTITY)
        x_GD = group_means(x_GD, group_U, rows.height)
    width = x_GD.shape[1]
    embedding = pl.Series("embedding", x_GD.astype(np.float32), pl.Array(pl.Float32, width))
    return rows.with_columns(embedding, pl.col("n_wells").cast(pl.Int32))


def _on_the_map(treated: Treated, level: str) -> tuple[pl.DataFrame, Floats]:
    """Wells that go on the map, with the ``entity`` that each belongs to."""
    treated = treated.take(
        treated.wells["role"].is_in(ROLES) & treated.wells["perturbation"].is_not_null()
    )
    name = pl.col("perturbation")
    if level == "gene":
        name = (
            pl.when(pl.col("kind").is_in(GENE_KINDS))
            .then(pl.coalesce("gene", "perturbation"))
            .otherwise(name)
        )
    return treated.wells.with_columns(entity=name), treated.x_WD


def correct_map(
    table: pl.DataFrame, genes: pl.DataFrame, knobs: AggregateKnobs
) -> pl.DataFrame:
    """Take off the map what chromosome arms add: the public reference's form.

    Parameters
    ----------
    table : DataFrame
        The map format, of wells that were not corrected.
    genes : DataFrame
        The genes format: ``gene, arm, expression``.
    knobs : AggregateKnobs
        Which genes count as unexpressed, and how many an arm must have.
    """
    known = table.select("entity", "kind").join(
        genes, left_on="entity", right_on="gene", how="left", maintain_order="left"
    )
    cut = pl.col("kind") == "knockout"
    quiet = (cut & (pl.col("expression") < knobs.max_expression)).fill_null(value=False)
    arm_G = known.select(pl.when(cut).then("arm"))["arm"].to_list()
    x_GD = table["embedding"].to_numpy()
    offset_GD, is_corrected_G = arm_offsets(
        x_GD, arm_G, known.select(quiet).to_series().to_list(), min_genes=knobs.min_genes
    )
    print(f"arms corrected on the map: {is_corrected_G.sum()} of {table.height} rows")
    corrected = pl.Series((x_GD - offset_GD).astype(np.float32), dtype=table["embedding"].dtype)
    return table.with_columns(embedding=corrected)


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
    near_k = max(min(k, n_rows - 1), 0)
    far_k = max(min(k, n_rows - 1 - near_k), 0)
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
        inputs=["aligned*", "arms?", "genes?"],
        outputs=["map", "neighbours"],
        names=["benchmark", "encoder"],
        doc=__doc__,
        argv=argv,
    )
    on_map = knobs.arms_on == "map"
    if on_map and not files.genes:
        raise UserError("arms_on: map, but the screen has no table of genes")
    arms = read_table(files.arms, ARMS) if files.arms and not on_map else None
    if arms is not None:
        told = arms.filter("corrected")
        print(f"arms corrected: {told['arm'].n_unique()}, with {told.height} genes")
    treated = TreatedFiles(files.aligned, arms, knobs)
    table = aggregate_wells(treated, aggregation=knobs.aggregation, level=knobs.level)
    if on_map:
        table = correct_map(table, read_table(files.genes, GENES), knobs)
    print(f"map: {table.height} rows of {table['n_wells'].sum()} wells")
    stamp = {**files.stamp, **treated.facts}
    write_table(files.map, table, MAP, stamp)
    neighbours = nearest_neighbours(table, knobs.nearest)
    write_table(files.neighbours, neighbours, NEIGHBOURS, stamp)


if __name__ == "__main__":
    run_step(main)
