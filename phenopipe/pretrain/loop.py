"""The training loop, the same for every model: schedule, clipping, guard, states, history."""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import polars as pl
import torch
from torch import Tensor, nn

from phenopipe.errors import UserError
from phenopipe.pretrain.config import TrainingKnobs
from phenopipe.pretrain.lion import Lion
from phenopipe.pretrain.states import States
from phenopipe.pretrain.stream import Batch, CropStream
from phenopipe.seeds import generator

# One-cycle schedule: the rate starts at 1/25 of its peak and ends at 1/10,000 of its start.
START_FACTOR, END_FACTOR = 25.0, 1e4
SECONDS_BETWEEN_LINES = 15.0

LossOf = Callable[[nn.Module, Batch], dict[str, Tensor]]


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


class Update(NamedTuple):
    """One row of the history."""

    update: int
    epoch: float
    loss: float
    lr: float
    gradient_norm: float
    parts: dict[str, float]


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
        Given model and batch, returns ``loss`` and its parts as tensors.
    knobs : TrainingKnobs
        How to train.
    states : States
        Where to continue from, and where states are kept.
    name : str
        What the lines of progress begin with.
    """

    model: nn.Module
    stream: CropStream
    loss_of: LossOf
    knobs: TrainingKnobs
    states: States
    name: str
    history: list[Update] = field(default_factory=list)
    skipped: int = 0

    def __post_init__(self) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model.to(self.device)
        learning = [p for p in self.model.parameters() if p.requires_grad]
        decay = self.knobs.weight_decay
        self.optimizer = Lion(learning, self.knobs.lr, self.knobs.betas, weight_decay=decay)
        epochs = self.knobs.epochs * len(self.stream.sites) / self.knobs.batch
        self.updates = self.knobs.updates or max(1, math.ceil(epochs))

    def run(self) -> pl.DataFrame:
        """Train to the end, from the last state if there is one, and return the history."""
        self._resume()
        self.model.train()
        first, progress = len(self.history), Progress(self.name, self.updates)
        clock = time.monotonic()
        for update, batch in enumerate(self.stream.batches(first, self.updates), start=first):
            waited = time.monotonic() - clock
            self.history.append(self.step(update, batch))
            if (update + 1) % self.knobs.checkpoint_every == 0 or update + 1 == self.updates:
                self.states.save(update + 1, self._state())
            progress.tell(self.history[-1], self.knobs.batch, waited)
            clock = time.monotonic()
        self.model.eval()
        return self.table()

    def step(self, update: int, batch: Batch) -> Update:
        """Make one update (counted from 0) and return its row of the history.

        A gradient that is not finite changes nothing but the count of skipped updates.
        """
        knobs = self.knobs
        lr = one_cycle(update, self.updates, knobs.lr, knobs.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        # Dropout inside a timm model draws from torch's generator.
        torch.manual_seed(int(generator(knobs.seed, "update", update).integers(2**62)))
        batch = tuple(part.to(self.device, non_blocking=True) for part in batch)
        bfloat16 = knobs.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
            losses = self.loss_of(self.model, batch)
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), knobs.max_gradient_norm))
        numbers = {name: float(value.detach()) for name, value in losses.items()}
        if math.isfinite(norm) and math.isfinite(numbers["loss"]):
            self.optimizer.step()
            self.skipped = 0
        else:
            self._skip(update)
        epoch = (update + 1) * knobs.batch / len(self.stream.sites)
        return Update(update + 1, epoch, numbers.pop("loss"), lr, norm, numbers)

    def _skip(self, update: int) -> None:
        self.skipped += 1
        if self.skipped > self.knobs.max_skipped:
            raise UserError(
                f"{self.name}: gradients are not finite in {self.skipped} updates running, "
                f"the last being {update + 1}; lower lr (found {self.knobs.lr:g})"
            )

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": [tuple(row) for row in self.history],
            "skipped": self.skipped,
        }

    def _resume(self) -> None:
        state = self.states.load()
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = [Update(*row) for row in state["history"]]
        self.skipped = state["skipped"]
        _say(f"{self.name}: continues after update {len(self.history)} of {self.updates}")

    def table(self) -> pl.DataFrame:
        """Return the history, parts of the loss as columns."""
        rows = [{**row._asdict(), **row.parts} for row in self.history]
        return pl.DataFrame(rows).drop("parts")

    @property
    def crops_seen(self) -> int:
        """Crops that all updates together have used."""
        return self.updates * self.knobs.batch


class Progress:
    """A line about the training every quarter of a minute."""

    def __init__(self, name: str, updates: int) -> None:
        self.name = name
        self.updates = updates
        self.begun = self.told = time.monotonic()
        self.crops = self.made = 0
        self.waited = 0.0

    def tell(self, row: Update, crops: int, waited: float) -> None:
        """Count one update, and print a line if the last one is long ago or it is the end."""
        self.crops += crops
        self.made += 1
        self.waited += waited
        now = time.monotonic()
        last = row.update == self.updates
        if not last and now - self.told < SECONDS_BETWEEN_LINES:
            return
        self.told = now
        spent = max(now - self.begun, 1e-9)
        left = spent / self.made * (self.updates - row.update)
        _say(
            f"{self.name}: update {row.update} of {self.updates}, epoch {row.epoch:.1f}, "
            f"loss {row.loss:.4f}, lr {row.lr:.2e}, {self.crops / spent:.0f} crops/s, "
            f"{self.waited / spent:.1%} of the time waiting for data, {left:.0f} s left"
        )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
