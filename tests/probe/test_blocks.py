import json

import numpy as np
import polars as pl
import pytest
import zarr

from phenopipe.errors import UserError
from phenopipe.formats.embeddings import embeddings_writer, read_well_ids, write_embeddings
from phenopipe.formats.probes import PREDICTIONS
from phenopipe.formats.qc import write_qc_wells
from phenopipe.formats.results import RESULTS
from phenopipe.formats.tables import read_json, read_table
from phenopipe.probe.blocks import main, pairs_across
from phenopipe.probe.config import BlocksKnobs
from phenopipe.probe.sweep import sweep_blocks
from tests.benchmark.plates import knockouts, wells_of

GENES = [f"G{at}" for at in range(8)]
# How strongly each of four blocks shows a gene's group: the second does best.
STRENGTH = (0.3, 3.0, 1.0, 0.0)


def save_experiment(folder, name, layout, rng, direction):
    """Wells and embeddings of one experiment; one well failed qc, one has no embedding."""
    wells = wells_of([*knockouts(GENES, 2, 4), [], []], experiment=name, layout=layout)
    x_WBD = rng.normal(size=(wells.height, 4, 6))
    for at, one in enumerate(wells["treatments"].to_list()):
        if one:
            group = GENES.index(one[0]["gene"]) // 4
            x_WBD[at] += np.array(STRENGTH)[:, None] * direction[group]
    x_WBD[1] = np.nan
    flagged = wells.with_row_index().select(
        pl.exclude("index"),
        n_images=pl.lit(1, pl.Int32),
        passes=pl.col("index") != 0,
        reason=pl.when(pl.col("index") == 0).then(pl.lit("focus")).otherwise(pl.lit("")),
    )
    write_qc_wells(folder / f"{name}.parquet", flagged, {})
    write_embeddings(
        folder / f"{name}.zarr",
        x_WBD.astype(np.float32),
        wells["well_id"].to_list(),
        block_numbers=[1, 2, 3, 4],
        block_dims=[6, 6, 6, 4],
        stamp={},
    )


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    direction = rng.normal(size=(2, 6))
    for name, layout in (("e1", "l1"), ("e2", "l1"), ("e3", "l2")):
        save_experiment(tmp_path, name, layout, rng, direction)
    groups = pl.DataFrame({"group": ["low"] * 4 + ["high"] * 4, "gene": GENES})
    groups.write_csv(tmp_path / "groups.tsv", separator="\t")
    return tmp_path


def arguments(folder, experiments=("e3", "e1", "e2"), **knobs):
    knobs = {"label": "group", "train": ["e1"], "test": ["e2", "e3"], "bootstraps": 50, **knobs}
    flags = [
        f"--{k.replace('_', '-')}={v if isinstance(v, str) else json.dumps(v)}"
        for k, v in knobs.items()
    ]
    return [
        *("--embeddings", *(f"{folder}/{name}.zarr" for name in experiments)),
        *("--wells", *(f"{folder}/{name}.parquet" for name in sorted(experiments))),
        f"--groups={folder}/groups.tsv",
        f"--blocks={folder}/out/blocks.parquet",
        f"--best={folder}/out/best_block.json",
        f"--predictions={folder}/out/predictions.parquet",
        *("--encoder=mae", "--task=anax", *flags),
    ]


def test_step_finds_the_planted_block_and_its_control_finds_nothing(folder):
    # Seed 0 happens to deal these few genes to the same groups under swapped names.
    main(arguments(folder, seed="1"))
    results = read_table(folder / "out/blocks.parquet", RESULTS)
    accuracy = results.filter(pl.col("metric") == "balanced_accuracy")
    assert accuracy["block"].to_list() == [1, 2, 3, 4]
    assert accuracy["value"].arg_max() == 1 and accuracy["value"][1] > 0.9
    assert 0.3 < accuracy["value"][3] < 0.7
    assert (accuracy["low"] <= accuracy["value"]).all()
    assert (accuracy["value"] <= accuracy["high"]).all()
    # Two wells of each experiment failed qc or have no embedding.
    assert set(accuracy["n"]) == {2 * 62} and set(accuracy["source"]) == {"anax"}
    permuted = results.filter(pl.col("metric") == "balanced_accuracy_permuted")
    assert permuted["block"].to_list() == [2, 4] and permuted["value"].max() < 0.8

    best = read_json(folder / "out/best_block.json")
    assert best["block"] == 2 and best["last_block"] == 4 and best["chance"] == 0.5
    assert best["accuracy"] == accuracy["value"][1]
    assert best["technical_pairs"] == [["e1", "e2"]]
    assert best["gain"]["low"] > 0 and best["share_other_block"] == 0
    assert [one["converged"] for one in best["blocks"]] == [True] * 4
    assert best["converged"] and max(one["gap"] for one in best["blocks"]) <= 1e-5
    over = results.filter(metric="balanced_accuracy_over_experiments")
    assert over["value"].to_list() == accuracy["value"].to_list() and set(over["n"]) == {2}
    assert best["share_other_block_over_experiments"] == 0
    gain = results.filter(metric="gain_on_other_half").row(0, named=True)
    assert gain["value"] == best["other_half"]["gain"]["value"] and gain["low"] > 0
    assert best["other_half"]["unit"] == "layout"

    predictions = read_table(folder / "out/predictions.parquet", PREDICTIONS)
    assert set(predictions["block"]) == {2, 4} and predictions.height == 4 * 62
    mine = predictions.filter(pl.col("block") == 2)
    right = mine.with_columns(right=pl.col("label") == pl.col("predicted"))
    by_class = right.group_by("label").agg(pl.col("right").mean())
    assert by_class["right"].mean() == pytest.approx(best["accuracy"])


def keep_sites(folder, n_sites):
    """Write every well's embedding anew, each as so many equal sites."""
    for name in ("e1", "e2", "e3"):
        path = folder / f"{name}.zarr"
        x_WBD = zarr.open(str(path), mode="r")["embedding"][:]
        names = read_well_ids(path)
        facts = {"block_numbers": [1, 2, 3, 4], "block_dims": [6, 6, 6, 4], "stamp": {}}
        rows = [row for row in range(len(names)) for _ in range(n_sites)]
        with embeddings_writer(path, names, dtype="float32", site_rows=rows, **facts) as writer:
            for row in rows:
                writer.sites.append(x_WBD[row])


def test_sites_are_classified_and_stay_with_their_well(folder):
    main(arguments(folder, bootstraps="400"))
    wells = read_table(folder / "out/blocks.parquet", RESULTS)
    with pytest.raises(UserError, match="keeps no sites"):
        main(arguments(folder, level="sites"))
    keep_sites(folder, 4)
    main(arguments(folder, level="sites", bootstraps="400"))
    sites = read_table(folder / "out/blocks.parquet", RESULTS)
    best = read_json(folder / "out/best_block.json")
    assert best["level"] == "sites" and best["n_test"] == 4 * 2 * 62

    def ends(table):
        rows = table.filter(metric="balanced_accuracy").sort("block")
        assert rows["n"].n_unique() == 1
        return rows["value"].to_numpy(), (rows["high"] - rows["low"]).to_numpy()

    (accuracy, width), (of_sites, width_of_sites) = ends(wells), ends(sites)
    # Four equal sites a well are no more evidence than the well: intervals stay as wide.
    assert of_sites == pytest.approx(accuracy, abs=0.03)
    assert width_of_sites[[0, 3]] == pytest.approx(width[[0, 3]], rel=0.25)
    predictions = read_table(folder / "out/predictions.parquet", PREDICTIONS)
    assert set(predictions["site"]) == {1, 2, 3, 4}


def test_order_of_files_does_not_matter(folder):
    main(arguments(folder))
    first = (folder / "out/best_block.json").read_text()
    main(arguments(folder, experiments=("e1", "e2", "e3")))
    again = json.loads((folder / "out/best_block.json").read_text())
    first = json.loads(first)
    del again["phenopipe"], first["phenopipe"]
    assert again == first


def test_solver_that_stops_early_is_reported(folder, capsys):
    main(arguments(folder, max_iter="1", **{"label": "gene"}))
    best = read_json(folder / "out/best_block.json")
    assert [one["converged"] for one in best["blocks"]] == [False] * 4
    assert "DID NOT CONVERGE" in capsys.readouterr().out
    results = read_table(folder / "out/blocks.parquet", RESULTS)
    assert not any("permuted" in metric for metric in results["metric"])


def test_experiment_without_embeddings_is_named(folder):
    listed = arguments(folder)
    listed.remove(f"{folder}/e2.zarr")
    with pytest.raises(UserError, match=r"no embeddings of experiments \['e2'\] among 2"):
        main(listed)


def save_again(folder, name, edit):
    """Write an experiment's embeddings anew, edited in place."""
    path = folder / f"{name}.zarr"
    x_WBD = zarr.open(str(path), mode="r")["embedding"][:]
    edit(x_WBD)
    facts = {"block_numbers": [1, 2, 3, 4], "block_dims": [6, 6, 6, 4], "stamp": {}}
    write_embeddings(path, x_WBD, read_well_ids(path), **facts)


def test_classes_are_counted_by_wells_with_an_embedding(folder):
    def lose_first_gene(x_WBD):
        x_WBD[:8] = np.nan

    save_again(folder, "e1", lose_first_gene)
    main(arguments(folder, label="gene"))
    best = read_json(folder / "out/best_block.json")
    assert best["left_out"]["classes"] == ["G0"] and best["chance"] == 1 / 7

    def lose_all_but_last_gene(x_WBD):
        x_WBD[:56] = np.nan

    save_again(folder, "e1", lose_all_but_last_gene)
    with pytest.raises(UserError, match=r"'gene': 1 classes have 2 training wells"):
        main(arguments(folder, label="gene"))

    def lose_all(x_WBD):
        x_WBD[:] = np.nan

    save_again(folder, "e1", lose_all)
    with pytest.raises(UserError, match=r"no embeddings of experiments \['e1'\] among 3"):
        main(arguments(folder))


@pytest.mark.parametrize("name", ["e1", "e2"])
def test_a_block_that_is_not_finite_is_named(folder, name):
    def spoil(x_WBD):
        x_WBD[4, 2, 3] = np.nan

    save_again(folder, name, spoil)
    well = f"{name}/p1/0004"
    with pytest.raises(UserError, match=rf"{name}\.zarr: block 3 of well {well} is not finite"):
        main(arguments(folder))


def test_stores_of_other_widths_are_refused(folder):
    narrow = np.ones((66, 4, 5), dtype=np.float32)
    facts = {"block_numbers": [1, 2, 3, 4], "block_dims": [5, 5, 5, 5], "stamp": {}}
    write_embeddings(folder / "e1.zarr", narrow, read_well_ids(folder / "e1.zarr"), **facts)
    with pytest.raises(UserError, match=r"e1\.zarr: block_dims \[5, 5, 5, 5\], wanted \[6, 6"):
        main(arguments(folder))


def test_stores_of_other_blocks_are_refused(folder):
    write_embeddings(
        folder / "e3.zarr",
        np.ones((1, 1, 6), dtype=np.float32),
        ["e3/p1/0005"],
        block_numbers=[4],
        block_dims=[6],
        stamp={},
    )
    with pytest.raises(UserError, match=r"e1\.zarr: blocks \[1, 2, 3, 4\], wanted \[4\]"):
        main(arguments(folder))


def test_equal_blocks_tie_to_the_earliest_and_no_resample_disagrees():
    rng = np.random.default_rng(1)
    label = rng.choice(["a", "b"], 80)
    x_WD = rng.normal(size=(80, 3)) + (label == "a")[:, None]
    wells = pl.DataFrame({"experiment": "e1", "label": label, "is_train": np.arange(80) < 40})
    sweep = sweep_blocks(wells, lambda block: x_WD, [1, 2, 3], BlocksKnobs(bootstraps=20))
    assert sweep.best == 0
    assert (sweep.accuracy_BK.argmax(axis=1) == 0).all()


def test_layouts_on_both_sides_are_reported():
    wells = pl.DataFrame(
        {
            "experiment": ["e1", "e2", "e3"],
            "layout": ["l1", "l1", "l2"],
            "is_train": [True, False, False],
        }
    )
    assert pairs_across(wells) == [["e1", "e2"]]
