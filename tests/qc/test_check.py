"""The check of a whole screen: each planted defect is told once, in its place."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phenopipe.errors import UserError
from phenopipe.formats.images import IMAGES, write_images
from phenopipe.formats.qc import DEFECTS, read_defects
from phenopipe.formats.wells import TREATMENT, write_wells
from phenopipe.qc.check import MEND, check_screen, experiment_defects, main, refusal
from phenopipe.qc.config import CheckKnobs
from phenopipe.qc.survey import survey

N = 12


@pytest.fixture
def experiment(made_up):
    """One sound experiment: six controls and six treated wells, two files an image."""

    def make(name):
        roles = [("negative_control", [])] * 6 + [("perturbation", [made_up.guide("A_1")])] * 6
        wells = made_up.wells_of(roles).with_columns(
            experiment=pl.lit(name), well_id=pl.format("{}/1/{}", pl.lit(name), "well")
        )
        images = made_up.images_of(wells)
        place = pl.col("image_id")
        return wells, images.with_columns(uri=place + "-dna.png|" + place + "-actin.png")

    return make


def found(experiments, **knobs):
    defects, shares = check_screen(lambda: experiments, CheckKnobs(**knobs))
    DEFECTS.check(defects, "defects")
    return defects, shares


def where(column, at, value):
    """One column with another value in some rows."""
    changed = pl.lit(value).cast(IMAGES.columns.get(column, (pl.String,))[0])
    there = pl.int_range(pl.len()).is_in(at)
    return pl.when(there).then(changed).otherwise(column).alias(column)


def test_a_sound_screen_has_no_row(experiment):
    defects, shares = found([experiment("e1"), experiment("e2")])
    assert defects.is_empty() and set(shares.values()) == {0.0}


def image_defects(images):
    """Images of an experiment with each kind of defect, and how many have it."""
    yield (
        "unreadable_image",
        [0, 1],
        images.with_columns(
            where("height", [0, 1], 0), where("width", [0, 1], 0), where("index", [0, 1], None)
        ),
    )
    yield "unusual_size", [2], images.with_columns(where("height", [2], 64))
    # Readable and usual for the screen, yet not stored.
    yield "unusual_size", [3], images.with_columns(where("index", [3], None))
    yield "unusual_channels", [4, 5, 6], images.with_columns(where("channels", [4, 5, 6], 2))
    yield "image_without_well", [7], images.with_columns(where("well_id", [7], "e1/1/Z99"))
    first = images["uri"][0].split("|")[0]
    yield "repeated_image", [0, 9], images.with_columns(where("uri", [9], f"x.png|{first}"))


def test_each_defect_of_images_is_told_with_its_place(experiment):
    kinds = 0
    for defect, at, images in image_defects(experiment("e1")[1]):
        wells = experiment("e1")[0]
        defects, shares = found([(wells, images), experiment("e2")])
        row = defects.filter(defect=defect).row(0, named=True)
        assert (row["experiment"], row["n"], row["mend"]) == ("e1", len(at), MEND[defect][1])
        assert row["examples"] == ", ".join(images["image_id"][n] for n in at)
        assert shares["image"] == pytest.approx(len(at) / (2 * N))
        rest = defects.filter(pl.col("defect") != defect)["defect"].to_list()
        # An image that names another well leaves its own without one.
        assert rest == (["well_without_image"] if defect == "image_without_well" else [])
        kinds += 1
    assert kinds == 6


def test_wells_without_images_or_labels_are_told(experiment):
    wells, images = experiment("e1")
    lost = pl.col("well") == "A11"
    treatments = pl.when(lost).then(pl.col("treatments").list.head(0)).otherwise("treatments")
    bare = wells.with_columns(treatments)
    defects, shares = found([(bare, images[:-2]), experiment("e2")])
    assert defects.select("defect", "n", "n_checked", "plate").rows() == [
        ("well_without_image", 2, N, "1"),
        ("well_without_label", 1, N, "1"),
    ]
    # One of the two wells has both defects.
    assert shares["well"] == pytest.approx(2 / (2 * N))


def test_a_screen_of_profiles_lacks_no_images(experiment):
    tables = [(experiment(name)[0], IMAGES.empty()) for name in ("e1", "e2")]
    assert found(tables)[0].is_empty()


def test_an_experiment_without_any_image_is_told_where_others_have_some(experiment):
    wells = experiment("e1")[0]
    defects, shares = found([(wells, IMAGES.empty()), experiment("e2")])
    assert defects.select("experiment", "defect", "n").rows() == [
        ("e1", "well_without_image", N)
    ]
    assert shares["well"] == 1 / 2


def test_a_well_is_counted_once_in_a_screen(experiment):
    wells, images = experiment("e1")
    twice = wells.with_columns(where("column", [3], 4).cast(pl.Int32))
    defects, _ = found([(twice, images), experiment("e2")])
    assert defects.select("defect", "n", "examples").rows() == [
        ("repeated_well", 2, "e1/1/A03, e1/1/A04")
    ]
    # The same wells under the name of another experiment.
    copied = (wells.with_columns(experiment=pl.lit("e2")), images)
    defects, _ = found([(wells, images), copied])
    assert set(defects["defect"]) == {"repeated_image", "repeated_well"}
    assert defects["n"].to_list() == [N] * 4


def test_plates_without_controls_and_experiments_without_pair_are_told(experiment):
    wells, images = experiment("e1")
    plates = pl.when(pl.col("role") == "perturbation").then(pl.lit("2")).otherwise("plate")
    split = wells.with_columns(plate=plates, layout=pl.lit("B"))
    other = split.with_columns(
        cell_type=pl.lit("U2OS"),
        experiment=pl.lit("e3"),
        well_id="e3" + pl.col("well_id"),
        plate=pl.lit("1"),
    )
    own = {name: "e3" + pl.col(name) for name in ("well_id", "image_id")}
    others = images.with_columns(**own, uri=pl.lit(None, pl.String))
    defects, shares = found([(split, images), experiment("e2"), (other, others)])
    rows = defects.select("experiment", "plate", "defect", "n", "n_checked").rows()
    assert rows == [
        ("e1", "2", "plate_without_controls", 1, 1),
        *((e, None, "experiment_without_pair", 1, 1) for e in ("e1", "e2", "e3")),
    ]
    assert (shares["plate"], shares["experiment"]) == (1 / 4, 1.0)
    assert found([(wells, images), experiment("e2")], min_controls=7)[1]["plate"] == 1.0


@given(seed=st.integers(0, 2**16))
def test_the_order_of_rows_and_experiments_changes_nothing(seed):
    # hypothesis and fixtures of functions do not mix: one broken experiment is enough.
    wells = pl.DataFrame(
        {
            "experiment": "e1",
            "plate": ["1", "1", "2", "2"],
            "row": 1,
            "column": [1, 2, 1, 2],
            "cell_type": "HUVEC",
            "layout": ["A", "A", "A", "A"],
            "role": ["negative_control", "perturbation"] * 2,
            "treatments": [[]] * 4,
            "well_id": list("abcd"),
        },
        schema_overrides={"treatments": pl.List(TREATMENT)},
    )
    images = pl.DataFrame(
        {
            "image_id": list("abc"),
            "well_id": list("abx"),
            "height": [5, 0, 5],
            "width": 5,
            "channels": [2, 2, 1],
            "index": [0, None, 1],
            "uri": ["p", "q", "p"],
        }
    )
    other = wells.with_columns(experiment=pl.lit("e2"), well_id="e2" + pl.col("well_id"))
    tables = [(wells, images), (other, images.clear())]
    mixed = [(w.sample(fraction=1, shuffle=True, seed=seed), i) for w, i in tables[::-1]]
    assert found(tables)[0].equals(found(mixed)[0])


def test_limits_are_told_by_level():
    shares = {"image": 0.11, "well": 0.2, "plate": 0.5, "experiment": 1.0}
    told = refusal(shares, CheckKnobs())
    assert "11.0% of the images" in told and "(qc.check.max_plates)" in told
    assert "wells" not in told and "experiments" not in told
    assert refusal(shares, CheckKnobs(max_images=0.11, max_plates=0.5)) == ""


def test_every_kind_of_defect_says_how_to_mend_it(experiment):
    wells, images = experiment("e1")
    items = experiment_defects(wells, images, survey([(wells, images)]), CheckKnobs())
    assert items["defect"].to_list() == ["experiment_without_pair"]
    assert all(mend for _, mend in MEND.values())


def test_tables_that_are_absent_or_empty_are_told_in_one_line(experiment, tmp_path):
    argv = [f"--defects={tmp_path / 'defects.parquet'}", "--screen=made-up"]
    with pytest.raises(UserError, match="made-up: 0 tables of wells and 0 of images"):
        main(argv)
    wells, images = experiment("e1")
    write_wells(tmp_path / "w", wells.clear(), {})
    write_images(tmp_path / "i", images.clear(), {})
    with pytest.raises(UserError, match="w: no well, wanted at least one"):
        main([*argv, "--wells", str(tmp_path / "w"), "--images", str(tmp_path / "i")])


def test_the_command_keeps_the_table_of_a_refused_screen(experiment, tmp_path):
    tables = [experiment("e1"), experiment("e2")]
    bare = tables[0][0].with_columns(pl.col("treatments").list.head(0))
    tables[0] = (bare, tables[0][1])
    flags = {"wells": [], "images": []}
    for number, (wells, images) in enumerate(tables):
        for kind, write, table in (
            ("wells", write_wells, wells),
            ("images", write_images, images),
        ):
            path = tmp_path / f"{kind}-{number}.parquet"
            write(path, table, {})
            flags[kind].append(str(path))
    argv = ["--wells", *flags["wells"], "--images", *flags["images"]]
    argv += [f"--defects={tmp_path / 'defects.parquet'}", "--screen=made-up"]
    with pytest.raises(UserError, match=r"made-up: 25\.0% of the wells .* at most 20") as error:
        main(argv)
    kept = tmp_path / "defects.tsv"
    assert "\n" not in str(error.value) and str(kept) in str(error.value)
    assert pl.read_csv(kept, separator="\t")["defect"].to_list() == ["well_without_label"]
    assert not (tmp_path / "defects.parquet").exists()
    main([*argv, "--max-wells=0.3"])
    assert read_defects(tmp_path / "defects.parquet")["n"].to_list() == [6]
    assert not kept.exists()
