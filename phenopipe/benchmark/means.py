"""Means over wells that come in parts: only sums are held, in double precision.

Shape suffixes: W wells, P wells or groups of one part, G groups, D features.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.benchmark.treated import Floats, unit_rows

ROWS_A_PASS = 65_536
# Rows of sums that wait to be added up.
MAX_PENDING = 50_000


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
    """
    counts_G = np.bincount(group_W, minlength=n_groups)
    assert counts_G.min() > 0, "a group without rows"
    return group_sums(x_WD, group_W, n_groups, unit=unit) / counts_G[:, None]


def group_sums(
    x_WD: Floats, group_W: NDArray[np.integer], n_groups: int, *, unit: bool = True
) -> NDArray[np.float64]:
    """Sum of each group's rows; zero for a group without any.

    Notes
    -----
    Sums are kept in double precision; wells pass in portions, so that memory does not grow
    with their number.
    """
    sum_GD = np.zeros((n_groups, x_WD.shape[1]))
    order_W = np.argsort(group_W, kind="stable")
    for start in range(0, len(order_W), ROWS_A_PASS):
        rows = order_W[start : start + ROWS_A_PASS]
        x_PD = unit_rows(x_WD[rows]) if unit else x_WD[rows].astype(np.float64)
        group_P = group_W[rows]
        first = np.flatnonzero(np.diff(group_P, prepend=-1))
        sum_GD[group_P[first]] += np.add.reduceat(x_PD, first, axis=0)
    return sum_GD


def groups_of(
    wells: pl.DataFrame, keys: Sequence[str]
) -> tuple[pl.DataFrame, NDArray[np.int64]]:
    """Groups of wells that share the keys, with their ``n_wells``, and the group of each."""
    count = pl.col("n_wells").sum() if "n_wells" in wells.columns else pl.len()
    rows = wells.group_by(keys).agg(n_wells=count).sort(keys)
    numbered = rows.drop("n_wells").with_row_index("group")
    group_W = wells.join(
        numbered, on=list(keys), how="left", nulls_equal=True, maintain_order="left"
    )["group"]
    return rows, group_W.cast(pl.Int64).to_numpy()


class Means:
    """Means of groups of wells that come in parts; only sums are held.

    Parameters
    ----------
    keys : list of str
        Columns that wells of one group share.
    unit : bool
        Whether wells are scaled to length one first.
    """

    def __init__(self, keys: Sequence[str], *, unit: bool) -> None:
        self.keys = list(keys)
        self.unit = unit
        self.parts: list[tuple[pl.DataFrame, NDArray[np.float64]]] = []

    def add(self, wells: pl.DataFrame, x_WD: Floats) -> None:
        """Add some wells."""
        rows, group_W = groups_of(wells, self.keys)
        self.parts.append((rows, group_sums(x_WD, group_W, rows.height, unit=self.unit)))
        # Groups that recur from part to part take room once for each, for a while.
        if len(self.parts) > 1 and sum(r.height for r, _ in self.parts[1:]) > MAX_PENDING:
            self._merge()

    def result(self) -> tuple[pl.DataFrame, NDArray[np.float64]]:
        """Groups with their ``n_wells``, sorted by the keys, and the mean of each."""
        self._merge()
        rows, sum_GD = self.parts[0]
        return rows, sum_GD / rows["n_wells"].to_numpy()[:, None]

    def _merge(self) -> None:
        if len(self.parts) < 2:
            return
        rows, group_P = groups_of(pl.concat([rows for rows, _ in self.parts]), self.keys)
        sum_GD = np.zeros((rows.height, self.parts[0][1].shape[1]))
        start = 0
        for part, sum_PD in self.parts:
            # No group twice in one part.
            sum_GD[group_P[start : start + part.height]] += sum_PD
            start += part.height
        self.parts = [(rows, sum_GD)]
