"""Encoder folders are opened by timm alone, with the very lines of their model cards."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from phenopipe.encoders.base import EncoderConfig
from phenopipe.encoders.folder import build, load_encoder, save_encoder

CHANNELS = ("dna", "actin")
MAE = {"crop": 32, "patch": 4, "channels": 2, "dim": 16, "depth": 3, "heads": 2}
VIT = {"in_chans": 2, "img_size": 32, "patch_size": 4, "embed_dim": 12, "depth": 3}
CONFIGS = {
    "mae": EncoderConfig("mae", "mae", CHANNELS, 32, {**MAE, "mlp_ratio": 64 / 13}),
    "mae-class": EncoderConfig("mae", "mae", CHANNELS, 32, MAE, pooling="class"),
    "ca_mae": EncoderConfig("ca_mae", "ca_mae", CHANNELS, 32, {**MAE, "channels": 11}),
    "vit": EncoderConfig("vit", "vit_tiny_patch16_224", CHANNELS, 32, VIT, pooling="class"),
    "densenet": EncoderConfig("cnn", "densenet121", CHANNELS, 32, {"in_chans": 2}),
    "efficientnet": EncoderConfig(
        "cnn", "tf_efficientnet_lite0", CHANNELS, 32, {"in_chans": 2}
    ),
    "scaled": EncoderConfig(
        "vit", "vit_tiny_patch16_224", CHANNELS, 32, VIT, normalization="none"
    ),
}
# Runs the part of each card that needs timm only, where this package cannot be imported.
ALONE = """
import json, re, sys
from pathlib import Path
import numpy as np

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "phenopipe":
            raise ImportError("not here")

sys.meta_path.insert(0, Nowhere())
try:
    import phenopipe
except ImportError:
    pass
else:
    sys.exit("phenopipe can be imported")
import torch

for folder in map(Path, sys.argv[1:]):
    card = (folder / "README.md").read_text()
    own, alone = re.findall(r"```python\\n(.*?)```", card, flags=re.DOTALL)
    assert "phenopipe" in own and "phenopipe" not in alone
    known = {"images": torch.from_numpy(np.load(folder / "images.npy"))}
    with torch.no_grad():
        exec(alone.replace("this folder", str(folder)), known)
    np.savez(folder / "alone.npz", *(block.numpy() for block in known["blocks"]))
assert not any(name.split(".")[0] == "phenopipe" for name in sys.modules)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of whole and trimmed encoders, and the blocks that timm alone gave in each."""
    root = tmp_path_factory.mktemp("encoders")
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 32, 32)).astype(np.uint8)
    found = []
    for name, config in CONFIGS.items():
        torch.manual_seed(0)
        encoder = build(config)
        for tensor, parameter in encoder.named_parameters():
            # Fresh blocks add almost nothing (LayerScale 1e-4): make them differ.
            if tensor.endswith("ls.gamma"):
                parameter.data.fill_(0.5)
        save_encoder(root / name, encoder)
        save_encoder(root / f"{name}-trimmed", load_encoder(root / name, trim=2))
        found += [root / name, root / f"{name}-trimmed"]
    for folder in found:
        np.save(folder / "images.npy", images)
    # -I: neither PYTHONPATH nor the current folder.
    subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", ALONE, *map(str, found)], check=True
    )
    return root, torch.from_numpy(images)


@pytest.mark.parametrize(
    "name", [f"{name}{cut}" for name in CONFIGS for cut in ("", "-trimmed")]
)
def test_timm_alone_gives_the_same_blocks(folders, name):
    root, images = folders
    encoder = load_encoder(root / name)
    wanted = encoder.forward_blocks(images)
    with np.load(root / name / "alone.npz") as file:
        blocks = [torch.from_numpy(block) for block in file.values()]
    numbers = list(range(len(encoder.block_dims)))
    if encoder.config.kind == "cnn" and "trimmed" in name:
        numbers = numbers[-1:]
    assert len(blocks) == len(numbers)
    for number, block in zip(numbers, blocks, strict=True):
        exact = wanted[:, number, : block.shape[1]]
        assert block.shape[1] == encoder.block_dims[number]
        assert ((block - exact).abs() <= 1e-6 * (1 + exact.abs().max())).all()


def test_a_folder_says_both_how_timm_and_how_we_build_it(folders):
    root, _ = folders
    content = json.loads((root / "mae" / "config.json").read_text())
    assert content["architecture"] == "vit_base_patch16_xp_224"
    assert content["model_args"]["embed_dim"] == 16
    loaded = load_encoder(root / "mae").config
    assert loaded == replace(CONFIGS["mae"], channels=CHANNELS)


def test_pixel_statistics_say_that_timm_cannot_open_them(tmp_path):
    config = EncoderConfig("pixels", "pixels", CHANNELS, 16, normalization="none")
    save_encoder(tmp_path, build(config))
    assert "timm alone cannot open it" in (tmp_path / "README.md").read_text()
