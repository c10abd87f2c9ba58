"""A whole update of MAE-S/16 against a plain reference, and the optimizer alone.

    python benchmarks/pretrain_speed.py

Six channels of 256 x 256 pixels, both Fourier terms on, weights moved by Lion. The reference is
written here in the manner of the MAE paper's public code: timm's blocks one after the other,
`scaled_dot_product_attention`, timm's Lion, everything eager. Ours is what the workflow trains.
Both in turn, medians of ratios of pairs; one line a figure: name, figure, unit, bound. Two
threads are timed by the clock, one (`--threads 1`) by its processor seconds, which other work
on the machine disturbs less. Exits with 1 if a bound is not kept. `--only` picks parts.
"""

import argparse
import os
import statistics
import sys
import time

import timm.optim
import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Block
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from phenopipe.encoders.attention import choose_attention
from phenopipe.encoders.mae import MaskedAutoencoder, sincos_positions
from phenopipe.pretrain.config import MaeKnobs
from phenopipe.pretrain.distributed import wrap_blocks
from phenopipe.pretrain.lion import Lion
from phenopipe.pretrain.mae import autoencoder_loss, build_autoencoder

CROP, PATCH, CHANNELS, GRID = 256, 16, 6, 256
SETTINGS = {"lr": 1e-4, "betas": (0.9, 0.95), "weight_decay": 0.05}
BOUNDS = {"bfloat16": 1.4, "float32": 1.0}
LION_BOUND = 3.0


# --- the reference ---------------------------------------------------------------------


class Reference(nn.Module):
    """A masked autoencoder of the usual sequential blocks."""

    def __init__(self, dim=384, depth=12, heads=6, wide=512, painters=8, painting_heads=16):
        super().__init__()
        self.embed = PatchEmbed(CROP, PATCH, CHANNELS, dim)
        self.cls = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_buffer("place", sincos_positions(dim, 16, 16)[None])
        self.blocks = nn.ModuleList(Block(dim, heads, qkv_bias=True) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.project = nn.Linear(dim, wide)
        self.hidden = nn.Parameter(torch.zeros(1, 1, wide))
        self.place_painted = nn.Parameter(
            sincos_positions(wide, 16, 16)[None], requires_grad=False
        )
        self.painters = nn.ModuleList(
            Block(wide, painting_heads, qkv_bias=True) for _ in range(painters)
        )
        self.norm_painted = nn.LayerNorm(wide)
        self.head = nn.Linear(wide, PATCH**2 * CHANNELS)

    def forward(self, images, noise):
        """Return the loss: hidden patches' squared error and Fourier magnitudes."""
        x = images.float() / 255
        variance, mean = torch.var_mean(x, dim=(2, 3), keepdim=True, correction=0)
        x = (x - mean) / (variance + 1e-5).sqrt()
        n = len(x)
        target = x.reshape(n, CHANNELS, 16, PATCH, 16, PATCH)
        target = torch.einsum("nchpwq->nhwpqc", target).reshape(n, GRID, -1)
        tokens = self.embed(x) + self.place[:, 1:]
        order = torch.argsort(noise, dim=1)
        back = torch.argsort(order, dim=1)
        kept = order[:, : GRID // 4, None]
        tokens = torch.gather(tokens, 1, kept.expand(-1, -1, tokens.shape[2]))
        mask = torch.ones(n, GRID)
        mask[:, : GRID // 4] = 0
        mask = torch.gather(mask, 1, back)
        first = (self.cls + self.place[:, :1]).expand(n, -1, -1)
        tokens = torch.cat([first, tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        y = self.project(self.norm(tokens))
        hidden = self.hidden.expand(n, GRID - GRID // 4, -1)
        rest = torch.cat([y[:, 1:], hidden], dim=1)
        rest = torch.gather(rest, 1, back[..., None].expand(-1, -1, y.shape[2]))
        y = torch.cat([y[:, :1], rest], dim=1) + self.place_painted
        for block in self.painters:
            y = block(y)
        painted = self.head(self.norm_painted(y))[:, 1:].float()
        error = ((painted - target) ** 2).mean(dim=-1)
        maps = (n, -1, 16, 16)
        spectra = [torch.fft.fft2(z.reshape(maps)).abs() for z in (painted, target)]
        difference = (spectra[0] - spectra[1]).abs().reshape(n, GRID, -1).mean(dim=-1)
        l2, fourier = ((z * mask).sum() / mask.sum() for z in (error, difference))
        return 0.99 * l2 + 0.01 * fourier


# --- timing ----------------------------------------------------------------------------


def update(loss_of, optimizer, parameters, bfloat16, images, noise):
    """Make one whole update."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        loss = loss_of(images, noise)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    return float(loss.detach())


def timed(function, *args):
    """Return seconds of a call."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    begin = clock()
    function(*args)
    return clock() - begin


def pairs(ours, peer, repeats):
    """Time two calls in turn; the first two rounds warm up."""
    rounds = [(timed(peer), timed(ours)) for _ in range(repeats + 2)]
    return rounds[2:]


def gemm_rate(dtype, batch):
    """Operations a second of the products of matrices in one update, each by itself."""
    shapes = [(batch * 257, 512, 1536), (batch * 257, 512, 512), (batch * 257, 512, 2048)]
    shapes = [(*shape, 8) for shape in [*shapes, (batch * 257, 2048, 512)]]
    encoder = batch * 65
    shapes += [(*one, 12) for one in ((encoder, 384, 2688), (encoder, 384, 384))]
    shapes += [(encoder, 1536, 384, 12), (batch * 256, 512, 1536, 1)]
    seconds, operations = 0.0, 0.0
    for rows, inner, columns, times in shapes:
        x, w = torch.randn(rows, inner, dtype=dtype), torch.randn(columns, inner, dtype=dtype)
        g = torch.randn(rows, columns, dtype=dtype)
        # Forward, gradient of the input, gradient of the weight.
        calls = (lambda: functional.linear(x, w), lambda: g @ w, lambda: g.T @ x)  # noqa: B023
        for call in calls:
            call()
            seconds += times * statistics.median(timed(call) for _ in range(5))
        operations += times * 3 * 2.0 * rows * inner * columns
    return operations / seconds


def whole_update(precision, batch, repeats, compiled):
    """Compare whole updates; return whether the bound is kept."""
    bfloat16 = precision == "bfloat16"
    torch.manual_seed(0)
    images = torch.randint(0, 256, (batch, CHANNELS, CROP, CROP), dtype=torch.uint8)
    noise = torch.rand(batch, GRID)
    timm.layers.set_fused_attn(True)
    reference = Reference()
    choose_attention(GRID, bfloat16=bfloat16)
    knobs = MaeKnobs(preset="S/16", drop_path=0.0, precision=precision)
    model = build_autoencoder(knobs, CHANNELS).train()
    wrap_blocks(model, compiled=compiled, checkpointed=False)
    with FlopCounterMode(display=False) as counter, torch.device("meta"), torch.no_grad():
        small = MaskedAutoencoder()
        small(images[:1].to("meta"), noise[:1].to("meta"))
    flops = 3.0 * counter.get_total_flops()
    calls = []
    for kind, module in ((Lion, model), (timm.optim.Lion, reference)):
        learned = [p for p in module.parameters() if p.requires_grad]
        optimizer = kind(learned, **SETTINGS)

        def loss_of(*batch, module=module):
            if module is reference:
                return module(*batch)
            return autoencoder_loss(module, batch)["loss"]

        def call(loss_of=loss_of, optimizer=optimizer, learned=learned):
            update(loss_of, optimizer, learned, bfloat16, images, noise)

        calls.append(call)
    rounds = pairs(*calls, repeats)
    gain = statistics.median(peer / ours for peer, ours in rounds)
    speed = batch / statistics.median(ours for _, ours in rounds)
    rate = gemm_rate(torch.bfloat16 if bfloat16 else torch.float32, batch)
    bound = BOUNDS[precision]
    print(
        f"update, S/16, {precision}, {batch} crops: {gain:.2f} times as fast as the reference, "
        f"bound {bound}; {speed:.2f} crops/s, {flops * speed / 1e9:.0f} GFLOP/s, "
        f"{flops * speed / rate:.0%} of {rate / 1e9:.0f} of its products alone",
        flush=True,
    )
    return gain >= bound


def optimizer_alone(name, shapes, repeats):
    """Compare Lion with timm's; return whether the bound is kept."""
    steps = []
    for kind in (Lion, timm.optim.Lion):
        torch.manual_seed(0)
        learned = [nn.Parameter(torch.randn(shape)) for shape in shapes]
        for parameter in learned:
            parameter.grad = torch.randn_like(parameter)
        steps.append(kind(learned, **SETTINGS).step)
    rounds = pairs(*steps, repeats)
    gain = statistics.median(peer / ours for peer, ours in rounds)
    numbers = sum(shape.numel() for shape in shapes)
    nanoseconds = statistics.median(ours for _, ours in rounds) / numbers * 1e9
    print(
        f"Lion, {name}, {numbers / 1e6:.0f} M numbers, {torch.get_num_threads()} threads: "
        f"{gain:.2f} times as fast as timm's, bound {LION_BOUND}; "
        f"{nanoseconds:.2f} ns a number",
        flush=True,
    )
    return gain >= LION_BOUND


def learned_shapes(**sizes):
    """Shapes of what an autoencoder learns."""
    with torch.device("meta"):
        model = MaskedAutoencoder(**sizes)
    return [p.shape for p in model.parameters() if p.requires_grad]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--only", choices=("bfloat16", "float32", "lion"), action="append")
    parser.add_argument("--compile", action="store_true", help="the knob of that name")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    parts = chosen.only or ["bfloat16", "float32", "lion"]
    kept = [
        whole_update(p, chosen.batch, chosen.repeats, chosen.compile)
        for p in parts
        if p in BOUNDS
    ]
    if "lion" in parts:
        large = {"patch": 8, "heads": 16, "decoder_depth": 1}
        cases = {
            "MAE-S/16": learned_shapes(),
            "four blocks of L/8": learned_shapes(dim=1024, depth=4, **large),
            "two blocks of G/8": learned_shapes(dim=1664, depth=2, mlp_ratio=64 / 13, **large),
        }
        kept += [optimizer_alone(*case, chosen.repeats) for case in cases.items()]
    sys.exit(0 if all(kept) else 1)


if __name__ == "__main__":
    main()
