"""Random embeddings: as many as wells, another draw for each experiment, the same each time."""

import numpy as np
import pytest

from phenopipe.embed.random import main, random_embeddings
from phenopipe.formats.embeddings import read_attributes, read_block
from phenopipe.formats.wells import write_wells
from tests.benchmark.plates import knockouts, wells_of


def embed(tmp_path, experiment, *flags):
    write_wells(tmp_path / "wells.parquet", wells_of(knockouts(["A", "B"])), {})
    out = tmp_path / f"{experiment}-{len(flags)}.zarr"
    names = ["--screen=s", "--encoder=random", f"--experiment={experiment}"]
    main([f"--wells={tmp_path}/wells.parquet", f"--embeddings={out}", *names, *flags])
    return out


def test_every_well_gets_numbers_of_its_own(tmp_path):
    first = embed(tmp_path, "e1", "--dim=16")
    x_WD = read_block(first, 1)
    assert x_WD.shape == (8, 16) and x_WD.std() == pytest.approx(1, abs=0.2)
    assert not np.array_equal(x_WD, read_block(embed(tmp_path, "e2", "--dim=16"), 1))
    again = embed(tmp_path / "again", "e1", "--dim=16")
    assert np.array_equal(x_WD, read_block(again, 1))
    assert read_attributes(first)["encoder"] == read_attributes(again)["encoder"]


def test_draws_are_standard_normal():
    x_WBD = random_embeddings(["w"] * 400, 50, np.random.default_rng(0))
    assert x_WBD.shape == (400, 1, 50) and x_WBD.dtype == np.float32
    assert abs(x_WBD.mean()) < 0.02 and abs(x_WBD.std() - 1) < 0.02
