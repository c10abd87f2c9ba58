"""Measures of one channel of one site that need no other site.

Shape suffixes: Z images of one channel each, H rows, W columns, G tiles down or across.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from phenopipe.qc.focus import edge_sharpness, spectrum_slope

# Noise of a byte's rounding, in steps; the least noise that an image can have.
_ROUNDING = 0.5
# Standard deviations above the background where cells begin.
_CLEAR = 5.0
_TILES = 4


def channel_metrics(
    x_ZHW: NDArray[np.unsignedinteger], saturated: int
) -> dict[str, NDArray[np.float64]]:
    """Measure images of one channel.

    Parameters
    ----------
    x_ZHW : uint8 or uint16 array of shape (n_images, height, width)
        Pixels of one channel.
    saturated : int
        Value from which a pixel counts as saturated.

    Returns
    -------
    dict of float arrays of shape (n_images,)
        ``background`` and ``bright``, 5th and 99th percentile of the lightly smoothed
        image; ``mean``; ``contrast``, its standard deviation; ``saturation`` and
        ``foreground``, shares of pixels; ``asymmetry``, the change of brightness from
        border to border, relative to the mean; ``focus_slope`` and ``focus_edges``.
    """
    y_ZHW = x_ZHW.astype(np.float32)
    smooth_ZHW = gaussian_filter(y_ZHW, sigma=(0, 1, 1))
    flat_ZP = smooth_ZHW.reshape(len(x_ZHW), -1)
    background_Z, bright_Z = np.percentile(flat_ZP, [5, 99], axis=1, method="lower")
    clear_Z = background_Z + _CLEAR * noise_level(y_ZHW)
    metrics = {
        "background": background_Z,
        "bright": bright_Z,
        "mean": flat_ZP.mean(axis=1),
        "contrast": flat_ZP.std(axis=1),
        "saturation": (x_ZHW >= saturated).mean(axis=(1, 2)),
        "foreground": (flat_ZP > clear_Z[:, None]).mean(axis=1),
        "asymmetry": asymmetry(y_ZHW),
        "focus_slope": spectrum_slope(y_ZHW),
        "focus_edges": edge_sharpness(smooth_ZHW),
    }
    return {name: np.asarray(values, dtype=np.float64) for name, values in metrics.items()}


def noise_level(x_ZHW: NDArray[np.float32]) -> NDArray[np.float64]:
    """Standard deviation of the pixel noise, from differences of neighbours.

    Notes
    -----
    The median does not see the few differences that are edges of cells; a constant image
    is given the noise of rounding.
    """
    # Every other row tells as much in half the time.
    steps_ZHW = np.abs(np.diff(x_ZHW[:, ::2], axis=2))
    median_Z = np.median(steps_ZHW.reshape(len(x_ZHW), -1), axis=1)
    return np.asarray(np.maximum(1.4826 * median_Z / np.sqrt(2.0), _ROUNDING))


def asymmetry(x_ZHW: NDArray[np.float32]) -> NDArray[np.float64]:
    """Change of brightness from border to border, relative to the mean brightness.

    Notes
    -----
    A plane is fitted to the medians of 4 x 4 tiles; the longer of its two slopes counts.
    """
    height, width = x_ZHW.shape[1] // _TILES, x_ZHW.shape[2] // _TILES
    cut_ZHW = x_ZHW[:, : height * _TILES, : width * _TILES]
    tiles_ZGhGw = cut_ZHW.reshape(len(x_ZHW), _TILES, height, _TILES, width)
    # (image, tile down, row, tile across, column) -> (image, tile down, tile across, pixel)
    pixels_ZGGP = tiles_ZGhGw.transpose(0, 1, 3, 2, 4).reshape(len(x_ZHW), _TILES, _TILES, -1)
    tile_ZGG = np.median(pixels_ZGGP, axis=3)
    # Centres of the tiles, where the borders of the field are -1 and 1.
    place_G = (2.0 * np.arange(_TILES) + 1.0) / _TILES - 1.0
    unit = (place_G @ place_G) * _TILES
    down_Z = np.einsum("zyx,y->z", tile_ZGG, place_G) / unit
    across_Z = np.einsum("zyx,x->z", tile_ZGG, place_G) / unit
    mean_Z = np.maximum(x_ZHW.mean(axis=(1, 2)), _ROUNDING)
    return np.asarray(2.0 * np.maximum(np.abs(down_Z), np.abs(across_Z)) / mean_Z)
