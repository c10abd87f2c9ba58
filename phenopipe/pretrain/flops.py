"""Operations of a training, counted on tensors that have shapes but no content."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

# A backward pass multiplies the same matrices twice as often as the forward pass.
PASSES = 3


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
    with torch.device("meta"):
        model = build().eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*(x.to("meta") for x in inputs))
    return float(PASSES * counter.get_total_flops())
