import numpy as np
import pytest

from phenopipe.qc.nuclei import Objects, condensation, find_objects, usual_nucleus


def test_objects_are_found_with_area_and_light():
    fields = np.full((2, 40, 40), 5, np.uint8)
    fields[0, 5:15, 5:15] = 105
    fields[0, 25:35, 25:35] = 105
    fields[1, 5:15, 5:15] = 205
    objects = find_objects(fields, np.full(2, 5.0), np.full(2, 50.0))
    assert objects.site_M.tolist() == [0, 0, 1]
    np.testing.assert_allclose(objects.area_M, 100, atol=6)
    np.testing.assert_allclose(objects.light_M, [100, 100, 200], rtol=0.01)


def test_no_object_is_found_in_an_empty_field():
    objects = find_objects(np.full((2, 40, 40), 5, np.uint8), np.full(2, 5.0), np.full(2, 9.0))
    assert objects.area_M.size == 0
    assert np.isnan(usual_nucleus(objects)).all()


def objects_of(area, light, whole=True):
    n = len(area)
    return Objects(
        np.zeros(n, int), np.array(area, float), np.array(light, float), np.full(n, whole)
    )


def test_specks_do_not_decide_what_a_nucleus_is():
    objects = objects_of([2] * 90 + [80] * 10, [10] * 90 + [50] * 10)
    assert usual_nucleus(objects) == (80.0, 50.0)


def test_a_nucleus_at_the_border_is_not_whole():
    field = np.zeros((1, 40, 40), np.uint8)
    field[0, 0:8, 5:15] = field[0, 20:30, 20:30] = 100
    objects = find_objects(field, np.zeros(1), np.full(1, 30.0))
    assert objects.is_whole_M.tolist() == [False, True]
    assert usual_nucleus(objects)[0] == pytest.approx(100, abs=6)


def test_a_dead_nucleus_is_both_small_and_bright():
    objects = objects_of([40, 40, 100, 100, 200], [9, 20, 20, 10.1, 40])
    found = condensation(objects, np.full(5, 100.0), np.full(5, 10.0))
    np.testing.assert_allclose(found, [0, 5, 2, 1.01, 2])
