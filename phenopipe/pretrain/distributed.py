"""The processes that train together: how they share out a model and add up their numbers.

One process is a world of its own, in which nothing is shared and nothing is sent.
"""

import contextlib
import functools
import os
import platform
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from phenopipe.errors import UserError
from phenopipe.pretrain.launch import ASKED, processes_asked

Parallel = Literal["ddp", "fsdp"]


class World:
    """The processes of one training, and this one's place among them.

    Attributes
    ----------
    rank, size : int
        Number of this process, from 0, and how many there are.
    device : torch.device
        The GPU of this process, or the processor.
    writers : process group or None
        Through which states are written in the background, apart from the training's own.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size
        kind = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(kind)
        self.writers: dist.ProcessGroup | None = None
        if size > 1 and kind == "cuda":
            self.device = torch.device(kind, int(os.environ["LOCAL_RANK"]))

    @property
    def lacks_bfloat16(self) -> bool:
        """Whether the device is an x86 processor without products in bfloat16."""
        if self.device.type != "cpu" or platform.machine() not in ("x86_64", "AMD64"):
            return False
        has = torch.cpu.get_capabilities()
        return not (has["avx512_bf16"] or has["amx_bf16"])

    @classmethod
    def join(cls) -> "World":
        """Meet the other processes that the environment tells of.

        Raises
        ------
        UserError
            If they are not as many as were asked for.
        """
        size = int(os.environ.get("WORLD_SIZE", "1"))
        asked = processes_asked()
        if asked is not None and asked != size:
            raise UserError(f"{asked} processes were asked for ({ASKED}), found {size}")
        if size == 1:
            return cls()
        world = cls(int(os.environ["RANK"]), size)
        backend = "gloo"
        if world.device.type == "cuda":
            torch.cuda.set_device(world.device)
            backend = "cpu:gloo,cuda:nccl"
        if not dist.is_initialized():
            dist.init_process_group(backend)
        world.writers = cast(dist.ProcessGroup, dist.new_group(backend="gloo"))
        return world

    def leave(self) -> None:
        """Part from the other processes, all of which have come as far."""
        if self.size > 1:
            dist.barrier()
            dist.destroy_process_group()

    @property
    def leads(self) -> bool:
        """Whether this process writes what all of them made."""
        return self.rank == 0

    def share_of(self, batch: int) -> int:
        """Crops of a batch that each process takes."""
        if batch % self.size:
            raise UserError(
                f"batch {batch} cannot be shared equally by {self.size} processes, wanted a "
                f"multiple of {self.size}"
            )
        return batch // self.size

    def mean(self, numbers: Sequence[float]) -> list[float]:
        """Average numbers over all processes."""
        if self.size == 1:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return [float(number) / self.size for number in total.cpu()]

    def total(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all processes; no gradient flows."""
        return self._reduced(tensor, dist.ReduceOp.SUM)

    def largest(self, tensor: Tensor) -> Tensor:
        """Return the largest of all processes, number by number; no gradient flows."""
        return self._reduced(tensor, dist.ReduceOp.MAX)

    def _reduced(self, tensor: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
        tensor = tensor.detach()
        if self.size > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor, how)
        return tensor

    def gathered(self, rows: Tensor) -> Tensor:
        """Join equally many rows of all processes in their order; no gradient flows."""
        rows = rows.detach()
        if self.size == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def told(self, number: int) -> int:
        """Return a number that the first process knows to all."""
        if self.size == 1:
            return number
        given = torch.tensor([number], dtype=torch.int64, device=self.device)
        dist.broadcast(given, src=0)
        return int(given.item())

    def spread(self, model: nn.Module, parallel: Parallel, *, bfloat16: bool) -> nn.Module:
        """Let all processes train one model; returns what is called in its place.

        ``ddp``: each holds the model, and they average gradients while these are computed.
        ``fsdp``: each holds a slice of every tensor, gathered block by block as needed.
        """
        if self.size == 1:
            return model
        if parallel == "ddp":
            devices = [self.device.index] if self.device.type == "cuda" else None
            return DistributedDataParallel(
                model, device_ids=devices, gradient_as_bucket_view=True
            )
        mesh = init_device_mesh(self.device.type, (self.size,))
        # Weights are float32 and travel in the shorter type; sums of gradients are float32.
        # Autocast rules what is computed: casting inputs here would blunt the masking noise.
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if bfloat16 else None,
            reduce_dtype=torch.float32,
            cast_forward_inputs=False,
        )
        for block in blocks_of(model):
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(model, mesh=mesh, mp_policy=policy)
        return model

    def settle(self, model: nn.Module) -> None:
        """Give all processes the first one's buffers, which no gradient keeps equal."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)


def hold_back(model: nn.Module, wanted: bool) -> AbstractContextManager[None]:
    """While more gradients of an update are to come, let DDP keep them where they are.

    FSDP sums them up each time: a whole gradient in each process is what it avoids.
    """
    if wanted and isinstance(model, DistributedDataParallel):
        return model.no_sync()
    return contextlib.nullcontext()


def blocks_of(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the blocks of all transformers in a model; a CNN has none."""
    for name, module in model.named_modules():
        if re.search(r"(^|\.)blocks\.\d+$", name):
            # The channel-agnostic decoder has a chain of blocks for each channel.
            yield from module if isinstance(module, nn.Sequential) else [module]


def wrap_blocks(model: nn.Module, *, compiled: bool, checkpointed: bool) -> None:
    """Compute each block by compiled code, or twice so as to keep less in memory.

    Only how a block is called changes, so that tensors keep their names.
    """
    for block in blocks_of(model):
        if checkpointed:
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
        if compiled:
            block.forward = torch.compile(block.forward)


def unwrap_blocks(model: nn.Module) -> None:
    """Undo :func:`wrap_blocks`."""
    for block in blocks_of(model):
        vars(block).pop("forward", None)


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor that may lie in slices in all processes, in one piece in each."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
