import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phenopipe.formats.applied import Applied, Vocabulary
from phenopipe.formats.conditions import TARGET, condition_texts
from phenopipe.formats.funnels import funnel_rows, read_funnel, write_funnel
from phenopipe.formats.manifests import MANIFEST
from phenopipe.formats.pvalues import COMBINED
from phenopipe.formats.tables import read_table, write_table
from phenopipe.formats.wells import N_IMAGES, TREATMENT, write_wells
from phenopipe.phenoprints.config import SelectKnobs
from phenopipe.phenoprints.rescue import Judgement
from phenopipe.phenoprints.select import main, select_wells

KNOCKOUT = ("made-up|HUVEC|knockout|none", "knockout")
COMPOUND = ("made-up|HUVEC|compound|none", "compound")


def applied(name, dose=None):
    genetic = dose is None
    return {
        "perturbation": name,
        "kind": "knockout" if genetic else "compound",
        "gene": name.split("_")[0] if genetic else None,
        "guide": name if genetic else None,
        "concentration_um": dose,
    }


def wells_of(rows):
    """Wells from (well_id, role, treatments)."""
    columns = {
        "screen": "made-up",
        "experiment": "e1",
        "plate": "1",
        "well": [f"A{n:02d}" for n in range(len(rows))],
        "row": 1,
        "column": list(range(len(rows))),
        "cell_type": "HUVEC",
        "role": [role for _, role, _ in rows],
        "treatments": [treatments for _, _, treatments in rows],
        "layout": "one",
        "well_id": [well_id for well_id, _, _ in rows],
    }
    types = {"row": pl.Int32, "column": pl.Int32, "treatments": pl.List(TREATMENT)}
    return pl.DataFrame(columns, schema_overrides=types)


def test_of(name, p_value, *, dose=None, encoder="mae", level="condition", p_any=None, n=3):
    """Columns of one combined p-value."""
    map_type, kind = KNOCKOUT if dose is None else COMPOUND
    return {
        "encoder": encoder,
        "map_type": map_type,
        "perturbation": name if level == "condition" else None,
        "kind": kind,
        "gene": name.split("_")[0] if dose is None else None,
        "concentration_um": dose,
        "level": level,
        "n_replicates": 2 * n,
        "n_experiments": n,
        "statistic": 0.5,
        "p_value": p_value,
        "p_any": p_value if p_any is None else p_any,
        "q_value": 1.0,
        "n_null": 1000,
    }


test_of.__test__ = False


def combined_of(*rows):
    types = {name: dtype for name, (dtype, _) in COMBINED.columns.items()}
    return pl.DataFrame(list(rows), schema=types)


WELLS = wells_of(
    [
        ("a1", "perturbation", [applied("A_1")]),
        ("a2", "perturbation", [applied("A_2")]),
        ("b1", "perturbation", [applied("B_1")]),
        ("ab", "perturbation", [applied("A_1"), applied("B_1")]),
        ("low", "perturbation", [applied("drug", 0.1)]),
        ("high", "perturbation", [applied("drug", 1.0)]),
        ("none", "negative_control", []),
        ("untested", "perturbation", [applied("Z_1")]),
    ]
)
TESTS = combined_of(
    test_of("A_1", 0.002),
    test_of("A_2", 0.6),
    test_of("A", 0.3, level="gene"),
    test_of("B_1", 0.2, p_any=0.001),
    test_of("B_1", 0.05, encoder="classifier"),
    test_of("drug", 0.5, dose=0.1),
    test_of("drug", 0.0001, dose=1.0, encoder="classifier"),
)


def applied_of(wells, images=None):
    vocabulary = Vocabulary()
    wells = counted(wells, 1 if images is None else images)
    # In two tables, as from a long file.
    cut = wells.height // 2
    return Applied.of(vocabulary, [vocabulary.code(wells[:cut]), vocabulary.code(wells[cut:])])


def counted(wells, n_images):
    """Wells as the undersample stage hands them on."""
    n_images = pl.Series(N_IMAGES, np.broadcast_to(n_images, wells.height), pl.Int32)
    return wells.with_columns(n_images, condition_texts(wells["treatments"]))


def selected(wells, tests, **knobs):
    """The wells that stay, with what saved them."""
    chosen = select_wells(applied_of(wells), tests, SelectKnobs(**knobs))
    return chosen.of(wells.lazy()).collect()


def facts_of(wells, tests, images=None, **knobs):
    return select_wells(applied_of(wells, images), tests, SelectKnobs(**knobs)).facts


def kept(tests=TESTS, **knobs):
    return selected(WELLS, tests, **knobs)["well_id"].to_list()


def test_any_condition_and_any_judge_keep_a_well():
    assert kept() == ["a1", "ab", "low", "high", "none"]


def test_a_phenoprint_can_be_left_to_its_own_concentration():
    assert kept(rescue="condition") == ["a1", "ab", "high", "none"]


def test_one_experiment_can_be_evidence_enough():
    assert "b1" in kept(evidence="any_experiment")


def test_a_gene_keeps_all_its_guides_where_its_level_counts():
    tests = combined_of(test_of("A", 0.001, level="gene"), test_of("A_1", 0.5))
    assert kept(tests) == ["a1", "a2", "ab", "none"]
    assert kept(tests, levels=("condition",)) == ["none"]


def test_an_unknown_gene_keeps_nothing():
    unknown = test_of("A", 0.001, level="gene") | {"gene": None}
    nameless = applied("A_1") | {"gene": None}
    wells = wells_of([("a1", "perturbation", [nameless])])
    assert selected(wells, combined_of(unknown)).is_empty()


def test_the_threshold_itself_is_no_phenoprint():
    assert kept(combined_of(test_of("A_1", 0.01))) == ["none"]
    assert kept(combined_of(test_of("A_1", 0.01)), threshold=0.0101) == ["a1", "ab", "none"]


def test_untestable_wells_can_be_left_out():
    assert kept(keep_untestable=False) == ["a1", "ab", "low", "high"]


def test_a_negative_control_needs_no_phenoprint_and_gets_none():
    wells = wells_of([("n", "negative_control", [applied("A_1")])])
    row = selected(wells, TESTS).row(0, named=True)
    assert (row["saved_by"], row["judge"], row["p_value"]) == (None, None, None)


def test_a_manifest_says_what_saved_each_well():
    rows = selected(WELLS, TESTS).select("well_id", "saved_by", "judge", "p_value")
    assert rows.rows() == [
        ("a1", "A_1", "mae", 0.002),
        ("ab", "A_1", "mae", 0.002),
        ("low", "drug at 1.0 µM", "classifier", 0.0001),
        ("high", "drug at 1.0 µM", "classifier", 0.0001),
        ("none", None, None, None),
    ]


def test_every_other_choice_is_counted():
    # Images of a1, a2, b1, ab, low, high, none, untested.
    rows = facts_of(WELLS, TESTS, images=[2, 0, 1, 0, 1, 0, 0, 0])["alternatives"]
    found = {(r["evidence"], r["rescue"], r["levels"]): r for r in rows}
    assert len(found) == 12
    for (evidence, rescue, levels), row in found.items():
        wells = kept(evidence=evidence, rescue=rescue, levels=levels, keep_untestable=False)
        assert row["wells"] == len(wells)
    everything = found["any_experiment", "perturbation", ("condition", "gene")]
    assert (everything["images"], everything["compounds"]) == (4, 1)


def test_chance_of_noise_counts_every_test_that_could_keep_a_condition():
    targets = pl.DataFrame([applied("drug", 0.1), applied("drug", 1.0)]).select(TARGET)
    targets = targets.cast({"gene": pl.String})
    choice = {"levels": ("condition",), "threshold": 0.01}
    # Low dose: one test; high dose: one; together two tests of the perturbation.
    judgement = Judgement(targets, TESTS.filter(kind="compound"))
    alone = judgement.noise_admitted("combined", rescue="condition", **choice)
    both = judgement.noise_admitted("combined", rescue="perturbation", **choice)
    runs = judgement.noise_admitted("any_experiment", rescue="condition", **choice)
    assert alone == pytest.approx(0.01)
    assert both == pytest.approx(1 - 0.99**2)
    assert runs == pytest.approx(1 - 0.99**3)


def test_chance_of_noise_is_the_same_to_the_last_bit_in_any_order_of_targets():
    names = [f"G{n}_1" for n in range(200)]
    targets = pl.DataFrame([applied(name) for name in names]).select(TARGET)
    targets = targets.cast({"gene": pl.String, "concentration_um": pl.Float64})
    tests = [
        test_of(name, 0.5, n=1 + n % 7, encoder=encoder)
        for n, name in enumerate(names)
        for encoder in ("mae", "classifier")[: 1 + n % 2]
    ]
    found = {
        Judgement(
            targets.sample(200, shuffle=True, seed=seed), combined_of(*tests)
        ).noise_admitted(
            "any_experiment", rescue="condition", levels=("condition",), threshold=0.01
        )
        for seed in range(20)
    }
    assert len(found) == 1


def test_planted_signal_is_kept_and_noise_admitted_as_announced():
    rng = np.random.default_rng(5)
    names = [f"G{n}_1" for n in range(3000)]
    wells = wells_of([(name, "perturbation", [applied(name)]) for name in names])
    active = set(names[:300])
    tests = combined_of(
        *(
            test_of(name, 1e-4 if name in active and encoder == "mae" else p, encoder=encoder)
            for encoder in ("mae", "classifier")
            for name, p in zip(names, rng.uniform(size=len(names)).tolist(), strict=True)
        )
    )
    found = set(selected(wells, tests)["well_id"])
    announced = facts_of(wells, tests)
    assert active <= found
    share = len(found - active) / 2700
    assert announced["noise_admitted"] == pytest.approx(1 - 0.99**2)
    assert share == pytest.approx(announced["noise_admitted"], abs=3 * (0.02 / 2700) ** 0.5)


def run(tmp_path, combined, judges):
    write_wells(tmp_path / "wells.parquet", counted(WELLS, 2), {})
    write_table(tmp_path / "p.parquet", combined, COMBINED, {"inputs": {"pvalues": judges}})
    everything = np.ones(WELLS.height, np.uint8)
    rows = funnel_rows(4, ["undersampling"], applied_of(WELLS), everything)
    write_funnel(tmp_path / "before.json", {"steps": rows, "flagged": {}}, {})
    flags = ["--wells", str(tmp_path / "wells.parquet")]
    flags += ["--combined", str(tmp_path / "p.parquet")]
    flags += ["--undersampled", str(tmp_path / "before.json")]
    flags += ["--manifest", str(tmp_path / "manifest.parquet")]
    main([*flags, "--funnel", str(tmp_path / "funnel.json")])
    return read_table(tmp_path / "manifest.parquet", MANIFEST), read_funnel(
        tmp_path / "funnel.json"
    )


def test_the_command_extends_the_funnel(tmp_path):
    manifest, funnel = run(tmp_path, TESTS, ["digest"])
    assert [(row["step"], row["wells"]) for row in funnel["steps"]] == [(4, 8), (5, 5)]
    assert (funnel["untestable"], funnel["untested"], funnel["judged"]) == (1, 1, True)
    assert funnel["choice"]["evidence"] == "combined" and len(funnel["alternatives"]) == 12
    assert manifest.height == 5
    assert funnel["steps"][-1]["images"] == manifest[N_IMAGES].sum() == 10


def test_without_judges_nothing_is_lost(tmp_path):
    manifest, funnel = run(tmp_path, COMBINED.empty(), [])
    assert manifest["well_id"].to_list() == WELLS["well_id"].to_list()
    assert manifest["judge"].is_null().all()
    assert funnel["steps"][-1]["wells"] == 8 and not funnel["judged"]


def test_judges_who_found_nothing_keep_only_controls(tmp_path):
    manifest, _ = run(tmp_path, COMBINED.empty(), ["digest"])
    assert manifest["well_id"].to_list() == ["none"]


def slowly_saved(wells, tests, *, evidence, rescue, levels, threshold, **_):
    """The rule of step 5 well by well and test by test: the smallest p-value of each well."""
    p_of = {"combined": "p_value", "any_experiment": "p_any"}[evidence]
    saved = {}
    for well in wells.iter_rows(named=True):
        if well["role"] in ("negative_control", "empty"):
            continue
        for one in well["treatments"]:
            for test in tests.iter_rows(named=True):
                if test["level"] not in levels or test[p_of] >= threshold:
                    continue
                names = ["kind", "gene"]
                if test["level"] == "condition":
                    names = ["kind", "perturbation"]
                    names += ["concentration_um"] * (rescue == "condition")
                if test["level"] == "gene" and one["gene"] is None:
                    continue
                if all(one[name] == test[name] for name in names):
                    best = saved.get(well["well_id"], 1.0)
                    saved[well["well_id"]] = min(best, test[p_of])
    return saved


NAMES = st.sampled_from([("A_1", None), ("A_2", None), ("B_1", None), ("d", 0.1), ("d", 1.0)])
A_TEST = st.builds(
    lambda name, p, p_any, encoder, level: test_of(
        name[0],
        p / 100,
        dose=name[1],
        encoder=encoder,
        level=level if name[1] is None else "condition",
        p_any=min(p, p_any) / 100,
    ),
    NAMES,
    st.integers(1, 100),
    st.integers(1, 100),
    st.sampled_from(["mae", "classifier"]),
    st.sampled_from(["condition", "gene"]),
)
SOME_WELLS = st.lists(
    st.tuples(
        st.sampled_from(["perturbation", "positive_control", "empty"]),
        st.lists(NAMES, max_size=3),
    ),
    min_size=1,
    max_size=12,
)


@given(
    rows=SOME_WELLS,
    tests=st.lists(A_TEST, max_size=8),
    evidence=st.sampled_from(["combined", "any_experiment"]),
    rescue=st.sampled_from(["condition", "perturbation"]),
    levels=st.sampled_from([("condition",), ("gene",), ("condition", "gene")]),
    data=st.data(),
)
def test_wells_are_those_of_the_slow_rule_in_any_order(
    rows, tests, evidence, rescue, levels, data
):
    wells = wells_of(
        [
            (f"w{n}", role, [applied(*one) for one in names])
            for n, (role, names) in enumerate(rows)
        ]
    )
    knobs = {"evidence": evidence, "rescue": rescue, "levels": levels, "threshold": 0.3}
    combined = combined_of(*tests)
    expected = slowly_saved(wells, combined, **knobs)
    shuffled = combined[data.draw(st.permutations(range(len(tests))))] if tests else combined
    order = data.draw(st.permutations(range(len(rows))))
    first = selected(wells, combined, **knobs, keep_untestable=False)
    assert dict(first.select("well_id", "p_value").iter_rows()) == expected
    again = selected(wells[order], shuffled, **knobs, keep_untestable=False)
    assert again.sort("well_id").equals(first.sort("well_id"))
