"""What one crop costs an autoencoder: operations, and bytes kept for the backward pass.

Nothing is computed: the model has shapes without content, so that the largest ones are
counted in seconds.
"""

from typing import NamedTuple

import torch
from timm.models.vision_transformer import Block, ParallelScalingBlock
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from phenopipe.encoders.stochastic_depth import blocks_saved, drop_rates
from phenopipe.pretrain.config import MaeKnobs
from phenopipe.pretrain.mae import build_autoencoder, crop_flops

# The stream of tokens between blocks stays in float32 under autocast.
STREAM_BYTES = 4
# At the peak, the gradient of the Fourier term has this many float32 numbers a pixel at work:
# both complex spectra, their gradients and magnitudes (counted in real updates).
LOSS_NUMBERS = 8


class Cost(NamedTuple):
    """What an autoencoder is and what one crop costs it.

    parameters, encoder_parameters, decoder_parameters : of all tensors, and of those that
        belong to either half, fixed positions included.
    learning : numbers that the optimizer changes.
    largest_block : numbers in the largest block.
    flops : operations of training on a crop that skips no block.
    flops_spent : the same after stochastic depth, for the average crop.
    kept : bytes that wait for the backward pass, after stochastic depth.
    kept_checkpointed : the same with only the inputs of blocks kept, the others computed again.
    loss : bytes that the loss needs for a moment, while all of ``kept`` still waits.
    cast : bytes kept once whatever the number of crops, which are the weights' copies in
        bfloat16; next to none in float32.
    """

    parameters: int
    encoder_parameters: int
    decoder_parameters: int
    learning: int
    largest_block: int
    flops: float
    flops_spent: float
    kept: float
    kept_checkpointed: float
    loss: float
    cast: float


def crop_cost(knobs: MaeKnobs, channels: int) -> Cost:
    """Count an autoencoder and what one crop costs it.

    Parameters
    ----------
    knobs : MaeKnobs
        The model.
    channels : int
        Channels of its crops.
    """
    with torch.device("meta"):
        model = build_autoencoder(knobs, channels)
    blocks = [m for m in model.modules() if isinstance(m, ParallelScalingBlock | Block)]
    rates = drop_rates(knobs.drop_path, knobs.depth, knobs.drop_path_rule)
    saved = blocks_saved(rates, knobs.drop_path_form)
    flops = crop_flops(knobs, channels)
    one, two = (crop_flops(knobs.model_copy(update={"depth": d}), channels) for d in (1, 2))
    kept, checkpointed, cast = _kept(knobs, channels, saved)
    return Cost(
        parameters=_count(model),
        encoder_parameters=_count(model.encoder),
        decoder_parameters=_count(model.decoder),
        learning=_count(model, learning=True),
        largest_block=max(_count(block) for block in blocks),
        flops=flops,
        flops_spent=flops - saved * (two - one),
        kept=kept,
        kept_checkpointed=checkpointed,
        loss=4.0 * LOSS_NUMBERS * channels * knobs.crop**2,
        cast=cast,
    )


def _count(module: torch.nn.Module, *, learning: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not learning)


def _kept(knobs: MaeKnobs, channels: int, saved: float) -> tuple[float, float, float]:
    """Bytes a crop kept, the same with checkpointed blocks, and bytes of cast weights.

    Bytes are linear in the number of crops and of blocks of either half, so small models
    tell those of the whole one.
    """

    def by_crops(depth: int, decoder_depth: int) -> tuple[float, float]:
        sizes = {"depth": depth, "decoder_depth": decoder_depth, "drop_path": 0.0}
        small = knobs.model_copy(update=sizes)
        first, second = (saved_bytes(small, channels, crops) for crops in (1, 2))
        return second - first, 2 * first - second

    (base, cast), (deeper, cast_deeper) = by_crops(1, 1), by_crops(2, 1)
    painting, cast_painting = by_crops(1, 2)
    block, painter = deeper - base, painting - base
    rest = base - block - painter
    kept = rest + (knobs.depth - saved) * block + knobs.decoder_depth * painter
    grids = channels if knobs.channel_agnostic else 1
    tokens = (knobs.crop // knobs.patch) ** 2 * grids
    seen = 1 + int(tokens * (1.0 - knobs.mask_ratio))
    inputs = (knobs.depth - saved) * seen * knobs.dim
    inputs += knobs.decoder_depth * (1 + tokens) * knobs.decoder_dim
    checkpointed = rest + STREAM_BYTES * inputs + max(block, painter)
    casts = cast + (knobs.depth - 1) * (cast_deeper - cast)
    casts += (knobs.decoder_depth - 1) * (cast_painting - cast)
    return kept, checkpointed, casts


def saved_bytes(knobs: MaeKnobs, channels: int, crops: int) -> float:
    """Bytes that a forward pass keeps for the backward pass, the weights apart.

    Parameters
    ----------
    knobs : MaeKnobs
        The model, without stochastic depth.
    channels, crops : int
        Shape of the batch.
    """
    found: dict[int, Tensor] = {}
    with torch.device("meta"):
        model = build_autoencoder(knobs, channels)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = model.to_empty(device="cpu")
        known = {p.untyped_storage()._cdata for p in model.parameters()}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()._cdata
            if storage not in known:
                # Holding the tensor keeps its storage's address from being used again.
                found[storage] = tensor
            return tensor

        grids = channels if knobs.channel_agnostic else 1
        patches = (knobs.crop // knobs.patch) ** 2 * grids
        images = torch.zeros(crops, channels, knobs.crop, knobs.crop, dtype=torch.uint8)
        bfloat16 = knobs.precision == "bfloat16"
        with (
            torch.autocast("cpu", torch.bfloat16, enabled=bfloat16),
            torch.autograd.graph.saved_tensors_hooks(note, lambda x: x),
        ):
            model(images, torch.zeros(crops, patches))
        return float(sum(x.untyped_storage().nbytes() for x in found.values()))
