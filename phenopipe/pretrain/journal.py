"""What a training tells while it runs: a progress bar or lines, JSON lines, TensorBoard.

Times, rates and memory belong here and not among results, which equal runs make equal.
"""

import json
import math
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO

import torch
from tqdm import tqdm

from phenopipe.pretrain.distributed import World
from phenopipe.pretrain.histories import Update

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

SECONDS_BETWEEN_LINES = 15.0


def say(line: str) -> None:
    """Print one line for the user, between the states of a progress bar."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()


def _is_odd(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def memory_gb() -> float:
    """Largest memory that the training took so far: of the GPU, or of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def peak_flops(tflops: float | None, world: World) -> float | None:
    """Operations a second of which all GPUs are capable in bfloat16, if known."""
    from phenopipe.pretrain.estimate import GPUS

    if tflops is None and world.device.type == "cuda":
        found = torch.cuda.get_device_name(world.device).lower()
        tflops = next((gpu.peak / 1e12 for name, gpu in GPUS.items() if name in found), None)
    return tflops and tflops * 1e12 * world.size


class Journal:
    """Counts updates and tells of them.

    Parameters
    ----------
    name : str
        Name of the encoder, with which lines begin.
    updates, batch : int
        Updates of the whole training, crops an update.
    folder : Path or None
        Where ``log.jsonl`` and the event files of TensorBoard go; None: nowhere.
    every : int
        Updates that one row of either stands for.
    flops : float
        Operations of training on a crop, none of whose blocks is skipped.
    peak : float or None
        Operations a second of which all processes together are capable, if known.
    quiet : bool
        Whether another process tells of this training.
    """

    def __init__(
        self,
        name: str,
        *,
        updates: int,
        batch: int,
        folder: Path | None,
        every: int,
        flops: float = 0.0,
        peak: float | None = None,
        quiet: bool = False,
    ) -> None:
        self.name, self.updates, self.batch = name, updates, batch
        self.folder, self.every = folder, every
        self.flops, self.peak, self.quiet = flops, peak, quiet
        self._lines: TextIO | None = None
        self._events: SummaryWriter | None = None
        self._bar: Any = None

    def __enter__(self) -> Self:
        now = time.monotonic()
        self.begun = self.told = self.since = now
        self.made = self.made_since = 0
        self.waited = self.waited_since = 0.0
        if self.quiet:
            return self
        if self.folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.folder.mkdir(parents=True, exist_ok=True)
            self._lines = (self.folder / "log.jsonl").open("a")
            self._events = SummaryWriter(str(self.folder))
        if sys.stderr.isatty():
            self._bar = tqdm(total=self.updates, desc=self.name, unit="update")
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._lines, self._events, self._bar):
            if one is not None:
                one.close()

    def note(self, update: int, event: str) -> None:
        """Tell of something that is not a number, such as a return to a state."""
        if self.quiet:
            return
        say(f"{self.name}: {event}")
        self._write({"update": update, "event": event})

    def tell(self, row: Update, waited: float) -> None:
        """Count one update, and tell of it if it is its turn."""
        self.made += 1
        self.made_since += 1
        self.waited += waited
        self.waited_since += waited
        if self.quiet:
            return
        last = row.update == self.updates
        if last or row.update % self.every == 0:
            self._log(row)
        now = time.monotonic()
        if self._bar is not None:
            self._bar.n = row.update
            self._bar.set_postfix(loss=f"{row.loss:.4f}")
        elif last or now - self.told >= SECONDS_BETWEEN_LINES:
            self.told = now
            self._print(row, max(now - self.begun, 1e-9))

    def _log(self, row: Update) -> None:
        now = time.monotonic()
        spent = max(now - self.since, 1e-9)
        rate = self.made_since * self.batch / spent
        numbers = {
            **{"update": row.update, "epoch": row.epoch, "loss": row.loss, **row.parts},
            **{"gradient_norm": row.gradient_norm, "lr": row.lr, "crops_per_second": rate},
            "model_flop_utilization": rate * self.flops / self.peak if self.peak else None,
            "memory_gb": memory_gb(),
            "data_wait_share": self.waited_since / spent,
        }
        self.since, self.made_since, self.waited_since = now, 0, 0.0
        self._write({**numbers, "time": time.time()})
        if self._events is not None:
            for name, value in numbers.items():
                if name != "update" and value is not None:
                    self._events.add_scalar(name, value, row.update)

    def _write(self, values: dict[str, Any]) -> None:
        if self._lines is not None:
            # JSON has no word for numbers that are not finite.
            known = {k: None if _is_odd(v) else v for k, v in values.items()}
            self._lines.write(json.dumps(known, allow_nan=False) + "\n")
            self._lines.flush()

    def _print(self, row: Update, spent: float) -> None:
        left = spent / self.made * (self.updates - row.update)
        say(
            f"{self.name}: update {row.update} of {self.updates}, epoch {row.epoch:.1f}, "
            f"loss {row.loss:.4f}, lr {row.lr:.2e}, "
            f"{self.made * self.batch / spent:.0f} crops/s, "
            f"{self.waited / spent:.1%} of the time waiting for data, {left:.0f} s left"
        )
