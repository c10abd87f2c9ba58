import gzip

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phenopipe.benchmark import nulls
from phenopipe.benchmark.config import PUBLISHED_SEEDS, RecallKnobs
from phenopipe.benchmark.pairs import PAIR, clean_pairs, pairs_within_groups, read_pairs
from phenopipe.benchmark.published import describe_sources
from phenopipe.benchmark.recall import chosen_genes, main, name_sources, relationship_recall
from phenopipe.benchmark.sources import find_known, resample_genes, score_sources
from phenopipe.errors import UserError
from phenopipe.formats.benchmarks import RECALL_PAIRS
from phenopipe.formats.maps import MAP
from phenopipe.formats.results import RESULTS
from phenopipe.formats.tables import read_table, write_table
from phenopipe.seeds import generator

SEED_PAIR = (478163327, 107420369)


def pairs_of(*rows):
    return pl.DataFrame(rows, schema=["entity1", "entity2"], orient="row")


def names(n):
    return [f"G{at:03d}" for at in range(n)]


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def slow_null(x_GD, seeds=None):
    """The null as METHODS tells it, value by value."""
    cosine_GG = (unit(x_GD) @ unit(x_GD).T).astype(np.float32)
    if seeds is None:
        return cosine_GG[np.triu_indices(len(x_GD), 1)]
    a, b = (np.random.RandomState(seed).choice(len(x_GD), 5_000) for seed in seeds)
    return cosine_GG[np.ix_(a, b)][a[:, None] != b[None, :]]


def slow_recall(null, cosines, low, high):
    extreme = [(null <= c).mean() <= low or (null < c).mean() >= high for c in cosines]
    return float(np.mean(extreme))


@settings(max_examples=25, deadline=None)
@given(
    n_genes=st.integers(2, 30),
    block=st.integers(1, 12),
    thresholds=st.sampled_from([(0.05, 0.95), (0.1, 0.9), (0.5, 0.5), (0.0, 1.0)]),
    coarse=st.booleans(),
)
def test_recall_equals_the_slow_form_with_ties_and_at_the_bounds(
    n_genes, block, thresholds, coarse
):
    rng = np.random.default_rng(n_genes)
    # Directions of a few integers tie often; pairs beside all others test the bounds.
    x_GD = rng.integers(1, 4, (n_genes, 2)) if coarse else rng.normal(size=(n_genes, 4))
    genes = names(n_genes)
    first, second = rng.integers(n_genes, size=(2, 40))
    first, second = first[first != second], second[first != second]
    if not len(first):
        return
    pairs = pairs_of(*((genes[i], genes[j]) for i, j in zip(first, second, strict=True)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nulls, "ROWS_A_BLOCK", block)
        found = relationship_recall(
            x_GD, genes, pairs, low=thresholds[0], high=thresholds[1], min_genes=2
        )
    distinct = {tuple(sorted(p)) for p in zip(first, second, strict=True)}
    cosine_GG = (unit(x_GD) @ unit(x_GD).T).astype(np.float32)
    wanted = slow_recall(slow_null(x_GD), [cosine_GG[i, j] for i, j in distinct], *thresholds)
    n_null = n_genes * (n_genes - 1) // 2
    assert found.row(0) == (len(distinct), n_null, None, pytest.approx(wanted))


@pytest.mark.parametrize("n_genes", [25, 300])
def test_sampled_null_is_every_drawn_pair_of_different_genes(n_genes):
    x_GD = np.random.default_rng(n_genes).normal(size=(n_genes, 8))
    wanted = np.sort(slow_null(x_GD, SEED_PAIR))
    null = nulls.sampled_null(unit(x_GD), SEED_PAIR)
    assert null.size == len(wanted)
    assert np.array_equal(np.repeat(null.sorted_Z, np.diff(null.upto_Z, prepend=0)), wanted)
    asked = wanted[:: len(wanted) // 200]
    below, upto = null.ranks(asked)
    assert np.array_equal(below, np.searchsorted(wanted, asked, "left") / len(wanted))
    assert np.array_equal(upto, np.searchsorted(wanted, asked, "right") / len(wanted))


def test_golden_recall_of_the_public_reference(shared):
    table = pl.read_csv(shared / "golden/map.csv")
    head = pl.read_csv(shared / "golden/recall_head.csv")
    x_GD, genes = table.drop("gene").to_numpy(), table["gene"].to_list()
    for source in ("HuMAP", "Reactome", "StringDB"):
        pairs = read_pairs(shared / f"benchmark_annotations/{source}.txt.gz")
        wanted = head.row(by_predicate=pl.col("source") == source, named=True)
        for low, high, column in (
            (0.05, 0.95, "recall_0.05_0.95"),
            (0.1, 0.9, "recall_0.1_0.9"),
        ):
            found = relationship_recall(x_GD, genes, pairs, low=low, high=high)
            assert found.row(0) == (
                wanted["query_distribution_size"],
                wanted["null_distribution_size"],
                None,
                wanted[column],
            )


def test_golden_recall_of_the_published_null(shared):
    table = pl.read_csv(shared / "golden/map.csv")
    x_GD, genes = table.drop("gene").to_numpy(), table["gene"].to_list()
    ours = pl.read_csv(shared / "golden/recall_3seeds.csv")
    theirs = pl.read_csv(shared / "golden/recall_3seeds_efaar43b3039.csv")
    for source in ("HuMAP", "Reactome", "StringDB"):
        pairs = read_pairs(shared / f"benchmark_annotations/{source}.txt.gz")
        found = relationship_recall(x_GD, genes, pairs, null="sampled")
        wanted = ours.filter(pl.col("source") == source)
        assert found["n_null"].to_list() == wanted["n_null"].to_list()
        assert found["n_pairs"].to_list() == wanted["n_pairs"].to_list()
        assert found["recall"].to_list() == wanted["recall_0.05_0.95"].to_list()
    assert found["seed"].to_list() == theirs["random_seed"].to_list()
    assert found["n_null"].to_list() == theirs["null_distribution_size"].to_list()
    assert found["recall"].to_list() == theirs["recall_0.05_0.95"].to_list()


def test_doubled_gene_small_map_and_foreign_pairs_are_refused_by_name():
    x_GD = np.random.default_rng(0).normal(size=(20, 3))
    genes = names(20)
    pairs = pairs_of((genes[0], genes[1]))
    with pytest.raises(UserError, match="gene G000 has 2 rows"):
        relationship_recall(x_GD, [*genes[:19], "G000"], pairs)
    with pytest.raises(UserError, match="19 genes on the map, wanted at least 20"):
        relationship_recall(x_GD[:19], genes[:19], pairs)
    with pytest.raises(UserError, match="none of 1 pairs has both genes on the map of 20"):
        relationship_recall(x_GD, genes, pairs_of(("G000", "TP53")))


def test_names_that_do_not_fit_the_map_and_bounds_out_of_order_are_refused():
    x_GD, pairs = np.random.default_rng(0).normal(size=(25, 4)), pairs_of(("G000", "G001"))
    with pytest.raises(UserError, match="25 embeddings and 24 genes"):
        relationship_recall(x_GD, names(24), pairs)
    with pytest.raises(UserError, match=r"low 0\.9, high 0\.1, wanted 0 <= low <= high <= 1"):
        relationship_recall(x_GD, names(25), pairs, low=0.9, high=0.1)


def test_self_pairs_repeats_and_gaps_are_dropped():
    pairs = pairs_of(("B", "A"), ("A", "B"), ("A", "A"), ("C", None), ("A", "C"))
    assert clean_pairs(pairs).rows() == [("A", "B"), ("A", "C")]


def test_groups_become_pairs(tmp_path):
    path = tmp_path / "groups.tsv"
    path.write_text("group\tgene\tnote\nx\tA\t\nx\tB\t\nx\t\tunreadable\ny\tC\t\n")
    assert read_pairs(path).rows() == [("A", "B")]


def test_file_of_other_columns_is_refused(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("left,right\nA,B\n")
    with pytest.raises(UserError, match="wanted entity1, entity2 or group, gene"):
        read_pairs(path)


def test_sources_are_named_as_told_or_by_their_files(tmp_path):
    assert name_sources([tmp_path / "a.csv"], ["CORUM"]) == ["CORUM"]
    with pytest.raises(UserError, match="2 sources named for 1 pair files"):
        name_sources([tmp_path / "a.csv"], ["CORUM", "SIGNOR"])
    with pytest.raises(UserError, match=r"a\.csv: another pair file is named 'a'"):
        name_sources([tmp_path / "a.csv", tmp_path / "other" / "a.txt"], [])


def test_blanks_around_names_do_not_count(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("entity1,entity2\n A ,B\nC, \n")
    assert read_pairs(path).rows() == [("A", "B"), ("C", None)]
    path.write_text("group,gene\nx,A \nx ,B\n")
    assert read_pairs(path).rows() == [("A", "B")]


# Named, since the bytes hold the time at which each worker of the suite collects them.
@pytest.mark.parametrize(
    "torn",
    [b"no gzip", gzip.compress(b"entity1,entity2\nA,B\n")[:-9]],
    ids=["no archive", "cut short"],
)
def test_a_torn_archive_is_told(tmp_path, torn):
    (tmp_path / "pairs.csv.gz").write_bytes(torn)
    with pytest.raises(UserError, match=r"pairs\.csv\.gz: cannot be read"):
        describe_sources(["x"], [tmp_path / "pairs.csv.gz"], {})


@pytest.fixture
def planted():
    """60 genes in 12 groups of 5 that point one way, and the map's table."""
    rng = np.random.default_rng(5)
    group_G = np.repeat(np.arange(12), 5)
    x_GD = rng.normal(size=(12, 16))[group_G] + 0.3 * rng.normal(size=(60, 16))
    groups = pl.DataFrame({"group": group_G.astype(str), "gene": names(60)})
    table = pl.DataFrame(
        {
            "entity": names(60),
            "kind": "knockout",
            "concentration_um": pl.Series([None] * 60, dtype=pl.Float64),
            "n_wells": pl.Series([1] * 60, dtype=pl.Int32),
            "embedding": pl.Series(x_GD.astype(np.float32), dtype=pl.Array(pl.Float32, 16)),
        }
    )
    return table, groups


def save_inputs(tmp_path, planted):
    table, groups = planted
    dose = table.with_columns(kind=pl.lit("compound"), concentration_um=pl.lit(1.0))
    write_table(
        tmp_path / "map.parquet",
        pl.concat([table, dose]),
        MAP,
        {"screen": "s", "block": 4, "trimmed": False},
    )
    groups.write_csv(tmp_path / "planted.csv")
    arguments = [f"--map={tmp_path}/map.parquet", f"--pairs={tmp_path}/planted.csv"]
    arguments += [f"--recall={tmp_path}/recall.parquet"]
    arguments += [f"--recall-pairs={tmp_path}/pairs.parquet"]
    return [*arguments, "--benchmark=genome", "--encoder=mae"]


def test_step_finds_planted_groups_and_nothing_when_genes_are_permuted(tmp_path, planted):
    main(save_inputs(tmp_path, planted))
    results = read_table(tmp_path / "recall.parquet", RESULTS)
    assert set(results["source"]) == {"planted"} and set(results["block"]) == {4}
    value = dict(results.select("metric", "value").rows())
    for null in ("all_pairs", "sampled"):
        assert value[f"recall_{null}_0.05_0.95"] > 0.7
        assert 0.03 < value[f"recall_permuted_{null}_0.05_0.95"] < 0.2
        tails = value[f"recall_left_{null}_0.05_0.95"] + value[f"recall_right_{null}_0.05_0.95"]
        assert tails == pytest.approx(value[f"recall_{null}_0.05_0.95"])
    row = results.row(by_predicate=pl.col("metric") == "recall_all_pairs_0.1_0.9", named=True)
    assert row["low"] <= row["value"] <= row["high"] and row["n"] == 120
    ranked = read_table(tmp_path / "pairs.parquet", RECALL_PAIRS)
    assert ranked.height == 120 and ranked["rank"].median() > 0.9


def test_step_equals_the_public_function(planted):
    table, _ = planted
    pairs = pl.DataFrame(
        [(a, b) for a, b in zip(names(60), names(60)[1:], strict=False)],
        schema=["entity1", "entity2"],
        orient="row",
    )
    rows, _ = score_sources(table, {"chain": pairs}, RecallKnobs(permutations=1))
    value = {row["metric"]: row["value"] for row in rows}
    x_GD = table["embedding"].to_numpy()
    for null in ("all_pairs", "sampled"):
        alone = relationship_recall(x_GD, names(60), pairs, null=null, seeds=PUBLISHED_SEEDS)
        assert value[f"recall_{null}_0.05_0.95"] == pytest.approx(alone["recall"].mean())
    assert value["recall_sampled_0.05_0.95_sd"] == pytest.approx(alone["recall"].std())


def test_resampled_genes_bring_their_pairs_along():
    genes = np.array(list("abcdef"))
    pairs = pairs_of(("a", "b"), ("a", "c"), ("d", "e"))
    knobs = RecallKnobs(bootstraps=40, permutations=1)
    known = find_known("hub", 6, genes, pairs, knobs)
    found_PT = np.array([[1.0, 0.5], [0.0, 0.5], [1.0, 0.0]])
    ends_2T = resample_genes(known, found_PT, 6, knobs)
    rng = generator(knobs.seed, "recall", "bootstrap", "hub")
    recalls = []
    for _ in range(40):
        drawn = genes[rng.integers(6, size=6)]
        # Every copy of one gene meets every copy of the other.
        copies = [
            found_PT[at]
            for at, (one, other) in enumerate(known.names.rows())
            for _ in range((drawn == one).sum() * (drawn == other).sum())
        ]
        recalls.append(np.mean(copies, axis=0) if copies else [np.nan] * 2)
    assert ends_2T == pytest.approx(np.nanquantile(recalls, [0.025, 0.975], axis=0))


def test_step_names_the_source_without_pairs(planted):
    table, _ = planted
    with pytest.raises(UserError, match="source CORUM: none of 1 pairs"):
        score_sources(table, {"CORUM": pairs_of(("x", "y"))}, RecallKnobs())


def test_thresholds_out_of_order_are_refused():
    with pytest.raises(ValueError, match="wanted 0 <= low < high <= 1"):
        RecallKnobs(thresholds=((0.9, 0.1),))


def test_cuts_tell_the_same_as_ranks():
    rng = np.random.default_rng(11)
    for size in (1, 7, 20, 400):
        drawn = np.sort(rng.integers(0, 12, size)).astype(np.float32)
        values, counts = np.unique(drawn, return_counts=True)
        asked = np.arange(-1, 14, 0.5, dtype=np.float32)
        for null in (nulls.Null(drawn), nulls.Null(values, np.cumsum(counts))):
            below, upto = null.ranks(asked)
            for low, high in ((0.05, 0.95), (0.1, 0.9), (0.0, 1.0), (0.5, 0.5), (0.15, 0.85)):
                left, right = null.cuts(low, high)
                assert ((asked < left) == (upto <= low)).all()
                assert ((asked > right) == (below >= high)).all()


@pytest.mark.parametrize("n_genes", [9, 40])
def test_cosines_of_pairs_are_the_same_one_by_one_and_by_blocks(n_genes, monkeypatch):
    unit_GD = unit(np.random.default_rng(n_genes).normal(size=(n_genes, 6)))
    first, second = np.triu_indices(n_genes, 1)
    order = np.random.default_rng(1).permutation(len(first))
    first, second = first[order], second[order]
    wanted = (unit_GD @ unit_GD.T)[first, second].astype(np.float32)
    monkeypatch.setattr(nulls, "ROWS_A_BLOCK", 7)
    null, cosines = nulls.all_pairs_null(unit_GD, second, first)
    assert cosines == pytest.approx(wanted, abs=1e-7)
    assert np.array_equal(np.sort(cosines), null.sorted_Z)
    assert nulls.pair_cosines(unit_GD, first, second) == pytest.approx(wanted, abs=1e-7)
    monkeypatch.setattr(nulls, "MANY_PAIRS", np.inf)
    assert nulls.pair_cosines(unit_GD, first, second) == pytest.approx(wanted, abs=1e-7)


def test_pairs_on_one_arm_are_left_out_apart(planted):
    table, groups = planted
    arms = {gene: f"chr{at // 2 % 7}p" for at, gene in enumerate(names(60)) if at % 10}
    pairs = pairs_within_groups(groups)
    rows, ranked = score_sources(table, {"g": pairs}, RecallKnobs(permutations=1), arms)
    value = {row["metric"]: row for row in rows}
    found = value["recall_other_arms_all_pairs_0.05_0.95"]
    same = [arms.get(a, a) == arms.get(b, b) for a, b in ranked.select(PAIR).rows()]
    assert found["n"] == 120 - sum(same) and 0 < sum(same) < 120
    apart = ranked.filter(~pl.Series(same))["rank"]
    extreme = ((apart <= 0.05) | (apart >= 0.95)).mean()
    assert found["value"] == pytest.approx(extreme, abs=0.02)
    without, _ = score_sources(table, {"g": pairs}, RecallKnobs(permutations=1))
    assert not [row for row in without if "other_arms" in row["metric"]]


def test_genes_can_be_those_expressed_or_with_a_phenoprint():
    genes = pl.DataFrame({"gene": ["A", "B", "C"], "expression": [1.0, -3.5, None]})
    assert chosen_genes(RecallKnobs(), genes, None) is None
    assert chosen_genes(RecallKnobs(keep="expressed"), genes, None) == ["A"]
    combined = pl.DataFrame(
        {
            "gene": ["A", "B", "B", "C"],
            "level": ["gene", "gene", "gene", "condition"],
            "p_value": [0.02, 0.5, 0.01, 0.001],
        }
    )
    judged = RecallKnobs(keep="phenoprint", manifest="m")
    assert chosen_genes(judged, None, combined) == ["B"]
    with pytest.raises(UserError, match="the screen has no table of genes"):
        chosen_genes(RecallKnobs(keep="expressed"), None, combined)
    with pytest.raises(UserError, match="no p-values of a manifest"):
        chosen_genes(judged, genes, None)
    with pytest.raises(UserError, match="no gene is expressed, wanted at least 20"):
        chosen_genes(RecallKnobs(keep="expressed", min_expression=9), genes, None)
    with pytest.raises(ValueError, match="phenoprint without a manifest"):
        RecallKnobs(keep="phenoprint")


def test_published_copies_are_known_and_others_can_be_refused(shared, tmp_path):
    path = shared / "benchmark_annotations/StringDB.txt.gz"
    told = describe_sources(["StringDB"], [path], {})["StringDB"]
    assert (told["copy"], told["licence"]) == ("published", "CC BY 4.0, with attribution")
    other = tmp_path / "hu.map.csv"
    other.write_text("entity1,entity2\nA,B\n")
    told = describe_sources(["hu.MAP"], [other], {})["hu.MAP"]
    assert told["copy"] == "another" and told["licence"].startswith("CC BY 4.0")
    assert describe_sources(["mine"], [other], {})["mine"]["licence"] == "unknown"
    describe_sources(["mine"], [other], {"mine": told["sha256"]})
    with pytest.raises(UserError, match=r"hu\.map\.csv: SHA-256 .*, wanted ab"):
        describe_sources(["mine"], [other], {"mine": "ab"})
    with pytest.raises(UserError, match="checksum for source 'CORUM'"):
        describe_sources(["mine"], [other], {"CORUM": "ab"})
