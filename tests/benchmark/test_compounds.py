import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from phenopipe.benchmark.affinity import compound_gene_similarities, shuffle_compounds
from phenopipe.benchmark.aggregate import aggregate_wells
from phenopipe.benchmark.compounds import (
    average_precision,
    compound_gene_average_precision,
    main,
    score_compounds,
)
from phenopipe.benchmark.config import CompoundsKnobs
from phenopipe.errors import UserError
from phenopipe.formats.genes import INTERACTIONS
from phenopipe.formats.results import RESULTS
from phenopipe.formats.tables import read_table, write_table
from tests.benchmark.plates import knockouts, save_aligned, treated_of, treatment, wells_of

GENES = [f"G{at:02d}" for at in range(40)]


def truth_of(*rows):
    schema = {"treatment": pl.String, "gene_symbol": pl.String, "nM_value": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


# Every gene is named in the truth, so that every gene can be drawn.
NAMED = [("elsewhere", gene, 50_000.0) for gene in GENES]


def slow_ap(score, label):
    """METHODS d: precision at each active item, from the highest score down."""
    label = label[np.argsort(-score)]
    precision = np.cumsum(label) / np.arange(1, len(label) + 1)
    return (precision * label).sum() / label.sum()


@given(st.integers(1, 6), st.integers(1, 15), st.booleans(), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_average_precision_is_scikit_learns_also_with_ties(n_active, n_other, ties, seed):
    rng = np.random.default_rng(seed)
    score_KN = rng.random((3, n_active + n_other))
    score_KN = score_KN.round(1) if ties else score_KN
    label_N = np.arange(n_active + n_other) < n_active
    found_K = average_precision(score_KN, n_active)
    for score_N, found in zip(score_KN, found_K, strict=True):
        assert found == pytest.approx(average_precision_score(label_N, score_N))
        if not ties:
            assert found == pytest.approx(slow_ap(score_N, label_N))


def test_items_without_a_score_are_not_ranked():
    score_KN = np.array([[0.9, np.nan, 0.95, np.nan, 0.1], [np.nan] * 5])
    found_K = average_precision(score_KN, 2)
    assert found_K[0] == pytest.approx(average_precision_score([1, 0, 0], [0.9, 0.95, 0.1]))
    assert np.isnan(found_K[1])


def test_an_affinity_that_is_not_a_number_is_one_that_was_not_measured():
    similarity_CG = np.random.default_rng(1).random((1, 40))

    def scored(affinity):
        truth = truth_of(*NAMED, ("a", "G00", affinity))
        return compound_gene_average_precision(similarity_CG, ["a"], GENES, truth, seed=0)

    assert scored(float("nan")).equals(scored(None)) and scored(None).height == 1
    with pytest.raises(UserError, match="a and G00: -5 nM, wanted more than 0"):
        scored(-5.0)


def test_equals_the_slow_form_of_the_benchmark():
    rng = np.random.default_rng(0)
    similarity_CG = rng.random((3, 40))
    truth = truth_of(
        *NAMED,
        ("a", "G00", 5.0), ("a", "G00", 90_000.0), ("a", "G01", 999.0), ("a", "G02", 1000.0),
        ("a", "G03", 2_000.0), ("a", "ABSENT", 1.0),
        ("b_c", "G10", 10.0), ("b_c", "G11", 20_000.0),
        ("c", "G12", 5_000.0),
    )  # fmt: skip
    found = compound_gene_average_precision(
        similarity_CG, ["a", "b_c", "c"], GENES, truth, seed=7
    )
    assert found["compound"].to_list() == ["a", "b_c"]
    assert found["n_active"].to_list() == [3, 1]
    assert found["n_missing"].to_list() == [1, 0]
    assert found["n_drawn"].to_list() == [20, 20]
    for row, active, spared in ((0, [0, 1, 2], [3]), (1, [10], [])):
        pool = [at for at in range(40) if at not in active + spared]
        drawn = np.random.default_rng(7).choice(pool, 20, replace=False)
        score = similarity_CG[row, [*active, *drawn]]
        label = np.arange(len(score)) < len(active)
        assert found["average_precision"][row] == pytest.approx(slow_ap(score, label))


def test_perfect_and_worst_similarity():
    truth = truth_of(*NAMED, ("a", "G00", 1.0))
    best = np.zeros((1, 40))
    best[0, 0] = 1.0
    found = compound_gene_average_precision(best, ["a"], GENES, truth, seed=0)
    assert found["average_precision"].to_list() == [1.0]
    found = compound_gene_average_precision(1 - best, ["a"], GENES, truth, seed=0)
    assert found["average_precision"].to_list() == [pytest.approx(1 / 21)]


def test_order_of_truth_and_of_genes_does_not_matter():
    rng = np.random.default_rng(1)
    similarity_CG = rng.random((2, 40))
    truth = truth_of(*NAMED, ("a", "G00", 1.0), ("b", "G05", 1.0))
    first = compound_gene_average_precision(similarity_CG, ["a", "b"], GENES, truth, seed=3)
    order = rng.permutation(40)
    again = compound_gene_average_precision(
        similarity_CG[:, order], ["a", "b"], [GENES[at] for at in order], truth[::-1], seed=3
    )
    assert again.equals(first)


def test_hash_seed_of_the_process_does_not_matter():
    code = (
        "import numpy as np, polars as pl\n"
        "from phenopipe.benchmark.compounds import compound_gene_average_precision as ap\n"
        "genes = [f'G{at}' for at in range(60)]\n"
        "truth = pl.DataFrame({'treatment': ['a'] + ['z'] * 60, 'gene_symbol': ['G5'] + genes,"
        " 'nM_value': [1.0] + [9e9] * 60})\n"
        "x = np.random.default_rng(0).random((1, 60))\n"
        "print(ap(x, ['a'], genes, truth, seed=0)['average_precision'][0])\n"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1


def test_doubled_names_are_refused():
    truth = truth_of(("a", "G00", 1.0))
    with pytest.raises(UserError, match="compound a occurs twice"):
        compound_gene_average_precision(np.zeros((2, 40)), ["a", "a"], GENES, truth, seed=0)
    with pytest.raises(UserError, match="gene G00 occurs twice"):
        compound_gene_average_precision(
            np.zeros((1, 40)), ["a"], ["G00", *GENES[:-1]], truth, seed=0
        )


@pytest.fixture
def planted():
    """30 genes, and a compound for each that moves cells the other way at its high dose."""
    rng = np.random.default_rng(2)
    genes = GENES[:30]
    direction = {gene: rng.normal(size=12) for gene in genes}
    treatments, rows = [], []
    for gene in genes:
        for dose, effect in ((0.1, 0.0), (1.0, -1.0), (10.0, -2.0)):
            for _ in range(2):
                treatments.append([treatment(f"{gene}_inhibitor", "compound", dose=dose)])
                rows.append(effect * direction[gene])
    for one in knockouts(genes, guides=2, replicates=2):
        treatments.append(one)
        rows.append(direction[one[0]["gene"]])
    treatments += [[]] * 20
    rows += [np.zeros(12)] * 20
    wells = wells_of(treatments)
    x_WD = np.array(rows) + 0.3 * rng.normal(size=(len(rows), 12))
    truth = truth_of(*((f"{gene}_inhibitor", gene, 10.0) for gene in genes))
    return wells, x_WD, truth


def metrics(rows):
    return {row["metric"]: row["value"] for row in rows}


def test_planted_targets_are_found_at_doses_that_act(planted):
    wells, x_WD, truth = planted
    knobs = CompoundsKnobs(seeds=5, permutations=3)
    found = compound_gene_similarities(aggregate_wells(treated_of(wells, x_WD)), truth, knobs)
    assert found.concentrations == [0.1, 1.0, 10.0]
    value = metrics(score_compounds(aggregate_wells(treated_of(wells, x_WD)), truth, knobs))
    assert value["average_precision_10um"] > 0.9
    assert value["average_precision_max"] > 0.8
    assert value["average_precision_0.1um"] < 0.35
    assert value["average_precision_random"] < 0.35
    assert value["average_precision_permuted"] < 0.35
    assert value["average_precision_random_sd"] > 0
    assert value["genes_missing"] == 0


def test_means_over_seeds_equal_the_public_function(planted):
    wells, x_WD, truth = planted
    knobs = CompoundsKnobs(seeds=3, permutations=1)
    found = compound_gene_similarities(aggregate_wells(treated_of(wells, x_WD)), truth, knobs)
    value = metrics(score_compounds(aggregate_wells(treated_of(wells, x_WD)), truth, knobs))
    for name, similarity_CG in (
        ("max", found.maximum()), ("1um", found.similarity_KCG[1])
    ):  # fmt: skip
        means = [
            compound_gene_average_precision(
                similarity_CG, found.compounds, found.genes, truth, seed=seed
            )["average_precision"].mean()
            for seed in range(3)
        ]
        assert value[f"average_precision_{name}"] == pytest.approx(np.mean(means))
        assert value[f"average_precision_{name}_sd"] == pytest.approx(np.std(means, ddof=1))


def test_concentrations_can_be_chosen_and_rare_ones_get_no_row(planted):
    wells, x_WD, truth = planted
    treated = aggregate_wells(treated_of(wells, x_WD))
    some = CompoundsKnobs(concentrations=(0.1, 1.0), seeds=2)
    assert compound_gene_similarities(treated, truth, some).concentrations == [0.1, 1.0]
    rare = CompoundsKnobs(seeds=2, min_compounds=31, permutations=1)
    value = metrics(score_compounds(treated, truth, rare))
    assert "average_precision_1um" not in value and "average_precision_max" in value


def test_other_compounds_stand_for_a_gene_without_the_one_that_is_asked():
    rng = np.random.default_rng(3)
    treatments = [[treatment(f"c{at}", "compound", dose=5.0)] for at in range(12)]
    wells = wells_of([*treatments, []])
    x_WD = rng.normal(size=(13, 6))
    x_WD[-1] = 0
    pairs = [("c0", "A"), ("c1", "A"), ("c2", "A"), ("c3", "B"), ("c0", "B"), ("c4", "SOLE")]
    truth = truth_of(*((c, g, 1.0) for c, g in pairs), ("c5", "A", 5_000.0))
    treated = treated_of(wells, x_WD)
    knobs = CompoundsKnobs(genes_from="other_compounds")
    found = compound_gene_similarities(aggregate_wells(treated), truth, knobs)
    assert found.genes == ["A", "B", "SOLE"]
    unit = treated.x_WD[:12] / np.linalg.norm(treated.x_WD[:12], axis=1, keepdims=True)
    for c, compound in enumerate(found.compounds):
        for g, gene in enumerate(found.genes):
            others = [int(n[1:]) for n, t in pairs if t == gene and n != compound]
            me = unit[int(compound[1:])]
            if not others:
                assert np.isnan(found.similarity_KCG[0, c, g])
                continue
            mean = unit[others].mean(axis=0)
            wanted = abs(me @ mean) / np.linalg.norm(mean)
            assert found.similarity_KCG[0, c, g] == pytest.approx(wanted, abs=1e-6)


def test_screen_without_knockouts_or_compounds_is_told():
    x_WD = np.eye(2)
    only_compound = treated_of(wells_of([[treatment("c", "compound", dose=1.0)], []]), x_WD)
    with pytest.raises(UserError, match="no knockouts among the wells"):
        compound_gene_similarities(aggregate_wells(only_compound), truth_of(), CompoundsKnobs())
    only_gene = treated_of(wells_of([*knockouts(["A"], 1, 1), []]), x_WD)
    with pytest.raises(UserError, match="no compound dose"):
        compound_gene_similarities(aggregate_wells(only_gene), truth_of(), CompoundsKnobs())


def test_step_reports_missing_genes(tmp_path, planted, capsys):
    wells, x_WD, truth = planted
    path = save_aligned(tmp_path / "e1.parquet", wells, x_WD)
    truth = pl.concat([truth, truth_of(("G00_inhibitor", "NOT_KNOCKED_OUT", 3.0))])
    write_table(tmp_path / "i.parquet", truth, INTERACTIONS, {})
    files = [f"--aligned={path}", f"--interactions={tmp_path}/i.parquet"]
    main(
        [
            *files,
            f"--compounds={tmp_path}/c.parquet",
            "--seeds=2",
            "--permutations=2",
            "--benchmark=b",
            "--encoder=e",
        ]
    )
    results = read_table(tmp_path / "c.parquet", RESULTS)
    assert dict(results.select("metric", "value").rows())["genes_missing"] == 1
    assert "(1): NOT_KNOCKED_OUT" in capsys.readouterr().out


def test_shuffled_compounds_keep_their_doses_together(planted):
    wells, x_WD, _ = planted
    table = aggregate_wells(treated_of(wells, x_WD))
    shuffled = shuffle_compounds(table, np.random.default_rng(0))
    assert sorted(shuffled["entity"]) == sorted(table["entity"])
    moved = table.with_columns(new=shuffled["entity"])
    assert moved.group_by("entity").agg(pl.col("new").n_unique())["new"].to_list() == [1] * 60
    genes = moved.filter(pl.col("kind") == "knockout")
    assert (genes["entity"] == genes["new"]).all()
    assert (moved["entity"] != moved["new"]).sum() > 80
