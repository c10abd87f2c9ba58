"""An encoder on its device, run over crops in passes that fit into its memory.

Shape suffixes: N crops, C channels, H W pixels, B blocks that are kept, D width.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phenopipe.embed.config import WellsKnobs
from phenopipe.encoders.base import Encoder
from phenopipe.errors import UserError


class Kept(NamedTuple):
    """Blocks that are stored: their numbers, from 1, and their true widths."""

    numbers: list[int]
    dims: list[int]

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of one embedding: blocks, and the width of the widest."""
        return len(self.numbers), max(self.dims)


def kept_blocks(encoder: Encoder, knobs: WellsKnobs) -> Kept:
    """Tell which blocks of an encoder are stored."""
    first = 0 if knobs.blocks == "all" else len(encoder.block_dims) - 1
    return Kept(encoder.block_numbers[first:], encoder.block_dims[first:])


class Passes:
    """Embeds crops at every kept block, one forward pass for all blocks.

    Parameters
    ----------
    encoder : Encoder
        In evaluation mode, on the device that computes.
    knobs : WellsKnobs
        Batch, arithmetic, which blocks to keep, whether to compile.

    Attributes
    ----------
    kept : Kept
        Blocks that come out.
    batch : int
        Crops in one pass; halved, for good, whenever a GPU's memory does not hold one.
    """

    def __init__(self, encoder: Encoder, knobs: WellsKnobs) -> None:
        self.encoder = encoder
        self.kept = kept_blocks(encoder, knobs)
        self.batch = knobs.batch
        self.last_only = knobs.blocks == "last"
        self.bfloat16 = knobs.precision == "bfloat16"
        self.device = next(encoder.parameters(), torch.empty(0)).device
        if knobs.compile:
            encoder.compile_regions()

    def prepare(self, crops_NCHW: NDArray[np.integer]) -> Tensor:
        """Do to raw crops what need not wait for the model: meant for a thread that reads.

        On a processor that is the normalization. For a GPU it is memory that it can copy
        from while it computes; there it normalizes faster than any processor.
        """
        raw_NCHW = torch.from_numpy(crops_NCHW)
        if self.device.type == "cpu":
            return self.encoder.normalize(raw_NCHW)
        return raw_NCHW.pin_memory()

    def __call__(self, prepared_NCHW: Tensor) -> NDArray[np.float32]:
        """Embed prepared crops: (n_crops, n_kept_blocks, dim).

        Raises
        ------
        UserError
            If not even one crop fits into memory.
        """
        parts: list[NDArray[np.float32]] = []
        start = 0
        while start < len(prepared_NCHW):
            part = self._pass(prepared_NCHW[start : start + self.batch])
            if part is None:
                self._halve(len(prepared_NCHW))
            else:
                parts.append(part)
                start += len(part)
        return np.concatenate(parts)

    def _pass(self, prepared_NCHW: Tensor) -> NDArray[np.float32] | None:
        """One pass; None where memory ran out."""
        try:
            x_NCHW = prepared_NCHW.to(self.device, non_blocking=True)
            if self.device.type != "cpu":
                x_NCHW = self.encoder.normalize(x_NCHW)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                blocks_NBD = self.encoder.stack_blocks(x_NCHW, last_only=self.last_only)
            return blocks_NBD.cpu().numpy()
        except torch.OutOfMemoryError:
            return None

    def _halve(self, n_crops: int) -> None:
        # Called once the failed pass has let go of what it held.
        if self.batch == 1:
            raise UserError("one crop does not fit into the memory of the GPU")
        self.batch = max(1, min(self.batch, n_crops) // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        print(f"out of memory: passes of {self.batch} crops from here on", flush=True)
