"""Step ``dino``: train an encoder by its own mean as a teacher (DINOv2) on a manifest."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import polars as pl
import torch

from phenopipe.encoders.attention import choose_attention
from phenopipe.encoders.base import EncoderConfig
from phenopipe.encoders.dino import Dino, Network
from phenopipe.encoders.folder import save_encoder
from phenopipe.encoders.vit import MaeEncoder
from phenopipe.formats.histories import HISTORY
from phenopipe.formats.manifests import MANIFEST
from phenopipe.formats.tables import read_table, write_table
from phenopipe.knobs import parse_step
from phenopipe.pretrain.config import DinoKnobs
from phenopipe.pretrain.distillation import Distillation
from phenopipe.pretrain.distributed import World
from phenopipe.pretrain.flops import PASSES, flops
from phenopipe.pretrain.launch import run_training
from phenopipe.pretrain.loop import Training, updates_of
from phenopipe.pretrain.measures import Labelled, Measures
from phenopipe.pretrain.reconstructions import hold_out
from phenopipe.pretrain.sites import Sites, find_sites
from phenopipe.pretrain.start import take_weights, with_training
from phenopipe.pretrain.states import States
from phenopipe.pretrain.views import ViewStream
from phenopipe.seeds import generator


class Trained(NamedTuple):
    """What a training leaves: the teacher's encoder, and its history."""

    encoder: MaeEncoder
    history: pl.DataFrame


def build_dino(knobs: DinoKnobs, channels: int) -> Dino:
    """Build student and teacher as the knobs describe them, with random weights."""
    return Dino(
        channels=channels,
        features=knobs.head_features,
        **knobs.model_dump(
            include={
                *("crop", "patch", "dim", "depth", "heads", "mlp_ratio", "layer_scale"),
                *("drop_path", "drop_path_rule", "drop_path_form"),
                *("head_dim", "prototypes", "separate_heads"),
            }
        ),
    )


def train_dino(
    sites: Sites,
    wells: pl.DataFrame,
    knobs: DinoKnobs,
    states: States,
    *,
    name: str,
    trained_on: str,
    start: Path | None = None,
    world: World | None = None,
) -> Trained:
    """Train a student and its teacher, or continue from their last state.

    Parameters
    ----------
    sites : Sites
        Images to train on; a few are held out.
    wells : DataFrame
        The manifest; its labels are for probes alone.
    knobs : DinoKnobs
        Model and training.
    states : States
        Where the states of the training are kept.
    name : str
        Name of the encoder.
    trained_on : str
        Fingerprint of the manifest.
    start : Path
        Folder of an encoder whose weights training starts from; None: from random ones. Heads
        are always new.
    world : World
        The processes that train together; None: this one alone.
    """
    labelled = Labelled(sites, wells, knobs) if knobs.probe_every else None
    held = hold_out(sites, knobs.held_out, knobs.seed)
    shown, learned = sites.only(held), sites.only(~held)
    learned.hold(knobs.memory_mb)
    channels = len(sites.channels)
    choose_attention((knobs.crop // knobs.patch) ** 2, bfloat16=knobs.precision == "bfloat16")
    operations = image_flops(knobs, channels)
    torch.manual_seed(int(generator(knobs.seed, "weights").integers(2**62)))
    model = build_dino(knobs, channels)
    config = describe_encoder(knobs, sites.channels, trained_on)
    config = replace(config, pixels=sites.facts)
    before = replace(config, crops_seen=0, training_flops=0.0)
    if start is not None:
        before = take_weights(model.student.encoder, config, start)
        model.start_teacher()
    world = world or World()
    work = Distillation(model, knobs, world, updates_of(knobs, len(learned)))
    training = Training(
        *(model, ViewStream(learned, knobs), work.loss, knobs, states, name),
        world=world,
        flops=operations,
        prepare=work.prepare,
        follow=work.follow,
        watch=Measures(
            work, config, shown, labelled, lambda *line: training.journal.note(*line)
        ),
    )
    history = training.run()
    model = training.complete(lambda: build_dino(knobs, channels))
    images, crops = training.crops_seen, knobs.large_crops + knobs.small_crops
    config = with_training(config, before, crops=images * crops, flops=operations * images)
    return Trained(MaeEncoder(config, model.teacher.encoder), history)


def describe_encoder(
    knobs: DinoKnobs, channels: Sequence[str], trained_on: str
) -> EncoderConfig:
    """Return the configuration of the encoder that such a training makes, before it."""
    names = {"crop", "patch", "dim", "depth", "heads", "mlp_ratio"}
    return EncoderConfig(
        kind="dino",
        architecture="dino",
        channels=tuple(channels),
        crop=knobs.crop,
        model_args={**knobs.model_dump(include=names), "channels": len(channels)},
        pooling=knobs.pooling,
        trained_on=trained_on,
        license=knobs.license,
    )


def image_flops(knobs: DinoKnobs, channels: int) -> float:
    """Operations of training on one image, none of whose crops skips a block.

    The student's large and small crops pass forwards and backwards, the teacher's large ones
    forwards; of the patches, as many as are hidden on average.
    """
    shares = knobs.mask_ratio
    hidden = (
        knobs.large_crops * knobs.masked * sum(shares) / 2 * (knobs.crop // knobs.patch) ** 2
    )

    def run(network: Network, sizes: Sequence[tuple[int, int]]) -> None:
        for count, side in sizes:
            if count:
                network.encode(torch.zeros(count, channels, side, side))
        crops = sum(count for count, _ in sizes)
        network.class_head.logits(torch.zeros(crops, knobs.dim), frozen=False)
        network.patch_head.logits(torch.zeros(round(hidden), knobs.dim), frozen=False)

    def build() -> Dino:
        return build_dino(knobs, channels)

    large = (knobs.large_crops, knobs.crop)
    small = (knobs.small_crops, knobs.small_crop)
    learning = flops(build, lambda model: run(model.student, [large, small]))
    return PASSES * learning + flops(build, lambda model: run(model.teacher, [large]))


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``pretrain_dino``."""
    files, knobs = parse_step(
        DinoKnobs,
        inputs=["manifest", "images*", "pixels*", "start_model?", "start_config?"],
        outputs=["model", "config", "card", "history"],
        names=["encoder"],
        doc=__doc__,
        argv=argv,
    )
    world = World.join()
    wells = read_table(files.manifest, MANIFEST)
    sites = find_sites(files.images, files.pixels, wells, knobs.crop)
    (trained_on,) = files.stamp["inputs"]["manifest"]
    trained = train_dino(
        sites,
        wells,
        knobs,
        States.of(files.encoder, files.stamp, knobs),
        name=files.encoder,
        trained_on=trained_on,
        start=files.start_model and files.start_model.parent,
        world=world,
    )
    if world.leads:
        write_table(files.history, trained.history, HISTORY, files.stamp)
        save_encoder(files.model.parent, trained.encoder, files.stamp)
    world.leave()


if __name__ == "__main__":
    run_training(main)
