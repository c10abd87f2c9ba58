import numpy as np
import polars as pl
import pytest

from phenopipe.errors import UserError
from phenopipe.formats.images import read_images
from phenopipe.formats.profiles import feature_names, read_profiles, write_profiles
from phenopipe.formats.wells import read_wells
from phenopipe.screen.profiles import main
from tests.screen.plates import arguments, profile_knobs, table


def features(rows, n=3):
    values = np.arange(rows.height * n, dtype=float).reshape(rows.height, n)
    return rows.with_columns(**{f"f{at}": values[:, at] for at in range(n)})


def convert(folder, rows, knobs=None):
    path = folder / "profiles.csv"
    rows.write_csv(path)
    main(arguments(folder, [path], knobs or profile_knobs(), last="profiles"))
    return read_profiles(folder / "out/profiles.parquet")


def test_features_follow_the_order_of_the_wells(tmp_path):
    profiles = convert(tmp_path, features(table()).reverse())
    wells = read_wells(tmp_path / "out/wells.parquet")
    assert profiles["well_id"].to_list() == wells["well_id"].to_list()
    assert feature_names(profiles) == ["f0", "f1", "f2"]
    assert profiles["f0"].to_list() == [0.0, 3.0, 6.0]
    assert read_images(tmp_path / "out/images.parquet").height == 0


def test_features_are_what_is_not_metadata(tmp_path):
    rows = features(table())
    renamed = {name: f"Metadata_{name}" for name in table().columns}
    columns = {"plate": "Metadata_plate", "well": "Metadata_well", "role": "Metadata_role"}
    knobs = profile_knobs(
        feature_prefixes=[],
        leave_out=["f1"],
        columns={**columns, "cell_type": {"constant": "U2OS"}},
    )
    assert feature_names(convert(tmp_path, rows.rename(renamed), knobs)) == ["f0", "f2"]


def test_without_a_prefix_only_columns_that_are_named_are_metadata(tmp_path):
    rows = features(table())
    knobs = profile_knobs(feature_prefixes=[], metadata_prefix="", leave_out=["dna", "actin"])
    found = feature_names(convert(tmp_path, rows, knobs))
    assert found == feature_names(convert(tmp_path, rows, profile_knobs()))


def test_a_column_that_the_configuration_names_is_no_feature(tmp_path):
    rows = features(table()).rename({"plate": "Plate"}).with_columns(week=1.0, plate=7, age=3.0)
    columns = profile_knobs().columns.model_dump(mode="json")
    columns |= {"plate": {"template": "{Plate}-{plate}"}, "labels": {"age": "age"}}
    knobs = profile_knobs(
        feature_prefixes=[], columns=columns, where={"week": [1]}, leave_out=["dna", "actin"]
    )
    profiles = convert(tmp_path, rows, knobs)
    assert feature_names(profiles) == ["f0", "f1", "f2"]
    # The compound's dose, which is a number too, is known to the wells alone.
    wells = read_wells(tmp_path / "out/wells.parquet")
    assert {"Metadata_age"} < set(wells.columns) and wells["plate"][0] == "p1-7"


def test_a_missing_or_infinite_feature_is_nan(tmp_path):
    rows = features(table()).with_columns(
        f1=pl.Series([None, 1.0, 2.0]), f2=pl.Series([1.0, float("inf"), 2.0])
    )
    profiles = convert(tmp_path, rows)
    assert profiles["f1"].is_nan().to_list() == [True, False, False]
    assert profiles["f2"].is_nan().to_list() == [False, True, False]


def test_a_feature_missing_in_most_wells_stops_with_its_name(tmp_path):
    rows = features(table()).with_columns(f1=pl.Series([None, None, 2.0]))
    with pytest.raises(UserError, match=r"1 features are missing .* leave_out: f1"):
        convert(tmp_path, rows)
    convert(tmp_path, rows, profile_knobs(leave_out=["f1"]))


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (table(), "no feature column"),
        (features(table()).with_columns(f1=pl.lit("high")), "feature 'f1' holds String"),
        (features(table(("A01", "B1", "B01"))), "row 3: well e1/p1/B01 is already in"),
    ],
)
def test_tables_that_are_no_profiles_are_refused(tmp_path, rows, told):
    with pytest.raises(UserError, match=told):
        convert(tmp_path, rows)
    assert not (tmp_path / "out").exists()


def test_the_format_refuses_features_of_another_type(tmp_path):
    with pytest.raises(UserError, match="wanted Float32"):
        write_profiles(tmp_path / "x.parquet", pl.DataFrame({"well_id": ["a"], "f": [1.0]}), {})
    with pytest.raises(UserError, match="no feature column"):
        write_profiles(tmp_path / "x.parquet", pl.DataFrame({"well_id": ["a"]}), {})
