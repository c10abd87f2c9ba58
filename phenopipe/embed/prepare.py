"""Step ``prepare``: the folder of an encoder that is not trained here."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from phenopipe.embed.config import PrepareKnobs
from phenopipe.embed.weights import find_in_package, fit_weights, named_as_timm, read_weights
from phenopipe.encoders.base import Encoder, EncoderConfig, Kind
from phenopipe.encoders.folder import build, load_encoder, save_encoder, timm_kind
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
        File of weights (kind timm), or folder of an encoder (kind imported).

    Raises
    ------
    UserError
        If the channels are not named, or the weights do not fit.
    """
    if knobs.kind == "imported":
        if weights is None:
            raise UserError("weights: missing key, wanted the folder of an encoder")
        return load_encoder(weights)
    if not knobs.channels:
        raise UserError("channels: missing key, wanted the names of the encoder's channels")
    encoder = build_random(knobs)
    if knobs.package is not None:
        weights = find_in_package(knobs.package)
    if weights is not None and encoder.config.kind != "pixels":
        state = read_weights(weights)
        if knobs.match == "order":
            state = named_as_timm(state, knobs.architecture, weights)
        fit_weights(encoder.model, state, weights)
    return encoder.eval()


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
    args: dict[str, Any] = {**knobs.model_args, "in_chans": len(knobs.channels)}
    kind: Kind = timm_kind(knobs.architecture, args)
    if kind == "vit":
        args = {"img_size": knobs.crop, **args}
    config = EncoderConfig(
        kind=kind,
        architecture=knobs.architecture,
        channels=knobs.channels,
        crop=knobs.crop,
        model_args=args,
        pooling=knobs.pooling if kind == "vit" else "mean",
        normalization=knobs.normalization,
        license=knobs.license,
    )
    return build(config)


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
    encoder = prepare_encoder(knobs, files.weights)
    if knobs.license:
        encoder.config = replace(encoder.config, license=knobs.license)
    save_encoder(files.model.parent, encoder, files.stamp)


if __name__ == "__main__":
    run_step(main)
