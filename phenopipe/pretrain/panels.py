"""Pictures of what an autoencoder paints while it learns: input, mask, output, error.

Shape suffixes: C channels, H height, W width.
"""

import shutil
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from phenopipe.formats.atomic import atomic
from phenopipe.pretrain.reconstructions import Arrays

IMAGES = 2
GREY = 0.5
GAP = 2
# Grey values lie between these shares of the input's pixels.
DARKEST, BRIGHTEST = 2.0, 99.8
# Small crops are enlarged to about this side, pixels.
LEAST_SIDE = 64


def draw_panel(arrays: Arrays) -> NDArray[np.uint8]:
    """Draw the first images of :func:`~phenopipe.pretrain.reconstructions.reconstruct`.

    Returns
    -------
    uint8 array of shape (height, width)
        One row an image and channel; columns are the input, what was seen of it with hidden
        patches in grey, the output with seen patches filled in, and how far it is from the
        input, from black (not at all) to white (as far as dark from bright).
    """
    rows = []
    for number in range(min(IMAGES, len(arrays["input"]))):
        given_CHW, out_CHW, hidden_CHW = (
            np.asarray(arrays[name][number], dtype=np.float64)
            for name in ("input", "output", "mask")
        )
        for given, out, hidden in zip(given_CHW, out_CHW, hidden_CHW > 0, strict=True):
            low, high = np.percentile(given, [DARKEST, BRIGHTEST])
            span = max(high - low, 1e-6)
            shown, painted = (given - low) / span, (np.where(hidden, out, given) - low) / span
            columns = [shown, np.where(hidden, GREY, shown), painted, np.abs(painted - shown)]
            rows.append(_join([_enlarge(one) for one in columns], axis=1))
    whole = _join(rows, axis=0)
    return (whole.clip(0.0, 1.0) * 255.0).round().astype(np.uint8)


def write_panel(path: Path, arrays: Arrays) -> None:
    """Write a panel as PNG."""
    with atomic(path) as temporary:
        temporary.write_bytes(imagecodecs.png_encode(draw_panel(arrays), level=9))


def copy_panels(source: Path, place: Path) -> None:
    """Copy the panels of a whole training; there may be none."""
    with atomic(place) as temporary:
        temporary.mkdir()
        for path in sorted(source.glob("update-*.png")):
            shutil.copy(path, temporary / path.name)


def _enlarge(image_HW: NDArray[np.float64]) -> NDArray[np.float64]:
    times = max(1, LEAST_SIDE // image_HW.shape[0])
    return image_HW.repeat(times, axis=0).repeat(times, axis=1)


def _join(images: list[NDArray[np.float64]], axis: int) -> NDArray[np.float64]:
    """Put images in a row or a column, with white lines between."""
    parts: list[NDArray[np.float64]] = []
    for image in images:
        shape = list(image.shape)
        shape[axis] = GAP
        parts += [np.ones(shape), image]
    return np.concatenate(parts[1:], axis=axis)
