import numpy as np
import polars as pl
import pytest

from phenopipe.probe.config import BlocksKnobs
from phenopipe.probe.sweep import (
    choose_on_other_half,
    halve,
    mean_of_classes,
    resample,
    share_of_other,
    sweep_blocks,
)


def made_up(experiments, layouts, a_experiment=40, seed=0):
    """Wells of two classes; the first of two experiments trains."""
    rng = np.random.default_rng(seed)
    frames = [
        pl.DataFrame(
            {
                "experiment": [experiment] * a_experiment,
                "layout": [layout] * a_experiment,
                "label": rng.choice(["a", "b"], a_experiment),
            }
        )
        for experiment, layout in zip(experiments, layouts, strict=True)
    ]
    return pl.concat(frames), rng


def test_technical_pairs_stay_in_one_half():
    test, rng = made_up(["e1", "e2", "e3", "e4"], ["l1", "l1", "l2", "l2"])
    is_first, unit = halve(test, rng)
    sides = test.with_columns(first=pl.Series(is_first)).group_by("layout")
    assert unit == "layout" and is_first.sum() == 80
    assert all(n == 1 for n in sides.agg(pl.col("first").n_unique())["first"])


def test_sites_of_one_well_stay_in_one_half():
    test, rng = made_up(["e1"], ["l1"])
    test = test.with_columns(well_id=pl.Series([f"w{at // 2}" for at in range(test.height)]))
    test = test.with_columns(label=pl.col("label").first().over("well_id"))
    is_first, unit = halve(test, rng, sites=True)
    sides = test.with_columns(first=pl.Series(is_first)).group_by("well_id")
    assert unit == "well" and 0 < is_first.sum() < test.height
    assert all(n == 1 for n in sides.agg(pl.col("first").n_unique())["first"])


def test_experiments_of_one_layout_are_parted_and_wells_of_one_experiment():
    test, rng = made_up(["e1", "e2", "e3"], ["l1"] * 3)
    is_first, unit = halve(test, rng)
    assert unit == "experiment" and is_first.sum() in (40, 80)
    one, rng = made_up(["e1"], ["l1"])
    is_first, unit = halve(one, rng)
    counts = (
        one.with_columns(first=pl.Series(is_first))
        .group_by("label")
        .agg(first=pl.col("first").sum(), n=pl.len().cast(pl.Int64))
    )
    assert unit == "well"
    assert ((counts["first"] * 2 - counts["n"]).abs() <= 1).all()


def test_one_well_a_class_leaves_no_half_empty():
    test = pl.DataFrame({"experiment": "e1", "layout": "l1", "label": list("abcde")})
    for seed in range(10):
        is_first, unit = halve(test, np.random.default_rng(seed))
        assert unit == "well" and is_first.sum() == 3


def swept(signal_K, n=6, seed=0, **knobs):
    """A sweep over blocks of given signal, six experiments, half of them to test on."""
    names = [f"e{at}" for at in range(n)]
    wells, rng = made_up(names, names, a_experiment=60, seed=seed)
    wells = wells.with_columns(is_train=pl.col("experiment").is_in(names[: n // 2]))
    is_a = (wells["label"] == "a").to_numpy()[:, None]
    x_KWD = [signal * is_a + rng.normal(size=(wells.height, 4)) for signal in signal_K]
    knobs = BlocksKnobs(bootstraps=100, **knobs)
    sweep = sweep_blocks(wells, lambda block: x_KWD[block - 1], range(1, len(x_KWD) + 1), knobs)
    return sweep, wells.filter(~pl.col("is_train")), knobs


def test_choice_that_holds_on_the_other_half_gains_there():
    sweep, test, knobs = swept([0.2, 2.0, 0.2])
    found = choose_on_other_half(sweep, test, knobs)
    assert [half["block"] for half in found["halves"]] == [2, 2]
    assert found["accuracy"] == pytest.approx(sweep.accuracy_K[1])
    assert found["last_accuracy"] == pytest.approx(sweep.accuracy_K[2])
    assert found["gain"]["low"] > 0.1 and found["gain_over_experiments"]["low"] > 0.1
    assert sum(half["n"] for half in found["halves"]) == test.height


def test_choosing_among_noise_flatters_on_the_same_wells_and_not_on_the_other_half():
    same, other = [], []
    for seed in range(8):
        sweep, test, knobs = swept([0.0] * 12, seed=seed)
        same.append(sweep.accuracy_K[sweep.best] - sweep.accuracy_K[-1])
        other.append(choose_on_other_half(sweep, test, knobs)["gain"]["value"])
    assert np.mean(same) > 0.04 > abs(np.mean(other))


def test_experiments_are_resampled_whole_where_there_are_two():
    sweep, test, knobs = swept([1.0, 1.0])
    spread = np.ptp(sweep.by_experiment_BK[:, 0])
    each = [
        mean_of_classes(part["label"].to_numpy(), sweep.predicted_KN[:1, at])
        for at, part in (
            ((test["experiment"] == name).to_numpy(), test.filter(experiment=name))
            for name in test["experiment"].unique()
        )
    ]
    assert spread <= np.ptp(each) + 1e-9
    one = test.filter(experiment="e3")
    here = (test["experiment"] == "e3").to_numpy()
    assert resample(one, sweep.predicted_KN[:, here], knobs)[1] is None
    assert share_of_other(None, 0) is None


def test_warm_starts_change_nothing_but_the_steps():
    warm, _, _ = swept([0.5, 0.6, 0.7])
    cold, _, _ = swept([0.5, 0.6, 0.7], warm_start=False)
    theirs, _, _ = swept([0.5, 0.6, 0.7], solver="sklearn")
    for other in (cold, theirs):
        assert warm.accuracy_K == pytest.approx(other.accuracy_K, abs=0.01)
        assert warm.best == other.best
