import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phenopipe.errors import UserError
from phenopipe.formats.images import write_images
from phenopipe.pretrain.sites import find_sites
from phenopipe.pretrain.stream import CropStream, random_crop
from tests.pretrain.conftest import make_screen


def stream(sites, batch=5, seed=0, flips=True):
    def extras(rng, site):
        return rng.random(4, np.float32), np.int64(site)

    return CropStream(sites, crop=16, batch=batch, seed=seed, flips=flips, extras=extras)


def test_batches_do_not_depend_on_what_was_drawn_before(screen):
    sites = screen.sites()
    fresh = stream(sites).batch(7)
    used = stream(sites)
    list(used.batches(0, 7))
    for one, other in zip(fresh, used.batch(7), strict=True):
        assert torch.equal(one, other)


def test_every_epoch_shows_every_site_once_in_another_order(screen):
    sites = screen.sites()
    drawn = stream(sites)
    orders = [[drawn.site(epoch, at) for at in range(len(sites))] for epoch in range(3)]
    assert all(sorted(order) == list(range(len(sites))) for order in orders)
    assert orders[0] != orders[1] != orders[2]


@settings(max_examples=20, deadline=None)
@given(split=st.integers(1, 5), seed=st.integers(0, 3))
def test_batch_size_cuts_the_same_stream(screen, split, seed):
    sites = screen.sites()
    whole = torch.cat([b[0] for b in stream(sites, 6, seed).batches(0, 5)])
    cut = torch.cat([b[0] for b in stream(sites, split, seed).batches(0, -(-30 // split))])
    assert torch.equal(whole, cut[:30])


def test_seed_changes_the_stream(screen):
    sites = screen.sites()
    assert not torch.equal(stream(sites).batch(0)[0], stream(sites, seed=1).batch(0)[0])


def test_background_reading_gives_the_batches_in_order(screen):
    sites = screen.sites()
    ahead = list(stream(sites).batches(2, 9))
    assert len(ahead) == 7
    for number, batch in enumerate(ahead, start=2):
        assert torch.equal(batch[0], stream(sites).batch(number)[0])


def test_pixels_in_memory_equal_pixels_on_disk(screen):
    held = screen.sites()
    held.hold(memory_mb=1)
    assert held.in_memory
    assert torch.equal(stream(held).batch(3)[0], stream(screen.sites()).batch(3)[0])


def test_images_larger_than_the_limit_stay_on_disk(screen, tmp_path):
    sites = screen.sites()
    sites.hold(memory_mb=0)
    assert not sites.in_memory


def test_order_of_the_files_does_not_matter(tmp_path):
    one, two = (make_screen(tmp_path / e, experiment=e, n_wells=6) for e in ("one", "two"))
    wells = pl.concat([pl.read_parquet(s.manifest) for s in (one, two)])
    forth, back = (
        find_sites([s.images for s in order], [s.pixels for s in order], wells, 16)
        for order in ([one, two], [two, one])
    )
    assert forth.table["image_id"].equals(back.table["image_id"])
    assert torch.equal(stream(forth).batch(0)[0], stream(back).batch(0)[0])


def test_channels_come_in_one_order_whatever_that_of_the_files(tmp_path):
    one = make_screen(tmp_path / "one", experiment="one", n_wells=2)
    two = make_screen(tmp_path / "two", experiment="two", n_wells=2, channels=("actin", "dna"))
    wells = pl.concat([pl.read_parquet(s.manifest) for s in (one, two)])
    forth, back = (
        find_sites([s.images for s in order], [s.pixels for s in order], wells, 16)
        for order in ([one, two], [two, one])
    )
    assert list(forth.channels) == list(back.channels) == ["dna", "actin"]
    assert all(np.array_equal(forth.pixels(at), back.pixels(at)) for at in range(len(forth)))


def test_images_smaller_than_a_crop_are_counted(tmp_path, capsys):
    one = make_screen(tmp_path / "one", n_wells=4)
    images = pl.read_parquet(one.images)
    small = images.with_columns(
        height=pl.when(pl.col("index") == 0).then(8).otherwise("height")
    )
    stamp = {"names": {"screen": "made", "experiment": "one"}}
    write_images(one.images, small.cast({"height": pl.Int32}), stamp)
    assert len(one.sites()) == 3
    assert "1 images are smaller than a crop" in capsys.readouterr().out


def test_channels_are_matched_by_name(tmp_path):
    one = make_screen(tmp_path / "one", n_wells=2)
    two = make_screen(tmp_path / "two", n_wells=2, channels=("actin", "dna"))
    wells = one.sites().table
    sites = find_sites([one.images, two.images], [one.pixels, two.pixels], wells, 16)
    swapped = next(at for at in range(len(sites)) if sites.table["store"][at] == 1)
    stored = sites.stores[1][int(sites.table["index"][swapped])]
    assert np.array_equal(sites.pixels(swapped), stored[::-1])


def test_missing_channel_and_missing_sites_give_one_clear_line(tmp_path):
    one = make_screen(tmp_path / "one", n_wells=2)
    two = make_screen(tmp_path / "two", n_wells=2, channels=("dna",))
    wells = one.sites().table
    with pytest.raises(UserError, match="no channel 'actin', found dna"):
        find_sites([one.images, two.images], [one.pixels, two.pixels], wells, 16)
    # Which of them is the odd one, names decide, not the order of the files.
    with pytest.raises(UserError, match="no channel 'actin', found dna"):
        find_sites([two.images, one.images], [two.pixels, one.pixels], wells, 16)
    alone, more = (
        make_screen(tmp_path / e, experiment=e, n_wells=2, channels=channels)
        for e, channels in (("alone", ("dna",)), ("more", ("dna", "actin")))
    )
    with pytest.raises(UserError, match="channel 'actin', which other stores have not"):
        find_sites([alone.images, more.images], [alone.pixels, more.pixels], wells, 16)
    with pytest.raises(UserError, match="the manifest is empty"):
        find_sites([one.images], [one.pixels], wells.clear(), 16)
    with pytest.raises(UserError, match="no stored image"):
        one.sites(crop=64)
    with pytest.raises(UserError, match="1 images tables and 2 pixel stores"):
        find_sites([one.images], [one.pixels, one.pixels], wells, 16)


def test_random_crop_is_a_flipped_square_of_the_image():
    rng = np.random.default_rng(0)
    image = np.arange(2 * 9 * 7, dtype=np.uint8).reshape(2, 9, 7)
    windows = {
        image[:, y : y + 5, x : x + 5][:, ::up, ::over].tobytes()
        for y in range(5)
        for x in range(3)
        for up in (1, -1)
        for over in (1, -1)
    }
    found = {random_crop(image, 5, rng, flips=True).tobytes() for _ in range(500)}
    assert found <= windows and len(found) > 50
