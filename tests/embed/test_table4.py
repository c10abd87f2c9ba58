"""The encoders of the paper's Table 4: sizes, and every block against plain timm.

Sizes of the large ones are counted without weights; ``benchmarks/table4_forward.py`` runs
them too.
"""

import pytest
import timm
import torch
from safetensors.torch import save_file

from phenopipe.embed.config import PrepareKnobs
from phenopipe.embed.prepare import prepare_encoder, timm_config
from phenopipe.embed.presets import PRESETS
from phenopipe.encoders.base import EncoderConfig
from phenopipe.encoders.folder import build
from phenopipe.encoders.standardize import self_standardize
from phenopipe.errors import UserError
from phenopipe.pretrain.presets import PRESETS as TRAINED

STAINS = ("dna", "er", "actin", "rna", "mitochondria", "golgi")
# Parameters (ours, the paper's table in millions), blocks, width, side of a patch. The table
# has 25 million for every small model; twelve blocks of 384 and six channels make 22.
TABLE = {
    "ViT-S/16": (21_983_616, 25, 12, 384, 16),
    "DINOv2-S/14": (21_881_856, 25, 12, 384, 14),
    "DINOv2-L/14": (303_902_720, 307, 24, 1024, 14),
    "DINOv2-G/14": (1_135_781_888, 1100, 40, 1536, 14),
    "WSL-L/16": (304_149_504, 307, 24, 1024, 16),
    "MAE-L/16": (304_149_504, 307, 24, 1024, 16),
    "CA-S/16": (22_459_776, 25, 12, 384, 16),
    "L/8": (303_664_128, 307, 24, 1024, 8),
    "G/8": (1_843_414_656, 1860, 48, 1664, 8),
}
SIZES = ("crop", "patch", "dim", "depth", "heads", "mlp_ratio")


def config_of(name):
    """The configuration of a model of the table, from the preset that users name."""
    if name in PRESETS:
        return timm_config(PrepareKnobs(preset=name, channels=STAINS))
    kind = "ca_mae" if name.startswith("CA") else "mae"
    args = {size: TRAINED[name][size] for size in SIZES}
    args["channels"] = 11 if kind == "ca_mae" else 6
    return EncoderConfig(kind, kind, STAINS, 256, args)


@pytest.mark.parametrize("name", TABLE)
def test_has_the_size_of_the_table(name):
    parameters, table, blocks, width, patch = TABLE[name]
    with torch.device("meta"):
        encoder = build(config_of(name))
    assert sum(p.numel() for p in encoder.model.parameters()) == parameters
    # The table rounds: the small ones to 25 million, the others to within 3.5 %.
    assert abs(parameters / (table * 1e6) - 1) < (0.13 if table == 25 else 0.035)
    assert encoder.block_dims == [width] * blocks
    assert encoder.patch == patch
    assert len(encoder.config.channels) == 6 and encoder.config.crop == 256
    assert encoder.config.pooling == (
        "class" if name in PRESETS and name != "MAE-L/16" else "mean"
    )


def hub_file(path, architecture, **args):
    """Weights of an RGB model at its own size, as they lie in the hub."""
    torch.manual_seed(1)
    model = timm.create_model(architecture, **args)
    for name, parameter in model.named_parameters():
        # A fresh LayerScale of 1e-5 would hide what blocks do.
        if name.endswith("gamma"):
            parameter.data.fill_(0.5)
    save_file(model.state_dict(), path)
    return path


def crops(n=1, side=256):
    seeded = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 6, side, side), dtype=torch.uint8, generator=seeded)


def pooled_by_timm(model, x, pooling):
    """Every block by timm's own way: all token maps, then the class token or the mean."""
    with torch.no_grad():
        pairs = model.forward_intermediates(
            x, return_prefix_tokens=True, intermediates_only=True, output_fmt="NLC"
        )
    return [
        prefix[:, 0] if pooling == "class" else patches.mean(1) for patches, prefix in pairs
    ]


@pytest.mark.parametrize("name", ["ViT-S/16", "DINOv2-S/14"])
def test_every_block_from_a_file_of_the_hub_equals_plain_timms(name, tmp_path):
    config = config_of(name)
    file = hub_file(tmp_path / "model.safetensors", config.architecture)
    encoder = prepare_encoder(PrepareKnobs(preset=name, channels=STAINS), file)
    size = config.model_args["img_size"]
    # Plain timm reads the same file: six channels and positions are its own doing.
    model = timm.create_model(
        config.architecture,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(file)},
        **{"in_chans": 6, "img_size": size, "num_classes": 0},
    ).eval()
    x, edge = self_standardize(crops()), (256 - size) // 2
    wanted = pooled_by_timm(model, x[..., edge : edge + size, edge : edge + size], "class")
    found = encoder.forward_blocks(crops())
    assert found.shape == (1, 12, 384) and len(wanted) == 12
    for block, one in enumerate(wanted):
        assert (found[:, block] - one).abs().max() <= 1e-5 * one.abs().max().clamp(min=1)


def test_every_block_of_a_channel_agnostic_model_equals_timms():
    torch.manual_seed(0)
    args = {**config_of("CA-S/16").model_args, "channels": 6, "layer_scale": 0.5}
    encoder = build(EncoderConfig("ca_mae", "ca_mae", STAINS, 256, args)).eval()
    wanted = pooled_by_timm(encoder.model, self_standardize(crops()), "mean")
    found = encoder.forward_blocks(crops())
    for block, one in enumerate(wanted):
        assert (found[:, block] - one).abs().max() <= 1e-5 * one.abs().max().clamp(min=1)


@pytest.mark.parametrize(
    ("architecture", "blocks"), [("resnet18", 5), ("eva02_tiny_patch14_224", 12)]
)
def test_any_name_of_timm_serves(architecture, blocks):
    knobs = PrepareKnobs(architecture=architecture, channels=STAINS, crop=56)
    found = prepare_encoder(knobs).forward_blocks(crops(2, 56))
    assert found.shape[:2] == (2, blocks) and torch.isfinite(found).all()


def test_a_model_without_a_class_token_is_refused_where_it_is_wanted():
    knobs = {"architecture": "vit_base_patch16_siglip_224", "channels": STAINS, "crop": 256}
    with pytest.raises(UserError, match="has no class token, wanted mean"):
        timm_config(PrepareKnobs(**knobs))
    assert timm_config(PrepareKnobs(**knobs, pooling="mean")).kind == "vit"
