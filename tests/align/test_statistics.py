"""Sums gathered in portions against numpy on all rows at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phenopipe.align import statistics as module
from phenopipe.align.statistics import moments, pooled, principal_axes, spread


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.booleans())
def test_pooled_moments_equal_those_of_all_rows(lengths, within):
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(n, 3)) + 100 * rng.normal(size=3) for n in lengths]
    total = pooled(map(moments, parts), within=within)
    rows = np.concatenate([part - part.mean(axis=0) for part in parts] if within else parts)
    assert total.count == sum(lengths)
    np.testing.assert_allclose(total.mean, np.concatenate(parts).mean(axis=0))
    centred = rows - rows.mean(axis=0)
    np.testing.assert_allclose(total.scatter, centred.T @ centred, atol=1e-9)


def test_portions_change_nothing(monkeypatch):
    x_ND = np.random.default_rng(0).normal(size=(50, 4))
    at_once = moments(x_ND)
    monkeypatch.setattr(module, "ROWS_A_PORTION", 7)
    np.testing.assert_allclose(moments(x_ND).scatter, at_once.scatter, rtol=1e-12)


def test_float32_rows_far_from_zero_keep_their_smallest_variance():
    rng = np.random.default_rng(0)
    x_ND = rng.normal(size=(20_000, 3)) * [1e3, 1.0, 1e-3] + [1e4, 0, 0]
    exact_D = np.linalg.eigvalsh(np.cov(x_ND.astype(np.float32).astype(np.float64).T, ddof=0))
    total = moments(x_ND.astype(np.float32))
    found_D = principal_axes(total.scatter / total.count)[1][::-1]
    np.testing.assert_allclose(found_D, exact_D, rtol=1e-6)


def test_a_constant_feature_has_spread_one():
    x_ND = np.column_stack([np.full(1000, 0.1), np.arange(1000.0), np.full(1000, -1e6 / 3)])
    np.testing.assert_allclose(spread(moments(x_ND)), [1.0, np.arange(1000).std(), 1.0])


def test_axes_without_variance_are_left_out():
    x_ND = np.random.default_rng(0).normal(size=(30, 4))
    doubled = np.column_stack([x_ND, x_ND[:, :2], x_ND.sum(axis=1)])
    axes_DR, variance_R = principal_axes(moments(doubled).scatter / 30)
    assert axes_DR.shape == (7, 4)
    assert (np.diff(variance_R) <= 0).all()
    assert principal_axes(moments(x_ND).scatter, n_components=2)[0].shape == (4, 2)


def test_nothing_to_pool_is_an_error():
    with pytest.raises(ValueError, match="at least one experiment"):
        pooled([])
