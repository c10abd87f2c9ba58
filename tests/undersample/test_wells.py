import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phenopipe.formats.funnels import read_funnel
from phenopipe.formats.images import IMAGES, write_images
from phenopipe.formats.qc import write_qc_wells
from phenopipe.formats.wells import TREATMENT, read_wells
from phenopipe.undersample.config import WellsKnobs
from phenopipe.undersample.wells import (
    keep_replicated,
    main,
    replicated_conditions,
    undersample_roles,
    undersample_wells,
)


def guide(name):
    gene = name.split("_")[0]
    return {
        "perturbation": name,
        "kind": "knockout",
        "gene": gene,
        "guide": name,
        "concentration_um": None,
    }


def dose(name, concentration):
    return {
        "perturbation": name,
        "kind": "compound",
        "gene": None,
        "guide": None,
        "concentration_um": concentration,
    }


def wells_of(rows):
    """Wells from (experiment, role, treatments), each at its own address."""
    columns = {
        "screen": ["made-up"] * len(rows),
        "experiment": [experiment for experiment, _, _ in rows],
        "plate": ["1"] * len(rows),
        "well": [f"A{n:02d}" for n in range(len(rows))],
        "row": [1] * len(rows),
        "column": list(range(len(rows))),
        "cell_type": ["HUVEC"] * len(rows),
        "role": [role for _, role, _ in rows],
        "treatments": [treatments for _, _, treatments in rows],
        "layout": ["one"] * len(rows),
        "well_id": [f"{experiment}/1/A{n:02d}" for n, (experiment, _, _) in enumerate(rows)],
    }
    types = {"row": pl.Int32, "column": pl.Int32, "treatments": pl.List(TREATMENT)}
    return pl.DataFrame(columns, schema_overrides=types)


def repeated(experiments, copies, *treatments, role="perturbation"):
    return [(e, role, list(treatments)) for e in experiments for _ in range(copies)]


def test_a_condition_needs_enough_experiments_and_enough_wells():
    wells = wells_of(
        repeated(["e1", "e2", "e3"], 2, guide("A_1"))
        + repeated(["e1", "e2"], 9, guide("B_1"))
        + repeated(["e1", "e2", "e3"], 1, guide("C_1"))
        + repeated(["e1", "e2", "e3"], 2, dose("drug", 1.0))
        + repeated(["e1"], 6, dose("drug", 2.0))
    )
    kept = replicated_conditions(wells, min_experiments=3, min_wells=6)
    assert sorted(kept["perturbation"]) == ["A_1", "drug"]
    assert kept.filter(kind="compound")["concentration_um"].to_list() == [1.0]


def test_two_treatments_alike_in_one_well_are_one_well():
    wells = wells_of(repeated(["e1"], 1, guide("A_1"), guide("A_1")))
    assert replicated_conditions(wells, min_experiments=1, min_wells=2).is_empty()


def test_a_well_with_several_perturbations_stays_for_any_of_them():
    common = repeated(["e1", "e2"], 2, guide("A_1"))
    wells = wells_of([*common, ("e1", "perturbation", [guide("A_1"), guide("Z_1")])])
    kept = replicated_conditions(wells, min_experiments=2, min_wells=4)
    assert keep_replicated(wells, kept).height == 5


def test_only_untreated_wells_need_no_replicates():
    wells = wells_of(
        [
            ("e1", "negative_control", [guide("NT_1")]),
            ("e1", "empty", []),
            ("e1", "positive_control", [guide("P_1")]),
            ("e1", "perturbation", [guide("A_1")]),
        ]
    )
    none = replicated_conditions(wells, min_experiments=3, min_wells=20)
    assert set(keep_replicated(wells, none)["role"]) == {"negative_control", "empty"}


def test_shares_are_kept_and_perturbations_untouched():
    rows = [("e1", "negative_control", []), ("e1", "perturbation", [guide("A_1")])] * 3000
    kept = undersample_roles(wells_of(rows), {"negative_control": 0.3}, seed=4)
    count = dict(kept.group_by("role").len().rows())
    assert count["perturbation"] == 3000
    # Four standard deviations of a binomial draw.
    assert count["negative_control"] == pytest.approx(900, abs=4 * (3000 * 0.3 * 0.7) ** 0.5)


@given(order=st.permutations(range(30)), added=st.integers(0, 30), seed=st.integers(0, 9))
def test_added_wells_and_another_order_change_no_choice(order, added, seed):
    wells = wells_of([("e1", "empty", [])] * 60)
    first = undersample_roles(wells[:30], {"empty": 0.5}, seed)
    later = undersample_roles(
        pl.concat([wells[30 : 30 + added], wells[order]]), {"empty": 0.5}, seed
    )
    old = later.filter(pl.col("well_id").is_in(wells[:30]["well_id"].implode()))
    assert set(old["well_id"]) == set(first["well_id"])


def flagged(wells, **fails):
    columns = [pl.lit(False).alias("fails_focus"), pl.lit(False).alias("fails_perturbations")]
    wells = wells.with_columns(columns).with_columns(
        pl.Series(f"fails_{name}", values) for name, values in fails.items()
    )
    failed = pl.any_horizontal("fails_focus", "fails_perturbations")
    return wells.with_columns(passes=~failed, reason=pl.lit(""))


def test_the_funnel_counts_every_step_and_loses_nothing_between_them():
    rows = repeated(["e1", "e2", "e3"], 2, guide("A_1")) + repeated(["e1"], 2, guide("B_1"))
    rows += [("e1", "negative_control", [])] * 2
    wells = flagged(
        wells_of(rows),
        focus=[True] + [False] * 9,
        perturbations=[True, True] + [False] * 8,
    )
    images = pl.DataFrame({"well_id": [*wells["well_id"], *wells["well_id"]]})
    knobs = WellsKnobs(min_experiments=2, min_wells=4, keep_negative_controls=0.0)
    kept, funnel = undersample_wells(wells, images, knobs)
    counts = [(row["wells"], row["images"], row["conditions"]) for row in funnel["steps"]]
    assert counts == [(10, 20, 2), (9, 18, 2), (8, 16, 2), (6, 12, 1), (4, 8, 1)]
    assert [row["step"] for row in funnel["steps"]] == [0, 1, 2, 3, 4]
    assert funnel["flagged"] == {"focus": 1, "perturbations": 2}
    assert set(kept["role"]) == {"perturbation"}


def test_the_command_writes_wells_and_funnel(tmp_path):
    paths = []
    for experiment in ("e1", "e2", "e3"):
        wells = flagged(wells_of(repeated([experiment], 7, guide("A_1"))))
        write_qc_wells(tmp_path / f"{experiment}.parquet", wells, {})
        images = wells.select(
            image_id=pl.col("well_id") + "/1", well_id="well_id", site=pl.lit(1, pl.Int32)
        )
        rest = [
            pl.lit(None, dtype).alias(name)
            for name, (dtype, _) in IMAGES.columns.items()
            if name not in images.columns
        ]
        write_images(tmp_path / f"{experiment}.images.parquet", images.with_columns(rest), {})
        paths.append(str(tmp_path / experiment))
    flags = ["--wells", *(f"{path}.parquet" for path in paths)]
    flags += ["--images", *(f"{path}.images.parquet" for path in paths)]
    flags += ["--kept", str(tmp_path / "kept.parquet")]
    flags += ["--funnel", str(tmp_path / "funnel.json")]
    main([*flags, "--manifest", "paper"])
    assert read_wells(tmp_path / "kept.parquet").height == 21
    assert [row["wells"] for row in read_funnel(tmp_path / "funnel.json")["steps"]] == [21] * 5
