"""Weights in the authors' layout: a torch file by the name of a safetensors one."""

import pytest
import torch
from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer
from torch import nn

from phenopipe.embed.config import PrepareKnobs
from phenopipe.embed.prepare import main, prepare_encoder
from phenopipe.embed.weights import read_weights
from phenopipe.encoders.folder import load_encoder
from phenopipe.encoders.mae import sincos_positions
from phenopipe.encoders.standardize import self_standardize
from phenopipe.errors import UserError

CHANNELS = ("a", "b")


def published(folder, *, in_chans, max_channels=1, global_pool="avg"):
    """A whole autoencoder's file as the authors wrote theirs; returns the encoder in it."""
    torch.manual_seed(0)
    backbone = VisionTransformer(
        **{"img_size": 16, "patch_size": 4, "in_chans": in_chans, "num_classes": 0},
        **{"embed_dim": 24, "depth": 3, "num_heads": 2, "mlp_ratio": 3, "qkv_bias": False},
        **{"qk_norm": True, "init_values": 0.5, "block_fn": ParallelScalingBlock},
        global_pool=global_pool,
    ).eval()
    grid = sincos_positions(24, 4, 4)
    code = torch.cat([grid[:1], grid[1:].repeat(max_channels, 1)])[None]
    backbone.pos_embed = nn.Parameter(code, requires_grad=False)
    state = {f"encoder.vit_backbone.{k}": v for k, v in backbone.state_dict().items()}
    state |= {"decoder.mask_token": torch.zeros(1, 1, 8), "decoder_pred.bias": torch.zeros(4)}
    folder.mkdir()
    torch.save({"state_dict": state}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "MAE", "mask_ratio": 0.75}')
    return backbone


def crops():
    seeded = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 2, 16, 16), dtype=torch.uint8, generator=seeded)


def knobs(**changes):
    return PrepareKnobs(**{"kind": "imported", "channels": CHANNELS, "crop": 16, **changes})


def test_blocks_of_a_published_autoencoder_equal_timms(tmp_path):
    backbone = published(tmp_path / "there", in_chans=2)
    encoder = prepare_encoder(knobs(), tmp_path / "there")
    with torch.no_grad():
        wanted = backbone.forward_intermediates(
            self_standardize(crops()), intermediates_only=True, output_fmt="NLC"
        )
    found = encoder.forward_blocks(crops())
    assert (encoder.config.kind, encoder.config.pooling) == ("mae", "mean")
    for block, tokens in enumerate(wanted):
        assert torch.allclose(found[:, block], tokens.mean(1), atol=1e-5)


def test_a_channel_agnostic_one_takes_any_channels_up_to_its_own(tmp_path):
    backbone = published(tmp_path / "there", in_chans=1, max_channels=3)
    encoder = prepare_encoder(knobs(), tmp_path / "there" / "model.safetensors")
    assert encoder.config.kind == "ca_mae" and encoder.config.model_args["channels"] == 3
    # Its own way: one convolution a channel, the same positions for each.
    x = self_standardize(crops())
    tokens = [backbone.patch_embed(x[:, c : c + 1]) for c in range(2)]
    x = torch.cat([backbone.cls_token.expand(2, -1, -1), *tokens], 1)
    x = x + backbone.pos_embed[:, : x.shape[1]]
    found = encoder.forward_blocks(crops())
    for number, block in enumerate(backbone.blocks):
        x = block(x)
        assert torch.allclose(found[:, number], x[:, 1:].mean(1), atol=1e-5)


def test_crop_and_channels_are_read_off_the_positions(tmp_path):
    published(tmp_path / "there", in_chans=1, max_channels=3)
    config = prepare_encoder(knobs(crop=64), tmp_path / "there").config
    assert (config.crop, config.model_args["channels"]) == (16, 3)
    with pytest.raises(UserError, match="crop: found 8, wanted its own 16"):
        prepare_encoder(knobs(crop=8), tmp_path / "there")


def test_positions_that_repeat_no_square_grid_are_refused(tmp_path):
    published(tmp_path / "there", in_chans=1, max_channels=3)
    file = tmp_path / "there" / "model.safetensors"
    state = read_weights(file)
    state["encoder.vit_backbone.pos_embed"][0, -1] += 1
    torch.save({"state_dict": state}, file)
    with pytest.raises(UserError, match="48 positions, wanted one square grid, repeated"):
        prepare_encoder(knobs(), tmp_path / "there")


def test_the_step_says_what_it_read_and_writes_a_folder_of_ours(tmp_path, capsys):
    published(tmp_path / "there", in_chans=2)
    outputs = {"model": "model.safetensors", "config": "config.json", "card": "README.md"}
    main(
        [
            f"--weights={tmp_path}/there",
            *(f"--{name}={tmp_path}/e/{file}" for name, file in outputs.items()),
            *("--encoder=e", "--kind=imported", '--channels=["a", "b"]', "--crop=16"),
        ]
    )
    assert "written by torch.save in spite of its name" in capsys.readouterr().out
    encoder = load_encoder(tmp_path / "e")
    assert encoder.forward_blocks(crops()).shape == (2, 3, 24)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"channels": ()}, "channels: missing key"),
        ({"channels": ("a",)}, "1 channels are named, it has 2"),
        ({"sha256": "0" * 64}, "wanted 0000"),
    ],
)
def test_a_mistake_is_one_line(changes, told, tmp_path):
    published(tmp_path / "there", in_chans=2)
    with pytest.raises(UserError, match=told) as caught:
        prepare_encoder(knobs(**changes), tmp_path / "there")
    assert "\n" not in str(caught.value)


def test_a_published_file_that_runs_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (tmp_path / "there").mkdir()
    torch.save({"state_dict": {"w": Trap()}}, tmp_path / "there" / "model.safetensors")
    with pytest.raises(UserError, match="refused, holds more than tensors"):
        prepare_encoder(knobs(), tmp_path / "there")
    assert not (tmp_path / "ran").exists()
