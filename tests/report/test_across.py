"""Encoders against one another: probes, cost, gains; the map as a heatmap."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from phenopipe.report.sections.across import (
    flops_pieces,
    gain_pieces,
    paired_encoders,
    probe_pieces,
    probed_maps,
    rank_correlation,
)
from phenopipe.report.sections.heatmap import clustered, heatmap


@pytest.mark.parametrize("n", [4, 7, 30])
def test_rank_correlation_is_scipys_and_its_p_is_a_permutations(n):
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=n).round(1), rng.normal(size=n).round(1)
    rho, p = rank_correlation(x, y)
    assert rho == pytest.approx(spearmanr(x, y).statistic)
    if n > 10:
        assert p == pytest.approx(spearmanr(x, y).pvalue, abs=0.03)
    assert 0 < p <= 1


def test_perfect_order_of_four_has_two_of_24_permutations():
    assert rank_correlation(np.arange(4.0), np.arange(4.0)) == (1.0, 2 / 24)
    assert np.isnan(rank_correlation(np.arange(4.0), np.ones(4))[0])


ABOUT = {
    "small": {"kind": "mae", "model_args": {"d": 1}, "trained_on": "x", "training_flops": 1e15},
    "large": {"kind": "mae", "model_args": {"d": 2}, "trained_on": "x", "training_flops": 1e17},
    "other": {"kind": "mae", "model_args": {"d": 1}, "trained_on": "y", "training_flops": 1e15},
    "cut": {"kind": "mae", "model_args": {"d": 2}, "trimmed_from": "large", "trained_on": "x"},
    "untrained": {"kind": "vit"},
}


def test_encoders_pair_where_one_thing_differs():
    assert paired_encoders(ABOUT) == [
        ("trimming", "large", "cut"),
        ("scale", "small", "large"),
        ("data", "small", "other"),
    ]


def tidy_rows(scores, metric, source, block=3):
    return [
        {
            "benchmark": "map", "encoder": name, "block": 2 if name == "cut" else block,
            "trimmed": name == "cut", "metric": metric, "source": source, "value": value,
        }
        for name, value in scores.items()
    ]  # fmt: skip


@pytest.fixture
def results():
    scores = {"small": 0.4, "large": 0.5, "cut": 0.55, "other": 0.44, "untrained": 0.3}
    rows = tidy_rows(scores, "recall_sampled_0.05_0.95", "CORUM")
    return pl.DataFrame(rows + tidy_rows(scores, "ks", "technical_pairs"))


@pytest.fixture
def blocks():
    scores = {"small": 0.2, "large": 0.3, "other": 0.25, "untrained": 0.1}
    last = tidy_rows(scores, "balanced_accuracy", "anax")
    best = tidy_rows({"large": 0.35}, "balanced_accuracy", "anax", block=2)
    return pl.DataFrame(last + best)


def test_best_and_last_blocks_are_points_of_their_own(results, blocks):
    points = probed_maps(results, blocks, ABOUT)
    found = {(e, b): a for e, b, a in points.select("encoder", "block", "accuracy").rows()}
    assert found["large", 3] == 0.3 and found["cut", 2] == 0.35
    figure, table = probe_pieces(points)
    assert [row[1:5] for row in table.rows] == [
        ["anax", "KS", "5", "1.00"],
        ["anax", "recall at 5/95", "5", "1.00"],
    ]
    assert table.rows[0][5] == "0.017"
    assert len(figure.spec["data"]["values"]) == 10
    assert probe_pieces(points.filter(pl.col("encoder").is_in(["small", "large"]))) == []


def test_gain_is_relative_and_named_by_its_cause(results):
    _, table = gain_pieces(results, ABOUT)
    gains = {(row[0], row[3]): row[6] for row in table.rows}
    assert gains["trimming", "recall CORUM"] == "+10.0 %"
    assert gains["scale", "KS"] == "+25.0 %" and gains["data", "KS"] == "+10.0 %"
    assert gain_pieces(results, {"untrained": {}}) == []


def test_trimmed_encoder_costs_what_its_origin_did(results, blocks):
    (figure,) = flops_pieces(results, blocks, ABOUT)
    shown = {(r["encoder"], r["what"]): r["flops"] for r in figure.spec["data"]["values"]}
    assert shown["cut", "recall CORUM"] == shown["large", "KS"] == 1e17
    assert ("small", "probe anax") in shown and ("untrained", "KS") not in shown
    assert flops_pieces(results, blocks, {"small": ABOUT["small"]}) == []


def test_heatmap_puts_like_next_to_like_and_leaves_out_what_does_not_agree():
    rng = np.random.default_rng(0)
    group = np.tile(np.arange(3), 4)
    x_GD = 5 * np.eye(3)[group] + 0.1 * rng.normal(size=(12, 3))
    names = [f"{'abc'[at]}{number}" for number, at in enumerate(group)]
    table = pl.DataFrame({"entity": [*names, "weak"], "kind": ["knockout"] * 13}).with_columns(
        embedding=pl.Series(np.vstack([x_GD, [1e-3, 0, 0]]), dtype=pl.Array(pl.Float64, 3))
    )
    found = clustered(table, rows=12)
    order = found["first"].unique(maintain_order=True).to_list()
    assert "weak" not in order and len(order) == 12
    letters = [name[0] for name in order]
    assert sum(a != b for a, b in pairwise(letters)) == 2
    assert found.filter(pl.col("first") == pl.col("second"))["cosine"].min() > 0.999
    (figure,) = heatmap(found, "mae")
    assert figure.spec["encoding"]["x"]["sort"] == order
    assert clustered(table.head(2)).is_empty() and heatmap(pl.DataFrame(), "mae") == []
