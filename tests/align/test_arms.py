"""Chromosome arms: the reference's numbers, and a planted bias that must go."""

import numpy as np
import polars as pl
import pytest

from phenopipe.align.arms import (
    arm_offsets,
    arm_table,
    correct_chromosome_arms,
    gene_means,
    main,
)
from phenopipe.align.config import ArmsKnobs
from phenopipe.errors import UserError
from phenopipe.formats.aligned import write_aligned
from phenopipe.formats.arms import ARMS
from phenopipe.formats.genes import GENES
from phenopipe.formats.tables import read_table, write_table

from .conftest import wells_of

GENE_NAMES = [f"G{number:03d}" for number in range(80)]
KNOWN = pl.DataFrame(
    {
        "gene": GENE_NAMES,
        "arm": ["chr1p"] * 40 + ["chr2q"] * 39 + [None],
        # 25 unexpressed genes on the first arm, 15 on the second.
        "expression": [-3.5] * 25 + [2.0] * 15 + [-4.0] * 15 + [1.0] * 24 + [None],
    }
)


def test_golden_numbers_of_the_reference(shared):
    before = pl.read_csv(shared / "golden" / "arm_in.csv")
    after = pl.read_csv(shared / "golden" / "arm_out_min5.csv")
    found = correct_chromosome_arms(
        before.select("f0", "f1", "f2").to_numpy(),
        before["chromosome_arm"].to_list(),
        (before["zfpkm"] < -3).to_list(),
        min_genes=5,
    )
    np.testing.assert_allclose(found, after.select("f0", "f1", "f2").to_numpy(), atol=1e-10)


def test_an_arm_needs_more_unexpressed_genes_than_the_threshold():
    x_GD = np.arange(12.0).reshape(6, 2)
    arms, unexpressed = ["a"] * 6, [True] * 3 + [False] * 3
    untouched = correct_chromosome_arms(x_GD, arms, unexpressed, min_genes=3)
    np.testing.assert_array_equal(untouched, x_GD)
    corrected = correct_chromosome_arms(x_GD, arms, unexpressed, min_genes=2)
    np.testing.assert_allclose(corrected, x_GD - x_GD[:3].mean(axis=0))


def test_genes_without_an_arm_are_left_as_they_are():
    offset_GD, is_corrected_G = arm_offsets(
        np.ones((4, 2)), [None] * 4, [True] * 4, min_genes=0
    )
    assert not offset_GD.any()
    assert not is_corrected_G.any()


def experiment(seed, bias_D, scale=1.0, shift=0.0):
    """80 knocked-out genes in 3 wells each, 30 controls, and an arm bias on chr1p."""
    rng = np.random.default_rng(seed)
    genes = [gene for gene in GENE_NAMES for _ in range(3)]
    wells = wells_of(
        f"experiment-{seed}",
        ["perturbation"] * 240 + ["negative_control"] * 30,
        [*genes, *[None] * 30],
    ).with_columns(fitted=pl.lit(value=False))
    x_WD = rng.normal(size=(270, 16)) * scale + shift
    x_WD[:120] += bias_D
    return wells, x_WD


def within_minus_between(parts, offset_of):
    """Excess cosine of spherical means of genes on the biased arm, as a map has it."""
    sums = dict.fromkeys(GENE_NAMES, 0.0)
    for wells, x_WD in parts:
        origin_D = x_WD[(wells["role"] == "negative_control").to_numpy()].mean(axis=0)
        for gene in GENE_NAMES:
            rows = wells["treatments"].list.first().struct.field("gene").eq_missing(gene)
            x_ND = x_WD[rows.to_numpy()] - origin_D - offset_of.get(gene, 0.0)
            sums[gene] = sums[gene] + (x_ND / np.linalg.norm(x_ND, axis=1)[:, None]).sum(axis=0)
    unit = np.array([sums[g] / np.linalg.norm(sums[g]) for g in GENE_NAMES])
    cosine = unit @ unit.T.copy()
    expressed = slice(25, 40)  # of the biased arm; estimation has not seen them
    within = cosine[expressed, expressed][~np.eye(15, dtype=bool)].mean()
    return within - cosine[expressed, 40:].mean()


def test_offsets_subtracted_from_wells_remove_a_planted_bias_of_the_map():
    # The bias is as long as a well's noise: to a mean of unit vectors, all of it.
    bias_D = np.random.default_rng(99).normal(size=16)
    parts = [experiment(0, bias_D), experiment(1, bias_D, shift=3.0)]
    genes, x_GD = gene_means(iter(parts), "negative_control")
    assert genes == GENE_NAMES
    table = arm_table(genes, x_GD, KNOWN, ArmsKnobs())
    ARMS.check(table, "table")
    assert table.filter("corrected")["arm"].unique().to_list() == ["chr1p"]
    offset_of = dict(zip(table["gene"], table["offset"].to_numpy(), strict=True))
    before, after = (within_minus_between(parts, each) for each in ({}, offset_of))
    assert before > 0.5
    assert abs(after) < 0.2 * before


def test_switched_off_all_offsets_are_zero():
    genes, x_GD = gene_means(iter([experiment(0, np.ones(16))]), "negative_control")
    table = arm_table(genes, x_GD, KNOWN, ArmsKnobs(enabled=False))
    ARMS.check(table, "table")
    assert not table["corrected"].any()
    assert not table["offset"].to_numpy().any()


def test_wells_with_other_kinds_or_several_perturbations_do_not_count():
    wells, x_WD = experiment(0, np.zeros(16))
    double = pl.col("treatments").list.concat(pl.col("treatments"))
    first = pl.col("well_id") == wells["well_id"][0]
    spoiled = wells.with_columns(
        treatments=pl.when(first).then(double).otherwise(pl.col("treatments"))
    )
    loud = x_WD.copy()
    loud[0] = 1e6
    genes, x_GD = gene_means(iter([(spoiled, loud)]), "negative_control")
    expected = x_WD[1:3].mean(axis=0) - x_WD[240:].mean(axis=0)
    np.testing.assert_allclose(x_GD[genes.index("G000")], expected)


def test_an_experiment_without_an_origin_is_told():
    wells, x_WD = experiment(0, np.zeros(16))
    with pytest.raises(UserError, match="experiment-0: no aligned well of role empty"):
        gene_means(iter([(wells, x_WD)]), "empty")
    with pytest.raises(UserError, match="8 features, wanted 16"):
        gene_means(iter([(wells, x_WD), (wells, x_WD[:, :8])]), "negative_control")


@pytest.mark.parametrize("with_genes", [True, False])
def test_the_command_writes_a_row_a_gene_in_any_order_of_files(tmp_path, with_genes):
    paths = []
    for seed in (0, 1):
        wells, x_WD = experiment(seed, np.ones(16))
        keep = pl.Series([with_genes or well >= 240 for well in range(270)])
        paths.append(str(tmp_path / f"{seed}.parquet"))
        write_aligned(
            tmp_path / f"{seed}.parquet", wells.filter(keep), x_WD[keep.to_numpy()], {}
        )
    write_table(tmp_path / "genes.parquet", KNOWN, GENES, {})
    tables = []
    for order in (paths, paths[::-1]):
        labels = ["--genes", str(tmp_path / "genes.parquet"), "--screen", "s", "--encoder", "e"]
        main(["--aligned", *order, *labels, "--arms", str(tmp_path / "arms.parquet")])
        tables.append(read_table(tmp_path / "arms.parquet", ARMS))
    assert tables[0].equals(tables[1])
    assert tables[0].height == (80 if with_genes else 0)
