import math

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from phenopipe.encoders.mae import (
    MaskedAutoencoder,
    fourier_loss,
    patchify,
    random_masking,
    sincos_positions,
    unpatchify,
)
from phenopipe.encoders.standardize import self_standardize
from phenopipe.encoders.stochastic_depth import blocks_saved, drop_rates, drop_samples

TINY = {
    "crop": 16,
    "patch": 4,
    "channels": 3,
    "dim": 16,
    "depth": 3,
    "heads": 2,
    "decoder_dim": 8,
    "decoder_depth": 1,
    "decoder_heads": 2,
}


def million_parameters(module, *, trainable=False):
    parameters = [p for p in module.parameters() if p.requires_grad or not trainable]
    return sum(p.numel() for p in parameters) / 1e6


def slow_magnitudes(map_2d):
    """|discrete Fourier transform| by its definition, in double precision."""
    height, width = map_2d.shape
    y, x = np.arange(height), np.arange(width)
    rows = np.exp(-2j * np.pi * np.outer(y, y) / height)
    columns = np.exp(-2j * np.pi * np.outer(x, x) / width)
    return np.abs(rows @ map_2d @ columns)


def slow_released(ours, theirs, mask):
    """The released form: maps are runs of L values as they lie in memory."""
    n, length, values = ours.shape
    side = math.isqrt(length)
    total = 0.0
    for crop in range(n):
        difference = [
            np.abs(
                slow_magnitudes(a.reshape(side, side)) - slow_magnitudes(b.reshape(side, side))
            )
            for a, b in zip(
                ours[crop].reshape(values, length),
                theirs[crop].reshape(values, length),
                strict=True,
            )
        ]
        by_token = np.stack(difference).reshape(length, values).mean(axis=1)
        total += (by_token * mask[crop]).sum()
    return total / mask.sum()


def slow_patch(ours, theirs, mask, channels):
    """Each hidden patch and channel by itself."""
    patch = math.isqrt(ours.shape[2] // channels)
    found = []
    for crop, token in zip(*np.nonzero(mask), strict=True):
        a, b = (x[crop, token].reshape(patch, patch, channels) for x in (ours, theirs))
        found += [
            np.abs(slow_magnitudes(a[..., c]) - slow_magnitudes(b[..., c])).mean()
            for c in range(channels)
        ]
    return np.mean(found)


def slow_image(ours, theirs, mask, channels):
    """Whole channels, visible patches showing the target."""
    shown = np.where(mask[..., None] > 0, ours, theirs)
    images = [unpatchify(torch.from_numpy(x), channels).numpy() for x in (shown, theirs)]
    found = [
        np.abs(slow_magnitudes(a) - slow_magnitudes(b)).mean()
        for crop_a, crop_b in zip(*images, strict=True)
        for a, b in zip(crop_a, crop_b, strict=True)
    ]
    return np.mean(found)


@pytest.mark.parametrize(("side", "patch", "channels"), [(4, 4, 2), (8, 4, 6), (3, 5, 1)])
@pytest.mark.parametrize("form", ["as_released", "patch", "image"])
def test_fourier_loss_equals_a_transform_by_its_definition(side, patch, channels, form):
    rng = np.random.default_rng(0)
    shape = (2, side * side, patch * patch * channels)
    ours, theirs = rng.standard_normal((2, *shape))
    mask = (rng.random(shape[:2]) < 0.75).astype(float)
    expected = {
        "as_released": lambda: slow_released(ours, theirs, mask),
        "patch": lambda: slow_patch(ours, theirs, mask, channels),
        "image": lambda: slow_image(ours, theirs, mask, channels),
    }[form]()
    found = fourier_loss(
        torch.from_numpy(ours),
        torch.from_numpy(theirs),
        form,
        mask_NL=torch.from_numpy(mask),
        channels=channels,
    )
    assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("form", "expected"), [("as_released", 16.6), ("patch", 4.2), ("image", 132.8)]
)
def test_scale_of_fourier_loss_on_white_noise_at_patch_8(form, expected):
    torch.manual_seed(0)
    ours, theirs = torch.randn(2, 1, 1024, 8 * 8 * 6)
    assert fourier_loss(ours, theirs, form).item() == pytest.approx(expected, rel=0.02)


def test_only_the_released_form_depends_on_the_order_of_channels():
    torch.manual_seed(0)
    ours, theirs = torch.randn(2, 1, 16, 4 * 4 * 3)
    channels = (x.reshape(1, 16, 16, 3)[..., [1, 0, 2]] for x in (ours, theirs))
    reordered = [x.reshape(1, 16, 48) for x in channels]
    for form, depends in [("as_released", True), ("patch", False), ("image", False)]:
        first = fourier_loss(ours, theirs, form, channels=3)
        second = fourier_loss(*reordered, form, channels=3)
        assert torch.isclose(first, second, rtol=1e-5) != depends, form


def test_fourier_loss_has_a_finite_gradient_at_equality():
    tokens = torch.zeros(1, 16, 16, requires_grad=True)
    for form in ("as_released", "patch", "image"):
        fourier_loss(tokens, torch.zeros(1, 16, 16), form, channels=1).backward()
        assert torch.isfinite(tokens.grad).all()


@pytest.mark.parametrize(("length", "kept"), [(256, 64), (1024, 256), (1536, 384)])
def test_three_quarters_of_the_patches_are_hidden(length, kept):
    masking = random_masking(torch.rand(3, length), 0.75)
    assert masking.kept.shape == (3, kept)
    assert (masking.mask.sum(dim=1) == length - kept).all()
    assert (masking.mask.gather(1, masking.kept) == 0).all()


def test_lowest_noise_stays_visible():
    noise = torch.tensor([[0.9, 0.1, 0.5, 0.3]])
    assert random_masking(noise, 0.5).kept.tolist() == [[1, 3]]


def test_unpatchify_undoes_patchify_and_the_channel_runs_fastest():
    images = torch.randn(2, 3, 8, 8)
    patches = patchify(images, 4)
    assert torch.equal(unpatchify(patches, 3), images)
    assert torch.equal(patches[0, 0, :3], images[0, :, 0, 0])
    assert torch.equal(patches[0, 1, :3], images[0, :, 0, 4])


def test_positions_start_with_zeros_and_tell_rows_from_columns():
    code = sincos_positions(8, 2, 3)
    assert code.shape == (7, 8) and not code[0].any()
    row, column = 1, 2
    angles = np.array([1.0, 10_000.0**-0.5])
    expected = np.concatenate(
        [
            np.sin(row * angles),
            np.cos(row * angles),
            np.sin(column * angles),
            np.cos(column * angles),
        ]
    )
    assert np.allclose(code[1 + row * 3 + column], expected, atol=1e-6)


def test_positions_refuse_a_width_that_is_no_multiple_of_four():
    with pytest.raises(ValueError, match="multiple of 4"):
        sincos_positions(6, 2, 2)


def test_parameter_counts_of_the_papers_models():
    with torch.device("meta"):
        large = MaskedAutoencoder(patch=8, dim=1024, depth=24, heads=16)
        giant = MaskedAutoencoder(patch=8, dim=1664, depth=48, heads=16, mlp_ratio=64 / 13)
    assert million_parameters(large.encoder) == pytest.approx(303.7, abs=0.05)
    assert million_parameters(giant.encoder) == pytest.approx(1843.4, abs=0.05)
    decoder = million_parameters(large.decoder.blocks) + million_parameters(large.decoder.norm)
    assert decoder == pytest.approx(25.2, abs=0.05)


def test_loss_is_the_weighted_sum_of_its_parts_on_hidden_patches():
    torch.manual_seed(0)
    model = MaskedAutoencoder(**TINY, fourier_weight=0.3).eval()
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    out = model(images, torch.rand(2, 16))
    target = patchify(self_standardize(images), 4)
    error = (out.prediction - target).square().mean(dim=-1)
    assert out.l2.item() == pytest.approx(error[out.mask > 0].mean().item(), rel=1e-5)
    assert out.loss.item() == pytest.approx(
        0.7 * out.l2.item() + 0.3 * out.fourier.item(), rel=1e-5
    )


def test_hidden_pixels_change_no_prediction():
    torch.manual_seed(0)
    model = MaskedAutoencoder(**TINY).eval()
    images, noise = torch.rand(1, 3, 16, 16), torch.rand(1, 16)
    standardized = self_standardize(images)
    masking = random_masking(noise, 0.75)
    hidden = unpatchify(masking.mask[..., None].expand(1, 16, 48), 3) > 0
    changed = torch.where(hidden, torch.randn_like(standardized), standardized)
    first = model.decoder(model.encode(standardized, masking.kept), masking.kept, 16)
    second = model.decoder(model.encode(changed, masking.kept), masking.kept, 16)
    assert torch.equal(first, second)


def test_every_learning_tensor_gets_a_gradient_and_positions_do_not():
    torch.manual_seed(0)
    model = MaskedAutoencoder(**TINY)
    model(torch.rand(2, 3, 16, 16), torch.rand(2, 16)).loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.requires_grad != name.endswith("pos_embed")


def test_dropped_samples_skip_the_block_and_others_do_not():
    block = torch.nn.Linear(4, 4)
    x = torch.randn(3, 2, 4)
    out = drop_samples(block, x, torch.tensor([True, False, True]))
    assert torch.equal(out[1], x[1])
    assert torch.allclose(out[[0, 2]], block(x[[0, 2]]))
    # None passes: nothing changes, but the block's weights still have a gradient, of zero.
    none = drop_samples(block, x, torch.tensor([False] * 3))
    assert torch.equal(none, x)
    none.sum().backward()
    assert not block.weight.grad.any()


def test_stochastic_depth_acts_in_training_only_and_asks_for_its_noise():
    torch.manual_seed(0)
    model = MaskedAutoencoder(**TINY, drop_path=0.5)
    images, noise = torch.rand(2, 3, 16, 16), torch.rand(2, 16)
    with pytest.raises(ValueError, match="drop_NB"):
        model(images, noise)
    none_pass = model(images, noise, torch.zeros(2, 3)).loss
    all_pass = model(images, noise, torch.ones(2, 3)).loss
    assert none_pass != all_pass
    model.eval()
    assert model(images, noise).loss == model(images, noise, torch.zeros(2, 3)).loss


def test_leaving_samples_out_and_masking_them_give_the_same_loss_and_gradients():
    found = []
    for form in ("left_out", "masked"):
        torch.manual_seed(0)
        model = MaskedAutoencoder(
            **{**TINY, "layer_scale": 1.0}, drop_path=0.5, drop_path_form=form
        )
        images, noise, drop = torch.rand(6, 3, 16, 16), torch.rand(6, 16), torch.rand(6, 3)
        loss = model(images, noise, drop).loss
        loss.backward()
        found.append([loss, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1]) > 20
    for left_out, masked in zip(*found, strict=True):
        assert torch.allclose(left_out, masked, rtol=1e-4, atol=1e-6)


def test_who_skips_a_block_is_decided_crop_by_crop_whatever_its_batch():
    torch.manual_seed(0)
    model = MaskedAutoencoder(**TINY, drop_path=0.6, drop_path_rule="uniform")
    images, drop = torch.rand(6, 3, 16, 16), torch.rand(6, 3)
    kept = random_masking(torch.rand(6, 16), 0.75).kept
    whole = model.encode(images, kept, drop)
    parts = [model.encode(images[n::2], kept[n::2], drop[n::2]) for n in (0, 1)]
    assert torch.allclose(whole[0::2], parts[0], atol=1e-6)
    assert torch.allclose(whole[1::2], parts[1], atol=1e-6)


def test_operations_fall_with_the_rate_of_stochastic_depth():
    def flops(form, drop):
        with torch.device("meta"):
            model = MaskedAutoencoder(**TINY, drop_path=0.6, drop_path_rule="uniform")
        model.to_empty(device="cpu")
        model.drop_path_form = form
        kept = torch.arange(4).repeat(8, 1)
        with FlopCounterMode(display=False) as counter:
            model.encode(torch.rand(8, 3, 16, 16), kept, drop)
        return counter.get_total_flops()

    # Of eight crops, two, four or six pass through every block.
    some = [(torch.arange(8) < n).float()[:, None].expand(8, 3) for n in (8, 6, 4, 2)]
    whole, *fewer = (flops("left_out", drop) for drop in some)
    assert flops("masked", some[3]) == whole
    saved = [whole - one for one in fewer]
    assert saved == [saved[0], 2 * saved[0], 3 * saved[0]]
    assert saved[0] > 0.19 * whole


def test_low_rates_leave_nothing_out_for_it_would_not_pay():
    assert blocks_saved(drop_rates(0.12, 5), "left_out") == pytest.approx(0.12)
    assert blocks_saved(drop_rates(0.12, 5), "masked") == 0.0
    assert blocks_saved(drop_rates(0.09, 4), "left_out") == 0.0


def test_loss_stays_in_single_precision_under_bfloat16():
    torch.manual_seed(0)
    model = MaskedAutoencoder(**TINY, fourier="image")
    images, noise = torch.rand(2, 3, 16, 16), torch.rand(2, 16)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(images, noise)
    assert {one.dtype for one in (out.loss, out.l2, out.fourier)} == {torch.float32}
    # Recomputed outside of autocast from the same painted patches: the same to the last bit.
    target = patchify(self_standardize(images), 4)
    error = (out.prediction - target).square().mean(dim=-1)
    assert out.l2 == (error * out.mask).sum() / out.mask.sum()
    assert out.fourier == fourier_loss(
        out.prediction, target, "image", mask_NL=out.mask, channels=3
    )


@pytest.mark.parametrize(("dtype", "scale"), [(np.uint8, 255.0), (np.uint16, 65535.0)])
def test_self_standardization_by_its_formula(dtype, scale):
    rng = np.random.default_rng(0)
    images = (rng.random((4, 3, 128, 128)) ** 3 * scale).astype(dtype)
    images[0, 0] = 7
    # Bright and flat, dim, and one bright pixel: where single precision could cancel.
    images[1] = images[1] // 64 + int(0.9 * scale)
    images[2] = images[2] // 200
    images[3, 0] = 0
    images[3, 0, 5, 5] = scale
    x = images / scale
    mean, variance = x.mean((2, 3), keepdims=True), x.var((2, 3), keepdims=True)
    expected = (x - mean) / np.sqrt(variance + 1e-5)
    found = self_standardize(torch.from_numpy(images)).numpy()
    assert (np.abs(found - expected) <= 1e-6 * (1 + np.abs(expected))).all()
    assert np.abs(found[0, 0]).max() < 1e-6


def test_self_standardization_leaves_its_input_as_it_is():
    images = torch.rand(2, 3, 8, 8)
    before = images.clone()
    found = self_standardize(images)
    assert torch.equal(images, before)
    assert torch.allclose(found, torch.nn.functional.instance_norm(before), atol=1e-5)
