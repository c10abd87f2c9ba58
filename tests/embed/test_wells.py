"""A well's embedding is the mean over its crops, at every block, whatever the batch."""

import numpy as np
import polars as pl
import pytest
import torch
import zarr

from phenopipe.embed.config import PrepareKnobs, WellsKnobs
from phenopipe.embed.crops import crop_corners, cut_crops
from phenopipe.embed.prepare import prepare_encoder
from phenopipe.embed.wells import channel_places, crops_a_well, embed_wells, main
from phenopipe.encoders.folder import save_encoder
from phenopipe.errors import UserError
from phenopipe.formats.embeddings import read_attributes, read_block, read_well_ids
from phenopipe.formats.images import IMAGES, write_images, write_pixels
from phenopipe.formats.wells import COLUMNS, WELLS, write_wells

TINY = {"patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2}


@pytest.fixture(scope="module")
def encoder():
    return prepare_encoder(PrepareKnobs(channels=("a", "b"), crop=16, model_args=TINY))


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
    found = embed_wells(encoder, wells, images, pixels, [2, 0], WellsKnobs(batch=5))
    for row, sites in ((0, [0, 3]), (2, [1, 4])):
        crops = cut_crops(pixels[:][sites][:, [2, 0]], crop_corners(40, 33, 16), 16)
        wanted = encoder.forward_blocks(torch.from_numpy(crops)).mean(0).numpy()
        assert np.allclose(found[row], wanted, atol=1e-5)
    assert np.isnan(found[1]).all()


def test_batch_changes_nothing(encoder, screen):
    results = [
        embed_wells(encoder, *screen, [0, 1], WellsKnobs(batch=batch)) for batch in (1, 4, 100)
    ]
    for one in results[1:]:
        assert np.allclose(one, results[0], atol=1e-5, equal_nan=True)


def test_bfloat16_agrees(encoder, screen):
    full = embed_wells(encoder, *screen, [0, 1], WellsKnobs())[[0, 2], -1]
    short = embed_wells(encoder, *screen, [0, 1], WellsKnobs(precision="bfloat16"))[[0, 2], -1]
    cosine = (
        (full * short).sum(1) / np.linalg.norm(full, axis=1) / np.linalg.norm(short, axis=1)
    )
    assert cosine.min() > 0.999


def test_channels_are_found_by_name(encoder, tmp_path):
    assert channel_places(encoder, ["b", "x", "a"], tmp_path) == [2, 0]
    with pytest.raises(UserError, match="no channel 'b'"):
        channel_places(encoder, ["a", "x"], tmp_path)


def test_last_block_alone_equals_the_last_of_all(encoder, screen):
    wells, images, pixels = screen
    every = embed_wells(encoder, wells, images, pixels, [2, 0], WellsKnobs())
    last = embed_wells(encoder, wells, images, pixels, [2, 0], WellsKnobs(blocks="last"))
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


def test_sites_smaller_than_a_crop_give_one_line_and_no_store(folder, tmp_path):
    large = prepare_encoder(PrepareKnobs(channels=("a", "b"), crop=32, model_args=TINY))
    save_encoder(folder / "large", large)
    with pytest.raises(
        UserError, match=r"images.zarr: .* no crop of 32, wanted by encoder large"
    ):
        main(command(folder, tmp_path / "e.zarr", "large"))
    assert not (tmp_path / "e.zarr").exists()
