import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from phenopipe.errors import UserError
from phenopipe.probe.config import BlocksKnobs
from phenopipe.probe.labels import hold_out_genes, label_wells, reassign_genes
from tests.benchmark.plates import knockouts, treatment, wells_of

SIDES = {"train": ("e1",), "test": ("e2",)}


@pytest.fixture
def wells():
    """Genes A, B, C on two experiments, a pair of genes in one well, two compounds."""
    treatments = [
        *knockouts(["A", "B", "C"], guides=1, replicates=2),
        [treatment("A_guide_1", gene="A"), treatment("B_guide_1", gene="B")],
        [treatment("drug", "compound", dose=0.5)],
        [treatment("drug", "compound", dose=5.0)],
        [],
        [],
    ]
    frames = [wells_of(treatments, experiment=name) for name in ("e1", "e2")]
    return pl.concat(frames).with_columns(
        Metadata_class=pl.Series(["x", "y", *[None] * 8, "x"] * 2)
    )


def classes(labelled):
    return sorted(set(labelled.wells["label"]))


def test_gene_and_perturbation_and_condition(wells):
    assert classes(label_wells(wells, None, BlocksKnobs(**SIDES))) == ["A", "B", "C"]
    by_guide = label_wells(wells, None, BlocksKnobs(label="perturbation", **SIDES))
    assert classes(by_guide) == ["A_guide_1", "B_guide_1", "C_guide_1", "drug"]
    one = BlocksKnobs(label="condition", min_wells=1, **SIDES)
    found = classes(label_wells(wells, None, one))
    assert found == ["A_guide_1", "B_guide_1", "C_guide_1", "drug@0.5", "drug@5.0"]


def test_wells_of_several_treatments_have_no_gene(wells):
    labelled = label_wells(wells, None, BlocksKnobs(**SIDES))
    assert labelled.wells.height == 12
    assert labelled.wells["is_train"].sum() == 6


def test_negative_controls_can_be_a_class(wells):
    knobs = BlocksKnobs(controls=True, **SIDES)
    assert classes(label_wells(wells, None, knobs)) == ["A", "B", "C", "negative_control"]


def test_any_labelled_well_enters_with_a_column_of_the_user(wells):
    labelled = label_wells(
        wells, None, BlocksKnobs(label="Metadata_class", min_wells=1, **SIDES)
    )
    assert labelled.wells.height == 6 and classes(labelled) == ["x", "y"]
    with pytest.raises(UserError, match="no column 'Metadata_dose' in the wells"):
        label_wells(wells, None, BlocksKnobs(label="Metadata_dose", **SIDES))


def test_genes_of_several_groups_are_left_out_and_named(wells):
    groups = pl.DataFrame(
        {"group": ["g1", "g2", "g1", "g2", "g2"], "gene": ["A", "B", "C", "C", None]}
    )
    knobs = BlocksKnobs(label="group", **SIDES)
    labelled = label_wells(wells, groups, knobs)
    assert classes(labelled) == ["g1", "g2"] and set(labelled.wells["gene"]) == {"A", "B"}
    assert labelled.left_out["genes_of_several_groups"] == ["C"]
    with pytest.raises(UserError, match="wants a groups file"):
        label_wells(wells, None, knobs)


def test_classes_that_cannot_be_judged_are_left_out_and_named(wells):
    lone = wells.filter(
        ~((pl.col("experiment") == "e2") & (pl.col("row") == 1) & (pl.col("column") <= 2))
    )
    labelled = label_wells(lone, None, BlocksKnobs(**SIDES))
    assert classes(labelled) == ["B", "C"] and labelled.left_out["classes"] == ["A"]
    with pytest.raises(UserError, match="0 classes have 9 training wells"):
        label_wells(wells, None, BlocksKnobs(min_wells=9, **SIDES))


def test_filter_by_cell_type_and_background(wells):
    factor = treatment("TNF", "soluble_factor")
    second = wells.with_columns(
        well_id=pl.col("well_id") + "/tnf",
        treatments=pl.Series(
            [[*t, factor] for t in wells["treatments"].to_list()],
            dtype=wells.schema["treatments"],
        ),
    )
    both = pl.concat([wells, second])
    with_it = label_wells(both, None, BlocksKnobs(background="TNF", **SIDES)).wells
    assert with_it.height == 12 and with_it["well_id"].str.ends_with("/tnf").all()
    without = label_wells(both, None, BlocksKnobs(background="none", **SIDES)).wells
    assert without.height == 12 and not without["well_id"].str.ends_with("/tnf").any()
    with pytest.raises(UserError, match="0 classes"):
        label_wells(wells, None, BlocksKnobs(cell_type="RPE", **SIDES))


def test_controls_are_those_of_the_background():
    factor = treatment("TNF", "soluble_factor")
    genes = knockouts(["A", "B"], guides=1, replicates=2)
    treated = [*genes, [], [], *([*one, factor] for one in genes), [factor], [factor], [factor]]
    is_control = [one in ([], [factor]) for one in treated] * 2
    wells = pl.concat(wells_of(treated, experiment=name) for name in ("e1", "e2"))
    wells = wells.with_columns(
        role=pl.when(pl.Series(is_control)).then(pl.lit("negative_control")).otherwise("role")
    )
    for background, n_controls in (("none", 2), ("TNF", 3), (None, 5)):
        knobs = BlocksKnobs(controls=True, background=background, **SIDES)
        labelled = label_wells(wells, None, knobs).wells
        assert labelled.filter(label="negative_control").height == 2 * n_controls


def test_experiment_on_both_sides_or_unknown_is_refused(wells):
    with pytest.raises(ValidationError, match="both train and test"):
        BlocksKnobs(train=("e1", "e2"), test=("e2",))
    with pytest.raises(ValidationError, match="unknown label"):
        BlocksKnobs(label="colour")
    with pytest.raises(
        UserError, match=r"test: no wells of experiments \['e9'\], found e1, e2"
    ):
        label_wells(wells, None, BlocksKnobs(train=("e1",), test=("e9",)))
    with pytest.raises(UserError, match=r"train: no wells of experiments \(\)"):
        label_wells(wells, None, BlocksKnobs(test=("e2",)))


def test_reassigned_genes_keep_the_sizes_of_groups_and_stay_whole():
    genes = [f"G{at}" for at in range(30)]
    group = ["x"] * 5 + ["y"] * 10 + ["z"] * 15
    wells = pl.DataFrame(
        {"gene": [*genes * 3, None], "label": [*group * 3, "negative_control"]}
    )
    dealt = wells.with_columns(new=reassign_genes(wells, np.random.default_rng(0)))
    by_gene = dealt.drop_nulls("gene").group_by("gene").agg(pl.col("new").unique())
    assert by_gene["new"].list.len().to_list() == [1] * 30
    counts = dict(by_gene["new"].list.first().value_counts().rows())
    assert counts == {"x": 5, "y": 10, "z": 15}
    assert dealt["new"][-1] == "negative_control"
    assert (dealt["new"] != dealt["label"]).any()


def test_held_out_genes_test_alone_and_the_others_train_alone():
    genes = [f"G{at}" for at in range(9)]
    frames = [wells_of(knockouts(genes, 2, 2), experiment=name) for name in ("e1", "e2")]
    groups = pl.DataFrame({"group": ["x"] * 4 + ["y"] * 4 + ["z"], "gene": genes})
    knobs = BlocksKnobs(label="group", hold_out_genes=0.25, **SIDES)
    labelled = label_wells(pl.concat(frames), groups, knobs)
    train, test = (labelled.wells.filter(is_train=side) for side in (True, False))
    assert set(test["gene"]) == set(labelled.held_out) and len(labelled.held_out) == 2
    assert not set(train["gene"]) & set(test["gene"])
    assert set(train["label"]) == set(test["label"]) == {"x", "y"}
    assert labelled.left_out["classes"] == ["z"]
    dealt = labelled.wells.with_columns(
        new=reassign_genes(labelled.wells, np.random.default_rng(0), labelled.held_out)
    )
    sizes = dealt.select("is_train", "gene", "new").unique().group_by("is_train", "new").len()
    assert sorted(sizes.rows()) == [
        *((False, "x", 1), (False, "y", 1), (True, "x", 3), (True, "y", 3))
    ]


def test_held_out_genes_want_groups_and_follow_the_seed():
    with pytest.raises(ValidationError, match="hold_out_genes wants label 'group'"):
        BlocksKnobs(hold_out_genes=0.2)
    wells = pl.DataFrame({"gene": [f"G{at}" for at in range(40)], "label": ["x", "y"] * 20})
    draws = [hold_out_genes(wells, 0.3, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2] and len(draws[0]) == 12
