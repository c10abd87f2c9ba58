"""What shows over-fitting and collapse of a training without labels, while it runs.

Shape suffixes as in :mod:`phenopipe.pretrain.dino_losses`; I images, C classes.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from phenopipe.classifier import linear_classifier
from phenopipe.encoders.base import EncoderConfig
from phenopipe.encoders.dino import Dino
from phenopipe.encoders.vit import MaeEncoder
from phenopipe.errors import UserError
from phenopipe.pretrain.config import DinoKnobs
from phenopipe.pretrain.dino_losses import effective_rank, entropy
from phenopipe.pretrain.distillation import Distillation
from phenopipe.pretrain.distributed import World
from phenopipe.pretrain.labels import label_wells
from phenopipe.pretrain.sites import Sites
from phenopipe.pretrain.views import Views, draw_views
from phenopipe.seeds import generator, hash_uniform

# Crops of a network at once.
CHUNK = 64
PROBE_STEPS = 200
# Outputs that tell less of a crop than this share of what they could tell nothing of it.
LEAST_TOLD = 0.01
Say = Callable[[int, str], None]


class Labelled:
    """Images that probes learn from and are held to.

    Parameters
    ----------
    sites : Sites
        All images.
    wells : DataFrame
        The manifest.
    knobs : DinoKnobs
        Which label, how many classes and images.
    """

    def __init__(self, sites: Sites, wells: pl.DataFrame, knobs: DinoKnobs) -> None:
        labels = label_wells(wells, knobs.probe_label, controls=False)
        keys = ["screen", "well_id"]
        named = sites.table.join(labels, on=keys, how="left", maintain_order="left")
        counts = named["label"].drop_nulls().value_counts()
        classes = counts.sort("count", "label", descending=[True, False])["label"]
        draw = hash_uniform(knobs.seed, named["image_id"])
        side = _halves(named, knobs.seed)
        named = named.with_columns(side=pl.Series(side))
        largest = classes.head(knobs.probe_classes).to_list()
        kept = named["label"].is_in(largest).fill_null(False).to_numpy()
        order = np.lexsort((draw, ~kept))[: min(knobs.probe_images, int(kept.sum()))]
        chosen = np.zeros(len(sites), dtype=bool)
        chosen[order] = True
        self.sites = sites.only(chosen)
        rows = named.filter(chosen)
        self.label_I = rows["label"].to_numpy().astype(np.str_)
        self.learns_I: NDArray[np.bool_] = rows["side"].to_numpy()
        if len(set(self.label_I[self.learns_I])) < 2 or self.learns_I.all():
            raise UserError(
                f"pretrain.dino.probe_label: {knobs.probe_label!r} gives too few wells to "
                "probe, wanted at least two classes of two wells"
            )


def _halves(named: pl.DataFrame, seed: int) -> NDArray[np.bool_]:
    """Part the wells of each class in two halves, by the wells' own draws."""
    wells = named.select("screen", "well_id", "label").unique(maintain_order=True)
    wells = wells.with_columns(place=pl.Series(hash_uniform(seed, wells["well_id"])))
    side = wells.select(
        *("screen", "well_id"), learns=pl.col("place").rank("ordinal").over("label") % 2 == 1
    )
    joined = named.join(side, on=["screen", "well_id"], maintain_order="left")
    return joined["learns"].to_numpy()


class Measures:
    """Looks at held-out images now and then, and says when a training has collapsed.

    Parameters
    ----------
    distillation : Distillation
        The training.
    config : EncoderConfig
        Of the encoder that it makes.
    shown : Sites
        Held-out images.
    labelled : Labelled or None
        Images of the probes.
    say : callable
        Tells a line, given how many updates were made.
    """

    def __init__(
        self,
        distillation: Distillation,
        config: EncoderConfig,
        shown: Sites,
        labelled: Labelled | None,
        say: Say,
    ) -> None:
        self.distillation, self.config, self.shown = distillation, config, shown
        self.labelled, self.say = labelled, say
        self.knobs: DinoKnobs = distillation.knobs
        self.collapsed = False

    def __call__(self, model: nn.Module, update: int) -> dict[str, float]:
        """Return what is measured after an update: nothing, most of the time."""
        knobs = self.knobs
        looks, probes = (
            every > 0 and (update % every == 0 or update == self.distillation.updates)
            for every in (knobs.measure_every, knobs.probe_every)
        )
        found: dict[str, float] = {}
        if not (looks or probes):
            return found
        model.eval()
        if looks:
            found |= self.look(model, update - 1)
            self._judge(update, found)
        if probes and self.labelled is not None:
            found |= self.probe(model, self.labelled)
        model.train()
        return found

    @torch.no_grad()
    def look(self, model: nn.Module, update: int) -> dict[str, float]:
        """Measure loss, entropy and rank on held-out images, in batches as in training.

        Returns
        -------
        mapping
            ``held_out_loss``: of views that are the same at every look. ``held_out_entropy``:
            of the teacher's targets, from 0 (sure) to 1 (all prototypes alike).
            ``held_out_told``: how much of the entropy of all targets together is told by the
            crop, in units of the logarithm of the crops: from 0 (all crops are told alike) to
            1. ``held_out_rank``: effective rank of the teacher's embeddings.
        """
        size = min(self.knobs.batch, len(self.shown))
        firsts = range(0, len(self.shown) - size + 1, size)
        totals: dict[str, float] = {}
        for first in firsts:
            found = self._of_batch(model, update, self._views(range(first, first + size)))
            for name, value in found.items():
                totals[name] = totals.get(name, 0.0) + value / len(firsts)
        rank = effective_rank(self.embed(model, self.shown)[:, -1])
        return {**totals, "held_out_rank": rank}

    def _of_batch(self, model: nn.Module, update: int, views: Views) -> dict[str, float]:
        # Every process looks at all of them: none waits for another's share.
        work = self.distillation
        (piece,) = work.pieces(model, update, [views], World())
        with work.autocast():
            losses = work.loss(model, piece)
        lesson = piece.lesson
        aims_MK = lesson.of_crops.targets(piece.taught.of_crops, lesson.temperature)
        single, together = entropy(aims_MK).mean(), entropy(aims_MK.mean(dim=0))
        told = (together - single) / math.log(min(aims_MK.shape))
        return {
            "held_out_loss": float(losses["loss"]),
            "held_out_entropy": float(losses["entropy"]),
            "held_out_told": float(told),
        }

    def _views(self, numbers: Sequence[int]) -> Views:
        """Draw the views of held-out images, which are the same at every look."""
        drawn = []
        for number in numbers:
            image = self.shown.table["image_id"][number]
            rng = generator(self.knobs.seed, "held_out", image)
            drawn.append(draw_views(self.shown.pixels(number), self.knobs, rng))
        parts = zip(*drawn, strict=True)
        device = self.distillation.world.device
        return Views(*(torch.from_numpy(np.stack(part)).to(device) for part in parts))

    @torch.no_grad()
    def embed(self, model: nn.Module, sites: Sites) -> Tensor:
        """Embed the middle of each image at every block: (I, blocks, D) on the processor."""
        crop, found = self.knobs.crop, []
        for first in range(0, len(sites), CHUNK):
            cuts = []
            for number in range(first, min(first + CHUNK, len(sites))):
                pixels = sites.pixels(number)
                top, left = ((side - crop) // 2 for side in pixels.shape[1:])
                cuts.append(pixels[:, top : top + crop, left : left + crop])
            images = torch.from_numpy(np.stack(cuts)).to(self.distillation.world.device)
            with self.distillation.autocast():
                found.append(model("applied", self._embed, images).cpu())
        return torch.cat(found)

    def _embed(self, model: Dino, images_NCHW: Tensor) -> Tensor:
        encoder = MaeEncoder(self.config, model.teacher.encoder)
        return encoder.stack_blocks(encoder.normalize(images_NCHW))

    def probe(self, model: nn.Module, labelled: Labelled) -> dict[str, float]:
        """Probe every block: balanced accuracy on the wells that did not teach the probe."""
        x_IBD = self.embed(model, labelled.sites).double().numpy()
        learns_I, label_I = labelled.learns_I, labelled.label_I
        known = np.unique(label_I[learns_I])
        asked_I = ~learns_I & np.isin(label_I, known)
        found = {}
        for at in range(x_IBD.shape[1]):
            probe = linear_classifier(max_iter=PROBE_STEPS)
            probe.fit(x_IBD[learns_I, at], label_I[learns_I])
            hit_I = probe.predict(x_IBD[asked_I, at]) == label_I[asked_I]
            asked = label_I[asked_I]
            shares = [hit_I[asked == one].mean() for one in np.unique(asked)]
            found[f"probe_{at + 1}"] = float(np.mean(shares))
        return found

    def _judge(self, update: int, found: dict[str, float]) -> None:
        """Say once when a training has collapsed, and when it has come back."""
        could_be = min(len(self.shown) - 1, self.knobs.dim)
        rank, told = found["held_out_rank"], found["held_out_told"]
        collapsed = rank < self.knobs.least_rank * could_be or told < LEAST_TOLD
        if collapsed and not self.collapsed:
            line = (
                f"collapsed at update {update}: embeddings differ in {rank:.1f} directions of "
                f"{could_be}, outputs tell {told:.1%} of what they could"
            )
            if self.knobs.stop_collapsed:
                raise UserError(f"{line}; lower lr or the teacher's temperature")
            self.say(update, line)
        elif self.collapsed and not collapsed:
            self.say(update, f"no longer collapsed at update {update}")
        self.collapsed = collapsed
