"""Folders of encoders open with plain timm where nothing of this project is installed."""

import os
import site
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from phenopipe.encoders.base import EncoderConfig
from phenopipe.encoders.folder import build, load_encoder, save_encoder
from phenopipe.encoders.standardize import self_standardize

CHANNELS = ("dna", "actin", "er")
VIT = {"in_chans": 3, "img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 3}
TAGGED = "vit_tiny_patch16_224.augreg_in21k"
CONFIGS = {
    "vit": EncoderConfig("vit", "vit_tiny_patch16_224", CHANNELS, 16, VIT, pooling="class"),
    "tagged": EncoderConfig("vit", TAGGED, CHANNELS, 16, VIT, pooling="class"),
    "cnn": EncoderConfig("cnn", "tf_efficientnet_lite0", CHANNELS, 32, {"in_chans": 3}),
    "mobilenet": EncoderConfig("cnn", "mobilenetv3_small_050", CHANNELS, 32, {"in_chans": 3}),
    "resnet": EncoderConfig("cnn", "resnet18", CHANNELS, 32, {"in_chans": 3}),
}
SCRIPT = """
import importlib.util, sys
from pathlib import Path
assert importlib.util.find_spec("phenopipe") is None
import timm, torch
for folder in map(Path, sys.argv[1:]):
    wanted = torch.load(folder / "wanted.pt")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.no_grad():
        if wanted["features"]:
            found = model(wanted["x"])[-1].mean((2, 3))
        elif wanted["class"]:
            found = model.forward_features(wanted["x"])[:, 0]
        else:
            found = model.forward_features(wanted["x"]).mean((2, 3))
    assert torch.allclose(found, wanted["y"], atol=1e-6), folder
print("opened", len(sys.argv) - 1)
"""


@pytest.fixture(scope="module")
def clean_python(tmp_path_factory):
    """A Python of its own that has this one's packages, but none that is installed in place."""
    place = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    # A folder named by a .pth file is searched, the .pth files in it are not run.
    (found,) = place.glob("lib/python*/site-packages")
    (found / "packages.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return place / "bin" / "python"


def folders(place):
    """Whole and trimmed encoders, each with crops and what the last block gives for them."""
    for name, config in CONFIGS.items():
        torch.manual_seed(0)
        whole = build(config).eval()
        # Fresh statistics of batches would leave later stages with nothing to tell apart.
        save_encoder(place / name, whole)
        block = len(whole.block_dims) - 1
        save_encoder(place / f"{name}-trimmed", load_encoder(place / name, trim=block))
        for folder, encoder in ((name, whole), (f"{name}-trimmed", None)):
            yield place / folder, encoder or load_encoder(place / folder)


def test_whole_and_trimmed_encoders_open_without_this_project(tmp_path, clean_python):
    made = []
    for folder, encoder in folders(tmp_path):
        side, vit = encoder.config.crop, encoder.config.kind == "vit"
        x = self_standardize(torch.rand(2, len(CHANNELS), side, side))
        trimmed = encoder.config.best_block is not None
        with torch.no_grad():
            y = [*encoder.pooled_blocks(x)][-1]
            if vit and not trimmed:
                # timm's own last word on a whole encoder has the final norm.
                y = encoder.model.norm(y)
            elif not vit and not trimmed:
                y = encoder.model.forward_features(x).mean((2, 3))
        wanted = {"x": x, "y": y, "class": vit, "features": trimmed and not vit}
        torch.save(wanted, folder / "wanted.pt")
        made.append(str(folder))
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [clean_python, "-c", SCRIPT, *made],
        **{"env": env, "cwd": tmp_path, "capture_output": True, "text": True},
    )
    assert done.stdout.strip() == f"opened {2 * len(CONFIGS)}", done.stdout + done.stderr
    assert Path(made[0]).name == "vit"
