import numpy as np
import polars as pl
import pytest

from phenopipe.benchmark import large, nulls
from phenopipe.benchmark.config import RecallKnobs
from phenopipe.benchmark.recall import relationship_recall
from phenopipe.benchmark.sources import score_sources

THRESHOLDS = ((0.05, 0.95), (0.1, 0.9))


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture
def small_is_large(monkeypatch):
    monkeypatch.setattr(large, "LARGE", 100)
    monkeypatch.setattr(large, "ROWS_A_TILE", 32)
    monkeypatch.setattr(large, "COLUMNS_A_TILE", 48)
    monkeypatch.setattr(large, "FEATURES_A_PRODUCT", 3)


@pytest.mark.parametrize("thresholds", [THRESHOLDS, ((0.3, 0.6),), ((0.0, 1.0), (0.5, 0.5))])
@pytest.mark.parametrize("kind", ["apart", "alike", "equal"])
def test_large_null_is_cut_where_the_sorted_one_is(kind, thresholds, small_is_large):
    rng = np.random.default_rng(3)
    x_GD = rng.normal(size=(150, 8))
    if kind == "alike":
        # So near to each other that single precision confuses neighbours.
        x_GD = 1 + 0.02 * x_GD
    if kind == "equal":
        x_GD = x_GD[rng.integers(40, size=150)]
    unit_GD = unit(x_GD)
    first, second = np.triu_indices(150, 1)
    whole, wanted = nulls.all_pairs_null(unit_GD, second, first)
    found, cosines = large.genome_null(unit_GD, second, first, thresholds)
    assert isinstance(found, large.LargeNull) and found.size == whole.size
    assert cosines == pytest.approx(wanted, abs=1e-6)
    below, upto = found.ranks(wanted)
    for low, high in thresholds:
        left, right = found.cuts(low, high)
        assert (left, right) == whole.cuts(low, high)
        # Whoever reads ranks finds the same pairs in the tails.
        assert (below[wanted < left] <= low).all() and (upto[wanted > right] >= high).all()
    if kind == "apart":
        exact = sum(whole.ranks(wanted)) / 2
        assert below == pytest.approx(exact, abs=np.diff(found.upto_B).max() / found.size)


def test_pairs_are_told_apart_that_single_precision_confuses():
    rng = np.random.default_rng(5)
    unit_GD = unit(1 + 0.05 * rng.normal(size=(300, 40)))
    first, second = np.triu_indices(300, 1)
    whole, exact = nulls.all_pairs_null(unit_GD, first, second)
    found, cosines = large.large_null(unit_GD, first, second, THRESHOLDS)
    left, right = whole.cuts(*THRESHOLDS[0])
    assert ((cosines < left) | (cosines > right)).sum() != (
        (exact < left) | (exact > right)
    ).sum()
    assert found.cuts(*THRESHOLDS[0]) == (left, right)


def test_recall_of_a_large_map_is_that_of_a_small_one(small_is_large, monkeypatch):
    rng = np.random.default_rng(0)
    x_GD = rng.normal(size=(120, 6)) + np.repeat(rng.normal(size=(30, 6)), 4, axis=0)
    genes = [f"G{at:03d}" for at in range(120)]
    pairs = pl.DataFrame(
        {"entity1": np.repeat(genes[::4], 3), "entity2": [g for g in genes if int(g[1:]) % 4]}
    )
    table = pl.DataFrame({"entity": genes, "kind": "knockout", "concentration_um": None})
    table = table.with_columns(embedding=pl.Series(x_GD, dtype=pl.Array(pl.Float32, 6)))
    both = []
    for bound in (100, 10**9):
        monkeypatch.setattr(large, "LARGE", bound)
        rows, listed = score_sources(table, {"s": pairs}, RecallKnobs(bootstraps=20))
        both.append((rows, listed, relationship_recall(x_GD, genes, pairs)))
    (rows, listed, recall), (wanted, wanted_list, wanted_recall) = both
    assert rows == wanted and recall.equals(wanted_recall)
    assert listed.drop("rank").equals(wanted_list.drop("rank"))
    assert listed["rank"].to_numpy() == pytest.approx(wanted_list["rank"].to_numpy(), abs=1e-3)


def test_a_null_whose_cuts_were_missed_is_sorted(small_is_large, monkeypatch):
    unit_GD = unit(np.random.default_rng(3).normal(size=(60, 5)))
    nothing = np.empty(0, dtype=np.int64)
    monkeypatch.setattr(large, "ERRORS", -40.0)
    assert large.large_null(unit_GD, nothing, nothing, THRESHOLDS) is None
    null, _ = large.genome_null(unit_GD, nothing, nothing, THRESHOLDS)
    assert isinstance(null, nulls.Null) and len(null.sorted_Z) == 60 * 59 // 2


def test_a_map_of_equal_genes_is_sorted(small_is_large):
    unit_GD = unit(np.ones((200, 5)))
    nothing = np.empty(0, dtype=np.int64)
    null, _ = large.genome_null(unit_GD, nothing, nothing, THRESHOLDS)
    assert isinstance(null, nulls.Null) and null.cuts(0.05, 0.95) == (1.0, 1.0)


def test_a_large_null_does_not_depend_on_the_number_of_threads(small_is_large, monkeypatch):
    unit_GD = unit(np.random.default_rng(1).normal(size=(200, 7)))
    first, second = np.triu_indices(200, 1)
    both = []
    for threads in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        both.append(large.large_null(unit_GD, first, second, THRESHOLDS))
    (one, one_P), (other, other_P) = both
    assert one.value_of == other.value_of and (one_P == other_P).all()
    assert (one.upto_B == other.upto_B).all() and (one.edges_B == other.edges_B).all()
