from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from phenopipe.formats.images import write_images, write_pixels
from phenopipe.formats.manifests import MANIFEST
from phenopipe.formats.qc import write_qc_wells
from phenopipe.formats.tables import write_table
from phenopipe.pretrain.sites import find_sites

CHANNELS = ("dna", "actin")
SIDE = 20


@dataclass
class Screen:
    """Files of one made-up experiment."""

    folder: Path
    wells: Path
    manifest: Path
    images: Path
    pixels: Path

    def sites(self, crop=16):
        wells = pl.read_parquet(self.manifest)
        return find_sites([self.images], [self.pixels], wells, crop)


def wells_of(experiment, n_wells):
    """Wells in two genes whose cells differ: stripes that run down or across."""
    genes = ["A", "B"]
    return pl.DataFrame(
        [
            {
                "screen": "made",
                "experiment": experiment,
                "plate": "1",
                "well": f"A{at:02d}",
                "row": 1,
                "column": at,
                "cell_type": "HUVEC",
                "role": "perturbation",
                "treatments": [
                    {
                        "perturbation": f"{genes[at % 2]}_guide_1",
                        "kind": "knockout",
                        "gene": genes[at % 2],
                        "guide": f"{genes[at % 2]}_guide_1",
                        "concentration_um": None,
                    }
                ],
                "layout": "L",
                "well_id": f"{experiment}/1/A{at:02d}",
            }
            for at in range(1, n_wells + 1)
        ],
        schema={name: dtype for name, (dtype, _) in MANIFEST.columns.items()},
    )


def stripes(gene, rng):
    phase, along = rng.uniform(0, 6), np.arange(SIDE)
    wave = 100 + 60 * np.sin(along * 1.2 + phase)
    image = np.broadcast_to(wave[:, None] if gene == "A" else wave, (SIDE, SIDE))
    noisy = image + rng.normal(0, 5, (len(CHANNELS), SIDE, SIDE))
    return noisy.clip(0, 255).astype(np.uint8)


def make_screen(folder, *, experiment="one", n_wells=24, channels=CHANNELS, facts=None):
    folder.mkdir(parents=True, exist_ok=True)
    stamp = {"names": {"screen": "made", "experiment": experiment}}
    wells = wells_of(experiment, n_wells)
    ids = wells["well_id"]
    images = pl.DataFrame(
        {
            "image_id": [f"{well_id}/1" for well_id in ids],
            "well_id": ids,
            "site": [1] * n_wells,
            "height": [SIDE] * n_wells,
            "width": [SIDE] * n_wells,
            "channels": [len(channels)] * n_wells,
            "index": list(range(n_wells)),
            "uri": [None] * n_wells,
        },
        schema_overrides={
            **dict.fromkeys(("site", "height", "width", "channels"), pl.Int32),
            "uri": pl.String,
        },
    )
    rng = np.random.default_rng(0)
    pixels = [stripes("AB"[at % 2], rng)[: len(channels)] for at in range(1, n_wells + 1)]
    screen = Screen(
        folder,
        folder / "wells.parquet",
        folder / "manifest.parquet",
        folder / "images.parquet",
        folder / "images.zarr",
    )
    flagged = wells.drop("saved_by", "judge", "p_value").with_columns(
        n_images=pl.lit(1, pl.Int32), passes=pl.lit(True), reason=pl.lit("")
    )
    write_qc_wells(screen.wells, flagged, stamp)
    write_table(screen.manifest, wells, MANIFEST, stamp)
    write_images(screen.images, images, stamp)
    shape = (n_wells, len(channels), SIDE, SIDE)
    facts = {"channels": channels, "dtype": "uint8", "stamp": stamp, "facts": facts}
    write_pixels(screen.pixels, pixels, shape=shape, **facts)
    return screen


@pytest.fixture(scope="session")
def screen(tmp_path_factory):
    return make_screen(tmp_path_factory.mktemp("screen"))
