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


def open_features(
    paths: Sequence[Path], wells: pl.DataFrame, *, sites: bool = False
) -> tuple[pl.DataFrame, Reader, list[int], dict[str, Any]]:
    """Find the wells in the embedding stores.

    Parameters
    ----------
    paths : list of Path
        Embeddings, one store an experiment, in any order.
    wells : DataFrame
        Labelled wells.
    sites : bool
        Whether each site of a well is a row, in place of the well.

    Returns
    -------
    wells : DataFrame
        Those with an embedding (wells without usable sites have none), and their ``site``,
        from 1: null where rows are wells.
    read : callable
        Gives their features at a block.
    blocks : list of int
        Blocks that the stores hold.
    facts : mapping
        Attributes of the first store.

    Raises
    ------
    UserError
        If the stores hold different blocks, none holds a well of some experiment, or sites
        are wanted and not kept.
    """
    names = read_site_wells if sites else read_well_ids
    rows = [(well, s, at) for s, p in enumerate(paths) for at, well in enumerate(names(p))]
    places = pl.DataFrame(
        rows, schema={"well_id": pl.String, "store": pl.Int64, "at": pl.Int64}, orient="row"
    )
    number = pl.int_range(1, pl.len() + 1).over("well_id") if sites else pl.lit(None)
    places = places.with_columns(site=number.cast(pl.Int32))
    found = wells.join(places, on="well_id", how="inner", maintain_order="left")
    absent = sorted(set(wells["experiment"]) - set(found["experiment"]))
    if absent:
        raise UserError(f"no embeddings of experiments {absent} among {len(paths)} stores")
    facts = [read_attributes(path) for path in paths]
    for path, one in zip(paths, facts, strict=True):
        if one["blocks"] != facts[0]["blocks"]:
            raise UserError(f"{path}: blocks {one['blocks']}, wanted {facts[0]['blocks']}")
    blocks = [int(block) for block in facts[0]["blocks"]]
    finite = np.isfinite(_gather(paths, found, blocks[-1], sites=sites)).all(axis=1)
    if not finite.all():
        print(f"{(~finite).sum()} wells without an embedding are left out")
        found = found.filter(pl.Series(finite))

    def read(block: int) -> NDArray[np.floating]:
        return _gather(paths, found, block, sites=sites)

    return found, read, blocks, facts[0]


def _gather(
    paths: Sequence[Path], wells: pl.DataFrame, block: int, *, sites: bool
) -> NDArray[np.floating]:
    store_W, at_W = wells["store"].to_numpy(), wells["at"].to_numpy()
    x_WD: NDArray[np.floating] = np.empty((wells.height, 0), dtype=np.float32)
    for s, path in enumerate(paths):
        mine, x_SD = np.flatnonzero(store_W == s), read_block(path, block, sites=sites)
        if s == 0:
            x_WD = np.empty((wells.height, x_SD.shape[1]), dtype=np.float32)
        x_WD[mine] = x_SD[at_W[mine]]
    return x_WD
