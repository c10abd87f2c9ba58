import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import cramervonmises_2samp, ks_2samp, rankdata

from phenopipe.benchmark.config import ReplicatesKnobs
from phenopipe.benchmark.matches import matched_wells, same_address, technical_pairs
from phenopipe.benchmark.replicates import (
    _similarities,
    main,
    match_labels,
    replicate_consistency_test,
    score_pairs,
    score_technical_pairs,
)
from phenopipe.benchmark.treated import TreatedFiles, read_treated
from phenopipe.errors import UserError
from phenopipe.formats.benchmarks import REPLICATE_MATCHES, REPLICATE_PAIRS
from phenopipe.formats.results import RESULTS
from phenopipe.formats.tables import read_table
from tests.benchmark.plates import knockouts, save_aligned, treated_of, treatment, wells_of


def slow_ks(q, r):
    """Paper Eq. 4."""
    every = np.concatenate([q, r])
    return max(abs((q <= x).mean() - (r <= x).mean()) for x in every)


def slow_cvm(q, r):
    """Paper Eq. 5: ranks of both samples in the combined one; equals share their mean rank."""
    n = len(q)
    rank = rankdata(np.concatenate([q, r]))
    r_m, s_m = np.sort(rank[:n]), np.sort(rank[n:])
    m = np.arange(1, n + 1)
    total = ((r_m - m) ** 2 + (s_m - m) ** 2).sum()
    return total / (2 * n**2) - (4 * n**2 - 1) / (12 * n)


def two_experiments(strength, n_genes=40, seed=0):
    rng = np.random.default_rng(seed)
    labels = [f"g{at}" for at in range(n_genes)]
    signal_ND = strength * rng.normal(size=(n_genes, 8))
    noise = rng.normal(size=(2, n_genes, 8))
    return signal_ND + noise[0], signal_ND + noise[1], labels


@given(n=st.integers(2, 40), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_statistics_are_those_of_the_paper_and_of_scipy(n, seed):
    x_a, x_b, labels = two_experiments(1.0, n, seed)
    found = replicate_consistency_test(x_a, x_b, labels, labels, seed=seed)
    unit_a, unit_b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (x_a, x_b))
    q, r = _similarities(unit_a, unit_b, np.array(labels), np.random.default_rng(seed))
    assert q == pytest.approx((unit_a * unit_b).sum(axis=1))
    assert len(q) == len(r) == found.n == n
    assert found.ks == pytest.approx(slow_ks(q, r)) == pytest.approx(ks_2samp(q, r).statistic)
    assert found.cvm == pytest.approx(slow_cvm(q, r))
    assert found.cvm == pytest.approx(cramervonmises_2samp(q, r).statistic)


@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=12), st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_no_null_pair_shares_a_label(labels, seed):
    if len(set(labels)) < 2:
        return
    # One-hot rows: the cosine of two wells of one label is 1, of others 0.
    unit_ND = np.eye(3)[["abc".index(label) for label in labels]]
    matched, null = _similarities(
        unit_ND, unit_ND, np.array(labels), np.random.default_rng(seed)
    )
    assert (matched == 1).all() and (null == 0).all()


def test_consistency_rises_with_effect_and_falls_to_chance_for_shuffled_labels():
    found = [
        replicate_consistency_test(*t[:2], t[2], t[2], seed=1)
        for t in map(two_experiments, (0.0, 0.5, 2.0), (200,) * 3)
    ]
    assert found[0].ks < found[1].ks < found[2].ks and found[2].ks > 0.8
    assert found[0].cvm < found[1].cvm < found[2].cvm
    x_a, x_b, labels = two_experiments(2.0, 200)
    shuffled = np.random.default_rng(0).permutation(200)
    lost = replicate_consistency_test(x_a, x_b[shuffled], labels, labels, seed=1)
    assert lost.ks < 0.2


def test_wells_are_matched_by_label_whatever_their_order():
    x_a, x_b, labels = two_experiments(1.0)
    order = np.random.default_rng(3).permutation(len(labels))
    mixed = [labels[at] for at in order]
    straight = replicate_consistency_test(x_a, x_b, labels, labels, seed=4)
    assert replicate_consistency_test(x_a, x_b[order], labels, mixed, seed=4) == straight
    fewer = replicate_consistency_test(x_a, x_b[:30], labels, labels[:30], seed=4)
    assert fewer.n == 30


def test_kth_well_of_a_label_meets_the_kth():
    first, second = match_labels(["x", "y", "x", "x"], ["x", "x", "z", "y"])
    assert (first.tolist(), second.tolist()) == ([0, 1, 2], [0, 3, 1])


@pytest.mark.parametrize("labels", [["x", "y"], ["x", "y", None], ["x", "y", "z", None]])
def test_wells_without_a_label_are_refused(labels):
    x_ND, every = np.eye(3), ["x", "y", "z"]
    for sides in ((every, labels), (labels, every)):
        with pytest.raises(UserError, match=r"3 wells and [23] labels, wanted one each"):
            replicate_consistency_test(x_ND, x_ND, *sides, seed=0)


def test_no_common_label_or_one_alone_is_told():
    x_ND = np.ones((2, 3))
    with pytest.raises(UserError, match="0 labels occur in both"):
        replicate_consistency_test(x_ND, x_ND, ["a", "b"], ["c", "d"], seed=0)
    with pytest.raises(UserError, match="1 labels occur in both"):
        replicate_consistency_test(x_ND, x_ND, ["a", "a"], ["a", "a"], seed=0)


@pytest.fixture
def screen():
    """Experiments e1 and e2 share layout l1, e3 has its own; two plates in e1 and e2."""
    genes = [f"G{at}" for at in range(12)]
    frames = []
    for name, layout in (("e1", "l1"), ("e2", "l1"), ("e3", "l3")):
        treatments = [*knockouts(genes, guides=1, replicates=1), [], []]
        if layout == "l3":
            treatments = treatments[::-1]
        for plate in ("p1", "p2"):
            frames.append(wells_of(treatments, experiment=name, plate=plate, layout=layout))
    wells = pl.concat(frames)
    rng = np.random.default_rng(7)
    direction = {gene: rng.normal(size=6) for gene in genes}
    x_WD = np.array(
        [
            (direction[one[0]["gene"]] if one else 0) + 0.3 * rng.normal(size=6)
            for one in wells["treatments"].to_list()
        ]
    )
    return wells, x_WD


def test_technical_pairs_share_layout_and_cell_type(screen):
    wells, _ = screen
    assert technical_pairs(wells) == [("e1", "e2")]
    other = wells.with_columns(
        cell_type=pl.when(pl.col("experiment") == "e2")
        .then(pl.lit("RPE"))
        .otherwise("cell_type")
    )
    assert technical_pairs(other) == []


def test_match_by_address_wants_condition_and_address(screen):
    wells, x_WD = screen
    treated = treated_of(wells, x_WD)
    numbered = treated.wells.with_row_index("at").filter(pl.col("role") == "perturbation")
    both = matched_wells(numbered, ("e1", "e2"), "address", 0)
    assert both.height == 24
    second = treated.wells[both["at_b"].to_numpy()]
    for column in ("plate", "well", "perturbation"):
        assert both[column].to_list() == second[column].to_list()
    # e3 has the same conditions elsewhere: no address matches, every condition does.
    assert matched_wells(numbered, ("e1", "e3"), "address", 0).height == 0
    third = matched_wells(numbered, ("e1", "e3"), "condition", 0)
    assert third.height == 24
    assert third["at_b"].n_unique() == 24


def test_condition_match_mixes_positions(screen):
    wells, x_WD = screen
    numbered = treated_of(wells, x_WD).wells.with_row_index("at")
    numbered = numbered.filter(pl.col("role") == "perturbation")
    both = matched_wells(numbered, ("e1", "e2"), "condition", 0)
    plates = numbered.select("at", "plate")
    joined = both.join(plates.rename({"at": "at_b", "plate": "plate_b"}), on="at_b")
    assert 0 < (joined["plate"] == joined["plate_b"]).sum() < 24


def test_controls_never_enter(screen):
    wells, x_WD = screen
    far = np.where((wells["role"] == "negative_control").to_numpy()[:, None], 1e6, x_WD)
    knobs = ReplicatesKnobs()
    first, _ = score_technical_pairs(treated_of(wells, x_WD), knobs)
    assert score_technical_pairs(treated_of(wells, far), knobs)[0].equals(first)
    assert first["n"].to_list() == [24]
    assert first["matched"][0] > 0.7 > first["null"][0]


def test_null_pairs_may_be_kept_apart_by_gene():
    treatments = knockouts(["A", "B"], guides=6, replicates=1)
    wells = pl.concat([wells_of(treatments, experiment=name) for name in ("e1", "e2")])
    x_WD = np.tile(np.repeat(np.eye(2), 6, axis=0), (2, 1))
    treated = treated_of(wells, x_WD)
    by_gene, _ = score_technical_pairs(treated, ReplicatesKnobs(label="gene"))
    assert by_gene["null"].to_list() == [0.0]
    assert score_technical_pairs(treated, ReplicatesKnobs())[0]["null"][0] > 0


def test_screen_without_technical_pairs_is_told(screen):
    wells, x_WD = screen
    alone = (wells["experiment"] != "e2").to_numpy()
    with pytest.raises(UserError, match="no two experiments share a layout"):
        score_technical_pairs(treated_of(wells.filter(alone), x_WD[alone]), ReplicatesKnobs())
    with pytest.raises(UserError, match="none of 1 technical pairs has 100 matched"):
        score_technical_pairs(treated_of(wells, x_WD), ReplicatesKnobs(min_wells=100))


def test_dose_of_a_compound_is_no_other_perturbation():
    treatments = [
        [treatment(f"drug-{at % 2}", "compound", dose=float(at))] for at in range(1, 13)
    ]
    wells = pl.concat([wells_of(treatments, experiment=name) for name in ("e1", "e2")])
    x_WD = np.tile(np.eye(2)[[at % 2 for at in range(1, 13)]], (2, 1))
    found, _ = score_technical_pairs(treated_of(wells, x_WD), ReplicatesKnobs())
    assert found["null"].to_list() == [0.0]


def test_step_writes_medians_and_pairs(tmp_path, screen):
    wells, x_WD = screen
    paths = []
    for name in ("e1", "e2"):
        mine = (wells["experiment"] == name).to_numpy()
        path = tmp_path / f"{name}.parquet"
        paths.append(str(save_aligned(path, wells.filter(mine), x_WD[mine])))
    out = [f"--replicates={tmp_path}/r.parquet", f"--replicates-pairs={tmp_path}/p.parquet"]
    out += [f"--replicates-matches={tmp_path}/m.parquet"]
    main(["--aligned", *paths, *out, "--benchmark=genome", "--encoder=mae"])
    results = read_table(tmp_path / "r.parquet", RESULTS)
    pairs = read_table(tmp_path / "p.parquet", REPLICATE_PAIRS)
    columns = ["ks", "cvm", "ks_permuted", "cvm_permuted", "matched"]
    assert results["metric"].to_list() == [*columns[:-1], "matched_cosine"]
    assert results["value"].to_list() == list(pairs.select(columns).row(0))
    assert results["low"].to_list() == [None] * 5
    # Both plates hold one layout, so that no address has two treatments.
    assert pairs["ks_over_position"].to_list() == [None]
    matches = read_table(tmp_path / "m.parquet", REPLICATE_MATCHES)
    assert matches.height == 24 and matches["rank"].mean() > 0.8
    assert matches["cosine"].mean() == pytest.approx(pairs["matched"][0])
    assert pairs["ks_permuted"][0] < 0.5 < pairs["ks"][0]


def moved_plates(n_plates=4, edge=3.0, effect=0.0, seed=0):
    """Two experiments whose plates hold the same conditions at other addresses."""
    rng = np.random.default_rng(seed)
    genes = [f"G{at}" for at in range(24)]
    place = edge * rng.normal(size=(24, 6))
    direction = {gene: effect * rng.normal(size=6) for gene in genes}
    frames, rows = [], []
    for name in ("e1", "e2"):
        for plate in range(n_plates):
            turned = [*genes[6 * plate :], *genes[: 6 * plate]]
            treatments = knockouts(turned, guides=1, replicates=1)
            frames.append(
                wells_of(treatments, experiment=name, plate=f"p{plate}", layout=f"l{plate}")
            )
            rows += [place[at] + direction[gene] for at, gene in enumerate(turned)]
    x_WD = np.array(rows) + 0.5 * rng.normal(size=(len(rows), 6))
    return pl.concat(frames), x_WD


def test_what_position_alone_makes_alike_is_not_over_position():
    knobs = ReplicatesKnobs()
    wells, x_WD = moved_plates()
    found, _ = score_technical_pairs(treated_of(wells, x_WD), knobs)
    assert found["ks"][0] > 0.8 and found["ks_over_position"][0] < 0.25
    wells, x_WD = moved_plates(edge=0.5, effect=3.0)
    found, _ = score_technical_pairs(treated_of(wells, x_WD), knobs)
    assert found["ks_over_position"][0] > 0.8
    assert found["matched"][0] > 0.8 > found["position"][0]


def test_null_pairs_of_one_address_never_share_their_treatment():
    wells, x_WD = moved_plates()
    treated = treated_of(wells, x_WD)
    numbered = treated.wells.with_row_index("at")
    both = matched_wells(numbered, ("e1", "e2"), "address", 0)
    label = both["perturbation"].to_numpy().astype(str)
    first, second = same_address(both, label, 50, 0, ("e1", "e2"))
    assert len(first) == 50
    assert (both["well"].gather(first) == both["well_b"].gather(second)).all()
    assert (label[first] != label[second]).all()


def test_knockouts_of_unexpressed_genes_are_looked_at_apart():
    wells, x_WD = moved_plates(edge=0.0, effect=3.0)
    silent = [f"G{at}" for at in range(12)]
    still = wells["treatments"].list.first().struct.field("gene").is_in(silent).to_numpy()
    x_WD[still] = np.random.default_rng(8).normal(size=(still.sum(), 6))
    treated = treated_of(wells, x_WD)
    found, _ = score_technical_pairs(treated, ReplicatesKnobs(), silent)
    assert found["ks_unexpressed"][0] < 0.3 < 0.4 < found["ks"][0]


def test_experiments_on_disk_give_what_wells_at_hand_give(tmp_path):
    wells, x_WD = moved_plates(effect=2.0)
    control = wells_of([[]] * 4, experiment="e1", plate="c", layout="c")
    wells, x_WD = pl.concat([wells, control]), np.vstack([x_WD, np.ones((4, 6))])
    paths = []
    for name in ("e2", "e1"):
        mine = (wells["experiment"] == name).to_numpy()
        one = save_aligned(tmp_path / f"{name}.parquet", wells.filter(mine), x_WD[mine])
        paths.append(one)
    knobs = ReplicatesKnobs()
    files = TreatedFiles(paths, None, knobs)
    assert files.layouts["experiment"].unique().sort().to_list() == ["e1", "e2"]
    matches = []
    pairs = score_pairs(files.layouts, files.of, knobs, take=matches.append)
    at_hand, same = score_technical_pairs(read_treated(paths, None, knobs), knobs)
    assert pairs.equals(at_hand) and pl.concat(matches).equals(same)
