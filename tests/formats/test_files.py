"""Files between stages: whole or absent, checked on both sides, equal bytes."""

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phenopipe.errors import UserError
from phenopipe.formats.aligned import read_aligned, write_aligned
from phenopipe.formats.atomic import atomic
from phenopipe.formats.embeddings import (
    read_attributes,
    read_block,
    read_well_ids,
    write_embeddings,
)
from phenopipe.formats.fingerprint import fingerprint
from phenopipe.formats.images import open_pixels, pixel_channels, write_pixels
from phenopipe.formats.tables import read_any, read_stamp, read_table, write_table
from phenopipe.formats.wells import (
    COLUMNS,
    WELLS,
    conditions,
    parse_well,
    read_wells,
    well_name,
    write_wells,
)

STAMP = {"stage": "screen", "names": {"screen": "s"}}


def treatment(name, kind="knockout", gene=None, dose=None):
    return {
        "perturbation": name,
        "kind": kind,
        "gene": gene,
        "guide": None,
        "concentration_um": dose,
    }


def wells(*treatments, role="perturbation"):
    n = len(treatments)
    columns = {
        "screen": ["s"] * n,
        "experiment": ["e"] * n,
        "plate": ["p"] * n,
        "well": [well_name(1, i + 1) for i in range(n)],
        "row": [1] * n,
        "column": list(range(1, n + 1)),
        "cell_type": ["U2OS"] * n,
        "role": [role] * n,
        "treatments": list(treatments),
        "layout": ["l"] * n,
        "well_id": [f"e/p/{i}" for i in range(n)],
    }
    return pl.DataFrame(columns, schema={k: dtype for k, (dtype, _) in COLUMNS.items()})


def test_a_failed_writer_leaves_the_old_content(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_whole(tmp_path):
    path = tmp_path / "folder"
    for text in ("one", "two"):
        with atomic(path) as temporary:
            temporary.mkdir()
            (temporary / text).write_text(text)
    assert [p.name for p in path.iterdir()] == ["two"]


def test_table_reads_back_with_its_stamp_and_equal_bytes(tmp_path):
    frame = wells([treatment("A_1", gene="A")], [])
    for name in ("a.parquet", "b.parquet"):
        write_wells(tmp_path / name, frame, STAMP)
    assert read_wells(tmp_path / "a.parquet").equals(frame)
    assert read_stamp(tmp_path / "a.parquet")["names"] == {"screen": "s"}
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        (wells([]).drop("plate"), "no column 'plate'"),
        (wells([]).with_columns(pl.col("row").cast(pl.String)), "column 'row' is String"),
        (wells([]).with_columns(dose=pl.lit(1)), "unknown column 'dose'"),
        (pl.concat([wells([]), wells([])]), "two rows"),
        (wells([], role="control"), "role 'control'"),
        (wells([treatment("A", kind="crispr")]), "kind of perturbation 'crispr'"),
        (wells([treatment("A", kind=None)]), "'A' has no kind, wanted knockout"),
    ],
)
def test_writer_refuses_in_one_line(frame, told, tmp_path):
    with pytest.raises(UserError, match=told) as error:
        write_wells(tmp_path / "w.parquet", frame, STAMP)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_reader_refuses_other_files(tmp_path):
    other = tmp_path / "other.parquet"
    pl.DataFrame({"a": [1]}).write_parquet(other)
    (tmp_path / "text.parquet").write_text("no parquet")
    for path in (other, tmp_path / "text.parquet"):
        with pytest.raises(UserError, match=path.name):
            read_table(path, WELLS)


def test_reader_refuses_another_version(tmp_path):
    path = tmp_path / "w.parquet"
    write_table(path, wells([]), WELLS, {"format_version": 99})
    with pytest.raises(UserError, match="version 99"):
        read_wells(path)


def test_conditions_leave_the_background_out():
    factor = treatment("TNF", kind="soluble_factor")
    frame = wells(
        [treatment("A_1", gene="A"), factor], [factor], [], [treatment("X", dose=1.0)]
    )
    rows = conditions(frame).select("well_id", "perturbation", "n_perturbations", "background")
    assert rows.rows() == [
        ("e/p/0", "A_1", 1, "TNF"),
        ("e/p/1", "TNF", 1, ""),
        ("e/p/3", "X", 1, ""),
    ]


def test_conditions_count_every_perturbation_of_a_well():
    frame = wells([treatment("A_1", gene="A"), treatment("X", kind="compound", dose=1.0)])
    assert conditions(frame)["n_perturbations"].to_list() == [2, 2]


@given(st.integers(1, 32), st.integers(1, 48))
def test_addresses_read_back(row, column):
    assert parse_well(well_name(row, column).lower()) == (row, column)


@pytest.mark.parametrize("text", ["", "1A", "A00", "AZ1", "A123", "B-2"])
def test_a_wrong_address_is_refused(text):
    with pytest.raises(UserError, match="well address"):
        parse_well(text)


def test_pixels_read_back_over_shards(tmp_path):
    path = tmp_path / "images.zarr"
    sites = [np.full((2, 4, 4), i, dtype=np.uint16) for i in range(130)]
    write_pixels(
        path,
        iter(sites),
        shape=(130, 2, 4, 4),
        channels=["a", "b"],
        dtype="uint16",
        stamp=STAMP,
    )
    assert [int(open_pixels(path)[i].max()) for i in (0, 64, 129)] == [0, 64, 129]
    assert pixel_channels(path) == ["a", "b"]


def test_one_block_reads_back_without_its_padding(tmp_path):
    path = tmp_path / "e.zarr"
    x_WBD = np.random.default_rng(0).random((7, 3, 5)).astype(np.float32)
    write_embeddings(
        path,
        x_WBD,
        list("abcdefg"),
        block_numbers=[1, 2, 3],
        block_dims=[2, 4, 5],
        stamp=STAMP,
        attributes={"pooling": "mean"},
    )
    assert np.array_equal(read_block(path, 1), x_WBD[:, 0, :2])
    assert np.array_equal(read_block(path), x_WBD[:, 2])
    assert read_well_ids(path) == list("abcdefg")
    assert read_attributes(path)["pooling"] == "mean"
    with pytest.raises(UserError, match="no block 9"):
        read_block(path, 9)


def test_a_torn_store_is_never_read(tmp_path):
    path = tmp_path / "e.zarr"
    x_WBD = np.zeros((2, 1, 3), dtype=np.float32)
    write_embeddings(path, x_WBD, ["a", "b"], block_numbers=[1], block_dims=[3], stamp=STAMP)
    metadata = json.loads((path / "zarr.json").read_text())
    del metadata["attributes"]["fingerprint"]
    (path / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(UserError, match="torn"):
        read_block(path)
    (path / "zarr.json").write_text("{")
    with pytest.raises(UserError, match="not a readable zarr store"):
        read_block(path)


def test_fingerprint_follows_content_alone(tmp_path):
    def store(name, value):
        path = tmp_path / name
        x = np.full((2, 1, 3), value, dtype=np.float32)
        write_embeddings(path, x, ["a", "b"], block_numbers=[1], block_dims=[3], stamp=STAMP)
        return fingerprint(path)

    assert store("one.zarr", 0) == store("two.zarr", 0) != store("three.zarr", 1)


def test_aligned_wells_read_back(tmp_path):
    path = tmp_path / "embeddings.parquet"
    frame = wells([], []).with_columns(fitted=pl.Series([True, False]))
    x_WD = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_aligned(path, frame, x_WD, STAMP)
    read, x_read_WD = read_aligned(path)
    assert read.equals(frame) and np.array_equal(x_read_WD, x_WD)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz", "t.parquet"])
def test_users_tables_of_any_kind_read_alike(name, tmp_path):
    import gzip

    frame = pl.DataFrame({"gene": ["A", "B"], "n": [1, 2]})
    path = tmp_path / name
    if name.endswith(".parquet"):
        frame.write_parquet(path)
    else:
        text = frame.write_csv(separator="\t" if ".tsv" in name else ",").encode()
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    assert read_any(path).equals(frame)
    with pytest.raises(UserError, match="unknown kind of table"):
        read_any(tmp_path / "t.xlsx")


def conditions_by_windows(frame):
    """The rule of backgrounds by window functions over wells: slow, and short."""
    factor = pl.col("kind") == "soluble_factor"
    others = (~factor).sum().over("well_id")
    background = (
        pl.col("perturbation").filter(factor).unique().sort().implode().over("well_id")
    ).list.join("+")
    number = pl.when(others > 0).then(others).otherwise(pl.len().over("well_id"))
    return (
        frame.select("well_id", "treatments")
        .explode("treatments", empty_as_null=False, keep_nulls=False)
        .unnest("treatments")
        .with_columns(
            background=pl.when(others > 0).then(background).otherwise(pl.lit("")),
            n_perturbations=number.cast(pl.Int32),
        )
        .filter(~factor | (others == 0))
        .select(
            *("well_id", "perturbation", "kind", "gene", "guide", "concentration_um"),
            *("n_perturbations", "background"),
        )
    )


@given(
    st.lists(
        st.lists(
            st.builds(
                treatment,
                st.sampled_from(["A_1", "drug", "TNF", "IL6", None]),
                kind=st.sampled_from(["knockout", "compound", "soluble_factor", None]),
                dose=st.sampled_from([None, 0.5]),
            ),
            max_size=5,
        ),
        max_size=12,
    )
)
def test_conditions_are_those_of_the_windows(treatments):
    frame = wells(*treatments)
    assert conditions(frame).equals(conditions_by_windows(frame))
