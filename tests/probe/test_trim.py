import pytest
import torch

from phenopipe.encoders.base import EncoderConfig
from phenopipe.encoders.folder import build, load_encoder, save_encoder
from phenopipe.errors import UserError
from phenopipe.formats.tables import read_json, write_json
from phenopipe.probe.trim import cost_of, main

CONFIGS = {
    "mae": EncoderConfig(
        kind="mae",
        architecture="mae",
        channels=("DNA", "ER"),
        crop=16,
        model_args={"crop": 16, "patch": 8, "channels": 2, "dim": 32, "depth": 4, "heads": 2},
    ),
    "vit": EncoderConfig(
        kind="vit",
        architecture="vit_tiny_patch16_224",
        channels=("DNA", "ER"),
        crop=32,
        pooling="class",
        model_args={"img_size": 32, "in_chans": 2, "depth": 4, "embed_dim": 48, "num_heads": 3},
    ),
    "cnn": EncoderConfig(
        kind="cnn",
        architecture="resnet10t",
        channels=("DNA", "ER"),
        crop=64,
        model_args={"in_chans": 2},
    ),
}


def arguments(folder, kind, block):
    write_json(folder / "best.json", {"encoder": kind, "task": "anax", "block": block}, {})
    return [
        f"--model={folder}/{kind}/model.safetensors",
        f"--config={folder}/{kind}/config.json",
        f"--best={folder}/best.json",
        f"--trimmed-model={folder}/{kind}-trimmed/model.safetensors",
        f"--trimmed-config={folder}/{kind}-trimmed/config.json",
        f"--card={folder}/{kind}-trimmed/README.md",
        f"--encoder={kind}-trimmed",
    ]


def save(folder, kind):
    torch.manual_seed(0)
    save_encoder(folder / kind, build(CONFIGS[kind]))


@pytest.mark.parametrize("kind", ["mae", "vit", "cnn"])
@pytest.mark.parametrize("block", [1, 3])
def test_trimmed_encoder_ends_with_the_best_block(tmp_path, kind, block):
    save(tmp_path, kind)
    main(arguments(tmp_path, kind, block))
    whole, cut = load_encoder(tmp_path / kind), load_encoder(tmp_path / f"{kind}-trimmed")
    crop = CONFIGS[kind].crop
    images_NCHW = torch.randint(0, 255, (3, 2, crop, crop), dtype=torch.uint8)
    full_NBD, cut_NBD = whole.forward_blocks(images_NCHW), cut.forward_blocks(images_NCHW)
    width = cut.block_dims[-1]
    assert cut.block_numbers[-1] == block and width == whole.block_dims[block - 1]
    difference = (cut_NBD[:, -1, :width] - full_NBD[:, block - 1, :width]).abs().max()
    assert difference < 1e-6
    assert cut.config.trimmed_from == kind and cut.config.best_block == block
    count = [sum(p.numel() for p in e.model.parameters()) for e in (cut, whole)]
    assert count[0] < count[1]
    saved = cut.config.saved
    assert saved["parameters"] == count[1] - count[0]
    assert saved["whole_parameters"] == count[1]
    assert 0 < saved["flops_a_crop"] < saved["whole_flops_a_crop"]
    assert whole.config.saved is None
    assert "saved" not in read_json(tmp_path / kind / "config.json")
    card = (tmp_path / f"{kind}-trimmed/README.md").read_text()
    assert f"{saved['parameters']:,} of {count[1]:,} parameters" in card


def test_operations_are_those_of_the_products():
    _, flops = cost_of(CONFIGS["vit"])
    tokens, dim, depth = 4 + 1, 48, 4
    # Query, key, value; two products of attention; projection; two layers four times as wide.
    block = 2 * tokens * dim * (3 * dim + 2 * tokens + dim + 2 * 4 * dim)
    patches = 2 * 4 * dim * (2 * 16 * 16)
    assert flops == depth * block + patches


def test_best_block_of_another_encoder_is_refused(tmp_path):
    save(tmp_path, "mae")
    listed = arguments(tmp_path, "mae", 2)
    write_json(tmp_path / "best.json", {"encoder": "vit", "block": 2}, {})
    with pytest.raises(UserError, match="best block of encoder 'vit', wanted 'mae'"):
        main(listed)
