import numpy as np
import polars as pl
import pytest

from phenopipe.errors import UserError
from phenopipe.formats.qc import METADATA_TESTS, write_qc_wells
from phenopipe.formats.wells import N_IMAGES
from phenopipe.qc.checks import check_images, check_labels, check_pixels
from phenopipe.qc.config import ImagesKnobs, WellsKnobs
from phenopipe.qc.gate import tell_gate
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
    shaded = made_up.field(rng, n_cells=24) * np.linspace(0.1, 2.0, 96)[None, :, None]
    dark = made_up.field(rng)
    dark[0] = 0
    return {
        "focus": made_up.field(rng, blur=3.0),
        "dead_cells": made_up.field(rng, nucleus=2.6, light=(40.0, 150.0, 20.0)),
        "saturation": made_up.field(rng) * 6,
        "artefact": debris,
        "background": made_up.field(rng) + np.array([0.0, 60.0, 0.0])[:, None, None],
        "illumination": shaded,
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


def test_each_score_stands_beside_the_limit_that_its_flag_was_drawn_at(screen):
    wells, images, metrics, _ = screen
    knobs = WellsKnobs(max_blur=4.5, min_objects=0.3)
    flags = flag_wells(wells, images, metrics, knobs)
    assert set(flags["limit_focus"]) == {4.5} and set(flags["limit_perturbations"]) == {3.0}
    least = ("foreground", "objects", "dark_channel")
    tests = [c.removeprefix("limit_") for c in flags.columns if c.startswith("limit_")]
    assert {"background", "illumination", *least} <= set(tests)
    assert flags["limit_outlier"].is_null().all() and not flags["fails_outlier"].any()
    for test in set(tests) - {"controls", "outlier"}:
        score, limit = flags[f"score_{test}"], flags[f"limit_{test}"]
        at_limit = score >= limit if test in ("size", "channels") else score > limit
        beyond = score < limit if test in least else at_limit
        assert flags[f"fails_{test}"].equals(beyond.fill_null(value=False), check_names=False)


def test_distance_over_all_channels_flags_once_it_has_a_limit(screen):
    wells, images, metrics, planted = screen
    flags = flag_wells(wells, images, metrics, WellsKnobs(max_outlier=6.0))
    assert flags["score_outlier"][:N_CONTROLS].max() < 2.0
    assert flags[-len(planted) :]["fails_outlier"].all()
    # Why it has none unless asked: strong phenotypes are as far out as defects.
    assert flags[N_CONTROLS : N_CONTROLS + N_PHENOTYPES]["fails_outlier"].any()


def lost(images, at):
    """Images of which some could not be read."""
    there = pl.int_range(pl.len()).is_in(at)
    return images.with_columns(
        index=pl.when(there).then(None).otherwise("index"),
        height=pl.when(there).then(0).otherwise("height").cast(pl.Int32),
    )


def test_an_experiment_that_lost_too_many_wells_is_set_aside(screen):
    wells, images, metrics, _ = screen
    treated = range(N_CONTROLS, N_CONTROLS + 4)
    knobs = WellsKnobs(max_failing=0.4)
    for at, shut in ((treated, False), (range(N_CONTROLS, wells.height), True)):
        flags = flag_wells(wells, lost(images, at), metrics, knobs)
        assert flags["fails_experiment"].to_list() == [shut] * wells.height
        assert flags["passes"].any() is not shut
        assert flags["reason"].str.ends_with("experiment").all() is shut
        assert len(tell_gate(flags, "e1")) == shut
    # Its own failures keep their own reasons.
    assert flags["reason"][-4] != "experiment" and flags["reason"][0] == "experiment"
    assert "e1 is set aside: 60.0%" in tell_gate(flags, "e1")[0]


def test_an_experiment_needs_controls_that_pass(screen):
    wells, images, metrics, _ = screen
    n_lost = N_CONTROLS - 3
    few = lost(images, range(n_lost))
    for fewest, shut in ((3, False), (4, True)):
        knobs = WellsKnobs(min_controls=fewest, max_failing=1.0)
        flags = flag_wells(wells, few, metrics, knobs)
        assert flags["fails_experiment"][0] is shut
        assert set(flags["score_controls"]) == {3.0} and set(flags["limit_controls"]) == {
            fewest
        }
    knobs = WellsKnobs(enabled=False, min_controls=4)
    assert not flag_wells(wells, few, metrics, knobs)["fails_experiment"].any()
    # A design without negative controls is told by the check of the screen, not here.
    none = wells.with_columns(pl.col("role").replace("negative_control", "empty"))
    assert not flag_wells(none, images, metrics, WellsKnobs(min_controls=4))[
        "fails_experiment"
    ].any()


def test_images_are_counted_whatever_their_order(screen):
    wells, images, metrics, _ = screen
    first, second, *_ = wells["well_id"]
    more = images.filter(well_id=second).with_columns(image_id=pl.lit("one more"))
    images = pl.concat([more, images.filter(pl.col("well_id") != first)])
    counts = flag_wells(wells, images, metrics, WellsKnobs())[N_IMAGES].to_list()
    assert counts == [0, 2] + [1] * (wells.height - 2)


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
