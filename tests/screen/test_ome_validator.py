"""A validator of OME-Zarr finds our test plates sound, and reads them as we do."""

import hashlib
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from phenopipe.formats.images import pixel_facts
from tests.screen.public import ome_zarr
from tests.screen.test_ome_zarr import read

OTHERS = Path(__file__).parents[2] / ".venv" / "others" / "bin" / "python"
pytestmark = pytest.mark.skipif(
    not OTHERS.exists(), reason="no .venv/others, which make test installs"
)
# Walks plate -> well -> field by the validator's models alone, as the specification has it.
SCRIPT = """
import hashlib, json, sys, warnings
warnings.simplefilter("ignore")
import numpy as np
import zarr
from importlib import import_module
version, *plates = sys.argv[1:]
models = import_module("ome_zarr_models.v" + version.replace(".", ""))
told = {}
for path in plates:
    hcs = models.HCS.from_zarr(zarr.open_group(path, mode="r"))
    plate = hcs.attributes.plate if version == "0.4" else hcs.ome_attributes.plate
    for well in plate.wells:
        inner = models.Well.from_zarr(zarr.open_group(f"{path}/{well.path}", mode="r"))
        fields = (inner.attributes if version == "0.4" else inner.ome_attributes).well.images
        for field in fields:
            if field.acquisition:
                continue
            group = zarr.open_group(f"{path}/{well.path}/{field.path}", mode="r")
            image = models.Image.from_zarr(group)
            about = image.attributes if version == "0.4" else image.ome_attributes
            scales = about.multiscales[0]
            first = scales.datasets[0]
            pixels = np.asarray(group[first.path][0, :, 0])
            size = first.coordinateTransformations[0].scale[-1]
            for one in scales.coordinateTransformations or ():
                size *= one.scale[-1]
            shown = about.omero if isinstance(about.omero, dict) else about.omero.model_dump()
            labels = [channel["label"] for channel in shown["channels"]]
            name = f"{plate.name}/{well.path}/{int(field.path) + 1}"
            told[name] = {
                "size": size,
                **{
                    label: hashlib.sha256(plane.astype("<u2").tobytes()).hexdigest()
                    for label, plane in zip(labels, pixels, strict=True)
                },
            }
print(json.dumps(told))
"""


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_validator_reads_the_same_pixels_stains_and_sizes(tmp_path, version):
    ome_zarr(tmp_path, version)
    plates = sorted(map(str, tmp_path.glob("*.ome.zarr")))
    done = subprocess.run(
        [OTHERS, "-I", "-c", SCRIPT, version, *plates], capture_output=True, text=True, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout.splitlines()[-1])
    assert len(theirs) == 2 * (4 + 3)
    ours = {}
    stains = {"channels": ["DNA", "Mito"], "channel_words": {}}
    for number in (1, 2):
        wells, images, store = read(tmp_path, f"week-{number}", **stains)
        facts = pixel_facts(tmp_path / f"out/week-{number}/images.zarr")
        assert facts["pixel_size_um"] == 0.5
        address = dict(wells.select("well_id", "well").iter_rows())
        for one in images.iter_rows(named=True):
            well = address[one["well_id"]]
            name = f"P{number}/{well[0]}/{int(well[1:])}/{one['site']}"
            planes = np.asarray(store[one["index"]])
            ours[name] = {
                "size": 0.5,
                **{
                    stain: hashlib.sha256(plane.astype("<u2").tobytes()).hexdigest()
                    for stain, plane in zip(("DNA", "Mito"), planes, strict=True)
                },
            }
    assert ours == theirs
