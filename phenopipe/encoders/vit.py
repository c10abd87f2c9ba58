"""Vision transformers as encoders: each block's tokens, pooled while passing through."""

from collections.abc import Iterator

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from phenopipe.encoders.base import Encoder, EncoderConfig


class VitEncoder(Encoder):
    """Any model of timm's ``VisionTransformer`` class."""

    def __init__(self, config: EncoderConfig, model: VisionTransformer) -> None:
        super().__init__(config)
        self.model: VisionTransformer = model
        self.patch = int(model.patch_embed.proj.kernel_size[0])

    @property
    def block_dims(self) -> list[int]:
        """True width of each block."""
        return [int(self.model.embed_dim)] * len(self.model.blocks)

    def regions(self) -> Iterator[nn.Module]:
        """Yield the blocks, which share one compiled form."""
        yield from self.model.blocks

    def pooled_blocks(self, x_NCHW: Tensor) -> Iterator[Tensor]:
        """Yield the mean of the patch tokens, or the class token, after each block."""
        x_NLD = self.embed_patches(x_NCHW)
        prefix = self.model.num_prefix_tokens
        for block in self.model.blocks:
            x_NLD = block(x_NLD)
            if self.config.pooling == "class":
                # A copy: a view would keep the tokens of every block alive.
                yield x_NLD[:, 0].clone()
            else:
                yield x_NLD[:, prefix:].mean(dim=1)

    def embed_patches(self, x_NCHW: Tensor) -> Tensor:
        """Return class token and patch tokens with their positions, before the blocks.

        A crop wider than the model's input, such as one of 256 pixels before patches of 14
        and an input of 252, loses its margin, half of it at each side.
        """
        side = (self.model.patch_embed.img_size or x_NCHW.shape[-2:])[0]
        top = (x_NCHW.shape[-1] - side) // 2
        x_NCHW = x_NCHW[..., top : top + side, top : top + side]
        x_NLD = self.model._pos_embed(self.model.patch_embed(x_NCHW))
        normed: Tensor = self.model.norm_pre(self.model.patch_drop(x_NLD))
        return normed


class MaeEncoder(VitEncoder):
    """Encoder half of a masked autoencoder, plain or channel-agnostic, without any mask."""

    def embed_patches(self, x_NCHW: Tensor) -> Tensor:
        """Return class token and patch tokens; fewer channels use fewer positions."""
        x_NLD = self.model.patch_embed(x_NCHW)
        x_NLD = torch.cat([self.model.cls_token.expand(len(x_NLD), -1, -1), x_NLD], dim=1)
        positions: Tensor = self.model.pos_embed[:, : x_NLD.shape[1]]
        return x_NLD + positions
