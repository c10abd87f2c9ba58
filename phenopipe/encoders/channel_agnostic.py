"""The channel-agnostic masked autoencoder: any number of channels, one token a channel patch.

One convolution cuts every channel into patches, so that the encoder sees C times as many
tokens and knows channels by their content only (paper 3.2, CA-MAE-S/16). Masks fall on all
channels' patches alike; the decoder has one stack of blocks a channel.

Shape suffixes as in :mod:`phenopipe.encoders.mae`; L counts the patches of all channels.
"""

from typing import Any, cast

import torch
from timm.layers import LayerNorm, Mlp
from timm.models.vision_transformer import Block, VisionTransformer, init_weights_vit_timm
from torch import Tensor, nn
from torch.nn import functional

from phenopipe.encoders.mae import (
    MaskedAutoencoder,
    build_encoder,
    fixed_positions,
    patchify,
    place_tokens,
)

# The position table repeats one grid, so its length limits the channels, not the weights.
MAX_CHANNELS = 11
CROSS_ATTENTION_HEADS = 8


class ChannelPatchEmbed(nn.Module):
    """Turn every patch of every channel into a token, channel by channel."""

    def __init__(self, proj: nn.Module) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return tokens (N, C*h*w, D)."""
        n, channels, height, width = images_NCHW.shape
        # N*C D h w -> N*C h*w D -> N C*h*w D
        x = self.proj(images_NCHW.reshape(n * channels, 1, height, width))
        return cast(Tensor, x.flatten(2).transpose(1, 2).reshape(n, -1, x.shape[1]))


def build_channel_agnostic_encoder(
    *,
    crop: int,
    patch: int,
    channels: int = MAX_CHANNELS,
    dim: int,
    **sizes: Any,  # noqa: ANN401
) -> VisionTransformer:
    """Build an encoder for 1 to ``channels`` channels."""
    model = build_encoder(crop=crop, patch=patch, channels=1, dim=dim, **sizes)
    model.patch_embed = ChannelPatchEmbed(model.patch_embed.proj)
    model.pos_embed = fixed_positions(dim, (crop // patch) ** 2, copies=channels)
    return model


class CrossAttention(nn.Module):
    """Let every token of one set look at all tokens of another."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x_NLE: Tensor, context_NLE: Tensor) -> Tensor:
        """Return what each token of ``x`` gathers from ``context``."""
        n, length, dim = x_NLE.shape
        split = (n, -1, self.heads, dim // self.heads)
        key, value = self.key_value(context_NLE).chunk(2, dim=-1)
        # N L heads E -> N heads L E
        q, k, v = (y.reshape(split).transpose(1, 2) for y in (self.query(x_NLE), key, value))
        gathered = functional.scaled_dot_product_attention(q, k, v)
        return cast(Tensor, self.proj(gathered.transpose(1, 2).reshape(n, length, dim)))


class ChannelDecoder(nn.Module):
    """Paint every channel with its own blocks, after a look at all channels."""

    def __init__(
        self,
        *,
        grid: int,
        values: int,
        channels: int,
        width: int,
        dim: int,
        depth: int,
        heads: int,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.proj = nn.Linear(width, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.channel_token = nn.Parameter(torch.zeros(1, channels, 1, dim))
        self.pos_embed = fixed_positions(dim, grid, copies=channels)
        self.query_norm = LayerNorm(dim)
        self.context_norm = LayerNorm(dim)
        self.cross_attention = CrossAttention(dim, CROSS_ATTENTION_HEADS)
        self.mlp_norm = LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim)
        self.blocks = nn.ModuleList(
            nn.Sequential(*(Block(dim, heads, qkv_bias=True) for _ in range(depth)))
            for _ in range(channels)
        )
        self.head = nn.Linear(dim, values)
        self.apply(init_weights_vit_timm)
        for token in (self.mask_token, self.channel_token):
            nn.init.normal_(token, std=0.02)

    def forward(self, tokens_NKD: Tensor, kept_NK: Tensor, length: int) -> Tensor:
        """Return patches (N, L, T) of the first ``length / grid`` channels."""
        channels = length // self.grid
        positions = self.pos_embed[:, : 1 + length]
        x_NLE = place_tokens(self.proj(tokens_NKD), kept_NK, self.mask_token, positions)[:, 1:]
        n, _, dim = x_NLE.shape
        by_channel = (n, channels, self.grid, dim)
        x_NLE = (x_NLE.reshape(by_channel) + self.channel_token[:, :channels]).flatten(1, 2)
        # No residual here: what a channel paints is what it gathered from all of them.
        x_NLE = self.cross_attention(self.query_norm(x_NLE), self.context_norm(x_NLE))
        x_NLE = x_NLE + self.mlp(self.mlp_norm(x_NLE))
        parts = zip(self.blocks, x_NLE.reshape(by_channel).unbind(1), strict=False)
        painted = [blocks(x) for blocks, x in parts]
        return cast(Tensor, self.head(torch.cat(painted, dim=1)))


class ChannelAgnosticAutoencoder(MaskedAutoencoder):
    """Masked autoencoder whose images may have 1 to ``channels`` channels.

    Batches may differ in their number of channels; within a batch it is one number.
    The arguments are those of :class:`~phenopipe.encoders.mae.MaskedAutoencoder`.
    """

    def _build_encoder(self, *, channels: int, **sizes: Any) -> VisionTransformer:  # noqa: ANN401
        self.token_channels = 1
        return build_channel_agnostic_encoder(channels=max(channels, MAX_CHANNELS), **sizes)

    def _build_decoder(self, **sizes: int) -> nn.Module:
        return ChannelDecoder(grid=self.grid, values=self.patch**2, **sizes)

    def targets(self, images_NCHW: Tensor) -> Tensor:
        """Patches (N, C*h*w, P*P), channel by channel."""
        n, channels, height, width = images_NCHW.shape
        patches = patchify(images_NCHW.reshape(n * channels, 1, height, width), self.patch)
        return patches.reshape(n, channels * self.grid, -1)
