"""Features of labelled wells or their sites, block by block, from the embedding stores.

Shape suffixes: W wells (or sites), S wells of one store, D features.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.errors import UserError
from phenopipe.formats.embeddings import (
    read_attributes,
    read_block,
    read_site_wells,
    read_well_ids,
)

# Features of all labelled wells at one block, rows in the order of the wells.
Reader = Callable[[int], NDArray[np.floating]]


def find_rows(
    paths: Sequence[Path], wells: pl.DataFrame, *, sites: bool = False
) -> tuple[pl.DataFrame, list[int], dict[str, Any]]:
    """Find the wells that have an embedding (those without usable sites have none).

    Parameters
    ----------
    paths : list of Path
        Embeddings, one store an experiment, in any order.
    wells : DataFrame
        ``well_id, experiment`` of the wells that may enter.
    sites : bool
        Whether each site of a well is a row, in place of the well.

    Returns
    -------
    rows : DataFrame
        ``well_id, site, store, at``: where they lie. ``site`` counts from 1 and is null
        where rows are wells.
    blocks : list of int
        Blocks that the stores hold.
    facts : mapping
        Attributes of the first store.

    Raises
    ------
    UserError
        If the stores hold different blocks or widths, none holds a well of some experiment,
        or sites are wanted and not kept.
    """
    facts = [read_attributes(path) for path in paths]
    for path, one in zip(paths, facts, strict=True):
        for key in ("blocks", "block_dims"):
            if one[key] != facts[0][key]:
                raise UserError(f"{path}: {key} {one[key]}, wanted {facts[0][key]}")
    number = pl.int_range(1, pl.len() + 1).over("well_id") if sites else pl.lit(None)
    stores = []
    for store, path in enumerate(paths):
        names = read_site_wells(path) if sites else read_well_ids(path)
        rows = pl.DataFrame({"well_id": names}, schema={"well_id": pl.String}).select(
            "well_id", site=number.cast(pl.Int32), store=store, at=pl.int_range(pl.len())
        )
        is_whole_S = np.isfinite(read_block(path, sites=sites)).all(axis=1)
        stores.append(rows.filter(pl.Series(is_whole_S)))
    found = pl.concat(stores)
    embedded = wells.join(found, on="well_id", how="semi")
    absent = sorted(set(wells["experiment"]) - set(embedded["experiment"]))
    if absent:
        raise UserError(f"no embeddings of experiments {absent} among {len(paths)} stores")
    if embedded.height < wells.height:
        print(f"{wells.height - embedded.height} wells without an embedding are left out")
    return found, [int(block) for block in facts[0]["blocks"]], facts[0]


def read_rows(
    paths: Sequence[Path], rows: pl.DataFrame, block: int, *, sites: bool = False
) -> NDArray[np.floating]:
    """Read the features of some rows of the stores at a block.

    Parameters
    ----------
    paths : list of Path
        The stores that ``rows`` counts.
    rows : DataFrame
        ``well_id, store, at``.
    block : int
        Counted from 1.
    sites : bool
        Whether rows are sites.

    Returns
    -------
    float array of shape (n_rows, n_features)

    Raises
    ------
    UserError
        If a value is not finite: a probe cannot be fitted, and would call such a well by the
        first class.
    """
    store_W, at_W = rows["store"].to_numpy(), rows["at"].to_numpy()
    x_WD: NDArray[np.floating] = np.empty((rows.height, 0), dtype=np.float32)
    for store, path in enumerate(paths):
        mine, x_SD = np.flatnonzero(store_W == store), read_block(path, block, sites=sites)
        if store == 0:
            x_WD = np.empty((rows.height, x_SD.shape[1]), dtype=np.float32)
        x_SD = x_SD[at_W[mine]]
        bad = mine[~np.isfinite(x_SD).all(axis=1)]
        if len(bad):
            well = rows["well_id"][int(bad[0])]
            raise UserError(
                f"{path}: block {block} of well {well} is not finite, wanted numbers as in its"
                " last block"
            )
        x_WD[mine] = x_SD
    return x_WD
