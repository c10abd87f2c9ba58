"""Long tables in parts: the same rows, whole or absent, doubles refused, equal bytes."""

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phenopipe.errors import UserError
from phenopipe.formats.parts import (
    chosen_rows,
    parts_of_file,
    parts_of_files,
    prepared,
    scanned,
    table_writer,
    write_rows,
)
from phenopipe.formats.tables import Schema, read_stamp, read_table, write_table

PAIRS = Schema(
    "pairs",
    {"name": (pl.String, "names a row"), "value": (pl.Int32, "a number")},
    unique=("name",),
    extra=("Metadata_",),
)


def pairs(first, n):
    names = [f"row-{first + i}" for i in range(n)]
    return pl.DataFrame(
        {"name": names, "value": range(n)}, schema={"name": pl.String, "value": pl.Int32}
    )


def written(path, frames, columns=None):
    schema = columns or dict(frames[0].schema)
    with table_writer(path, PAIRS, schema, {"stage": "made-up"}) as write:
        for frame in frames:
            write(frame)


@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6), rows=st.integers(1, 12))
def test_parts_are_the_table(tmp_path_factory, sizes, rows):
    folder = tmp_path_factory.mktemp("parts")
    frames = [pairs(100 * i, n) for i, n in enumerate(sizes)]
    paths = [folder / f"{i}.parquet" for i in range(len(sizes))]
    for path, frame in zip(paths, frames, strict=True):
        write_table(path, frame, PAIRS, {})
    parts, columns = parts_of_files(paths, PAIRS, rows)
    read = [part.read(lambda _: True) for part in parts]
    assert [frame.height for frame in read] == [part.n_rows for part in parts]
    assert pl.concat(read).equals(pl.concat(frames)) and list(columns) == ["name", "value"]
    written(folder / "all.parquet", frames)
    pieces, _ = parts_of_file(folder / "all.parquet", PAIRS, rows)
    assert max((part.n_rows for part in pieces), default=0) <= rows
    read = [part.read(lambda name: name == "name") for part in pieces]
    assert pl.concat([frames[0].select("name").clear(), *read])["name"].to_list() == [
        name for frame in frames for name in frame["name"]
    ]


def test_a_column_that_some_lack_is_null_there(tmp_path):
    frames = [pairs(0, 2), pairs(2, 2).with_columns(Metadata_dose=pl.lit(1.5))]
    for i, frame in enumerate(frames):
        write_table(tmp_path / f"{i}.parquet", frame, PAIRS, {})
    parts, columns = parts_of_files([tmp_path / "0.parquet", tmp_path / "1.parquet"], PAIRS)
    assert len(parts) == 2 and columns["Metadata_dose"] == pl.Float64
    written(tmp_path / "all.parquet", [p.read(lambda _: True) for p in parts], columns)
    read = read_table(tmp_path / "all.parquet", PAIRS)
    assert read["Metadata_dose"].to_list() == [None, None, 1.5, 1.5]
    assert read_stamp(tmp_path / "all.parquet")["stage"] == "made-up"


def test_one_column_of_two_types_is_refused(tmp_path):
    for i, value in enumerate((1.5, "high")):
        frame = pairs(i, 1).with_columns(Metadata_dose=pl.lit(value))
        write_table(tmp_path / f"{i}.parquet", frame, PAIRS, {})
    with pytest.raises(UserError, match=r"1\.parquet: column 'Metadata_dose' is String"):
        parts_of_files([tmp_path / "0.parquet", tmp_path / "1.parquet"], PAIRS)


def test_a_row_doubled_between_calls_is_refused_and_nothing_appears(tmp_path):
    with pytest.raises(UserError, match=r"two rows with \('name',\) = \('row-4',\)"):
        written(tmp_path / "all.parquet", [pairs(0, 5), pairs(4, 3)])
    assert not list(tmp_path.iterdir())


@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6), data=st.data())
def test_rows_of_many_files_are_chosen_in_their_order(tmp_path_factory, sizes, data):
    # A folder whose name would match others, if names were patterns.
    folder = tmp_path_factory.mktemp("rows[1]*")
    paths = [folder / f"{i}.parquet" for i in range(len(sizes))]
    frames = [pairs(100 * i, n) for i, n in enumerate(sizes)]
    # One file has a column that the others lack.
    frames[-1] = frames[-1].with_columns(Metadata_dose=pl.lit(1.5))
    for path, frame in zip(paths, frames, strict=True):
        write_table(path, frame, PAIRS, {})
    n = sum(sizes)
    stays = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    _, columns = parts_of_files(paths, PAIRS)
    rows = chosen_rows(scanned(paths, columns), np.array(stays, bool))
    out = folder / "all.parquet"
    write_rows(out, rows, PAIRS, {"stage": "made-up"}, rows_a_group=3)
    expected = pl.concat(frames, how="diagonal").filter(pl.Series(stays, dtype=pl.Boolean))
    assert read_table(out, PAIRS).equals(expected)
    assert read_stamp(out)["stage"] == "made-up"
    assert pq.read_metadata(out).num_row_groups >= -(-expected.height // 3)


def test_a_row_that_two_files_have_is_refused_and_nothing_appears(tmp_path):
    paths = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    for path, frame in zip(paths, [pairs(0, 5), pairs(4, 3)], strict=True):
        write_table(path, frame, PAIRS, {})
    rows = scanned(paths, dict(pairs(0, 1).schema))
    with pytest.raises(UserError, match=r"all.*two rows with \('name',\) = \('row-4',\)"):
        write_rows(tmp_path / "all.parquet", rows, PAIRS, {})
    assert sorted(tmp_path.iterdir()) == paths


def test_results_come_in_the_order_of_the_items():
    assert list(prepared(lambda n: n * n, range(50))) == [n * n for n in range(50)]


def test_an_error_of_the_work_reaches_the_reader():
    with pytest.raises(ZeroDivisionError):
        list(prepared(lambda n: 1 // n, [3, 2, 1, 0, 1]))
