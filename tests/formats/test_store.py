"""Stores of embeddings: written shard by shard, read block by block, never torn."""

import shutil

import numpy as np
import pytest
import zarr

from phenopipe.errors import UserError
from phenopipe.formats import embeddings
from phenopipe.formats.atomic import atomic
from phenopipe.formats.embeddings import (
    embeddings_writer,
    read_block,
    read_site_wells,
    read_well_ids,
    write_embeddings,
)
from phenopipe.formats.shards import is_plain

FACTS = {"block_numbers": [1, 2], "block_dims": [3, 4], "stamp": {"step": "test"}}


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(embeddings, "SHARD_BYTES", 4 * 2 * 4 * 4)


def values(n=10):
    return np.random.default_rng(0).normal(size=(n, 2, 4)).astype(np.float32)


def ids(n=10):
    return [f"w{row}" for row in range(n)]


def files(path):
    return {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_wells_that_do_not_come_are_nan_and_bytes_do_not_depend_on_the_way(
    tmp_path, small_shards
):
    x = values()
    x[[0, 5, 6, 7, 8, 9]] = np.nan
    write_embeddings(tmp_path / "whole", x, ids(), **FACTS)
    with embeddings_writer(tmp_path / "bit", ids(), dtype="float32", **FACTS) as writer:
        for row in (1, 2, 3, 4):
            writer.put(row, x[row])
    assert np.array_equal(read_block(tmp_path / "bit", 2), x[:, 1], equal_nan=True)
    assert np.array_equal(read_block(tmp_path / "bit", 1), x[:, 0, :3], equal_nan=True)
    assert read_well_ids(tmp_path / "bit") == ids()
    assert files(tmp_path / "bit") == files(tmp_path / "whole")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_blocks_read_straight_are_those_that_zarr_reads(tmp_path, small_shards, dtype):
    write_embeddings(tmp_path / "e", values().astype(dtype), ids(), **FACTS)
    array = zarr.open(str(tmp_path / "e"), mode="r")["embedding"]
    assert is_plain(array) and array.shards[0] < 10
    for at, dim in ((0, 3), (1, 4)):
        wanted = array[:, at, :dim]
        found = read_block(tmp_path / "e", at + 1)
        assert found.dtype == dtype and np.array_equal(found, wanted)


@pytest.mark.parametrize(
    "options",
    [
        {"compressors": zarr.codecs.ZstdCodec(), "chunks": (4, 1, 4), "shards": (4, 2, 4)},
        {"compressors": None, "chunks": (4, 1, 4)},
        {"compressors": None, "chunks": (2, 1, 4), "shards": (4, 2, 4)},
        {"compressors": None, "chunks": (4, 1, 2), "shards": (4, 2, 4)},
    ],
)
def test_another_layout_is_left_to_zarr(tmp_path, options):
    array = zarr.create_array(tmp_path / "a", shape=(10, 2, 4), dtype="float32", **options)
    assert not is_plain(array)


def test_a_store_that_lost_a_shard_is_torn_even_if_it_was_zeros(tmp_path, small_shards):
    write_embeddings(tmp_path / "e", np.zeros((10, 2, 4), np.float32), ids(), **FACTS)
    assert not read_block(tmp_path / "e").any()
    shutil.rmtree(tmp_path / "e" / "embedding" / "c" / "1")
    with pytest.raises(UserError, match="torn"):
        read_block(tmp_path / "e")


@pytest.mark.parametrize("left", [0, 10, 60, -3])
def test_a_shard_that_ends_early_is_torn(tmp_path, small_shards, left):
    write_embeddings(tmp_path / "e", np.zeros((10, 2, 4), np.float32), ids(), **FACTS)
    shard = tmp_path / "e" / "embedding" / "c" / "1" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:left])
    for block in (1, 2):
        with pytest.raises(UserError, match=r"e: a torn zarr store"):
            read_block(tmp_path / "e", block)


def test_a_writer_that_fails_leaves_the_old_store_and_no_leftovers(tmp_path, small_shards):
    write_embeddings(tmp_path / "e", values(), ids(), **FACTS)
    before = files(tmp_path / "e")
    with (
        pytest.raises(RuntimeError),
        embeddings_writer(tmp_path / "e", ids(), dtype="float32", **FACTS) as writer,
    ):
        writer.put(9, values()[0])
        raise RuntimeError
    assert files(tmp_path / "e") == before
    assert [p.name for p in tmp_path.iterdir()] == ["e"]


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    (tmp_path / ".e.4242.part").mkdir()
    (tmp_path / ".other.4242.part").mkdir()
    write_embeddings(tmp_path / "e", values(), ids(), **FACTS)
    assert {p.name for p in tmp_path.iterdir()} == {"e", ".other.4242.part"}


def test_a_folder_is_replaced_whole(tmp_path):
    for content in ("old", "new"):
        with atomic(tmp_path / "f") as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert files(tmp_path) == {(tmp_path / "f" / "new").relative_to(tmp_path): b"new"}


def test_values_beyond_half_precision_are_refused(tmp_path):
    with (
        pytest.raises(UserError, match=r"reaches 7e\+04, more than float16 holds"),
        embeddings_writer(tmp_path / "e", ["a"], dtype="float16", **FACTS) as writer,
    ):
        writer.put(0, np.full((2, 4), 7e4))
    assert not (tmp_path / "e").exists()


def test_sites_are_kept_beside_wells_and_belong_to_a_whole_store(tmp_path, small_shards):
    x, rows = values(7), [0, 0, 2, 2, 2, 9, 9]
    write_embeddings(tmp_path / "without", values(), ids(), **FACTS)
    with embeddings_writer(
        tmp_path / "e", ids(), dtype="float32", site_rows=rows, site_dtype="float16", **FACTS
    ) as writer:
        for row, x_BD in enumerate(values()):
            writer.put(row, x_BD)
        for x_BD in x:
            writer.sites.append(x_BD)
    assert np.array_equal(read_block(tmp_path / "e", 2), values()[:, 1])
    found = read_block(tmp_path / "e", 1, sites=True)
    assert found.dtype == np.float16 and np.array_equal(found, x[:, 0, :3].astype(np.float16))
    assert read_site_wells(tmp_path / "e") == [f"w{row}" for row in rows]
    with pytest.raises(UserError, match=r"without: keeps no sites, wanted embed\.wells\.sites"):
        read_block(tmp_path / "without", 1, sites=True)
    shutil.rmtree(tmp_path / "e" / "site_embedding" / "c" / "0")
    with pytest.raises(UserError, match="torn"):
        read_block(tmp_path / "e")
