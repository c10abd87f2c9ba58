"""Two independent measures of how sharp an image is: one of its spectrum, one of its edges.

Shape suffixes: Z images (sites times channels), H rows, W columns, U and V frequencies
down and across, R rings of equal frequency.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.fft import rfft2
from scipy.sparse import csr_array

# Cycles a pixel. Below the band lies the illumination; beyond the lens' reach there is
# nothing left but the noise of the camera.
BAND = (0.03, 0.25)
NOISE = 0.4
# Power under this part of the noise cannot be told from none.
_LEAST = 0.1
_TINY = 1e-6


def spectrum_slope(x_ZHW: NDArray[np.float32]) -> NDArray[np.float64]:
    """Slope of log power against log frequency, of the radially averaged spectrum.

    Parameters
    ----------
    x_ZHW : float32 array of shape (n_images, height, width)
        Images of one channel each, at least 32 pixels wide and high.

    Returns
    -------
    float array of shape (n_images,)
        About -3 for sharp images; blur makes it steeper. NaN for a constant image.

    Notes
    -----
    A Hann window keeps the image's border from adding its own frequencies. The power of
    the noise, taken from the highest frequencies, is subtracted first: it would flatten
    the slope of dim and blurred images alike.
    """
    height, width = x_ZHW.shape[1:]
    window_HW = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    centred_ZHW = x_ZHW - x_ZHW.mean(axis=(1, 2), keepdims=True)
    spectrum_ZUV = rfft2(centred_ZHW * window_HW.astype(np.float32))
    power_ZP = (spectrum_ZUV.real**2 + spectrum_ZUV.imag**2).reshape(len(x_ZHW), -1)
    rings_RP, frequency_R = _rings(height, width)
    power_ZR = np.asarray((rings_RP @ power_ZP.T).T, dtype=np.float64)
    noise_Z1 = power_ZR[:, -1:]
    signal_ZR = np.maximum(power_ZR[:, :-1] - noise_Z1, _LEAST * noise_Z1)
    steps_R = np.log(frequency_R[:-1]) - np.log(frequency_R[:-1]).mean()
    slope_Z = np.log(signal_ZR + _TINY) @ steps_R / (steps_R @ steps_R)
    return np.where(power_ZR.sum(axis=1) > _TINY, slope_Z, np.nan)


def edge_sharpness(smooth_ZHW: NDArray[np.float32]) -> NDArray[np.float64]:
    """Logarithm of the mean squared gradient over the variance.

    Parameters
    ----------
    smooth_ZHW : float32 array of shape (n_images, height, width)
        Images smoothed by one pixel, so that noise makes no gradients.

    Returns
    -------
    float array of shape (n_images,)
        Minus twice the logarithm of the width of a typical edge in pixels, and so the same
        for a bright and a dim image. NaN for a constant one.
    """
    down_ZHW, across_ZHW = np.diff(smooth_ZHW, axis=1), np.diff(smooth_ZHW, axis=2)
    energy_Z = (down_ZHW**2).mean(axis=(1, 2)) + (across_ZHW**2).mean(axis=(1, 2))
    variance_Z = smooth_ZHW.var(axis=(1, 2))
    known_Z = variance_Z > _TINY
    ratio_Z = np.where(known_Z, energy_Z, np.nan) / np.where(known_Z, variance_Z, 1.0)
    return np.asarray(np.log(ratio_Z.astype(np.float64) + _TINY))


@lru_cache(maxsize=4)
def _rings(height: int, width: int) -> tuple[csr_array, NDArray[np.float64]]:
    """Matrix that averages power over rings of the band, the last over the noise."""
    frequency_UV = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency_P = frequency_UV.ravel()
    n_rings = max(min(height, width) // 4, 4)
    ring_P = np.digitize(frequency_P, np.geomspace(*BAND, n_rings + 1)) - 1
    ring_P[ring_P == n_rings] = np.where(frequency_P[ring_P == n_rings] < NOISE, -1, n_rings)
    inside_I = np.flatnonzero(ring_P >= 0)
    # Rings between two frequencies of a small image are empty, and left out.
    used_R, row_I, count_R = np.unique(
        ring_P[inside_I], return_inverse=True, return_counts=True
    )
    matrix_RP = csr_array(
        ((1.0 / count_R[row_I]).astype(np.float32), (row_I, inside_I)),
        shape=(len(used_R), frequency_P.size),
    )
    return matrix_RP, np.asarray(matrix_RP @ frequency_P, dtype=np.float64)
