"""What must not matter: threads, names of plates, and experiments that come later."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from phenopipe.align.config import FitKnobs, MomentsKnobs
from phenopipe.align.fit import fit_transform
from phenopipe.align.moments import control_moments
from phenopipe.align.tvn import TypicalVariationNormalizer
from phenopipe.formats.moments import read_moments, write_moments

from .conftest import batch_of

NAMES = ("e1", "e2", "e3")
KNOBS = MomentsKnobs()


def parts_of(seeds):
    return [control_moments(f"e{s}", batch_of(s, n_features=20), KNOBS) for s in seeds]


def test_what_is_written_is_read_to_the_last_bit(tmp_path):
    part = parts_of([1])[0]
    write_moments(tmp_path / "m.npz", part, {"step": "moments"})
    read = read_moments(tmp_path / "m.npz")
    for name in ("mean", "scatter", "spectrum"):
        np.testing.assert_array_equal(getattr(read, name), getattr(part, name))
    plain = {"mean": 0, "scatter": 0, "spectrum": 0}
    assert replace(read, **plain) == replace(part, **plain)


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 2), st.integers(0, 50), st.sampled_from([20, 150]))
def test_threads_and_parts_change_nothing_that_matters(threads, seed, n_wells):
    x_WD = np.concatenate([batch_of(seed + e, n_wells, 60) for e in range(3)])
    names_W = np.repeat(NAMES, n_wells)
    control_W = np.tile(np.arange(n_wells) < n_wells // 2, 3)

    def aligned():
        normalizer = TypicalVariationNormalizer(center_by_experiment=True)
        return normalizer.fit(x_WD, control_W, names_W).transform(x_WD, names_W)

    with threadpool_limits(1):
        one = aligned()
    with threadpool_limits(threads):
        other = aligned()
    gram, again = one @ one.T.copy(), other @ other.T.copy()
    np.testing.assert_allclose(gram, again, atol=1e-10 * np.abs(gram).max())


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=5, unique=True))
def test_a_later_experiment_changes_no_row_of_the_others_and_adds_its_own(seeds):
    before, after = parts_of(sorted(seeds)[:-1]), parts_of(sorted(seeds))
    _, fewer = fit_transform(before, FitKnobs())
    _, more = fit_transform(after, FitKnobs())
    own = ["experiment", "n_controls", "rank", "largest", "smallest", "condition"]
    assert fewer[:-1].select(own).equals(more[: len(before)].select(own))
    assert more["n_controls"][-1] == more["n_controls"][:-1].sum()
