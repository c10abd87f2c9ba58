import numpy as np

from phenopipe.qc.nuclei import Objects, find_objects, is_condensed, usual_nucleus


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


def test_specks_do_not_decide_what_a_nucleus_is():
    area = np.array([2.0] * 90 + [80.0] * 10)
    light = np.array([10.0] * 90 + [50.0] * 10)
    assert usual_nucleus(Objects(np.zeros(100, int), area, light)) == (80.0, 50.0)


def test_a_dead_nucleus_is_both_small_and_bright():
    objects = Objects(np.zeros(4, int), np.array([40, 40, 100, 100]), np.array([9, 20, 20, 9]))
    usual = (np.full(4, 100.0), np.full(4, 10.0))
    found = is_condensed(objects, usual, area=0.6, light=1.5)
    assert found.tolist() == [False, True, False, False]
