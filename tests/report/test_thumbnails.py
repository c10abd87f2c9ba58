import base64

import imagecodecs
import numpy as np
import polars as pl
import pytest

from phenopipe.report.choices import (
    label_well,
    pick_examples,
    pick_flagged,
    pick_strongest,
    strongest_conditions,
    wells_of_conditions,
)
from phenopipe.report.gather import list_examples, list_flagged
from phenopipe.report.thumbnails import (
    Album,
    channel_colours,
    compose,
    contrast,
    data_uri,
    shrink,
)
from tests.report.made_up import EXPERIMENTS, SCREEN, flagged, make_wells


def test_picture_is_the_image_that_was_given():
    image = np.random.default_rng(0).integers(0, 255, (9, 7, 3)).astype(np.uint8)
    head, content = data_uri(image).split(",")
    assert head == "data:image/png;base64"
    assert (imagecodecs.png_decode(base64.b64decode(content)) == image).all()


def test_channels_have_colours_of_their_own_and_dna_is_blue():
    colour_C3 = channel_colours(["Golgi", "x", "DNA", "y", "z", "mitochondria"])
    assert len({tuple(rgb) for rgb in colour_C3}) == 6
    assert colour_C3[2].argmax() == 2
    assert (channel_colours(["only"]) == 1).all()


def test_shrinking_averages_the_middle_square():
    site = np.zeros((1, 8, 12))
    site[0, :, 2:6] = 4
    assert shrink(site, 4).tolist() == [[[4, 4, 0, 0]] * 4]
    assert shrink(np.ones((2, 5, 5)), 99).shape == (2, 5, 5)


def test_brightest_pixels_are_bright_and_background_is_black():
    site = np.full((2, 20, 20), 10.0)
    site[:, 5:9, 5:9] = 90
    low_C, high_C = contrast([site])
    image = compose(site, low_C, high_C, channel_colours(["DNA", "ER"]))
    assert image[0, 0].max() == 0 and image[6, 6].max() > 150


def test_constant_channel_does_not_divide_by_zero():
    low_C, high_C = contrast([np.full((1, 4, 4), 7)])
    assert (high_C > low_C).all()


def test_album_leaves_out_wells_without_pixels(run):
    album = Album(run.files["images"], run.files["pixels"], 24)
    wells = pl.DataFrame(
        {
            "screen": [SCREEN] * 3,
            "experiment": ["one", "one", "absent"],
            "well_id": ["one/P1/A01", "no such well", "absent/P1/A01"],
        }
    )
    pictures = album.pictures(wells, ["here", "unknown", "elsewhere"])
    assert [label for _, label in pictures] == ["here"]
    assert Album([], [], 24).pictures(wells, ["a", "b", "c"]) == []


def test_examples_cover_every_role_and_experiment():
    listed = pl.concat(list_examples(flagged(make_wells(e))) for e in EXPERIMENTS)
    picked, labels = pick_examples(listed, 9)
    assert picked.height == len(labels) == 9
    assert picked["role"].n_unique() == 3 and picked["experiment"].n_unique() == 3


def test_an_experiment_that_was_set_aside_gives_no_examples():
    shut = flagged(make_wells("e")).with_columns(passes=pl.lit(False))
    listed = pl.concat([list_examples(shut), list_examples(flagged(make_wells("f")))])
    assert list_examples(shut).is_empty() and set(listed["experiment"]) == {"f"}


def test_flagged_sites_show_every_test_and_each_well_once():
    wells = flagged(make_wells("one")).with_columns(fails_saturation=pl.col("well") == "A01")
    picked, labels = pick_flagged(list_flagged(wells), 3)
    assert set(labels) == {"focus", "saturation"} and picked["well_id"].is_unique().all()
    # The worst out-of-focus well has the largest score: the last one.
    failing = flagged(make_wells("one")).filter("fails_focus")
    assert failing["well_id"][-1] in picked["well_id"].to_list()


def test_the_worst_well_is_farthest_from_its_limit_on_either_side():
    wells = flagged(make_wells("one"))[:6].with_columns(
        fails_objects=pl.Series([True] * 5 + [False]),
        score_objects=pl.Series([0.09, 0.05, 0.0, 0.08, 0.04, 1.0]),
        limit_objects=pl.lit(0.1),
    )
    worst = list_flagged(wells, a_test=2).filter(test="objects")["well_id"]
    assert worst.to_list() == wells["well_id"][[2, 4]].to_list()


def test_strongest_conditions_are_shown_once_a_gene_after_controls():
    combined = pl.DataFrame(
        {
            "level": ["condition"] * 3,
            "map_type": [f"{SCREEN}|HUVEC|knockout|none"] * 3,
            "kind": ["knockout"] * 3,
            "perturbation": ["GENE0_guide_1", "GENE0_guide_2", "GENE1_guide_1"],
            "gene": ["GENE0", "GENE0", "GENE1"],
            "concentration_um": pl.Series([None] * 3, dtype=pl.Float64),
            "p_value": [0.2, 0.001, 0.1],
            "statistic": [0.5] * 3,
        }
    )
    wanted = strongest_conditions(combined)
    assert wanted["perturbation"].to_list() == ["GENE0_guide_2", "GENE1_guide_1"]
    wells = wells_of_conditions(flagged(make_wells("one")), wanted)
    picked, labels = pick_strongest(wells)
    assert labels == ["negative control"] * 3 + ["GENE0_guide_2", "GENE1_guide_1"]
    assert picked["well_id"].is_unique().all()


@pytest.mark.parametrize("wanted", [pl.DataFrame(), pl.DataFrame({"screen": []})])
def test_no_tests_give_no_strongest_conditions(wanted):
    assert wells_of_conditions(flagged(make_wells("one")), wanted).is_empty()


def test_label_tells_every_treatment_and_a_special_role():
    two = [
        {"perturbation": "drug", "concentration_um": 0.5},
        {"perturbation": "PLK1_guide_1", "concentration_um": None},
    ]
    told = label_well({"role": "positive_control", "treatments": two})
    assert told == "drug 0.5 µM + PLK1_guide_1 (positive control)"
