"""RxRx1, RxRx3 and RxRx3-core: whole trees, and each of their known faults."""

import numpy as np
import polars as pl
import pytest

from phenopipe.errors import UserError
from phenopipe.formats.images import pixel_channels
from phenopipe.formats.wells import conditions
from tests.screen.public import (
    jp2,
    plane,
    rxrx1,
    rxrx3,
    rxrx3_core,
    screen_experiment,
    write_shards,
)

STAINS = ["DNA", "ER", "AGP", "RNA", "Mito", "Golgi"]


def test_rxrx1_is_wells_of_sirnas_with_two_sites(tmp_path):
    rxrx1(tmp_path)
    for experiment, cells in (("HUVEC-01", "HUVEC"), ("RPE-02", "RPE")):
        wells, images, store = screen_experiment(tmp_path, "rxrx1", experiment)
        assert wells["well_id"].to_list()[:2] == [f"{experiment}/1/B02", f"{experiment}/1/B03"]
        assert wells["role"].to_list()[:3] == [
            "negative_control",
            "perturbation",
            "positive_control",
        ]
        assert set(wells["cell_type"]) == {cells} and wells["layout"].n_unique() == 2
        told = conditions(wells)
        assert set(told["kind"]) == {"sirna"} and "EMPTY" not in set(told["perturbation"])
        assert wells["Metadata_sirna_id"].to_list()[:3] == [1138, 1, 1108]
        assert images["site"].to_list()[:4] == [1, 2, 1, 2] and store.shape == (12, 6, 16, 16)
        file = f"{experiment}/Plate2/C04_s2_w5.png"
        assert np.array_equal(store[11, 4], plane(file, (16, 16)))
    assert pixel_channels(tmp_path / "out/RPE-02/images.zarr") == STAINS


def test_rxrx1_as_the_competition_had_it_lies_under_train(tmp_path):
    rxrx1(tmp_path)
    (tmp_path / "images").rename(tmp_path / "train")
    wells, _, store = screen_experiment(tmp_path, "rxrx1", "HUVEC-01")
    assert wells.height == 6 and store.shape[0] == 12


def test_channels_are_chosen_by_name(tmp_path):
    rxrx1(tmp_path)
    _, _, store = screen_experiment(tmp_path, "rxrx1", "HUVEC-01", channels=["Mito", "DNA"])
    file = "HUVEC-01/Plate1/B02_s1_w{}.png"
    assert np.array_equal(store[0, 0], plane(file.format(5), (16, 16)))
    assert np.array_equal(store[0, 1], plane(file.format(1), (16, 16)))
    with pytest.raises(ValueError, match="channel 'Tubulin' is unknown, wanted some of"):
        screen_experiment(tmp_path, "rxrx1", "HUVEC-01", channels=["Tubulin"])


def test_rxrx3_has_1536_wells_a_plate_guides_and_doses(tmp_path, capsys):
    rxrx3(tmp_path)
    wells, images, store = screen_experiment(tmp_path, "rxrx3", "gene-001")
    assert wells["well"].to_list()[:4] == ["A01", "A02", "B03", "AF48"]
    told = conditions(wells).row(2, named=True)
    assert told["gene"] == "CLDN4" and told["guide"] == told["perturbation"] == "CLDN4_guide_2"
    assert set(conditions(wells)["gene"]) == {"CLDN4", "RXRX3-12345"}
    assert store.dtype == np.uint16 and store.shape == (8, 6, 32, 32)
    assert wells["layout"].n_unique() == 1  # both plates hold the same at the same addresses
    file = "gene-001/Plate1/AF48_s1_w2.png"
    assert np.array_equal(store[3, 1], plane(file, (32, 32), np.uint16))
    assert capsys.readouterr().err == ""
    # A plate that was not brought is told, and the rest of the experiment goes on.
    wells, images, _ = screen_experiment(tmp_path, "rxrx3", "compound-001")
    assert set(wells["plate"]) == {"1"} and images["index"].to_list() == [0, 1, 2, 3]
    assert "plate 2: no image of its 4 wells is there" in capsys.readouterr().err
    assert wells["role"].to_list()[:2] == ["negative_control", "empty"]
    told = conditions(wells)
    assert told["concentration_um"].to_list() == [0.25, 0.026]
    assert set(told["perturbation"]) == {"drug_with_bar"} and told["gene"].is_null().all()
    assert wells["Metadata_SMILES"].to_list()[2] == "CC(C)C"


def test_rxrx3_core_puts_wells_together_that_shards_cut(tmp_path):
    rxrx3_core(tmp_path)
    for experiment in ("gene-001", "compound-001"):
        wells, images, store = screen_experiment(tmp_path, "rxrx3_core", experiment)
        assert wells.height == 8 and images["index"].to_list() == list(range(8))
        for index, image_id in images.select("index", "image_id").iter_rows():
            _, plate, well, _ = image_id.split("/")
            for channel in range(6):
                key = f"{experiment}/Plate{plate}/{well}_s1_{channel + 1}"
                assert np.array_equal(store[index, channel], plane(key, (32, 32)))
    # 32 rows a shard, 7 a row group: the sixth well has its first two rows in another shard.
    assert images["uri"][5].split("|")[1:3] == [
        "data/train-00002-of-00003.parquet#row=15",
        "data/train-00002-of-00003.parquet#row=16",
    ]


@pytest.mark.parametrize("group", [1, 100, 10**6])
def test_row_groups_of_any_size_give_the_same(tmp_path, group):
    rxrx3_core(tmp_path, shards=2, group=group)
    _, images, store = screen_experiment(tmp_path, "rxrx3_core", "gene-001")
    assert images.height == 8
    assert np.array_equal(store[7, 5], plane("gene-001/Plate2/B03_s1_6", (32, 32)))


def lines(capsys):
    return capsys.readouterr().err.splitlines()


def test_damaged_images_of_shards_are_set_aside_one_line_each(tmp_path, capsys):
    rxrx3_core(tmp_path)
    keys = [f"gene-001/Plate1/A01_s1_{at}" for at in range(1, 7)]
    keys += [f"gene-001/Plate1/A02_s1_{at}" for at in range(1, 7)]
    keys += [f"gene-001/Plate1/B03_s1_{at}" for at in range(1, 6)]
    keys += ["gene-001/Plate1/A01_s1_1", "gene-001/odd", "gene-001/Plate9/A01_s1_1"]
    encoded = [jp2(key) for key in keys]
    encoded[1] = encoded[1][:-300]
    for path in (tmp_path / "data").iterdir():
        path.unlink()
    write_shards(tmp_path, keys, encoded, 1, 4)
    (tmp_path / "data/train-00001-of-00002.parquet").write_bytes(b"PAR1 and no more")
    changes = {"max_unreadable": 0.7}
    _, images, store = screen_experiment(tmp_path, "rxrx3_core", "gene-001", **changes)
    assert store.shape[0] == 2 and np.array_equal(store[1, 0], plane(keys[6], (32, 32)))
    found = dict(images.select("well_id", "index").iter_rows())
    assert found == {
        "gene-001/1/A01": None,
        "gene-001/1/A02": 1,
        "gene-001/1/B03": None,
    }
    told = "\n".join(lines(capsys))
    for wanted in (
        "train-00001-of-00002.parquet: cannot be read",
        "key 'gene-001/odd', wanted EXPERIMENT/PlateN/A01_s1_1; 1 left out",
        "channel DNA for the second time; 1 left out",
        "#row=19: of no well that is known; 1 sites left out",
        "gene-001/1/A01/1 set aside: data/train-00000-of-00001.parquet#row=1: cannot be dec",
        "gene-001/1/B03/1 set aside: channel Golgi: no file named",
        "plate 2: no image of its 4 wells is there, left out",
    ):
        assert told.count(wanted) == 1, (wanted, told)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"well": "77"}, "row 3: well address '77'; left out, 2 rows in all"),
        ({"well_type": "mock"}, "row 3: unknown role 'mock'; left out, 2 rows in all"),
        ({"plate": None}, "row 3: no plate; left out, 2 rows in all"),
        ({"well": "B02"}, "rows of well HUVEC-01/1/B02 say different things about it"),
    ],
)
def test_a_row_that_cannot_be_understood_is_left_out_and_the_rest_goes_on(
    tmp_path, capsys, changed, told
):
    table = rxrx1(tmp_path)
    here = (pl.col("well_id") == "HUVEC-01_1_B03").alias("here")
    table = table.with_columns(
        pl.when(here).then(pl.lit(value)).otherwise(pl.col(name)).alias(name)
        for name, value in changed.items()
    )
    table.write_csv(tmp_path / "metadata.csv")
    wells, _, _ = screen_experiment(tmp_path, "rxrx1", "HUVEC-01", max_unreadable=0.5)
    assert wells.height == (4 if "say" in told else 5) and "HUVEC-01/1/B03" not in set(
        wells["well_id"]
    )
    assert sum(told in line for line in lines(capsys)) == 1
    # The other experiment knows nothing of it.
    assert screen_experiment(tmp_path, "rxrx1", "RPE-02")[0].height == 6
    assert lines(capsys) == []
    with pytest.raises(UserError, match="cannot be understood, wanted at most 5%"):
        screen_experiment(tmp_path, "rxrx1", "HUVEC-01")


def test_unknown_controls_are_told(tmp_path, capsys):
    table = rxrx3(tmp_path)
    odd = pl.col("treatment").replace("CRISPR_control", "DMSO_control")
    table.with_columns(odd).write_csv(tmp_path / "metadata_rxrx3.csv")
    wells, _, _ = screen_experiment(tmp_path, "rxrx3", "compound-001", max_unreadable=0.3)
    assert wells.height == 3
    assert any("unknown role 'DMSO_control'; left out, 2 rows" in one for one in lines(capsys))


@pytest.mark.parametrize(
    ("source", "make", "name", "column"),
    [
        ("rxrx1", rxrx1, "metadata.csv", "well_type"),
        ("rxrx3", rxrx3, "metadata_rxrx3.csv", "address"),
        ("rxrx3_core", rxrx3_core, "metadata_rxrx3_core.csv", "concentration"),
    ],
)
def test_an_absent_column_table_or_experiment_is_one_line(tmp_path, source, make, name, column):
    table = make(tmp_path)
    own = next(c for c in ("experiment", "experiment_name") if c in table.columns)
    experiment = table[own][0]
    table.drop(column).write_csv(tmp_path / name)
    with pytest.raises(UserError, match=f"{name}: no column '{column}', wanted by"):
        screen_experiment(tmp_path, source, experiment)
    table.write_csv(tmp_path / name)
    with pytest.raises(UserError, match=r"no row is left with .* in .'gene-999'."):
        screen_experiment(tmp_path, source, "gene-999")
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match="no table of wells, wanted"):
        screen_experiment(tmp_path, source, experiment)
    table.write_csv(tmp_path / name)
    for path in [*tmp_path.rglob("*.png"), *tmp_path.rglob("*.parquet")]:
        path.unlink()
    with pytest.raises(UserError, match=r"no shard, wanted|no image can be read"):
        screen_experiment(tmp_path, source, experiment)


def test_truncated_and_absent_pngs_are_set_aside(tmp_path, capsys):
    rxrx3(tmp_path)
    folder = tmp_path / "images/gene-001/Plate1"
    (folder / "A01_s1_w3.png").unlink()
    cut = folder / "A02_s1_w1.png"
    cut.write_bytes(cut.read_bytes()[:-40])
    _, images, _ = screen_experiment(tmp_path, "rxrx3", "gene-001", max_unreadable=0.3)
    assert images["index"].null_count() == 2 and images.height == 8
    told = lines(capsys)
    assert len(told) == 2 and "A01_s1_w3.png: no such file" in told[0]
    assert "A02_s1_w1.png: cannot be decoded" in told[1]
