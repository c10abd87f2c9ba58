"""A well's embedding is the mean over its crops, at every block, whatever the batch."""

import numpy as np
import polars as pl
import pytest
import torch
import zarr

from phenopipe.embed.config import PrepareKnobs, WellsKnobs
from phenopipe.embed.crops import crop_corners, cut_crops
from phenopipe.embed.prepare import prepare_encoder
from phenopipe.embed.wells import channel_places, embed_wells
from phenopipe.errors import UserError

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
