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

import timm.optim
import torch
from timm.optim.lion import lion
from torch import Tensor
from torch.distributed.tensor import DTensor

# Fused multiply-add where torch's kernels have it; contraction elsewhere would round otherwise.
SOURCE = """
#include <math.h>
#include <stddef.h>
void lion(float *restrict weight, const float *restrict gradient, float *restrict momentum,
          ptrdiff_t n, float keep, float rate, float share, float next) {
    for (ptrdiff_t i = 0; i < n; i++) {
        float moved = gradient[i] - momentum[i];
        float update = fmaf(share, moved, momentum[i]);
        float sign = (float)(update > 0.0f) - (float)(update < 0.0f);
        weight[i] = weight[i] * keep - rate * sign;
        momentum[i] = fmaf(next, moved, momentum[i]);
    }
}
"""
FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-shared", "-fPIC")
# Smaller models would wait longer for the compiler than it saves.
NATIVE_FROM = 1_000_000
# Numbers a thread takes at a time.
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
            pieces = list(self._pieces(group["params"]))
            beta1, beta2 = group["betas"]
            settings = {"lr": group["lr"], "weight_decay": group["weight_decay"]}
            settings |= {"beta1": beta1, "beta2": beta2}
            native = [piece for piece in pieces if _is_plain(piece)]
            kernel = None
            if sum(piece.weight.numel() for piece in native) >= NATIVE_FROM:
                kernel = compile_kernel()
            if kernel is not None:
                update_natively(kernel, native, **settings)
                pieces = [piece for piece in pieces if not _is_plain(piece)]
            if not pieces:
                continue
            lists = [[*part] for part in zip(*pieces, strict=True)]
            if self.compiled and pieces[0].weight.is_cuda:
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
    return all(
        x.device.type == "cpu" and x.dtype == torch.float32 and x.is_contiguous() for x in piece
    )


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
    pointers, numbers = [ctypes.c_void_p] * 3, [ctypes.c_float] * 4
    function.argtypes = [*pointers, ctypes.c_ssize_t, *numbers]
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

    def update(part: tuple[tuple[int, ...], int, int]) -> None:
        addresses, first, count = part
        kernel(*(address + 4 * first for address in addresses), count, *numbers)

    parts = [
        (tuple(x.data_ptr() for x in piece), first, min(PIECE, piece.weight.numel() - first))
        for piece in pieces
        for first in range(0, piece.weight.numel(), PIECE)
    ]
    if torch.get_num_threads() == 1:
        for part in parts:
            update(part)
        return
    # The C function runs without Python's lock.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(update, parts))


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
