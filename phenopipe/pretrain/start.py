"""A training that starts from another encoder's weights in place of random ones."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from phenopipe.encoders.base import EncoderConfig
from phenopipe.encoders.folder import load_encoder, read_config
from phenopipe.errors import UserError

# What of an encoder's configuration decides which tensors it has and what they mean.
COMPARED = ("kind", "architecture", "crop", "normalization")


def take_weights(model: nn.Module, config: EncoderConfig, folder: Path) -> EncoderConfig:
    """Fill a network with the weights of an encoder folder.

    Parameters
    ----------
    model : nn.Module
        The network to be trained; tensors that an encoder has not, such as those of a
        classifier's head, stay as they are.
    config : EncoderConfig
        What the training will make.
    folder : Path
        Encoder to start from.

    Returns
    -------
    EncoderConfig
        Configuration of the encoder to start from.

    Raises
    ------
    UserError
        If the architectures differ; it names the first difference. If the channels are the
        same ones in another order.
    """
    start = read_config(folder)
    for name, ours, theirs in _pairs(config, start):
        if ours != theirs:
            raise UserError(
                f"{folder}: initialize_from needs one architecture, {name} is {theirs!r} there"
                f" and {ours!r} here"
            )
    ours, theirs = config.channels, start.channels
    if config.kind != "ca_mae" and ours != theirs and sorted(ours) == sorted(theirs):
        raise UserError(
            f"{folder}: initialize_from needs one order of channels, found {', '.join(theirs)}"
            f" there and {', '.join(ours)} here"
        )
    found = load_encoder(folder).model.state_dict()
    unknown = model.load_state_dict(found, strict=False).unexpected_keys
    assert not unknown, unknown
    return start


# Kinds whose encoders are one network, however it was trained.
NETWORK = {"dino": "mae"}


def _pairs(ours: EncoderConfig, theirs: EncoderConfig) -> list[tuple[str, Any, Any]]:
    pairs = [(name, _network(ours, name), _network(theirs, name)) for name in COMPARED]
    mine, other = ours.model_args, theirs.model_args
    for key in dict.fromkeys([*mine, *other]):
        pairs.append((f"model_args.{key}", mine.get(key), other.get(key)))
    return pairs


def _network(config: EncoderConfig, name: str) -> object:
    value = getattr(config, name)
    return NETWORK.get(value, value) if name in ("kind", "architecture") else value


def with_training(
    config: EncoderConfig, before: EncoderConfig, *, crops: int, flops: float
) -> EncoderConfig:
    """Add what a training did to what its start had seen; what is unknown stays unknown."""
    known_crops, known_flops = before.crops_seen, before.training_flops
    return replace(
        config,
        crops_seen=None if known_crops is None else known_crops + crops,
        training_flops=None if known_flops is None else known_flops + flops,
    )
