import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from phenopipe.probe.logistic import (
    balanced_accuracy,
    bootstrap_accuracies,
    choose_block,
    fit_probe,
    iterations,
)


def blobs(n, seed=0, classes=3):
    rng = np.random.default_rng(seed)
    label_N = rng.integers(classes, size=n)
    x_ND = np.eye(classes)[label_N] * 4 + rng.normal(size=(n, classes))
    return x_ND * [1, 1e3, 1e-3][:classes] + 50, np.array(["a", "b", "c"])[label_N]


def test_probe_separates_classes_whatever_the_scale_of_features():
    x_ND, y_N = blobs(300)
    probe = fit_probe(x_ND[:200], y_N[:200])
    assert balanced_accuracy(probe, x_ND[200:], y_N[200:]) > 0.85
    assert 0 < iterations(probe) < 2000


def test_probe_has_the_settings_of_the_paper():
    probe = fit_probe(*blobs(60))
    settings = probe[-1].get_params()
    assert settings["solver"] == "lbfgs" and settings["max_iter"] == 2000
    assert settings["class_weight"] == "balanced"
    assert probe[0].mean_ == pytest.approx(blobs(60)[0].mean(axis=0), rel=1e-5)


def test_balanced_accuracy_weighs_classes_not_wells():
    x_ND = np.array([[0.0], [1.0]] * 10)
    probe = fit_probe(x_ND, np.array(["low", "high"] * 10))
    x_test = np.array([[0.0]] * 9 + [[0.0]])
    assert balanced_accuracy(probe, x_test, np.array(["low"] * 9 + ["high"])) == 0.5


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


def test_of_equal_blocks_the_earliest_is_chosen():
    assert choose_block(np.array([0.2, 0.5, 0.5, 0.1])) == 1
