"""Lion in one pass over memory: timm's optimizer, its state and its numbers, faster.

An update reads weight, gradient and momentum once and writes two of them: 20 bytes a number.
Taken operation by operation, as timm does, it moves 52. On processors a dozen lines of C do
it, compiled when the first update is made; on GPUs ``torch.compile`` may. Without a compiler
timm's own functions do the work, with the same result to the last bit on processors.
"""

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm.optim
import torch
from timm.optim.lion import lion
from torch import Tensor
from torch.distributed.tensor import DTensor

# Fused multiply-add where torch's kernels have it; contraction elsewhere would round otherwise.
# One core waits for memory, and its own prefetching stops at the end of every page.
SOURCE = """
#include <math.h>
#include <stddef.h>
enum { LINE = 16, AHEAD = 32 * LINE };
struct piece { float *weight; const float *gradient; float *momentum; ptrdiff_t n; };

static inline void move(float *restrict weight, const float *restrict gradient,
                        float *restrict momentum, ptrdiff_t n,
                        float keep, float rate, float share, float next) {
    for (ptrdiff_t i = 0; i < n; i++) {
        float moved = gradient[i] - momentum[i];
        float update = fmaf(share, moved, momentum[i]);
        float sign = (float)(update > 0.0f) - (float)(update < 0.0f);
        weight[i] = weight[i] * keep - rate * sign;
        momentum[i] = fmaf(next, moved, momentum[i]);
    }
}

void lion(const struct piece *pieces, ptrdiff_t count,
          float keep, float rate, float share, float next) {
    for (const struct piece *at = pieces; at < pieces + count; at++) {
        ptrdiff_t i = 0;
        for (; i + LINE <= at->n; i += LINE) {
            __builtin_prefetch(at->weight + i + AHEAD);
            __builtin_prefetch(at->gradient + i + AHEAD);
            __builtin_prefetch(at->momentum + i + AHEAD);
            move(at->weight + i, at->gradient + i, at->momentum + i, LINE,
                 keep, rate, share, next);
        }
        move(at->weight + i, at->gradient + i, at->momentum + i, at->n - i,
             keep, rate, share, next);
    }
}
"""
FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-shared", "-fPIC")
# Smaller models would wait longer for the compiler than it saves.
NATIVE_FROM = 1_000_000
# Numbers of one tensor that a thread takes at a time.
PIECE = 1 << 18

Kernel = Callable[..., None]


class Piece(NamedTuple):
    """Weight, gradient and momentum of one tensor, or of this process's shard of it."""

    weight: Tensor
    gradient: Tensor
    momentum: Tensor


class Lion(timm.optim.Lion):  # type: ignore[misc]
    """timm's Lion with an update in one pass.

    Parameters
    ----------
    params, lr, betas, weight_decay
        As timm has them; ``state_dict`` is the same, so either takes up the other's states.
    compiled : bool
        Let ``torch.compile`` make the update on GPUs: it pays for large models.

    Notes
    -----
    Chen et al. 2023: u = sign(β₁ m + (1 - β₁) g), w ← (1 - lr·decay) w - lr·u,
    m ← β₂ m + (1 - β₂) g.
    """

    def __init__(
        self,
        params: Any,  # noqa: ANN401 - whatever torch takes
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        compiled: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, weight_decay)
        self.compiled = compiled

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # noqa: ANN401 - torch's signature
        """Make one update."""
        assert closure is None, "gradients are computed before"
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            settings = {"lr": group["lr"], "weight_decay": group["weight_decay"]}
            settings |= {"beta1": beta1, "beta2": beta2}
            plain: list[Piece] = []
            others: list[Piece] = []
            for piece in self._pieces(group["params"]):
                (plain if _is_plain(piece) else others).append(piece)
            kernel = None
            if sum(piece.weight.numel() for piece in plain) >= NATIVE_FROM:
                kernel = compile_kernel()
            if kernel is None:
                others += plain
            else:
                update_natively(kernel, plain, **settings)
            if not others:
                continue
            lists = [[*part] for part in zip(*others, strict=True)]
            if self.compiled and others[0].weight.is_cuda:
                update_compiled(*lists, **settings)
            else:
                lion(*lists, caution=False, **settings)

    def _pieces(self, parameters: Sequence[Tensor]) -> Iterator[Piece]:
        """Give what this process holds of each parameter that has a gradient."""
        for parameter in parameters:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                like = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                state["exp_avg"] = like
            whole = (parameter, parameter.grad, state["exp_avg"])
            # The update is number by number, so shards need not know of each other.
            yield Piece(*(x.to_local() if isinstance(x, DTensor) else x for x in whole))


def _is_plain(piece: Piece) -> bool:
    return all(x.is_cpu and x.dtype == torch.float32 and x.is_contiguous() for x in piece)


@lru_cache(maxsize=1)
def compile_kernel() -> Kernel | None:
    """Compile the C function; None without a working compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "lion.c", Path(folder) / "lion.so"
        source.write_text(SOURCE)
        command = [compiler, *FLAGS, "-o", str(library), str(source), "-lm"]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=60)
            function = ctypes.CDLL(str(library)).lion
        except (OSError, subprocess.SubprocessError, AttributeError):
            return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t, *[ctypes.c_float] * 4]
    function.restype = None
    kernel: Kernel = function
    return kernel


def update_natively(
    kernel: Kernel,
    pieces: Sequence[Piece],
    *,
    lr: float,
    weight_decay: float,
    beta1: float,
    beta2: float,
) -> None:
    """Update float32 tensors of a processor, shared among torch's threads."""
    numbers = (1.0 - lr * weight_decay, lr, 1.0 - beta1, 1.0 - beta2)

    def update(rows: list[tuple[int, ...]]) -> None:
        table = np.array(rows, dtype=np.intp)
        kernel(table.ctypes.data, len(table), *numbers)

    rows = []
    for piece in pieces:
        addresses, numel = [x.data_ptr() for x in piece], piece.weight.numel()
        for first in range(0, numel, PIECE):
            starts = [address + 4 * first for address in addresses]
            rows.append((*starts, min(PIECE, numel - first)))
    threads = torch.get_num_threads()
    if threads == 1:
        update(rows)
        return
    # The C function runs without Python's lock; a thread that is slow takes fewer portions.
    with ThreadPoolExecutor(threads) as pool:
        portions = 8 * threads
        list(pool.map(update, (rows[first::portions] for first in range(portions))))


def update_compiled(
    weights: list[Tensor],
    gradients: list[Tensor],
    momenta: list[Tensor],
    *,
    lr: float,
    weight_decay: float,
    beta1: float,
    beta2: float,
) -> None:
    """Update tensors of one device in kernels that ``torch.compile`` makes."""
    # As tensors, so that a new rate needs no new kernels.
    rate = torch.tensor(lr, device=weights[0].device)
    keep = 1.0 - rate * weight_decay
    _compiled()(weights, gradients, momenta, rate, keep, 1.0 - beta1, 1.0 - beta2)


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., None]:
    def update(
        weights: list[Tensor],
        gradients: list[Tensor],
        momenta: list[Tensor],
        rate: Tensor,
        keep: Tensor,
        share: float,
        following: float,
    ) -> None:
        signs = torch._foreach_sign(torch._foreach_lerp(momenta, gradients, share))
        torch._foreach_mul_(weights, keep)
        torch._foreach_sub_(weights, torch._foreach_mul(signs, rate))
        torch._foreach_lerp_(momenta, gradients, following)

    return torch.compile(update)
