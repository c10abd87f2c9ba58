"""How plain timm builds an encoder: a registered architecture and its arguments."""

from typing import Any, NamedTuple

from phenopipe.encoders.base import EncoderConfig
from phenopipe.encoders.mae import LAYER_SCALE

# The registered model whose blocks are those of Dehghani et al. 2023, whatever its sizes.
PARALLEL_VIT = "vit_base_patch16_xp_224"


class TimmModel(NamedTuple):
    """What ``timm.create_model`` needs to know; input_size: channels, height, width."""

    architecture: str
    model_args: dict[str, Any]
    input_size: tuple[int, int, int]


def as_timm(config: EncoderConfig) -> TimmModel:
    """Say how timm builds the network of an encoder without this package.

    Parameters
    ----------
    config : EncoderConfig
        The encoder.

    Notes
    -----
    A channel-agnostic encoder is the same network as one of a single channel whose images
    show the channels one below the other: its tokens run channel by channel, each from top to
    bottom.
    """
    shape = (len(config.channels), config.crop, config.crop)
    if config.kind in ("mae", "ca_mae", "dino"):
        return _autoencoder(config)
    return TimmModel(config.architecture, config.model_args, shape)


def _autoencoder(config: EncoderConfig) -> TimmModel:
    given = dict(config.model_args)
    crop, channels = given.pop("crop"), given.pop("channels")
    stacked = config.kind == "ca_mae"
    height, width = (channels * crop if stacked else crop), crop
    seen = 1 if stacked else channels
    args = {
        "img_size": [height, width],
        "in_chans": seen,
        "patch_size": given.pop("patch"),
        "embed_dim": given.pop("dim"),
        "num_heads": given.pop("heads"),
        # Where the registered model differs from the paper's.
        "pre_norm": False,
        "no_embed_class": False,
        "norm_layer": "layernorm",
        "init_values": given.pop("layer_scale", LAYER_SCALE),
        **given,
    }
    return TimmModel(PARALLEL_VIT, args, (seen, height, width))
