"""Aligned wells of a screen, experiment by experiment, and where they came from."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.errors import UserError
from phenopipe.export.annotated import Group, write_annotated
from phenopipe.export.metadata import NAMES, feature_names, metadata_of, stacked
from phenopipe.formats.aligned import ALIGNED, read_aligned
from phenopipe.formats.tables import check_format, read_stamp, read_table


def read_metadata(paths: Sequence[Path]) -> pl.DataFrame:
    """Describe the wells of aligned experiments, one below the other, without embeddings."""
    tables = []
    for path in paths:
        check_format(path, ALIGNED)
        columns = [name for name in pl.read_parquet_schema(path) if name != "embedding"]
        tables.append(metadata_of(read_table(path, ALIGNED, columns)))
    return stacked(tables)


def width_of(paths: Sequence[Path]) -> int:
    """Number of features of aligned experiments.

    Raises
    ------
    UserError
        If there is none, or two differ.
    """
    widths = {path: _width(path) for path in paths}
    if not widths:
        raise UserError("no aligned experiment, wanted one or more to export")
    first, wanted = next(iter(widths.items()))
    for path, found in widths.items():
        if found != wanted:
            raise UserError(f"{path}: {found} features, wanted {wanted} as in {first}")
    return wanted


def _width(path: Path) -> int:
    dtype = pl.read_parquet_schema(path)["embedding"]
    assert isinstance(dtype, pl.Array), "checked when it was written"
    return dtype.size


def embeddings_of(paths: Sequence[Path]) -> Iterator[NDArray[np.float32]]:
    """Yield the embeddings of each experiment, (n_wells, n_features)."""
    for path in paths:
        yield read_aligned(path)[1]


def annotate_wells(root: Group, paths: Sequence[Path], told: str, rows_a_chunk: int) -> None:
    """Write the aligned wells of a screen as AnnData; one experiment is held at once."""
    write_annotated(
        root,
        read_metadata(paths),
        embeddings_of(paths),
        feature_names(width_of(paths)),
        index=NAMES["well_id"],
        told={"phenopipe": told},
        rows_a_chunk=rows_a_chunk,
    )


def provenance(stamp: Mapping[str, Any], paths: Sequence[Path]) -> str:
    """Tell where an export came from: its stamp, and those of what it was made from."""
    made_from = [read_stamp(path) for path in paths]
    return json.dumps({**stamp, "made_from": made_from}, sort_keys=True, default=str)
