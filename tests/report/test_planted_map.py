"""Recall and consistency rise with the planted effect, fall to chance without; probes agree."""

import numpy as np
import polars as pl
import pytest

from phenopipe.benchmark.aggregate import aggregate_wells
from phenopipe.benchmark.config import RecallKnobs, ReplicatesKnobs
from phenopipe.benchmark.pairs import pairs_within_groups
from phenopipe.benchmark.replicates import score_technical_pairs, summarize_pairs
from phenopipe.benchmark.sources import score_sources
from phenopipe.probe.logistic import balanced_accuracy, fit_probe
from phenopipe.report.config import TruthKnobs
from phenopipe.report.planted_map import (
    consistency_by_effect,
    order_rows,
    permuted_rows,
    recall_by_effect,
)
from tests.benchmark.plates import knockouts, treated_of, wells_of

EFFECTS = (0.0, 0.5, 1.0, 2.0)
GROUPS, GENES_A_GROUP, DIM = 16, 4, 16
GENES = [f"G{at:02d}" for at in range(GROUPS * GENES_A_GROUP)]
GROUP = {gene: at // GENES_A_GROUP for at, gene in enumerate(GENES)}
KNOBS = TruthKnobs(bootstraps=200)


def simulated(noise=1.0, seed=0):
    """Two experiments of one layout; the genes of a group share a direction of its effect."""
    rng = np.random.default_rng(seed)
    direction_GD = rng.normal(size=(GROUPS, DIM)) / 2
    effect_G = np.array([EFFECTS[at % 4] for at in range(GROUPS)])
    noise_rng = np.random.default_rng(99)
    wells, rows = [], []
    for name in ("e1", "e2"):
        treatments = [*knockouts(GENES, guides=2, replicates=2), *[[]] * 24]
        wells.append(wells_of(treatments, experiment=name))
        for one in treatments:
            group = GROUP[one[0]["gene"]] if one else 0
            rows.append(effect_G[group] * direction_GD[group] if one else np.zeros(DIM))
    x_WD = np.array(rows) + noise * noise_rng.normal(size=(len(rows), DIM))
    treated = treated_of(pl.concat(wells), x_WD)
    gene_W = treated.wells["gene"].fill_null("").to_list()
    group_W = [GROUP.get(gene, 0) for gene in gene_W]
    truth = treated.wells.select("well_id", "perturbation", "kind", "gene").with_columns(
        concentration_um=pl.lit(None, pl.Float64),
        group=pl.Series([f"g{group}" for group in group_W]),
        effect=pl.Series([float(effect_G[group]) for group in group_W]),
    )
    status = pl.when(pl.col("gene").is_null()).then(pl.lit("control"))
    status = status.when(pl.col("effect") > 0).then(pl.lit("active"))
    return treated, truth.with_columns(status=status.otherwise(pl.lit("inactive")))


def scored(treated):
    groups = pl.DataFrame({"group": [f"g{GROUP[g]}" for g in GENES], "gene": GENES})
    table = aggregate_wells(treated)
    knobs = RecallKnobs(nulls=("all_pairs",), bootstraps=20)
    rows, pairs = score_sources(table, {"groups": pairs_within_groups(groups)}, knobs)
    tests = ReplicatesKnobs(bootstraps=20)
    technical, matches = score_technical_pairs(treated, tests)
    return [*rows, *summarize_pairs(technical, tests)], pairs, matches


def values(rows, metric):
    return {row["source"]: row["value"] for row in rows if row["metric"] == metric}


@pytest.fixture(scope="module")
def run():
    treated, truth = simulated()
    return treated, truth, *scored(treated)


def test_recall_rises_with_the_planted_effect(run):
    _, truth, _, pairs, _ = run
    rows = recall_by_effect("mae", pairs, truth, KNOBS)
    found = values(rows, "recall_by_effect")
    assert list(found) == ["effect 0", "effect 0 to 1", "effect 1 to 2"]
    assert found["effect 0"] < 3 < 6 < found["effect 1 to 2"]
    assert found["effect 0"] < found["effect 0 to 1"] < found["effect 1 to 2"]


def test_consistency_rises_with_the_planted_effect(run):
    _, truth, _, _, matches = run
    rows = consistency_by_effect("mae", matches, truth, KNOBS)
    for metric in ("ks_by_effect", "cvm_by_effect"):
        found = list(values(rows, metric).values())
        assert found == sorted(found) and found[-1] > 3 * found[0]
    assert values(rows, "ks_inactive")["planted noise"] < 0.2
    (rises,) = [row for row in rows if row["metric"] == "consistency_rises"]
    assert rises["low"] > 0.3 and rises["n"] == 128


def test_all_falls_to_chance_when_genes_are_permuted(run):
    treated, truth, results, _, _ = run
    tidy = pl.DataFrame([{**row, "encoder": "mae"} for row in results], strict=False)
    found = {row["metric"]: row["value"] for row in permuted_rows(tidy, KNOBS)}
    assert 0.6 < found["recall_permuted"] < 1.4 and found["ks_permuted"] < 0.15
    rng = np.random.default_rng(1)
    names = dict(zip(GENES, rng.permutation(GENES), strict=True))
    dealt = treated_of_names(treated, names)
    _, pairs, _ = scored(dealt)
    lost = values(recall_by_effect("mae", pairs, truth, KNOBS), "recall_by_effect")
    assert max(lost.values()) < 4


def treated_of_names(treated, names):
    """The same wells with the genes' names dealt anew."""
    from dataclasses import replace

    return replace(treated, wells=treated.wells.with_columns(pl.col("gene").replace(names)))


def test_encoders_rank_alike_in_probe_and_benchmark():
    results, blocks = [], []
    for number, noise in enumerate((0.6, 1.2, 2.4, 4.8)):
        treated, _ = simulated(noise)
        rows, _, _ = scored(treated)
        same = {"encoder": f"e{number}", "benchmark": "map", "block": 1, "trimmed": False}
        results += [{**same, **row} for row in rows]
        gene = treated.wells["gene"]
        active = gene.is_not_null().to_numpy()
        label_W = np.array([f"g{GROUP[g]}" if g else "" for g in gene])
        first = (treated.wells["experiment"] == "e1").to_numpy() & active
        second = (treated.wells["experiment"] == "e2").to_numpy() & active
        probe = fit_probe(treated.x_WD[first], label_W[first])
        accuracy = balanced_accuracy(probe, treated.x_WD[second], label_W[second])
        row = {"source": "groups", "metric": "balanced_accuracy", "value": accuracy}
        blocks.append({**same, **row})
    rows = order_rows(pl.DataFrame(results, strict=False), pl.DataFrame(blocks), {})
    assert {row["source"]: row["value"] for row in rows} == {
        "groups and KS, encoders": 1.0,
        "groups and recall at 5/95, encoders": 1.0,
    }
