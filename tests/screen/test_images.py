import imagecodecs
import numpy as np
import polars as pl
import pytest
import tifffile

from phenopipe.errors import UserError
from phenopipe.formats.files import Files, inside, look
from phenopipe.formats.images import open_pixels, pixel_channels, read_images
from phenopipe.formats.wells import conditions, read_wells
from phenopipe.screen.images import main
from tests.screen.plates import COLUMNS, arguments, by_row, image_knobs, pixels, table


def convert(folder, rows, knobs=None, name="plate.csv"):
    path = folder / name
    rows.write_csv(path)
    main(arguments(folder, [path], knobs or image_knobs()))
    out = folder / "out"
    return (
        read_wells(out / "wells.parquet"),
        read_images(out / "images.parquet"),
        open_pixels(out / "images.zarr"),
    )


def test_a_plate_becomes_wells_images_and_pixels(tmp_path):
    rows = table()
    pixels(rows, tmp_path)
    wells, images, store = convert(tmp_path, rows)
    assert wells["well_id"].to_list() == ["e1/p1/A01", "e1/p1/A02", "e1/p1/B01"]
    assert wells.select("row", "column").rows() == [(1, 1), (1, 2), (2, 1)]
    assert wells["role"].to_list() == ["negative_control", "perturbation", "perturbation"]
    assert wells["layout"].to_list() == ["p1"] * 3
    assert images["image_id"].to_list() == [f"{one}/1" for one in wells["well_id"]]
    assert images["index"].to_list() == [0, 1, 2]
    assert store.shape == (3, 2, 8, 10) and store.dtype == np.uint8
    assert store[:, :, 0, 0].tolist() == [[0, 1], [10, 11], [20, 21]]
    assert pixel_channels(tmp_path / "out/images.zarr") == ["dna", "actin"]


def test_doses_are_micromolar_and_an_untreated_well_has_no_treatment(tmp_path):
    rows = table()
    pixels(rows, tmp_path)
    wells, _, _ = convert(tmp_path, rows)
    assert wells["treatments"][0].to_list() == []
    assert conditions(wells)["concentration_um"].to_list() == [0.01, 0.1]
    assert wells["Metadata_dose"].to_list() == [None, 10.0, 100.0]


def test_one_row_a_channel_gives_the_same_as_one_row_a_site(tmp_path):
    rows = table()
    pixels(rows, tmp_path)
    wide, wide_images, wide_store = convert(tmp_path, rows)
    wide_pixels = wide_store[:]
    knobs = image_knobs(files={}, file="path", channel="stain", channel_words={"dna": ["d"]})
    long = by_row(rows).with_columns(pl.col("stain").replace("dna", "d"))
    wells, images, store = convert(
        tmp_path, long.sample(fraction=1, shuffle=True, seed=1), knobs
    )
    assert wells.equals(wide) and images.equals(wide_images)
    assert np.array_equal(store[:], wide_pixels)


def test_channels_are_mapped_by_name_in_the_order_of_the_configuration(tmp_path):
    rows = table()
    pixels(rows, tmp_path)
    _, _, store = convert(tmp_path, rows, image_knobs(channels=["actin", "dna"]))
    assert store[1, :, 0, 0].tolist() == [11, 10]


def test_files_may_be_named_by_a_template(tmp_path):
    rows = table()
    pixels(rows, tmp_path)
    names = {name: {"template": f"{{well}}_{name}.png"} for name in ("dna", "actin")}
    _, _, store = convert(tmp_path, rows.drop("dna", "actin"), image_knobs(files=names))
    assert store[2, :, 0, 0].tolist() == [20, 21]


@pytest.mark.parametrize("kind", ["png", "tif", "tif-lzw"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_and_tiff_of_8_and_16_bit_keep_every_value(tmp_path, kind, dtype):
    image = np.arange(80).reshape(8, 10).astype(dtype) * (np.iinfo(dtype).max // 80)
    path = tmp_path / "image"
    if kind == "png":
        path.write_bytes(imagecodecs.png_encode(image))
    else:
        tifffile.imwrite(path, image, compression="lzw" if kind == "tif-lzw" else None)
    assert look(path) == (8, 10, 1, np.dtype(dtype).name, None)
    found = np.empty((8, 10), dtype=dtype)
    Files(tmp_path).decode("image", found)
    assert np.array_equal(found, image)


def test_16_bit_images_are_stored_as_such(tmp_path):
    rows = table()
    pixels(rows, tmp_path, dtype=np.uint16)
    assert convert(tmp_path, rows)[2].dtype == np.uint16


def test_the_table_may_be_tsv_or_parquet(tmp_path):
    rows = table()
    pixels(rows, tmp_path)
    rows.write_parquet(tmp_path / "plate.parquet")
    rows.write_csv(tmp_path / "plate.tsv", separator="\t")
    for name in ("plate.parquet", "plate.tsv"):
        main(arguments(tmp_path, [tmp_path / name], image_knobs()))
        assert read_wells(tmp_path / "out/wells.parquet").height == 3


def test_rows_are_chosen_by_where_from_several_tables(tmp_path):
    paths = []
    for plate in ("1", "2"):
        rows = table(plate=plate).with_columns(dna=plate + pl.col("dna"))
        pixels(rows, tmp_path)
        paths.append(tmp_path / f"{plate}.csv")
        rows.write_csv(paths[-1])
    main(arguments(tmp_path, paths, image_knobs(where={"plate": [2], "well": ["A01", "b1"]})))
    wells = read_wells(tmp_path / "out/wells.parquet")
    assert wells["well_id"].to_list() == ["e1/2/A01", "e1/2/B01"]


def test_equal_runs_give_equal_bytes(tmp_path):
    rows = table()
    pixels(rows, tmp_path)
    (tmp_path / "plate.csv").write_text(rows.write_csv())
    for out in ("one", "two"):
        argv = arguments(tmp_path, [tmp_path / "plate.csv"], image_knobs(), out=tmp_path / out)
        main(argv)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*"))
    assert files
    for file in files:
        first, second = tmp_path / "one" / file, tmp_path / "two" / file
        assert first.is_dir() or first.read_bytes() == second.read_bytes()


def damage(path, how):
    image = imagecodecs.png_decode(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-20])
    elif how == "text":
        path.write_text("this is no image")
    elif how == "small":
        path.write_bytes(imagecodecs.png_encode(image[:4]))
    elif how == "rgb":
        path.write_bytes(imagecodecs.png_encode(np.stack([image] * 3, axis=-1)))
    elif how == "16 bit":
        path.write_bytes(imagecodecs.png_encode(image.astype(np.uint16)))


@pytest.mark.parametrize(
    ("how", "found", "told"),
    [
        ("missing", (0, 0), "no such file"),
        ("truncated", (0, 0), "cannot be decoded"),
        ("text", (0, 0), "A2_dna.png"),
        ("16 bit", (0, 0), "pixels of uint16, wanted uint8"),
        ("small", (4, 10), "4 x 10 pixels, wanted 8 x 10"),
        ("rgb", (8, 10), "4 channels, wanted 2"),
    ],
)
def test_an_odd_image_is_set_aside_with_one_line(tmp_path, capsys, how, found, told):
    rows = table()
    pixels(rows, tmp_path)
    damage(tmp_path / "A2_dna.png", how)
    _, images, store = convert(tmp_path, rows, image_knobs(max_unreadable=0.5))
    assert images["index"].is_null().to_list() == [False, True, False]
    assert images.select("height", "width").row(1) == found
    # The others keep their own pixels.
    at = images["index"][2]
    assert store[at, :, 0, 0].tolist() == [20, 21]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and told in lines[0] and "e1/p1/A02/1" in lines[0]


def test_a_site_without_one_channel_is_set_aside(tmp_path, capsys):
    rows = table()
    pixels(rows, tmp_path)
    long = by_row(rows).filter(~((pl.col("well") == "A2") & (pl.col("stain") == "actin")))
    knobs = image_knobs(files={}, file="path", channel="stain", max_unreadable=0.5)
    _, images, _ = convert(tmp_path, long, knobs)
    assert images["channels"].to_list() == [2, 1, 2]
    assert images["index"].to_list() == [0, None, 1]
    assert "channel actin: no file named" in capsys.readouterr().err


def test_symbolic_links_may_not_leave_the_root(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "outside.png").touch()
    (tmp_path / "root/link.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(UserError, match="leaves the folder"):
        inside(tmp_path / "root", "link.png")
    (tmp_path / "root/near.png").symlink_to("a.png")
    assert inside(tmp_path / "root", "near.png") == tmp_path.resolve() / "root/a.png"


def test_two_ways_to_name_files_are_refused():
    for changes in ({"file": "path"}, {"files": {}}, {"file": "path", "channel": "stain"}):
        with pytest.raises(ValueError, match="either files, or both"):
            image_knobs(**changes)
    with pytest.raises(ValueError, match="must name the screen's channels"):
        image_knobs(files={"dna": "dna"})


def test_several_treatments_a_well_are_kept_in_order(tmp_path):
    rows = table().with_columns(factor=pl.Series(["", "IL6", "TNF"]))
    pixels(rows, tmp_path)
    factor = {"perturbation": "factor", "kind": {"constant": "soluble_factor"}}
    columns = {**COLUMNS, "treatments": [*COLUMNS["treatments"], factor]}
    wells, _, _ = convert(tmp_path, rows, image_knobs(columns=columns))
    names = [
        [one["perturbation"] for one in listed] for listed in wells["treatments"].to_list()
    ]
    assert names == [[], ["taxol", "IL6"], ["taxol", "TNF"]]
    assert conditions(wells)["background"].to_list() == ["IL6", "TNF"]
