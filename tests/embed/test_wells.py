"""A well's embedding is the mean over its crops, at every block, whatever the batch."""

import copy
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import zarr

from phenopipe.embed.config import PrepareKnobs, WellsKnobs
from phenopipe.embed.crops import crop_corners, cut_crops
from phenopipe.embed.passes import Passes
from phenopipe.embed.prepare import prepare_encoder
from phenopipe.embed.reading import crops_a_well, sites_of
from phenopipe.embed.wells import channel_places, embed_wells, main, unlike_pixels
from phenopipe.encoders.base import EncoderConfig
from phenopipe.encoders.folder import build, save_encoder
from phenopipe.errors import UserError
from phenopipe.formats.embeddings import (
    read_attributes,
    read_block,
    read_site_wells,
    read_well_ids,
)
from phenopipe.formats.images import IMAGES, write_images, write_pixels
from phenopipe.formats.wells import COLUMNS, WELLS, write_wells

TINY = {"patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2}


@pytest.fixture(scope="module")
def encoder():
    return prepare_encoder(PrepareKnobs(channels=("a", "b"), crop=16, model_args=TINY))


def embedded(encoder, wells, images, pixels, channels, knobs):
    """All wells as one array, NaN for those that do not come."""
    passes = Passes(encoder, knobs)
    found = np.full((len(wells), *passes.kept.shape), np.nan)
    rows = []
    for row, x_BD in embed_wells(passes, wells, images, pixels, channels, knobs):
        found[row] = x_BD
        rows.append(row)
    assert rows == sorted(set(rows))
    return found


@pytest.fixture(scope="module")
def screen():
    pixels = zarr.array(
        np.random.default_rng(0).integers(0, 255, (5, 3, 40, 33), dtype=np.uint8),
        chunks=(1, 3, 40, 33),
    )
    wells = pl.DataFrame({"well_id": ["w0", "w1", "w2"]})
    images = pl.DataFrame(
        {"well_id": ["w2", "w0", "w2", "w0", "w1", "w9"], "index": [4, 0, 1, 3, None, 2]},
        schema={"well_id": pl.String, "index": pl.Int64},
    )
    return wells, images, pixels


def test_equals_the_plain_mean_over_crops(encoder, screen):
    wells, images, pixels = screen
    found = embedded(encoder, wells, images, pixels, [2, 0], WellsKnobs(batch=5))
    for row, sites in ((0, [0, 3]), (2, [1, 4])):
        crops = cut_crops(pixels[:][sites][:, [2, 0]], crop_corners(40, 33, 16), 16)
        wanted = encoder.forward_blocks(torch.from_numpy(crops)).mean(0).numpy()
        assert np.allclose(found[row], wanted, atol=1e-5)
    assert np.isnan(found[1]).all()


def test_batch_changes_nothing(encoder, screen):
    results = [
        embedded(encoder, *screen, [0, 1], WellsKnobs(batch=batch)) for batch in (1, 4, 100)
    ]
    for one in results[1:]:
        assert np.allclose(one, results[0], atol=1e-5, equal_nan=True)


def test_bfloat16_agrees(encoder, screen):
    full = embedded(encoder, *screen, [0, 1], WellsKnobs())[[0, 2], -1]
    short = embedded(encoder, *screen, [0, 1], WellsKnobs(precision="bfloat16"))[[0, 2], -1]
    cosine = (
        (full * short).sum(1) / np.linalg.norm(full, axis=1) / np.linalg.norm(short, axis=1)
    )
    assert cosine.min() > 0.999


@pytest.mark.parametrize("readers", [1, 3])
def test_readers_change_not_a_bit(encoder, screen, readers):
    wanted = embedded(encoder, *screen, [0, 1], WellsKnobs(batch=4))
    found = embedded(encoder, *screen, [0, 1], WellsKnobs(batch=4, readers=readers))
    assert np.array_equal(found, wanted, equal_nan=True)


def test_compiled_blocks_give_the_same(screen):
    plain, compiled = (
        prepare_encoder(PrepareKnobs(channels=("a", "b"), crop=16, model_args=TINY))
        for _ in range(2)
    )
    # Dynamo's own capture of the blocks; what a back end makes of it is torch's affair.
    compiled.compile_regions(backend="eager")
    wanted, found = (embedded(e, *screen, [0, 1], WellsKnobs()) for e in (plain, compiled))
    assert np.allclose(found, wanted, atol=1e-6, equal_nan=True)


def out_of_memory_above(limit, encoder):
    """The same encoder on a device that holds so many crops, and what it was handed."""
    handed = []
    whole = encoder.stack_blocks

    def stack_blocks(x_NCHW, **options):
        handed.append(len(x_NCHW))
        if len(x_NCHW) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return whole(x_NCHW, **options)

    tight = copy.copy(encoder)
    tight.stack_blocks = stack_blocks
    return tight, handed


def test_out_of_memory_halves_the_pass_and_changes_nothing(encoder, screen, capsys):
    wanted = embedded(encoder, *screen, [0, 1], WellsKnobs())
    tight, handed = out_of_memory_above(3, encoder)
    found = embedded(tight, *screen, [0, 1], WellsKnobs(batch=128))
    assert np.allclose(found, wanted, atol=1e-5, equal_nan=True)
    # Sixteen crops of four sites: 16 and 8 and 4 fail once each, twos pass.
    assert handed == [16, 8, 4] + [2] * 8
    assert "passes of 2 crops from here on" in capsys.readouterr().out
    none, _ = out_of_memory_above(0, encoder)
    with pytest.raises(UserError, match="one crop does not fit"):
        embedded(none, *screen, [0, 1], WellsKnobs())


def test_memory_grows_with_neither_wells_nor_sites():
    encoder = prepare_encoder(PrepareKnobs(kind="pixels", channels=("a", "b"), crop=16))
    peaks = []
    for n in (1500, 6000):
        pixels = zarr.array(np.ones((n, 2, 16, 16), np.uint8), chunks=(500, 2, 16, 16))
        wells = pl.DataFrame({"well_id": [str(row) for row in range(n)]})
        images = wells.with_columns(index=pl.int_range(n))
        knobs = WellsKnobs(batch=64)
        passes = Passes(encoder, knobs)
        tracemalloc.start()
        for _ in embed_wells(passes, wells, images, pixels, [0, 1], knobs):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Four times the wells: 32 bytes a well of indices, and nothing of what they hold.
    assert peaks[1] - peaks[0] < 4500 * 100


def test_channels_are_found_by_name(encoder, tmp_path):
    assert channel_places(encoder, ["b", "x", "a"], tmp_path) == [2, 0]
    with pytest.raises(UserError, match="no channel 'b'"):
        channel_places(encoder, ["a", "x"], tmp_path)


def test_a_channel_agnostic_encoder_takes_no_more_channels_than_it_has_positions(tmp_path):
    sizes = {"crop": 16, "patch": 8, "channels": 2, "dim": 16, "depth": 1, "heads": 2}
    encoder = build(EncoderConfig("ca_mae", "ca_mae", ("a",), 16, sizes))
    assert channel_places(encoder, ["x", "y"], tmp_path) == [0, 1]
    with pytest.raises(UserError, match="3 channels, the encoder takes 2 at most"):
        channel_places(encoder, ["x", "y", "z"], tmp_path)


def test_last_block_alone_equals_the_last_of_all(encoder, screen):
    wells, images, pixels = screen
    every = embedded(encoder, wells, images, pixels, [2, 0], WellsKnobs())
    last = embedded(encoder, wells, images, pixels, [2, 0], WellsKnobs(blocks="last"))
    assert last.shape == (3, 1, 16)
    assert np.array_equal(last[:, 0], every[:, -1], equal_nan=True)


def test_crops_a_well_counts_sites_and_tiles(screen):
    _, images, pixels = screen
    # Most wells have two stored sites, each with two rows of two crops.
    assert crops_a_well(images, pixels, 16, leave_out_ring=False) == 8
    assert crops_a_well(images.clear(), pixels, 16, leave_out_ring=False) == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory, encoder):
    """Files of one experiment with two wells of 20 x 20 pixels; the second has no site."""
    made = tmp_path_factory.mktemp("embed")
    rows = [
        {**dict.fromkeys(COLUMNS), "well_id": w, "role": "empty", "treatments": []}
        for w in "ab"
    ]
    write_wells(made / "wells.parquet", pl.DataFrame(rows, schema=WELLS.empty().schema), {})
    image = {**dict.fromkeys(IMAGES.columns), "image_id": "a/1", "well_id": "a", "index": 0}
    write_images(
        made / "images.parquet", pl.DataFrame([image], schema=IMAGES.empty().schema), {}
    )
    sites = [np.full((2, 20, 20), 7, dtype=np.uint8)]
    write_pixels(
        made / "images.zarr",
        sites,
        shape=(1, 2, 20, 20),
        channels=["b", "a"],
        dtype="uint8",
        stamp={},
    )
    save_encoder(made / "encoder", encoder)
    return made


def command(folder, out, encoder="encoder"):
    return [
        *(f"--{name}={folder / name}.parquet" for name in ("wells", "images")),
        f"--pixels={folder}/images.zarr",
        f"--model={folder}/{encoder}/model.safetensors",
        f"--config={folder}/{encoder}/config.json",
        f"--embeddings={out}",
        *("--screen=s", f"--encoder={encoder}", "--experiment=e"),
    ]


def test_step_writes_what_readers_expect(folder, tmp_path):
    main(command(folder, tmp_path / "e.zarr"))
    facts = read_attributes(tmp_path / "e.zarr")
    assert facts["blocks"] == [1, 2, 3] and facts["block_dims"] == [16] * 3
    assert facts["crops_a_well"] == 1 and facts["pooling"] == "class"
    assert read_well_ids(tmp_path / "e.zarr") == ["a", "b"]
    block = read_block(tmp_path / "e.zarr", 2)
    assert np.isfinite(block[0]).all() and np.isnan(block[1]).all()


def test_kept_sites_have_their_wells_for_a_mean(encoder, screen):
    wells, images, pixels = screen
    kept = []
    knobs = WellsKnobs(batch=5)
    passes = Passes(encoder, knobs)
    runs = embed_wells(passes, wells, images, pixels, [2, 0], knobs, kept.append)
    found = dict(runs)
    rows = sites_of(wells, images).rows
    assert len(kept) == len(rows) > len(found)
    for row, x_BD in found.items():
        mean_BD = np.mean([kept[at] for at in np.flatnonzero(rows == row)], axis=0)
        assert x_BD == pytest.approx(mean_BD, abs=1e-12)


def test_step_keeps_sites_where_it_is_asked_to(folder, tmp_path):
    main(command(folder, tmp_path / "wells.zarr"))
    main([*command(folder, tmp_path / "sites.zarr"), "--sites=float32"])
    sites = read_block(tmp_path / "sites.zarr", 2, sites=True)
    assert read_site_wells(tmp_path / "sites.zarr") == ["a"]
    assert np.array_equal(sites, read_block(tmp_path / "wells.zarr", 2)[:1])
    for block in (1, 2, 3):
        with_sites, alone = (
            read_block(tmp_path / f"{n}.zarr", block) for n in ("sites", "wells")
        )
        assert np.array_equal(with_sites, alone, equal_nan=True)


def test_sites_smaller_than_a_crop_give_one_line_and_no_store(folder, tmp_path):
    large = prepare_encoder(PrepareKnobs(channels=("a", "b"), crop=32, model_args=TINY))
    save_encoder(folder / "large", large)
    with pytest.raises(
        UserError, match=r"images.zarr: .* no crop of 32, wanted by encoder large"
    ):
        main(command(folder, tmp_path / "e.zarr", "large"))
    assert not (tmp_path / "e.zarr").exists()


def test_pixels_unlike_those_of_the_training_are_told():
    config = EncoderConfig(kind="pixels", architecture="pixels", channels=("a",), crop=8)
    facts = {"scaling": "percentiles", "percentiles": [0.1, 99.9], "pixel_size_um": 0.65}
    trained = build(replace(config, pixels=[facts]))
    assert unlike_pixels(trained, facts, Path("x")) is None
    assert unlike_pixels(build(config), facts, Path("x")) is None
    other = {**facts, "pixel_size_um": 0.598}
    assert "0.598" in (unlike_pixels(trained, other, Path("x.zarr")) or "")
