import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phenopipe.formats.applied import Vocabulary
from phenopipe.formats.conditions import condition_texts
from phenopipe.formats.funnels import read_funnel
from phenopipe.formats.qc import write_qc_wells
from phenopipe.formats.wells import CONDITION, N_IMAGES, TREATMENT, conditions, read_wells
from phenopipe.undersample.config import WellsKnobs
from phenopipe.undersample.survey import drawn, survey
from phenopipe.undersample.wells import main, undersample_wells


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


def flagged(wells, **fails):
    columns = [pl.lit(False).alias("fails_focus"), pl.lit(False).alias("fails_perturbations")]
    wells = wells.with_columns(columns).with_columns(
        pl.Series(f"fails_{name}", values) for name, values in fails.items()
    )
    failed = pl.any_horizontal("fails_focus", "fails_perturbations")
    texts = condition_texts(wells["treatments"])
    n_images = pl.lit(1, pl.Int32).alias(N_IMAGES)
    return wells.with_columns(texts, n_images, passes=~failed, reason=pl.lit(""))


def undersampled(*tables, **knobs):
    """The wells that are left of some experiments' tables, and the funnel."""
    vocabulary, knobs = Vocabulary(), WellsKnobs(**knobs)
    surveys = [
        survey(wells if "passes" in wells.columns else flagged(wells), vocabulary, knobs)
        for wells in tables
    ]
    kept_W, funnel = undersample_wells(surveys, vocabulary, knobs)
    return pl.concat(tables, how="diagonal").filter(pl.Series(kept_W)), funnel


ALL_CONTROLS = {
    "keep_positive_controls": 1.0,
    "keep_empty": 1.0,
    "keep_negative_controls": 1.0,
}


def kept_conditions(wells, **knobs):
    kept, _ = undersampled(wells, **ALL_CONTROLS, **knobs)
    return conditions(kept).select("perturbation", "concentration_um").unique().sort(pl.all())


def test_a_condition_needs_enough_experiments_and_enough_wells():
    wells = wells_of(
        repeated(["e1", "e2", "e3"], 2, guide("A_1"))
        + repeated(["e1", "e2"], 9, guide("B_1"))
        + repeated(["e1", "e2", "e3"], 1, guide("C_1"))
        + repeated(["e1", "e2", "e3"], 2, dose("drug", 1.0))
        + repeated(["e1"], 6, dose("drug", 2.0))
    )
    kept = kept_conditions(wells, min_experiments=3, min_wells=6)
    assert kept.rows() == [("A_1", None), ("drug", 1.0)]


def test_the_papers_counts_are_three_experiments_and_twenty_wells():
    rows = repeated(["e1", "e2"], 9, guide("A_1"), guide("B_1")) + repeated(
        ["e3"], 1, guide("A_1"), guide("B_1")
    )
    rows += repeated(["e3"], 1, guide("A_1")) + repeated(["e1", "e2"], 20, guide("C_1"))
    assert kept_conditions(wells_of(rows)).rows() == [("A_1", None), ("B_1", None)]
    assert kept_conditions(wells_of(rows[1:])).is_empty()


def test_one_experiment_in_two_stretches_is_one_experiment():
    e1, e2 = repeated(["e1"], 2, guide("A_1")), repeated(["e2"], 2, guide("A_1"))
    wells = wells_of([*e1, *e2, *e1])
    assert kept_conditions(wells, min_experiments=3, min_wells=1).is_empty()
    assert kept_conditions(wells, min_experiments=2, min_wells=6).height == 1


def test_two_treatments_alike_in_one_well_are_one_well():
    one = {**guide("A_1"), "gene": None}
    for treatments in ([guide("A_1"), guide("A_1")], [one, guide("A_1"), one]):
        wells = wells_of(repeated(["e1"], 1, *treatments))
        assert kept_conditions(wells, min_experiments=1, min_wells=2).is_empty()
        assert kept_conditions(wells, min_experiments=1, min_wells=1).height == 1


def test_a_well_with_several_perturbations_stays_for_any_of_them():
    common = repeated(["e1", "e2"], 2, guide("A_1"))
    both = [("e1", "perturbation", [guide("Z_1"), guide("A_1")])]
    kept, _ = undersampled(wells_of([*common, *both]), min_experiments=2, min_wells=5)
    assert kept.height == 5


def test_only_untreated_wells_need_no_replicates():
    wells = wells_of(
        [
            ("e1", "negative_control", [guide("NT_1")]),
            ("e1", "empty", []),
            ("e1", "positive_control", [guide("P_1")]),
            ("e1", "perturbation", [guide("A_1")]),
        ]
    )
    kept, _ = undersampled(wells, **ALL_CONTROLS)
    assert set(kept["role"]) == {"negative_control", "empty"}


def slowly_replicated(wells, min_experiments, min_wells):
    """The rule of step 3 with sets, well by well."""
    seen = {}
    for row in conditions(wells).join(wells, on="well_id").iter_rows(named=True):
        key = (row["kind"], row["perturbation"], row["concentration_um"])
        seen.setdefault(key, set()).add((row["screen"], row["experiment"], row["well_id"]))
    enough = {
        key
        for key, found in seen.items()
        if len({one[:2] for one in found}) >= min_experiments and len(found) >= min_wells
    }
    stays = {one[2] for key in enough for one in seen[key]}
    untreated = wells.filter(pl.col("role").is_in(["negative_control", "empty"]))
    return stays | set(untreated["well_id"])


TREATMENTS = st.lists(
    st.sampled_from(
        [
            *(guide("A_1"), guide("A_2"), {**guide("A_1"), "gene": None}),
            *(dose("drug", 1.0), dose("drug", 2.0), dose("TNF", None)),
            {**dose("TNF", None), "kind": "soluble_factor"},
        ]
    ),
    max_size=4,
)
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["e1", "e2", "e3"]),
        st.sampled_from(["perturbation", "positive_control", "empty"]),
        TREATMENTS,
    ),
    min_size=1,
    max_size=30,
)


@given(rows=ROWS, data=st.data())
def test_wells_are_those_of_the_slow_rule_in_any_order(rows, data):
    wells = wells_of(rows)
    least = {
        "min_experiments": data.draw(st.integers(1, 3)),
        "min_wells": data.draw(st.integers(1, 5)),
    }
    expected = slowly_replicated(wells, **least)
    order = data.draw(st.permutations(range(len(rows))))
    cut = data.draw(st.integers(0, len(rows)))
    for tables in ([wells], [wells[order]], [wells[:cut], wells[cut:]]):
        kept, funnel = undersampled(*tables, **least, **ALL_CONTROLS)
        assert set(kept["well_id"]) == expected
        row = funnel["steps"][-1]
        applied = conditions(kept)
        assert row["wells"] == row["images"] == len(expected)
        assert row["conditions"] == applied.select(CONDITION).n_unique()
        genetic = applied.filter(pl.col("kind") == "knockout")
        assert row["genes"] == genetic["gene"].drop_nulls().n_unique()
        assert row["roles"] == dict(kept.group_by("role").len().rows())


def test_shares_are_kept_and_perturbations_untouched():
    rows = [("e1", "negative_control", []), ("e1", "perturbation", [guide("A_1")])] * 3000
    wells = wells_of(rows)
    kept = wells.filter(pl.Series(drawn(wells, {"negative_control": 0.3}, 4)))
    count = dict(kept.group_by("role").len().rows())
    assert count["perturbation"] == 3000
    # Four standard deviations of a binomial draw.
    assert count["negative_control"] == pytest.approx(900, abs=4 * (3000 * 0.3 * 0.7) ** 0.5)


@given(order=st.permutations(range(30)), added=st.integers(0, 30), seed=st.integers(0, 9))
def test_added_wells_and_another_order_change_no_choice(order, added, seed):
    wells = wells_of([("e1", "empty", [])] * 60)

    def chosen(frame):
        return frame.filter(pl.Series(drawn(frame, {"empty": 0.5}, seed)))

    later = chosen(pl.concat([wells[30 : 30 + added], wells[order]]))
    old = later.filter(pl.col("well_id").is_in(wells[:30]["well_id"].implode()))
    assert set(old["well_id"]) == set(chosen(wells[:30])["well_id"])


@given(rows=ROWS)
def test_an_added_experiment_and_a_renamed_plate_take_no_well(rows):
    knobs = {"min_experiments": 2, "min_wells": 2, "keep_empty": 0.5}
    wells = wells_of(rows)
    before, _ = undersampled(wells, **knobs)
    added = wells_of([("e9", role, treatments) for _, role, treatments in rows])
    after, _ = undersampled(wells, added, **knobs)
    assert set(before["well_id"]) <= set(after["well_id"])
    renamed, _ = undersampled(wells.with_columns(plate=pl.lit("2")), **knobs)
    assert renamed["well_id"].to_list() == before["well_id"].to_list()


def test_the_funnel_counts_every_step_and_loses_nothing_between_them():
    rows = repeated(["e1", "e2", "e3"], 2, guide("A_1")) + repeated(["e1"], 2, guide("B_1"))
    rows += [("e1", "negative_control", [])] * 2
    wells = flagged(
        wells_of(rows),
        focus=[True] + [False] * 9,
        perturbations=[True, True] + [False] * 8,
    )
    wells = wells.with_columns(pl.lit(2, pl.Int32).alias(N_IMAGES))
    knobs = {"min_experiments": 2, "min_wells": 4, "keep_negative_controls": 0.0}
    kept, funnel = undersampled(wells, **knobs)
    counts = [(row["wells"], row["images"], row["conditions"]) for row in funnel["steps"]]
    assert counts == [(10, 20, 2), (9, 18, 2), (8, 16, 2), (6, 12, 1), (4, 8, 1)]
    assert [row["step"] for row in funnel["steps"]] == [0, 1, 2, 3, 4]
    assert funnel["flagged"] == {"focus": 1, "perturbations": 2}
    assert set(kept["role"]) == {"perturbation"}


def test_the_command_writes_wells_and_funnel(tmp_path):
    rows = repeated(["e1", "e2", "e3"], 7, guide("A_1"))
    flags = ["--wells"]
    for name in ("e1", "e2", "e3"):
        flags.append(str(tmp_path / name / "wells.parquet"))
        wells = flagged(wells_of([row for row in rows if row[0] == name]))
        write_qc_wells(Path(flags[-1]), wells, {})
    flags += ["--kept", str(tmp_path / "kept.parquet")]
    flags += ["--funnel", str(tmp_path / "funnel.json"), "--manifest", "paper"]
    main(flags)
    assert read_wells(tmp_path / "kept.parquet").height == 21
    assert read_wells(tmp_path / "kept.parquet")["n_images"].to_list() == [1] * 21
    assert [row["wells"] for row in read_funnel(tmp_path / "funnel.json")["steps"]] == [21] * 5


CURATE = """
import sys
from pathlib import Path
from phenopipe.formats.funnels import write_funnel
from phenopipe.undersample.config import WellsKnobs
from phenopipe.undersample.wells import undersample_files
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
paths = sorted(folder.glob("*/wells.parquet"))
knobs = WellsKnobs(min_wells=4)
funnel = undersample_files(paths, out / "wells.parquet", knobs, {})
write_funnel(out / "funnel.json", funnel, {})
"""


def test_the_number_of_threads_changes_no_byte(tmp_path, root):
    for number in range(4):
        name = f"e{number}"
        rows = repeated([name], 2, guide("A_1")) + repeated([name], 2, dose("drug", number))
        rows += [(name, "negative_control", [])] * 20
        write_qc_wells(tmp_path / "in" / name / "wells.parquet", flagged(wells_of(rows)), {})
    results = []
    for threads in ("1", "4"):
        out = tmp_path / threads
        out.mkdir()
        subprocess.run(
            [sys.executable, "-c", CURATE, str(tmp_path / "in"), str(out)],
            env={**os.environ, "POLARS_MAX_THREADS": threads, "PYTHONPATH": str(root)},
            check=True,
        )
        results.append([(out / f).read_bytes() for f in ("wells.parquet", "funnel.json")])
    assert results[0] == results[1]
    assert read_wells(tmp_path / "1" / "wells.parquet").height > 8
