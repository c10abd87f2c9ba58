"""The masked autoencoder, whole in one file: positions, masking, model, loss.

A vision transformer sees a quarter of the patches of a crop; a small decoder paints the
rest; the loss compares what was hidden, as pixels and as spatial frequencies (paper 3.2,
A.2; He et al. 2022). The encoder is timm's ``VisionTransformer`` made of
``ParallelScalingBlock`` (Dehghani et al. 2023), so that its weights keep timm's names.

Shape suffixes
    N crops, C channels, H W pixels, L patches of a crop (h rows by w columns), K patches
    that stay visible, P side of a patch, T = P*P*C values of a patch with the channel
    running fastest, D width of the encoder, E width of the decoder, B blocks
"""

import math
from typing import Any, Literal, NamedTuple, cast

import torch
from timm.layers import LayerNorm
from timm.models.vision_transformer import (
    Block,
    ParallelScalingBlock,
    VisionTransformer,
    init_weights_vit_timm,
)
from torch import Tensor, nn

from phenopipe.encoders.standardize import self_standardize
from phenopipe.encoders.stochastic_depth import (
    Form,
    Rescale,
    Rule,
    drop_rates,
    pass_blocks,
)

FourierForm = Literal["as_released", "patch", "image"]
LAYER_SCALE = 1e-4
POSITION_SCALE = 10_000.0


# --- positions and masking -----------------------------------------------------------


def sincos_positions(dim: int, rows: int, columns: int) -> Tensor:
    """Return the fixed two-dimensional sine and cosine code of a grid of patches.

    Returns
    -------
    tensor of shape (1 + rows * columns, dim)
        First the class token, which has no place and gets zeros; then the patches, row by
        row. Columns hold [sin row, cos row, sin column, cos column], a quarter each.

    Raises
    ------
    ValueError
        If ``dim`` is no multiple of 4.
    """
    if dim % 4:
        raise ValueError(f"positions need a width that is a multiple of 4, found {dim}")
    quarter = dim // 4
    frequency = POSITION_SCALE ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    angles = [places[:, axis, None] * frequency for axis in (0, 1)]
    code = torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], 1)
    return torch.cat([torch.zeros(1, dim), code.float()])


def fixed_positions(dim: int, grid: int, copies: int = 1) -> nn.Parameter:
    """Make the position code of a square grid a parameter that never learns.

    Being a parameter it is saved under timm's own name ``pos_embed``. ``copies`` repeats
    the grid, behind one class token, for models with one grid of patches a channel.
    """
    side = math.isqrt(grid)
    code = sincos_positions(dim, side, side)
    code = torch.cat([code[:1], code[1:].repeat(copies, 1)])[None]
    return nn.Parameter(code, requires_grad=False)


class Masking(NamedTuple):
    """Which patches of each crop stay visible.

    kept : int tensor (N, K), indices of visible patches, in the random order of the draw.
    mask : float tensor (N, L), 1 where a patch is hidden, else 0.
    """

    kept: Tensor
    mask: Tensor


def random_masking(noise_NL: Tensor, mask_ratio: float) -> Masking:
    """Hide patches by noise: the lowest ``int(L * (1 - mask_ratio))`` stay visible."""
    n_kept = int(noise_NL.shape[1] * (1.0 - mask_ratio))
    kept_NK = noise_NL.argsort(dim=1, stable=True)[:, :n_kept]
    mask_NL = torch.ones_like(noise_NL, dtype=torch.float32).scatter(1, kept_NK, 0.0)
    return Masking(kept_NK, mask_NL)


def patchify(images_NCHW: Tensor, patch: int) -> Tensor:
    """Cut images into patches of shape (N, L, T), the channel running fastest."""
    n, channels, height, width = images_NCHW.shape
    h, w = height // patch, width // patch
    x = images_NCHW.reshape(n, channels, h, patch, w, patch)
    # N C h P w P -> N h w P P C
    return x.permute(0, 2, 4, 3, 5, 1).reshape(n, h * w, patch * patch * channels)


def unpatchify(patches_NLT: Tensor, channels: int) -> Tensor:
    """Join patches of square images back: the inverse of :func:`patchify`."""
    n, length, values = patches_NLT.shape
    side, patch = math.isqrt(length), math.isqrt(values // channels)
    x = patches_NLT.reshape(n, side, side, patch, patch, channels)
    # N h w P P C -> N C h P w P
    return x.permute(0, 5, 1, 3, 2, 4).reshape(n, channels, side * patch, side * patch)


# --- loss ----------------------------------------------------------------------------


def masked_mean(values_NL: Tensor, mask_NL: Tensor | None) -> Tensor:
    """Mean over the hidden patches of the whole batch, or over all without a mask."""
    if mask_NL is None:
        return values_NL.mean()
    return (values_NL * mask_NL).sum() / mask_NL.sum()


def fourier_loss(
    reconstruction: Tensor,
    target: Tensor,
    form: FourierForm,
    *,
    mask_NL: Tensor | None = None,
    channels: int = 6,
) -> Tensor:
    """Mean absolute difference between the Fourier magnitudes of two sets of patches.

    Parameters
    ----------
    reconstruction, target : tensors of shape (n_crops, n_patches, patch * patch * channels)
        Patches of square images, the channel running fastest.
    form : {"as_released", "patch", "image"}
        Over which square the two-dimensional transform runs.
    mask_NL : tensor of shape (n_crops, n_patches)
        1 where a patch was hidden: only those count.
    channels : int
        Channels in a patch: 6 in the paper's screens, 1 for the channel-agnostic model.

    Returns
    -------
    tensor
        One float32 number >= 0. Transforms are not normalized, so its scale differs
        between the forms.

    Notes
    -----
    ``patch``: each patch and channel by itself. ``image``: each whole channel, in which
    visible patches show the target, so that only hidden ones can differ. ``as_released``:
    the public code views the (L, T) values of a crop, as they lie in memory, as T maps of
    sqrt(L) by sqrt(L), without moving the channel axis first. With several channels in a
    patch such a map mixes channels and neighbouring patches; the paper "used the
    implementation as-is". With one channel and as many patches along a side as pixels
    along a patch it equals ``patch``.
    """
    ours, theirs = reconstruction.float(), target.float()
    n, length, values = ours.shape
    if form == "image":
        if mask_NL is not None:
            ours = torch.where(mask_NL[..., None] > 0, ours, theirs)
        return _spectral_distance(
            unpatchify(ours, channels), unpatchify(theirs, channels)
        ).mean()
    if form == "patch":
        patch = math.isqrt(values // channels)
        shape = (n, length, patch, patch, channels)
        # N L P P C -> N L C P P
        ours, theirs = (x.reshape(shape).permute(0, 1, 4, 2, 3) for x in (ours, theirs))
        return masked_mean(_spectral_distance(ours, theirs).mean(dim=-1), mask_NL)
    side = math.isqrt(length)
    ours, theirs = (x.reshape(n, values, side, side) for x in (ours, theirs))
    difference = (torch.fft.fft2(ours).abs() - torch.fft.fft2(theirs).abs()).abs()
    return masked_mean(difference.reshape(n, length, values).mean(dim=-1), mask_NL)


def _spectral_distance(ours: Tensor, theirs: Tensor) -> Tensor:
    """Mean over frequencies of ||FFT ours| - |FFT theirs||, the last two axes gone.

    The spectrum of real pixels is symmetric: half of it is computed, and all columns but
    the first and, for an even width, the last are counted twice.
    """
    height, width = ours.shape[-2:]
    weight = torch.full((width // 2 + 1,), 2.0 / (height * width), device=ours.device)
    weight[0] /= 2.0
    if width % 2 == 0:
        weight[-1] /= 2.0
    difference: Tensor = torch.fft.rfft2(ours).abs() - torch.fft.rfft2(theirs).abs()
    return (difference.abs() * weight).sum(dim=(-2, -1))


# --- model ---------------------------------------------------------------------------


def build_encoder(
    *, crop: int, patch: int, channels: int, dim: int, depth: int, heads: int, **options: float
) -> VisionTransformer:
    """Build the paper's encoder: parallel blocks, normed queries and keys, fixed positions."""
    model = VisionTransformer(
        img_size=crop,
        patch_size=patch,
        in_chans=channels,
        num_classes=0,
        embed_dim=dim,
        depth=depth,
        num_heads=heads,
        qkv_bias=False,
        qk_norm=True,
        init_values=options.pop("layer_scale", LAYER_SCALE),
        block_fn=ParallelScalingBlock,
        **options,
    )
    model.pos_embed = fixed_positions(dim, (crop // patch) ** 2)
    return model


def place_tokens(
    visible_NKE: Tensor, kept_NK: Tensor, mask_token: Tensor, positions: Tensor
) -> Tensor:
    """Put visible patches back in their places, mask tokens elsewhere, and add positions."""
    n, _, dim = visible_NKE.shape
    hidden = mask_token.to(visible_NKE.dtype).expand(n, positions.shape[1] - 1, dim)
    patches = hidden.scatter(1, kept_NK[..., None].expand(-1, -1, dim), visible_NKE[:, 1:])
    return torch.cat([visible_NKE[:, :1], patches], dim=1) + positions


class Decoder(nn.Module):
    """Paint all patches of a crop from the encoder's visible tokens."""

    def __init__(
        self, *, grid: int, values: int, width: int, dim: int, depth: int, heads: int
    ) -> None:
        super().__init__()
        self.proj = nn.Linear(width, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = fixed_positions(dim, grid)
        self.blocks = nn.ModuleList(Block(dim, heads, qkv_bias=True) for _ in range(depth))
        self.norm = LayerNorm(dim)
        self.head = nn.Linear(dim, values)
        self.apply(init_weights_vit_timm)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, tokens_NKD: Tensor, kept_NK: Tensor, length: int) -> Tensor:
        """Return all ``length`` patches (N, L, T) from the class token and the visible ones."""
        assert length == self.pos_embed.shape[1] - 1
        x_NLE = place_tokens(self.proj(tokens_NKD), kept_NK, self.mask_token, self.pos_embed)
        for block in self.blocks:
            x_NLE = block(x_NLE)
        return cast(Tensor, self.head(self.norm(x_NLE[:, 1:])))


class MaeOutput(NamedTuple):
    """What one forward pass gives: three numbers, the patches (N, L, T) and the mask (N, L)."""

    loss: Tensor
    l2: Tensor
    fourier: Tensor
    prediction: Tensor
    mask: Tensor


class MaskedAutoencoder(nn.Module):
    """Masked autoencoder of one screen's channels (paper's MAE-L/8 and MAE-G/8).

    Parameters
    ----------
    crop, patch, channels : int
        Side of a crop and of a patch in pixels; channels of an image.
    mask_ratio : float
        Share of the patches that is hidden.
    fourier, fourier_weight
        Form of the Fourier term and its weight alpha:
        loss = (1 - alpha) * L2 + alpha * Fourier.
    drop_path, drop_path_rule, drop_path_form : float, str, str
        Stochastic depth: its rate at the last block, how it gets there, and whether crops
        that skip a block are left out of it or masked.
    layer_scale : float
        What each block's output is multiplied with before any training.
    """

    def __init__(
        self,
        *,
        crop: int = 256,
        patch: int = 16,
        channels: int = 6,
        dim: int = 384,
        depth: int = 12,
        heads: int = 6,
        mlp_ratio: float = 4.0,
        decoder_dim: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
        mask_ratio: float = 0.75,
        fourier: FourierForm = "as_released",
        fourier_weight: float = 0.01,
        drop_path: float = 0.0,
        drop_path_rule: Rule = "linear",
        drop_path_form: Form = "left_out",
        layer_scale: float = LAYER_SCALE,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.grid = (crop // patch) ** 2
        self.mask_ratio = mask_ratio
        self.fourier: FourierForm = fourier
        self.fourier_weight = fourier_weight
        sizes: dict[str, Any] = {"dim": dim, "depth": depth, "heads": heads, "crop": crop}
        sizes |= {"patch": patch, "mlp_ratio": mlp_ratio, "layer_scale": layer_scale}
        self.encoder: VisionTransformer = self._build_encoder(channels=channels, **sizes)
        sizes = {"dim": decoder_dim, "depth": decoder_depth, "heads": decoder_heads}
        self.decoder = self._build_decoder(channels=channels, width=dim, **sizes)
        self.drop_rates = drop_rates(drop_path, depth, drop_path_rule)
        self.drop_path_form: Form = drop_path_form
        for block, rate in zip(self.encoder.blocks, self.drop_rates, strict=True):
            block.drop_path = Rescale(1.0 - rate)

    def _build_encoder(self, *, channels: int, **sizes: Any) -> VisionTransformer:  # noqa: ANN401
        self.token_channels = channels
        return build_encoder(channels=channels, **sizes)

    def _build_decoder(self, *, channels: int, **sizes: int) -> nn.Module:
        return Decoder(grid=self.grid, values=self.patch**2 * channels, **sizes)

    def targets(self, images_NCHW: Tensor) -> Tensor:
        """Patches (N, L, T) that the decoder has to paint, from standardized images."""
        return patchify(images_NCHW, self.patch)

    def encode(
        self, images_NCHW: Tensor, kept_NK: Tensor, drop_NB: Tensor | None = None
    ) -> Tensor:
        """Return the class token and the visible tokens, after the final norm."""
        encoder = self.encoder
        tokens_NLD = encoder.patch_embed(images_NCHW)
        tokens_NLD = tokens_NLD + encoder.pos_embed[:, 1 : 1 + tokens_NLD.shape[1]]
        index = kept_NK[..., None].expand(-1, -1, tokens_NLD.shape[2])
        x_NKD = tokens_NLD.gather(1, index)
        cls = (encoder.cls_token + encoder.pos_embed[:, :1]).expand(len(x_NKD), -1, -1)
        x_NKD = torch.cat([cls.to(x_NKD.dtype), x_NKD], dim=1)
        drop_NB = drop_NB if self.training else None
        x_NKD = pass_blocks(
            encoder.blocks, x_NKD, drop_NB, self.drop_rates, self.drop_path_form
        )
        return cast(Tensor, encoder.norm(x_NKD))

    def forward(
        self, images_NCHW: Tensor, noise_NL: Tensor, drop_NB: Tensor | None = None
    ) -> MaeOutput:
        """Hide, paint, compare.

        Parameters
        ----------
        images_NCHW : tensor
            Raw crops; standardized here, and the target is the same standardized crop.
        noise_NL, drop_NB : tensors
            Uniform noise: orders the patches for masking; decides in training which crops
            skip a block, needed where ``drop_path`` is above 0.

        Raises
        ------
        ValueError
            If a model with stochastic depth trains without ``drop_NB``.
        """
        if self.training and drop_NB is None and any(self.drop_rates):
            raise ValueError("stochastic depth needs drop_NB")
        images_NCHW = self_standardize(images_NCHW)
        target_NLT = self.targets(images_NCHW)
        kept_NK, mask_NL = random_masking(noise_NL, self.mask_ratio)
        tokens_NKD = self.encode(images_NCHW, kept_NK, drop_NB)
        prediction_NLT = self.decoder(tokens_NKD, kept_NK, mask_NL.shape[1]).float()
        l2 = masked_mean((prediction_NLT - target_NLT).square().mean(dim=-1), mask_NL)
        # The channel-agnostic model has one grid of patches a channel: each counts as a crop.
        grids = (-1, self.grid, target_NLT.shape[2])
        fourier = fourier_loss(
            *(prediction_NLT.reshape(grids), target_NLT.reshape(grids), self.fourier),
            mask_NL=mask_NL.reshape(-1, self.grid),
            channels=self.token_channels,
        )
        loss = (1.0 - self.fourier_weight) * l2 + self.fourier_weight * fourier
        return MaeOutput(loss, l2, fourier, prediction_NLT, mask_NL)
