"""What a student and its teacher do around an update of the training loop.

Before it, the teacher looks at the whole share of a process, and all processes together find
out how much each prototype is used; then the student learns, piece by piece; after it, the
teacher moves. So an update depends neither on the number of processes nor on that of pieces.

Shape suffixes as in :mod:`phenopipe.pretrain.dino_losses`.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from phenopipe.encoders.dino import Dino, Said, Taught
from phenopipe.pretrain.config import DinoKnobs
from phenopipe.pretrain.dino_losses import (
    centre_offset,
    dino_loss,
    entropy,
    ibot_loss,
    koleo_loss,
    mean_logits,
    sinkhorn_offset,
    targets,
)
from phenopipe.pretrain.distributed import World, whole
from phenopipe.pretrain.stream import Batch
from phenopipe.pretrain.views import Prepared, Views, prepare


def teacher_temperature(knobs: DinoKnobs, progress: float) -> float:
    """Temperature at a share of the training: a straight line, then level (DINO, section 3)."""
    first, last = knobs.teacher_temperature
    if progress >= knobs.teacher_warmup:
        return last
    return first + (last - first) * progress / knobs.teacher_warmup


def teacher_momentum(knobs: DinoKnobs, progress: float) -> float:
    """Share of itself that the teacher keeps: half a cosine (DINO, section 3)."""
    first, last = knobs.momentum
    return last + (first - last) * (1.0 + math.cos(math.pi * progress)) / 2.0


class Guide(NamedTuple):
    """What turns the teacher's features into targets, at one update.

    prototypes_KF : of length 1.
    offset_K : see :func:`~phenopipe.pretrain.dino_losses.targets`.
    mean_K : mean logits of the batch, where a centre moves by them.
    """

    prototypes_KF: Tensor
    offset_K: Tensor
    mean_K: Tensor | None

    def targets(self, features_MF: Tensor, temperature: float) -> Tensor:
        """Return the distributions (M, K) that the teacher sets."""
        return targets(features_MF, self.prototypes_KF, temperature, self.offset_K)


class Lesson(NamedTuple):
    """What an update has in all its pieces: temperature, whether prototypes learn, targets."""

    temperature: float
    frozen: bool
    of_crops: Guide
    of_patches: Guide


class Piece(NamedTuple):
    """Some images of a process's share, ready to learn from.

    first : row of the first image among those of all processes.
    all_BGD : embeddings of all of them, or None where this piece is the process's whole share.
    world : the processes whose images are compared.
    """

    lesson: Lesson
    prepared: Prepared
    taught: Taught
    first: int
    all_BGD: Tensor | None
    world: World


def by_image(crops: Tensor, count: int) -> Tensor:
    """Put as many consecutive crops of each image on an axis of their own."""
    return crops.reshape(-1, count, *crops.shape[1:])


class Distillation:
    """One student, one teacher, one training.

    Parameters
    ----------
    model : Dino
        Both of them.
    knobs : DinoKnobs
        The training.
    world : World
        The processes that train together.
    updates : int
        Updates of the whole training.
    """

    def __init__(self, model: Dino, knobs: DinoKnobs, world: World, updates: int) -> None:
        self.model, self.knobs, self.world, self.updates = model, knobs, world, updates
        self.lesson: Lesson | None = None

    def prepare(self, called: nn.Module, update: int, pieces: list[Batch]) -> list[Piece]:
        """Let the teacher look at all pieces of this process's share of a batch."""
        device = self.world.device
        views = [Views(*(part.to(device, non_blocking=True) for part in p)) for p in pieces]
        found = self.pieces(called, update, views, self.world)
        self.lesson = found[0].lesson
        return found

    @torch.no_grad()
    def pieces(
        self, called: nn.Module, update: int, views: list[Views], world: World
    ) -> list[Piece]:
        """Turn views into pieces to learn from, with targets that spread over all of them."""
        prepared = [prepare(one) for one in views]
        with self.autocast():
            taught: list[Taught] = [
                called("teach", one.large_NCHW, one.mask_NL) for one in prepared
            ]
        lesson = self._lesson(update, taught, world)
        sizes = [len(one.large) for one in views]
        first = world.rank * sum(sizes)
        firsts = [first + sum(sizes[:at]) for at in range(len(sizes))]
        all_BGD = None
        if len(views) > 1:
            # Nearest neighbours lie in any piece: all embeddings are computed beforehand.
            mine = torch.cat([self._embeddings(called, one) for one in prepared])
            all_BGD = world.gathered(mine)
        parts = zip(prepared, taught, firsts, strict=True)
        return [Piece(lesson, *part, all_BGD, world) for part in parts]

    def _lesson(self, update: int, taught: list[Taught], world: World) -> Lesson:
        """Find what spreads the targets of crops, and of patches, over the prototypes."""
        model, teacher, progress = self.model, self.model.teacher, update / self.updates
        temperature = teacher_temperature(self.knobs, progress)
        crops_MF, patches_MF = (torch.cat(part) for part in zip(*taught, strict=True))
        guides = (
            self._guide(features, head.prototypes, centre, temperature, world)
            for features, head, centre in (
                (crops_MF, teacher.class_head, model.crop_centre),
                (patches_MF, teacher.patch_head, model.patch_centre),
            )
        )
        return Lesson(temperature, progress < self.knobs.frozen, *guides)

    def _guide(
        self,
        features_MF: Tensor,
        weight_KF: Tensor,
        centre_K: Tensor,
        temperature: float,
        world: World,
    ) -> Guide:
        prototypes_KF = functional.normalize(whole(weight_KF).float(), dim=1)
        if self.knobs.centring == "centre":
            offset_K = centre_offset(centre_K, temperature)
            mean_K = mean_logits(features_MF, prototypes_KF, world)
            return Guide(prototypes_KF, offset_K, mean_K)
        offset_K = sinkhorn_offset(
            *(features_MF, prototypes_KF, temperature),
            rounds=self.knobs.sinkhorn_rounds,
            processes=world,
        )
        return Guide(prototypes_KF, offset_K, None)

    def _embeddings(self, called: nn.Module, prepared: Prepared) -> Tensor:
        """Return the student's embeddings of large crops, (N, G, D)."""
        seen = (prepared.large_NCHW, prepared.drop_large_NB, prepared.mask_NL)
        with self.autocast():
            found: Tensor = called("embed", *seen)
        return by_image(found, self.knobs.large_crops).float()

    def loss(self, called: nn.Module, piece: Piece) -> dict[str, Tensor]:
        """Return the loss of a piece and its parts, means over images."""
        prepared = piece.prepared
        said: Said = called(
            "learn",
            *(prepared.large_NCHW, prepared.small_NCHW, prepared.mask_NL),
            *(prepared.drop_large_NB, prepared.drop_small_NB, piece.lesson.frozen),
        )
        with torch.autocast(self.world.device.type, enabled=False):
            return self._losses(said, piece)

    def _losses(self, said: Said, piece: Piece) -> dict[str, Tensor]:
        knobs, lesson = self.knobs, piece.lesson
        aims_MK = lesson.of_crops.targets(piece.taught.of_crops, lesson.temperature)
        patch_aims_MK = lesson.of_patches.targets(piece.taught.of_patches, lesson.temperature)
        logits_NVK = by_image(said.of_large, knobs.large_crops)
        if knobs.small_crops:
            small_NSK = by_image(said.of_small, knobs.small_crops)
            logits_NVK = torch.cat([logits_NVK, small_NSK], dim=1)
        aims_NGK = by_image(aims_MK, knobs.large_crops)
        dino = dino_loss(logits_NVK, aims_NGK, knobs.student_temperature)
        ibot = ibot_loss(
            *(said.of_patches, patch_aims_MK, piece.prepared.weight_M),
            knobs.student_temperature,
        )
        koleo = self._koleo(said, piece)
        loss = knobs.dino_weight * dino + knobs.ibot_weight * ibot + knobs.koleo_weight * koleo
        share = entropy(aims_MK).mean() / math.log(max(knobs.prototypes, 2))
        return {"loss": loss, "dino": dino, "ibot": ibot, "koleo": koleo, "entropy": share}

    def _koleo(self, said: Said, piece: Piece) -> Tensor:
        """Drive apart large crops of the same number: those of one image shall be near."""
        n_large = self.knobs.large_crops
        mine_NGD = by_image(said.embeddings, n_large).float()
        all_BGD = piece.all_BGD
        if all_BGD is None:
            all_BGD = piece.world.gathered(mine_NGD)
        losses = [
            koleo_loss(mine_NGD[:, at], all_BGD[:, at], piece.first) for at in range(n_large)
        ]
        return torch.stack(losses).sum()

    def follow(self, update: int) -> None:
        """Move the teacher, and the centres, after an update that was made."""
        model, lesson = self.model, self.lesson
        assert lesson is not None
        model.move_teacher(teacher_momentum(self.knobs, update / self.updates))
        centres = (model.crop_centre, model.patch_centre)
        for centre_K, guide in zip(centres, (lesson.of_crops, lesson.of_patches), strict=True):
            if guide.mean_K is not None:
                centre_K.lerp_(guide.mean_K, 1.0 - self.knobs.centre_momentum)

    def autocast(self) -> torch.autocast:
        """Compute in the training's arithmetic."""
        bfloat16 = self.knobs.precision == "bfloat16"
        return torch.autocast(self.world.device.type, torch.bfloat16, enabled=bfloat16)
