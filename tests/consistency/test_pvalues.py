"""The step on a small experiment: who is tested, against what, and in which words."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control
from threadpoolctl import threadpool_limits

from phenopipe.consistency.config import PvaluesKnobs
from phenopipe.consistency.pvalues import experiment_pvalues, label_wells, main, null_pool
from phenopipe.errors import UserError
from phenopipe.formats.aligned import write_aligned
from phenopipe.formats.pvalues import PVALUES
from phenopipe.formats.tables import read_table

from .conftest import one_experiment_of_wells, treatment, wells_of

KNOBS = PvaluesKnobs(n_null=200)


def embed(wells, seed=0):
    return np.random.default_rng(seed).normal(size=(wells.height, 10))


def test_conditions_and_genes_are_tested_within_their_map_type(one_experiment):
    table = experiment_pvalues(one_experiment, embed(one_experiment), KNOBS)
    PVALUES.check(table, "table")
    counts = set(table.group_by("level", "kind").len().iter_rows())
    assert counts == {
        ("condition", "knockout", 60),
        ("condition", "compound", 20),
        ("gene", "knockout", 30),
    }
    gene = table.filter(level="gene", gene="G3").row(0, named=True)
    assert gene["perturbation"] is None
    assert gene["n_replicates"] == 6
    assert gene["n_labels"] == 30
    dose = table.filter(perturbation="drug-4", concentration_um=0.1).row(0, named=True)
    assert dose["map_type"] == "screen-1|HUVEC|compound|none"
    assert dose["n_replicates"] == 2
    for part in table.partition_by("level", "map_type"):
        np.testing.assert_allclose(part["q_value"], false_discovery_control(part["p_value"]))


def test_overexpressed_genes_are_tested_from_all_their_constructs(one_experiment):
    kind = pl.element().struct.with_fields(kind=pl.lit("overexpression"))
    orf = one_experiment.with_columns(pl.col("treatments").list.eval(kind))
    found = experiment_pvalues(orf, embed(orf), KNOBS).filter(level="gene")
    assert found.select("kind", "n_replicates").unique().rows() == [("overexpression", 6)]
    assert found["gene"].n_unique() == 30


def test_only_single_perturbations_count(one_experiment):
    pair = [treatment("G1_guide_1", gene="G1"), treatment("G2_guide_1", gene="G2")]
    more = wells_of([("perturbation", pair)] * 3, experiment="x").with_columns(
        experiment=pl.lit("experiment-1")
    )
    both = pl.concat([one_experiment, more])
    x_WD = embed(both)
    without = experiment_pvalues(one_experiment, x_WD[: one_experiment.height], KNOBS)
    assert experiment_pvalues(both, x_WD, KNOBS).equals(without)


def test_a_background_makes_a_map_type_of_its_own(one_experiment):
    factor = treatment("TNF", "soluble_factor")
    there = one_experiment.with_columns(
        treatments=pl.Series(
            [
                [*each, factor] if each else each
                for each in one_experiment["treatments"].to_list()
            ],
            dtype=one_experiment.schema["treatments"],
        )
    )
    table = experiment_pvalues(there, embed(there), KNOBS)
    assert set(table["map_type"].str.split("|").list.last()) == {"TNF"}


def test_controls_stay_out_of_the_pool_unless_wanted(one_experiment):
    labelled = label_wells(one_experiment, "condition")
    pool = null_pool(labelled, "screen-1|HUVEC|knockout|none", KNOBS)
    assert pool["label"].n_unique() == 60
    with_controls = PvaluesKnobs(controls_in_pool=True)
    pool = null_pool(labelled, "screen-1|HUVEC|knockout|none", with_controls)
    assert pool["label"].n_unique() == 62


def test_a_positive_control_of_another_kind_meets_the_rest_of_the_plate(one_experiment):
    control = wells_of([("positive_control", [treatment("toxin", "sirna", "PLK1")])] * 4, "x")
    both = pl.concat([one_experiment, control.with_columns(experiment=pl.lit("experiment-1"))])
    x_WD = embed(both)
    x_WD[-4:] += 30
    row = experiment_pvalues(both, x_WD, KNOBS).filter(perturbation="toxin").row(0, named=True)
    assert row["p_value"] == 1 / 200
    assert row["n_labels"] == 80


def test_another_experiment_or_plate_name_changes_no_draw(one_experiment):
    x_WD = embed(one_experiment)
    table = experiment_pvalues(one_experiment, x_WD, KNOBS)
    renamed = one_experiment.with_columns(plate=pl.lit("p9"), well_id="x" + pl.col("well_id"))
    assert experiment_pvalues(renamed, x_WD, KNOBS).equals(table)
    other = one_experiment.with_columns(experiment=pl.lit("experiment-2"))
    moved = experiment_pvalues(other, x_WD, KNOBS)
    assert not moved["p_value"].equals(table["p_value"])
    assert moved["statistic"].equals(table["statistic"])


def test_the_command_writes_the_same_bytes_twice(one_experiment, tmp_path, capsys):
    write_aligned(tmp_path / "in.parquet", one_experiment, embed(one_experiment), {})
    flags = ["--screen", "s", "--encoder", "e", "--experiment", "experiment-1"]
    for name in ("first", "second"):
        paths = [f"--aligned={tmp_path / 'in.parquet'}", f"--pvalues={tmp_path / name}"]
        main([*paths, *flags, *KNOBS.as_flags()])
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert read_table(tmp_path / "first", PVALUES).height == 110
    assert "110 p-values" in capsys.readouterr().out


def test_a_treatment_without_a_kind_is_told(one_experiment, tmp_path):
    without = pl.element().struct.with_fields(kind=pl.lit(None, pl.String))
    wells = one_experiment.with_columns(pl.col("treatments").list.eval(without))
    write_aligned(tmp_path / "in.parquet", wells, embed(wells), {})
    flags = ["--screen", "s", "--encoder", "e", "--experiment", "experiment-1"]
    with pytest.raises(UserError, match=r"in\.parquet: 'G0_guide_1' has no kind"):
        main([f"--aligned={tmp_path}/in.parquet", f"--pvalues={tmp_path}/out", *flags])


def test_an_experiment_without_testable_wells_gives_an_empty_table():
    wells = wells_of([("negative_control", []), ("empty", [])])
    table = experiment_pvalues(wells, embed(wells), KNOBS)
    assert table.height == 0
    PVALUES.check(table, "table")


def test_an_embedding_of_length_zero_is_told_by_its_well(one_experiment):
    x_WD = embed(one_experiment)
    x_WD[7] = 0
    with pytest.raises(
        UserError, match="experiment-1/plate-1/7: aligned embedding of length zero"
    ):
        experiment_pvalues(one_experiment, x_WD, KNOBS)


def test_an_only_control_which_is_the_origin_stops_only_a_pool_of_controls(one_experiment):
    x_WD = embed(one_experiment)
    control = (one_experiment["role"] == "negative_control").arg_max()
    table = experiment_pvalues(one_experiment, x_WD, KNOBS)
    x_WD[control] = 0
    assert experiment_pvalues(one_experiment, x_WD, KNOBS).equals(table)
    with pytest.raises(UserError, match=f"1/{control}: aligned embedding of length zero"):
        experiment_pvalues(one_experiment, x_WD, PvaluesKnobs(controls_in_pool=True))


@settings(deadline=None, max_examples=8)
@given(st.permutations(range(245)), st.text("abxyz09", min_size=1), st.integers(1, 2))
def test_order_plate_names_and_threads_change_nothing(order, plate, threads):
    wells = one_experiment_of_wells()
    x_WD = embed(wells)
    knobs = PvaluesKnobs(n_null=100)
    table = experiment_pvalues(wells, x_WD, knobs)
    renamed = wells[order].with_columns(
        plate=pl.lit(plate), well_id=pl.lit(plate) + pl.col("well_id")
    )
    with threadpool_limits(threads):
        moved = experiment_pvalues(renamed, x_WD[order], knobs)
    assert moved.equals(table)
