"""Knobs of the pretrain stage; defaults fit the embedded demo, the paper's are in configs/."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from phenopipe.knobs import Knobs
from phenopipe.pretrain.presets import DINO_PRESETS, PRESETS, DinoPreset, Preset

# Heads with which a channel-agnostic decoder looks at all channels; the model has them in
# encoders.channel_agnostic, which needs torch.
CROSS_ATTENTION_HEADS = 8
# A vision transformer that learns within a minute on a laptop.
SMALL_VIT = {"patch_size": 8, "embed_dim": 128, "depth": 6, "num_heads": 4}


Share = Annotated[float, Field(ge=0.0, lt=1.0)]


def check_multiples(knobs: Knobs, *wanted: tuple[str, str | int]) -> None:
    """Raise ValueError if a size is not a multiple of another one, or of a number."""
    for name, of in wanted:
        unit = getattr(knobs, of) if isinstance(of, str) else of
        if getattr(knobs, name) % unit:
            told = f"{of} ({unit})" if isinstance(of, str) else str(of)
            raise ValueError(f"{name} {getattr(knobs, name)}: wanted a multiple of {told}")


class TrainingKnobs(Knobs):
    """How any encoder is trained."""

    model_config = ConfigDict(allow_inf_nan=False)

    epochs: PositiveFloat = 40.0
    """Passes through the training images; in each, every image gives one random crop."""
    updates: PositiveInt | None = None
    """Number of updates in place of ``epochs``."""
    batch: PositiveInt = 32
    """Crops an update, of all processes together."""
    micro_batch: PositiveInt | None = None
    """Crops that a process takes at once, its share of ``batch`` one part after another
    where that is larger. What an update does stays the same but for rounding."""
    optimizer: Literal["lion", "adamw"] = "lion"
    """Who makes the updates (paper: Lion)."""
    lr: PositiveFloat = 1e-3
    """Highest learning rate (paper: 1e-4 up to ViT-B, 3e-5 above)."""
    betas: tuple[Share, Share] = (0.9, 0.95)
    """The optimizer's decay rates: Lion's of the update and of the momentum."""
    weight_decay: NonNegativeFloat = 0.05
    """Decoupled weight decay."""
    warmup: float = Field(default=0.1, gt=0.0, lt=1.0)
    """Share of the updates in which the learning rate rises."""
    max_gradient_norm: PositiveFloat = 1.0
    """Gradients longer than this are shortened to it."""
    max_gradient_ratio: PositiveFloat | None = None
    """Updates whose gradient is longer than this many running medians are skipped, as those
    are whose gradient is not finite."""
    max_skipped: NonNegativeInt = 10
    """Consecutive updates that may be skipped. After more of them the training returns to its
    last state and goes on with the crops that come next."""
    max_returns: NonNegativeInt = 5
    """Such returns after which the training stops with an error."""
    flips: bool = True
    """Whether crops are flipped at random, up-down and left-right."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the model; weights, loss and Fourier transforms stay in float32. The
    shorter one is faster on GPUs and on processors with matrix units for it."""
    memory_mb: PositiveInt = 1000
    """Images that need no more than this are held in memory, others are read as needed."""
    checkpoints: str = "checkpoints"
    """Folder of the states from which a killed training continues."""
    checkpoint_every: PositiveInt = 100
    """Updates between two states."""
    states_kept: PositiveInt = 2
    """States that are kept, the newest ones."""
    wait_for_states: bool = False
    """Whether training waits until a state is written, in place of going on beside it."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Whether each of several processes holds the whole model, or a slice of every tensor."""
    activation_checkpointing: bool = False
    """Whether blocks are computed again for the backward pass in place of kept in memory."""
    compile: bool = False
    """Whether blocks are compiled, which pays on GPUs and in long trainings."""
    logs: str | None = None
    """Folder of ``log.jsonl`` and of TensorBoard's files: rates, memory, utilization."""
    log_every: PositiveInt = 10
    """Updates that one row of them stands for."""
    peak_tflops: PositiveFloat | None = None
    """Trillions of operations a second of one GPU, to state the share that is used; unset: of
    the GPUs that the planner knows."""
    license: str | None = None
    """Licence of the weights for the model card; none is assumed."""
    seed: NonNegativeInt = 0
    """Seed of initial weights, crops, flips, masks and dropped samples."""


class MaeKnobs(TrainingKnobs):
    """Settings of a masked autoencoder."""

    channel_agnostic: bool = False
    """Whether every channel's patches are tokens of their own (kind ``ca_mae``)."""
    preset: Preset | None = None
    """A model of the paper: its sizes, learning rate and stochastic depth, in place of the
    defaults here; what is set beside it goes first."""
    crop: PositiveInt = 64
    """Side of a crop, pixels (paper: 256)."""
    patch: PositiveInt = 8
    """Side of a patch, pixels."""
    dim: PositiveInt = 128
    """Width of the encoder (paper: 384, 1024 or 1664)."""
    depth: PositiveInt = 6
    """Blocks of the encoder (paper: 12, 24 or 48)."""
    heads: PositiveInt = 4
    """Attention heads of the encoder."""
    mlp_ratio: PositiveFloat = 4.0
    """Hidden width of a block's MLP in units of ``dim``."""
    decoder_dim: PositiveInt = 64
    """Width of the decoder (paper: 512)."""
    decoder_depth: PositiveInt = 2
    """Blocks of the decoder (paper: 8)."""
    decoder_heads: PositiveInt = 4
    """Attention heads of the decoder (paper: 16)."""
    mask_ratio: float = Field(default=0.75, gt=0.0, lt=1.0)
    """Share of the patches that is hidden."""
    fourier: Literal["as_released", "patch", "image"] = "as_released"
    """Form of the Fourier term; ``as_released`` is what the paper used."""
    fourier_weight: float = Field(default=0.01, ge=0.0, le=1.0)
    """Weight alpha of the Fourier term; L2 weighs 1 - alpha."""
    drop_path: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Stochastic depth: share of the crops that skip the last block (paper: 0.1, 0.3, 0.6)."""
    drop_path_rule: Literal["linear", "uniform"] = "linear"
    """Whether that share rises from 0 at the first block, or is the same at all."""
    drop_path_form: Literal["left_out", "masked"] = "left_out"
    """Whether skipping crops are left out of a block, which saves their cost where a tenth or
    more skip, or computed and thrown away (timm's form). Equal up to rounding."""
    layer_scale: PositiveFloat = 1e-4
    """LayerScale before training (paper: 1e-4, for hundreds of epochs; short trainings learn
    faster from 0.1)."""
    pooling: Literal["mean", "class"] = "mean"
    """How tokens become an embedding: mean of patch tokens, or the class token."""
    held_out: PositiveInt = 16
    """Images that are never trained on, to show reconstructions and their error."""
    panels_every: NonNegativeInt = 0
    """Updates between two pictures of what the model paints on some of them; 0: none."""

    @classmethod
    def expanded(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Write out what the preset stands for, under what is set beside it."""
        return {**PRESETS.get(str(settings.get("preset")), {}), **settings}

    @field_validator("preset")
    @classmethod
    def _of_its_kind(cls, preset: str | None, info: ValidationInfo) -> str | None:
        wanted = PRESETS.get(preset or "", {}).get("channel_agnostic", False)
        if wanted and not info.data.get("channel_agnostic", True):
            raise ValueError("this preset is channel-agnostic, wanted kind ca_mae")
        return preset

    @model_validator(mode="after")
    def _fit(self) -> Self:
        # A fixed position is a sine and a cosine for each axis of the image.
        check_multiples(self, ("crop", "patch"), ("dim", 4), ("dim", "heads"))
        check_multiples(self, ("decoder_dim", 4), ("decoder_dim", "decoder_heads"))
        if self.channel_agnostic:
            check_multiples(self, ("decoder_dim", CROSS_ATTENTION_HEADS))
        return self

    @property
    def architecture(self) -> dict[str, Any]:
        """What decides the encoder's tensors, apart from the channels."""
        names = {"channel_agnostic", "crop", "patch", "dim", "depth", "heads", "mlp_ratio"}
        return self.model_dump(include=names)


class DinoKnobs(TrainingKnobs):
    """Settings of a student and its teacher; what the paper leaves open is as in DINOv2."""

    preset: DinoPreset | None = None
    """A model of the paper's appendix A.9: its sizes, learning rate and stochastic depth, in
    place of the defaults here; what is set beside it goes first."""
    batch: PositiveInt = 32
    """Images an update, of all processes together; each gives large and small crops."""
    micro_batch: PositiveInt | None = None
    """Images that a process takes at once, its share of ``batch`` one part after another
    where that is larger. What an update does stays the same but for rounding."""
    crop: PositiveInt = 64
    """Side of a large crop, pixels (paper's encoders: 256)."""
    small_crop: PositiveInt = 32
    """Side of a small crop, pixels, a multiple of ``patch``; pixels are as large in it."""
    large_crops: int = Field(default=2, ge=2)
    """Large crops of an image, which the teacher sees too (paper: 2)."""
    small_crops: NonNegativeInt = 4
    """Small crops of an image, which only the student sees (paper: 4)."""
    region: float = Field(default=1.5, ge=1.0)
    """Side of the square in which all crops of an image lie, in units of ``crop``."""
    rotations: bool = True
    """Whether crops are turned by 0, 90, 180 or 270 degrees."""
    gain: float = Field(default=0.4, ge=0.0, lt=1.0)
    """Each standardized channel of a crop is multiplied by 1 plus or minus as much."""
    offset: NonNegativeFloat = 0.4
    """As much is added to or taken off it, in units of its standard deviation."""
    blur: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of the crops that are blurred by a Gaussian."""
    blur_sigma: tuple[NonNegativeFloat, NonNegativeFloat] = (0.1, 1.0)
    """Least and largest standard deviation of the blur, pixels."""
    masked: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of the large crops of which the student does not see some patches."""
    mask_ratio: tuple[float, float] = (0.1, 0.5)
    """Least and largest share of patches that it does not see of these."""
    patch: PositiveInt = 8
    """Side of a patch, pixels."""
    dim: PositiveInt = 128
    """Width of the encoder."""
    depth: PositiveInt = 6
    """Blocks of the encoder."""
    heads: PositiveInt = 4
    """Attention heads of the encoder."""
    mlp_ratio: PositiveFloat = 4.0
    """Hidden width of a block's MLP in units of ``dim``."""
    layer_scale: PositiveFloat = 0.1
    """LayerScale before training (DINOv2: 1e-5, for long trainings)."""
    drop_path: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Stochastic depth of the student: share of the crops that skip the last block."""
    drop_path_rule: Literal["linear", "uniform"] = "linear"
    """Whether that share rises from 0 at the first block, or is the same at all."""
    drop_path_form: Literal["left_out", "masked"] = "left_out"
    """Whether skipping crops are left out of a block, or computed and thrown away."""
    prototypes: PositiveInt = 65_536
    """Outputs of the projection heads (paper: 65,536)."""
    head_dim: PositiveInt = 2048
    """Width of the hidden layers of the heads."""
    head_features: PositiveInt = 256
    """Width of the features before the prototypes."""
    separate_heads: bool = True
    """Whether patches have a head of their own, in place of the class token's."""
    frozen: float = Field(default=0.01, ge=0.0, le=1.0)
    """Share of the updates, from the first on, in which prototypes do not learn."""
    dino_weight: NonNegativeFloat = 1.0
    """Weight of the loss between crops (paper: 1.0)."""
    ibot_weight: NonNegativeFloat = 1.0
    """Weight of the loss of hidden patches (paper: 1.0)."""
    koleo_weight: NonNegativeFloat = 0.1
    """Weight of the loss that spreads embeddings (paper: 0.1)."""
    centring: Literal["sinkhorn", "centre"] = "sinkhorn"
    """What spreads the teacher's targets over the prototypes: Sinkhorn-Knopp on every batch,
    or a running mean of its logits that is taken off."""
    sinkhorn_rounds: PositiveInt = 3
    """Rounds of Sinkhorn-Knopp."""
    centre_momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    """Share of the running mean that an update keeps."""
    student_temperature: PositiveFloat = 0.1
    """Temperature of the student's distributions."""
    teacher_temperature: tuple[PositiveFloat, PositiveFloat] = (0.04, 0.07)
    """Temperature of the teacher's at the start, and after ``teacher_warmup``."""
    teacher_warmup: float = Field(default=0.3, ge=0.0, le=1.0)
    """Share of the updates in which it rises."""
    momentum: tuple[float, float] = (0.992, 1.0)
    """Share of itself that the teacher keeps at an update: at the start, and at the end of
    half a cosine."""
    pooling: Literal["mean", "class"] = "class"
    """How tokens become an embedding: mean of patch tokens, or the class token."""
    held_out: PositiveInt = 64
    """Images that are never trained on, to show the loss and the embeddings of."""
    measure_every: NonNegativeInt = 100
    """Updates between two looks at held-out images: loss, entropy, rank; 0: none. A multiple
    of ``log_every`` shows in the log too."""
    least_rank: NonNegativeFloat = 0.05
    """A training has collapsed when the effective rank of held-out embeddings is less than
    this share of what it could be."""
    stop_collapsed: bool = False
    """Whether a training that has collapsed stops, with one line."""
    probe_every: NonNegativeInt = 0
    """Updates between two probes of all blocks; 0: none."""
    probe_label: str = "gene"
    """What they predict: ``gene``, ``perturbation``, or a column of the manifest."""
    probe_classes: PositiveInt = 16
    """Classes that they tell apart, those of the most images."""
    probe_images: PositiveInt = 512
    """Images that they look at, half of each class's wells to learn and half to be told."""

    @classmethod
    def expanded(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Write out what the preset stands for, under what is set beside it."""
        return {**DINO_PRESETS.get(str(settings.get("preset")), {}), **settings}

    @model_validator(mode="after")
    def _fit(self) -> Self:
        check_multiples(self, ("crop", "patch"), ("small_crop", "patch"))
        check_multiples(self, ("dim", 4), ("dim", "heads"))
        if self.small_crop > self.crop:
            raise ValueError(f"small_crop {self.small_crop}: wanted at most crop {self.crop}")
        for name in ("mask_ratio", "blur_sigma"):
            least, largest = getattr(self, name)
            if least > largest:
                raise ValueError(f"{name} {least}, {largest}: wanted the least first")
        if not all(0.0 <= share <= 1.0 for share in (*self.mask_ratio, *self.momentum)):
            raise ValueError("mask_ratio, momentum: wanted shares from 0 to 1")
        return self

    @property
    def architecture(self) -> dict[str, Any]:
        """What decides the encoder's tensors, apart from the channels."""
        names = {"crop", "patch", "dim", "depth", "heads", "mlp_ratio"}
        return {"channel_agnostic": False, **self.model_dump(include=names)}


class ClassifierKnobs(TrainingKnobs):
    """Settings of a weakly supervised classifier."""

    label: str = "gene"
    """What is predicted: ``gene``, ``perturbation``, or a column of wells.parquet."""
    controls: bool = True
    """Whether negative controls are a class of their own."""
    architecture: str = "vit_tiny_patch16_224"
    """Any model of timm, without a tag of pretrained weights."""
    model_args: dict[str, Any] = Field(default=SMALL_VIT)
    """Arguments that change the architecture; none are assumed where one is named."""
    crop: PositiveInt = 64
    """Side of a crop, pixels."""
    pooling: Literal["mean", "class"] = "class"
    """How tokens become an embedding; CNNs always average their maps."""

    @classmethod
    def expanded(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Write out that a named architecture is taken as it is."""
        if "architecture" in settings:
            return {"model_args": {}, **settings}
        return dict(settings)

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if "." in self.architecture:
            raise ValueError(
                f"architecture {self.architecture}: a tag means pretrained weights, wanted the "
                "name alone; initialize_from an encoder of kind timm starts from them"
            )
        if "num_classes" in self.model_args:
            raise ValueError("model_args: num_classes follows from the labels, wanted none")
        return self
