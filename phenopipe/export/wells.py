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
from phenopipe.formats.aligned import ALIGNED
from phenopipe.formats.tables import check_format, read_stamp, read_table
from phenopipe.knobs import StepFiles


def read_metadata(paths: Sequence[Path], n_rows: int | None = None) -> pl.DataFrame:
    """Describe the wells of aligned experiments, one below the other, without embeddings.

    Parameters
    ----------
    paths : list of Path
        The experiments.
    n_rows : int, optional
        The first wells of each alone; 0 leaves the columns.
    """
    tables = []
    for path in paths:
        check_format(path, ALIGNED)
        columns = [name for name in pl.read_parquet_schema(path) if name != "embedding"]
        tables.append(metadata_of(pl.read_parquet(path, columns=columns, n_rows=n_rows)))
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
        yield read_table(path, ALIGNED, ["embedding"])["embedding"].to_numpy()


def annotate_wells(root: Group, files: StepFiles, rows_a_chunk: int) -> None:
    """Write the aligned wells of a screen as AnnData; one experiment is held at once."""
    paths = files.aligned
    write_annotated(
        root,
        read_metadata(paths),
        embeddings_of(paths),
        feature_names(width_of(paths)),
        index=NAMES["well_id"],
        told={"phenopipe": provenance(files.stamp, paths)},
        rows_a_chunk=rows_a_chunk,
    )


def provenance(stamp: Mapping[str, Any], paths: Sequence[Path]) -> str:
    """Tell where an export came from: its stamp, and those of what it was made from."""
    made_from = [read_stamp(path) for path in paths]
    return json.dumps({**stamp, "made_from": made_from}, sort_keys=True, default=str)
