import numpy as np
import polars as pl
import pytest

from phenopipe.benchmark.classes import main, nearest_other, read_classes, summarize_nearest
from phenopipe.benchmark.config import ClassesKnobs
from phenopipe.errors import UserError
from phenopipe.formats.benchmarks import NEAREST
from phenopipe.formats.results import RESULTS
from phenopipe.formats.tables import read_table
from tests.benchmark.plates import save_aligned, treatment, wells_of


def map_of(rows, x_RD):
    frame = pl.DataFrame(rows, schema=["entity", "concentration_um"], orient="row")
    width = pl.Array(pl.Float32, len(x_RD[0]))
    return frame.with_columns(kind=pl.lit("compound"), embedding=pl.Series(x_RD).cast(width))


def labels_of(**classes):
    return pl.DataFrame({"perturbation": list(classes), "label": list(classes.values())})


def test_neighbour_is_never_another_dose_of_the_same_compound():
    table = map_of([("a", 1.0), ("a", 2.0), ("b", 1.0)], [[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    tested = pl.DataFrame(
        {
            "perturbation": ["a", "a", "b"],
            "concentration_um": [1.0, 2.0, 1.0],
            "experiment": "e",
        }
    )
    found = nearest_other(table, tested, labels_of(a="x", b="y"))
    NEAREST.check(found, "found")
    assert found["nearest_perturbation"].to_list() == ["b", "b", "a"]
    # All were tested together, so that none is apart.
    assert found["nearest_apart_label"].to_list() == [None] * 3


def test_neighbour_apart_shares_no_experiment():
    table = map_of([("a", 1.0), ("b", 1.0), ("c", 1.0)], [[1.0, 0.0], [1.0, 0.1], [0.5, 0.5]])
    tested = pl.DataFrame(
        {
            "perturbation": ["a", "b", "b", "c"],
            "concentration_um": [1.0] * 4,
            "experiment": ["e1", "e1", "e2", "e3"],
        }
    )
    found = nearest_other(table, tested, labels_of(a="x", b="x", c="y"))
    assert found["nearest_perturbation"].to_list() == ["b", "a", "b"]
    assert found["nearest_apart_perturbation"].to_list() == ["c", "c", "b"]
    value = {r["metric"]: r["value"] for r in summarize_nearest(found, ClassesKnobs())}
    assert value["same_class"] == pytest.approx(2 / 3)
    assert value["same_class_apart"] == 0.0


def test_classes_may_go_by_dose_and_are_never_two(tmp_path):
    table = pl.DataFrame({"c": ["a", "a"], "um": [1, 2], "moa": ["x", "y"]})
    knobs = ClassesKnobs(perturbation="c", label="moa")
    by_dose = read_classes(table, knobs.model_copy(update={"concentration": "um"}), "t.csv")
    assert by_dose.rows() == [("a", "x", 1.0), ("a", "y", 2.0)]
    with pytest.raises(UserError, match=r"t\.csv: two classes for \('a',\), wanted one"):
        read_classes(table, knobs, "t.csv")
    with pytest.raises(UserError, match="no column 'label'"):
        read_classes(table, ClassesKnobs(perturbation="c"), "t.csv")


def planted(tmp_path, strength):
    """Eight compounds of four classes in two experiments, each with a shift of its own."""
    rng = np.random.default_rng(0)
    direction = strength * rng.normal(size=(4, 12))
    paths = []
    for number in range(2):
        treatments, rows = [], []
        for compound in range(8):
            for _ in range(3):
                name = f"c{number}{compound}"
                treatments.append([treatment(name, "compound", dose=1.0)])
                rows.append(direction[compound % 4])
        wells = wells_of([*treatments, *[[]] * 6], experiment=f"e{number}")
        x_WD = np.array([*rows, *np.zeros((6, 12))]) + rng.normal(size=(30, 12))
        paths.append(save_aligned(tmp_path / f"e{number}.parquet", wells, x_WD))
    lines = [f"c{n}{c},class{c % 4}" for n in range(2) for c in range(8)]
    (tmp_path / "classes.csv").write_text("perturbation,label\n" + "\n".join(lines))
    out = [f"--classes={tmp_path}/c.parquet", f"--nearest={tmp_path}/n.parquet"]
    files = ["--aligned", *map(str, paths), f"--labels={tmp_path}/classes.csv", *out]
    main([*files, "--benchmark=moa", "--encoder=e"])
    rows = read_table(tmp_path / "c.parquet", RESULTS).iter_rows(named=True)
    return {row["metric"]: row for row in rows}


def test_planted_classes_are_found_and_dealt_ones_are_not(tmp_path):
    found = planted(tmp_path, 2.0)
    assert found["same_class"]["value"] > 0.9 and found["same_class_apart"]["value"] > 0.9
    for metric in ("same_class_permuted", "same_class_apart_permuted"):
        assert found[metric]["low"] <= 0.2 <= found[metric]["high"]
    nearest = read_table(tmp_path / "n.parquet", NEAREST)
    assert nearest.height == found["same_class"]["n"] == 16


def test_without_an_effect_classes_are_found_by_chance(tmp_path):
    assert planted(tmp_path, 0.0)["same_class_apart"]["value"] < 0.6


def test_one_compound_alone_is_told():
    table = map_of([("a", 1.0)], [[1.0]])
    tested = pl.DataFrame(
        {"perturbation": ["a"], "concentration_um": [1.0], "experiment": ["e"]}
    )
    with pytest.raises(UserError, match="1 compounds of the map have a class"):
        nearest_other(table, tested, labels_of(a="x"))
