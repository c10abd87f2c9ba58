"""Stochastic depth: crops left out of a block against timm's DropPath, which computes them.

    python benchmarks/stochastic_depth.py

Forward and backward pass of the encoder of an autoencoder of ViT-S/16 on visible tokens of
random crops, float32 unless `--bfloat16`. Both in turn, medians of ratios; one line a
figure: name, figure, unit, bound. Exits with 1 if a bound is not kept.
"""

import argparse
import statistics
import sys
import time

import torch
from timm.layers import DropPath

from phenopipe.encoders.mae import MaskedAutoencoder, random_masking
from phenopipe.encoders.stochastic_depth import blocks_saved

# Rule and rate, and the least gain.
CASES = {("uniform", 0.6): 1.9, ("linear", 0.6): 1.3, ("linear", 0.3): None}


def encoder_of(rule, rate, peer):
    """Build an autoencoder whose blocks drop paths in our way or in timm's."""
    torch.manual_seed(0)
    model = MaskedAutoencoder(drop_path=rate, drop_path_rule=rule)
    if peer:
        for block, one in zip(model.encoder.blocks, model.drop_rates, strict=True):
            block.drop_path = DropPath(one)
    return model.train()


def seconds(model, images, kept, drop, bfloat16):
    """Time one forward and backward pass of the encoder."""
    model.zero_grad()
    begin = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        out = model.encode(images, kept, drop)
    out.float().square().mean().backward()
    return time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--bfloat16", action="store_true")
    chosen = parser.parse_args()
    images = torch.rand(chosen.batch, 6, 256, 256)
    kept = random_masking(torch.rand(chosen.batch, 256), 0.75).kept
    kept_bounds = True
    for (rule, rate), bound in CASES.items():
        ours, peer = encoder_of(rule, rate, False), encoder_of(rule, rate, True)
        ratios = []
        # The first round warms up.
        for _ in range(chosen.repeats + 1):
            drop = torch.rand(chosen.batch, 12)
            timed = [
                seconds(model, images, kept, noise, chosen.bfloat16)
                for model, noise in ((peer, None), (ours, drop))
            ]
            ratios.append(timed[0] / timed[1])
        gain = statistics.median(ratios[1:])
        ideal = 12 / (12 - blocks_saved(ours.drop_rates, "left_out"))
        told = f"bound {bound}" if bound else f"no bound, ideal {ideal:.2f}"
        print(f"encoder pass, {rule} {rate}: {gain:.2f} times as fast as DropPath, {told}")
        kept_bounds &= bound is None or gain >= bound
    sys.exit(0 if kept_bounds else 1)


if __name__ == "__main__":
    main()
