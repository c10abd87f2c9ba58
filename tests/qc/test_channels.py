import numpy as np
import pytest

from phenopipe.qc.channels import asymmetry, channel_metrics, noise_level, shading


def test_shares_of_pixels_are_counted():
    image = np.full((1, 64, 64), 10, np.uint8)
    image[0, :16] = 255
    metrics = channel_metrics(image, saturated=255)
    assert metrics["saturation"][0] == 0.25
    # The edge of the bright part is smoothed over a pixel or two.
    assert metrics["foreground"][0] == pytest.approx(0.25, abs=0.04)
    assert metrics["background"][0] == pytest.approx(10)


def test_a_field_of_noise_has_no_foreground():
    noise = np.random.default_rng(0).normal(20, 3, (3, 96, 96))
    metrics = channel_metrics(np.rint(noise).astype(np.uint8), saturated=255)
    assert (metrics["foreground"] < 0.002).all()


def test_a_constant_channel_has_no_contrast():
    metrics = channel_metrics(np.zeros((1, 64, 64), np.uint16), saturated=65535)
    assert metrics["contrast"][0] == 0 and np.isnan(metrics["focus_slope"][0])


def test_noise_is_measured_between_cells():
    rng = np.random.default_rng(1)
    image = rng.normal(50, 4, (1, 96, 96))
    image[0, 20:40, 20:40] += 100
    assert noise_level(image.astype(np.float32))[0] == pytest.approx(4, rel=0.08)


def test_asymmetry_is_the_change_from_border_to_border():
    tilted = 100 * (1 + 0.2 * np.linspace(-1, 1, 96))[None, :, None] * np.ones((1, 1, 96))
    assert asymmetry(tilted.astype(np.float32))[0] == pytest.approx(0.4, rel=0.02)
    assert asymmetry(np.full((1, 96, 96), 5, np.float32))[0] == pytest.approx(0, abs=1e-9)


def test_shading_is_the_signed_change_of_the_cells_brightness():
    cells = np.random.default_rng(2).random((1, 96, 96)) < 0.3
    light = 100 * (1 + 0.2 * np.linspace(-1, 1, 96))[None, None, :] * np.ones((1, 96, 1))
    down, across = shading(light, cells)
    # The prior of a field without slope weighs 2 % against cells on 30 % of it.
    assert across[0] == pytest.approx(0.4 * 0.3 / 0.32, rel=0.03)
    assert down[0] == pytest.approx(0, abs=0.01)
    assert shading(light[:, :, ::-1], cells)[1][0] == pytest.approx(-across[0], rel=0.03)


def test_cells_on_one_side_of_an_even_field_make_no_shade():
    cells = np.zeros((1, 96, 96), bool)
    cells[0, :40, 10:90] = True
    above = np.where(cells, 50.0, 0.0)
    assert asymmetry(above.astype(np.float32))[0] > 1
    np.testing.assert_allclose(shading(above, cells), 0, atol=0.02)
    np.testing.assert_array_equal(shading(above, np.zeros_like(cells)), 0)
