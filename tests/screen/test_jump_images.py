"""Images of JUMP-CP: files as three microscopes name them, and each known fault."""

import numpy as np
import polars as pl
import pytest
import tifffile

from phenopipe.errors import UserError
from phenopipe.formats.images import pixel_channels
from phenopipe.formats.wells import conditions
from phenopipe.screen.jump import experiments
from tests.screen.public import JUMP_CODES, jump, plane, screen_experiment, write_gzip

STAINS = ["DNA", "ER", "AGP", "RNA", "Mito"]


@pytest.fixture
def folder(tmp_path):
    jump(tmp_path)
    return tmp_path


def lines(capsys):
    return capsys.readouterr().err.splitlines()


def load_data(folder, batch="Run1", plate="CP-1"):
    home = folder / "source_13/workspace/load_data_csv"
    return home / batch / plate / "load_data_with_illum.csv"


def test_batches_are_experiments_of_plates_of_several_microscopes(folder, capsys):
    wells, images, store = screen_experiment(folder, "jump", "Run1")
    assert wells["well_id"].to_list()[::5] == ["Run1/CP-1/A01", "Run1/CP-2/A01"]
    roles = ["negative_control", "empty", "positive_control", "perturbation", "perturbation"]
    assert wells["role"].to_list() == roles * 2
    told = conditions(wells)
    assert told["perturbation"].to_list() == JUMP_CODES[2:] * 2
    assert told["gene"].to_list() == ["PLK1", "AAK1", "ABL1"] * 2
    assert set(told["kind"]) == {"knockout"} and set(wells["cell_type"]) == {"U2OS"}
    assert wells["layout"].n_unique() == 1
    assert images["site"].to_list()[:2] == [0, 1] and store.shape == (20, 5, 16, 16)
    assert pixel_channels(folder / "out/Run1/images.zarr") == STAINS
    for at, (plate, well, site) in enumerate([("CP-1", "A01", 0), ("CP-2", "A05", 1)]):
        for channel, stain in enumerate(STAINS):
            wanted = plane(f"{plate}{well}{site}{stain}", (16, 16), np.uint16)
            assert np.array_equal(store[at * 19, channel], wanted)
    assert lines(capsys) == []


def test_a_plate_without_load_data_is_left_out_and_told(folder, capsys):
    wells, _, _ = screen_experiment(folder, "jump", "Run2")
    assert set(wells["plate"]) == {"3"}  # a barcode that looks like a number
    assert lines(capsys) == ["warning: plate 4: no load_data of it is there, left out"]
    assert experiments(folder) == ["Run1", "Run2"]
    load_data(folder, "Run2", "3").unlink()
    assert experiments(folder) == ["Run1"]
    with pytest.raises(UserError, match="Run2: no plate has a load_data, wanted source_"):
        screen_experiment(folder, "jump", "Run2")


def test_plates_and_channels_are_chosen_by_name(folder):
    changes = {"where": {"Metadata_Plate": ["CP-2"]}, "channels": ["Brightfield", "Mito"]}
    wells, _, store = screen_experiment(folder, "jump", "Run1", **changes)
    assert set(wells["plate"]) == {"CP-2"}
    assert np.array_equal(store[0, 0], plane("CP-2A010Brightfield", (16, 16), np.uint16))
    with pytest.raises(UserError, match=r"no channel 'Golgi', found \['AGP', 'Brightfield'"):
        screen_experiment(folder, "jump", "Run1", channels=["Golgi"])


def test_known_faults_of_images_are_set_aside_one_line_each(folder, capsys):
    home = folder / "source_13/images/Run1/images/CP-1"
    files = sorted(home.glob("*C03.tif"))
    tifffile.imwrite(files[0], np.zeros((16, 16), np.uint16))
    files[1].write_bytes(files[1].read_bytes()[:-100])
    files[2].unlink()
    tifffile.imwrite(files[3], np.ones((8, 16), np.uint16))
    table = pl.read_csv(load_data(folder))
    pl.concat([table, table.tail(1)]).write_csv(load_data(folder))
    changes = {"where": {"Metadata_Plate": ["CP-1"]}, "max_unreadable": 0.4}
    _, images, store = screen_experiment(folder, "jump", "Run1", **changes)
    assert images["index"].is_null().to_list() == [True] * 4 + [False] * 6
    kept = images.filter(pl.col("index").is_not_null())["index"].to_list()
    assert np.array_equal(store[kept[0], 0], plane("CP-1A030DNA", (16, 16), np.uint16))
    told = lines(capsys)
    wanted = ["all its pixels are 0", "cannot be decoded", "no such file", "8 x 16 pixels"]
    wanted += ["channel DNA for the second time; 5 left out"]
    assert len(told) == len(wanted)
    assert all(sum(one in line for line in told) == 1 for one in wanted), told


@pytest.mark.parametrize(
    ("column", "told"),
    [
        ("Metadata_Site", "no column 'Metadata_Site', wanted by load_data; plate left out"),
        ("FileName_OrigDNA", "no channel DNA"),
    ],
)
def test_a_load_data_without_a_column_loses_its_plate_alone(folder, capsys, column, told):
    path = load_data(folder, plate="CP-2")
    pl.read_csv(path).drop(column).write_csv(path)
    if column == "Metadata_Site":
        wells, _, _ = screen_experiment(folder, "jump", "Run1")
        assert set(wells["plate"]) == {"CP-1"}
        assert any(told in line for line in lines(capsys))
    else:
        _, images, _ = screen_experiment(folder, "jump", "Run1", max_unreadable=0.5)
        assert images["index"].null_count() == 10
        assert "channel DNA: no file named" in lines(capsys)[0]


@pytest.mark.parametrize(("name", "column"), [("plate", "Batch"), ("well", "JCP2022")])
def test_a_table_without_a_column_is_one_line(folder, name, column):
    path = folder / f"metadata/{name}.csv.gz"
    write_gzip(path, pl.read_csv(path).drop(f"Metadata_{column}"))
    with pytest.raises(UserError, match=rf"{name}.csv.gz: no column 'Metadata_{column}'"):
        screen_experiment(folder, "jump", "Run1")


def test_duplicate_wells_and_unknown_controls_are_left_out(folder, capsys):
    path = folder / "metadata/well.csv.gz"
    wells = pl.read_csv(path)
    again = wells.head(1).with_columns(Metadata_JCP2022=pl.lit("JCP2022_801000"))
    write_gzip(path, pl.concat([wells, wells.tail(1), again]))
    control = folder / "metadata/perturbation_control.csv"
    control.write_text(control.read_text() + "JCP2022_801001,mock,ABL1,crispr\n")
    found, _, _ = screen_experiment(folder, "jump", "Run1", max_unreadable=0.3)
    assert found.height == 7
    told = lines(capsys)
    assert any("unknown role 'mock'; left out, 2 rows in all" in one for one in told)
    assert any("rows of well Run1/CP-1/A01 say different things" in one for one in told)
