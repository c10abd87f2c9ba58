"""The sheet of experiments, and the entry that reads it, from every layout."""

import shutil

import polars as pl
import pytest
import yaml

from phenopipe.config import load_config
from phenopipe.errors import UserError
from phenopipe.screen.discover import main
from phenopipe.wiring import Wiring
from tests.screen.plates import complaint, table
from tests.screen.public import jump, ome_zarr, rxrx1, rxrx3, rxrx3_core

LAYOUTS = {
    "rxrx1": (rxrx1, ["HUVEC-01", "RPE-02"]),
    "rxrx3": (rxrx3, ["compound-001", "gene-001"]),
    "rxrx3_core": (rxrx3_core, ["compound-001", "gene-001"]),
    "jump": (jump, ["Run1", "Run2"]),
    "ome_zarr": (lambda folder: ome_zarr(folder, "0.5"), ["week-1", "week-2"]),
}


@pytest.mark.parametrize("source", LAYOUTS)
def test_every_layout_is_recognized_and_its_entry_is_a_configuration(tmp_path, capsys, source):
    make, names = LAYOUTS[source]
    folder = tmp_path / "screen"
    folder.mkdir()
    make(folder)
    main([str(folder)])
    config = yaml.safe_load(capsys.readouterr().out)
    one = config["screens"]["screen"]
    assert one["source"] == source
    if source == "ome_zarr":
        assert one["channels"] == ["Mito", "DNA"] and one["pixel_size_um"] == 0.5
        where = {name: name for name in ("plate", "well", "role")}
        one["columns"] = {**where, "cell_type": {"constant": "A549"}}
        config["screens"]["screen"]["tables"] = [str(folder / "wells.csv")]
    loaded = load_config(config)
    assert list(loaded.experiments("screen")) == names
    for experiment in names:
        files = Wiring(loaded, tmp_path).tables("screen", experiment)
        assert files and all(path.startswith(str(folder)) for path in files)
    channels = loaded.knobs("screen", "images", screen="screen", experiment=names[0]).channels
    assert list(channels) == one["channels"]


def test_an_encoder_takes_the_channels_of_its_layout_and_unknown_ones_are_refused(tmp_path):
    rxrx1(tmp_path)
    screen = {"source": "rxrx1", "path": ".", "experiments": {"HUVEC-01": {}}}
    config = {
        "data": str(tmp_path),
        "screens": {"s": screen},
        "encoders": {"x": {"kind": "timm"}},
        "benchmarks": {"b": {"screen": "s", "encoders": ["x"]}},
    }
    knobs = load_config(config).knobs("embed", "prepare", encoder="x")
    assert list(knobs.channels) == ["DNA", "ER", "AGP", "RNA", "Mito", "Golgi"]
    config["screens"]["s"] = {**screen, "channels": ["Mito", "DNA"]}
    knobs = load_config(config).knobs("embed", "prepare", encoder="x")
    assert list(knobs.channels) == ["Mito", "DNA"]
    config["screens"]["s"] = screen
    shared = load_config({**config, "screen": {"images": {"channels": ["RNA"]}}})
    names = {"screen": "s", "experiment": "HUVEC-01"}
    assert shared.knobs("screen", "images", **names).channel_words == {"RNA": ("4",)}
    config["screens"]["s"] = {**screen, "channels": ["Tubulin"]}
    with pytest.raises(UserError, match="channel 'Tubulin' is unknown, wanted some of"):
        load_config(config)
    config["screens"]["s"] = {**screen, "stains": ["DNA"]}
    with pytest.raises(UserError, match=r"screens\.s.*stains: unknown key"):
        load_config(config)


def test_only_experiments_with_images_are_listed(tmp_path):
    rxrx3(tmp_path)
    shutil.rmtree(tmp_path / "images/gene-001")
    main([str(tmp_path)])
    assert pl.read_csv(tmp_path / "experiments.csv")["experiment"].to_list() == ["compound-001"]
    shutil.rmtree(tmp_path / "images")
    assert "no experiment of rxrx3 has images there" in complaint(main, [str(tmp_path)])


def test_a_folder_or_table_that_is_none_is_told_in_one_line(tmp_path):
    assert "no layout that is known, wanted one of" in complaint(main, [str(tmp_path)])
    assert "no folder, wanted one" in complaint(main, [str(tmp_path / "nowhere")])
    table().write_csv(tmp_path / "own.csv")
    said = complaint(main, [str(tmp_path / "own.csv"), "--by", "week"])
    assert "own.csv: no column 'week', wanted by --by" in said


def test_a_table_of_your_own_gives_a_sheet_that_chooses_its_rows(tmp_path):
    rows = pl.concat([table(plate="7"), table(plate="8")])
    rows.write_csv(tmp_path / "own.csv")
    main([str(tmp_path / "own.csv"), "--by", "plate"])
    config = {
        "data": str(tmp_path),
        "screens": {
            "own": {
                "source": "images",
                "tables": ["own.csv"],
                "experiments": "experiments.parquet",
                "columns": {n: n for n in ("plate", "well", "role")} | {"cell_type": "role"},
                "roles": {"negative_control": ["dmso"]},
                "channels": ["dna"],
                "files": {"dna": "dna"},
            }
        },
    }
    loaded = load_config(config)
    knobs = loaded.knobs("screen", "images", screen="own", experiment="8")
    assert list(loaded.experiments("own")) == ["7", "8"] and knobs.where == {"plate": ("8",)}
