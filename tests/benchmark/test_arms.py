import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from phenopipe.benchmark.arms import alike_within, arm_bias, main, more_alike
from phenopipe.benchmark.config import ArmBiasKnobs
from phenopipe.errors import UserError
from phenopipe.formats.arms import ARMS
from phenopipe.formats.results import RESULTS
from phenopipe.formats.tables import read_table, write_table
from tests.benchmark.plates import knockouts, save_aligned, wells_of

ARM_NAMES = ("chr1p", "chr2q", "chr3p")


@given(st.integers(0, 200), st.booleans())
@settings(max_examples=30, deadline=None)
def test_probability_is_that_of_mann_and_whitney(seed, ties):
    rng = np.random.default_rng(seed)
    within, between = rng.normal(0.3, 1, 40), rng.normal(size=55)
    if ties:
        within, between = within.round(), between.round()
    probability = more_alike(within, between)
    statistic = mannwhitneyu(within, between).statistic
    assert probability == pytest.approx(statistic / (40 * 55))


@pytest.mark.parametrize("n_inside", [2, 5, 6])
def test_with_enough_draws_every_pair_counts_once(n_inside):
    unit_GD = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    unit_GD /= np.linalg.norm(unit_GD, axis=1, keepdims=True)
    order_G = np.random.default_rng(1).permutation(9)
    inside, outside = order_G[:n_inside], order_G[n_inside:]
    cosine_GG = unit_GD @ unit_GD.T
    within = [cosine_GG[a, b] for a in inside for b in inside if a < b]
    between = cosine_GG[np.ix_(inside, outside)].ravel()
    found = alike_within(unit_GD, order_G, n_inside, 1_000, np.random.default_rng(2))
    greater = np.array(within)[:, None] > between
    assert found == pytest.approx(greater.mean(), abs=1 / greater.size)


def test_pvalues_of_random_embeddings_are_uniform():
    arms = pl.DataFrame({"gene": [f"G{at:02d}" for at in range(40)]}).with_columns(
        arm=pl.Series([f"chr{at % 5}p" for at in range(40)])
    )
    knobs, p = ArmBiasKnobs(pairs=100, permutations=60), []
    for seed in range(40):
        x_GD = np.random.default_rng(seed).normal(size=(40, 8)).astype(np.float32)
        table = pl.DataFrame(
            {
                "entity": arms["gene"],
                "kind": ["knockout"] * 40,
                "embedding": pl.Series(x_GD, dtype=pl.Array(pl.Float32, 8)),
            }
        )
        p += arm_bias(table, arms, knobs)["p_value"].to_list()
    # 200 p-values; the rank test over the same pairs has a third of them below 0.05.
    assert np.mean(p) == pytest.approx(0.5, abs=0.07)
    assert 0.01 < np.mean(np.array(p) <= 0.05) < 0.11


def biased(strength, seed=0):
    """Wells of 30 genes on three arms, each arm with an offset of its own."""
    rng = np.random.default_rng(seed)
    genes = [f"G{at:02d}" for at in range(30)]
    arm = {gene: ARM_NAMES[at % 3] for at, gene in enumerate(genes)}
    offset = {name: strength * rng.normal(size=8) for name in ARM_NAMES}
    wells = wells_of([*knockouts(genes, guides=1, replicates=3), *[[]] * 6])
    x_WD = rng.normal(size=(wells.height, 8))
    for at, treatments in enumerate(wells["treatments"].to_list()):
        if treatments:
            x_WD[at] += offset[arm[treatments[0]["gene"]]]
    table = pl.DataFrame({"gene": genes, "arm": [arm[gene] for gene in genes]})
    array = np.array([offset[arm[gene]] for gene in genes], dtype=np.float32)
    arms = table.with_columns(
        corrected=pl.lit(True), offset=pl.Series(array, dtype=pl.Array(pl.Float32, 8))
    )
    return wells, x_WD, arms


def measure(tmp_path, strength):
    wells, x_WD, arms = biased(strength)
    path = save_aligned(tmp_path / "e.parquet", wells, x_WD)
    write_table(tmp_path / "arms.parquet", arms, ARMS, {})
    out = tmp_path / "bias.parquet"
    files = [f"--aligned={path}", f"--arms={tmp_path}/arms.parquet", f"--bias={out}"]
    main([*files, "--benchmark=genome", "--encoder=mae"])
    every = read_table(out, RESULTS).filter(pl.col("source") == "all arms")
    return {row["metric"]: row for row in every.iter_rows(named=True)}


def test_planted_arm_bias_is_seen_before_and_gone_after(tmp_path):
    found = measure(tmp_path, 2.0)
    before, after = found["within_arm_before"], found["within_arm_after"]
    assert before["value"] > 0.9 and before["low"] > 0.8
    assert 0.4 < after["value"] < 0.6
    assert found["within_arm_before_below_0.01"]["value"] == 1.0
    assert found["arms_corrected"]["value"] == found["arms_corrected"]["n"] == 3
    assert found["genes_corrected"]["value"] == 30


def test_genes_without_a_bias_lie_at_chance(tmp_path):
    found = measure(tmp_path, 0.0)
    assert 0.4 < found["within_arm_before"]["value"] < 0.6


def test_pairs_within_an_arm_are_of_two_genes():
    # Two genes an arm, opposed: a gene with itself would be perfectly alike.
    table = pl.DataFrame(
        {
            "entity": list("abcd"),
            "kind": ["knockout"] * 4,
            "embedding": pl.Series(
                [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]],
                dtype=pl.Array(pl.Float32, 2),
            ),
        }
    )
    arms = pl.DataFrame({"gene": list("abcd"), "arm": ["p", "p", "q", "q"]})
    found = arm_bias(table, arms, ArmBiasKnobs(min_genes=2, pairs=50))
    assert found["probability"].to_list() == [0.0, 0.0]


def test_one_arm_alone_or_none_is_told():
    table = pl.DataFrame(
        {
            "entity": ["a", "b"],
            "kind": ["knockout"] * 2,
            "embedding": pl.Series([[1.0], [2.0]], dtype=pl.Array(pl.Float32, 1)),
        }
    )
    with pytest.raises(UserError, match="0 chromosome arms have 5 genes"):
        arm_bias(table, pl.DataFrame({"gene": ["a", "b"], "arm": ["p", "q"]}), ArmBiasKnobs())
    with pytest.raises(UserError, match="no knockout whose chromosome arm is known"):
        arm_bias(table, pl.DataFrame({"gene": ["z"], "arm": ["p"]}), ArmBiasKnobs())
