import json

import h5py
import numpy as np
import polars as pl
import pytest
import zarr

from phenopipe.errors import UserError
from phenopipe.export import h5ad, maps
from phenopipe.export import zarr as store
from phenopipe.export.annotated import write_annotated
from phenopipe.formats.aligned import write_aligned
from phenopipe.formats.maps import MAP
from phenopipe.formats.tables import write_table

from .conftest import wells_of

NAMES = ["--screen", "lab", "--encoder", "mae"]


def exported(step, paths, out):
    step.main(["--aligned", *map(str, paths), "--exported", str(out), *NAMES])
    return out


@pytest.mark.parametrize(
    ("step", "opened"), [(h5ad, h5py.File), (store, zarr.open_group)], ids=["h5ad", "zarr"]
)
def test_wells_of_all_experiments_lie_in_one_table(screen, tmp_path, step, opened):
    paths, tables, x_WD = screen
    root = opened(exported(step, paths, tmp_path / "wells"), mode="r")
    assert np.array_equal(root["X"][:], x_WD)
    names = [n.decode() if isinstance(n, bytes) else n for n in root["obs/_index"][:]]
    assert names == [n for wells in tables.values() for n in wells["well_id"]]
    genes = [
        n.decode() if isinstance(n, bytes) else n
        for n in root["obs/Metadata_Gene/categories"][:]
    ]
    codes = root["obs/Metadata_Gene/codes"][:].tolist()
    assert [None if c < 0 else genes[c] for c in codes[:5]] == [None, "A", None, "A|B", "B"]
    assert np.isnan(root["obs/Metadata_Lot"][:5]).all()
    assert (root["obs/Metadata_Lot"][5:] == 7).all()
    told = root["uns/phenopipe"][()]
    made_from = json.loads(told if isinstance(told, str) else np.asarray(told).item())[
        "made_from"
    ]
    assert [one["names"]["experiment"] for one in made_from] == ["e1", "e2"]


def test_equal_inputs_give_equal_bytes(screen, tmp_path):
    one, other = (exported(h5ad, screen[0], tmp_path / n) for n in ("a.h5ad", "b.h5ad"))
    assert one.read_bytes() == other.read_bytes()


def test_experiments_of_different_widths_are_refused_by_name(screen, tmp_path):
    narrow = tmp_path / "narrow.parquet"
    wells = wells_of("e3", ["guide"], fitted=pl.lit(False))
    write_aligned(narrow, wells, np.ones((1, 2)), {})
    with pytest.raises(UserError, match=r"narrow\.parquet: 2 features, wanted 5"):
        exported(h5ad, [*screen[0], narrow], tmp_path / "wells.h5ad")
    assert not (tmp_path / "wells.h5ad").exists()


def test_no_wells_are_a_table_too(tmp_path):
    obs = pl.DataFrame({"name": []}, schema={"name": pl.String})
    with h5py.File(tmp_path / "none.h5ad", "w") as root:
        write_annotated(root, obs, [], ["feature_0000"], index="name", told={})
        assert root["X"].shape == (0, 1)


def test_a_map_has_one_row_an_entity(tmp_path):
    x_GD = np.arange(8, dtype=np.float32).reshape(4, 2)
    table = pl.DataFrame(
        {
            "entity": ["A", "B", "drug", "drug"],
            "kind": ["knockout", "knockout", "compound", "compound"],
            "concentration_um": [None, None, 1.0, 10.0],
            "n_wells": pl.Series([3, 4, 5, 6], dtype=pl.Int32),
            "embedding": pl.Series(x_GD, dtype=pl.Array(pl.Float32, 2)),
        }
    )
    write_table(tmp_path / "map.parquet", table, MAP, {})
    flags = ["--map", str(tmp_path / "map.parquet"), "--exported", str(tmp_path / "map.h5ad")]
    maps.main([*flags, "--benchmark", "genome", "--encoder", "mae"])
    with h5py.File(tmp_path / "map.h5ad") as root:
        assert np.array_equal(root["X"][:], x_GD)
        names = [n.decode() for n in root["obs/_index"][:]]
        assert names == ["A", "B", "drug at 1.0 µM", "drug at 10.0 µM"]
        assert root["obs/n_wells"][:].tolist() == [3, 4, 5, 6]
