import numpy as np
import polars as pl
import pytest

from phenopipe.formats.results import RESULTS, tidy
from phenopipe.formats.truth import TRUTH
from phenopipe.formats.wells import TREATMENT
from phenopipe.report.config import TruthKnobs
from phenopipe.report.intervals import difference, share_row
from phenopipe.report.planted import (
    called_rows,
    listed_conditions,
    noise_rows,
    phenoprint_rows,
    planted_statuses,
    planted_wells,
    power_rows,
    qc_rows,
)
from phenopipe.report.planted_scores import planted_pair_rows, probe_rows

FIELDS = [field.name for field in TREATMENT.fields]
KNOBS = TruthKnobs(bootstraps=200)


def plant(*rows):
    """Rows of (well_id, perturbation, status) and optional further columns."""
    plain = {"defect": "", "kind": "knockout", "gene": None, "group": None}
    rows = [
        {**plain, "well_id": w, "perturbation": p, "status": s, "effect": 0.0, **more}
        for w, p, s, more in rows
    ]
    return pl.DataFrame(rows, schema=TRUTH.empty().schema)


def wells_of(*rows):
    """Rows of (well_id, perturbation, judge), one knockout a well."""
    made = [
        {
            "well_id": w,
            "treatments": [dict(zip(FIELDS, (p, "knockout", p[0], p, None), strict=True))],
            "judge": judge,
        }
        for w, p, judge in rows
    ]
    return pl.DataFrame(made, schema_overrides={"treatments": pl.List(TREATMENT)})


def values(rows):
    return {(row["metric"], row.get("source")): row["value"] for row in rows}


def test_qc_counts_defects_of_each_kind_and_false_alarms():
    truth = plant(
        ("a", None, "control", {"defect": "dead"}),
        ("b", None, "control", {"defect": "debris"}),
        ("c", "x", "active", {"defect": "four_perturbations"}),
        ("c", "y", "active", {"defect": "four_perturbations"}),
        ("d", "x", "active", {}),
        ("e", "x", "active", {}),
    )
    flags = pl.DataFrame(
        {"well_id": list("abcde"), "passes": [False, True, False, True, False]}
    )
    found = values(qc_rows(flags, truth))
    assert found[("qc_recall", "all")] == pytest.approx(2 / 3)
    assert found[("qc_recall_defect", "dead")] == 1
    assert found[("qc_recall_defect", "debris")] == 0
    assert found[("qc_false_alarms", "sound wells")] == 0.5


def test_status_of_a_well_with_several_treatments_is_unknown():
    truth = plant(
        ("a", "x", "active", {}), ("b", "x", "active", {}), ("b", "y", "inactive", {})
    )
    assert dict(planted_wells(truth).select("well_id", "status").iter_rows()) == {
        "a": "active",
        "b": None,
    }


def test_a_perturbation_is_active_if_any_of_its_doses_is():
    truth = plant(
        ("a", "drug", "weak", {"kind": "compound", "concentration_um": 0.1}),
        ("b", "drug", "active", {"kind": "compound", "concentration_um": 1.0}),
        ("c", "dud", "inactive", {"kind": "compound", "concentration_um": 1.0}),
        ("d", "cut", "arm", {}),
        ("e", None, "control", {}),
        ("f", "lost", "unknown", {}),
    )
    status = dict(
        planted_statuses(truth, ("kind", "perturbation"))["perturbation", "status"].rows()
    )
    assert status == {"drug": "active", "dud": "inactive", "cut": "arm"}


def test_phenoprints_count_neither_arms_nor_wells_kept_untested():
    truth = plant(
        ("a", "good", "active", {}),
        ("b", "noise", "inactive", {}),
        ("c", "missed", "active", {}),
        ("d", "cut", "arm", {}),
        ("e", "untested", "inactive", {}),
    )
    kept = wells_of(
        ("a", "good", "mae"),
        ("b", "noise", "mae"),
        ("d", "cut", "mae"),
        ("e", "untested", None),
    )
    could = listed_conditions(
        wells_of(("a", "good", None), ("b", "noise", None), ("c", "missed", None))
    )
    found = values(phenoprint_rows("m", kept, could, truth))
    assert found[("phenoprint_precision", "m")] == 0.5
    assert found[("phenoprint_recall", "m")] == 0.5


def combined(p_of, judge="mae", level="condition"):
    names = list(p_of)
    return pl.DataFrame(
        {
            "encoder": judge,
            "level": level,
            "kind": "knockout",
            "perturbation": names if level == "condition" else [None] * len(names),
            "gene": names,
            "concentration_um": pl.Series([None] * len(names), dtype=pl.Float64),
            "p_value": list(p_of.values()),
        },
        schema_overrides={"perturbation": pl.String},
    )


def test_noise_is_called_in_units_of_the_level_and_arms_do_not_count():
    names = [f"n{i}" for i in range(100)]
    truth = plant(
        *[(name, name, "inactive", {"gene": name}) for name in names],
        ("z", "cut", "arm", {"gene": "cut"}),
        ("y", "good", "active", {"gene": "good"}),
    )
    p_of = {name: 0.005 if i < 3 else 0.5 for i, name in enumerate(names)}
    tests = combined({**p_of, "cut": 0.001, "good": 0.001})
    found = values(noise_rows(tests, truth, (0.01, 0.05)))
    assert found == {
        ("noise_called", "all tests at 0.01"): pytest.approx(3),
        ("noise_called_by", "conditions at 0.01"): pytest.approx(3),
        ("noise_called", "all tests at 0.05"): pytest.approx(0.6),
        ("noise_called_by", "conditions at 0.05"): pytest.approx(0.6),
    }
    by_gene = combined({**p_of, "cut": 0.001}, level="gene")
    found = values(noise_rows(pl.concat([tests, by_gene]), truth, (0.01,)))
    assert found[("noise_called_by", "genes at 0.01")] == pytest.approx(3)
    assert found[("noise_called", "all tests at 0.01")] == pytest.approx(3)
    assert noise_rows(tests.clear(), truth, (0.01,)) == []


def test_single_tests_are_judged_before_any_rescue():
    truth = plant(
        ("a", "good", "active", {}), ("b", "weak", "active", {}), ("c", "noise", "inactive", {})
    )
    tests = pl.concat(
        [combined({"good": 0.5, "weak": 0.3, "noise": 0.4}), combined({"good": 0.001}, "wsl")]
    )
    found = values(called_rows("m", tests, truth))
    assert found[("called_precision", "m")] == 1 and found[("called_recall", "m")] == 0.5


def test_power_is_told_by_the_length_of_the_planted_effect():
    truth = plant(
        ("a", "strong", "active", {"effect": 2.0}),
        ("b", "longer", "active", {"effect": 1.5}),
        ("c", "faint", "weak", {"effect": 0.4}),
        ("d", "noise", "inactive", {}),
        ("e", "armed", "arm", {"effect": 2.0}),
    )
    p_of = {"strong": 0.001, "longer": 0.5, "faint": 0.3, "noise": 0.2, "armed": 0.001}
    rows = power_rows("m", combined(p_of), truth)
    assert values(rows) == {
        ("power", "effect 0, m"): 0,
        ("power", "effect 0 to 1, m"): 0,
        ("power", "effect 1 to 2, m"): 0.5,
    }
    assert [row["n"] for row in rows] == [1, 1, 2]
    assert power_rows("m", combined(p_of).clear(), truth) == []


def test_a_share_of_nothing_has_no_value():
    assert share_row("m", 0, 0) == {"metric": "m", "n": 0}


def test_difference_of_equal_intervals_is_wider_by_the_root_of_two():
    row = {"value": 0.5, "low": 0.4, "high": 0.6}
    value, low, high = difference(row, row)
    assert (value, low, high) == pytest.approx((0, -0.1 * 2**0.5, 0.1 * 2**0.5))


def test_planted_pairs_in_either_tail_are_found_and_silent_groups_do_not_count():
    truth = plant(
        *[(g, g, "active", {"gene": g, "group": "A"}) for g in ("a1", "a2", "a3")],
        *[(g, g, "active", {"gene": g, "group": "B"}) for g in ("b1", "b2")],
        *[(g, g, "inactive", {"gene": g, "group": "C"}) for g in ("c1", "c2")],
    )
    pairs = pl.DataFrame(
        {
            "entity1": ["a1", "a1", "a2", "b1", "a1", "c1"],
            "entity2": ["a2", "a3", "a3", "b2", "b1", "c2"],
            "rank": [0.99, 0.01, 0.5, 0.95, 0.99, 0.99],
        }
    )
    (row,) = planted_pair_rows("mae", pairs, truth, KNOBS)
    assert row["value"] == pytest.approx(3 / 4 / 0.1)
    assert row["n"] == 4 and row["low"] <= row["value"] <= row["high"]


def probed(encoder, accuracies, metric="balanced_accuracy"):
    rows = [
        {"block": b, "metric": metric, "value": v, "low": v - 0.1, "high": v + 0.1, "n": 300}
        for b, v in accuracies.items()
    ]
    return tidy(rows, encoder=encoder, source="anax", benchmark="probe", trimmed=False)


def predicted(encoder, block, label_N, hits_N):
    return pl.DataFrame(
        {
            "encoder": encoder,
            "task": "anax",
            "block": pl.Series([block] * len(label_N), dtype=pl.Int32),
            "well_id": [f"w{i}" for i in range(len(label_N))],
            "experiment": "one",
            "label": label_N,
            "predicted": np.where(hits_N, label_N, "wrong"),
            "site": pl.Series([None] * len(label_N), dtype=pl.Int32),
        }
    )


def test_trained_and_untrained_are_compared_on_the_same_resampled_wells():
    rng = np.random.default_rng(0)
    label_N = rng.choice(list("abc"), 300)
    hard_N = rng.random(300) < 0.5
    blocks = pl.concat(
        [
            RESULTS.empty(),
            probed("mae", {1: 0.4, 2: 0.52}),
            probed("untrained", {1: 0.5, 2: 0.5}),
            probed("mae", {2: 0.2}, "balanced_accuracy_permuted"),
            probed("pixels", {1: 0.3}),
        ]
    )
    better_N = ~hard_N | (rng.random(300) < 0.1)
    predictions = pl.concat(
        [predicted("mae", 2, label_N, better_N), predicted("untrained", 1, label_N, ~hard_N)]
    )
    rows = {row["metric"]: row for row in probe_rows(blocks, predictions, KNOBS)}
    assert rows["accuracy"]["block"] == 2 and rows["accuracy_untrained"]["block"] == 1
    assert rows["accuracy_pixels"]["value"] == 0.3
    paired = rows["trained_minus_untrained"]
    # Better wherever they differ: an unpaired interval would reach below zero.
    assert paired["low"] > 0 and paired["high"] - paired["low"] < 0.1
    control = rows["trained_minus_control"]
    assert control["value"] == pytest.approx(0.32) and control["low"] > 0


def test_an_encoder_that_was_not_probed_leaves_no_row():
    rows = probe_rows(probed("other", {1: 0.5}), pl.DataFrame(), KNOBS)
    assert rows == []
