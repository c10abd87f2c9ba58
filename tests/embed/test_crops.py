"""Crops tile a site without overlap."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phenopipe.embed.crops import crop_corners, cut_crops
from phenopipe.errors import UserError


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 64))
def test_crops_lie_inside_and_never_overlap(height, width, crop):
    if min(height, width) < crop:
        with pytest.raises(UserError, match="no crop"):
            crop_corners(height, width, crop)
        return
    seen = np.zeros((height, width), dtype=int)
    corners = crop_corners(height, width, crop)
    for top, left in corners:
        seen[top : top + crop, left : left + crop] += 1
    assert seen.max() == 1
    assert seen.sum() == len(corners) * crop**2
    assert len(corners) == (height // crop) * (width // crop)


def test_the_papers_numbers_of_crops():
    assert len(crop_corners(2048, 2048, 256)) == 64
    inner = crop_corners(2048, 2048, 256, leave_out_ring=True)
    assert len(inner) == 36
    assert {corner for pair in inner for corner in pair} == set(range(256, 1792, 256))
    assert len(crop_corners(512, 512, 256)) == 4


def test_ring_stays_where_nothing_would_be_left():
    assert len(crop_corners(512, 512, 256, leave_out_ring=True)) == 4


def test_crops_come_site_by_site():
    sites = np.arange(2 * 1 * 4 * 4).reshape(2, 1, 4, 4).astype(np.uint16)
    crops = cut_crops(sites, crop_corners(4, 4, 2), 2)
    assert crops.shape == (8, 1, 2, 2)
    assert np.array_equal(crops[3, 0], sites[0, 0, 2:, 2:])
    assert np.array_equal(crops[4, 0], sites[1, 0, :2, :2])
