"""Every encoder of the paper's Table 4 but the G models: a real forward of every block.

    python benchmarks/table4_forward.py [--only DINOv2-L/14 ...]

Each is read from a file in the layout in which it is published (random weights: an RGB model
at its own size, or a whole autoencoder of the authors), by the entry that a user would write,
and every block of a crop of 256 x 256 x 6 is compared with plain timm's, which reads the same
file. Prints one line a figure: name, figure, unit, bound; exit code 1 if a bound is not kept.
The largest needs 5 GB of memory.
"""

import argparse
import gc
import sys
import tempfile
import time
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer
from torch import Tensor, nn

from phenopipe.embed.config import PrepareKnobs
from phenopipe.embed.prepare import prepare_encoder
from phenopipe.encoders.channel_agnostic import ChannelPatchEmbed
from phenopipe.encoders.mae import fixed_positions
from phenopipe.encoders.standardize import self_standardize

STAINS = ("dna", "er", "actin", "rna", "mitochondria", "golgi")
BASELINES = ("ViT-S/16", "DINOv2-S/14", "DINOv2-L/14", "WSL-L/16", "MAE-L/16")
# Autoencoders: width, heads, blocks, patch, channels of the convolution, grids of positions.
AUTOENCODERS = {"CA-MAE-S/16": (384, 6, 12, 16, 1, 11), "MAE-L/8": (1024, 16, 24, 8, 6, 1)}
BOUND = 1e-5


def opened(model: nn.Module) -> nn.Module:
    """Open every LayerScale, so that blocks differ as they do in trained weights."""
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            parameter.data.fill_(0.5)
    return model.eval()


def crop() -> Tensor:
    """One raw crop."""
    seeded = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1, 6, 256, 256), dtype=torch.uint8, generator=seeded)


def blocks_of(model: VisionTransformer, x: Tensor, pooling: str) -> list[Tensor]:
    """Every block by timm's own ``forward_intermediates``."""
    with torch.no_grad():
        pairs = model.forward_intermediates(
            x, return_prefix_tokens=True, intermediates_only=True, output_fmt="NLC"
        )
    return [
        prefix[:, 0] if pooling == "class" else patches.mean(1) for patches, prefix in pairs
    ]


def baseline(preset: str, folder: Path) -> tuple[Tensor, list[Tensor], int]:
    """Our blocks of a preset, timm's, and the number of parameters."""
    knobs = PrepareKnobs(preset=preset, channels=STAINS)
    file = folder / "model.safetensors"
    torch.manual_seed(1)
    save_file(opened(timm.create_model(knobs.architecture)).state_dict(), file)
    encoder = prepare_encoder(knobs, file)
    size, pooling = encoder.config.model_args["img_size"], encoder.config.pooling
    parameters = sum(p.numel() for p in encoder.model.parameters())
    found = encoder.forward_blocks(crop())
    del encoder
    gc.collect()
    model = timm.create_model(
        knobs.architecture,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(file)},
        **{"in_chans": 6, "img_size": size, "num_classes": 0},
    ).eval()
    edge = (256 - size) // 2
    x = self_standardize(crop())[..., edge : edge + size, edge : edge + size]
    return found, blocks_of(model, x, pooling), parameters


def autoencoder(name: str, folder: Path) -> tuple[Tensor, list[Tensor], int]:
    """The same for an autoencoder in the authors' layout."""
    dim, heads, depth, patch, in_chans, grids = AUTOENCODERS[name]
    torch.manual_seed(1)
    model = VisionTransformer(
        **{"img_size": 256, "patch_size": patch, "in_chans": in_chans, "num_classes": 0},
        **{"embed_dim": dim, "depth": depth, "num_heads": heads, "qkv_bias": False},
        **{"qk_norm": True, "init_values": 0.5, "block_fn": ParallelScalingBlock},
    ).eval()
    model.pos_embed = fixed_positions(dim, (256 // patch) ** 2, copies=grids)
    state = {f"encoder.vit_backbone.{k}": v for k, v in model.state_dict().items()}
    torch.save({"state_dict": state}, folder / "model.safetensors")
    encoder = prepare_encoder(PrepareKnobs(kind="imported", channels=STAINS, crop=256), folder)
    parameters = sum(p.numel() for p in encoder.model.parameters())
    found = encoder.forward_blocks(crop())
    del encoder, state
    gc.collect()
    if in_chans == 1:
        model.patch_embed = ChannelPatchEmbed(model.patch_embed.proj)
        model.pos_embed = fixed_positions(dim, (256 // patch) ** 2, copies=6)
    return found, blocks_of(model, self_standardize(crop()), "mean"), parameters


def main() -> int:
    """Print the figures; 1 if a bound is not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [*BASELINES, *AUTOENCODERS]
    parser.add_argument("--only", nargs="*", default=names, choices=names)
    kept = True
    for name in parser.parse_args().only:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            make = baseline if name in BASELINES else autoencoder
            found, wanted, parameters = make(name, Path(folder))
        assert found.shape == (1, len(wanted), wanted[0].shape[1])
        gaps = [
            (found[:, at] - one).abs().max() / one.abs().max().clamp(min=1)
            for at, one in enumerate(wanted)
        ]
        moved = (found[:, 1:] - found[:, :-1]).abs().amax(dim=(0, 2)).min()
        gap = float(max(gaps))
        print(
            f"{name}: {parameters:,} parameters, {len(wanted)} blocks, largest difference "
            f"from timm {gap:.1e} (bound {BOUND:.0e}); blocks differ by {moved:.2g} or more; "
            f"{time.perf_counter() - start:.0f} s",
            flush=True,
        )
        kept &= gap <= BOUND and bool(moved > 100 * BOUND)
        del found, wanted
        gc.collect()
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
