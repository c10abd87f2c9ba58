"""OME-Zarr plates of both versions: wells, labels, pixel size, and what may be wrong."""

import json
import shutil

import numpy as np
import pytest

from phenopipe.errors import UserError
from phenopipe.formats.images import pixel_channels
from tests.screen.public import ome_zarr, plane, screen_experiment

COLUMNS = {
    **{name: name for name in ("plate", "well", "role")},
    "cell_type": {"constant": "A549"},
    "treatments": [{"perturbation": "compound", "kind": {"constant": "compound"}}],
}
SETTINGS = {
    "columns": COLUMNS,
    "roles": {"negative_control": ["ctrl"], "perturbation": ["trt"]},
    "untreated": ["DMSO"],
    "channels": ["DNA", "mitochondria"],
    "channel_words": {"mitochondria": ["Mito"]},
}


def read(folder, experiment, **changes):
    return screen_experiment(folder, "ome_zarr", experiment, **{**SETTINGS, **changes})


def lines(capsys):
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_plates_of_both_versions_are_read_by_channel_name(tmp_path, capsys, version):
    ome_zarr(tmp_path, version)
    for number, n_wells in ((1, 4), (2, 3)):
        wells, images, store = read(tmp_path, f"week-{number}")
        assert wells.height == 4 and images.height == 2 * n_wells
        assert images["site"].to_list()[:2] == [1, 2]
        assert store.shape == (2 * n_wells, 2, 20, 24) and store.dtype == np.uint16
        for index, channel, stain in ((0, 0, "DNA"), (3, 1, "Mito"), (5, 0, "DNA")):
            well = ["A/1", "A/2", "B/1"][index // 2]
            name = f"P{number}/{well}/{index % 2}/{stain}"
            assert np.array_equal(store[index, channel], plane(name, (20, 24), np.uint16))
    assert pixel_channels(tmp_path / "out/week-2/images.zarr") == ["DNA", "mitochondria"]
    assert lines(capsys) == []


def damaged(path, how):
    if how == "absent":
        shutil.rmtree(path)
    elif how == "no chunk":
        shutil.rmtree(path / "0/0" if (path / "0/.zarray").exists() else path / "0/c")
    elif how == "no metadata":
        for name in (".zattrs", "zarr.json"):
            (path / name).unlink(missing_ok=True)
    elif how == "torn metadata":
        for name in (".zattrs", "zarr.json"):
            if (path / name).exists():
                (path / name).write_text('{"attributes": {"ome"')
    else:
        (chunk,) = (p for p in path.glob("0/**/1/0/0/0") if p.is_file())
        chunk.write_bytes(chunk.read_bytes()[:-30])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("absent", "no .zattrs or zarr.json"),
        ("no metadata", "no .zattrs or zarr.json"),
        ("torn metadata", "not readable JSON"),
        ("no chunk", "all its pixels are 0"),
        ("truncated", "cannot be decoded"),
    ],
)
def test_a_damaged_field_is_told_and_the_rest_goes_on(tmp_path, capsys, version, how, told):
    ome_zarr(tmp_path, version)
    damaged(tmp_path / "plate-1.ome.zarr/B/2/1", how)
    _, images, store = read(tmp_path, "week-1", max_unreadable=0.2)
    assert store[6].any() and images["index"].to_list()[:7] == list(range(7))
    found = lines(capsys)
    assert len(found) == 1 and told in found[0] and "B/2" in found[0]


def test_plates_wells_and_channels_that_do_not_fit_are_told(tmp_path, capsys):
    table = ome_zarr(tmp_path, "0.5")
    with pytest.raises(UserError, match=r"no channel 'Actin', found \['DNA', 'Mito'\]"):
        read(tmp_path, "week-1", channels=["Actin"], channel_words={})
    table.filter(table["well"] != "A02").write_csv(tmp_path / "wells.csv")
    _, images, _ = read(tmp_path, "week-1")
    assert images.height == 6
    (told,) = lines(capsys)
    assert "of no well that is known; 2 sites left out" in told
    with pytest.raises(UserError, match="no row is left with experiment"):
        read(tmp_path, "week-9")
    shutil.rmtree(tmp_path / "plate-2.ome.zarr")
    with pytest.raises(UserError, match=r"no plate of \['P2'\]"):
        read(tmp_path, "week-2")
    (tmp_path / "wells.csv").unlink()
    with pytest.raises(UserError, match=r"no table of wells, wanted wells\.csv or"):
        read(tmp_path, "week-1")


def test_without_labels_channels_are_numbered(tmp_path):
    ome_zarr(tmp_path, "0.5")
    for path in (tmp_path / "plate-1.ome.zarr").glob("*/*/*/zarr.json"):
        told = json.loads(path.read_text())
        told["attributes"]["ome"].pop("omero", None)
        path.write_text(json.dumps(told))
    changes = {"channels": ["first"], "channel_words": {"first": ["0"]}}
    _, _, store = read(tmp_path, "week-1", **changes)
    assert np.array_equal(store[0, 0], plane("P1/A/1/0/Mito", (20, 24), np.uint16))
