import json

import polars as pl
import pytest

from phenopipe.errors import UserError
from phenopipe.formats.funnels import write_funnel
from phenopipe.formats.pvalues import COMBINED
from phenopipe.formats.tables import write_table
from phenopipe.formats.wells import write_wells
from phenopipe.phenoprints.diff import main
from phenopipe.phenoprints.select import main as select

from .test_select import applied, combined_of, counted, test_of, wells_of

WELLS = wells_of(
    [
        ("gone", "perturbation", [applied("A_1")]),
        ("steady", "perturbation", [applied("B_1")]),
        ("switched", "perturbation", [applied("C_1")]),
        ("earlier", "perturbation", [applied("D_1")]),
        ("untested", "perturbation", [applied("E_1")]),
        ("judge", "perturbation", [applied("F_1")]),
        ("new", "perturbation", [applied("G_1")]),
        ("control", "negative_control", []),
    ]
)
TESTS_A = [
    test_of("A_1", 0.002),
    test_of("B_1", 0.003),
    test_of("C_1", 0.004),
    test_of("D_1", 0.005),
    test_of("E_1", 0.006),
    test_of("F_1", 0.007, encoder="classifier"),
    test_of("G_1", 0.5),
]
TESTS_B = [
    test_of("A_1", 0.02),
    test_of("B_1", 0.003),
    test_of("C_1", 0.001, encoder="dino"),
    test_of("D_1", 0.005),
    test_of("F_1", 0.3, encoder="dino"),
    test_of("G_1", 0.0001),
]


def made(home, name, wells, tests, *flags):
    """The results of a manifest, chosen by the step itself."""
    folder, before = home / "phenoprints" / name, home / "undersample" / name
    write_wells(before / "wells.parquet", counted(wells, 1), {})
    write_funnel(before / "funnel.json", {"steps": []}, {})
    stamp = {"inputs": {"pvalues": ["digest"]}}
    write_table(folder / "pvalues.parquet", combined_of(*tests), COMBINED, stamp)
    files = {
        "wells": before / "wells.parquet",
        "combined": folder / "pvalues.parquet",
        "undersampled": before / "funnel.json",
        "manifest": folder / "manifest.parquet",
        "funnel": folder / "funnel.json",
    }
    select([*(x for key, path in files.items() for x in (f"--{key}", str(path))), *flags])
    return folder


@pytest.fixture
def pair(tmp_path):
    left = WELLS.filter(pl.col("well_id") != "earlier")
    return made(tmp_path, "first", WELLS, TESTS_A), made(
        tmp_path, "second", left, TESTS_B, "--keep-untestable=false"
    )


def compared(a, b, tmp_path):
    main([str(a), str(b), "--json", str(tmp_path / "diff.json")])
    return json.loads((tmp_path / "diff.json").read_text())


def reasons(counts, found):
    return {r["reason"]: r["wells"] for r in counts["reasons"] if r["found"] == found}


def test_every_well_that_differs_has_its_reason(pair, tmp_path, capsys):
    counts = compared(*pair, tmp_path)
    assert counts["wells"] == {"both": 2, "only A": 5, "only B": 1}
    assert reasons(counts, "both") == {
        "saved by the same test": 1,
        "saved by another test": 1,
    }
    assert reasons(counts, "only A") == {
        "condition not significant": 1,
        "its judge did not vote": 1,
        "kept untested, left out by a knob": 1,
        "lost in an earlier step": 1,
        "no condition tested": 1,
    }
    assert reasons(counts, "only B") == {"condition not significant": 1}
    rows = {one["condition"]: one for one in counts["conditions"]}
    assert (rows["A_1"]["p_a"], rows["A_1"]["p_b"]) == (0.002, 0.02)
    assert (rows["G_1"]["p_a"], rows["G_1"]["p_b"]) == (0.5, 0.0001)
    assert (rows["C_1"]["judge_a"], rows["C_1"]["judge_b"]) == ("mae", "dino")
    printed = capsys.readouterr().out
    assert "only A: 5 wells" in printed
    assert "A_1 by mae (median p 0.002 in A, 0.02 in B)" in printed


def test_the_other_way_round_says_the_same(pair, tmp_path):
    there, back = compared(*pair, tmp_path), compared(*pair[::-1], tmp_path)
    assert reasons(there, "only A") == reasons(back, "only B")
    kinds = {r["kind"]: r["wells"] for r in there["kinds"] if r["found"] == "only B"}
    assert kinds == {"knockout": 1}
    roles = {r["role"] for r in there["roles"] if r["found"] == "only A"}
    assert roles == {"perturbation", "negative_control"}


def test_a_manifest_differs_not_from_itself(pair, tmp_path):
    counts = compared(pair[0], pair[0], tmp_path)
    assert counts["wells"] == {"both": 7, "only A": 0, "only B": 0}
    assert reasons(counts, "both") == {
        "saved by the same test": 6,
        "kept untested in both": 1,
    }


def test_a_folder_without_a_manifest_is_refused(pair, tmp_path):
    with pytest.raises(UserError, match=r"manifest\.parquet"):
        main([str(pair[0]), str(tmp_path / "absent")])
