"""An encoder is a folder: weights as safetensors, ``config.json``, and a model card.

The layout is timm's, so that ``timm.create_model("local-dir:FOLDER", pretrained=True)``
opens every encoder but pixel statistics, without this package. Equal encoders give equal bytes.
"""

import json
from dataclasses import asdict, fields, replace
from inspect import signature
from pathlib import Path
from typing import Any, cast

import timm
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from phenopipe.encoders.base import Encoder, EncoderConfig, Kind, Pooling
from phenopipe.encoders.card import model_card
from phenopipe.encoders.channel_agnostic import build_channel_agnostic_encoder
from phenopipe.encoders.cnn import StageEncoder
from phenopipe.encoders.export import as_timm
from phenopipe.encoders.mae import build_encoder as build_mae_encoder
from phenopipe.encoders.pixels import PixelStatistics
from phenopipe.encoders.vit import MaeEncoder, VitEncoder
from phenopipe.errors import UserError, reason
from phenopipe.formats.atomic import atomic
from phenopipe.formats.tables import STAMP_KEY, Stamp
from phenopipe.knobs import describe as describe_error

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
# What makes plain timm open a trimmed CNN: it builds the whole, fills what there is, and cuts.
FEATURES_ONLY = {"features_only": True, "feature_cls": "getter", "pretrained_strict": False}
CHECKED = TypeAdapter(EncoderConfig)
# The key of config.json that holds architecture and arguments in our words.
OWN = "built_from"


def build(config: EncoderConfig) -> Encoder:
    """Build an encoder with fresh random weights (torch's global generator)."""
    if config.kind == "pixels":
        return PixelStatistics(config)
    if config.kind in ("mae", "dino"):
        return MaeEncoder(config, build_mae_encoder(**config.model_args))
    if config.kind == "ca_mae":
        return MaeEncoder(config, build_channel_agnostic_encoder(**config.model_args))
    args = {
        k: v for k, v in config.model_args.items() if k not in (*FEATURES_ONLY, "out_indices")
    }
    model: Any = create_timm(config.architecture, args)
    if config.kind == "vit":
        return VitEncoder(config, model)
    if config.best_block is not None:
        kept = list(range(config.best_block))
        model.prune_intermediate_layers(kept, prune_norm=True, prune_head=True)
    return StageEncoder(config, model)


def create_timm(architecture: str, model_args: dict[str, Any]) -> nn.Module:
    """Build a timm model without a classifier head.

    Raises
    ------
    UserError
        If timm does not know the architecture or refuses the arguments.
    """
    try:
        return cast(
            nn.Module, timm.create_model(architecture, **{"num_classes": 0, **model_args})
        )
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise UserError(f"timm cannot build {architecture!r}: {reason(error)}") from None


def timm_kind(architecture: str, model_args: dict[str, Any]) -> Kind:
    """Tell whether a timm model is a vision transformer, without weights."""
    with torch.device("meta"):
        model = create_timm(architecture, model_args)
    return "vit" if isinstance(model, VisionTransformer) else "cnn"


def timm_pooling(architecture: str, model_args: dict[str, Any], wanted: Pooling) -> Pooling:
    """Tell how a timm model's blocks are pooled: as wanted, or by the mean where it is a CNN.

    Raises
    ------
    UserError
        If the model gives no intermediate blocks, or the class token is wanted and it has
        none.
    """
    with torch.device("meta"):
        model: Any = create_timm(architecture, model_args)
    if not hasattr(model, "forward_intermediates") or not hasattr(model, "feature_info"):
        raise UserError(f"timm's {architecture} gives no intermediate blocks")
    if "return_prefix_tokens" not in signature(model.forward_intermediates).parameters:
        return "mean"
    # timm's classes tell it by one or the other.
    has_class = getattr(model, "has_class_token", getattr(model, "cls_token", None) is not None)
    if wanted == "class" and not has_class:
        raise UserError(f"timm's {architecture} has no class token, wanted mean")
    return wanted


def trimmed(config: EncoderConfig, block: int, of: str) -> EncoderConfig:
    """Return the configuration of the encoder that ends with a block.

    Parameters
    ----------
    config : EncoderConfig
        The whole encoder.
    block : int
        Last block that stays, counted from 1.
    of : str
        Name of the whole encoder.
    """
    args = dict(config.model_args)
    if config.kind in ("vit", "mae", "ca_mae", "dino"):
        # The final norm was trained for the last block; it has no place behind another.
        args |= {"depth": block, "final_norm": False}
    elif config.kind == "cnn":
        args |= {**_features_only(config), "out_indices": [block - 1]}
    return replace(config, model_args=args, best_block=block, trimmed_from=of)


def _features_only(config: EncoderConfig) -> dict[str, Any]:
    """Return those of ``FEATURES_ONLY`` that an architecture takes.

    timm's MobileNetV3 and its kin set the strictness themselves, and are only lenient with
    features of their own class.
    """
    try:
        with torch.device("meta"):
            create_timm(config.architecture, {**config.model_args, **FEATURES_ONLY})
    except UserError:
        return {"features_only": True}
    return FEATURES_ONLY


def save_encoder(folder: Path, encoder: Encoder, stamp: Stamp | None = None) -> None:
    """Write an encoder's weights, configuration and model card into a folder.

    Each file appears whole or not at all, and equal encoders give equal bytes.

    Parameters
    ----------
    folder : Path
        Made if need be; other files in it are left alone.
    encoder : Encoder
        Weights and ``encoder.config``.
    stamp : mapping
        Deterministic facts about the step, kept in ``config.json``.

    Raises
    ------
    UserError
        If a weight is not finite; nothing is written.
    """
    state = {name: tensor.contiguous() for name, tensor in encoder.model.state_dict().items()}
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise UserError(f"{folder}: tensor {name!r} is not finite, wanted an encoder")
    with atomic(folder / WEIGHTS) as temporary:
        # One entry of metadata only: with more their order in the file is left to chance.
        save_file(state, temporary, metadata={"format": "pt"})
    content = {**describe(encoder), STAMP_KEY: dict(stamp or {})}
    with atomic(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True, default=str) + "\n")
    with atomic(folder / CARD) as temporary:
        temporary.write_text(model_card(content))


def describe(encoder: Encoder) -> dict[str, Any]:
    """Return the content of ``config.json``: the configuration and what timm needs."""
    config = encoder.config
    known, own = as_timm(config), asdict(config)
    # Only trimmed encoders have the one, those of known pixels the other.
    for name in ("saved", "pixels"):
        if own[name] is None:
            del own[name]
    return {
        **own,
        # What timm reads, and what we read in its place where that says more.
        "architecture": known.architecture,
        "model_args": known.model_args,
        OWN: {"architecture": config.architecture, "model_args": config.model_args},
        "patch": encoder.patch,
        "dim": max(encoder.block_dims),
        "depth": len(encoder.block_dims),
        "parameters": sum(p.numel() for p in encoder.model.parameters()),
        "num_classes": 0,
        "pretrained_cfg": {
            "input_size": list(known.input_size),
            "num_classes": 0,
            "fixed_input_size": config.kind != "cnn",
        },
    }


def read_config(folder: Path) -> EncoderConfig:
    """Read an encoder's configuration without its weights.

    Raises
    ------
    UserError
        If ``config.json`` is absent or not one of ours, or a value does not fit.
    """
    path = folder / CONFIG
    try:
        content = json.loads(path.read_text())
        content |= content.get(OWN, {})
        known = {f.name: content[f.name] for f in fields(EncoderConfig) if f.name in content}
        return CHECKED.validate_python(known)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        told = describe_error(error) if isinstance(error, ValidationError) else repr(error)
        raise UserError(f"{path}: not the configuration of an encoder ({told})") from None


def load_encoder(folder: Path, trim: int | None = None) -> Encoder:
    """Load an encoder, ready to embed.

    Parameters
    ----------
    folder : Path
        What :func:`save_encoder` wrote.
    trim : int
        Keep blocks 1 to ``trim`` only; the others are neither built nor read.

    Returns
    -------
    Encoder
        A module in evaluation mode with ``forward_blocks(images_NCHW)``, which returns
        (n_crops, n_blocks, dim).

    Raises
    ------
    UserError
        If a file is absent or broken, the weights do not fit the configuration, or there
        is no block ``trim``.
    """
    folder = Path(folder)
    config = read_config(folder)
    if trim is not None:
        config = _checked_trim(folder, config, trim)
    encoder = build(config)
    load_weights(encoder.model, folder / WEIGHTS, partial=trim is not None)
    return encoder.eval()


def load_weights(model: nn.Module, path: Path, *, partial: bool = False) -> None:
    """Fill a model from a safetensors file; ``partial`` ignores tensors that it lacks.

    Raises
    ------
    UserError
        If the file cannot be read, or a tensor is absent, left over or of another shape.
    """
    wanted = model.state_dict()
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            found = {name: file.get_tensor(name) for name in names & wanted.keys()}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error})") from None
    missing, unknown = sorted(wanted.keys() - names), sorted(names - wanted.keys())
    if missing or (unknown and not partial):
        first = (missing or unknown)[0]
        what = "lacks" if missing else "has an unknown"
        raise UserError(f"{path}: {what} tensor {first!r}, wanted those of config.json")
    for name, tensor in found.items():
        if tensor.shape != wanted[name].shape:
            shapes = f"{tuple(tensor.shape)}, wanted {tuple(wanted[name].shape)}"
            raise UserError(f"{path}: tensor {name!r} has shape {shapes}")
    model.load_state_dict(found)


def _checked_trim(folder: Path, config: EncoderConfig, block: int) -> EncoderConfig:
    with torch.device("meta"):
        numbers = build(config).block_numbers
    if block not in numbers:
        raise UserError(f"{folder}: no block {block}, found blocks 1 to {numbers[-1]}")
    return trimmed(config, block, of=folder.resolve().name)
