"""Fields of made-up cells: nuclei in the first channel, bodies in the two others."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from scipy.ndimage import gaussian_filter

from phenopipe.formats.images import IMAGES
from phenopipe.formats.wells import TREATMENT

CHANNELS = ["actin", "DNA", "er"]
SIZE = 96


def field(
    rng, *, n_cells=12, nucleus=4.0, body=8.0, light=(90.0, 70.0, 60.0), grain=0.0, blur=0.0
):
    """One site of shape (3, 96, 96): bodies, nuclei, grainy bodies; background 6."""
    y, x = np.mgrid[:SIZE, :SIZE]
    image = np.zeros((3, SIZE, SIZE))
    for _ in range(n_cells):
        cy, cx = rng.uniform(4, SIZE - 4, 2)
        away = np.hypot(y - cy, x - cx)
        cell = np.clip(body * rng.uniform(0.9, 1.1) - away, 0, 1)
        core = np.clip(nucleus * rng.uniform(0.9, 1.1) - away, 0, 1)
        image = np.maximum(image, np.stack([cell, core, cell * (away > nucleus)]))
    texture = gaussian_filter(rng.normal(size=(SIZE, SIZE)), 2)
    image[2] *= 1 + (0.2 + grain) * texture / texture.std()
    image *= np.array(light)[:, None, None]
    if blur:
        image = gaussian_filter(image, (0, blur, blur))
    return image + 6 + rng.normal(0, 1.2, image.shape)


def to_bytes(image):
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def wells_of(rows, *, plate="1"):
    """Wells from (role, treatments)."""
    return pl.DataFrame(
        {
            "screen": "made-up",
            "experiment": "e1",
            "plate": plate,
            "well": [f"A{n:02d}" for n in range(len(rows))],
            "row": 1,
            "column": list(range(len(rows))),
            "cell_type": "HUVEC",
            "role": [role for role, _ in rows],
            "treatments": [treatments for _, treatments in rows],
            "layout": "one",
            "well_id": [f"e1/{plate}/A{n:02d}" for n in range(len(rows))],
        },
        schema_overrides={
            "row": pl.Int32,
            "column": pl.Int32,
            "treatments": pl.List(TREATMENT),
        },
    )


def images_of(wells, *, sites=1):
    """Images of all wells, stored in their order."""
    rows = [
        (f"{well_id}/{site}", well_id, site, SIZE, SIZE, len(CHANNELS), None, None)
        for well_id in wells["well_id"]
        for site in range(1, sites + 1)
    ]
    schema = {name: dtype for name, (dtype, _) in IMAGES.columns.items()}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.with_columns(index=pl.int_range(frame.height, dtype=pl.Int64))


def guide(name):
    return {
        "perturbation": name,
        "kind": "knockout",
        "gene": name.split("_")[0],
        "guide": name,
        "concentration_um": None,
    }


@pytest.fixture
def made_up():
    """Everything above: tests do not import their neighbours."""
    return SimpleNamespace(
        channels=CHANNELS,
        field=field,
        to_bytes=to_bytes,
        wells_of=wells_of,
        images_of=images_of,
        guide=guide,
    )
