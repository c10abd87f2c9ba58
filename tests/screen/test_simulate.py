import numpy as np
import polars as pl
import pytest

from phenopipe.errors import UserError
from phenopipe.formats.images import open_pixels, pixel_channels, read_images
from phenopipe.formats.tables import read_table
from phenopipe.formats.truth import DEFECTS, STATUSES, TRUTH
from phenopipe.formats.wells import conditions, read_wells
from phenopipe.screen import simulate
from phenopipe.screen.cells import CHANNELS
from phenopipe.screen.config import SimulateKnobs
from phenopipe.screen.plates import lay_out, plate_size, wells_table
from phenopipe.screen.simulate import Experiment
from phenopipe.screen.world import anax_groups, build_world

SMALL = SimulateKnobs(
    active_groups=2,
    silent_groups=1,
    genes_per_group=2,
    genes_per_arm=3,
    compounds=2,
    plates=2,
    negative_controls=6,
    frequent_wells=3,
    image_size=32,
)


def _with(**changes):
    return SMALL.model_copy(update=changes)


def _run(folder, experiment, knobs=SMALL):
    names = {"wells": "wells.parquet", "images": "images.parquet", "pixels": "images.zarr"}
    paths = {key: folder / experiment / name for key, name in names.items()}
    paths["truth"] = folder / experiment / "truth.parquet"
    files = [text for key, path in paths.items() for text in (f"--{key}", str(path))]
    place = ["--screen", "made-up", "--experiment", experiment]
    simulate.main([*files, *place, *knobs.as_flags()])
    return paths


def _whole(paths):
    return {
        path.relative_to(top.parent).as_posix(): path.read_bytes()
        for top in paths.values()
        for path in ([top] if top.is_file() else sorted(top.rglob("*")))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return _run(tmp_path_factory.mktemp("simulated"), "one")


def test_what_the_step_writes_is_what_later_stages_read(made):
    wells, images = read_wells(made["wells"]), read_images(made["images"])
    pixels = open_pixels(made["pixels"])
    assert pixel_channels(made["pixels"]) == list(CHANNELS)
    assert pixels.shape == (images.height, len(CHANNELS), 32, 32)
    assert images["well_id"].to_list() == wells["well_id"].to_list()
    assert images["index"].to_list() == list(range(images.height))
    assert set(wells["role"]) == {
        "negative_control",
        "positive_control",
        "empty",
        "perturbation",
    }


def test_equal_seeds_give_equal_bytes_and_unequal_ones_do_not(tmp_path, made):
    again = _run(tmp_path, "one")
    other = _run(tmp_path / "other", "one", _with(seed=1))
    assert _whole(again) == _whole(made)
    assert _whole(other) != _whole(made)


def test_every_planted_defect_and_status_is_told_in_the_truth(made):
    truth, wells = read_table(made["truth"], TRUTH), read_wells(made["wells"])
    assert set(truth["defect"]) == {"", *DEFECTS}
    assert set(truth["status"]) <= set(STATUSES)
    assert set(truth["well_id"]) == set(wells["well_id"])
    assert truth.filter(status="active")["effect"].min() > 0
    assert truth.filter(status="inactive")["effect"].max() == 0


def test_truth_names_the_conditions_that_the_wells_hold(made):
    truth, wells = read_table(made["truth"], TRUTH), read_wells(made["wells"])
    told = truth.filter(pl.col("perturbation").is_not_null(), pl.col("status") != "unknown")
    keys = ["well_id", "perturbation", "concentration_um"]
    written = conditions(wells).select(keys).sort(keys)
    assert written.equals(told.select(keys).sort(keys))


def test_wells_hold_two_four_or_no_known_perturbations(made):
    wells = read_wells(made["wells"]).filter(role="perturbation")
    assert set(wells["treatments"].list.len()) == {0, 1, 2, 4}


def test_technical_pairs_share_layouts_and_differ_in_pixels():
    first, second = Experiment(SMALL, "one"), Experiment(SMALL, "two")
    names = [wells_table(one.wells, SMALL, "s", "e") for one in (first, second)]
    assert names[0].equals(names[1])
    assert not np.array_equal(next(first.sites()), next(second.sites()))
    assert first.defects != second.defects


def test_another_layout_moves_the_same_conditions():
    wells = [lay_out(knobs, build_world(SMALL)) for knobs in (SMALL, _with(layout="B"))]
    single = [
        sorted(w.conditions[0].perturbation for w in plate if len(w.conditions) == 1)
        for plate in wells
    ]
    assert len(single[0]) == len(single[1])
    places = [
        {(w.plate, w.row, w.column, w.conditions) for w in plate}
        for plate in map(_named, wells)
    ]
    assert places[0] != places[1]


def _named(wells):
    for well in wells:
        names = tuple(one.perturbation for one in well.conditions)
        yield type(well)(well.plate, well.row, well.column, well.role, names)


def test_fixed_addresses_keep_every_ordinary_condition_in_its_place():
    knobs = _with(addresses="fixed", layout="B")
    places = {}
    for one in (knobs, _with(addresses="fixed")):
        for well in lay_out(one, build_world(one)):
            if well.role == "perturbation" and len(well.conditions) == 1 and well.labelled:
                condition = well.conditions[0]
                key = condition.perturbation, condition.concentration_um
                places.setdefault(key, set()).add((well.row, well.column))
    extra = build_world(knobs).knockouts
    silent = next(one.perturbation for one in extra if one.status == "inactive")
    assert len(places.pop((silent, None))) == 1 + knobs.frequent_wells
    assert all(len(where) == 1 for where in places.values())


def test_plates_hold_their_wells_and_none_twice():
    wells = lay_out(SMALL, build_world(SMALL))
    for plate in (1, 2):
        places = [(w.row, w.column) for w in wells if w.plate == plate]
        rows, columns = plate_size(len(places))
        assert len(set(places)) == len(places)
        assert max(row for row, _ in places) <= rows
        assert max(column for _, column in places) <= columns


def test_over_represented_and_rare_conditions_are_so():
    wells = lay_out(SMALL, build_world(SMALL))
    names = pl.Series([w.conditions[0].perturbation for w in wells if len(w.conditions) == 1])
    counts = dict(names.value_counts().iter_rows())
    world = build_world(SMALL)
    silent = [one.perturbation for one in world.knockouts if one.status == "inactive"]
    assert counts[silent[0]] >= SMALL.plates * (1 + SMALL.frequent_wells)
    assert [counts[one.perturbation] for one in world.rare[: SMALL.rare_conditions]] == [1, 1]


def test_anax_genes_are_readable_and_each_group_lists_a_gene_once():
    groups = anax_groups()
    assert len(groups) == 39
    assert sum(map(len, groups.values())) == 341
    assert all(gene.isalnum() for genes in groups.values() for gene in genes)


def test_too_many_groups_are_refused_in_one_line():
    with pytest.raises(UserError, match="active_groups"):
        build_world(_with(active_groups=40))
