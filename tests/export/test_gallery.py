import numpy as np
import polars as pl
import pytest

from phenopipe.errors import UserError
from phenopipe.export.gallery import main, plates_of
from phenopipe.export.profiles import main as export_profiles
from phenopipe.export.profiles import read_profiles
from phenopipe.formats.tables import read_stamp

FEATURES = [f"feature_000{i}" for i in range(5)]


@pytest.fixture
def gallery(screen, tmp_path):
    (tmp_path / "transform.npz").write_bytes(b"transform")
    flags = ["--aligned", *map(str, screen[0]), "--transform", str(tmp_path / "transform.npz")]
    flags += ["--exported", str(tmp_path / "gallery"), "--screen", "lab", "--encoder", "mae"]
    main([*flags, "--project", "cpg0000-lab", "--source", "source_1"])
    return tmp_path / "gallery" / "cpg0000-lab" / "source_1" / "workspace_dl"


def test_the_tree_is_that_of_the_gallery(gallery):
    (network,) = {path.name for path in gallery.glob("*/*")}
    assert network.startswith("mae_") and len(network) == len("mae_") + 8
    assert sorted(str(p.relative_to(gallery)) for p in gallery.rglob("*.parquet")) == [
        f"collated/{network}/collated.parquet",
        f"consensus/{network}/consensus.parquet",
        f"profiles/{network}/e1/plate-1/plate-1.parquet",
        f"profiles/{network}/e1/plate-2/plate-2.parquet",
        f"profiles/{network}/e2/plate-1/plate-1.parquet",
        f"profiles/{network}/e2/plate-2/plate-2.parquet",
    ]


def test_every_file_says_where_it_came_from(gallery):
    for path in gallery.rglob("*.parquet"):
        stamp = read_stamp(path)
        assert stamp["names"] == {"screen": "lab", "encoder": "mae"}
        assert [one["names"]["experiment"] for one in stamp["made_from"]] == ["e1", "e2"]


def test_plates_together_are_the_collated_table(gallery, screen):
    (collated,) = gallery.glob("collated/*/*.parquet")
    whole = pl.read_parquet(collated)
    assert np.array_equal(whole.select(FEATURES).to_numpy(), screen[2])
    plates = pl.concat([pl.read_parquet(p) for p in gallery.glob("profiles/*/*/*/*.parquet")])
    assert plates.sort("Metadata_WellId").equals(whole.sort("Metadata_WellId"))


def test_the_consensus_is_the_mean_of_each_condition(gallery, screen):
    (path,) = gallery.glob("consensus/*/*.parquet")
    found = pl.read_parquet(path)
    rows = pl.concat([read_profiles(path) for path in screen[0]], how="diagonal")
    key = ["Metadata_Perturbation", "Metadata_Concentration", "Metadata_Background"]
    treated = rows.filter(pl.col("Metadata_Perturbation").is_not_null())
    wanted = treated.group_by(key).agg(
        pl.col(FEATURES).cast(pl.Float64).mean().cast(pl.Float32),
        Metadata_Wells=pl.len().cast(pl.Int64),
    )
    assert found.height == 4
    order = dict(by=key, nulls_last=True)
    assert found.select(wanted.columns).sort(**order).equals(wanted.sort(**order))


def test_a_plate_cannot_leave_the_tree():
    profiles = pl.DataFrame({"Metadata_Batch": ["e1"], "Metadata_Plate": ["../../x"]})
    with pytest.raises(UserError, match=r"plate '../../x', wanted a name of a folder"):
        list(plates_of(profiles))


def test_profiles_of_an_experiment_are_a_wide_table(screen, tmp_path):
    flags = ["--aligned", str(screen[0][0]), "--exported", str(tmp_path / "e1.parquet")]
    export_profiles([*flags, "--screen", "lab", "--encoder", "mae", "--experiment", "e1"])
    found = pl.read_parquet(tmp_path / "e1.parquet")
    assert read_stamp(tmp_path / "e1.parquet")["names"]["experiment"] == "e1"
    assert [n for n in found.columns if not n.startswith("Metadata_")] == FEATURES
    assert np.array_equal(found.select(FEATURES).to_numpy(), screen[2][:5])
