import numpy as np
import pytest

from phenopipe.qc.robust import deviations, plate_medians


def test_each_plate_is_its_own_measure():
    values = np.array([[1.0], [2.0], [3.0], [101.0], [102.0], [103.0]])
    plate = np.array(["a"] * 3 + ["b"] * 3)
    away = deviations(values, plate, np.ones(6, bool), min_reference=1)
    np.testing.assert_allclose(away[:, 0], np.tile([-1, 0, 1], 2) / 1.4826)


def test_the_wider_of_controls_and_plate_is_the_unit():
    values = np.array([[0.0], [1.0], [2.0], [-10.0], [10.0], [12.0]])
    controls = np.array([True, True, True, False, False, False])
    away = deviations(values, np.array(["a"] * 6), controls, min_reference=3)[:, 0]
    spread = 1.4826 * np.median(np.abs(values[:, 0] - 1.5))
    np.testing.assert_allclose(away, (values[:, 0] - 1.0) / spread)


def test_few_controls_leave_the_plate_to_itself():
    values = np.array([[5.0], [1.0], [2.0], [3.0]])
    controls = np.array([True, False, False, False])
    medians = [
        plate_medians(values[:, 0], np.array(["a"] * 4), controls, min_reference=n)[0]
        for n in (1, 2)
    ]
    assert medians == [5.0, 2.5]


def test_what_is_unknown_stays_unknown_and_harms_no_other():
    values = np.array([[1.0, np.nan], [2.0, np.nan], [3.0, np.nan], [np.nan, np.nan]])
    away = deviations(values, np.array(["a"] * 4), np.ones(4, bool), min_reference=1)
    assert np.isnan(away[:, 1]).all() and np.isnan(away[3, 0])
    assert away[2, 0] == pytest.approx(1 / 1.4826)


def test_anything_is_far_from_values_that_never_vary():
    away = deviations(
        np.array([[0.0], [0.0], [0.0], [1.0]]),
        np.array(["a"] * 4),
        np.ones(4, bool),
        min_reference=1,
    )
    assert away[:, 0].tolist() == [0.0, 0.0, 0.0, np.inf]
