"""`drop`: pixels and embeddings go once nothing needs them; nothing else comes of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from phenopipe.formats.fingerprint import fingerprint

ROOT = Path(__file__).parents[1]
STORES = ("results/screen/simulated/a-1/images.zarr", "results/embed/simulated/pixels/a-1.zarr")
CONFIG = {
    "screens": {
        "simulated": {
            "source": "simulated",
            "experiments": {"a-1": {"layout": "A"}},
            "active_groups": 2,
            "silent_groups": 1,
            "genes_per_group": 2,
            "guides": 1,
            "biased_arms": 0,
            "compounds": 0,
            "plates": 1,
            "negative_controls": 12,
            "image_size": 64,
        }
    },
    "encoders": {"pixels": {"kind": "pixels", "crop": 32}},
    # Says what the encoder is used on.
    "manifests": {"chosen": {"screens": ["simulated"], "judges": ["pixels"]}},
}


def snakemake(folder, config, *flags):
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile")]
    command += ["--configfile", "config.yaml", "--cores", "2", *flags]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.workflow
def test_stores_go_and_all_else_is_the_same(tmp_path):
    kept, dropped = tmp_path / "kept", tmp_path / "dropped"
    target = "results/align/simulated/pixels/a-1/moments.npz"
    for folder, drop in ((kept, []), (dropped, ["images", "embeddings"])):
        folder.mkdir()
        snakemake(folder, {**CONFIG, "drop": drop}, target)
    assert all((kept / store).is_dir() for store in STORES)
    assert not any((dropped / store).exists() for store in STORES)
    assert fingerprint(dropped / target) == fingerprint(kept / target)
    config = {**CONFIG, "drop": ["images", "embeddings"]}
    assert "Nothing to be done" in snakemake(dropped, config, target)
    # Nor does the knob itself rerun anything.
    assert "Nothing to be done" in snakemake(kept, config, target)
    assert all((kept / store).is_dir() for store in STORES)
