"""The baseline that has seen nothing: statistics of each channel's raw pixels."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from phenopipe.encoders.base import Encoder, EncoderConfig

QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)


class PixelStatistics(Encoder):
    """Mean, standard deviation and quantiles of every channel, as one block.

    A screen that these can solve proves nothing about an encoder.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.model = nn.Identity()

    @property
    def block_dims(self) -> list[int]:
        """One block: nine statistics a channel."""
        return [len(self.config.channels) * (2 + len(QUANTILES))]

    def pooled_blocks(self, x_NCHW: Tensor) -> Iterator[Tensor]:
        """Yield the statistics, channel by channel."""
        sorted_NCP = x_NCHW.flatten(2).sort(dim=-1).values
        places = torch.tensor(QUANTILES, device=x_NCHW.device) * (sorted_NCP.shape[-1] - 1)
        spread_NC2 = torch.stack(
            [sorted_NCP.mean(-1), sorted_NCP.std(-1, correction=0)], dim=-1
        )
        quantiles_NCQ = sorted_NCP[..., places.round().long()]
        yield torch.cat([spread_NC2, quantiles_NCQ], dim=-1).flatten(1)
