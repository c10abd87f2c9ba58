import numpy as np
import pytest
from scipy.stats import trim_mean

from phenopipe.align.apply import align_experiment
from phenopipe.align.center import centered
from phenopipe.align.config import FitKnobs
from phenopipe.align.embedded import Fitted
from phenopipe.align.fit import SETTINGS
from phenopipe.align.tvn import TypicalVariationNormalizer
from phenopipe.formats.transforms import Transform

# Where the perturbations of each cell type draw the middle of its wells.
DRAWN = {"HUVEC": np.array([4.0, 0.0, 0.0]), "ARPE-19": np.array([0.0, -3.0, 0.0])}
TYPE_OF = {"h-1": "HUVEC", "h-2": "HUVEC", "a-1": "ARPE-19", "a-2": "ARPE-19"}


@pytest.fixture
def axes():
    knobs = FitKnobs(center_on="wells")
    settings = {name: getattr(knobs, name) for name in SETTINGS}
    experiments = dict.fromkeys(TYPE_OF, 100)
    return Transform("tvn", np.zeros(3), np.eye(3), np.zeros((1, 3)), settings, experiments)


def test_cell_types_are_put_in_line_by_their_controls_and_not_by_what_perturbs_them(axes):
    rng = np.random.default_rng(0)
    middles = {}
    for name, cell_type in TYPE_OF.items():
        middles[name] = (cell_type, DRAWN[cell_type] + 0.01 * rng.standard_normal(3))
    transform = centered(axes, middles)
    assert transform.cell_types == ("ARPE-19", "HUVEC")
    for name, cell_type in TYPE_OF.items():
        shift_D = 7.0 * rng.standard_normal(3)
        control_ND = rng.standard_normal((4000, 3)) + shift_D
        others_ND = control_ND + DRAWN[cell_type]
        x_WD = np.concatenate([control_ND, others_ND])
        is_control_W = np.arange(8000) < 4000
        fitted = Fitted(controls=is_control_W, wells=~is_control_W)
        aligned_WR = align_experiment(x_WD, fitted, transform, cell_type)
        assert np.abs(aligned_WR[is_control_W].mean(axis=0)).max() < 0.1, name


def test_the_order_of_files_changes_nothing(axes):
    rng = np.random.default_rng(1)
    middles = {name: (one, rng.standard_normal(3)) for name, one in TYPE_OF.items()}
    back = dict(reversed(middles.items()))
    np.testing.assert_array_equal(centered(axes, middles).middle, centered(axes, back).middle)


@pytest.mark.parametrize("n_wells", [1, 3, 10, 57])
def test_a_middle_is_the_trimmed_mean_of_scipy(n_wells):
    x_WD = np.random.default_rng(n_wells).standard_cauchy((n_wells, 4))
    normalizer = TypicalVariationNormalizer()
    normalizer.projection_ = np.eye(4)
    found = normalizer.middle_of(np.zeros((2, 4)), x_WD)
    np.testing.assert_allclose(found, trim_mean(x_WD, 0.1, axis=0), rtol=1e-12)
