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


def test_recall_beside_probes_is_stringdbs_or_each_sources(results, blocks):
    def labels(*sources):
        rows = [results.with_columns(source=pl.lit(name)) for name in sources]
        recall = pl.concat(rows).filter(pl.col("metric") != "ks")
        return probed_maps(recall, blocks, ABOUT)["what"].unique(maintain_order=True).to_list()

    assert labels("anax") == labels("CORUM") == labels("StringDB") == ["recall at 5/95"]
    assert labels("CORUM", "String-DB") == ["String-DB recall at 5/95"]
    assert labels("CORUM", "Reactome") == ["CORUM recall at 5/95", "Reactome recall at 5/95"]


def test_benchmarks_are_points_of_their_own(results, blocks):
    other = results.with_columns(benchmark=pl.lit("second"), value=pl.col("value") / 2)
    both = pl.concat([results, other])
    (figure,) = flops_pieces(both, blocks, ABOUT)
    shown = {(r["encoder"], r["what"]): r["value"] for r in figure.spec["data"]["values"]}
    assert shown["large", "KS, map"] == 2 * shown["large", "KS, second"] == 0.5
    assert shown["large", "recall CORUM, second"] == 0.25 and ("large", "probe anax") in shown
    figure, _ = probe_pieces(probed_maps(both, blocks, ABOUT))
    told = {row["what"] for row in figure.spec["data"]["values"]}
    assert told >= {"KS, map", "KS, second"}


def test_other_thresholds_are_named(results, blocks):
    metric = pl.col("metric").str.replace("0.05_0.95", "0.1_0.9", literal=True)
    other = results.with_columns(metric)
    points = probed_maps(other, blocks, ABOUT)
    assert set(points["what"]) == {"KS", "recall at 10/90"}
    (figure,) = flops_pieces(other, blocks, ABOUT)
    assert "recall at 10/90 CORUM" in {r["what"] for r in figure.spec["data"]["values"]}


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
