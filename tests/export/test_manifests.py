import polars as pl

from phenopipe.export.manifests import main
from phenopipe.formats.manifests import MANIFEST
from phenopipe.formats.tables import read_stamp, write_table

from .conftest import wells_of


def test_a_manifest_is_one_flat_row_a_well_twice(tmp_path):
    wells = wells_of("e1", ["control", "guide", "two", "dose"], n_images=pl.lit(4, pl.Int32))
    why = {
        "saved_by": [None, "A_1", "B_1", "drug at 2.5 µM"],
        "judge": [None, "mae", "mae", "classifier"],
        "p_value": [None, 1e-3, 2e-3, 1e-4],
    }
    manifest = wells.with_columns(pl.Series(name, values) for name, values in why.items())
    write_table(tmp_path / "manifest.parquet", manifest, MANIFEST, {})
    flags = ["--wells", str(tmp_path / "manifest.parquet"), "--manifest", "phenoprints"]
    flags += ["--parquet", str(tmp_path / "flat.parquet"), "--csv", str(tmp_path / "flat.csv")]
    main(flags)
    assert read_stamp(tmp_path / "flat.parquet")["names"] == {"manifest": "phenoprints"}
    flat = pl.read_parquet(tmp_path / "flat.parquet")
    assert flat["Metadata_Perturbation"].to_list() == [None, "A_1", "A_1|B_1", "drug"]
    assert flat["Metadata_Images"].to_list() == [4] * 4
    assert flat.select(*why).to_dict(as_series=False) == why
    text = pl.read_csv(tmp_path / "flat.csv", schema=flat.schema)
    assert text.equals(flat)
