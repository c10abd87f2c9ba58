"""The planner held against real updates on a processor: seconds and memory.

    python benchmarks/plan_check.py

One thread, processor time, MAE-S/16 on crops of 6 x 256 x 256. Seconds are planned from the
model's operations at the measured speed of its products of matrices, and from its kept bytes at
the measured speed of copying. Memory is planned as for DDP: it is held against all that torch
allocated at the peak, the gradients that DDP keeps included, and, without a bound, against what
the operating system counts. One line a figure: name, figure, unit, bound. Exits with 1 if a
bound is not kept.
"""

import argparse
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from phenopipe.encoders.attention import choose_attention
from phenopipe.pretrain.config import MaeKnobs
from phenopipe.pretrain.cost import crop_cost
from phenopipe.pretrain.estimate import GPUS, Machine, crop_seconds, plan_training
from phenopipe.pretrain.lion import Lion
from phenopipe.pretrain.mae import autoencoder_loss, build_autoencoder

CHANNELS = 6
SECONDS_BOUND, MEMORY_BOUND = 0.25, 0.15


def processor_seconds(function, repeats):
    """Median processor time of a call, after one that warms up."""
    function()
    found = []
    for _ in range(repeats):
        begin = time.process_time()
        function()
        found.append(time.process_time() - begin)
    return statistics.median(found)


def products_rate(dtype, crops):
    """Operations a second of products of the decoder's and the encoder's shapes."""
    rows = {257 * crops: [(512, 1536), (512, 2048), (2048, 512)], 65 * crops: [(384, 2688)]}
    operations, seconds = 0.0, 0.0
    for n, shapes in rows.items():
        for inner, outer in shapes:
            x, w = torch.randn(n, inner, dtype=dtype), torch.randn(outer, inner, dtype=dtype)
            seconds += processor_seconds(lambda x=x, w=w: functional.linear(x, w), 7)
            operations += 2.0 * n * inner * outer
    # Attention is products, too, and far from their speed on a processor.
    for tokens, heads, width in ((257, 16, 32), (65, 6, 64)):
        q, k, v = torch.randn(3, crops, heads, tokens, width, dtype=dtype)
        attend = partial(functional.scaled_dot_product_attention, q, k, v)
        seconds += processor_seconds(attend, 7)
        operations += 4.0 * crops * heads * tokens**2 * width
    return operations / seconds


def copy_rate():
    """Bytes a second, read and written ones counted alike."""
    source, target = torch.randn(2, 1 << 25)
    return 2 * 4 * source.numel() / processor_seconds(lambda: target.copy_(source), 7)


def prepared(precision, crops):
    """An update of S/16 as the workflow makes it, its knobs and optimizer."""
    torch.manual_seed(0)
    bfloat16 = precision == "bfloat16"
    knobs = MaeKnobs(preset="S/16", drop_path=0.0, precision=precision, batch=crops, updates=1)
    choose_attention(256, bfloat16=bfloat16)
    model = build_autoencoder(knobs, CHANNELS).train()
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = Lion(learned, knobs.lr, knobs.betas, knobs.weight_decay)
    images = torch.randint(0, 256, (crops, CHANNELS, 256, 256), dtype=torch.uint8)
    noise = torch.rand(crops, 256)

    def update():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = autoencoder_loss(model, (images, noise))["loss"]
        loss.backward()
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()

    return knobs, optimizer, update


def check_seconds(precision, crops, repeats):
    """Compare planned and measured seconds of an update."""
    knobs, _, update = prepared(precision, crops)
    measured = processor_seconds(update, repeats)
    rate = products_rate(torch.bfloat16 if precision == "bfloat16" else torch.float32, crops)
    planned = crops * crop_seconds(crop_cost(knobs, CHANNELS), rate, copy_rate())
    off = planned / measured - 1.0
    print(
        f"seconds of an update, {precision}: planned {planned:.2f}, measured {measured:.2f}, "
        f"{off:+.0%} off, bound {SECONDS_BOUND:.0%} ({rate / 1e9:.0f} GFLOP/s of products)",
        flush=True,
    )
    return abs(off) <= SECONDS_BOUND


def check_memory(precision, crops):
    """Compare the planned and the allocated peak of an update."""
    knobs, optimizer, update = prepared(precision, crops)
    cost = crop_cost(knobs, CHANNELS)
    update()
    optimizer.zero_grad(set_to_none=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        update()
    events = watched.profiler.kineto_results.events()
    taken = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    # Weights and momentum were there before; several processes also keep their gradients.
    found = 12 * cost.learning + np.cumsum([size for _, size in taken]).max()
    where = Machine(GPUS["h100"], 1, 1, 0.35, None, 1e9, 256, 1)
    planned = plan_training(knobs, cost, where, channels=CHANNELS, images=None).memory_ddp
    off = planned / found - 1.0
    print(
        f"memory of an update, {precision}, {crops} crops: planned {planned / 1e9:.2f} GB, "
        f"allocated {found / 1e9:.2f} GB, {off:+.0%} off, bound {MEMORY_BOUND:.0%}",
        flush=True,
    )
    return abs(off) <= MEMORY_BOUND


def peak_memory():
    """Peak of this process in bytes: ru_maxrss would count what its parent held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def resident(precision, crops):
    """Print what the process grew by at its peak, above what importing takes."""
    before = peak_memory()
    knobs, _, update = prepared(precision, crops)
    for _ in range(2):
        update()
    grown = peak_memory() - before
    cost = crop_cost(knobs, CHANNELS)
    where = Machine(GPUS["h100"], 1, 1, 0.35, None, 1e9, 256, 1)
    planned = plan_training(knobs, cost, where, channels=CHANNELS, images=None).memory_ddp
    # One process alone drops its gradients before the forward pass.
    print(
        f"resident memory, {precision}, {crops} crops: planned {planned / 1e9:.2f} GB, "
        f"the process grew by {grown / 1e9:.2f} GB, {planned / grown - 1.0:+.0%} off, no bound",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crops", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--resident", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.resident:
        resident(chosen.resident, chosen.crops)
        return
    kept = []
    for precision in ("float32", "bfloat16"):
        kept.append(check_seconds(precision, chosen.crops, chosen.repeats))
        kept.append(check_memory(precision, chosen.crops))
        # In a process of its own, whose peak is not that of what ran before.
        command = [sys.executable, __file__, f"--crops={chosen.crops}"]
        subprocess.run([*command, f"--resident={precision}"], check=True)
    sys.exit(0 if all(kept) else 1)


if __name__ == "__main__":
    main()
