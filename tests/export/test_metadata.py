import polars as pl

from phenopipe.export.metadata import feature_names, metadata_of, stacked

from .conftest import wells_of


def test_every_well_is_told_in_flat_columns_that_begin_alike():
    told = metadata_of(wells_of("e1", ["control", "guide", "dose", "two", "factor"]))
    assert all(name.startswith("Metadata_") for name in told.columns)
    assert told["Metadata_Batch"].unique().to_list() == ["e1"]
    assert told.select(
        "Metadata_Well",
        "Metadata_Perturbation",
        "Metadata_Gene",
        "Metadata_PerturbationKind",
        "Metadata_Concentration",
        "Metadata_Background",
        "Metadata_NPerturbations",
    ).rows() == [
        ("A01", None, None, None, None, None, 0),
        ("A02", "A_1", "A", "knockout", None, None, 1),
        ("A03", "drug", None, "compound", 2.5, None, 1),
        ("A04", "A_1|B_1", "A|B", "knockout|knockout", None, None, 2),
        ("A05", "B_1", "B", "knockout", None, "TNF", 1),
    ]


def test_a_column_of_the_users_own_goes_before_ours():
    wells = wells_of("e1", ["guide"], Metadata_Gene=pl.lit("theirs"), Metadata_Lot=pl.lit(7))
    told = metadata_of(wells)
    assert told["Metadata_Gene"].to_list() == ["theirs"]
    assert told.columns.count("Metadata_Gene") == 1
    both = stacked([told, metadata_of(wells_of("e2", ["guide"]))])
    assert both["Metadata_Lot"].to_list() == [7, None]


def test_features_are_named_so_that_names_sort_as_numbers():
    names = feature_names(12_345)
    assert names[:2] == ["feature_00000", "feature_00001"]
    assert names == sorted(names)
    assert feature_names(384)[-1] == "feature_0383"
