"""AnnData on disk, written part by part: in an HDF5 file or in a zarr store.

The library anndata writes what it holds in memory, and wants an older pandas than Snakemake
brings. Its form on disk is a published one (anndata 0.8 and later), of which this is the
part that a table of embeddings needs; tests read it back with anndata itself.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import h5py
import numpy as np
import polars as pl
import zarr
from numpy.typing import NDArray

Group: TypeAlias = h5py.Group | zarr.Group
Floats = NDArray[np.float32]
# Version of each element's form, which readers choose by.
VERSIONS = {
    "anndata": "0.1.0",
    "array": "0.2.0",
    "categorical": "0.2.0",
    "dataframe": "0.2.0",
    "dict": "0.1.0",
    "string": "0.2.0",
    "string-array": "0.2.0",
}
_TEXT = h5py.string_dtype("utf-8")


def write_annotated(
    root: Group,
    obs: pl.DataFrame,
    parts: Iterable[Floats],
    features: list[str],
    *,
    index: str,
    told: Mapping[str, str],
    rows_a_chunk: int = 1024,
) -> None:
    """Write embeddings with what is known of each, as AnnData.

    Parameters
    ----------
    root : h5py.Group or zarr.Group
        An empty file or store.
    obs : DataFrame, n_rows long
        Columns of text, whole numbers, numbers or truth values; texts become categories,
        whole numbers with nulls become numbers.
    parts : iterable of float32 arrays of shape (n_rows of it, n_features)
        The rows of X one after the other; one part is held at once.
    features : list of str, n_features long
        Names of the columns of X.
    index : str
        Column of ``obs`` whose texts name the rows.
    told : mapping of str to str
        What ``uns`` holds.
    rows_a_chunk : int
        Rows of X that lie together.
    """
    _mark(root, "anndata")
    shape = (obs.height, len(features))
    x = _empty(root, "X", shape, (max(1, min(rows_a_chunk, obs.height)), len(features)))
    row = 0
    for part in parts:
        x[row : row + len(part)] = part
        row += len(part)
    assert row == obs.height, "as many embeddings as descriptions"
    _write_table(root, "obs", obs.drop(index), obs[index].cast(pl.String).to_list())
    _write_table(root, "var", pl.DataFrame(), features)
    uns = _group(root, "uns", "dict")
    for name, text in told.items():
        _write_text(uns, name, text)
    for name in ("layers", "obsm", "obsp", "varm", "varp"):
        _group(root, name, "dict")


def _write_table(root: Group, name: str, table: pl.DataFrame, index: list[str]) -> None:
    group = _group(root, name, "dataframe")
    group.attrs["_index"] = "_index"
    if isinstance(group, h5py.Group):
        group.attrs.create("column-order", table.columns, dtype=_TEXT)
    else:
        group.attrs["column-order"] = table.columns
    _write_texts(group, "_index", index)
    for column in table:
        if column.dtype == pl.String:
            _write_categories(group, column)
        elif (
            column.dtype.is_integer() or column.dtype == pl.Boolean
        ) and not column.has_nulls():
            _write_array(group, column.name, column.to_numpy())
        else:
            _write_array(group, column.name, column.cast(pl.Float64).to_numpy())


def _write_categories(parent: Group, column: pl.Series) -> None:
    """Write texts as numbers of sorted categories; -1 stands for none."""
    group = _group(parent, column.name, "categorical")
    group.attrs["ordered"] = False
    names = column.drop_nulls().unique().sort()
    codes = column.cast(pl.Enum(names)).to_physical().cast(pl.Int32).fill_null(-1)
    _write_array(group, "codes", codes.to_numpy())
    _write_texts(group, "categories", names.to_list())


def _group(parent: Group, name: str, kind: str) -> Group:
    made = parent.create_group(name)
    _mark(made, kind)
    return made


def _mark(element: Any, kind: str) -> None:  # noqa: ANN401 - a group or array of either library
    element.attrs["encoding-type"] = kind
    element.attrs["encoding-version"] = VERSIONS[kind]


def _empty(parent: Group, name: str, shape: tuple[int, int], chunk: tuple[int, int]) -> Any:  # noqa: ANN401
    if isinstance(parent, h5py.Group):
        # HDF5 wants no chunk larger than the array.
        chunks = chunk if shape[0] else None
        array = parent.create_dataset(name, shape=shape, dtype="float32", chunks=chunks)
    else:
        array = parent.create_array(name, shape=shape, dtype="float32", chunks=chunk)
    _mark(array, "array")
    return array


def _write_array(parent: Group, name: str, values: NDArray[Any]) -> None:
    create = parent.create_dataset if isinstance(parent, h5py.Group) else parent.create_array
    _mark(create(name, data=np.ascontiguousarray(values)), "array")


def _write_texts(parent: Group, name: str, texts: list[str]) -> None:
    if isinstance(parent, h5py.Group):
        array = parent.create_dataset(name, data=np.array(texts, dtype=object), dtype=_TEXT)
    else:
        array = parent.create_array(name, data=np.array(texts, dtype=np.dtypes.StringDType()))
    _mark(array, "string-array")


def _write_text(parent: Group, name: str, text: str) -> None:
    if isinstance(parent, h5py.Group):
        array = parent.create_dataset(name, data=text, dtype=_TEXT)
    else:
        array = parent.create_array(name, data=np.array(text, dtype=np.dtypes.StringDType()))
    _mark(array, "string")
