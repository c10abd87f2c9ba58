"""How well labels are told apart: planted shifts are found, noise is not."""

import numpy as np
import pytest

from phenopipe import separability as module
from phenopipe.separability import separability

LABELS = np.repeat(["a", "b", "c", "d"], 40)


def wells(shift, seed=0):
    rng = np.random.default_rng(seed)
    x_ND = rng.normal(size=(len(LABELS), 12))
    x_ND[:, :4] += shift * (LABELS[:, None] == np.array(["a", "b", "c", "d"]))
    return x_ND


def told(x_ND, seed=0, **options):
    return separability(x_ND, LABELS, rng=np.random.default_rng(seed), **options)


def test_a_planted_shift_is_found_and_noise_is_not():
    assert told(wells(6.0)).accuracy > 0.98
    noise = told(wells(0.0))
    assert noise.low <= noise.chance <= noise.high
    assert noise.chance == 0.25 and noise.n == len(LABELS)


def test_the_mean_over_draws_of_the_folds_is_steadier_than_one_draw(monkeypatch):
    x_ND = wells(0.6)
    several = [told(x_ND, seed).accuracy for seed in range(8)]
    monkeypatch.setattr(module, "REPEATS", 1)
    single = [told(x_ND, seed).accuracy for seed in range(8)]
    assert np.std(several) < np.std(single)


def test_groups_are_predicted_by_classifiers_that_never_saw_them():
    group_N = np.tile(["one", "two"], len(LABELS) // 2)
    x_ND = wells(0.0)
    # Each group shows its labels along axes of its own: the other group's classifier is lost.
    shift_N4 = 6.0 * (LABELS[:, None] == np.array(["a", "b", "c", "d"]))
    for group, axes in (("one", slice(0, 4)), ("two", slice(4, 8))):
        x_ND[group_N == group, axes] += shift_N4[group_N == group]
    assert told(x_ND, group_N=group_N).accuracy < 0.4
    assert told(x_ND).accuracy > 0.95


@pytest.mark.parametrize("labels", [["a"] * 6, ["a", "b", "c", "d", "e", "f"]])
def test_too_few_wells_of_too_few_labels_tell_nothing(labels):
    x_ND = np.zeros((6, 2))
    assert separability(x_ND, np.array(labels), rng=np.random.default_rng(0)) is None
