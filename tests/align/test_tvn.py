"""Typical variation normalization against the reference's numbers and a plain oracle."""

import numpy as np
import polars as pl
import pytest
from scipy.linalg import fractional_matrix_power
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from phenopipe.align.tvn import TypicalVariationNormalizer, inverse_root, inverse_root_of_rows

from .conftest import batch_of


@pytest.fixture
def wells():
    x_WD = np.concatenate([batch_of(seed) for seed in range(3)])
    is_control_W = np.tile(np.arange(40) < 15, 3)
    return x_WD, is_control_W, np.repeat(["a", "b", "c"], 40)


def oracle(x_WD, is_control_W, experiment_W, regularization):
    """The four steps, one library call each."""
    x_WD = StandardScaler().fit(x_WD[is_control_W]).transform(x_WD)
    x_WD = PCA().fit(x_WD[is_control_W]).transform(x_WD)
    x_WD = StandardScaler().fit(x_WD[is_control_W]).transform(x_WD)
    for name in np.unique(experiment_W):
        rows = experiment_W == name
        spread_DD = np.cov(x_WD[rows & is_control_W].T) + regularization * np.eye(x_WD.shape[1])
        x_WD[rows] = x_WD[rows] @ fractional_matrix_power(spread_DD, -0.5).real
    return x_WD


def gram(x_WD):
    return x_WD @ x_WD.T.copy()


def test_golden_numbers_of_the_reference(shared):
    frame = pl.read_csv(shared / "golden" / "wells.csv")
    x_WD = frame.select(pl.selectors.starts_with("f")).to_numpy()
    is_control_W = (frame["gene"] == "EMPTY_control").to_numpy()
    golden = np.load(shared / "golden" / "efaar_arrays.npz")["tvn"]
    normalizer = TypicalVariationNormalizer().fit(x_WD, is_control_W, frame["batch"])
    found = normalizer.transform(x_WD, frame["batch"])
    np.testing.assert_allclose(gram(found), gram(golden), atol=1e-8)


@pytest.mark.parametrize("regularization", [0.5, 0.01, 3.0])
def test_equals_the_oracle_up_to_signs(wells, regularization):
    found = TypicalVariationNormalizer(regularization).fit(*wells).transform(wells[0], wells[2])
    np.testing.assert_allclose(gram(found), gram(oracle(*wells, regularization)), atol=1e-8)


def test_centring_removes_what_is_added_to_a_whole_experiment(wells):
    x_WD, is_control_W, experiment_W = wells
    shifted = x_WD + 50 * (experiment_W == "b")[:, None]
    for center, removed in ((True, True), (False, False)):
        normalizer = TypicalVariationNormalizer(center_by_experiment=center)
        before = normalizer.fit(*wells).transform(x_WD, experiment_W)
        after = normalizer.fit(shifted, is_control_W, experiment_W).transform(
            shifted, experiment_W
        )
        assert np.allclose(gram(before), gram(after), atol=1e-6) == removed


def test_centred_controls_have_mean_zero_and_shrunk_unit_spread(wells):
    x_WD, is_control_W, experiment_W = wells
    normalizer = TypicalVariationNormalizer(1e-9, center_by_experiment=True).fit(*wells)
    for name in "abc":
        rows = is_control_W & (experiment_W == name)
        aligned = normalizer.transform(x_WD[rows], experiment_W[rows])
        np.testing.assert_allclose(aligned.mean(axis=0), 0, atol=1e-9)
        np.testing.assert_allclose(np.cov(aligned.T), np.eye(6), atol=1e-4)


def test_only_controls_are_looked_at(wells):
    x_WD, is_control_W, experiment_W = wells
    spoiled = np.where(is_control_W[:, None], x_WD, np.nan)
    one = TypicalVariationNormalizer().fit(*wells)
    other = TypicalVariationNormalizer().fit(spoiled, is_control_W, experiment_W)
    np.testing.assert_array_equal(one.projection_, other.projection_)


def test_few_controls_and_doubled_features_give_finite_numbers():
    x_WD = np.concatenate([batch_of(seed, n_features=12) for seed in range(3)])
    x_WD = np.column_stack([x_WD, x_WD[:, :3], np.ones(120)])
    experiment_W = np.repeat([0, 1, 2], 40)
    is_control_W = np.zeros(120, bool)
    is_control_W[[0, 40, 41, 80, 81, 82]] = True  # one, two and three controls
    aligned = TypicalVariationNormalizer(center_by_experiment=True).fit(
        x_WD, is_control_W, experiment_W
    ).transform(x_WD, experiment_W)  # fmt: skip
    assert np.isfinite(aligned).all()
    assert aligned.shape == (120, 3)  # six controls around three means


def test_components_can_be_limited(wells):
    normalizer = TypicalVariationNormalizer(n_components=2).fit(*wells)
    assert normalizer.transform(wells[0], wells[2]).shape == (120, 2)


def test_mistakes_are_told(wells):
    x_WD, is_control_W, experiment_W = wells
    normalizer = TypicalVariationNormalizer()
    with pytest.raises(ValueError, match="experiment b has no control"):
        normalizer.fit(x_WD, is_control_W & (experiment_W != "b"), experiment_W)
    with pytest.raises(ValueError, match="all alike"):
        normalizer.fit(np.ones_like(x_WD), is_control_W, experiment_W)
    with pytest.raises(ValueError, match="not finite"):
        normalizer.fit(x_WD * np.nan, is_control_W, experiment_W)
    with pytest.raises(ValueError, match="regularization"):
        TypicalVariationNormalizer(0.0)
    with pytest.raises(ValueError, match="experiment d was not fitted"):
        normalizer.fit(*wells).transform(x_WD[:2], ["a", "d"])
    with pytest.raises(ValueError, match="lengths"):
        normalizer.fit(x_WD, is_control_W, experiment_W[:5])


@pytest.mark.parametrize("ridge", [1e-6, 0.5, 30.0])
@pytest.mark.parametrize("n_rows", [1, 2, 9])
def test_the_root_from_few_rows_equals_the_root_of_their_covariance(n_rows, ridge):
    rows_NR = np.random.default_rng(n_rows).normal(size=(n_rows, 10)) * np.logspace(2, -2, 10)
    rows_NR -= rows_NR.mean(axis=0)
    wanted = inverse_root(rows_NR.T @ rows_NR / max(n_rows - 1, 1), ridge)
    found = inverse_root_of_rows(rows_NR, ridge)
    np.testing.assert_allclose(found, wanted, atol=1e-9 / np.sqrt(ridge))


def test_inverse_root_of_a_singular_covariance_is_the_ridge_alone():
    np.testing.assert_allclose(inverse_root(np.zeros((2, 2)), 0.25), 2 * np.eye(2))


def test_wells_put_experiments_in_line_and_controls_stay_at_the_origin():
    # Nothing but a shift by experiment; 12 controls tell it badly, 300 wells well.
    rng = np.random.default_rng(0)
    x_WD = rng.normal(size=(900, 8)) + np.repeat(rng.normal(size=(3, 8)) * 5, 300, axis=0)
    experiment_W = np.repeat(["a", "b", "c"], 300)
    is_control_W = np.tile(np.arange(300) < 12, 3)
    # Many wells are strongly changed, in every experiment the same way: the median moves.
    x_WD[np.tile(np.arange(300) >= 180, 3)] += 10
    everyone = np.ones(900, bool)
    normalizer = TypicalVariationNormalizer(center_by_experiment=True)

    def apart(is_center_W):
        normalizer.fit(x_WD, is_control_W, experiment_W, is_center_W)
        aligned = normalizer.transform(x_WD, experiment_W)
        quiet = np.tile((np.arange(300) >= 12) & (np.arange(300) < 180), 3)
        means = [aligned[quiet & (experiment_W == name)].mean(axis=0) for name in "abc"]
        return np.std(means, axis=0).mean(), np.linalg.norm(np.mean(means, axis=0))

    by_controls, _ = apart(None)
    by_wells, off_origin = apart(everyone)
    assert by_wells < by_controls / 2
    assert off_origin < 1
