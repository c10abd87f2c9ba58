"""Autoencoders in the layout that the paper's authors published: only the encoder is taken.

The file is called ``model.safetensors`` but written by ``torch.save``, as ``{"state_dict":
...}``, with the encoder below ``encoder.vit_backbone`` under timm's names. Its sizes are read
off the shapes of its tensors; the configuration beside it says other ones.
"""

import math
from pathlib import Path

import torch
from torch import Tensor

from phenopipe.embed.config import PrepareKnobs
from phenopipe.embed.weights import State
from phenopipe.encoders.base import Encoder, EncoderConfig
from phenopipe.encoders.folder import build
from phenopipe.errors import UserError

PREFIX = "encoder.vit_backbone."


def is_published(state: State) -> bool:
    """Whether tensors carry the authors' names."""
    return any(name.startswith(PREFIX) for name in state)


def published_encoder(state: State, knobs: PrepareKnobs, where: Path) -> Encoder:
    """Build the encoder of a published autoencoder.

    Parameters
    ----------
    state : dict of tensors
        The whole autoencoder.
    knobs : PrepareKnobs
        Names of the channels, and the licence.
    where : Path
        File that the tensors come from, for messages.

    Raises
    ------
    UserError
        If the tensors are not those of such an autoencoder, or its channels are not named.
    """
    ours = {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}
    # Where tokens are averaged timm calls the final norm ``fc_norm``; no block needs it.
    ours = {k.replace("fc_norm.", "norm."): v for k, v in ours.items()}
    config = config_of(ours, knobs, where)
    encoder = build(config)
    wanted = encoder.model.state_dict()
    for name, like in wanted.items():
        if name not in ours or ours[name].shape != like.shape:
            found = tuple(ours[name].shape) if name in ours else "none"
            raise UserError(
                f"{where}: tensor {PREFIX}{name}: found {found}, wanted {tuple(like.shape)}"
            )
    encoder.model.load_state_dict({name: ours[name] for name in wanted})
    return encoder


def config_of(state: State, knobs: PrepareKnobs, where: Path) -> EncoderConfig:
    """Read an encoder's sizes off the shapes of its tensors.

    Raises
    ------
    UserError
        If tensors are missing, or the channels are not named.
    """
    try:
        dim, in_chans, patch, _ = state["patch_embed.proj.weight"].shape
        head_dim = len(state["blocks.0.q_norm.weight"])
        hidden = len(state["blocks.0.in_proj.weight"]) - 3 * dim
        positions = state["pos_embed"][0, 1:]
    except (KeyError, ValueError) as error:
        raise UserError(f"{where}: not a published autoencoder ({error!r})") from None
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    # One grid of positions a channel where channels are tokens of their own.
    grid = grid_of(positions) if in_chans == 1 else len(positions)
    if grid is None:
        raise UserError(
            f"{where}: {len(positions)} positions, wanted one square grid, repeated"
        )
    if not knobs.channels:
        raise UserError(f"{where}: channels: missing key, wanted the names of its channels")
    most = len(positions) // grid if in_chans == 1 else in_chans
    if len(knobs.channels) > most or (in_chans > 1 and len(knobs.channels) != most):
        raise UserError(f"{where}: {len(knobs.channels)} channels are named, it has {most}")
    kind = "ca_mae" if in_chans == 1 else "mae"
    crop = math.isqrt(grid) * patch
    sizes = {"crop": crop, "patch": patch, "channels": most, "dim": dim, "depth": depth}
    return EncoderConfig(
        kind="ca_mae" if in_chans == 1 else "mae",
        architecture=kind,
        channels=knobs.channels,
        crop=crop,
        model_args={**sizes, "heads": dim // head_dim, "mlp_ratio": hidden / dim},
        pooling="mean",
        license=knobs.license,
    )


def grid_of(positions_LD: Tensor) -> int | None:
    """Number of places of the square grid that a table of positions repeats, if it does.

    Examples
    --------
    >>> grid = torch.arange(4.0)[:, None]
    >>> grid_of(grid), grid_of(grid.repeat(3, 1)), grid_of(grid[:3])
    (4, 4, None)
    """
    sides = range(1, math.isqrt(len(positions_LD)) + 1)
    for grid in (side**2 for side in sides if len(positions_LD) % side**2 == 0):
        if torch.equal(positions_LD[grid:], positions_LD[:-grid]):
            return grid
    return None
