"""Measures of one channel of one site that need no other site.

Shape suffixes: Z images of one channel each, H rows, W columns, G tiles down or across.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from phenopipe.qc.focus import edge_sharpness, spectrum_slope

# Noise of a byte's rounding, in steps; the least noise that an image can have.
_ROUNDING = 0.5
# Standard deviations above the background where cells begin.
_CLEAR = 5.0
_TILES = 4
# Centres of the tiles, where the borders of the field are -1 and 1.
_PLACE_G = (2.0 * np.arange(_TILES) + 1.0) / _TILES - 1.0
# Cells that cover less than this share of the field hardly tell how it is lit.
_SPARSE = 0.02
# Part of the brightness of cells from which a pixel tells how the field is lit.
_LIT = 0.2
_TINY = 1e-6


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
        border to border, relative to the mean; ``shade_down`` and ``shade_across``, that of
        the cells alone; ``focus_slope`` and ``focus_edges``.
    """
    y_ZHW = x_ZHW.astype(np.float32)
    smooth_ZHW = gaussian_filter(y_ZHW, sigma=(0, 1, 1))
    flat_ZP = smooth_ZHW.reshape(len(x_ZHW), -1)
    background_Z, bright_Z = np.percentile(flat_ZP, [5, 99], axis=1, method="lower")
    clear_Z = background_Z + _CLEAR * noise_level(y_ZHW)
    cells_ZHW = smooth_ZHW > clear_Z.astype(np.float32)[:, None, None]
    # Where light is uneven, background on the bright side is above the threshold, too.
    lit_Z = np.maximum(clear_Z, background_Z + _LIT * (bright_Z - background_Z))
    lit_ZHW = smooth_ZHW > lit_Z.astype(np.float32)[:, None, None]
    down_Z, across_Z = shading(smooth_ZHW - background_Z[:, None, None], lit_ZHW)
    metrics = {
        "background": background_Z,
        "bright": bright_Z,
        "mean": flat_ZP.mean(axis=1),
        "contrast": flat_ZP.std(axis=1),
        "saturation": (x_ZHW >= saturated).mean(axis=(1, 2)),
        "foreground": cells_ZHW.mean(axis=(1, 2)),
        "asymmetry": asymmetry(y_ZHW),
        "shade_down": down_Z,
        "shade_across": across_Z,
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
    tiles_ZGhGw = _tiles(x_ZHW)
    # (image, tile down, row, tile across, column) -> (image, tile down, tile across, pixel)
    pixels_ZGGP = tiles_ZGhGw.transpose(0, 1, 3, 2, 4).reshape(len(x_ZHW), _TILES, _TILES, -1)
    tile_ZGG = np.median(pixels_ZGGP, axis=3)
    unit = (_PLACE_G @ _PLACE_G) * _TILES
    down_Z = np.einsum("zyx,y->z", tile_ZGG, _PLACE_G) / unit
    across_Z = np.einsum("zyx,x->z", tile_ZGG, _PLACE_G) / unit
    mean_Z = np.maximum(x_ZHW.mean(axis=(1, 2)), _ROUNDING)
    return np.asarray(2.0 * np.maximum(np.abs(down_Z), np.abs(across_Z)) / mean_Z)


def shading(
    above_ZHW: NDArray[np.floating], cells_ZHW: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Change of the cells' brightness from border to border, down and across the field.

    Parameters
    ----------
    above_ZHW : float array of shape (n_images, height, width)
        Brightness above the background.
    cells_ZHW : bool array of shape (n_images, height, width)
        Pixels of cells.

    Returns
    -------
    down_Z, across_Z : float arrays of shape (n_images,)
        Signed, relative to the cells' mean brightness; 0 for a field without cells.

    Notes
    -----
    A plane is fitted to the mean brightness of the cells in 4 x 4 tiles, each weighed by
    its pixels of cells: cells that lie on one side of an evenly lit field make no slope,
    unlike in :func:`asymmetry`.
    """
    weight_ZGG = _tiles(cells_ZHW).sum(axis=(2, 4), dtype=np.float64)
    light_ZGG = _tiles(np.where(cells_ZHW, above_ZHW, 0.0)).sum(axis=(2, 4), dtype=np.float64)
    plane_GG3 = np.stack(
        [np.ones((_TILES, _TILES)), *np.meshgrid(_PLACE_G, _PLACE_G, indexing="ij")], axis=2
    )
    normal_Z33 = np.einsum("zyx,yxi,yxj->zij", weight_ZGG, plane_GG3, plane_GG3)
    prior = _SPARSE * cells_ZHW[0].size * np.mean(_PLACE_G**2)
    normal_Z33 += np.diag([_TINY, prior, prior])
    moment_Z3 = np.einsum("zyx,yxi->zi", light_ZGG, plane_GG3)
    fit_Z3 = np.linalg.solve(normal_Z33, moment_Z3[..., None])[..., 0]
    count_Z = np.maximum(weight_ZGG.sum(axis=(1, 2)), 1.0)
    mean_Z = np.maximum(light_ZGG.sum(axis=(1, 2)) / count_Z, _ROUNDING)
    return 2.0 * fit_Z3[:, 1] / mean_Z, 2.0 * fit_Z3[:, 2] / mean_Z


def _tiles(x_ZHW: NDArray[Any]) -> NDArray[Any]:
    """Cut images into tiles, shape (n_images, tiles down, rows, tiles across, columns)."""
    height, width = x_ZHW.shape[1] // _TILES, x_ZHW.shape[2] // _TILES
    cut_ZHW = x_ZHW[:, : height * _TILES, : width * _TILES]
    return cut_ZHW.reshape(len(x_ZHW), _TILES, height, _TILES, width)
