"""Which device computes: one job a GPU, whatever else runs on the machine."""

import fcntl
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

SECONDS_BETWEEN_TRIES = 2.0


@contextmanager
def one_device() -> Iterator[torch.device]:
    """Hold a GPU of this machine for oneself, waiting for one if need be; else the processor.

    Jobs agree by locks on files named after the GPUs, which the system lets go of when a
    process ends, however it ends.
    """
    if not torch.cuda.is_available():
        yield torch.device("cpu")
        return
    count = torch.cuda.device_count()
    names = [str(torch.cuda.get_device_properties(at).uuid) for at in range(count)]
    with hold_one(names, Path(tempfile.gettempdir())) as taken:
        yield torch.device("cuda", taken)


@contextmanager
def hold_one(names: Sequence[str], folder: Path) -> Iterator[int]:
    """Hold the first free one of some names; yields its place among them."""
    handles = [(folder / f"phenopipe-gpu-{name}.lock").open("a") for name in names]
    try:
        while True:
            for place, handle in enumerate(handles):
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    continue
                yield place
                return
            time.sleep(SECONDS_BETWEEN_TRIES)
    finally:
        for handle in handles:
            handle.close()
