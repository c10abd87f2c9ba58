"""What users get wrong: each case ends in one clear line, or the well is set aside."""

import os
import subprocess
import sys

import imagecodecs
import numpy as np
import polars as pl
import pytest

from phenopipe.align import fit, moments
from phenopipe.formats.embeddings import write_embeddings
from phenopipe.formats.qc import read_qc_wells
from phenopipe.qc import images as qc_images
from phenopipe.qc import profiles as qc_profiles
from phenopipe.qc import wells as qc_wells
from phenopipe.screen import images, profiles
from tests.screen.plates import (
    arguments,
    by_row,
    complaint,
    image_knobs,
    pixels,
    profile_knobs,
    table,
)


@pytest.fixture
def plate(tmp_path, monkeypatch):
    """A sound plate in a folder of its own, which is also where the command runs."""
    monkeypatch.chdir(tmp_path)
    rows = table()
    pixels(rows, tmp_path)
    return tmp_path, rows


def refusal(folder, rows, knobs=None, step=images):
    """What the command says; nothing of its outputs may be left behind."""
    path = folder / "plate.csv"
    rows.write_csv(path)
    last = "profiles" if step is profiles else "pixels"
    said = complaint(step.main, arguments(folder, [path], knobs or image_knobs(), last=last))
    left = [p for p in (folder / "out").rglob("*") if p.is_file()]
    assert not left, left
    assert said.startswith("error: ") and "\n" not in said, said
    return said


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("../secret.png", "leaves the folder"),
        ("a/../../secret.png", "leaves the folder"),
        ("/etc/hostname", "is absolute"),
        ("link.png", "leaves the folder"),
        ("linked/secret.png", "leaves the folder"),
    ],
)
def test_a_path_that_leaves_its_root_is_refused_with_file_and_row(plate, bad, told):
    folder, rows = plate
    outside = folder.parent / f"{folder.name}-outside"
    outside.mkdir()
    (outside / "secret.png").write_bytes((folder / "A01_dna.png").read_bytes())
    (folder / "link.png").symlink_to(outside / "secret.png")
    (folder / "linked").symlink_to(outside)
    bent = rows.with_columns(dna=pl.Series(["A01_dna.png", bad, "b1_dna.png"]))
    said = refusal(folder, bent)
    assert told in said and f"{folder / 'plate.csv'}, row 2" in said and bad in said


def test_a_path_may_not_leave_a_root_that_is_not_the_tables_folder(plate):
    folder, rows = plate
    (folder / "root").mkdir()
    said = refusal(
        folder, rows.with_columns(dna=pl.lit("../A01_dna.png")), image_knobs(root="root")
    )
    assert "row 1" in said and "leaves the folder root" in said


@pytest.mark.parametrize("column", ["plate", "well", "role", "compound", "dose", "dna"])
def test_a_table_without_a_needed_column_names_the_column_and_its_key(plate, column):
    folder, rows = plate
    said = refusal(folder, rows.drop(column))
    assert f"no column {column!r}, wanted by " in said and "plate.csv" in said


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"role": pl.lit("mock")}, "row 1: unknown role 'mock'"),
        ({"well": pl.lit("A1")}, "rows of well e1/p1/A01 disagree"),
        ({"compound": pl.lit("x"), "dose": pl.lit("much")}, "'much', wanted a number"),
    ],
)
def test_a_table_with_a_wrong_cell_names_the_row(plate, change, told):
    folder, rows = plate
    assert told in refusal(folder, rows.with_columns(**change))


def test_two_rows_of_one_site_and_channel_are_refused(plate):
    folder, rows = plate
    said = refusal(folder, pl.concat([rows, rows[1:2]]))
    assert "row 4: site e1/p1/A02/1, channel dna is already in" in said and "row 2" in said


def test_an_empty_selection_is_refused(plate):
    folder, rows = plate
    assert "no row is left with plate in ['p9']" in refusal(
        folder, rows, image_knobs(where={"plate": ["p9"]})
    )
    long = by_row(rows)
    knobs = image_knobs(files={}, file="path", channel="stain", channels=["nuclei"])
    assert "no row has one of the channels" in refusal(folder, long, knobs)


def test_a_table_that_is_no_table_is_refused(plate):
    folder, _ = plate
    for name, content in (("plate.csv", ""), ("plate.parquet", "x"), ("plate.xlsx", "x")):
        (folder / name).write_text(content)
        said = complaint(images.main, arguments(folder, [folder / name], image_knobs()))
        assert said.startswith("error: ") and name in said and "\n" not in said
    said = complaint(images.main, arguments(folder, [folder / "none.csv"], image_knobs()))
    assert "none.csv: no such file" in said


@pytest.mark.parametrize("how", ["missing", "header", "pixels"])
def test_too_many_unreadable_files_stop_the_step(plate, how):
    folder, rows = plate
    path = folder / "A2_dna.png"
    if how == "missing":
        path.unlink()
    elif how == "header":
        path.write_bytes(b"\x89PNG\r\n\x1a\n")
    else:
        path.write_bytes(path.read_bytes()[:-20])
    said = refusal(folder, rows)
    assert "1 of 3 sites cannot be read, wanted at most 5%" in said and "A2_dna.png" in said


def test_no_readable_file_at_all_is_told_with_the_first(plate):
    folder, rows = plate
    said = refusal(folder, rows, image_knobs(root="elsewhere"))
    assert "no image can be read (A01_dna.png: no such file)" in said


def test_a_command_ends_with_one_line_and_no_traceback(plate):
    folder, rows = plate
    rows.drop("role").write_csv(folder / "plate.csv")
    argv = arguments(folder, [folder / "plate.csv"], image_knobs())
    run = subprocess.run(
        [sys.executable, "-m", "phenopipe.screen.images", *argv],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.returncode == 1 and run.stdout == ""
    assert run.stderr.count("\n") == 1 and "no column 'role'" in run.stderr


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (table(), "no feature column"),
        (table().with_columns(f=pl.lit("x")), "feature 'f' holds String"),
        (table().with_columns(f=pl.Series([1.0, None, None])), "1 features are missing"),
    ],
)
def test_a_table_that_holds_no_sound_profiles_is_refused(plate, rows, told):
    folder, _ = plate
    assert told in refusal(folder, rows, profile_knobs(), step=profiles)


def test_unreadable_knobs_are_refused_in_one_line(plate):
    folder, rows = plate
    rows.write_csv(folder / "plate.csv")
    argv = arguments(folder, [folder / "plate.csv"], image_knobs())
    said = complaint(images.main, [*argv, "--max-unreadable", "3"])
    assert said.startswith("error: max_unreadable") and "\n" not in said


def flags(folder, *knobs, last="pixels"):
    """Qc of the experiment that a screen step just wrote."""
    out, names = folder / "out", ["--screen", "own", "--experiment", "e1"]
    wells = ["--wells", str(out / "wells.parquet"), "--images", str(out / "images.parquet")]
    metrics = str(out / "metrics.parquet")
    if last == "pixels":
        pixels_ = ["--pixels", str(out / "images.zarr")]
        qc_images.main([*wells, *pixels_, "--metrics", metrics, *names])
    else:
        profiles_ = ["--profiles", str(out / "profiles.parquet")]
        qc_profiles.main([*wells[:2], *profiles_, "--metrics", metrics, *names])
    made = ["--metrics", metrics, "--flags", str(out / "qc.parquet")]
    qc_wells.main([*wells, *made, *names, *knobs])
    return dict(read_qc_wells(out / "qc.parquet").select("well_id", "reason").iter_rows())


def spoil(path, how):
    image = imagecodecs.png_decode(path.read_bytes())
    if how == "size":
        path.write_bytes(imagecodecs.png_encode(image[:-1]))
    elif how == "channels":
        path.write_bytes(imagecodecs.png_encode(np.stack([image] * 3, axis=-1)))
    else:
        path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("how", "reason"), [("size", "size"), ("channels", "channels"), ("truncated", "pixels")]
)
def test_an_odd_image_is_set_aside_and_qc_says_why(plate, capsys, how, reason):
    folder, rows = plate
    pixels(rows, folder, size=(32, 32))
    spoil(folder / "A2_dna.png", how)
    rows.write_csv(folder / "plate.csv")
    knobs = image_knobs(max_unreadable=0.5)
    assert complaint(images.main, arguments(folder, [folder / "plate.csv"], knobs)) == ""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "plate.csv, row 2: " in lines[0] and "A2_dna.png" in lines[0]
    reasons = flags(folder)
    assert reason in reasons["e1/p1/A02"].split(", ")
    others = [told.split(", ") for well, told in reasons.items() if well != "e1/p1/A02"]
    assert not any({"size", "channels", "pixels"} & set(told) for told in others)


def test_a_missing_feature_is_set_aside_by_qc(plate):
    folder, rows = plate
    nan = pl.Series([1.0, float("nan"), 2.0])
    rows.with_columns(f1=nan, f2=pl.Series([1.0, 2.0, 3.0])).write_csv(folder / "p.csv")
    argv = arguments(folder, [folder / "p.csv"], profile_knobs(), last="profiles")
    assert complaint(profiles.main, argv) == ""
    reasons = flags(folder, last="profiles")
    assert reasons == {"e1/p1/A01": "", "e1/p1/A02": "features", "e1/p1/B01": ""}


@pytest.mark.parametrize(
    ("enabled", "told"),
    [
        ("false", "experiment e1 has 0 wells of role negative_control"),
        # Its wells fail as well: qc has set the whole experiment aside.
        ("true", "no well of any experiment passes qc"),
    ],
)
def test_an_experiment_without_controls_is_refused_by_name(plate, enabled, told):
    folder, rows = plate
    treated = rows.with_columns(role=pl.lit("treated"), compound=pl.lit("taxol"))
    pixels(rows, folder, size=(32, 32))
    treated.write_csv(folder / "plate.csv")
    images.main(arguments(folder, [folder / "plate.csv"], image_knobs()))
    flags(folder, f"--enabled={enabled}")
    out = folder / "out"
    ids = read_qc_wells(out / "qc.parquet")["well_id"].to_list()
    x_WBD = np.ones((len(ids), 1, 4), dtype=np.float32)
    store = {"block_numbers": [1], "block_dims": [4], "stamp": {}}
    write_embeddings(out / "e.zarr", x_WBD, ids, **store)
    files = ["--embeddings", str(out / "e.zarr"), "--wells", str(out / "qc.parquet")]
    names = ["--screen", "own", "--encoder", "any"]
    gathered = ["--moments", str(out / "m.npz")]
    assert not complaint(moments.main, [*files, *names, "--experiment", "e1", *gathered])
    made = ["--axes", str(out / "t.npz"), "--controls", str(out / "c.parquet")]
    said = complaint(fit.main, [*gathered, *made, *names])
    assert said.startswith("error: ") and "\n" not in said
    assert told in said
    assert not (out / "t.npz").exists()
