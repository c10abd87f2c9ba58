import polars as pl
import pytest

from phenopipe.errors import UserError
from phenopipe.formats.images import IMAGES, write_images
from phenopipe.formats.profiles import write_profiles
from phenopipe.formats.qc import read_metrics, read_qc_wells
from phenopipe.formats.wells import write_wells
from phenopipe.qc.profiles import main, measure_profiles
from phenopipe.qc.wells import main as flag


@pytest.fixture
def wells(made_up):
    return made_up.wells_of([("perturbation", [made_up.guide("A_1")])] * 3)


def profiles_of(wells, **features):
    columns = {name: pl.Series(values, dtype=pl.Float32) for name, values in features.items()}
    return pl.DataFrame(
        {"well_id": wells["well_id"].to_list()[: len(features["a"])], **columns}
    )


def test_missing_and_infinite_features_are_counted(wells):
    profiles = profiles_of(
        wells, a=[1, float("nan"), 0], b=[2, 3, float("inf")], c=[0, 0, None]
    )
    missing = measure_profiles(wells, profiles)["missing_features"]
    assert missing.to_list() == pytest.approx([0, 1 / 3, 2 / 3])


def test_a_well_without_a_profile_lacks_all_features(wells):
    metrics = measure_profiles(wells, profiles_of(wells, a=[1, 2]))
    assert metrics["missing_features"].to_list() == [0, 0, 1]


def test_a_profile_of_no_well_is_refused(wells):
    with pytest.raises(UserError, match="not among the wells"):
        measure_profiles(wells[:2], profiles_of(wells, a=[1, 2, 3]))


def test_commands_flag_wells_with_missing_features(wells, tmp_path):
    paths = {
        name: tmp_path / f"{name}.parquet"
        for name in ("wells", "images", "profiles", "metrics", "flags")
    }
    write_wells(paths["wells"], wells, {})
    write_images(paths["images"], IMAGES.empty(), {})
    write_profiles(paths["profiles"], profiles_of(wells, a=[1, float("nan"), 3]), {})
    names = ["--screen", "made-up", "--experiment", "e1"]
    main([f"--{name}={paths[name]}" for name in ("wells", "profiles", "metrics")] + names)
    assert read_metrics(paths["metrics"]).height == 3
    flag(
        [f"--{name}={paths[name]}" for name in ("wells", "images", "metrics", "flags")] + names
    )
    flags = read_qc_wells(paths["flags"])
    assert flags["reason"].to_list() == ["", "features", ""]
    assert flags["passes"].to_list() == [True, False, True]
