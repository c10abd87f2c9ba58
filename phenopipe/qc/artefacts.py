"""Debris and other things that lie in a field of cells but are none.

An artefact sits at one place and shines in many channels at once; a phenotype changes all
cells of the field, and its channels at different places. So channels are brought to one
scale and averaged, and the brightest square of the field is compared with the field itself.

Shape suffixes: N sites, C channels, H rows, W columns, P pixels.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

# Squares have these parts of the shorter side of the field.
PARTS = (8, 16)
_LEAST = 0.05


def brightest_squares(
    x_NCHW: NDArray[np.unsignedinteger],
    background_NC: NDArray[np.floating],
    level_NC: NDArray[np.floating],
) -> dict[str, NDArray[np.float64]]:
    """Measure the brightest square of each field, over all channels together.

    Parameters
    ----------
    x_NCHW : array of shape (n_sites, n_channels, height, width)
        Pixels.
    background_NC, level_NC : float arrays of shape (n_sites, n_channels)
        Brightness without cells, and how far above it the plate's control cells reach.

    Returns
    -------
    dict of float arrays of shape (n_sites,)
        For each size of square: ``peak_*``, the logarithm of the brightness of the
        brightest one, 0 for a control cell; and ``rise_*``, how far that is above the
        field's own bright squares (their 90th percentile).
    """
    joint_NHW = np.zeros((len(x_NCHW), *x_NCHW.shape[2:]), dtype=np.float32)
    for channel in range(x_NCHW.shape[1]):
        scale_N11 = (1.0 / level_NC[:, channel]).astype(np.float32)[:, None, None]
        dark_N11 = background_NC[:, channel].astype(np.float32)[:, None, None]
        joint_NHW += (x_NCHW[:, channel].astype(np.float32) - dark_N11) * scale_N11
    joint_NHW /= x_NCHW.shape[1]
    metrics = {}
    for part in PARTS:
        side = max(min(x_NCHW.shape[2:]) // part, 1)
        square_NP = uniform_filter(joint_NHW, size=(0, side, side)).reshape(len(x_NCHW), -1)
        peak_N = np.log(np.maximum(square_NP.max(axis=1), _LEAST))
        usual_N = np.percentile(square_NP, 90, axis=1, method="lower")
        metrics[f"peak_{part}"] = peak_N.astype(np.float64)
        metrics[f"rise_{part}"] = peak_N - np.log(np.maximum(usual_N, 0.0) + _LEAST)
    return metrics
