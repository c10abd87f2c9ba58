"""The training loop, the same for every model and any number of processes.

An update is made of one batch, shared by all processes and taken in pieces where memory is
short. What it does depends on neither, but for the order in which sums are added up.
"""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import polars as pl
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import AdamW, Optimizer

from phenopipe.pretrain.config import TrainingKnobs
from phenopipe.pretrain.distributed import (
    World,
    hold_back,
    unwrap_blocks,
    whole,
    wrap_blocks,
)
from phenopipe.pretrain.guard import Guard
from phenopipe.pretrain.histories import History, Update
from phenopipe.pretrain.journal import Journal, peak_flops
from phenopipe.pretrain.launch import EXIT_REQUEUE, Signals
from phenopipe.pretrain.lion import Lion
from phenopipe.pretrain.states import States, prime, training_tensors
from phenopipe.pretrain.stream import Batch, CropStream
from phenopipe.seeds import generator

# One-cycle schedule: the rate starts at 1/25 of its peak and ends at 1/10,000 of its start.
START_FACTOR, END_FACTOR = 25.0, 1e4

M = TypeVar("M", bound=nn.Module)
LossOf = Callable[[nn.Module, Any], dict[str, Tensor]]
Prepare = Callable[[nn.Module, int, list[Batch]], list[Any]]
Follow = Callable[[int], None]
Watch = Callable[[nn.Module, int], dict[str, float] | None]


def one_cycle(update: int, updates: int, peak: float, warmup: float) -> float:
    """Learning rate of an update (counted from 0): a cosine up, then a cosine down.

    Notes
    -----
    Smith & Topin 2018, as torch's ``OneCycleLR`` computes it with ``pct_start=warmup``;
    there it also moves the optimizer's first beta, which the paper's Table 5 holds fixed.
    """
    start = peak / START_FACTOR
    top = warmup * updates - 1.0
    if update < top:
        return _cosine(start, peak, update / top)
    return _cosine(peak, start / END_FACTOR, (update - top) / max(updates - 1.0 - top, 1e-9))


def _cosine(first: float, last: float, share: float) -> float:
    return last + (first - last) * (1.0 + math.cos(math.pi * share)) / 2.0


def updates_of(knobs: TrainingKnobs, images: int) -> int:
    """Updates of a training on a number of images."""
    return knobs.updates or max(1, math.ceil(knobs.epochs * images / knobs.batch))


def make_optimizer(model: nn.Module, knobs: TrainingKnobs) -> Optimizer:
    """Return the optimizer of the tensors that learn."""
    learning = [p for p in model.parameters() if p.requires_grad]
    lr, betas, decay = knobs.lr, knobs.betas, knobs.weight_decay
    if knobs.optimizer == "adamw":
        return AdamW(learning, lr, betas, weight_decay=decay)
    return Lion(learning, lr, betas, decay, compiled=knobs.compile)


@dataclass
class Training:
    """A model in training: one object, one loop.

    Attributes
    ----------
    model : nn.Module
        Moved to the GPU where there is one.
    stream : CropStream
        Gives batch number ``u`` for update ``u``.
    loss_of : callable
        Given model and batch, returns ``loss`` and its parts as tensors, means over crops.
    prepare : callable or None
        Called before every update with the model, the number of the update (from 0) and this
        process's share of the batch in its pieces; returns what ``loss_of`` gets of each.
    follow : callable or None
        Called with the number of every update (from 0) that was made and not skipped.
    knobs : TrainingKnobs
        How to train.
    states : States
        Where to continue from, and where states are kept.
    name : str
        What the lines of progress begin with.
    world : World
        The processes that train together.
    flops : float
        Operations of training on a crop.
    watch : callable or None
        Called after every update with the model and how many were made; what it measures
        stands beside the parts of the loss.
    """

    model: nn.Module
    stream: CropStream
    loss_of: LossOf
    knobs: TrainingKnobs
    states: States
    name: str
    world: World = field(default_factory=World)
    flops: float = 0.0
    prepare: Prepare | None = None
    follow: Follow | None = None
    watch: Watch | None = None
    done: int = 0
    stop: bool = False
    signals: Signals = field(default_factory=Signals)

    def __post_init__(self) -> None:
        knobs, world = self.knobs, self.world
        self.stream.share(world.rank, world.share_of(knobs.batch))
        self.model.to(world.device)
        wrap_blocks(
            self.model, compiled=knobs.compile, checkpointed=knobs.activation_checkpointing
        )
        bfloat16 = knobs.precision == "bfloat16"
        self.called = world.spread(self.model, knobs.parallel, bfloat16=bfloat16)
        self.optimizer = make_optimizer(self.model, knobs)
        self.updates = updates_of(knobs, len(self.stream.sites))
        # What the forward pass changes: running means and variances of batch norms.
        norms = [one for one in self.model.modules() if isinstance(one, _BatchNorm)]
        self.statistics = [one for norm in norms for one in norm.buffers(recurse=False)]
        self.guard = self._new_guard()
        self.states.world = world
        self.history = History(self.states.folder / "history.jsonl", writes=world.leads)

    def _new_guard(self) -> Guard:
        knobs = self.knobs
        return Guard(knobs.max_gradient_ratio, knobs.max_skipped, knobs.max_returns)

    def run(self) -> pl.DataFrame:
        """Train to the end, from the last state if there is one, and return the history."""
        continues = self._load()
        self.model.train()
        with Signals() as self.signals, self._journal() as self.journal:
            how = f"continues after update {self.done}" if continues else "starts"
            many = f" on {self.world.size} processes" if self.world.size > 1 else ""
            self.journal.note(self.done, f"{how}{many}, {self.updates} updates in all")
            if self.knobs.precision == "bfloat16" and self.world.lacks_bfloat16:
                told = "this processor has no bfloat16: float32 is several times as fast here"
                self.journal.note(self.done, told)
            if self.world.leads and not continues:
                for other in self.states.others():
                    self.journal.note(0, f"takes nothing from another training, {other}")
            while self.done < self.updates:
                self._train()
            self.states.finish()
        self.model.eval()
        unwrap_blocks(self.model)
        self.history.close()
        return self.history.table() if self.world.leads else pl.DataFrame()

    def _train(self) -> None:
        """Make updates until the last one, or until the guard gives up on some."""
        shift = self.guard.shift
        batches = self.stream.batches(self.done + shift, self.updates + shift)
        with contextlib.closing(batches):
            while self.done < self.updates:
                clock = time.monotonic()
                batch = next(batches)
                waited = time.monotonic() - clock
                row = self.step(self.done, batch)
                if self.guard.gives_up:
                    self._return()
                    return
                self.done += 1
                if self.watch is not None:
                    row.parts.update(self.watch(self.model, self.done) or {})
                self.history.append(row)
                if row.skipped:
                    self.journal.note(self.done, self.guard.told(self.done, row.gradient_norm))
                self.journal.tell(row, waited)
                stop = self.stop and self.done < self.updates
                if stop or self.done % self.knobs.checkpoint_every == 0 or self._ended:
                    self._save()
                if stop:
                    self._leave()

    def step(self, update: int, batch: Batch) -> Update:
        """Make one update (counted from 0) and return its row of the history.

        A gradient that the guard refuses changes nothing but its counts.
        """
        statistics = [one.clone() for one in self.statistics]
        knobs = self.knobs
        lr = one_cycle(update, self.updates, knobs.lr, knobs.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        # Dropout inside a timm model draws from torch's generator.
        place = [self.world.rank] if self.world.rank else []
        seed = generator(knobs.seed, "update", update, *place).integers(2**62)
        torch.manual_seed(int(seed))
        found = self._gradients(batch, update)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), knobs.max_gradient_norm)
        numbers, length = self._agree(found), float(whole(norm))
        skipped = not self.guard.accepts(length, numbers["loss"])
        if skipped:
            for one, before in zip(self.statistics, statistics, strict=True):
                one.copy_(before)
        else:
            self.optimizer.step()
            if self.follow is not None:
                self.follow(update)
        epoch = (update + 1 + self.guard.shift) * knobs.batch / len(self.stream.sites)
        return Update(update + 1, epoch, numbers.pop("loss"), lr, length, skipped, numbers)

    def _gradients(self, batch: Batch, update: int = 0) -> dict[str, Tensor]:
        """Add up the gradients of a batch piece by piece; returns its loss and parts.

        Losses are means over crops, each of which hides as many patches: the mean over
        pieces, by their crops, is that of the batch.
        """
        self.optimizer.zero_grad(set_to_none=True)
        crops, device = len(batch[0]), self.world.device.type
        count = math.ceil(crops / (self.knobs.micro_batch or crops))
        pieces = list(zip(*(part.tensor_split(count) for part in batch), strict=True))
        shares = [len(piece[0]) / crops for piece in pieces]
        bfloat16 = self.knobs.precision == "bfloat16"
        total: dict[str, Tensor] = {}
        ready = self._ready(pieces, update)
        for number, (piece, share) in enumerate(zip(ready, shares, strict=True), start=1):
            with hold_back(self.called, number < count):
                with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
                    losses = self.loss_of(self.called, piece)
                (losses["loss"] * share).backward()  # type: ignore[no-untyped-call]
            for name, value in losses.items():
                total[name] = total.get(name, 0.0) + value.detach() * share
        return total

    def _ready(self, pieces: list[Batch], update: int) -> Iterable[Any]:
        """Prepare pieces for the model, or else move them to its device one by one."""
        if self.prepare is not None:
            return self.prepare(self.called, update, pieces)
        device = self.world.device
        return (tuple(part.to(device, non_blocking=True) for part in one) for one in pieces)

    def _agree(self, numbers: dict[str, Tensor]) -> dict[str, float]:
        """Average the numbers of all processes, and learn whether one was told to stop."""
        stop = float(self.signals.asked is not None)
        *means, asked = self.world.mean([*map(float, numbers.values()), stop])
        self.stop = asked > 0
        return dict(zip(numbers, means, strict=True))

    @property
    def _ended(self) -> bool:
        return self.done == self.updates

    def _save(self) -> None:
        self.history.sync()
        self.world.settle(self.model)
        tensors = training_tensors(self.model, self.optimizer)
        self.states.save(self.done, tensors, {"guard": self.guard.state()})

    def _load(self) -> bool:
        """Continue from the newest state; without one, from the start."""
        prime(self.optimizer)
        found = self.states.load(training_tensors(self.model, self.optimizer))
        if found is None:
            self.optimizer.state.clear()
        else:
            self.done = found["update"]
            self.guard.load(found["guard"])
        self.history.cut(self.done)
        return found is not None

    def _return(self) -> None:
        """Go back to the last state, and on with the crops that come next in the stream."""
        before, at = self.guard, self.done + 1
        rate = self.optimizer.param_groups[0]["lr"]
        complaint = before.complain(self.name, at, rate)
        self.guard = self._new_guard()
        if before.returns == self.knobs.max_returns or not self._load():
            raise complaint
        self.guard.returned(before, at, self.done)
        self.journal.note(at, f"{complaint}; returns to update {self.done}")

    def _leave(self) -> None:
        """End because a signal asked for it; the state of the last update is saved."""
        self.states.finish()
        line = f"stopped by a signal after update {self.done}, its state is saved"
        self.journal.note(self.done, f"{line}; exit code {EXIT_REQUEUE}: run again")
        self.world.leave()
        sys.exit(EXIT_REQUEUE)

    def _journal(self) -> Journal:
        knobs = self.knobs
        return Journal(
            self.name,
            updates=self.updates,
            batch=knobs.batch,
            folder=Path(knobs.logs) if knobs.logs else None,
            every=knobs.log_every,
            flops=self.flops,
            peak=peak_flops(knobs.peak_tflops, self.world),
            quiet=not self.world.leads,
        )

    def complete(self, build: Callable[[], M]) -> M:
        """Return the trained model in one piece, in every process."""
        if not any(isinstance(p, DTensor) for p in self.model.parameters()):
            return cast(M, self.model)
        tensors = {name: whole(one) for name, one in self.model.state_dict().items()}
        model = build().to(self.world.device).eval()
        model.load_state_dict(tensors)
        return model

    @property
    def crops_seen(self) -> int:
        """Crops that all updates together have used."""
        return self.updates * self.knobs.batch
