import numpy as np
import pytest

from phenopipe.classifier import linear_classifier
from phenopipe.probe.config import MAX_ITER
from phenopipe.probe.logistic import (
    balanced_accuracy,
    choose_block,
    fit_probe,
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
    assert probe.converged and 0 < probe.iterations < 2000


def test_features_are_standardized_on_the_wells_that_train():
    probe = fit_probe(*blobs(60))
    assert probe.scaler.mean_ == pytest.approx(blobs(60)[0].mean(axis=0), rel=1e-5)
    assert probe.classes_K.tolist() == ["a", "b", "c"] and probe.weight_DK.shape == (4, 3)


def test_scikit_learn_has_the_settings_of_the_paper():
    settings = linear_classifier(max_iter=MAX_ITER)[-1].get_params()
    assert settings["solver"] == "lbfgs" and settings["max_iter"] == 2000
    assert settings["class_weight"] == "balanced" and settings["C"] == 1


def test_balanced_accuracy_weighs_classes_not_wells():
    x_ND = np.array([[0.0], [1.0]] * 10)
    probe = fit_probe(x_ND, np.array(["low", "high"] * 10))
    x_test = np.array([[0.0]] * 9 + [[0.0]])
    assert balanced_accuracy(probe, x_test, np.array(["low"] * 9 + ["high"])) == 0.5


def test_of_equal_blocks_the_earliest_is_chosen():
    assert choose_block(np.array([0.2, 0.5, 0.5, 0.1])) == 1
