import polars as pl
import pytest

from phenopipe.errors import UserError
from phenopipe.screen.columns import ROW, TABLE, read_rows, translate
from phenopipe.screen.user_wells import one_row_a_well, wells_of_rows
from tests.screen.plates import COLUMNS, image_knobs, table


def numbered(rows):
    return rows.with_columns(
        pl.lit("plate.csv").alias(TABLE), pl.int_range(1, pl.len() + 1).alias(ROW)
    )


def wells(rows, **changes):
    rows = numbered(rows)
    listed = wells_of_rows(rows, image_knobs(**changes), screen="own", experiment="e1")
    return one_row_a_well(listed, rows)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"role": pl.lit("mock")}, "plate.csv, row 1: unknown role 'mock', wanted one of"),
        ({"role": pl.lit(None)}, "row 1: unknown role ''"),
        ({"well": pl.Series(["A01", "A2", "77"])}, "plate.csv, row 3: well address '77'"),
        ({"plate": pl.Series(["p", " ", "p"])}, "row 2: no columns.plate, wanted a value"),
        ({"dose": pl.Series(["", "high", "3"])}, "row 2: .*concentration 'high', wanted a num"),
    ],
)
def test_a_wrong_cell_is_told_with_its_row(change, told):
    with pytest.raises(UserError, match=told):
        wells(table().with_columns(**change))


def test_a_column_that_is_absent_is_told_with_its_key():
    with pytest.raises(
        UserError, match=r"plate.csv: no column 'role', wanted by columns\.role"
    ):
        wells(table().drop("role"))


def test_unknown_units_are_refused():
    treatment = {**COLUMNS["treatments"][0], "concentration_unit": {"constant": "mg/l"}}
    with pytest.raises(UserError, match="row 2: unit 'mg/l', wanted one of M, mM"):
        wells(table(), columns={**COLUMNS, "treatments": [treatment]})


def test_one_dose_in_two_units_is_one_condition():
    unit = {**COLUMNS["treatments"][0], "concentration_unit": "unit"}
    rows = table().with_columns(
        dose=pl.Series([None, 250.0, 0.25]), unit=pl.Series(["nM", "nM", "uM"])
    )
    found = wells(rows, columns={**COLUMNS, "treatments": [unit]})
    doses = {listed[0]["concentration_um"] for listed in found["treatments"].to_list()[1:]}
    assert doses == {0.25}


def test_rows_of_one_well_that_disagree_are_refused():
    with pytest.raises(UserError, match="rows of well e1/p1/B01 disagree about treatments"):
        wells(table(("A01", "B1", "b01")))


def test_a_word_listed_twice_is_refused():
    roles = {"negative_control": ["x"], "empty": ["x"]}
    with pytest.raises(UserError, match="'x' is listed for negative_control and for empty"):
        translate(
            numbered(table()),
            pl.Series(["x"]),
            roles,
            ["empty", "negative_control"],
            key="role",
        )


def test_numbers_read_as_fractions_still_name_the_same_plate():
    assert wells(table().with_columns(plate=pl.lit(7.0)))["plate"][0] == "7"


def test_tables_with_unlike_columns_are_refused(tmp_path):
    table().write_csv(tmp_path / "a.csv")
    table().drop("dose").write_csv(tmp_path / "b.csv")
    with pytest.raises(UserError, match=r"b.csv: column 'dose' is in this table or .*a.csv"):
        read_rows([tmp_path / "a.csv", tmp_path / "b.csv"])
