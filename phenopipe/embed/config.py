"""Knobs of the embed stage."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, PositiveInt

from phenopipe.embed.presets import PRESETS, Preset
from phenopipe.knobs import Knobs

# As large as the masked autoencoder of the embedded demo, so that the two compare.
SMALL_VIT = {"patch_size": 8, "embed_dim": 128, "depth": 6, "num_heads": 4}


class PrepareKnobs(Knobs):
    """An encoder that is not trained here."""

    kind: Literal["timm", "imported", "pixels"] = "timm"
    """timm: any timm model, with random weights or weights from a file or package.
    imported: a folder that another run of the workflow wrote, or the weights of an
    autoencoder in the layout that the paper's authors published. pixels: statistics of each
    channel's pixels, a baseline without any model."""
    preset: Preset | None = None
    """A baseline of the paper's Table 4; what is set beside it goes first."""
    architecture: str = "vit_tiny_patch16_224"
    """Name of the model in timm. With a tag (NAME.TAG) it stands for the weights of that tag:
    weights/NAME.TAG.safetensors under ``data``, or the entry's own ``weights``."""
    model_args: dict[str, Any] = Field(default=SMALL_VIT)
    """Arguments that change the architecture; crop and channels come by themselves. None
    where the architecture is named and they are not."""
    channels: tuple[str, ...] = ()
    """Names of the channels in order; those of its screen when left out."""
    crop: PositiveInt = 64
    """Side of a crop, pixels (paper: 256)."""
    pooling: Literal["mean", "class"] = "class"
    """How tokens become an embedding: class token (paper, MAE apart) or mean of patches."""
    normalization: Literal["self_standardize", "none"] = "self_standardize"
    """What is done to each channel of a crop first."""
    package: str | None = None
    """Installed Python package that carries a file of weights (extra ``pretrained``)."""
    match: Literal["name", "order"] = "name"
    """How a file's tensors find their place in timm's model: by name, or by order and shape."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Checksum that the file of weights must have; ``phenopipe.embed.fetch`` prints it."""
    license: str | None = None
    """Licence of the weights, for the model card; what timm says of its tags if left out."""
    seed: int = 0
    """Seed of random weights."""

    @classmethod
    def expanded(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Write out the preset, and that a named architecture is taken as it is."""
        written = {**PRESETS.get(str(settings.get("preset")), {}), **settings}
        if "architecture" in written:
            written.setdefault("model_args", {})
        return written

    @property
    def tagged(self) -> str | None:
        """Timm's name of pretrained weights, where a file of them is wanted."""
        named = self.kind == "timm" and "." in self.architecture and self.package is None
        return self.architecture if named else None


class WellsKnobs(Knobs):
    """How wells are embedded."""

    batch: PositiveInt = 128
    """Crops in one pass; memory grows with it and with nothing else. Halved by itself where
    the memory of a GPU does not hold one."""
    blocks: Literal["all", "last"] = "all"
    """Blocks to keep: all for probes, or the last one alone for large screens."""
    leave_out_ring: bool = False
    """Leave the outer ring of a site's crops out (paper: 36 of 64)."""
    dtype: Literal["float32", "float16"] = "float32"
    """Numbers in the store; float16 halves it and refuses values beyond 65,504."""
    sites: Literal["float32", "float16"] | None = None
    """Numbers in which each site's embedding is kept beside its well's, for probes of sites;
    null: wells alone."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the model. bfloat16 is faster where the hardware has it; how well its
    blocks agree with those of float32 is measured in docs/embedding.md."""
    compile: bool = False
    """Compile the model block by block first: worth it for long runs on a GPU."""
    readers: PositiveInt = 1
    """Threads that read, cut and normalize sites while the model works; a small model on a
    GPU wants several."""


class ProfilesKnobs(Knobs):
    """Features that came with the screen; nothing to set."""


class RandomKnobs(Knobs):
    """Numbers that know nothing of the cells."""

    dim: PositiveInt = 384
    """Features: as many as the encoder has that is held against them."""
    seed: int = 0
    """Seed of the numbers."""
