"""Operations of a training, counted on tensors that have shapes but no content."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

# A backward pass multiplies the same matrices twice as often as the forward pass.
PASSES = 3

M = TypeVar("M", bound=nn.Module)


def training_flops(build: Callable[[], nn.Module], *inputs: Tensor) -> float:
    """Floating point operations of forward and backward pass.

    Parameters
    ----------
    build : callable
        Makes the model.
    inputs : tensors
        Arguments of its forward pass; only shapes matter. Pass one crop to count by crop.

    Notes
    -----
    Matrix products and convolutions count, one multiplication with its addition as two.
    """

    def run(model: nn.Module) -> None:
        model(*(x.to("meta") for x in inputs))

    return PASSES * flops(build, run)


def flops(build: Callable[[], M], run: Callable[[M], object]) -> float:
    """Floating point operations of what is run on a model of tensors without content."""
    with torch.device("meta"):
        model = build().eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            run(model)
    return float(counter.get_total_flops())
