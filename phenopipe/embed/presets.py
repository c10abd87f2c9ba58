"""The baselines of the paper's Table 4 by name: models of natural images, and a random one.

The models of the table that are trained on cells are presets of ``pretrain.mae``. A name of
timm's with a tag, such as ``vit_large_patch16_224.mae``, stands for weights that
``python -m phenopipe.embed.fetch`` brings.
"""

from typing import Any, Literal

Preset = Literal[
    "ViT-S/16", "DINOv2-S/14", "DINOv2-L/14", "DINOv2-G/14", "WSL-L/16", "MAE-L/16"
]

# Paper 3.2: the class token is slightly better than the mean of the patches, except for the
# masked autoencoder. Crops of 256 pixels; patches of 14 see the middle 252 of them.
_ALL = {"model_args": {}, "crop": 256, "pooling": "class"}

PRESETS: dict[str, dict[str, Any]] = {
    "ViT-S/16": {**_ALL, "architecture": "vit_small_patch16_224"},
    "DINOv2-S/14": {**_ALL, "architecture": "vit_small_patch14_reg4_dinov2.lvd142m"},
    "DINOv2-L/14": {**_ALL, "architecture": "vit_large_patch14_reg4_dinov2.lvd142m"},
    "DINOv2-G/14": {**_ALL, "architecture": "vit_giant_patch14_reg4_dinov2.lvd142m"},
    "WSL-L/16": {**_ALL, "architecture": "vit_large_patch16_224.augreg_in21k"},
    "MAE-L/16": {**_ALL, "architecture": "vit_large_patch16_224.mae", "pooling": "mean"},
}
