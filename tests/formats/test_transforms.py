"""transform.npz: equal content gives equal bytes, and what is no transform is refused."""

import time
from dataclasses import replace

import numpy as np
import pytest

from phenopipe.errors import UserError
from phenopipe.formats.transforms import ARRAYS, Transform, read_transform, write_transform

TRANSFORM = Transform(
    "tvn",
    np.arange(3.0),
    np.eye(3)[:, :2],
    np.array([[1.0, 2.0], [3.0, 6.0]]),
    {"holdout": 0.2},
    {"e1": 12, "e2": 9},
    ("ARPE-19", "HUVEC"),
)


def test_what_is_written_is_read(tmp_path):
    write_transform(tmp_path / "t.npz", TRANSFORM, {"step": "fit"})
    read = read_transform(tmp_path / "t.npz")
    np.testing.assert_array_equal(read.center, TRANSFORM.center)
    np.testing.assert_array_equal(read.projection, TRANSFORM.projection)
    np.testing.assert_array_equal(read.middle, TRANSFORM.middle)
    assert replace(read, **dict.fromkeys(ARRAYS)) == replace(TRANSFORM, **dict.fromkeys(ARRAYS))


def test_a_cell_type_has_its_own_middle_and_an_unknown_one_the_mean():
    assert TRANSFORM.middle_of("HUVEC").tolist() == [3.0, 6.0]
    assert TRANSFORM.middle_of("U2OS").tolist() == [2.0, 4.0]


def test_bytes_do_not_depend_on_the_clock(tmp_path):
    write_transform(tmp_path / "a.npz", TRANSFORM, {"step": "fit"})
    time.sleep(2.1)  # zip files count in steps of two seconds
    write_transform(tmp_path / "b.npz", TRANSFORM, {"step": "fit"})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "harmony"}, "method 'harmony'"),
        ({"projection": np.eye(2)}, "wanted \\(3, 2\\)"),
        ({"cell_types": ("HUVEC",)}, "2 middles, wanted one of each of"),
        ({"center": np.full(3, np.nan)}, "not finite"),
    ],
)
def test_a_transform_that_does_not_hold_together_is_refused(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        write_transform(tmp_path / "t.npz", replace(TRANSFORM, **change), {})
    assert not list(tmp_path.iterdir())


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "other.npz", center=np.zeros(3))
    for name in ("text.npz", "other.npz"):
        with pytest.raises(UserError, match="not a readable transform"):
            read_transform(tmp_path / name)
