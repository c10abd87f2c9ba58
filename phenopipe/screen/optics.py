"""Turns the light of a field into an image, as one microscope would on one day."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

# Legend of the shape suffixes: C channels, H rows, W columns.

Array = NDArray[np.float32]

# Part of the brightest value of a byte that a fully lit pixel of a gain of one reaches.
_EXPOSURE = 0.22


class Microscope(NamedTuple):
    """How the images of one experiment come about.

    Attributes
    ----------
    gain_C, background_C : float arrays of shape (n_channels,)
        Factor on the light, and light that is there without cells.
    blur_C : float array of shape (n_channels,)
        Standard deviation of the point spread, pixels.
    tilt_2 : float array of shape (2,)
        Change of the illumination from border to border, down and across.
    photons : float
        Photons of a fully lit pixel: the fewer, the noisier.
    read_noise : float
        Noise of the camera in the dark, as the light whose photons would make as much.
    """

    gain_C: NDArray[np.float64]
    background_C: NDArray[np.float64]
    blur_C: NDArray[np.float64]
    tilt_2: NDArray[np.float64]
    photons: float
    read_noise: float = 0.0


def draw_microscope(
    rng: np.random.Generator,
    n_channels: int,
    strength: float,
    photons: float,
    read_noise: float = 0.0,
) -> Microscope:
    """Return a microscope whose settings stray by the strength of the batch effect."""
    return Microscope(
        gain_C=np.exp(strength * rng.normal(0.0, 0.2, n_channels)),
        background_C=0.06 * np.exp(strength * rng.normal(0.0, 0.5, n_channels)),
        blur_C=0.6 * np.exp(strength * rng.normal(0.0, 0.25, n_channels)),
        tilt_2=strength * rng.normal(0.0, 0.25, 2),
        photons=float(photons * np.exp(strength * rng.normal(0.0, 0.2))),
        read_noise=read_noise,
    )


def vary(microscope: Microscope, strength: float, rng: np.random.Generator) -> Microscope:
    """Return a microscope as it stood at one site, a little off its usual settings."""
    n_channels = len(microscope.gain_C)
    return Microscope(
        gain_C=microscope.gain_C * np.exp(strength * rng.normal(0.0, 0.8, n_channels)),
        background_C=microscope.background_C * np.exp(strength * rng.normal(0.0, 1.0)),
        blur_C=microscope.blur_C * np.exp(strength * rng.normal(0.0, 0.2)),
        tilt_2=microscope.tilt_2 + strength * rng.normal(0.0, 0.3, 2),
        photons=float(microscope.photons * np.exp(strength * rng.normal(0.0, 0.5))),
        read_noise=microscope.read_noise,
    )


def expose(light_CHW: Array, microscope: Microscope, rng: np.random.Generator) -> Array:
    """Return the image of a field in units of a byte, not yet cut to its range."""
    sharp = zip(light_CHW, microscope.blur_C, strict=True)
    field_CHW = np.stack(
        [gaussian_filter(one_HW, sigma, truncate=3.0) for one_HW, sigma in sharp]
    )
    across = np.linspace(-1.0, 1.0, light_CHW.shape[-1], dtype=np.float32)
    down = np.linspace(-1.0, 1.0, light_CHW.shape[-2], dtype=np.float32)[:, None]
    shade_HW = 1.0 + microscope.tilt_2[0] * down + microscope.tilt_2[1] * across
    field_CHW = (field_CHW + column(microscope.background_C)) * shade_HW
    field_CHW = np.clip(field_CHW, 0.0, None, dtype=np.float32)
    # A Poisson count is close to normal at these numbers, and the normal draw is faster.
    shot_CHW = rng.standard_normal(field_CHW.shape, dtype=np.float32)
    field_CHW += np.sqrt((field_CHW + microscope.read_noise) / microscope.photons) * shot_CHW
    return np.asarray(column(255.0 * _EXPOSURE * microscope.gain_C) * field_CHW)


def digitize(image_CHW: Array) -> NDArray[np.uint8]:
    """Return an image as bytes, cut to 0 to 255."""
    return np.clip(np.rint(image_CHW), 0, 255).astype(np.uint8)


def column(values_C: NDArray[np.floating]) -> Array:
    """Return one number a channel in the shape (C, 1, 1), which multiplies images."""
    return np.asarray(values_C[:, None, None], dtype=np.float32)
