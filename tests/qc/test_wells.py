import numpy as np
import polars as pl
import pytest

from phenopipe.errors import UserError
from phenopipe.formats.qc import METADATA_TESTS, write_qc_wells
from phenopipe.qc.checks import check_images, check_labels, check_pixels
from phenopipe.qc.config import ImagesKnobs, WellsKnobs
from phenopipe.qc.images import measure_sites
from phenopipe.qc.wells import ESSENTIAL, flag_wells

N_CONTROLS, N_PHENOTYPES = 16, 16


def phenotype(made_up, rng, number):
    """A strong phenotype: one or two things about all cells are far from usual."""
    kinds = [
        {"light": (180.0, 70.0, 60.0)},
        {"light": (45.0, 40.0, 110.0)},
        {"n_cells": 5},
        {"nucleus": 5.5, "body": 10.0},
        {"body": 6.0, "n_cells": 18},
        {"grain": 0.5},
        {"nucleus": 3.2, "light": (60.0, 90.0, 40.0)},
        {"n_cells": 24, "light": (120.0, 60.0, 90.0)},
    ]
    return made_up.field(rng, **kinds[number % len(kinds)])


def defects(made_up, rng):
    """One field of each defect that images can have."""
    debris = made_up.field(rng)
    y, x = np.mgrid[:96, :96]
    debris += 170 * (np.hypot(y - 40, x - 60) < 13)
    dark = made_up.field(rng)
    dark[0] = 0
    return {
        "focus": made_up.field(rng, blur=3.0),
        "dead_cells": made_up.field(rng, nucleus=2.6, light=(40.0, 150.0, 20.0)),
        "saturation": made_up.field(rng) * 6,
        "artefact": debris,
        "foreground": made_up.field(rng, n_cells=0),
        "dark_channel": dark,
    }


@pytest.fixture(params=[0, 1, 2])
def screen(request, made_up):
    rng = np.random.default_rng(request.param)
    fields = [made_up.field(rng) for _ in range(N_CONTROLS)]
    fields += [phenotype(made_up, rng, number) for number in range(N_PHENOTYPES)]
    planted = defects(made_up, rng)
    wells = made_up.wells_of(
        [("negative_control", [])] * N_CONTROLS
        + [("perturbation", [made_up.guide("A_1")])] * (N_PHENOTYPES + len(planted))
    )
    images = made_up.images_of(wells)
    pixels = made_up.to_bytes(np.stack([*fields, *planted.values()]))
    metrics = measure_sites(wells, images, pixels, made_up.channels, ImagesKnobs())
    return wells, images, metrics, list(planted)


def test_every_planted_defect_is_found_by_its_own_test(screen):
    wells, images, metrics, planted = screen
    flags = flag_wells(wells, images, metrics, WellsKnobs())
    reasons = flags["reason"].to_list()[-len(planted) :]
    assert [
        test for test, found in zip(planted, reasons, strict=True) if test not in found
    ] == []


def test_controls_and_strong_phenotypes_pass(screen):
    wells, images, metrics, planted = screen
    flags = flag_wells(wells, images, metrics, WellsKnobs())
    false = flags[: -len(planted)].filter(~pl.col("passes"))
    assert false.select("well_id", "reason").rows() == []


def test_off_means_that_only_what_cannot_be_embedded_is_flagged(screen, tmp_path):
    wells, images, metrics, _ = screen
    lost = images.with_columns(
        index=pl.when(pl.int_range(pl.len()) > 0).then("index"),
        height=pl.when(pl.int_range(pl.len()) > 0).then("height").otherwise(0).cast(pl.Int32),
    )
    flags = flag_wells(wells, lost, metrics, WellsKnobs(enabled=False))
    assert flags["reason"].to_list() == ["pixels"] + [""] * (wells.height - 1)
    write_qc_wells(tmp_path / "wells.parquet", flags, {})


def test_one_bad_site_of_three_does_not_lose_the_well(screen):
    wells, _, metrics, _ = screen
    three = wells[:12].with_columns(plate=pl.lit("1"))
    good = metrics[:12]
    sites = [
        good.with_columns(image_id=pl.col("image_id") + f"-{n}", well_id="well_id")
        for n in range(3)
    ]
    last = pl.int_range(pl.len()) == pl.len() - 1
    name = "saturation.er"
    bad = pl.when(last).then(0.5).otherwise(name).alias(name)
    for n_bad, fails in ((1, False), (2, True)):
        table = pl.concat(
            [s.with_columns(bad) if n < n_bad else s for n, s in enumerate(sites)]
        )
        found = check_images(three, table, WellsKnobs()).sort("well_id")
        assert found["fails_saturation"][-1] is fails


def test_labels_must_be_known_and_few(made_up):
    names = [made_up.guide(f"G{n}_1") for n in range(4)]
    factor = made_up.guide("TNF") | {"kind": "soluble_factor", "gene": None}
    wells = made_up.wells_of(
        [
            ("perturbation", names[:1]),
            ("perturbation", names[:3]),
            ("perturbation", names),
            ("perturbation", [*names[:3], factor]),
            ("perturbation", []),
            ("perturbation", [names[0], names[1] | {"perturbation": None}]),
            ("positive_control", []),
            ("empty", []),
        ]
    )
    checked = check_labels(wells, WellsKnobs())
    assert checked["fails_perturbations"].arg_true().to_list() == [2]
    assert checked["fails_perturbation_missing"].arg_true().to_list() == [4, 5, 6]


def test_assay_conditions_are_an_expression(made_up):
    wells = made_up.wells_of([("empty", [])] * 3).with_columns(
        pl.Series("cell_type", ["HUVEC", "U2OS", None])
    )
    checked = check_labels(wells, WellsKnobs(assay="cell_type = 'HUVEC'"))
    assert checked["fails_assay"].to_list() == [False, True, True]


@pytest.mark.parametrize("assay", ["cell_type =", "no_column = 1", "column"])
def test_an_unusable_expression_is_told_in_one_line(made_up, assay):
    wells = made_up.wells_of([("empty", [])])
    with pytest.raises(UserError, match=r"^qc\.wells\.assay: .*") as error:
        check_labels(wells, WellsKnobs(assay=assay))
    assert "\n" not in str(error.value)


def test_sites_unlike_the_others_are_told_apart_from_unreadable_ones(made_up):
    wells = made_up.wells_of([("empty", [])] * 7)
    images = made_up.images_of(wells)[:6].with_columns(
        pl.Series("height", [96, 96, 96, 64, 96, 0], dtype=pl.Int32),
        pl.Series("channels", [3, 3, 3, 3, 2, 3], dtype=pl.Int32),
        pl.Series("index", [0, 1, 2, None, None, None], dtype=pl.Int64),
    )
    checked = check_pixels(wells, images, WellsKnobs())
    assert checked["fails_size"].arg_true().to_list() == [3]
    assert checked["fails_channels"].arg_true().to_list() == [4]
    # The last well has no image at all.
    assert checked["fails_pixels"].arg_true().to_list() == [5, 6]


def test_words_of_other_stages_name_tests_that_exist(screen):
    wells, images, metrics, _ = screen
    flags = flag_wells(wells, images, metrics, WellsKnobs())
    assert {f"fails_{test}" for test in METADATA_TESTS} <= set(flags.columns)
    assert set(ESSENTIAL) - {"fails_features"} <= set(flags.columns)
