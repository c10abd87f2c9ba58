"""DINOv2 on microscopy crops: a student, its teacher, and the heads before the losses.

Both are the encoder of :mod:`phenopipe.encoders.mae`, so that a masked autoencoder can be
the start, with two projection heads: of the class token and of patches (Oquab et al. 2023;
paper A.9). What the teacher is, a running mean of the student, is said in
:mod:`phenopipe.pretrain.dino`; the losses are in :mod:`phenopipe.pretrain.dino_losses`.

Shape suffixes
    N crops, C channels, H W pixels, L patches of a crop, D width of the encoder, F width of
    the features before the prototypes, K prototypes, M hidden patches of all crops, B blocks
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from phenopipe.encoders.mae import build_encoder
from phenopipe.encoders.stochastic_depth import Form, Rescale, Rule, drop_rates, pass_blocks


def middle_positions(pos_embed: Tensor, side: int) -> Tensor:
    """Positions of the class token and of the middle of the grid, ``side`` patches wide."""
    grid = math.isqrt(pos_embed.shape[1] - 1)
    if side == grid:
        return pos_embed
    first = (grid - side) // 2
    square = pos_embed[:, 1:].reshape(1, grid, grid, -1)
    middle = square[:, first : first + side, first : first + side].flatten(1, 2)
    return torch.cat([pos_embed[:, :1], middle], dim=1)


class ProjectionHead(nn.Module):
    """Three layers, features of length 1, then their products with prototypes of length 1.

    Notes
    -----
    DINO (Caron et al. 2021), appendix C: the last layer is weight-normed and its norms are
    held at 1.
    """

    def __init__(self, *, width: int, hidden: int, features: int, prototypes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, features),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.prototypes = nn.Parameter(torch.empty(prototypes, features))
        nn.init.normal_(self.prototypes)

    def features(self, x_MD: Tensor) -> Tensor:
        """Return features (M, F) of length 1."""
        return functional.normalize(self.layers(x_MD), dim=1)

    def logits(self, x_MD: Tensor, *, frozen: bool) -> Tensor:
        """Return products (M, K) with the prototypes, which do not learn while frozen."""
        weight_KF: Tensor = self.prototypes
        if frozen:
            # A gradient of zeros and not none: other processes wait for it.
            weight_KF = weight_KF.detach() + 0.0 * weight_KF
        return functional.linear(self.features(x_MD), functional.normalize(weight_KF, dim=1))


class Network(nn.Module):
    """An encoder with its heads: what the student is, and the teacher."""

    def __init__(self, *, separate_heads: bool, head: dict[str, int], **sizes: Any) -> None:  # noqa: ANN401
        super().__init__()
        rates: list[float] = sizes.pop("rates")
        self.rates = rates
        self.form: Form = sizes.pop("form")
        self.encoder: VisionTransformer = build_encoder(**sizes)
        for block, rate in zip(self.encoder.blocks, rates, strict=True):
            block.drop_path = Rescale(1.0 - rate)
        self.class_head = ProjectionHead(**head)
        self.own_patch_head = ProjectionHead(**head) if separate_heads else None

    @property
    def patch_head(self) -> ProjectionHead:
        """The head of patches, which may be that of the class token."""
        return self.own_patch_head or self.class_head

    def encode(
        self,
        images_NCHW: Tensor,
        drop_NB: Tensor | None = None,
        mask_NL: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> Tensor:
        """Return the class token and the patch tokens (N, 1 + L, D), after the final norm.

        Crops may be smaller than the encoder's: their patches have the positions of the
        middle of its grid, since a pixel is as large in them.
        """
        encoder = self.encoder
        x_NLD = encoder.patch_embed.proj(images_NCHW).flatten(2).transpose(1, 2)
        if mask_NL is not None and mask_token is not None:
            x_NLD = torch.where(mask_NL[..., None], mask_token.to(x_NLD.dtype), x_NLD)
        cls = encoder.cls_token.to(x_NLD.dtype).expand(len(x_NLD), -1, -1)
        positions = middle_positions(encoder.pos_embed, math.isqrt(x_NLD.shape[1]))
        x_NLD = torch.cat([cls, x_NLD], dim=1) + positions
        drop_NB = drop_NB if self.training else None
        x_NLD = pass_blocks(encoder.blocks, x_NLD, drop_NB, self.rates, self.form)
        normed: Tensor = encoder.norm(x_NLD)
        return normed


class Taught(NamedTuple):
    """The teacher's features: of whole crops (N, F) and of patches that were hidden (M, F)."""

    of_crops: Tensor
    of_patches: Tensor


class Said(NamedTuple):
    """What the student says.

    embeddings : class tokens (N, D) of large crops.
    of_large, of_small, of_patches : logits of large crops, small crops and hidden patches.
    """

    embeddings: Tensor
    of_large: Tensor
    of_small: Tensor
    of_patches: Tensor


class Dino(nn.Module):
    """Student and teacher, in one module so that they are trained, kept and shared as one.

    Parameters
    ----------
    crop, patch, channels : int
        Side of a large crop and of a patch in pixels; channels of an image.
    dim, depth, heads, mlp_ratio, layer_scale
        Of the encoder.
    drop_path, drop_path_rule, drop_path_form : float, str, str
        Stochastic depth of the student; the teacher passes all blocks.
    head_dim, features, prototypes : int
        Widths of the hidden layers of a head, of the features and of its output.
    separate_heads : bool
        Whether patches have a head of their own.

    Notes
    -----
    DDP and FSDP act where the whole model is called: its parts are called by their names,
    ``model("learn", ...)``.
    """

    def __init__(
        self,
        *,
        crop: int,
        patch: int,
        channels: int,
        dim: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        layer_scale: float = 1e-5,
        drop_path: float = 0.0,
        drop_path_rule: Rule = "linear",
        drop_path_form: Form = "left_out",
        head_dim: int = 2048,
        features: int = 256,
        prototypes: int = 65_536,
        separate_heads: bool = True,
    ) -> None:
        super().__init__()
        sizes: dict[str, Any] = {"crop": crop, "patch": patch, "channels": channels}
        sizes |= {"dim": dim, "depth": depth, "heads": heads, "mlp_ratio": mlp_ratio}
        sizes |= {"layer_scale": layer_scale, "form": drop_path_form}
        head = {"width": dim, "hidden": head_dim, "features": features}
        sizes |= {"head": {**head, "prototypes": prototypes}, "separate_heads": separate_heads}
        rates = drop_rates(drop_path, depth, drop_path_rule)
        self.student = Network(**sizes, rates=rates)
        self.teacher = Network(**sizes, rates=[0.0] * depth)
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim))
        nn.init.normal_(self.mask_token, std=0.02)
        # Mean logits of the teacher so far, where these are what keeps it from collapse.
        self.register_buffer("crop_centre", torch.zeros(prototypes))
        self.register_buffer("patch_centre", torch.zeros(prototypes))
        self.crop_centre: Tensor
        self.patch_centre: Tensor
        self.teacher.requires_grad_(False)
        self.start_teacher()

    def start_teacher(self) -> None:
        """Make the teacher what the student is."""
        self.teacher.load_state_dict(self.student.state_dict())

    @torch.no_grad()
    def move_teacher(self, momentum: float) -> None:
        """Let the teacher keep a share of itself and take the rest from the student."""
        pairs = zip(self.teacher.parameters(), self.student.parameters(), strict=True)
        for theirs, ours in pairs:
            theirs.lerp_(ours, 1.0 - momentum)

    def forward(self, part: str, *inputs: Any) -> Any:  # noqa: ANN401 - of the part
        """Call a part of the model by its name."""
        return getattr(self, part)(*inputs)

    def applied(self, function: Callable[..., Any], *inputs: Any) -> Any:  # noqa: ANN401
        """Call a function of the model and inputs as one of its parts."""
        return function(self, *inputs)

    @torch.no_grad()
    def teach(self, large_NCHW: Tensor, mask_NL: Tensor) -> Taught:
        """Return the teacher's features of whole crops, and of the patches to be hidden."""
        x_NLD = self.teacher.encode(large_NCHW)
        of_crops = self.teacher.class_head.features(x_NLD[:, 0])
        of_patches = self.teacher.patch_head.features(x_NLD[:, 1:][mask_NL])
        return Taught(of_crops.float(), of_patches.float())

    def learn(
        self,
        large_NCHW: Tensor,
        small_NCHW: Tensor,
        mask_NL: Tensor,
        drop_large_NB: Tensor,
        drop_small_NB: Tensor,
        frozen: bool,
    ) -> Said:
        """Return what the student says; of large crops it does not see the hidden patches."""
        student = self.student
        x_NLD = student.encode(large_NCHW, drop_large_NB, mask_NL, self.mask_token)
        embeddings = tokens_ND = x_NLD[:, 0]
        if len(small_NCHW):
            small_ND = student.encode(small_NCHW, drop_small_NB)[:, 0]
            tokens_ND = torch.cat([embeddings, small_ND])
        logits = student.class_head.logits(tokens_ND, frozen=frozen)
        of_large, of_small = logits.tensor_split([len(large_NCHW)])
        hidden_MD = x_NLD[:, 1:][mask_NL]
        if len(hidden_MD):
            of_patches = student.patch_head.logits(hidden_MD, frozen=frozen)
        else:
            # Other processes wait for gradients of the head of patches: they are zero.
            of_patches = student.patch_head.logits(x_NLD[:1, 1], frozen=frozen)
            of_large = of_large + 0.0 * of_patches.sum()
            of_patches = of_patches[:0]
        return Said(embeddings, of_large, of_small, of_patches)

    def embed(self, large_NCHW: Tensor, drop_large_NB: Tensor, mask_NL: Tensor) -> Tensor:
        """Return the class tokens (N, D) of :meth:`learn` alone."""
        tokens = self.student.encode(large_NCHW, drop_large_NB, mask_NL, self.mask_token)
        return tokens[:, 0]
