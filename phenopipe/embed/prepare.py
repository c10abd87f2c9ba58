"""Step ``prepare``: the folder of an encoder that is not trained here."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from timm.models import get_pretrained_cfg
from timm.models.vision_transformer import VisionTransformer

from phenopipe.embed.config import PrepareKnobs
from phenopipe.embed.published import is_published, published_encoder
from phenopipe.embed.weights import (
    check_sha256,
    find_in_package,
    find_weights,
    fit_weights,
    is_torch_file,
    named_as_timm,
    read_weights,
)
from phenopipe.encoders.base import Encoder, EncoderConfig
from phenopipe.encoders.folder import (
    build,
    create_timm,
    load_encoder,
    save_encoder,
    timm_pooling,
)
from phenopipe.errors import UserError
from phenopipe.knobs import parse_step, run_step
from phenopipe.seeds import generator


def prepare_encoder(knobs: PrepareKnobs, weights: Path | None = None) -> Encoder:
    """Build an encoder with random weights, or with those of a file or package.

    Parameters
    ----------
    knobs : PrepareKnobs
        What to build.
    weights : Path
        File of weights or folder of the hub's layout (kind timm); folder of an encoder, or
        a file in the authors' layout (kind imported).

    Raises
    ------
    UserError
        If the channels are not named, or the weights are missing or do not fit.
    """
    if knobs.kind == "imported":
        return import_encoder(knobs, weights)
    if not knobs.channels:
        raise UserError("channels: missing key, wanted the names of the encoder's channels")
    encoder = build_random(knobs)
    if knobs.package is not None:
        weights = find_in_package(knobs.package)
    if weights is None and knobs.tagged:
        raise UserError(f"weights: missing key, wanted the file of {knobs.tagged}")
    if weights is not None and encoder.config.kind != "pixels":
        weights = find_weights(weights)
        if knobs.sha256:
            check_sha256(weights, knobs.sha256)
        state = read_weights(weights)
        if knobs.match == "order":
            state = named_as_timm(state, knobs.architecture, weights)
        fit_weights(encoder.model, state, weights)
    return encoder.eval()


def import_encoder(knobs: PrepareKnobs, weights: Path | None) -> Encoder:
    """Load an encoder that another run wrote, or that was published by the paper's authors.

    Raises
    ------
    UserError
        If it is neither, or a setting contradicts it.
    """
    if weights is None:
        raise UserError("weights: missing key, wanted the folder of an encoder")
    file = find_weights(weights)
    if knobs.sha256:
        check_sha256(file, knobs.sha256)
    if weights.is_dir() and not is_torch_file(file):
        encoder = load_encoder(weights)
    else:
        state = read_weights(file)
        if not is_published(state):
            raise UserError(f"{file}: neither the folder of an encoder nor the authors' layout")
        encoder = published_encoder(state, knobs, file).eval()
    for key in ("channels", "crop", "pooling", "normalization"):
        asked, found = getattr(knobs, key), getattr(encoder.config, key)
        # Every step gets every setting: a default was asked for by nobody.
        if asked not in (found, PrepareKnobs.model_fields[key].default):
            raise UserError(f"{weights}: {key}: found {asked!r}, wanted its own {found!r}")
    return encoder


def build_random(knobs: PrepareKnobs) -> Encoder:
    """Build an encoder whose weights the seed draws."""
    torch.manual_seed(int(generator(knobs.seed, "weights", knobs.architecture).integers(2**62)))
    if knobs.kind == "pixels":
        config = EncoderConfig(
            kind="pixels",
            architecture="pixels",
            channels=knobs.channels,
            crop=knobs.crop,
            normalization="none",
        )
        return build(config)
    return build(timm_config(knobs))


def timm_config(knobs: PrepareKnobs) -> EncoderConfig:
    """Work out the configuration of one of timm's models for our crops and channels.

    A vision transformer takes the largest input of whole patches that a crop holds: crops of
    256 pixels before patches of 14 are seen in their middle 252.

    Raises
    ------
    UserError
        If timm lacks the model, or it gives no intermediate blocks or no class token.
    """
    args: dict[str, Any] = {**knobs.model_args, "in_chans": len(knobs.channels)}
    with torch.device("meta"):
        model: Any = create_timm(knobs.architecture, args)
    vit = isinstance(model, VisionTransformer)
    if vit:
        patch = int(model.patch_embed.patch_size[0])
        args = {"img_size": knobs.crop - knobs.crop % patch, **args}
    elif _takes_size(knobs, args):
        args = {"img_size": knobs.crop, **args}
    known = get_pretrained_cfg(knobs.tagged) if knobs.tagged else None
    return EncoderConfig(
        kind="vit" if vit else "cnn",
        architecture=knobs.architecture,
        channels=knobs.channels,
        crop=knobs.crop,
        model_args=args,
        pooling=timm_pooling(knobs.architecture, args, knobs.pooling),
        normalization=knobs.normalization,
        license=knobs.license or (known.license if known else None),
    )


def _takes_size(knobs: PrepareKnobs, args: dict[str, Any]) -> bool:
    """Whether a model other than a plain vision transformer is built for one image size."""
    try:
        with torch.device("meta"):
            create_timm(knobs.architecture, {"img_size": knobs.crop, **args})
    except UserError:
        return False
    return True


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``embed_prepare``."""
    files, knobs = parse_step(
        PrepareKnobs,
        inputs=["weights?"],
        outputs=["model", "config", "card"],
        names=["encoder"],
        doc=__doc__,
        argv=argv,
    )
    if files.weights and find_weights(files.weights).suffix == ".safetensors":
        file = find_weights(files.weights)
        if is_torch_file(file):
            print(
                f"{file}: written by torch.save in spite of its name; only its tensors are read"
            )
    encoder = prepare_encoder(knobs, files.weights)
    if knobs.license:
        encoder.config = replace(encoder.config, license=knobs.license)
    save_encoder(files.model.parent, encoder, files.stamp)
    print(f"{files.encoder}: {encoder.config.architecture}, {len(encoder.block_dims)} blocks")


if __name__ == "__main__":
    run_step(main)
