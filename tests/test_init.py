"""A lab's own table becomes a configuration that passes every check."""

import imagecodecs
import numpy as np
import polars as pl
import pytest
import yaml

from phenopipe.config import load_config
from phenopipe.errors import UserError
from phenopipe.guess import guess
from phenopipe.init import main
from phenopipe.screen.columns import read_rows
from phenopipe.screen.profiles import feature_columns


def table_of(folder, **changed):
    """Two batches of eight wells with two channels, every file in its place."""
    rows = []
    for batch in ("week 1", "week 2"):
        for number in range(8):
            plate, well = batch.replace(" ", "-"), f"a{number + 1}"
            row = {"Batch": batch, "Plate_Name": plate, "Well_Position": well}
            row |= {
                "Compound": "DMSO" if number < 4 else "drug",
                "Dose": 0.0 if number < 4 else 2.5,
            }
            for channel in ("DNA", "Actin"):
                row[f"FileName_Orig{channel}"] = name = f"images/{plate}_{well}_{channel}.png"
                path = folder / name
                path.parent.mkdir(exist_ok=True, parents=True)
                pixels = np.full((8, 10), number + 1, dtype=np.uint8)
                path.write_bytes(imagecodecs.png_encode(pixels))
            rows.append(row)
    table = pl.DataFrame(rows).with_columns(**changed)
    table.write_csv(folder / "wells.csv")
    return folder / "wells.csv"


def test_a_table_of_files_becomes_a_screen_of_images(tmp_path, capsys):
    table = table_of(tmp_path)
    main([str(table), "--output", str(tmp_path / "mine.yaml"), "--screen", "pilot"])
    raw = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    screen = raw["screens"]["pilot"]
    assert screen["channels"] == ["DNA", "Actin"]
    assert screen["roles"] == {"negative_control": ["DMSO"], "perturbation": ["drug"]}
    assert screen["untreated"] == ["DMSO"]
    assert screen["columns"]["treatments"][0]["concentration"] == "Dose"
    assert list(screen["experiments"]) == ["week-1", "week-2"]
    assert set(load_config(raw).encoders) == {"pixels", "untrained"}
    told = capsys.readouterr().out
    assert "unit of column Dose: micromolar" in told
    assert (
        "week-2: 1 plates, 8 wells (4 negative control, 4 perturbation), 1 conditions,"
        " 16 files of 8 x 10 uint8" in told
    )


@pytest.mark.parametrize(
    ("changed", "repeated"),
    [
        ({}, False),
        ({"Plate_Name": pl.lit("plate-1")}, True),
        ({"Layout": pl.lit("A")}, True),
        ({"Plate_Name": pl.lit("plate-1"), "Layout": pl.col("Batch")}, False),
        ({"Batch": pl.lit("week 1")}, False),
    ],
)
def test_replicates_are_matched_where_a_layout_repeats(tmp_path, capsys, changed, repeated):
    table = table_of(tmp_path, **changed)
    main([str(table), "--output", str(tmp_path / "mine.yaml")])
    raw = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    assert ("replicates" in raw["benchmarks"]["map"]) == repeated
    assert ("replicates: left out" in capsys.readouterr().out) != repeated
    assert raw["screens"]["mine"]["columns"].get("layout") == (
        "Layout" if "Layout" in changed else None
    )


def test_what_is_mended_is_checked_again(tmp_path, capsys):
    table = table_of(tmp_path)
    output = tmp_path / "mine.yaml"
    main([str(table), "--output", str(output)])
    with pytest.raises(UserError, match=r"mine\.yaml exists, wanted another --output"):
        main([str(table), "--output", str(output)])
    (tmp_path / "images" / "week-1_a1_DNA.png").unlink()
    capsys.readouterr()
    main([str(table), "--check", str(output)])
    assert "1 of them unreadable: images/week-1_a1_DNA.png" in capsys.readouterr().out
    output.write_text(output.read_text().replace("well: Well_Position", "well: Address"))
    with pytest.raises(UserError, match=r"no column 'Address'.*columns\.well"):
        main([str(table), "--check", str(output)])


def test_rows_of_channels_and_sites_are_told_apart(tmp_path):
    table = pl.DataFrame(
        {
            "plate": ["p"] * 4,
            "well": ["A01", "A01", "A02", "A02"],
            "control": ["negcon", "negcon", "", ""],
            "sgRNA": ["", "", "A_1", "A_1"],
            "gene_symbol": ["", "", "A", "A"],
            "field": [1, 1, 1, 1],
            "stain": ["DNA", "ER"] * 2,
            "path": ["a.tif", "b.tif", "c.tif", "d.tif"],
        }
    )
    screen, told, _ = guess(table, "t.csv")
    assert (screen["file"], screen["channel"], screen["site"]) == ("path", "stain", "field")
    assert screen["channels"] == ["DNA", "ER"]
    treatment = screen["columns"]["treatments"][0]
    assert treatment == {
        "perturbation": "sgRNA",
        "kind": {"constant": "knockout"},
        "gene": "gene_symbol",
    }
    assert screen["roles"] == {"negative_control": ["negcon"], "perturbation": [""]}
    assert "blank cells of column control: perturbation" in told
    assert screen["experiments"] == {"all": {}}


def test_a_table_of_features_becomes_a_screen_of_profiles(tmp_path, capsys):
    rng = np.random.default_rng(0)
    features = {f"Cells_{i}": rng.normal(size=6) for i in range(12)}
    about = {
        "Metadata_Plate": ["p"] * 6,
        "Metadata_Well": [f"A{i:02d}" for i in range(1, 7)],
        "Metadata_control_type": ["negcon"] * 3 + ["poscon_diverse"] + [None] * 2,
        "Metadata_broad_sample": [None] * 3 + ["x", "y", "z"],
    }
    pl.DataFrame(about | features).write_csv(tmp_path / "p.csv")
    main([str(tmp_path / "p.csv"), "--output", str(tmp_path / "mine.yaml")])
    raw = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    assert raw["screens"]["mine"]["source"] == "profiles"
    assert "3 negative control, 2 perturbation, 1 positive control" in capsys.readouterr().out


def test_what_says_where_a_well_is_and_what_it_got_is_no_feature(tmp_path, capsys):
    rng = np.random.default_rng(0)
    about = {
        "week": [1, 1, 2, 2],
        "plate": [1, 1, 2, 2],
        "well": ["A01", "A02"] * 2,
        "compound": ["DMSO", "x"] * 2,
        "dose_um": [0.0, 2.5] * 2,
        "operator": ["a", "a", "b", "b"],
        "incubator": [1, 2, 1, 2],
    }
    features = {f"f{i}": rng.normal(size=4) for i in range(12)}
    pl.DataFrame(about | features).write_csv(tmp_path / "p.csv")
    output = tmp_path / "mine.yaml"
    main([str(tmp_path / "p.csv"), "--output", str(output)])
    told = capsys.readouterr().out
    assert "2: 1 plates, 2 wells (1 negative control, 1 perturbation), 1 conditions, 12" in told
    assert "leave_out: not decimal, so taken for no features: operator, incubator" in told
    knobs = load_config(yaml.safe_load(output.read_text())).knobs(
        "screen", "profiles", screen="mine", experiment="1"
    )
    assert feature_columns(read_rows([tmp_path / "p.csv"]), knobs) == list(features)
    output.write_text(output.read_text().replace("operator, ", ""))
    with pytest.raises(UserError, match="feature 'operator' holds String"):
        main([str(tmp_path / "p.csv"), "--check", str(output)])


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"Well_Position": None}, r"no column looks like well, wanted a name such as well"),
        ({"Compound": pl.lit("drug")}, r"no negative control in column Compound"),
        ({"FileName_OrigDNA": None, "FileName_OrigActin": None}, r"no column of image files"),
    ],
)
def test_what_cannot_be_guessed_is_told_in_one_line(tmp_path, changed, line):
    table = pl.read_csv(table_of(tmp_path))
    table = table.drop(name for name, value in changed.items() if value is None)
    table = table.with_columns(**{n: v for n, v in changed.items() if v is not None})
    with pytest.raises(UserError, match=line):
        guess(table, "wells.csv")


def test_experiments_of_one_name_are_numbered():
    table = pl.DataFrame(
        {
            "batch": ["a/1", "a 1"],
            "plate": ["p", "q"],
            "well": ["A01", "A01"],
            "compound": ["DMSO", "DMSO"],
            "file": ["a.png", "b.png"],
        }
    )
    assert guess(table, "t.csv").screen["experiments"] == {
        "experiment-1": {"where": {"batch": ["a 1"]}},
        "experiment-2": {"where": {"batch": ["a/1"]}},
    }
