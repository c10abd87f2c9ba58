"""The paper's models by name: sizes of Table 4, learning rate and stochastic depth of Table 5.

How long and on how much a model learns (``epochs``, ``batch``) belongs to its training set:
``configs/paper.yaml`` says it.
"""

from typing import Any, Literal

Preset = Literal["S/16", "B/16", "L/8", "G/8", "CA-S/16"]
DinoPreset = Literal["L/16", "L/8"]

_ALL = {
    "crop": 256,
    "layer_scale": 1e-4,
    "mask_ratio": 0.75,
    "decoder_dim": 512,
    "decoder_depth": 8,
    "decoder_heads": 16,
}
# The paper trains models up to ViT-B at 1e-4 and larger ones at 3e-5.
_SMALL = {**_ALL, "patch": 16, "depth": 12, "lr": 1e-4, "drop_path": 0.1}
_LARGE = {**_ALL, "patch": 8, "lr": 3e-5}
_S16 = {**_SMALL, "dim": 384, "heads": 6, "mlp_ratio": 4.0}

PRESETS: dict[str, dict[str, Any]] = {
    "S/16": _S16,
    "B/16": {**_SMALL, "dim": 768, "heads": 12, "mlp_ratio": 4.0},
    "L/8": {
        **_LARGE,
        "dim": 1024,
        "depth": 24,
        "heads": 16,
        "mlp_ratio": 4.0,
        "drop_path": 0.3,
    },
    # Zhai et al. 2022: the MLP is 8192 wide.
    "G/8": {
        **_LARGE,
        "dim": 1664,
        "depth": 48,
        "heads": 16,
        "mlp_ratio": 64 / 13,
        "drop_path": 0.6,
    },
    "CA-S/16": {**_S16, "channel_agnostic": True},
}

# Appendix A.9: the learning rate. Sizes of ViT-L; crops of 112 before patches of 16 are as many
# patches as DINOv2's of 98 before 14. Stochastic depth and LayerScale are DINOv2's for ViT-L.
_DINO_L = {
    "crop": 256,
    "small_crop": 112,
    "dim": 1024,
    "depth": 24,
    "heads": 16,
    "mlp_ratio": 4.0,
    "lr": 1e-5,
    "drop_path": 0.3,
    "layer_scale": 1e-5,
}

DINO_PRESETS: dict[str, dict[str, Any]] = {
    "L/16": {**_DINO_L, "patch": 16},
    "L/8": {**_DINO_L, "patch": 8},
}
