"""Tables in the paper's shape, and the paper's own numbers held against each other."""

from pathlib import Path

import polars as pl
import pytest

from phenopipe.errors import UserError
from phenopipe.report.scoreboard import (
    comparable,
    compound_board,
    map_board,
    marks,
    on_common_pairs,
    z_of_energy,
    z_of_precision,
)
from phenopipe.report.tables import main, read_paper, to_html, to_markdown

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "docs" / "paper_results.csv"
NO_PAIRS = pl.DataFrame()


@pytest.fixture(scope="module")
def paper():
    return read_paper(PAPER)


def value_of(paper, table, model, metric, block):
    return paper.row(
        by_predicate=(pl.col("table") == table)
        & (pl.col("model") == model)
        & (pl.col("metric") == metric)
        & (pl.col("block").eq_missing(block)),
        named=True,
    )


def corners(row, digits):
    """A printed number and its spread may each be off by half of their last digit."""
    half, wide = 0.5 * 10.0 ** -digits[0], 0.5 * 10.0 ** -digits[1]
    return [(row["value"] + a, row["spread"] + b) for a in (-half, half) for b in (-wide, wide)]


@pytest.mark.parametrize("table", ["3", "6"])
def test_z_scores_of_the_paper_follow_from_its_means_and_spreads(paper, table):
    random_ap = value_of(paper, "3", "random embeddings", "average_precision", None)
    random_energy = value_of(paper, "3", "random embeddings", "energy_distance", None)
    models = (
        paper.filter(pl.col("table") == table, pl.col("model") != "random embeddings")
        .select("model", "data", "block")
        .unique()
    )
    checked = 0
    for model, data, block in models.rows():
        mine = paper.filter(pl.col("data") == data)
        ap = value_of(mine, table, model, "average_precision", block)
        z = value_of(mine, table, model, "z_average_precision", block)["value"]
        found = [
            z_of_precision(m, s, r, t)
            for m, s in corners(ap, (3, 3))
            for r, t in corners(random_ap, (3, 3))
        ]
        assert min(found) - 0.005 <= z <= max(found) + 0.005, (model, block)
        energy = value_of(mine, table, model, "energy_distance", block)
        z = value_of(mine, table, model, "z_energy_distance", block)["value"]
        found = [
            z_of_energy(m, mad, r)
            for m, mad in corners(energy, (3, 2))
            for r in (random_energy["value"] - 0.0005, random_energy["value"] + 0.0005)
        ]
        assert min(found) - 0.005 <= z <= max(found) + 0.005, (model, block)
        checked += 1
    assert checked == {"3": 5, "6": 2}[table]


def test_other_formulas_would_not_give_the_papers_z(paper):
    ap = value_of(paper, "3", "MAE-G/8", "average_precision", 38)
    z = value_of(paper, "3", "MAE-G/8", "z_average_precision", 38)["value"]
    alone = [(m - r) / s for m, s in corners(ap, (3, 3)) for r in (0.2215, 0.2225)]
    assert not min(alone) <= z <= max(alone)


def test_gains_that_the_papers_text_gives_follow_from_its_tables(paper):
    gains = {
        ("CVM", 24): 0.48, ("StringDB", 24): 0.043, ("CVM", 15): 0.20, ("StringDB", 15): 0.035,
    }  # fmt: skip
    old = paper.filter(pl.col("data") == "RPI-93M")
    for (metric, block), gain in gains.items():
        best = value_of(paper, "1", "MAE-G/8", metric, 38)["value"]
        before = value_of(old, "1", "MAE-L/8", metric, block)["value"]
        half = 0.05 if metric == "CVM" else 0.0005
        low, high = (best - half) / (before + half) - 1, (best + half) / (before - half) - 1
        digits = 2 if metric == "CVM" else 3
        assert round(low, digits) <= gain <= round(high, digits), (metric, block)
        told = "CVM gain" if metric == "CVM" else "StringDB gain"
        name = f"{told} over MAE-L/8 RPI-93M" + (" trimmed" if block == 15 else "")
        assert paper.filter(metric=name)["value"].to_list() == [gain]


def test_every_row_of_the_papers_tables_is_there(paper):
    n_rows = {
        table: part.select("model", "data", "block", "trimmed").n_unique()
        for (table,), part in paper.group_by("table")
    }
    assert {k: n_rows[k] for k in "1236"} == {"1": 17, "2": 4, "3": 6, "6": 2}
    best = paper.filter(table="1").sort("value", descending=True)
    tops = {m: p["model"][0] for (m,), p in best.group_by("metric", maintain_order=True)}
    assert set(tops.values()) == {"MAE-G/8"}
    baselines = best.filter(pl.col("baseline") == 1)
    italic = {m: p["model"][0] for (m,), p in baselines.group_by("metric", maintain_order=True)}
    assert {italic[m] for m in ("CORUM", "hu.MAP", "Reactome", "StringDB", "KS")} == {
        "ViT-L/14"
    }


def results(*rows):
    plain = {
        "block": 3, "trimmed": False, "benchmark": "map", "screen": "s", "source": "CORUM",
        "low": None, "high": None, "n": 4, "seed": 0,
    }  # fmt: skip
    return pl.DataFrame([{**plain, **row} for row in rows])


def score(encoder, metric, value, **more):
    return {"encoder": encoder, "metric": metric, "value": value, **more}


RECALL, PERMUTED = "recall_sampled_0.05_0.95", "recall_permuted_sampled_0.05_0.95"


def test_best_is_bold_and_best_baseline_italic_and_controls_are_neither():
    board = map_board(
        results(
            score("untrained", RECALL, 0.3), score("untrained", PERMUTED, 0.9),
            score("pixels", RECALL, 0.2), score("mae", RECALL, 0.6),
            score("mae", PERMUTED, 0.7),
        ),
        NO_PAIRS, ["untrained", "pixels"], pl.DataFrame(),
    )  # fmt: skip
    assert board["encoder"].to_list() == ["pixels", "untrained", "mae", "names shuffled"]
    assert board["CORUM"].to_list() == [0.2, 0.3, 0.6, pytest.approx(0.8)]
    best, italic = marks(board)
    assert best == {(2, "CORUM")} and italic == {(1, "CORUM")}
    assert "| **0.600** |" in to_markdown(board) and "| *0.300* |" in to_markdown(board)
    assert "<b>0.600</b>" in to_html(board) and "<i>0.300</i>" in to_html(board)


def test_papers_rows_stand_beside_ours(paper):
    board = map_board(results(score("mae", RECALL, 0.6)), NO_PAIRS, [], paper)
    assert board.filter(benchmark="paper Table 1").height == 17
    assert board.filter(pl.col("encoder") == "mae")["StringDB"].to_list() == [None]
    _, italic = marks(board)
    told = board.with_row_index("at").filter(benchmark="paper Table 1")
    names = dict(told.select("at", "encoder").rows())
    assert {names[at] for at, column in italic if at in names and column == "KS"} == {
        "ViT-L/14"
    }


def test_a_student_stands_beside_autoencoders_and_the_papers_table_6(paper):
    rows = [score(name, "energy_distance", 5.0) for name in ("ca-mae", "dino", "mae")]
    board = compound_board(results(*rows), [], [], paper)
    ours = board.filter(pl.col("group") == "encoder")
    assert ours["encoder"].to_list() == ["ca-mae", "dino", "mae"]
    theirs = board.filter(benchmark="paper Table 6")
    assert theirs.select("encoder", "data", "z of precision").rows() == [
        ("ViT-L/16 Dino-V2", "RxRx3", 2.13),
        ("ViT-L/8 Dino-V2 from MAE", "RPI-93M", 1.76),
    ]


def test_z_is_over_the_random_encoder_where_there_is_one():
    rows = [
        score("mae", "average_precision_max", 0.3),
        score("mae", "average_precision_max_sd", 0.03),
        score("mae", "average_precision_random", 0.1),
        score("mae", "average_precision_random_sd", 0.04),
        score("mae", "energy_distance", 5.0), score("mae", "energy_distance_mad", 2.0),
        score("mae", "energy_distance_null", 1.0),
    ]  # fmt: skip
    board = compound_board(results(*rows), [], [], pl.DataFrame())
    assert board["z of precision"][0] == pytest.approx(0.2 / 0.05)
    assert board["z of energy"][0] == pytest.approx(2.0)
    rows += [
        score("noise", "average_precision_max", 0.2),
        score("noise", "average_precision_max_sd", 0.0),
        score("noise", "energy_distance", 3.0),
    ]
    board = compound_board(results(*rows), ["noise"], ["noise"], pl.DataFrame())
    mae = board.row(by_predicate=pl.col("encoder") == "mae", named=True)
    assert mae["z of precision"] == pytest.approx(0.1 / 0.03)
    assert mae["z of energy"] == pytest.approx(1.0)


def test_encoders_are_compared_on_technical_pairs_that_both_have():
    pairs = pl.DataFrame(
        {
            "encoder": ["a", "a", "b", "b"],
            "benchmark": ["map"] * 4,
            "experiment_a": ["e1", "e3", "e1", "e3"],
            "experiment_b": ["e2", "e4", "e2", "e4"],
            "n": [10, 20, 10, 19],
            "ks": [0.5, 0.9, 0.4, 0.1],
            "cvm": [5.0, 9.0, 4.0, 1.0],
            "ks_over_position": [None, 0.3, None, 0.2],
        }
    )
    found = on_common_pairs(pairs)
    assert found["n_pairs"].to_list() == [1, 1] and found["n_left_out"].to_list() == [1, 1]
    assert found["ks"].to_list() == [0.5, 0.4]
    none = on_common_pairs(pairs.with_columns(n=pl.Series([1, 2, 3, 4])))
    assert none["ks"].to_list() == [None, None] and none["n_left_out"].to_list() == [2, 2]


def test_pages_results_are_those_of_the_common_pairs():
    schema = {"experiment_a": "e1", "experiment_b": "e2", "benchmark": "map", "cvm": 1.0}
    rows = [
        {**schema, "encoder": encoder, "n": n, "ks": ks, "ks_over_position": None}
        for encoder, n, ks in (("a", 10, 0.2), ("b", 10, 0.3), ("b", 30, 0.9), ("c", 10, 0.4))
    ]
    found = results(
        score("a", "ks", 0.2, low=0.1, high=0.3),
        score("b", "ks", 0.6, low=0.3, high=0.9, n=20),
        score("b", RECALL, 0.7, low=0.6, high=0.8),
    )
    alike = comparable(found, pl.DataFrame(rows))
    assert alike.select("value", "low", "n").rows() == [
        (0.2, 0.1, 4), (0.3, None, 10), (0.7, 0.6, 4),
    ]  # fmt: skip
    assert alike.columns == found.columns and comparable(found, NO_PAIRS).equals(found)
    rows[1]["n"] = 11
    alone = comparable(found, pl.DataFrame(rows))
    assert alone["metric"].to_list() == [RECALL]


def test_recall_at_other_thresholds_is_shown_and_named():
    rows = [score("mae", f"recall_{kind}sampled_0.1_0.9", 0.6) for kind in ("", "permuted_")]
    board = map_board(results(*rows), NO_PAIRS, [], pl.DataFrame())
    assert board.select("encoder", "CORUM at 10/90").rows() == [
        ("mae", 0.6), ("names shuffled", 0.6),
    ]  # fmt: skip


def test_step_writes_all_forms(run, tmp_path):
    flags = {f: p for f, p in run.files.items() if f in ("recall", "magnitude", "compounds")}
    given = [w for f, paths in flags.items() for w in (f"--{f}", *map(str, paths))]
    out = {name: tmp_path / name for name in ("maps", "doses", "markdown", "html")}
    main([*given, f"--paper={PAPER}", *(f"--{name}={path}" for name, path in out.items())])
    maps, doses = pl.read_csv(out["maps"]), pl.read_csv(out["doses"])
    assert {"mae", "MAE-G/8"} <= set(maps["encoder"]) & set(doses["encoder"]) | {"mae"}
    assert "z of precision" in doses.columns
    assert "paper Table 3" in out["markdown"].read_text()
    assert out["html"].read_text().count("<table>") == 2


def test_file_without_a_column_is_refused(tmp_path):
    path = tmp_path / "paper.csv"
    path.write_text("table,model\n1,x\n")
    with pytest.raises(UserError, match="no column 'data'"):
        read_paper(path)
