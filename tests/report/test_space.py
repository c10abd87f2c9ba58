import numpy as np
import polars as pl
import pytest

from phenopipe.formats.aligned import write_aligned
from phenopipe.formats.controls import CONTROLS
from phenopipe.formats.embeddings import write_embeddings
from phenopipe.formats.results import RESULTS
from phenopipe.formats.truth import TRUTH
from phenopipe.report.config import TruthKnobs
from phenopipe.report.pieces import Table
from phenopipe.report.planted_space import _arm_bias, alignment_rows, arm_rows
from phenopipe.report.scatter import principal_plane
from phenopipe.report.sections.alignment import Alignment, align_section, plane_frame
from phenopipe.samples import every_well, sample_encoder
from phenopipe.separability import separability
from tests.report.made_up import EXPERIMENTS, GENES, make_wells, stamp

KNOBS = TruthKnobs(bootstraps=100, max_wells=400)
DIM = 8


def test_labels_far_apart_are_told_apart_and_labels_without_meaning_are_not():
    rng = np.random.default_rng(0)
    label_N = np.repeat(["a", "b", "c"], 40)
    x_ND = rng.normal(size=(120, 5))
    shifted = x_ND + 5 * np.eye(3, 5)[np.repeat(range(3), 40)]
    told = separability(shifted, label_N, rng=np.random.default_rng(1))
    assert told.accuracy > 0.95 and told.chance == pytest.approx(1 / 3) and told.n == 120
    untold = separability(x_ND, label_N, rng=np.random.default_rng(1))
    assert untold.low < 1 / 3 < untold.high


def test_groups_are_predicted_by_a_classifier_that_saw_none_of_them():
    rng = np.random.default_rng(0)
    label_N = np.tile(["a", "b"], 60)
    group_N = np.repeat(["one", "two", "three"], 40)
    x_ND = rng.normal(size=(120, 3)) * 0.1
    # The sign of the effect turns in every experiment: nothing carries over.
    sign_N = np.repeat([1, -1, 1], 40)
    x_ND[:, 0] += sign_N * np.where(label_N == "a", 1, -1)
    told = separability(x_ND, label_N, rng=rng, group_N=group_N)
    assert told.accuracy < 0.6


@pytest.mark.parametrize(
    ("labels", "groups"), [(["a"] * 9, None), (["a", "b"], None), (["a", "b"] * 3, ["one"] * 6)]
)
def test_nothing_is_told_of_too_few_labels(labels, groups):
    x_ND = np.zeros((len(labels), 2))
    rng = np.random.default_rng(0)
    group_N = None if groups is None else np.array(groups)
    assert separability(x_ND, np.array(labels), rng=rng, group_N=group_N) is None


def test_principal_plane_explains_what_varies():
    rng = np.random.default_rng(0)
    x_ND = rng.normal(size=(200, 4)) * [10, 3, 0.1, 0.1] + 7
    plane_N2, shares_2 = principal_plane(x_ND)
    assert abs(np.corrcoef(plane_N2[:, 0], x_ND[:, 0])[0, 1]) > 0.999
    assert shares_2.sum() == pytest.approx(1, abs=0.01)
    assert principal_plane(np.ones((3, 1)))[0].shape == (3, 2)


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """Raw embeddings with a shift of each experiment, aligned ones with planted effects."""
    folder, rng = tmp_path_factory.mktemp("space"), np.random.default_rng(0)
    of_gene = {gene: 4 * np.eye(DIM)[n // 2] for n, gene in enumerate(GENES[:4])}
    of_arm = {gene: 3 * np.eye(DIM)[6 + n // 2] for n, gene in enumerate(GENES[4:])}
    aligned, embeddings = {}, {}
    for number, experiment in enumerate(EXPERIMENTS):
        wells = make_wells(experiment)
        gene = [t[0]["gene"] if t else None for t in wells["treatments"].to_list()]
        effects = of_gene | of_arm
        effect_WD = np.array([effects.get(g, np.zeros(DIM)) for g in gene])
        x_WD = effect_WD + rng.normal(size=(wells.height, DIM)) * 0.7
        embeddings[experiment] = folder / f"{experiment}.zarr"
        write_embeddings(
            embeddings[experiment],
            (x_WD + 9 * number)[:, None].astype(np.float32),
            wells["well_id"].to_list(),
            block_numbers=[1],
            block_dims=[DIM],
            stamp=stamp("embed", "wells", experiment=experiment),
        )
        aligned[experiment] = folder / f"{experiment}.parquet"
        held = wells.with_columns(fitted=pl.lit(False))
        write_aligned(aligned[experiment], held, x_WD, stamp("align", "apply"))
    return aligned, embeddings, of_arm


def truth_of(status_of_gene):
    rows = []
    for experiment in EXPERIMENTS:
        for row in make_wells(experiment).iter_rows(named=True):
            gene = row["treatments"][0]["gene"] if row["treatments"] else None
            status = status_of_gene.get(gene, "control")
            group = f"group {GENES.index(gene) // 2}" if status == "active" else None
            rows.append(
                {"well_id": row["well_id"], "defect": "", "gene": gene, "kind": "knockout",
                 "status": status, "group": group, "effect": 0.0}
            )  # fmt: skip
    return pl.DataFrame(rows, schema=TRUTH.empty().schema)


def test_alignment_hides_experiments_and_keeps_gene_groups(space):
    aligned, embeddings, _ = space
    truth = truth_of({gene: "active" for gene in GENES[:4]} | {"GENE7": "inactive"})
    planted = truth.select("well_id", "status", "group")
    rows = alignment_rows("mae", aligned, embeddings, planted, KNOBS)
    found = {(row["metric"], row["source"]): row for row in rows}
    assert found[("apart_before", "controls, HUVEC")]["value"] > 0.6
    assert found[("apart_after", "controls, HUVEC")]["value"] < 0.25
    assert ("apart_after", "inactive, HUVEC") in found
    assert ("apart_after", "inactive held out, HUVEC") in found
    assert found[("groups_after", "active wells")]["value"] > 0.4
    assert all(row["low"] <= row["high"] for row in rows)


def test_sample_takes_as_many_wells_of_each_experiment_and_keeps_rows_together(space):
    aligned, embeddings, _ = space
    choose = {"all": (60, every_well), "none": (60, lambda wells: wells.clear())}
    samples = sample_encoder(aligned, embeddings, choose, seed=0)
    assert list(samples) == ["all"]
    drawn = samples["all"]
    assert drawn.wells["experiment"].value_counts()["count"].to_list() == [20, 20, 20]
    shift_N = (drawn.before - drawn.after).mean(axis=1)
    wanted = [9 * EXPERIMENTS.index(e) for e in drawn.wells["experiment"]]
    assert shift_N == pytest.approx(np.array(wanted), abs=1e-3)


def arms_table(of_arm, offsets, corrected=True):
    genes = GENES[4:]
    offset_GD = np.array([of_arm[g] * offsets for g in genes], dtype=np.float32)
    return pl.DataFrame(
        {
            "gene": genes,
            "arm": [f"arm{n // 2}" for n in range(4)],
            "corrected": [corrected] * 4,
            "offset": pl.Series(offset_GD, dtype=pl.Array(pl.Float32, DIM)),
        }
    )


def test_arm_offsets_remove_the_bias_and_no_offsets_remove_none(space):
    aligned, _, of_arm = space
    truth = truth_of({gene: "arm" for gene in GENES[4:]})
    none, whole = (
        {row["metric"]: row["value"] for row in arm_rows("mae", aligned, table, truth, KNOBS)}
        for table in (arms_table(of_arm, 0.0, corrected=False), arms_table(of_arm, 1.0, False))
    )
    assert none["arm_bias_before"] == pytest.approx(none["arm_bias_after"])
    assert none["arm_bias_before"] > 0.7 and none["arm_bias_removed"] == pytest.approx(0)
    assert abs(whole["arm_bias_after"]) < 0.5 < whole["arm_bias_removed"]


def test_genes_without_their_own_mean_count_as_unbiased():
    rng = np.random.default_rng(0)
    x_GD = rng.normal(size=(24, 200))
    arm_G = np.repeat(["1p", "2q"], 12)
    for arm in ("1p", "2q"):
        x_GD[arm_G == arm] -= x_GD[arm_G == arm].mean(axis=0)
    weights = np.ones((1, 24))
    assert _arm_bias(x_GD, arm_G, weights)[0] == pytest.approx(-1 / 11, abs=0.01)
    judged = _arm_bias(x_GD, arm_G, weights, np.ones(24, dtype=bool))
    assert judged[0] == pytest.approx(0, abs=0.01)


def test_a_screen_without_biased_arms_has_no_figure_of_them(space):
    aligned, _, of_arm = space
    assert arm_rows("mae", aligned, arms_table(of_arm, 1.0), truth_of({}), KNOBS) == []


def test_too_few_wells_to_tell_experiments_apart_give_an_empty_table_and_a_whole_section(space):
    aligned, embeddings, _ = space
    choose = {"few": (3, every_well)}
    few = sample_encoder(aligned, embeddings, choose, seed=0)["few"]
    told = few.apart(folds=5, seed=0)
    assert told.is_empty() and "cell_type" in told.columns
    plane = plane_frame(few.wells, np.zeros((3, 2)), np.zeros((3, 2)))
    nothing = (RESULTS.empty(), CONTROLS.empty())
    section = align_section([Alignment("s", "mae", plane, (0, 0, 0, 0), *nothing)])
    assert not any(isinstance(piece, Table) for piece in section.pieces) and section.pieces
