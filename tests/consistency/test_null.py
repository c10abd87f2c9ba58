"""Sets of unlike wells, and their statistics against pair by pair sums."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phenopipe.consistency import null
from phenopipe.consistency.null import draw_sets, set_statistics
from phenopipe.consistency.statistics import replicate_consistency, unit_rows

counts = st.lists(st.integers(1, 5), min_size=1, max_size=8)


@settings(deadline=None)
@given(counts, st.data())
def test_no_well_twice_and_labels_as_even_as_possible(count_L, data):
    size = data.draw(st.integers(1, sum(count_L)))
    set_NK = draw_sets(np.array(count_L), 20, size, np.random.default_rng(0))
    label_W = np.repeat(np.arange(len(count_L)), count_L)
    for wells in set_NK.T:
        assert len(set(wells)) == size
        times_L = np.bincount(label_W[wells], minlength=len(count_L))
        # A label may lag behind another only because it has no well left.
        lagging = times_L < times_L.max() - 1
        assert (times_L[lagging] == np.array(count_L)[lagging]).all()


@settings(deadline=None)
@given(counts.filter(lambda count_L: sum(count_L) > 2))
def test_a_smaller_set_is_the_beginning_of_a_larger_one(count_L):
    def draw(size):
        return draw_sets(np.array(count_L), 7, size, np.random.default_rng(3))

    np.testing.assert_array_equal(draw(sum(count_L))[:2], draw(2))


def test_labels_are_equally_likely_and_so_are_wells_within_one():
    set_NK = draw_sets(np.array([1, 3, 4]), 24_000, 2, np.random.default_rng(0))
    share_W = np.bincount(set_NK[0], minlength=8) / 24_000
    expected_W = np.repeat([1, 1 / 3, 1 / 4], [1, 3, 4]) / 3
    # Four standard errors of the largest share.
    np.testing.assert_allclose(share_W, expected_W, atol=4 * 0.003)


def test_more_wells_than_the_pool_has_are_refused():
    with pytest.raises(ValueError, match="4 wells wanted from 3"):
        draw_sets(np.array([1, 2]), 5, 4, np.random.default_rng(0))


def test_both_ways_of_summing_equal_the_slow_oracle(monkeypatch):
    x_WD = np.random.default_rng(1).normal(size=(30, 12))
    set_NK = draw_sets(np.full(10, 3), 40, 9, np.random.default_rng(2))
    slow_NK = [
        [replicate_consistency(x_WD[wells[: n + 1]]) for wells in set_NK.T] for n in range(9)
    ]
    np.testing.assert_allclose(set_statistics(unit_rows(x_WD), set_NK), slow_NK, rtol=1e-12)
    monkeypatch.setattr(null, "MOST_WELLS_OF_A_GRAM", 0)
    monkeypatch.setattr(null, "DRAWS_A_BLOCK", 7)
    np.testing.assert_allclose(set_statistics(unit_rows(x_WD), set_NK), slow_NK, rtol=1e-12)
