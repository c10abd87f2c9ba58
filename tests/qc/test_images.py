import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from phenopipe.errors import UserError
from phenopipe.formats.images import write_images, write_pixels
from phenopipe.formats.qc import read_metrics
from phenopipe.formats.wells import write_wells
from phenopipe.qc import images as step
from phenopipe.qc.config import ImagesKnobs
from phenopipe.qc.images import main, measure_sites, nuclear_channel


@pytest.fixture
def plate(made_up):
    """Twelve wells of made-up cells; in the last one all cells are dead."""
    rng = np.random.default_rng(2)
    fields = [made_up.field(rng) for _ in range(11)]
    fields.append(made_up.field(rng, nucleus=2.5, light=(40.0, 160.0, 20.0)))
    wells = made_up.wells_of([("negative_control", [])] * 6 + [("perturbation", [])] * 6)
    return wells, made_up.images_of(wells), made_up.to_bytes(np.stack(fields))


def test_nuclei_and_dead_cells_are_counted(plate, made_up):
    metrics = measure_sites(*plate, made_up.channels, ImagesKnobs())
    assert metrics["image_id"].to_list() == plate[1]["image_id"].to_list()
    # Cells of the made-up field may overlap.
    assert metrics["objects"].is_between(7, 12).all()
    assert metrics["dead_cells"][-1] > 0.8 and metrics["dead_cells"][:-1].max() < 0.2


def test_chunks_change_nothing(plate, made_up, monkeypatch):
    whole = measure_sites(*plate, made_up.channels, ImagesKnobs())
    monkeypatch.setattr(step, "_PIXELS_AT_ONCE", 5 * plate[2][0].size)
    chunked = measure_sites(*plate, made_up.channels, ImagesKnobs())
    assert_frame_equal(whole, chunked, rel_tol=1e-4)


def test_a_site_without_pixels_has_no_metrics_and_shifts_no_other(plate, made_up):
    wells, images, pixels = plate
    whole = measure_sites(wells, images, pixels, made_up.channels, ImagesKnobs())
    lost = pl.col("index").is_in([7])
    fewer = images.with_columns(
        index=pl.when(lost).then(None).otherwise(pl.col("index") - (pl.col("index") > 7))
    )
    metrics = measure_sites(
        wells, fewer, np.delete(pixels, 7, axis=0), made_up.channels, ImagesKnobs()
    )
    assert metrics["objects"][7] is None
    others = pl.int_range(12) != 7
    assert_frame_equal(metrics.filter(others), whole.filter(others), rel_tol=1e-4)


def test_an_experiment_without_any_pixels_has_empty_metrics(plate, made_up):
    wells, images, pixels = plate
    none = images.with_columns(index=pl.lit(None, pl.Int64))
    metrics = measure_sites(wells, none, pixels[:0], made_up.channels, ImagesKnobs())
    assert metrics.height == 12


def test_the_nuclear_channel_is_named_or_found():
    assert nuclear_channel(["er", "Hoechst 33342"], None) == 1
    assert nuclear_channel(["red", "green"], None) == 0
    assert nuclear_channel(["dna", "er"], "er") == 1
    with pytest.raises(UserError, match="found 'blue', wanted dna, er"):
        nuclear_channel(["dna", "er"], "blue")


def test_the_command_writes_metrics(plate, made_up, tmp_path):
    wells, images, pixels = plate
    write_wells(tmp_path / "wells.parquet", wells, {})
    write_images(tmp_path / "images.parquet", images, {})
    write_pixels(
        tmp_path / "images.zarr",
        iter(pixels),
        shape=pixels.shape,
        channels=made_up.channels,
        dtype="uint8",
        stamp={},
    )
    flags = [
        f"--{name}={tmp_path / file}"
        for name, file in {
            "wells": "wells.parquet",
            "images": "images.parquet",
            "pixels": "images.zarr",
            "metrics": "metrics.parquet",
        }.items()
    ]
    main([*flags, "--screen", "made-up", "--experiment", "e1"])
    metrics = read_metrics(tmp_path / "metrics.parquet")
    assert metrics.equals(measure_sites(*plate, made_up.channels, ImagesKnobs()))
