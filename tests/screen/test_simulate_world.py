import numpy as np
import polars as pl
import pytest

from phenopipe.formats.genes import GENES, INTERACTIONS
from phenopipe.formats.tables import read_table
from phenopipe.screen import annotate
from phenopipe.screen.cells import AXES, render_cells
from phenopipe.screen.config import CHANNELS, AnnotateKnobs, WorldKnobs
from phenopipe.screen.optics import Microscope, expose
from phenopipe.screen.spoil import dying, spoil
from phenopipe.screen.world import build_world


@pytest.fixture(scope="module")
def world():
    return build_world(WorldKnobs(seed=3))


def _field(name="", z=0.0, n=12):
    z_A = np.zeros(len(AXES))
    if name:
        z_A[AXES.index(name)] = z
    sites = [
        render_cells(z_A, 6, 64, np.random.default_rng(k), cell_spread=0) for k in range(n)
    ]
    return dict(zip(CHANNELS, np.stack(sites, axis=1), strict=True))


def test_guides_of_a_group_point_one_way_and_groups_apart(world):
    active = [one for one in world.knockouts if one.status == "active"]
    unit = np.stack([one.phenotype_A / one.effect for one in active])
    cosine = unit @ unit.T
    same = np.array([[a.group == b.group for b in active] for a in active])
    assert cosine[same].min() > 0.8
    assert np.median(np.abs(cosine[~same])) < 0.3


def test_a_compound_acts_more_with_its_dose_and_along_its_targets(world):
    doses = [one for one in world.compounds if one.perturbation == "compound-01"]
    effects = [one.effect for one in doses]
    assert effects == sorted(effects) and effects[0] < 0.2 * effects[-1]
    assert doses[0].status == "weak"
    target = next(one for one in world.knockouts if one.group == doses[0].group)
    along = doses[-1].phenotype_A @ target.phenotype_A
    assert along > 0.9 * doses[-1].effect * target.effect


def test_biased_arms_hold_more_than_twenty_unexpressed_genes_and_no_others(world):
    genes = pl.DataFrame([(g.arm, g.expression, g.status) for g in world.genes], orient="row")
    on_arm = genes.filter(pl.col("column_0").is_in(world.biased_arms))
    counts = on_arm.group_by("column_0").len()
    assert counts["len"].min() > 20
    assert on_arm["column_1"].max() < -3
    assert set(on_arm["column_2"]) == {"arm"}


def test_annotation_tells_the_arms_and_targets_of_the_world(tmp_path, world):
    genes, interactions = tmp_path / "genes.parquet", tmp_path / "interactions.parquet"
    files = ["--known-genes", str(genes), "--known-interactions", str(interactions)]
    knobs = AnnotateKnobs(seed=3, source="simulated").as_flags()
    annotate.main([*files, "--screen", "made-up", *knobs])
    assert set(read_table(genes, GENES)["gene"]) == {gene.symbol for gene in world.genes}
    assert read_table(interactions, INTERACTIONS).height == len(world.interactions)


def test_traits_change_what_they_are_named_after():
    def light(name, channel):
        small, large = (_field(name, z)[channel] for z in (-2, 2))
        return (large > 0.2).mean() / (small > 0.2).mean()

    assert light("nucleus_size", "dna") > 1.5
    assert light("cell_size", "actin") > 1.3
    assert light("golgi_spread", "golgi") > 1.3


def test_rna_moves_from_the_nucleus_to_the_border():
    def in_nucleus(z):
        field = _field("rna_place", z)
        return field["rna"][field["dna"] > 0.3].sum() / field["rna"].sum()

    assert in_nucleus(-2) > 2 * in_nucleus(2)


def test_dead_cells_have_small_bright_nuclei():
    alive, dead = (
        render_cells(z_A, 6, 64, np.random.default_rng(0), cell_spread=0)[0]
        for z_A in (np.zeros(len(AXES)), dying(np.zeros(len(AXES))))
    )
    assert dead.max() > 1.5 * alive.max()
    assert (dead > 0.3).sum() < 0.7 * (alive > 0.3).sum()


def test_each_image_defect_is_a_real_one():
    rng = np.random.default_rng(0)
    one = np.ones(len(CHANNELS))
    calm = Microscope(one, 0.05 * one, 0.5 * one, np.zeros(2), photons=50.0)
    light = render_cells(np.zeros(len(AXES)), 6, 64, rng)
    image = expose(light, calm, rng)
    sharp = np.abs(np.diff(image)).mean()
    assert np.abs(np.diff(spoil(image, "out_of_focus", rng))).mean() < 0.3 * sharp
    assert (spoil(image, "saturated", rng) > 255).mean() > 5 * (image > 255).mean() + 0.02
    assert (spoil(image, "debris", rng) - image).min(axis=0).max() > 100
    assert (spoil(image, "missing_channel", rng).max(axis=(1, 2)) == 0).sum() == 1
