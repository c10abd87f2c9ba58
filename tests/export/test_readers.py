"""Tools of the field open what the exports hold, in an environment that has no phenopipe."""

import json
import subprocess
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from phenopipe.export import h5ad, profiles
from phenopipe.export import zarr as store
from phenopipe.formats.aligned import write_aligned

from .conftest import treatment, wells_of

READERS = Path(__file__).parents[2] / ".venv" / "others" / "bin" / "python"
pytestmark = pytest.mark.skipif(
    not READERS.exists(), reason="no .venv/others, which make test installs"
)
OPEN = """
import json, sys
import anndata
try:
    import phenopipe
    sys.exit("phenopipe is here")
except ImportError:
    pass
told = {}
for path in sys.argv[1:]:
    one = anndata.read_zarr(path) if path.endswith("zarr") else anndata.read_h5ad(path)
    told[path[-4:]] = {
        "x": one.X.tolist(),
        "names": one.obs_names.tolist(),
        "features": one.var_names.tolist(),
        "genes": [None if gene != gene else gene for gene in one.obs["Metadata_Gene"]],
        "fitted": one.obs["Metadata_Fitted"].tolist(),
        "step": json.loads(one.uns["phenopipe"])["step"],
    }
    one[one.obs["Metadata_Role"] == "negative_control"].copy().write_h5ad(path + ".again.h5ad")
print(json.dumps(told))
"""
PRECISION = """
import json, sys
import pandas
from copairs.map import average_precision, mean_average_precision
table = pandas.concat([pandas.read_parquet(path) for path in sys.argv[1:]])
metadata = table.filter(like="Metadata_").reset_index(drop=True)
features = table.filter(like="feature_").to_numpy()
treated = metadata["Metadata_Perturbation"].notna().to_numpy()
metadata, features = metadata[treated].reset_index(drop=True), features[treated]
each = average_precision(
    metadata, features, ["Metadata_Perturbation"], [], [], ["Metadata_Perturbation"]
)
mean = mean_average_precision(each, ["Metadata_Perturbation"], 1000, 0.05, seed=0)
print(json.dumps(dict(zip(mean["Metadata_Perturbation"], mean["mean_average_precision"]))))
"""


def ran(script, *paths):
    done = subprocess.run(
        [READERS, "-I", "-c", script, *map(str, paths)], capture_output=True, text=True, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_anndata_reads_both_forms(screen, tmp_path):
    paths, tables, x_WD = screen
    flags = ["--aligned", *map(str, paths), "--screen", "lab", "--encoder", "mae"]
    h5ad.main([*flags, "--exported", str(tmp_path / "wells.h5ad")])
    store.main([*flags, "--exported", str(tmp_path / "wells.zarr")])
    told = ran(OPEN, tmp_path / "wells.h5ad", tmp_path / "wells.zarr")
    for one in told.values():
        assert np.array_equal(np.float32(one["x"]), x_WD)
        assert one["names"] == [n for wells in tables.values() for n in wells["well_id"]]
        assert one["features"] == [f"feature_000{i}" for i in range(5)]
        assert one["genes"] == [None, "A", None, "A|B", "B", "B", "A|B", None, "A", None]
        assert one["fitted"] == [False] * 5 + [True] * 5


def test_copairs_finds_what_is_consistent_among_exported_profiles(tmp_path):
    rng = np.random.default_rng(0)
    names = ["active", *(f"noise-{i}" for i in range(9))]
    exported = []
    for experiment in ("e1", "e2"):
        wells = wells_of(experiment, ["guide"] * 40, fitted=pl.lit(False))
        told = [[treatment(name, gene=name)] for name in names for _ in range(4)]
        treatments = pl.Series("treatments", told, dtype=wells.schema["treatments"])
        x_WD = rng.normal(size=(40, 16))
        x_WD[:4] += 10
        aligned = tmp_path / f"{experiment}.parquet"
        write_aligned(aligned, wells.with_columns(treatments), x_WD, {})
        exported.append(tmp_path / f"{experiment}-profiles.parquet")
        flags = ["--aligned", str(aligned), "--exported", str(exported[-1])]
        profiles.main(
            [*flags, "--screen", "lab", "--encoder", "mae", "--experiment", experiment]
        )
    precision = ran(PRECISION, *exported)
    assert precision.pop("active") == 1
    assert set(precision) == set(names[1:])
    assert max(precision.values()) < 0.6
