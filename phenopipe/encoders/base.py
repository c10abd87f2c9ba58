"""What all encoders share: a configuration, and one pass that gives every block."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from phenopipe.encoders.standardize import FULL_SCALE, self_standardize

Kind = Literal["vit", "cnn", "mae", "ca_mae", "dino", "pixels"]
Pooling = Literal["mean", "class"]
Normalization = Literal["self_standardize", "none"]


@dataclass(frozen=True)
class EncoderConfig:
    """What an encoder is and where it comes from: the content of its ``config.json``.

    Attributes
    ----------
    kind : {"vit", "cnn", "mae", "ca_mae", "dino", "pixels"}
        Which class builds it; ``cnn`` is any timm model that is no ``VisionTransformer``.
    architecture, model_args : str, dict
        timm's name of the model (or ``kind``) and the arguments it is built with.
    channels : tuple of str
        Channel names in order. A ``ca_mae`` also takes others.
    crop : int
        Side of the square crops that it sees, in pixels.
    pooling : {"mean", "class"}
        How tokens become one vector. CNNs always average their maps.
    normalization : {"self_standardize", "none"}
        What happens to pixels first; ``none`` only scales integers to 0..1.
    trained_on : str or None
        Fingerprint of the manifest or labels; None if not trained here.
    training_flops, crops_seen
        Operations and crops of training here; None where they are not known.
    trimmed_from, best_block
        Encoder and block that a trimmed encoder ends with.
    saved : dict or None
        Of a trimmed encoder, ``parameters`` and ``flops_a_crop`` that the cut saves, and the
        ``whole_parameters`` and ``whole_flops_a_crop`` that it saves them of.
    license : str or None
        Licence of the weights; never assumed.
    pixels : list of dict or None
        What is known of the pixels that it was trained on here: how they were scaled to 8 bits,
        and their size (``pixel_size_um``); one entry for each kind of them.
    """

    kind: Kind
    architecture: str
    channels: tuple[str, ...]
    crop: int
    model_args: dict[str, Any] = field(default_factory=dict)
    pooling: Pooling = "mean"
    normalization: Normalization = "self_standardize"
    trained_on: str | None = None
    training_flops: float | None = None
    crops_seen: int | None = None
    trimmed_from: str | None = None
    best_block: int | None = None
    saved: dict[str, int] | None = None
    license: str | None = None
    pixels: list[dict[str, Any]] | None = None


class Encoder(nn.Module):
    """A model that embeds crops, block by block; subclasses say how.

    Attributes
    ----------
    config : EncoderConfig
        Facts about the encoder.
    model : nn.Module
        The network whose weights the folder holds.
    patch : int or None
        Side of a patch in pixels; None without patches.
    """

    model: nn.Module
    patch: int | None = None

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def block_dims(self) -> list[int]:
        """True width of each block."""
        raise NotImplementedError

    @property
    def block_numbers(self) -> list[int]:
        """Blocks, counted from 1."""
        return list(range(1, len(self.block_dims) + 1))

    def pooled_blocks(self, x_NCHW: Tensor) -> Iterator[Tensor]:
        """Yield each block's pooled output (N, its width) from normalized crops."""
        raise NotImplementedError

    def regions(self) -> Iterator[nn.Module]:
        """Yield the parts of the network that are compiled one by one, most of them alike."""
        for child in self.model.children():
            parts = isinstance(child, nn.ModuleList | nn.Sequential)
            yield from child.children() if parts else (child,)

    def compile_regions(self, backend: str = "inductor") -> None:
        """Let torch compile the network part by part; the first passes then take longer."""
        for region in self.regions():
            region.compile(backend=backend)

    def forward_blocks(self, images_NCHW: Tensor) -> Tensor:
        """Embed crops at every block in one pass.

        Parameters
        ----------
        images_NCHW : uint8, uint16 or float tensor
            Raw crops, channels in the order of ``config.channels``; floats lie on 0..1.

        Returns
        -------
        tensor of shape (n_crops, n_blocks, dim)
            float32, without a final norm. ``dim`` is the widest block's; narrower ones are
            padded with zeros (see ``block_dims``).

        """
        device = next(self.parameters(), torch.empty(0)).device
        with torch.no_grad():
            return self.stack_blocks(self.normalize(images_NCHW.to(device)))

    @torch.no_grad()
    def stack_blocks(self, x_NCHW: Tensor, *, last_only: bool = False) -> Tensor:
        """Embed normalized crops at every block, or at the last one alone.

        Returns
        -------
        tensor of shape (n_crops, n_blocks, dim)
            As :func:`forward_blocks`; with ``last_only`` one block of its true width.

        Notes
        -----
        A block is pooled as soon as it is computed, so that no token map outlives the next.
        """
        blocks: deque[Tensor] = deque(maxlen=1 if last_only else None)
        blocks.extend(pooled.float() for pooled in self.pooled_blocks(x_NCHW))
        width = max(block.shape[1] for block in blocks)
        padded = [functional.pad(block, (0, width - block.shape[1])) for block in blocks]
        return torch.stack(padded, dim=1)

    def normalize(self, images_NCHW: Tensor) -> Tensor:
        """Prepare pixels as ``config.normalization`` says."""
        if self.config.normalization == "self_standardize":
            return self_standardize(images_NCHW)
        return images_NCHW.float().div(FULL_SCALE.get(images_NCHW.dtype, 1.0))
