import math

import numpy as np
import pytest
import torch

from phenopipe.encoders.dino import middle_positions
from phenopipe.encoders.mae import fixed_positions
from phenopipe.encoders.standardize import self_standardize
from phenopipe.pretrain.config import DinoKnobs
from phenopipe.pretrain.views import (
    Views,
    ViewStream,
    block_mask,
    blur,
    change,
    draw_views,
    prepare,
)
from phenopipe.seeds import generator

KNOBS = DinoKnobs(crop=16, small_crop=8, patch=4, depth=3, batch=4)
PLAIN = {"flips": False, "rotations": False, "gain": 0.0, "offset": 0.0, "blur": 0.0}


def numbered(side, channels=3):
    """An image whose every pixel says where it is."""
    place = np.arange(side * side, dtype=np.uint16).reshape(side, side)
    return np.stack([place + channel for channel in range(channels)])


def places(crop):
    """Rows and columns of the image that a crop of it shows."""
    return np.unique(crop // 1000), np.unique(crop % 1000)


@pytest.mark.parametrize(("large", "small"), [(2, 4), (3, 0)])
@pytest.mark.parametrize("channels", [1, 5])
def test_views_have_their_shapes_for_any_number_of_channels(large, small, channels):
    knobs = KNOBS.model_copy(update={"large_crops": large, "small_crops": small})
    views = draw_views(numbered(20, channels), knobs, generator(0, "test"))
    crops = large + small
    assert views.large.shape == (large, channels, 16, 16)
    assert views.small.shape == (small, channels, 8, 8)
    assert views.large.dtype == views.small.dtype == np.uint16
    assert views.gain.shape == views.offset.shape == (crops, channels)
    assert views.sigma.shape == (crops,) and views.mask.shape == (large, 16)
    assert views.drop.shape == (crops, 3)
    batch = Views(*(torch.from_numpy(np.stack([part, part])) for part in views))
    ready = prepare(batch)
    assert ready.large_NCHW.shape == (2 * large, channels, 16, 16)
    assert ready.small_NCHW.shape == (2 * small, channels, 8, 8)
    assert ready.drop_small_NB.shape == (2 * small, 3)
    assert len(ready.weight_M) == int(ready.mask_NL.sum())


def test_all_crops_lie_in_one_square_and_large_ones_overlap():
    knobs = KNOBS.model_copy(update=PLAIN)
    image = np.add.outer(np.arange(100) * 1000, np.arange(100)).astype(np.int64)[None]
    for draw in range(50):
        views = draw_views(image, knobs, generator(draw, "test"))
        crops = [*views.large, *views.small]
        for axis in (0, 1):
            seen = [places(crop)[axis] for crop in crops]
            assert max(s.max() for s in seen) - min(s.min() for s in seen) < 1.5 * 16
            assert len(np.intersect1d(*seen[:2])) >= 8


def test_a_site_no_larger_than_the_square_gives_crops_from_all_of_it():
    views = draw_views(numbered(16), KNOBS.model_copy(update=PLAIN), generator(0, "test"))
    assert np.array_equal(views.large[0], numbered(16))


def test_crops_are_turned_and_flipped_all_eight_ways():
    image = numbered(16, 1)
    knobs = KNOBS.model_copy(update={**PLAIN, "flips": True, "rotations": True})
    seen = {
        draw_views(image, knobs, generator(draw, "test")).large[0].tobytes()
        for draw in range(100)
    }
    ways = {
        np.rot90(image[:, ::step], turns, axes=(1, 2)).tobytes()
        for step in (1, -1)
        for turns in range(4)
    }
    assert seen == ways


@pytest.mark.parametrize("side", [4, 7, 16])
def test_masks_hide_exactly_as_many_patches_and_most_in_blocks(side):
    touching = []
    for draw in range(30):
        rng = generator(draw, "mask")
        wanted = int(rng.integers(side * side // 2 + 1))
        mask = block_mask(side, wanted, rng)
        assert mask.sum() == wanted
        neighbours = mask[1:] & mask[:-1]
        touching.append(neighbours.sum() / max(wanted, 1))
    # Hidden at random, a quarter of the hidden patches would lie below another one.
    assert side == 4 or np.mean(touching) > 0.4


def test_a_share_of_the_large_crops_is_masked():
    draws = [draw_views(numbered(20), KNOBS, generator(n, "test")).mask for n in range(200)]
    hidden = np.concatenate(draws).mean(axis=1)
    assert (hidden > 0).mean() == pytest.approx(0.5, abs=0.08)
    assert hidden[hidden > 0].min() >= 0.1 - 1 / 16 and hidden.max() <= 0.5


def test_change_is_that_of_the_knobs():
    images = torch.randint(0, 255, (2, 3, 16, 16), dtype=torch.uint8)
    gain, offset = torch.rand(2, 3) + 0.5, torch.randn(2, 3)
    found = change(images, gain, offset, torch.zeros(2))
    expected = self_standardize(images) * gain[..., None, None] + offset[..., None, None]
    assert torch.allclose(found, expected, atol=1e-4)


def test_blur_is_a_gaussian_that_keeps_flat_images_flat():
    images = torch.rand(3, 2, 9, 12)
    sigma = torch.tensor([0.0, 0.7, 2.0])
    found = blur(images, sigma)
    assert torch.allclose(found[0], images[0], atol=1e-6)
    for n in (1, 2):
        for y, x in ((0, 0), (4, 6), (8, 11)):
            weights = {
                (i, j): math.exp(-((i - y) ** 2 + (j - x) ** 2) / (2 * float(sigma[n]) ** 2))
                for i in range(9)
                for j in range(12)
            }
            mean = sum(w * images[n, 0, i, j] for (i, j), w in weights.items())
            expected = float(mean) / sum(weights.values())
            assert float(found[n, 0, y, x]) == pytest.approx(expected, rel=1e-4)
    assert torch.allclose(blur(torch.ones(3, 2, 9, 12), sigma), torch.ones(3, 2, 9, 12))


def test_views_follow_from_seed_epoch_and_place_alone(screen):
    whole = ViewStream(screen.sites(), KNOBS)
    first = whole.batch(7)
    again = ViewStream(screen.sites(), KNOBS)
    again.batch(3)
    assert all(torch.equal(a, b) for a, b in zip(first, again.batch(7), strict=True))
    share = ViewStream(screen.sites(), KNOBS)
    share.share(1, 2)
    assert all(torch.equal(a[2:], b) for a, b in zip(first, share.batch(7), strict=True))
    other = ViewStream(screen.sites(), KNOBS.model_copy(update={"seed": 1}))
    assert not torch.equal(first[0], other.batch(7)[0])


def test_small_crops_have_the_positions_of_the_middle_of_the_grid():
    positions = fixed_positions(8, 25)
    assert middle_positions(positions, 5) is positions
    found = middle_positions(positions, 2)
    rows = [0, 1 + 1 * 5 + 1, 1 + 1 * 5 + 2, 1 + 2 * 5 + 1, 1 + 2 * 5 + 2]
    assert torch.equal(found, positions[:, rows])
