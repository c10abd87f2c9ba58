import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from phenopipe.classifier import bootstrap_accuracies, bootstrap_accuracies_of_units


@given(
    y=st.lists(st.sampled_from("abcd"), min_size=1, max_size=25),
    seed=st.integers(0, 50),
)
@settings(max_examples=30, deadline=None)
def test_bootstraps_equal_scikit_learns_score_of_each_resample(y, seed):
    y_N = np.array(y)
    rng = np.random.default_rng(seed)
    predicted_KN = rng.choice(list("abcd"), (2, len(y_N)))
    found_BK = bootstrap_accuracies(
        y_N, predicted_KN, bootstraps=4, rng=np.random.default_rng(seed)
    )
    # The same draws, on wells in the order of their classes.
    rng, order_N = np.random.default_rng(seed), np.argsort(y_N, kind="stable")
    for row in found_BK:
        at = order_N[rng.integers(len(y_N), size=len(y_N))]
        for k in range(2):
            right = [
                (predicted_KN[k, at] == y_N[at])[y_N[at] == c].mean() for c in set(y_N[at])
            ]
            assert row[k] == pytest.approx(np.mean(right))


def test_bootstraps_lie_around_the_score():
    rng = np.random.default_rng(0)
    y_N = rng.choice(list("abc"), 400)
    predicted_N = np.where(rng.random(400) < 0.7, y_N, "a")
    found_BK = bootstrap_accuracies(y_N, predicted_N[None], bootstraps=300, rng=rng)
    score = balanced_accuracy_score(y_N, predicted_N)
    low, high = np.quantile(found_BK, [0.025, 0.975])
    assert low < score < high and high - low < 0.15


def test_units_are_drawn_with_all_their_wells():
    rng = np.random.default_rng(3)
    y_N = rng.choice(list("abc"), 90)
    unit_N = np.repeat(["u", "v", "w"], 30)
    predicted_KN = rng.choice(list("abc"), (2, 90))
    found_BK = bootstrap_accuracies_of_units(
        y_N, predicted_KN, unit_N, bootstraps=40, rng=np.random.default_rng(5)
    )
    rng = np.random.default_rng(5)
    for row in found_BK:
        drawn = rng.integers(3, size=3)
        at = np.concatenate([np.flatnonzero(unit_N == "uvw"[u]) for u in drawn])
        wanted = [balanced_accuracy_score(y_N[at], said[at]) for said in predicted_KN]
        assert row == pytest.approx(wanted)
