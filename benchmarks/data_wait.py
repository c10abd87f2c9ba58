"""Share of a training's time that it waits for data, with sites in shards on disk.

    python benchmarks/data_wait.py

Writes sites of 6 x 512 x 512 pixels as the stage screen does and makes updates of MAE-S/16 on
random crops of 256 pixels, read and prepared in the background as in the workflow, none of them
held in memory. One line: name, figure, unit, bound. Exits with 1 if the bound is not kept.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch

from phenopipe.encoders.attention import choose_attention
from phenopipe.formats.images import open_pixels, write_pixels
from phenopipe.pretrain.config import MaeKnobs
from phenopipe.pretrain.lion import Lion
from phenopipe.pretrain.mae import autoencoder_loss, build_autoencoder
from phenopipe.pretrain.sites import Sites
from phenopipe.pretrain.stream import CropStream

SIDE, CHANNELS, CROP, PATCHES = 512, 6, 256, 256
BOUND = 0.02


def written(folder, number):
    """Write noise that compresses about as well as cells do; return the sites."""
    rng = np.random.default_rng(0)
    names = [str(channel) for channel in range(CHANNELS)]
    pixels = (
        rng.poisson(12.0, (CHANNELS, SIDE, SIDE)).clip(0, 255).astype(np.uint8)
        for _ in range(number)
    )
    shape = (number, CHANNELS, SIDE, SIDE)
    path = folder / "images.zarr"
    write_pixels(path, pixels, shape=shape, channels=names, dtype="uint8", stamp={})
    table = pl.DataFrame({"store": [0] * number, "index": list(range(number))})
    return Sites(table, [open_pixels(path)], [list(range(CHANNELS))], names)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--sites", type=int, default=64)
    parser.add_argument("--updates", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    knobs = MaeKnobs(preset="S/16", precision="bfloat16", batch=chosen.batch, drop_path=0.0)
    choose_attention(PATCHES, bfloat16=True)
    model = build_autoencoder(knobs, CHANNELS).train()
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = Lion(learned, knobs.lr, knobs.betas, knobs.weight_decay)

    def noise(rng, site):
        return (rng.random(PATCHES, np.float32),)

    with tempfile.TemporaryDirectory() as folder:
        sites = written(Path(folder), chosen.sites)
        stream = CropStream(
            sites, crop=CROP, batch=chosen.batch, seed=0, flips=True, extras=noise
        )
        waited, begun = 0.0, time.perf_counter()
        clock = begun
        for number, batch in enumerate(stream.batches(0, chosen.updates + 1)):
            if number:
                waited += time.perf_counter() - clock
            else:
                # The first batch has nothing to hide behind.
                begun = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16):
                loss = autoencoder_loss(model, batch)["loss"]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            clock = time.perf_counter()
        share = waited / (clock - begun)
    print(
        f"waiting for data, S/16, {chosen.batch} crops an update, {chosen.threads} threads: "
        f"{share:.2%} of the time, bound {BOUND:.0%}"
    )
    sys.exit(0 if share < BOUND else 1)


if __name__ == "__main__":
    main()
