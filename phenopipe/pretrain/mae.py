"""Step ``mae``: train a masked autoencoder on the wells of a manifest."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from phenopipe.encoders.attention import choose_attention
from phenopipe.encoders.base import EncoderConfig, Kind
from phenopipe.encoders.channel_agnostic import MAX_CHANNELS, ChannelAgnosticAutoencoder
from phenopipe.encoders.folder import save_encoder
from phenopipe.encoders.mae import MaskedAutoencoder
from phenopipe.encoders.vit import MaeEncoder
from phenopipe.formats.histories import HISTORY
from phenopipe.formats.manifests import MANIFEST
from phenopipe.formats.tables import read_table, write_table
from phenopipe.knobs import parse_step
from phenopipe.pretrain.config import MaeKnobs
from phenopipe.pretrain.distributed import World
from phenopipe.pretrain.flops import training_flops
from phenopipe.pretrain.launch import run_training
from phenopipe.pretrain.loop import Training, Watch
from phenopipe.pretrain.panels import IMAGES, copy_panels, write_panel
from phenopipe.pretrain.reconstructions import (
    Arrays,
    hold_out,
    reconstruct,
    write_reconstructions,
)
from phenopipe.pretrain.sites import Sites, find_sites
from phenopipe.pretrain.start import take_weights, with_training
from phenopipe.pretrain.states import States
from phenopipe.pretrain.stream import Batch, CropStream
from phenopipe.seeds import generator

# Pictures lie beside the states until the training ends: a kill must not take them.
PANELS = "panels"


class Trained(NamedTuple):
    """What a training leaves: the encoder, its history, what it paints."""

    encoder: MaeEncoder
    history: pl.DataFrame
    reconstructions: Arrays


def build_autoencoder(knobs: MaeKnobs, channels: int) -> MaskedAutoencoder:
    """Build the autoencoder that the knobs describe, with random weights."""
    kind = ChannelAgnosticAutoencoder if knobs.channel_agnostic else MaskedAutoencoder
    return kind(
        channels=channels,
        **knobs.model_dump(
            include={
                *("crop", "patch", "dim", "depth", "heads", "mlp_ratio", "mask_ratio"),
                *("decoder_dim", "decoder_depth", "decoder_heads"),
                *("fourier", "fourier_weight", "layer_scale"),
                *("drop_path", "drop_path_rule", "drop_path_form"),
            }
        ),
    )


def train_mae(
    sites: Sites,
    knobs: MaeKnobs,
    states: States,
    *,
    name: str,
    trained_on: str,
    start: Path | None = None,
    world: World | None = None,
) -> Trained:
    """Train a masked autoencoder, or continue from its last state.

    Parameters
    ----------
    sites : Sites
        Images to train on; a few are held out.
    knobs : MaeKnobs
        Model and training.
    states : States
        Where the states of the training are kept.
    name : str
        Name of the encoder.
    trained_on : str
        Fingerprint of the manifest.
    start : Path
        Folder of an encoder whose weights training starts from; None: from random ones. The
        decoder is always new.
    world : World
        The processes that train together; None: this one alone.
    """
    held = hold_out(sites, knobs.held_out, knobs.seed)
    shown, learned = sites.only(held), sites.only(~held)
    learned.hold(knobs.memory_mb)
    n_channels = len(sites.channels)
    n_patches = (knobs.crop // knobs.patch) ** 2 * (n_channels if knobs.channel_agnostic else 1)

    def noise(rng: np.random.Generator, site: int) -> tuple[np.ndarray, ...]:
        return rng.random(n_patches, np.float32), rng.random(knobs.depth, np.float32)

    stream = CropStream(
        learned,
        crop=knobs.crop,
        batch=knobs.batch,
        seed=knobs.seed,
        flips=knobs.flips,
        extras=noise,
    )
    choose_attention(n_patches, bfloat16=knobs.precision == "bfloat16")
    flops = crop_flops(knobs, n_channels)
    torch.manual_seed(int(generator(knobs.seed, "weights").integers(2**62)))
    model = build_autoencoder(knobs, n_channels)
    config = describe_encoder(knobs, sites.channels, trained_on)
    config = replace(config, pixels=sites.facts)
    before = replace(config, crops_seen=0, training_flops=0.0)
    if start is not None:
        before = take_weights(model.encoder, config, start)
    world = world or World()
    training = Training(
        *(model, stream, autoencoder_loss, knobs, states, name),
        world=world,
        flops=flops,
        watch=picture(states.folder / PANELS, shown, knobs, world),
    )
    history = training.run()
    model = training.complete(lambda: build_autoencoder(knobs, n_channels))
    painted = reconstruct(model, shown, knobs.crop, knobs.seed)
    seen = training.crops_seen
    config = with_training(config, before, crops=seen, flops=flops * seen)
    return Trained(MaeEncoder(config, model.encoder), history, painted)


def picture(folder: Path, shown: Sites, knobs: MaeKnobs, world: World) -> Watch:
    """Return what paints some held-out images every so many updates."""
    few = shown.only(np.arange(len(shown)) < IMAGES)
    # A model in slices paints only where all processes do.
    alone = knobs.parallel == "ddp"

    def watch(model: nn.Module, update: int) -> None:
        if not knobs.panels_every or update % knobs.panels_every or (alone and not world.leads):
            return
        assert isinstance(model, MaskedAutoencoder)
        model.eval()
        bfloat16 = knobs.precision == "bfloat16"
        with torch.autocast(world.device.type, torch.bfloat16, enabled=bfloat16):
            painted = reconstruct(model, few, knobs.crop, knobs.seed)
        model.train()
        if world.leads:
            write_panel(folder / f"update-{update:09d}.png", painted)

    return watch


def autoencoder_loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Return the loss of a batch and its two parts."""
    out = model(*batch)
    return {"loss": out.loss, "l2": out.l2, "fourier": out.fourier}


def describe_encoder(
    knobs: MaeKnobs, channels: Sequence[str], trained_on: str
) -> EncoderConfig:
    """Return the configuration of the encoder that such a training makes, before it."""
    names = {"crop", "patch", "dim", "depth", "heads", "mlp_ratio"}
    n_channels = max(len(channels), MAX_CHANNELS) if knobs.channel_agnostic else len(channels)
    kind: Kind = "ca_mae" if knobs.channel_agnostic else "mae"
    return EncoderConfig(
        kind=kind,
        architecture=kind,
        channels=tuple(channels),
        crop=knobs.crop,
        model_args={**knobs.model_dump(include=names), "channels": n_channels},
        pooling=knobs.pooling,
        trained_on=trained_on,
        license=knobs.license,
    )


def crop_flops(knobs: MaeKnobs, channels: int) -> float:
    """Operations of training on one crop, none of which skips a block."""
    crop = torch.zeros(1, channels, knobs.crop, knobs.crop)
    n_patches = (knobs.crop // knobs.patch) ** 2
    noise = torch.zeros(1, n_patches * (channels if knobs.channel_agnostic else 1))
    return training_flops(lambda: build_autoencoder(knobs, channels), crop, noise)


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``pretrain_mae``."""
    files, knobs = parse_step(
        MaeKnobs,
        inputs=["manifest", "images*", "pixels*", "start_model?", "start_config?"],
        outputs=["model", "config", "card", "history", "reconstructions", "panels"],
        names=["encoder"],
        doc=__doc__,
        argv=argv,
    )
    world = World.join()
    wells = read_table(files.manifest, MANIFEST)
    sites = find_sites(files.images, files.pixels, wells, knobs.crop)
    (trained_on,) = files.stamp["inputs"]["manifest"]
    states = States.of(files.encoder, files.stamp, knobs)
    trained = train_mae(
        sites,
        knobs,
        states,
        name=files.encoder,
        trained_on=trained_on,
        start=files.start_model and files.start_model.parent,
        world=world,
    )
    if world.leads:
        write_table(files.history, trained.history, HISTORY, files.stamp)
        write_reconstructions(files.reconstructions, trained.reconstructions)
        copy_panels(states.folder / PANELS, files.panels)
        save_encoder(files.model.parent, trained.encoder, files.stamp)
    world.leave()


if __name__ == "__main__":
    run_training(main)
