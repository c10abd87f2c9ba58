"""Step ``classifier``: train any timm model to tell what was done to the wells of a screen."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

from phenopipe.encoders.attention import choose_attention
from phenopipe.encoders.base import Encoder, EncoderConfig
from phenopipe.encoders.folder import build, create_timm, save_encoder, timm_kind, timm_pooling
from phenopipe.encoders.standardize import self_standardize
from phenopipe.formats.histories import HISTORY
from phenopipe.formats.qc import passing_wells
from phenopipe.formats.tables import write_table
from phenopipe.knobs import parse_step
from phenopipe.pretrain.config import ClassifierKnobs
from phenopipe.pretrain.distributed import World
from phenopipe.pretrain.flops import training_flops
from phenopipe.pretrain.labels import label_wells
from phenopipe.pretrain.launch import run_training
from phenopipe.pretrain.loop import Training
from phenopipe.pretrain.sites import Sites, find_sites
from phenopipe.pretrain.start import take_weights, with_training
from phenopipe.pretrain.states import States, training_fingerprint
from phenopipe.pretrain.stream import Batch, CropStream
from phenopipe.seeds import generator


class Classifier(nn.Module):
    """A timm model with a linear head, on self-standardized crops."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return the score of every class, (n_crops, n_classes)."""
        scores: Tensor = self.model(self_standardize(images_NCHW))
        return scores


class Trained(NamedTuple):
    """What a training leaves: the encoder without its head, and its history."""

    encoder: Encoder
    history: pl.DataFrame


def model_args(knobs: ClassifierKnobs, channels: int) -> dict[str, Any]:
    """Arguments that timm builds the model with, apart from the number of classes."""
    args = {**knobs.model_args, "in_chans": channels}
    is_vit = timm_kind(knobs.architecture, args) == "vit"
    return {"img_size": knobs.crop, **args} if is_vit else args


def train_classifier(
    sites: Sites,
    labels: pl.DataFrame,
    knobs: ClassifierKnobs,
    states: States,
    *,
    name: str,
    trained_on: str,
    start: Path | None = None,
    world: World | None = None,
) -> Trained:
    """Train a classifier, or continue from its last state.

    Parameters
    ----------
    sites : Sites
        Images to train on.
    labels : DataFrame
        ``screen, well_id, label`` of the wells that they show.
    knobs : ClassifierKnobs
        Model and training.
    states : States
        Where the states of the training are kept.
    name : str
        Name of the encoder.
    trained_on : str
        Fingerprint of labels and images.
    start : Path
        Folder of an encoder whose weights training starts from; None: from random ones.
    world : World
        The processes that train together; None: this one alone.
    """
    sites.hold(knobs.memory_mb)
    classes = sorted(labels["label"].unique())
    place = {label: number for number, label in enumerate(classes)}
    named = sites.table.join(labels, on=["screen", "well_id"], maintain_order="left")
    label_N = np.array([place[label] for label in named["label"]], dtype=np.int64)

    def label_of(rng: np.random.Generator, site: int) -> tuple[np.ndarray, ...]:
        return (label_N[site],)

    stream = CropStream(
        sites,
        crop=knobs.crop,
        batch=knobs.batch,
        seed=knobs.seed,
        flips=knobs.flips,
        extras=label_of,
    )
    args = model_args(knobs, len(sites.channels))
    choose_attention(_tokens(knobs), bfloat16=knobs.precision == "bfloat16")
    head = {**args, "num_classes": len(classes)}

    def make() -> Classifier:
        return Classifier(create_timm(knobs.architecture, head))

    flops = training_flops(make, torch.zeros(1, len(sites.channels), knobs.crop, knobs.crop))
    torch.manual_seed(int(generator(knobs.seed, "weights").integers(2**62)))
    model = make()
    config = describe_encoder(knobs, sites.channels, args)
    config = replace(config, trained_on=trained_on, pixels=sites.facts)
    before = replace(config, crops_seen=0, training_flops=0.0)
    if start is not None:
        before = take_weights(model.model, config, start)
    world = world or World()
    training = Training(
        *(model, stream, classifier_loss, knobs, states, name),
        world=world,
        flops=flops,
    )
    history = training.run()
    model = training.complete(make)
    seen = training.crops_seen
    config = with_training(config, before, crops=seen, flops=flops * seen)
    return Trained(without_head(model.model, config), history)


def classifier_loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Return the cross entropy of a batch and the share of right answers."""
    images_NCHW, label_N = batch
    scores = model(images_NCHW).float()
    right = (scores.argmax(dim=1) == label_N).float().mean()
    return {"loss": functional.cross_entropy(scores, label_N), "accuracy": right}


def describe_encoder(
    knobs: ClassifierKnobs, channels: Sequence[str], args: dict[str, Any]
) -> EncoderConfig:
    """Return the configuration of the encoder behind a classifier, before any training."""
    return EncoderConfig(
        kind=timm_kind(knobs.architecture, args),
        architecture=knobs.architecture,
        channels=tuple(channels),
        crop=knobs.crop,
        model_args=args,
        pooling=timm_pooling(knobs.architecture, args, knobs.pooling),
        license=knobs.license,
    )


def without_head(model: nn.Module, config: EncoderConfig) -> Encoder:
    """Return the encoder with a trained model's weights, its head left out."""
    encoder = build(config)
    wanted = encoder.model.state_dict()
    trained = {k: v for k, v in model.state_dict().items() if k in wanted}
    encoder.model.load_state_dict(trained)
    return encoder.eval()


def _tokens(knobs: ClassifierKnobs) -> int:
    return (knobs.crop // int(knobs.model_args.get("patch_size", 16))) ** 2


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``pretrain_classifier``."""
    files, knobs = parse_step(
        ClassifierKnobs,
        inputs=["wells*", "images*", "pixels*", "start_model?", "start_config?"],
        outputs=["model", "config", "card", "history"],
        names=["encoder"],
        doc=__doc__,
        argv=argv,
    )
    world = World.join()
    labels = label_wells(passing_wells(files.wells), knobs.label, controls=knobs.controls)
    sites = find_sites(files.images, files.pixels, labels, knobs.crop)
    trained = train_classifier(
        sites,
        labels,
        knobs,
        States.of(files.encoder, files.stamp, knobs),
        name=files.encoder,
        trained_on=training_fingerprint(files.stamp),
        start=files.start_model and files.start_model.parent,
        world=world,
    )
    if world.leads:
        write_table(files.history, trained.history, HISTORY, files.stamp)
        save_encoder(files.model.parent, trained.encoder, files.stamp)
    world.leave()


if __name__ == "__main__":
    run_training(main)
