"""Self-standardization of crops against the formula taken literally (float, var_mean).

    python benchmarks/standardize_speed.py

Eight crops of 6 x 256 x 256, both forms in turn, medians of ratios of processor time; one line
a figure: name, figure, unit, bound. Exits with 1 if a bound is not kept.
"""

import argparse
import statistics
import sys
import time

import torch

from phenopipe.encoders.standardize import EPSILON, FULL_SCALE, self_standardize

BOUND = 4.0


def literal(images):
    """(x - mean) / sqrt(variance + 1e-5) as one would write it down."""
    x = images.float().div(FULL_SCALE[images.dtype])
    variance, mean = torch.var_mean(x, dim=(2, 3), keepdim=True, correction=0)
    return (x - mean) / (variance + EPSILON).sqrt()


def seconds(function, images):
    """Time one call."""
    begin = time.process_time()
    function(images)
    return time.process_time() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=21)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    kept_bounds = True
    for dtype, scale in FULL_SCALE.items():
        images = (torch.rand(8, 6, 256, 256) ** 3 * scale).to(dtype)
        # The first rounds warm up.
        pairs = [
            [seconds(form, images) for form in (literal, self_standardize)]
            for _ in range(chosen.repeats + 3)
        ][3:]
        gain = statistics.median(peer / ours for peer, ours in pairs)
        speed = images.numel() / statistics.median(ours for _, ours in pairs) / 1e6
        print(
            f"standardization, {str(dtype)[6:]}: {gain:.2f} times as fast as float and var_mean"
            f" ({speed:.0f} million pixels a second), bound {BOUND}"
        )
        kept_bounds &= gain >= BOUND
    sys.exit(0 if kept_bounds else 1)


if __name__ == "__main__":
    main()
