"""The Cauchy combination against scipy's Cauchy law and against closed cases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import cauchy, norm

from phenopipe.combination import cauchy_combination, cauchy_score, cauchy_tail

p_values = st.lists(st.floats(1e-12, 1 - 1e-6), min_size=1, max_size=30)


@given(p_values)
def test_equals_the_mean_of_scipy_cauchy_variables(p_K):
    expected = cauchy.sf(np.mean(cauchy.isf(p_K)))
    assert cauchy_combination(p_K) == pytest.approx(expected, rel=1e-6)


@given(st.floats(1e-14, 0.999))
def test_one_p_value_is_its_own_combination(p):
    assert cauchy_combination([p]) == pytest.approx(p, rel=1e-9)


def test_weights_count_as_repeats():
    assert cauchy_combination([0.02, 0.5], [2, 1]) == pytest.approx(
        cauchy_combination([0.02, 0.02, 0.5]), rel=1e-12
    )


def test_a_p_value_of_one_swallows_a_small_one_only_without_a_ceiling():
    assert cauchy_combination([0.001, 1.0]) > 0.9
    assert cauchy_combination([0.001, 1.0], floor=1e-4, ceiling=0.99) < 0.01


def test_floor_bounds_the_evidence_of_one_test():
    assert cauchy_combination([0.0], floor=1e-3, ceiling=0.99) == pytest.approx(1e-3)


@pytest.mark.parametrize("n_tests", [2, 6, 24])
def test_size_at_one_percent_stays_nominal(n_tests):
    # 200,000 trials: the standard error of the rate is 0.00022.
    p = np.ceil(np.random.default_rng(n_tests).random((200_000, n_tests)) * 10_000) / 10_000
    combined = cauchy_tail(cauchy_score(p, floor=1e-4, ceiling=0.99).mean(axis=1))
    assert 0.009 < (combined <= 0.01).mean() < 0.011


@pytest.mark.parametrize("n_tests", [2, 6, 24])
@pytest.mark.parametrize(("n_shared", "correlation"), [(1, 0.2), (2, 0.9)])
def test_size_stays_near_nominal_where_experiments_depend(n_tests, n_shared, correlation):
    # One variable shared by all experiments, or one by each technical pair.
    rng = np.random.default_rng(n_tests)
    n_groups = 1 if n_shared == 1 else n_tests // n_shared
    shared = rng.standard_normal((200_000, n_groups)).repeat(n_tests // n_groups, axis=1)
    own = rng.standard_normal((200_000, n_tests))
    z = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
    p = np.maximum(np.ceil(norm.sf(z) * 10_000), 1) / 10_000
    combined = cauchy_tail(cauchy_score(p, floor=1e-4, ceiling=0.99).mean(axis=1))
    assert 0.008 < (combined <= 0.01).mean() < 0.012


@pytest.mark.parametrize("bad", [[], [np.nan], [-0.1], [1.1]])
def test_what_is_no_p_value_is_refused(bad):
    with pytest.raises(ValueError):
        cauchy_combination(bad)


@pytest.mark.parametrize("weights", [[1.0], [-1.0, 2.0], [0.0, 0.0], [np.nan, 1.0]])
def test_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(ValueError):
        cauchy_combination([0.1, 0.2], weights)
