"""Stochastic depth: in training, some crops skip a block, more of them the deeper it lies.

Which crops skip is decided outside, by noise that belongs to each crop: it is the same in a
resumed training and on any number of machines. Here is how they skip: left out of the block,
so that they cost nothing, or computed and thrown away, as in timm's ``DropPath``. Both
give the same numbers up to rounding.

Shape suffixes: N crops, L tokens, D width, B blocks.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

Rule = Literal["linear", "uniform"]
Form = Literal["left_out", "masked"]
# Gathering and scattering crops costs about as much as this share of a block saves.
LEAVE_OUT_FROM = 0.1


def drop_rates(rate: float, depth: int, rule: Rule = "linear") -> list[float]:
    """Share of the crops that skip each block.

    Examples
    --------
    >>> drop_rates(0.5, 3)
    [0.0, 0.25, 0.5]
    >>> drop_rates(0.6, 2, "uniform")
    [0.6, 0.6]
    """
    if rule == "uniform":
        return [rate] * depth
    return [rate * number / max(depth - 1, 1) for number in range(depth)]


def blocks_saved(rates: list[float], form: Form) -> float:
    """Blocks an average crop skips without any cost, of ``len(rates)``.

    Examples
    --------
    >>> blocks_saved([0.0, 0.05, 0.5, 0.6], "left_out")
    1.1
    >>> blocks_saved([0.0, 0.05, 0.5, 0.6], "masked")
    0.0
    """
    return sum((rate for rate in rates if leaves_out(rate, form)), 0.0)


def leaves_out(rate: float, form: Form) -> bool:
    """Tell whether a block's skipping crops are left out of it."""
    return form == "left_out" and rate >= LEAVE_OUT_FROM


class Rescale(nn.Module):
    """Divide what a block adds by the share of samples that pass through it."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x / share`` in training, ``x`` otherwise."""
        return x / self.share if self.training else x


def drop_samples(block: nn.Module, x_NLD: Tensor, passes_N: Tensor | None) -> Tensor:
    """Apply a block to the samples that pass; the others skip it and cost nothing."""
    if passes_N is None:
        return cast(Tensor, block(x_NLD))
    index = passes_N.nonzero().squeeze(1).to(x_NLD.device, non_blocking=True)
    if len(index) == 0:
        # Other processes wait for this one's part in the gradient of the block: it is zero.
        return x_NLD + 0.0 * cast(Tensor, block(x_NLD[:1])).sum()
    return x_NLD.index_copy(0, index, block(x_NLD[index]).to(x_NLD.dtype))


def mask_samples(block: nn.Module, x_NLD: Tensor, passes_N: Tensor) -> Tensor:
    """Apply a block to all samples and keep the result of those that pass."""
    passes_N11 = passes_N[:, None, None].to(x_NLD.device, non_blocking=True)
    return torch.where(passes_N11, block(x_NLD).to(x_NLD.dtype), x_NLD)


def pass_blocks(
    blocks: Iterable[nn.Module],
    x_NLD: Tensor,
    drop_NB: Tensor | None,
    rates: Sequence[float],
    form: Form,
) -> Tensor:
    """Pass tokens through all blocks, which crops skip by their own noise.

    Parameters
    ----------
    blocks : modules
        One after another.
    x_NLD : tensor
        Tokens of the crops.
    drop_NB : tensor or None
        Uniform noise: a crop skips a block where it is below the block's rate. None: nobody
        skips.
    rates : list of float
        Of each block.
    form : {"left_out", "masked"}
        How crops skip.
    """
    passes_NB = None
    if drop_NB is not None and any(rates):
        # Asked for once: counting block by block would make a GPU wait at each.
        passes_NB = (drop_NB >= drop_NB.new_tensor(rates)).cpu()
    for number, (block, rate) in enumerate(zip(blocks, rates, strict=True)):
        if passes_NB is None or rate == 0.0:
            x_NLD = block(x_NLD)
        elif leaves_out(rate, form):
            x_NLD = drop_samples(block, x_NLD, passes_NB[:, number])
        else:
            x_NLD = mask_samples(block, x_NLD, passes_NB[:, number])
    return x_NLD
