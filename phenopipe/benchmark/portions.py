"""All wells of some conditions at a time, gathered from files that are never held together.

Shape suffixes: N wells, D features.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.benchmark.treated import Floats, Treated, TreatedFiles

# Wells that are held at once, beside those of one file: 0.15 GB at 384 features, twice while
# they are put together.
WELLS_A_PORTION = 100_000
Load = Callable[[], Treated]


def loads_of(treated: Treated | TreatedFiles) -> list[Load]:
    """What gives the wells of each file; of all wells, where they are at hand."""
    if isinstance(treated, Treated):
        return [lambda: treated]
    return [partial(treated.read, path) for path in treated.paths]


def survey(loads: Sequence[Load], enters: pl.Expr, keys: Sequence[str]) -> pl.DataFrame:
    """Conditions of every file: their keys, ``gene``, ``n_wells``, and the file's number.

    Parameters
    ----------
    loads : list of callable
        Each gives the wells of one file.
    enters : expression
        Which wells belong to conditions.
    keys : list of str
        Columns that name a condition.
    """
    gene = () if "gene" in keys else (pl.col("gene").first(),)
    listed = [
        load().wells.filter(enters).group_by(keys).agg(*gene, n_wells=pl.len(), file=pl.lit(at))
        for at, load in enumerate(loads)
    ]
    return pl.concat(listed)


def portions(
    listed: pl.DataFrame, wanted: pl.DataFrame, keys: Sequence[str], size: int
) -> list[pl.DataFrame]:
    """Part conditions into portions of about so many wells, neighbours by their first file.

    Parameters
    ----------
    listed : DataFrame
        Conditions of every file, as :func:`survey` gives them.
    wanted : DataFrame
        The keys and ``n_wells`` of each condition that is wanted.
    keys : list of str
        Columns that name a condition.
    size : int
        Wells of a portion; a single condition may have more.
    """
    first = listed.group_by(keys).agg(_first=pl.col("file").min())
    placed = wanted.join(first, on=keys, nulls_equal=True).sort("_first", *keys)
    before = pl.col("n_wells").cum_sum() - pl.col("n_wells")
    numbered = placed.drop("_first").with_columns(_portion=before // size)
    return [
        part.drop("_portion") for _, part in numbered.group_by("_portion", maintain_order=True)
    ]


def gather(
    loads: Sequence[Load],
    enters: pl.Expr,
    listed: pl.DataFrame,
    portion: pl.DataFrame,
    keys: Sequence[str],
) -> Iterator[Floats]:
    """Vectors of each condition of a portion, (n_wells, n_features), wells in files' order."""
    mine = portion.select(keys).with_row_index("condition")
    files = listed.join(mine, on=keys, nulls_equal=True)["file"].unique().sort()
    conditions: list[NDArray[np.int64]] = []
    vectors: list[Floats] = []
    for number in files:
        treated = loads[number]()
        rows = treated.wells.with_row_index("at").filter(enters).select("at", *keys)
        found = rows.join(mine, on=keys, nulls_equal=True, maintain_order="left")
        conditions.append(found["condition"].to_numpy().astype(np.int64))
        vectors.append(treated.x_WD[found["at"].to_numpy()])
    condition_N, x_ND = np.concatenate(conditions), np.concatenate(vectors)
    order_N = np.argsort(condition_N, kind="stable")
    ends = np.searchsorted(condition_N[order_N], np.arange(mine.height + 1))
    for first, last in pairwise(ends):
        yield x_ND[order_N[first:last]]
