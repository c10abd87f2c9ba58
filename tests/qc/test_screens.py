"""Default limits on whole screens: simulated ones with planted defects, and a real plate."""

import imagecodecs
import numpy as np
import polars as pl
import pytest

from phenopipe.qc.config import ImagesKnobs, WellsKnobs
from phenopipe.qc.images import measure_sites
from phenopipe.qc.wells import flag_wells
from phenopipe.screen.cells import CHANNELS
from phenopipe.screen.config import SimulateKnobs
from phenopipe.screen.plates import wells_table
from phenopipe.screen.simulate import Experiment


def flags_of(wells, images, pixels, channels):
    metrics = measure_sites(wells, images, pixels, channels, ImagesKnobs())
    return flag_wells(wells, images, metrics, WellsKnobs())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_planted_defects_are_found_with_few_false_alarms(seed):
    knobs = SimulateKnobs(seed=seed, plates=1, defects=3)
    experiment = Experiment(knobs, "simulated-1")
    wells = wells_table(experiment.wells, knobs, "simulated", "simulated-1")
    images = experiment.images_table(wells["well_id"].to_list())
    flags = flags_of(wells, images, np.stack(list(experiment.sites())), CHANNELS)
    planted = pl.Series(experiment.defects) != ""
    assert (~flags["passes"]).filter(planted).mean() >= 0.9
    assert (~flags["passes"]).filter(~planted).mean() <= 0.05


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_phenotypes_of_twice_the_strength_are_no_defects(seed):
    plain = SimulateKnobs(seed=seed, plates=1, defects=0)
    knobs = plain.model_copy(update={"strength": 2 * plain.strength})
    experiment = Experiment(knobs, "simulated-1")
    wells = wells_table(experiment.wells, knobs, "simulated", "simulated-1")
    images = experiment.images_table(wells["well_id"].to_list())
    flags = flags_of(wells, images, np.stack(list(experiment.sites())), CHANNELS)
    truth = experiment.truth_table(wells["well_id"].to_list())
    active = truth.filter(pl.col("status") == "active", pl.col("defect") == "")["well_id"]
    judged = flags.filter(pl.col("well_id").is_in(active.implode()))
    assert judged.height >= 40
    assert (~judged["passes"]).mean() <= 0.05


def test_a_real_plate_with_strong_phenotypes_passes(shared, made_up):
    folder = shared / "bbbc013_images"
    # One of the plate's two experiments: every dose twice, eight negative controls.
    table = pl.read_csv(folder / "platemap.csv").filter(pl.col("row").is_in(list("ABEF")))
    dosed = ("perturbation", [made_up.guide("drug_1")])
    wells = made_up.wells_of(
        [("negative_control", []) if role == "negcon" else dosed for role in table["role"]]
    )
    files = table.select("file_w1_FKHR_EGFP", "file_w2_DNA").rows()
    pixels = [
        [imagecodecs.png_decode((folder / name).read_bytes()) for name in pair]
        for pair in files
    ]
    images = made_up.images_of(wells)
    flags = flags_of(wells, images, np.array(pixels), ["FKHR-EGFP", "DNA"])
    assert (~flags["passes"]).mean() <= 0.05
