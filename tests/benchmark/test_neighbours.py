import polars as pl
import pytest

from phenopipe.benchmark.neighbours import main, neighbours_of
from phenopipe.errors import UserError
from phenopipe.formats.maps import MAP
from phenopipe.formats.tables import write_table


@pytest.fixture
def table():
    rows = [
        ("TP53", "knockout", None, [1.0, 0.0]),
        ("MDM2", "knockout", None, [-1.0, 0.1]),
        ("ATM", "knockout", None, [0.9, 0.1]),
        ("drug", "compound", 0.1, [0.0, 1.0]),
        ("drug", "compound", 1.0, [-0.9, 0.0]),
    ]
    schema = {"entity": pl.String, "kind": pl.String, "concentration_um": pl.Float64}
    frame = pl.DataFrame(
        rows, schema={**schema, "embedding": pl.Array(pl.Float32, 2)}, orient="row"
    )
    return frame.with_columns(n_wells=pl.lit(3, pl.Int32))


def test_nearest_come_first_and_the_row_itself_never(table):
    found = neighbours_of(table, "TP53")
    assert found["entity"].to_list() == ["ATM", "drug", "MDM2", "drug"]
    assert found["cosine"].to_list() == sorted(found["cosine"], reverse=True)


def test_compound_is_answered_at_every_dose(table):
    found = neighbours_of(table, "drug")
    assert found["asked_um"].unique().sort().to_list() == [0.1, 1.0]
    assert found.height == 8


def test_unknown_name_brings_similar_ones(table):
    with pytest.raises(UserError, match="'TP35' is not on the map of 4 names, such as TP53"):
        neighbours_of(table, "TP35")


def test_command_reads_the_maps_of_a_run(tmp_path, table, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no map found"):
        main(["--gene", "TP53"])
    folder = tmp_path / "results/benchmark/genome/mae"
    folder.mkdir(parents=True)
    write_table(folder / "map.parquet", table, MAP, {})
    main(["--gene", "TP53", "--nearest", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "TP53 (knockout)"
    assert lines[2] == "  nearest  +0.994  ATM (knockout)"
    assert lines[3] == "  opposed  -1.000  drug (compound at 1 µM)"
    with pytest.raises(UserError, match="--nearest -3, wanted 0 or more"):
        main(["--gene", "TP53", "--nearest", "-3"])
    with pytest.raises(UserError, match="no such file"):
        main(["--gene", "TP53", "--map", str(tmp_path / "absent.parquet")])
