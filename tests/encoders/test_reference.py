"""The whole autoencoder against one written from the papers, crop by crop, patch by patch.

He et al. 2022 (masking, decoder, loss), Dehghani et al. 2023 (parallel blocks, normed
queries and keys), and the public code's Fourier term on the patches as they lie in memory.
"""

import copy
import math

import pytest
import torch

from phenopipe.encoders.channel_agnostic import ChannelAgnosticAutoencoder
from phenopipe.encoders.mae import MaskedAutoencoder

PATCH, SIDE, HEADS = 4, 4, 2
SIZES = {
    "crop": PATCH * SIDE,
    "patch": PATCH,
    "channels": 3,
    "dim": 16,
    "depth": 3,
    "heads": HEADS,
    "decoder_dim": 16,
    "decoder_depth": 2,
    "decoder_heads": HEADS,
    "layer_scale": 0.5,
    "fourier_weight": 0.3,
}


def norm(x, layer):
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    return scaled * layer.weight + layer.bias


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def attend(q, k, v, change=lambda one, part: one):
    """Attention of a single crop, one head after the other."""
    heads = []
    for at in range(HEADS):
        one = slice(at * q.shape[1] // HEADS, (at + 1) * q.shape[1] // HEADS)
        a, b = change(q[:, one], "q"), change(k[:, one], "k")
        weight = torch.exp(a @ b.T / math.sqrt(a.shape[1]))
        heads.append(weight / weight.sum(1, keepdim=True) @ v[:, one])
    return torch.cat(heads, 1)


def parallel_block(x, block):
    dim = x.shape[1]
    y = norm(x, block.in_norm) @ block.in_proj.weight.T
    hidden, q, k, v = y.split([4 * dim, dim, dim, dim], 1)
    norms = {"q": block.q_norm, "k": block.k_norm}
    attended = attend(q, k, v, lambda one, part: norm(one, norms[part]))
    attended = attended @ block.attn_out_proj.weight.T + block.attn_out_proj.bias
    hidden = gelu(hidden + block.mlp_bias) @ block.mlp_out_proj.weight.T
    return x + block.ls.gamma * (attended + hidden + block.mlp_out_proj.bias)


def plain_block(x, block):
    q, k, v = block.attn.qkv(norm(x, block.norm1)).chunk(3, 1)
    x = x + block.attn.proj(attend(q, k, v))
    return x + block.mlp.fc2(gelu(block.mlp.fc1(norm(x, block.norm2))))


def patches_of(image):
    """Cut one standardized crop; pixels row by row, the channel running fastest."""
    found = []
    for row in range(SIDE):
        for column in range(SIDE):
            square = image[
                :, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH
            ]
            found.append(square)
    return found


def standardized(image):
    x = image.double() / 255
    mean, variance = x.mean((1, 2), keepdim=True), x.var((1, 2), keepdim=True, correction=0)
    return (x - mean) / (variance + 1e-5).sqrt()


def embedded(model, square):
    weight, bias = model.encoder.patch_embed.proj.weight, model.encoder.patch_embed.proj.bias
    return (weight * square).sum((1, 2, 3)) + bias


def encoded(model, tokens, visible):
    places = model.encoder.pos_embed[0]
    rows = [model.encoder.cls_token[0, 0] + places[0]]
    rows += [tokens[at] + places[1 + at] for at in visible]
    x = torch.stack(rows)
    for block in model.encoder.blocks:
        x = parallel_block(x, block)
    return norm(x, model.encoder.norm)


def painted(model, x, visible, length):
    """All patches, by the decoder of the plain model."""
    decoder = model.decoder
    x = x @ decoder.proj.weight.T + decoder.proj.bias
    rows = [decoder.mask_token[0, 0]] * length
    for number, at in enumerate(visible):
        rows[at] = x[1 + number]
    x = torch.stack([x[0], *rows]) + decoder.pos_embed[0]
    for block in decoder.blocks:
        x = plain_block(x, block)
    return norm(x[1:], decoder.norm) @ decoder.head.weight.T + decoder.head.bias


def painted_by_channel(model, x, visible, length):
    """All patches, by the decoder that has blocks for each channel."""
    decoder, grid = model.decoder, SIDE * SIDE
    x = x @ decoder.proj.weight.T + decoder.proj.bias
    rows = [decoder.mask_token[0, 0]] * length
    for number, at in enumerate(visible):
        rows[at] = x[1 + number]
    x = torch.stack(rows) + decoder.pos_embed[0, 1 : 1 + length]
    x = x + torch.stack([decoder.channel_token[0, at // grid, 0] for at in range(length)])
    context = norm(x, decoder.context_norm)
    cross = decoder.cross_attention
    key, value = (context @ cross.key_value.weight.T).chunk(2, 1)
    found = []
    for channel, blocks in enumerate(decoder.blocks):
        own = x[channel * grid : (channel + 1) * grid]
        query = norm(own, decoder.query_norm) @ cross.query.weight.T
        heads = []
        for q, k, v in zip(*(one.chunk(8, 1) for one in (query, key, value)), strict=True):
            weight = torch.exp(q @ k.T / math.sqrt(q.shape[1]))
            heads.append(weight / weight.sum(1, keepdim=True) @ v)
        own = torch.cat(heads, 1) @ cross.proj.weight.T + cross.proj.bias
        hidden = gelu(decoder.mlp.fc1(norm(own, decoder.mlp_norm)))
        own = own + decoder.mlp.fc2(hidden)
        for block in blocks:
            own = plain_block(own, block)
        found.append(own @ decoder.head.weight.T + decoder.head.bias)
    return torch.cat(found)


def loss_of(model, images, noise, *, by_channel):
    """L2 and Fourier term of a batch, in double precision."""
    errors, differences = [], []
    for image, draw in zip(images, noise, strict=True):
        image = standardized(image)
        groups = [image[c : c + 1] for c in range(len(image))] if by_channel else [image]
        squares = [square for group in groups for square in patches_of(group)]
        length = len(squares)
        order = sorted(range(length), key=lambda at: draw[at].item())
        visible = order[: length // 4]
        x = encoded(model, [embedded(model, square) for square in squares], visible)
        paint = painted_by_channel if by_channel else painted
        prediction = paint(model, x, visible, length)
        target = torch.stack([square.permute(1, 2, 0).reshape(-1) for square in squares])
        grid = SIDE * SIDE
        spectra = []
        for first in range(0, length, grid):
            a, b = (
                x[first : first + grid].reshape(-1, SIDE, SIDE) for x in (prediction, target)
            )
            distance = (torch.fft.fft2(a).abs() - torch.fft.fft2(b).abs()).abs()
            spectra.append(distance.reshape(grid, -1).mean(1))
        for at in set(range(length)) - set(visible):
            errors.append((prediction[at] - target[at]).square().mean())
            differences.append(torch.cat(spectra)[at])
    return torch.stack(errors).mean(), torch.stack(differences).mean()


@pytest.mark.parametrize(
    ("kind", "patches"), [(MaskedAutoencoder, 16), (ChannelAgnosticAutoencoder, 48)]
)
def test_loss_and_gradients_are_those_of_a_reference_written_from_the_papers(kind, patches):
    torch.manual_seed(0)
    model = kind(**SIZES)
    for parameter in model.parameters():
        # Norms and biases start as ones and zeros, which would hide what they do.
        if parameter.requires_grad and parameter.ndim == 1:
            parameter.data.add_(0.2 * torch.randn_like(parameter))
    reference = copy.deepcopy(model).double()
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    noise = torch.rand(2, patches)
    out = model(images, noise)
    out.loss.backward()
    by_channel = kind is ChannelAgnosticAutoencoder
    l2, fourier = loss_of(reference, images, noise, by_channel=by_channel)
    (0.7 * l2 + 0.3 * fourier).backward()
    assert out.l2.item() == pytest.approx(l2.item(), rel=1e-5)
    assert out.fourier.item() == pytest.approx(fourier.item(), rel=1e-5)
    wanted = dict(reference.named_parameters())
    compared = 0
    for name, parameter in model.named_parameters():
        if wanted[name].grad is None:
            continue
        found, exact = parameter.grad.double(), wanted[name].grad
        assert (found - exact).norm() <= 1e-5 * exact.norm() + 1e-7, name
        compared += 1
    assert compared == sum(p.requires_grad for p in model.parameters())
