import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from phenopipe.qc.focus import edge_sharpness, spectrum_slope


def power_law(exponent, size=128, seed=0):
    """Random field whose power falls as frequency to the exponent."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(rng.normal(size=(size, size))) * frequency ** (exponent / 2)
    return np.fft.irfft2(spectrum, s=(size, size)).astype(np.float32)


@pytest.mark.parametrize("exponent", [-2.0, -3.0, -4.0])
def test_the_slope_is_that_of_a_known_spectrum(exponent):
    stack = np.stack([power_law(exponent, seed=seed) for seed in range(4)])
    assert spectrum_slope(stack).mean() == pytest.approx(exponent, abs=0.25)


def test_noise_of_the_camera_does_not_flatten_the_slope():
    clean = np.stack([power_law(-4.0, seed=seed) for seed in range(4)])
    noise = np.random.default_rng(9).normal(0, 0.05 * clean.std(), clean.shape)
    noisy = spectrum_slope((clean + noise).astype(np.float32))
    assert noisy.mean() == pytest.approx(spectrum_slope(clean).mean(), abs=0.4)


@pytest.mark.parametrize("measure", [spectrum_slope, edge_sharpness])
def test_blur_is_seen_and_brightness_is_not(measure, made_up):
    rng = np.random.default_rng(0)
    sharp = np.stack([made_up.field(rng)[2] for _ in range(20)]).astype(np.float32)
    blurred = gaussian_filter(sharp, (0, 2, 2))
    blurred += rng.normal(0, 1.2, sharp.shape).astype(np.float32)
    smooth = [gaussian_filter(stack, (0, 1, 1)) for stack in (sharp, blurred, 3 * sharp)]
    stacks = smooth if measure is edge_sharpness else [sharp, blurred, 3 * sharp]
    plain, dull, bright = (measure(stack) for stack in stacks)
    assert dull.max() < plain.min()
    np.testing.assert_allclose(bright, plain, rtol=1e-3)


@pytest.mark.parametrize("measure", [spectrum_slope, edge_sharpness])
def test_a_constant_image_has_no_focus(measure):
    assert np.isnan(measure(np.full((2, 64, 64), 7, np.float32))).all()
