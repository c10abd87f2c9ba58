"""Features of labelled wells, block by block, from the embedding stores.

Shape suffixes: W wells, S wells of one store, D features.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.errors import UserError
from phenopipe.formats.embeddings import read_attributes, read_block, read_well_ids

# Features of all labelled wells at one block, rows in the order of the wells.
Reader = Callable[[int], NDArray[np.floating]]


def open_features(
    paths: Sequence[Path], wells: pl.DataFrame
) -> tuple[pl.DataFrame, Reader, list[int], dict[str, Any]]:
    """Find the wells in the embedding stores.

    Parameters
    ----------
    paths : list of Path
        Embeddings, one store an experiment, in any order.
    wells : DataFrame
        Labelled wells.

    Returns
    -------
    wells : DataFrame
        Those with an embedding (wells without usable sites have none).
    read : callable
        Gives their features at a block.
    blocks : list of int
        Blocks that the stores hold.
    facts : mapping
        Attributes of the first store.

    Raises
    ------
    UserError
        If the stores hold different blocks, or none holds a well of some experiment.
    """
    rows = [
        (well, s, at) for s, p in enumerate(paths) for at, well in enumerate(read_well_ids(p))
    ]
    places = pl.DataFrame(
        rows, schema={"well_id": pl.String, "store": pl.Int64, "at": pl.Int64}, orient="row"
    )
    found = wells.join(places, on="well_id", how="inner", maintain_order="left")
    absent = sorted(set(wells["experiment"]) - set(found["experiment"]))
    if absent:
        raise UserError(f"no embeddings of experiments {absent} among {len(paths)} stores")
    facts = [read_attributes(path) for path in paths]
    for path, one in zip(paths, facts, strict=True):
        if one["blocks"] != facts[0]["blocks"]:
            raise UserError(f"{path}: blocks {one['blocks']}, wanted {facts[0]['blocks']}")
    blocks = [int(block) for block in facts[0]["blocks"]]
    finite = np.isfinite(_gather(paths, found, blocks[-1])).all(axis=1)
    if not finite.all():
        print(f"{(~finite).sum()} wells without an embedding are left out")
        found = found.filter(pl.Series(finite))
    return found, lambda block: _gather(paths, found, block), blocks, facts[0]


def _gather(paths: Sequence[Path], wells: pl.DataFrame, block: int) -> NDArray[np.floating]:
    store_W, at_W = wells["store"].to_numpy(), wells["at"].to_numpy()
    parts = [(np.flatnonzero(store_W == s), read_block(p, block)) for s, p in enumerate(paths)]
    x_WD = np.empty((wells.height, parts[0][1].shape[1]), dtype=np.float32)
    for mine, x_SD in parts:
        x_WD[mine] = x_SD[at_W[mine]]
    return x_WD
