"""Principal components with scaling by experiment, against scikit-learn and the reference."""

import numpy as np
import polars as pl
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from phenopipe.align.pca import ControlPCANormalizer, center_scale_on_controls

from .conftest import batch_of


@pytest.fixture
def wells():
    x_WD = np.concatenate([batch_of(seed) for seed in range(3)])
    return x_WD, np.tile(np.arange(40) < 15, 3), np.repeat(["a", "b", "c"], 40)


def test_golden_numbers_of_the_reference(shared):
    frame = pl.read_csv(shared / "golden" / "wells.csv")
    x_WD = frame.select(pl.selectors.starts_with("f")).to_numpy()
    golden = np.load(shared / "golden" / "efaar_arrays.npz")["centerscale"]
    found = center_scale_on_controls(x_WD, frame["gene"] == "EMPTY_control", frame["batch"])
    np.testing.assert_allclose(found, golden, atol=1e-8)


@pytest.mark.parametrize("n_components", [None, 2])
def test_equals_scikit_learn_up_to_signs(wells, n_components):
    x_WD, is_control_W, experiment_W = wells
    rotated = PCA(n_components).fit(x_WD[is_control_W]).transform(x_WD)
    expected = np.empty_like(rotated)
    for name in "abc":
        rows = experiment_W == name
        scaler = StandardScaler().fit(rotated[rows & is_control_W])
        expected[rows] = scaler.transform(rotated[rows])
    found = ControlPCANormalizer(n_components).fit(*wells).transform(x_WD, experiment_W)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-9)


def test_one_scale_for_all_without_experiments(wells):
    x_WD, is_control_W, _ = wells
    expected = StandardScaler().fit(x_WD[is_control_W]).transform(x_WD)
    np.testing.assert_allclose(
        center_scale_on_controls(x_WD, is_control_W), expected, atol=1e-9
    )


def test_a_constant_feature_is_centred_only(wells):
    x_WD, is_control_W, experiment_W = wells
    x_WD = np.column_stack([x_WD, np.where(is_control_W, 3.0, 7.0)])
    scaled = center_scale_on_controls(x_WD, is_control_W, experiment_W)
    np.testing.assert_array_equal(scaled[:, -1], np.where(is_control_W, 0.0, 4.0))


def test_one_control_takes_the_scale_of_all(wells):
    x_WD, is_control_W, experiment_W = wells
    alone = is_control_W & ((experiment_W != "a") | (np.arange(120) == 0))
    aligned = (
        ControlPCANormalizer().fit(x_WD, alone, experiment_W).transform(x_WD, experiment_W)
    )
    assert 0.1 < aligned[experiment_W == "a"].std() < 10


def test_an_experiment_without_controls_is_told(wells):
    x_WD, is_control_W, experiment_W = wells
    without = is_control_W & (experiment_W != "c")
    with pytest.raises(ValueError, match="experiment c has no control"):
        center_scale_on_controls(x_WD, without, experiment_W)
    with pytest.raises(ValueError, match="experiment c has no control"):
        ControlPCANormalizer().fit(x_WD, without, experiment_W)
