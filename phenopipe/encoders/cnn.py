"""Other timm models as encoders, above all CNNs: their feature stages serve as blocks."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from phenopipe.encoders.base import Encoder, EncoderConfig


class StageEncoder(Encoder):
    """Any timm model that gives intermediate maps: each stage averaged over the image.

    Transformers of classes of their own (BEiT, EVA, DINOv3) have class tokens beside maps.
    """

    def __init__(self, config: EncoderConfig, model: nn.Module) -> None:
        super().__init__(config)
        self.model = model

    @property
    def block_dims(self) -> list[int]:
        """Number of channels of each stage."""
        stages = list(self.model.feature_info)  # type: ignore[arg-type]
        return [int(stage["num_chs"]) for stage in stages[: self.config.best_block]]

    def pooled_blocks(self, x_NCHW: Tensor) -> Iterator[Tensor]:
        """Yield the average of each stage's map, or its class token."""
        # N C H W stays the shape; channels lie next to each other in memory, which makes
        # depthwise convolutions half as fast again on processors.
        classes = self.config.pooling == "class"
        stages = self.model.forward_intermediates(  # type: ignore[operator]
            x_NCHW.contiguous(memory_format=torch.channels_last),
            indices=list(range(len(self.block_dims))),
            stop_early=True,
            intermediates_only=True,
            **({"return_prefix_tokens": True} if classes else {}),
        )
        for stage in stages:
            yield stage[1][:, 0].clone() if classes else stage.mean(dim=(-2, -1))
