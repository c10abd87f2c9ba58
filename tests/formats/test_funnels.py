import numpy as np
import polars as pl
import pytest

from phenopipe.errors import UserError
from phenopipe.formats.applied import Applied, Vocabulary
from phenopipe.formats.funnels import funnel_rows, read_funnel, write_funnel
from phenopipe.formats.tables import write_json
from phenopipe.formats.wells import TREATMENT


def treatment(perturbation, kind, gene=None, dose=None):
    return {
        "perturbation": perturbation,
        "kind": kind,
        "gene": gene,
        "guide": perturbation if kind == "knockout" else None,
        "concentration_um": dose,
    }


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
    coded = vocabulary.code(pl.concat([wells, more]), np.array([2, 1, 0, 1, 9]))
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


def test_a_funnel_is_read_as_it_was_written(tmp_path):
    counts = dict.fromkeys(("images", "wells", "conditions", "genes", "compounds"), 1)
    funnel = {"steps": [{"step": 0, "name": "screened", **counts}], "flagged": {"focus": 2}}
    write_funnel(tmp_path / "funnel.json", funnel, {})
    assert read_funnel(tmp_path / "funnel.json") == funnel


def test_another_json_is_not_a_funnel(tmp_path):
    write_json(tmp_path / "best_block.json", {"block": 3}, {})
    with pytest.raises(UserError, match=r"best_block\.json: no list 'steps'"):
        read_funnel(tmp_path / "best_block.json")
