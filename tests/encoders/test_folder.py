import json
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch

from phenopipe.encoders.base import EncoderConfig
from phenopipe.encoders.folder import build, load_encoder, save_encoder, timm_kind
from phenopipe.encoders.standardize import self_standardize
from phenopipe.errors import UserError

CHANNELS = ("dna", "actin")
MAE = {"crop": 16, "patch": 4, "channels": 2, "dim": 16, "depth": 3, "heads": 2}
VIT = {"in_chans": 2, "img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 3}
CONFIGS = {
    "mae": EncoderConfig("mae", "mae", CHANNELS, 16, MAE),
    "ca_mae": EncoderConfig("ca_mae", "ca_mae", CHANNELS, 16, {**MAE, "channels": 11}),
    "vit": EncoderConfig("vit", "vit_tiny_patch16_224", CHANNELS, 16, VIT, pooling="class"),
    "cnn": EncoderConfig("cnn", "tf_efficientnet_lite0", CHANNELS, 32, {"in_chans": 2}),
    "dinov3": EncoderConfig(
        *("cnn", "vit_small_patch16_dinov3", CHANNELS, 16, {**VIT, "num_heads": 3}),
        pooling="class",
    ),
    "pixels": EncoderConfig("pixels", "pixels", CHANNELS, 16, normalization="none"),
}


@pytest.fixture(params=CONFIGS)
def encoder(request):
    torch.manual_seed(0)
    built = build(CONFIGS[request.param]).eval()
    for name, parameter in built.named_parameters():
        # Fresh blocks add almost nothing (LayerScale 1e-4): make them differ.
        if name.endswith("ls.gamma"):
            parameter.data.fill_(0.5)
    return built


def crops(encoder):
    rng = np.random.default_rng(0)
    side = encoder.config.crop
    return torch.from_numpy(rng.integers(0, 256, (3, 2, side, side)).astype(np.uint8))


def test_loaded_encoder_gives_the_same_blocks(tmp_path, encoder):
    save_encoder(tmp_path, encoder)
    loaded = load_encoder(tmp_path)
    assert loaded.config == encoder.config
    assert torch.equal(
        loaded.forward_blocks(crops(encoder)), encoder.forward_blocks(crops(encoder))
    )


def test_equal_encoders_give_equal_bytes(tmp_path, encoder):
    for name in ("first", "second"):
        save_encoder(tmp_path / name, encoder, {"step": "test"})
    for file in ("model.safetensors", "config.json", "README.md"):
        first, second = ((tmp_path / name / file).read_bytes() for name in ("first", "second"))
        assert first == second


def test_trimmed_encoder_ends_with_its_block_and_survives_saving(tmp_path, encoder):
    save_encoder(tmp_path / "whole", encoder)
    blocks = encoder.forward_blocks(crops(encoder))
    for block in {1, max(1, len(encoder.block_numbers) - 1)}:
        cut = load_encoder(tmp_path / "whole", trim=block)
        save_encoder(tmp_path / "cut", cut)
        again = load_encoder(tmp_path / "cut")
        found = again.forward_blocks(crops(encoder))
        width = encoder.block_dims[block - 1]
        assert again.block_numbers == list(range(1, block + 1))
        assert (again.config.best_block, again.config.trimmed_from) == (block, "whole")
        assert torch.allclose(found[:, -1, :width], blocks[:, block - 1, :width], atol=1e-6)


def test_trimming_at_a_block_that_does_not_exist(tmp_path):
    save_encoder(tmp_path, build(CONFIGS["mae"]))
    with pytest.raises(UserError, match="no block 4, found blocks 1 to 3"):
        load_encoder(tmp_path, trim=4)


@pytest.mark.parametrize("name", ["vit", "dinov3"])
def test_class_tokens_of_all_blocks_equal_timms(name):
    torch.manual_seed(0)
    encoder = build(CONFIGS[name]).eval()
    x = self_standardize(crops(encoder))
    with torch.no_grad():
        tokens = encoder.model.forward_intermediates(
            x, return_prefix_tokens=True, intermediates_only=True, output_fmt="NLC"
        )
    found = encoder.forward_blocks(crops(encoder))
    for block, (_, prefix) in enumerate(tokens):
        assert torch.allclose(found[:, block], prefix[:, 0], atol=1e-6)


@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_no_block_keeps_its_tokens(pooling):
    encoder = build(replace(CONFIGS["vit"], pooling=pooling)).eval()
    with torch.no_grad():
        blocks = [*encoder.pooled_blocks(torch.rand(3, 2, 16, 16))]
    # A view of the class tokens would hold all of the block's tokens in memory.
    assert [one.untyped_storage().nbytes() for one in blocks] == [3 * 12 * 4] * 3


def test_blocks_of_an_mae_equal_timms_intermediates_averaged():
    torch.manual_seed(0)
    encoder = build(CONFIGS["mae"]).eval()
    with torch.no_grad():
        tokens = encoder.model.forward_intermediates(
            self_standardize(crops(encoder)), intermediates_only=True, output_fmt="NLC"
        )
    found = encoder.forward_blocks(crops(encoder))
    for block, patches in enumerate(tokens):
        assert torch.allclose(found[:, block], patches.mean(dim=1), atol=1e-6)


def test_stages_of_a_cnn_are_averaged_and_padded():
    encoder = build(CONFIGS["cnn"]).eval()
    assert encoder.block_dims == [16, 24, 40, 112, 320]
    with torch.no_grad():
        maps = encoder.model.forward_intermediates(
            self_standardize(crops(encoder)), intermediates_only=True
        )
    found = encoder.forward_blocks(crops(encoder))
    assert found.shape == (3, 5, 320)
    for block, stage in enumerate(maps):
        width = stage.shape[1]
        assert torch.allclose(found[:, block, :width], stage.mean((2, 3)), atol=1e-6)
        assert not found[:, block, width:].any()


def test_pixel_statistics_are_those_of_numpy():
    encoder = build(CONFIGS["pixels"])
    images = crops(encoder)
    found = encoder.forward_blocks(images).numpy()[:, 0].reshape(3, 2, -1)
    x = images.numpy().reshape(3, 2, -1) / 255
    assert np.allclose(found[..., 0], x.mean(-1), atol=1e-6)
    assert np.allclose(found[..., 1], x.std(-1), atol=1e-6)
    medians = np.quantile(x, 0.5, axis=-1, method="nearest")
    assert np.allclose(found[..., 5], medians, atol=1 / 255)


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_timm_opens_the_folder_of_a_timm_encoder(tmp_path, kind):
    torch.manual_seed(0)
    encoder = build(CONFIGS[kind]).eval()
    save_encoder(tmp_path, encoder)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = self_standardize(crops(encoder))
    with torch.no_grad():
        assert torch.equal(model.forward_features(x), encoder.model.forward_features(x))


def test_timm_opens_a_trimmed_vit_and_ends_with_its_block(tmp_path):
    encoder = build(CONFIGS["vit"]).eval()
    save_encoder(tmp_path / "whole", encoder)
    save_encoder(tmp_path / "cut", load_encoder(tmp_path / "whole", trim=2))
    model = timm.create_model(f"local-dir:{tmp_path / 'cut'}", pretrained=True).eval()
    with torch.no_grad():
        found = model.forward_features(self_standardize(crops(encoder)))[:, 0]
    assert torch.allclose(found, encoder.forward_blocks(crops(encoder))[:, 1], atol=1e-6)


def test_crop_wider_than_the_models_input_loses_its_margin():
    torch.manual_seed(0)
    config = EncoderConfig(
        "vit", "vit_tiny_patch16_224", CHANNELS, 18, VIT, normalization="none"
    )
    encoder = build(config).eval()
    images = torch.rand(1, 2, 18, 18)
    changed = images.clone()
    changed[..., 0, :] = 0
    changed[..., -1] = 0
    first, second = (encoder.forward_blocks(x) for x in (images, changed))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json: not the configuration"),
        (lambda f: (f / "config.json").write_text("{}"), "config.json: not the configuration"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json: not the configuration"),
        (
            lambda f: (f / "model.safetensors").write_bytes(b"torn"),
            "not a readable safetensors",
        ),
        (lambda f: (f / "model.safetensors").unlink(), "not a readable safetensors"),
    ],
)
def test_broken_folder_gives_one_clear_line(tmp_path, change, message):
    save_encoder(tmp_path, build(CONFIGS["mae"]))
    change(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        load_encoder(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("kind", "mea"), ("pooling", "max"), ("normalization", "foo"), ("channels", "abc")],
)
def test_values_that_do_not_fit_are_named(tmp_path, key, value):
    save_encoder(tmp_path, build(CONFIGS["vit"]))
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**content, key: value}))
    with pytest.raises(UserError, match=rf"{key}: Input should be .* \(found '{value}'\)"):
        load_encoder(tmp_path)


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    encoder = build(CONFIGS["vit"])
    encoder.model.blocks[1].norm1.weight.data[0] = torch.nan
    with pytest.raises(UserError, match=r"tensor 'blocks\.1\.norm1\.weight' is not finite"):
        save_encoder(tmp_path / "e", encoder)
    assert not (tmp_path / "e").exists()


def test_weights_of_another_size_are_refused(tmp_path):
    save_encoder(tmp_path, build(CONFIGS["mae"]))
    content = json.loads((tmp_path / "config.json").read_text())
    content["built_from"]["model_args"]["dim"] = 32
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="has shape"):
        load_encoder(tmp_path)


def test_unknown_architecture_gives_one_clear_line():
    with pytest.raises(UserError, match="timm cannot build 'resnet_of_nowhere'"):
        timm_kind("resnet_of_nowhere", {})
