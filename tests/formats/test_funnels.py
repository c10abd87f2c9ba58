import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phenopipe.errors import UserError
from phenopipe.formats.applied import Applied, Vocabulary
from phenopipe.formats.conditions import condition_texts
from phenopipe.formats.funnels import funnel_rows, read_funnel, write_funnel
from phenopipe.formats.tables import write_json
from phenopipe.formats.wells import N_IMAGES, ROLES, TREATMENT


def treatment(perturbation, kind, gene=None, dose=None):
    return {
        "perturbation": perturbation,
        "kind": kind,
        "gene": gene,
        "guide": perturbation if kind == "knockout" else None,
        "concentration_um": dose,
    }


def counted(wells, n_images):
    n_images = pl.Series(N_IMAGES, n_images, pl.Int32)
    return wells.with_columns(n_images, condition_texts(wells["treatments"]))


def test_conditions_genes_and_compounds_count_once():
    wells = pl.DataFrame(
        {
            "well_id": ["a", "b", "c", "d"],
            "role": ["perturbation", "perturbation", "perturbation", "empty"],
            "treatments": [
                [
                    treatment("G_guide_1", "knockout", "G"),
                    treatment("H_guide_1", "knockout", "H"),
                ],
                [treatment("G_guide_2", "knockout", "G")],
                [
                    treatment("drug", "compound", dose=1.0),
                    treatment("drug", "compound", dose=2.0),
                ],
                [],
            ],
        },
        schema_overrides={"treatments": pl.List(TREATMENT)},
    )
    vocabulary = Vocabulary()
    # A fifth well that does not count, whatever was applied to it.
    more = wells[:1].with_columns(well_id=pl.lit("e"), role=pl.lit("positive_control"))
    coded = vocabulary.code(counted(pl.concat([wells, more]), [2, 1, 0, 1, 9]))
    passed_W = np.array([1, 1, 1, 1, 0], np.uint8)
    (row,) = funnel_rows(3, ["replication"], Applied.of(vocabulary, [coded]), passed_W)
    assert row == {
        "step": 3,
        "name": "replication",
        "images": 4,
        "wells": 4,
        "conditions": 5,
        "genes": 2,
        "compounds": 1,
        "roles": {"empty": 1, "perturbation": 3},
    }


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_every_step_counts_what_its_wells_have(seed):
    rng = np.random.default_rng(seed)
    names = [
        treatment("G_guide_1", "knockout", "G"),
        treatment("G_guide_2", "knockout", "G"),
        treatment("H_sirna_1", "sirna", "H"),
        treatment("drug", "compound", dose=1.0),
        treatment("drug", "compound", dose=2.0),
        treatment("other", "compound"),
        treatment("NTC_guide_1", "knockout"),
    ]
    each = [
        [names[i] for i in rng.choice(len(names), rng.integers(0, 4), replace=False)]
        for _ in range(30)
    ]
    roles = rng.choice(ROLES, 30)
    wells = pl.DataFrame(
        {"role": roles, "treatments": each},
        schema_overrides={"treatments": pl.List(TREATMENT)},
    )
    images_W, passed_W = rng.integers(0, 5, 30), rng.integers(0, 4, 30).astype(np.uint8)
    vocabulary = Vocabulary()
    applied = Applied.of(vocabulary, [vocabulary.code(counted(wells, images_W))])
    rows = funnel_rows(2, ["a", "b", "c"], applied, passed_W)
    for step, row in enumerate(rows, start=1):
        left = np.flatnonzero(passed_W >= step)
        found = [one for w in left for one in each[w]]
        assert row == {
            "step": step + 1,
            "name": "abc"[step - 1],
            "images": images_W[left].sum(),
            "wells": len(left),
            "conditions": len({(t["perturbation"], t["concentration_um"]) for t in found}),
            "genes": len({t["gene"] for t in found if t["gene"]}),
            "compounds": len({t["perturbation"] for t in found if t["kind"] == "compound"}),
            "roles": {r: n for r in sorted(ROLES) if (n := int((roles[left] == r).sum()))},
        }
    chosen_W = passed_W > 1
    small, wells_W = applied.gathered(chosen_W)
    chosen_T = rng.random(applied.targets.height) < 0.5
    kept_W, small_W = applied.wells_with(chosen_T) & chosen_W, small.wells_with(chosen_T)
    small_W &= wells_W > 0
    assert wells_W.sum(where=small_W) == kept_W.sum()
    assert small.images_W.sum(where=small_W) == applied.images_W.sum(where=kept_W)
    np.testing.assert_array_equal(small.targets_in(small_W), applied.targets_in(kept_W))


def test_a_funnel_is_read_as_it_was_written(tmp_path):
    counts = dict.fromkeys(("images", "wells", "conditions", "genes", "compounds"), 1)
    funnel = {"steps": [{"step": 0, "name": "screened", **counts}], "flagged": {"focus": 2}}
    write_funnel(tmp_path / "funnel.json", funnel, {})
    assert read_funnel(tmp_path / "funnel.json") == funnel


def test_another_json_is_not_a_funnel(tmp_path):
    write_json(tmp_path / "best_block.json", {"block": 3}, {})
    with pytest.raises(UserError, match=r"best_block\.json: no list 'steps'"):
        read_funnel(tmp_path / "best_block.json")
