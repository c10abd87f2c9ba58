"""Eq. 2 and Eq. 3 against slow oracles, closed cases, and planted signal and noise."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import kstest

from phenopipe.consistency import statistics
from phenopipe.consistency.null import draw_sets
from phenopipe.consistency.statistics import (
    cauchy_combination,
    consistency_pvalues,
    content_order,
    judge,
    replicate_consistency,
    unit_rows,
)

vectors = arrays(np.float64, (5, 3), elements=st.floats(0.1, 10))


@given(vectors)
def test_consistency_equals_the_mean_over_all_ordered_pairs(x_ND):
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a in x_ND for b in x_ND]
    assert replicate_consistency(x_ND) == pytest.approx(np.mean(cosines), rel=1e-12)


def test_replicates_that_all_point_one_way_have_consistency_one():
    assert replicate_consistency(np.outer([1.0, 2.0, 7.0], [3.0, -4.0])) == pytest.approx(1.0)


@pytest.mark.parametrize("x_ND", [np.zeros((2, 3)), np.full((2, 3), np.nan), np.ones((0, 3))])
def test_a_replicate_that_points_nowhere_is_refused(x_ND):
    with pytest.raises(ValueError):
        replicate_consistency(x_ND)


def test_pvalues_equal_the_slow_oracle_given_the_same_draws():
    rng = np.random.default_rng(5)
    label_W = np.array([f"g{n:02d}" for n in range(20) for _ in range(1 + n % 4)])
    x_WD = rng.normal(size=(len(label_W), 6)) + 0.5
    everywhere = np.ones(len(label_W), bool)
    got = judge(
        unit_rows(x_WD), label_W, label_W, everywhere, n_null=200, rng=np.random.default_rng(9)
    )
    pool_WD = x_WD[content_order(unit_rows(x_WD), label_W)]
    set_NK = draw_sets(
        np.unique(label_W, return_counts=True)[1], 200, 4, np.random.default_rng(9)
    )
    assert got.height == 15  # labels with a single well are not tested
    for label, n, statistic, p_value, _ in got.iter_rows():
        wanted = replicate_consistency(x_WD[label_W == label])
        null_K = np.array([replicate_consistency(pool_WD[wells[:n]]) for wells in set_NK.T])
        assert n == (label_W == label).sum()
        assert statistic == pytest.approx(wanted, rel=1e-12)
        assert p_value == max((null_K >= wanted).sum(), 1) / 200


def test_an_equal_statistic_counts_against_the_condition():
    # Every well is the same, so every null set ties with every condition.
    labels = [f"g{n // 2}" for n in range(12)]
    table = consistency_pvalues(np.ones((12, 3)), labels, n_null=50, seed=0)
    assert table["p_value"].to_list() == [1.0] * 6


def test_a_strong_planted_effect_reaches_exactly_one_in_k_and_nothing_goes_below():
    rng = np.random.default_rng(0)
    x_WD = rng.normal(size=(120, 16))
    x_WD[:3] += 20
    labels = [f"g{n // 3:02d}" for n in range(120)]
    table = consistency_pvalues(x_WD, labels, n_null=500, seed=0)
    assert table["p_value"][0] == table["p_value"].min() == 1 / 500


def batches(seed, n_replicates):
    """Wells without any effect, in clusters and along a gradient, so far from normal."""
    rng = np.random.default_rng(seed)
    n_wells = 40 * n_replicates
    x_WD = rng.normal(size=(n_wells, 8)) * rng.gamma(1, 1, size=(n_wells, 1))
    x_WD += rng.normal(size=(4, 8))[rng.integers(0, 4, n_wells)] * 1.5
    labels = [f"g{n // n_replicates}" for n in rng.permutation(n_wells)]
    return x_WD, labels


@pytest.mark.parametrize("n_replicates", [2, 3, 6, 24])
def test_pvalues_are_uniform_without_effect_and_called_at_the_nominal_rate(n_replicates):
    pooled = []
    for seed in range(10):
        x_WD, labels = batches(seed, n_replicates)
        table = consistency_pvalues(x_WD, labels, n_null=1000, seed=seed)
        pooled.extend(table["p_value"])
    pooled = np.array(pooled)
    assert kstest(pooled, "uniform").pvalue > 0.01
    assert pooled.min() >= 1 / 1000
    assert (pooled <= 0.05).mean() <= 1.2 * 0.05 + 2 * np.sqrt(0.05 * 0.95 / len(pooled))


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(24)), st.integers(0, 5))
def test_the_order_of_wells_changes_nothing(order, seed):
    # Doubled rows and negative zeros are the cases in which order could slip in.
    x_WD = np.round(np.random.default_rng(seed).normal(size=(24, 2)))
    x_WD[:, 0] = np.where(x_WD[:, 0] == 0, 1.0, x_WD[:, 0])
    x_WD[::5, 1] = -0.0
    labels = np.array([f"g{n // 4}" for n in range(24)])
    as_given = consistency_pvalues(x_WD, labels, n_null=50, seed=0)
    moved = consistency_pvalues(
        np.asfortranarray(x_WD[order]), labels[order], n_null=50, seed=0
    )
    assert as_given.equals(moved)


def test_a_larger_condition_leaves_the_draws_of_smaller_sizes_alone():
    x_WD = np.random.default_rng(0).normal(size=(60, 5))
    label_W = np.array([f"g{n // 3:02d}" for n in range(60)], dtype="U9")
    in_pool_W = np.arange(60) < 54

    def run(wells):
        parts = (unit_rows(x_WD[wells]), label_W[wells], label_W[wells], in_pool_W[wells])
        return judge(*parts, n_null=80, rng=np.random.default_rng(0))

    few = run(slice(54))
    label_W[54:] = "strong"  # a positive control with 6 wells, judged but not in the pool
    more = run(slice(60))
    assert more.filter(pl.col("label") != "strong").equals(few)
    assert more.filter(label="strong")["n_replicates"].item() == 6


@pytest.mark.parametrize("labels", [["x"] * 3, ["x"] * 3 + [None], ["x"] * 4 + [None]])
def test_wells_without_a_label_and_an_empty_null_are_refused(labels):
    with pytest.raises(ValueError, match=r"4 wells and [34] labels, wanted one each"):
        consistency_pvalues(np.eye(4), labels, n_null=10, seed=0)
    with pytest.raises(ValueError, match="n_null 0, wanted 1 or more"):
        consistency_pvalues(np.eye(4), ["x", "x", "y", "y"], n_null=0, seed=0)


def test_conditions_that_cannot_be_tested_have_no_row():
    x_WD = np.random.default_rng(0).normal(size=(5, 3))
    table = consistency_pvalues(x_WD, ["a", "a", "b", "b", "single"], n_null=10, seed=0)
    assert table["perturbation"].to_list() == ["a", "b"]
    alone = consistency_pvalues(x_WD, ["a"] * 5, n_null=10, seed=0)
    assert alone.height == 0
    assert alone.schema == table.schema


def test_the_cauchy_combination_is_part_of_this_module():
    assert statistics.cauchy_combination is cauchy_combination
    assert cauchy_combination([0.001, 1.0], floor=1e-4, ceiling=0.99) < 0.01
