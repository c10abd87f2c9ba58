"""Image files: inside their root, looked at without decoding, decoded."""

import struct
from pathlib import Path
from typing import NamedTuple

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from phenopipe.errors import UserError
from phenopipe.formats.images import PIXEL_TYPES

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Planes of each PNG colour type: grey, RGB, palette (decoded to RGB), grey + alpha, RGBA.
PNG_PLANES = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}


class Found(NamedTuple):
    """What an image file's header says; ``fault`` says why it cannot be read, else None."""

    height: int = 0
    width: int = 0
    planes: int = 0
    dtype: str = ""
    fault: str | None = None


def inside(root: Path, relative: str) -> Path:
    """Path of a file under a root folder, symbolic links followed.

    Parameters
    ----------
    root : Path
        The folder that must not be left.
    relative : str
        Path as the user's table gives it.

    Raises
    ------
    UserError
        If the path is absolute or leads out of the root.

    Examples
    --------
    >>> inside(Path("/data"), "../etc/passwd")
    Traceback (most recent call last):
    ...
    phenopipe.errors.UserError: '../etc/passwd' leaves the folder /data, wanted a path inside
    """
    if Path(relative).is_absolute():
        raise UserError(f"{relative!r} is absolute, wanted a path relative to {root}")
    real = root.resolve()
    path = (real / relative).resolve()
    if not path.is_relative_to(real):
        raise UserError(f"{relative!r} leaves the folder {root}, wanted a path inside")
    return path


def look(path: Path) -> Found:
    """Read the size, number of planes and type of a PNG or TIFF file from its header."""
    try:
        with path.open("rb") as handle:
            head = handle.read(29)
        found = _look_png(head) if head.startswith(PNG_SIGNATURE) else _look_tiff(path)
    except Exception as error:  # a damaged file makes readers raise anything at all
        return Found(fault=_reason(error))
    if found.dtype not in PIXEL_TYPES:
        return found._replace(
            fault=f"pixels of {found.dtype}, wanted {' or '.join(PIXEL_TYPES)}"
        )
    return found


def decode(path: Path, shape: tuple[int, int]) -> NDArray[np.integer]:
    """Decode a PNG or TIFF file of one plane to an array of this shape.

    Raises
    ------
    UserError
        If the file cannot be decoded or holds something else.
    """
    try:
        data = path.read_bytes()
        is_png = data.startswith(PNG_SIGNATURE)
        pixels = imagecodecs.png_decode(data) if is_png else tifffile.imread(path)
    except Exception as error:  # as above
        raise UserError(f"{path}: cannot be decoded ({_reason(error)})") from None
    if pixels.size != np.prod(shape):
        raise UserError(f"{path}: pixels of shape {pixels.shape}, wanted {shape}")
    image: NDArray[np.integer] = pixels.reshape(shape)
    return image


def _look_png(head: bytes) -> Found:
    width, height, bits, colour = struct.unpack(">IIBB", head[16:26])
    return Found(height, width, PNG_PLANES[colour], "uint16" if bits == 16 else "uint8")


def _look_tiff(path: Path) -> Found:
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        size = dict(zip(series.axes, series.shape, strict=True))
        height, width = size["Y"], size["X"]
        planes = len(file.series) * int(np.prod(series.shape)) // max(height * width, 1)
        return Found(height, width, planes, str(series.dtype))


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
