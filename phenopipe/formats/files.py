"""Image files of a screen under one root: looked at without decoding, decoded.

A reference names one plane of pixels by its file, relative to the root:

    images/B02_s1_w1.png                  a PNG, TIFF or JPEG 2000 file of one plane
    data/train-00000.parquet#row=12       an encoded image in a row of a parquet file
    plate.zarr/A/1/0/0#plane=0,2,0        a plane of a zarr array, by its leading indices
"""

import io
import struct
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from phenopipe.errors import UserError, reason
from phenopipe.formats.images import PIXEL_TYPES
from phenopipe.formats.parquet_rows import ParquetRows

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Planes of each PNG colour type: grey, RGB, palette (decoded to RGB), grey + alpha, RGBA.
PNG_PLANES = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
# A JPEG 2000 codestream starts with these markers, in a box of a JP2 file or alone, and ends
# with the other one.
J2K_START, J2K_END = b"\xff\x4f\xff\x51", b"\xff\xd9"
JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  "
# Bytes from the start of a file in which all that is looked for is found.
HEAD = 512
ROW, PLANE = "#row=", "#plane="
# Shards and arrays that are held open at a time; each shard holds a few megabytes.
OPEN_SHARDS, OPEN_ARRAYS = 2, 64


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
        Path, or reference, as the user's table gives it.

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
    name = file_of(relative)
    if Path(name).is_absolute():
        raise UserError(f"{relative!r} is absolute, wanted a path relative to {root}")
    real = root.resolve()
    path = (real / name).resolve()
    if not path.is_relative_to(real):
        raise UserError(f"{relative!r} leaves the folder {root}, wanted a path inside")
    return path


def file_of(reference: str) -> str:
    """Path of the file that a reference names.

    Examples
    --------
    >>> file_of("data/train-00000.parquet#row=12")
    'data/train-00000.parquet'
    """
    return reference.split(ROW)[0].split(PLANE)[0]


class Files:
    """Reads what references name; may be asked by several threads.

    Parameters
    ----------
    root : Path
        The folder that references start from.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        # Many planes lie in one file: where it is, is found out once.
        self._path: Callable[[str], Path] = lru_cache(OPEN_ARRAYS)(partial(inside, root))
        self._rows: Callable[[Path], ParquetRows] = lru_cache(OPEN_SHARDS)(ParquetRows)
        self._array: Callable[[Path], Any] = lru_cache(OPEN_ARRAYS)(_open_array)

    def look(self, reference: str) -> Found:
        """Read size, number of planes and type of pixels from a header."""
        try:
            path = self._path(file_of(reference))
            if ROW in reference:
                found = look_at_bytes(self._rows(path).read(_number(reference)))
            elif PLANE in reference:
                array = self._array(path)
                dtype = array.dtype.newbyteorder("=").name
                found = Found(array.shape[-2], array.shape[-1], 1, dtype)
            else:
                found = look(path)
        except Exception as error:  # a damaged file makes readers raise anything at all
            return Found(fault=_fault(error))
        return _checked(found)

    def decode(self, reference: str, plane_HW: NDArray[np.integer]) -> None:
        """Decode one plane into an array of its size and type.

        Raises
        ------
        UserError
            If it cannot be decoded or has another size.
        """
        path = self._path(file_of(reference))
        try:
            if PLANE in reference:
                pixels = np.asarray(self._array(path)[_indices(reference)])
            elif ROW in reference:
                pixels = decode_bytes(self._rows(path).read(_number(reference)), plane_HW)
            else:
                pixels = decode_bytes(path.read_bytes(), plane_HW)
        except Exception as error:  # as above
            where = reference if ROW in reference or PLANE in reference else path
            raise UserError(f"{where}: cannot be decoded ({_fault(error)})") from None
        if pixels is not plane_HW:
            if pixels.size != plane_HW.size:
                raise UserError(
                    f"{path}: pixels of shape {pixels.shape}, wanted {plane_HW.shape}"
                )
            plane_HW[:] = pixels.reshape(plane_HW.shape)


def look(path: Path) -> Found:
    """Read the size, number of planes and type of an image file from its header."""
    try:
        with path.open("rb") as handle:
            head = handle.read(HEAD)
        known = head.startswith((PNG_SIGNATURE, JP2_SIGNATURE, J2K_START))
        found = look_at_bytes(head) if known else _look_tiff(path)
    except Exception as error:  # a damaged file makes readers raise anything at all
        return Found(fault=_fault(error))
    return _checked(found)


def look_at_bytes(head: bytes) -> Found:
    """Read the header of an encoded image: PNG, JPEG 2000, else TIFF (all its bytes)."""
    if head.startswith(PNG_SIGNATURE):
        width, height, bits, colour = struct.unpack(">IIBB", head[16:26])
        return Found(height, width, PNG_PLANES[colour], "uint16" if bits == 16 else "uint8")
    if head.startswith((JP2_SIGNATURE, J2K_START)):
        at = head.index(J2K_START) + len(J2K_START) + 4
        right, bottom, left, top = struct.unpack(">IIII", head[at : at + 16])
        planes, bits = struct.unpack(">HB", head[at + 32 : at + 35])
        # The highest bit tells a sign, the others one less than the depth.
        depth = "int" if bits & 128 else "uint"
        return Found(bottom - top, right - left, planes, depth + ("16" if bits & 8 else "8"))
    return _look_tiff(io.BytesIO(head))


def decode_bytes(data: bytes, out_HW: NDArray[np.integer] | None = None) -> NDArray[np.integer]:
    """Decode an image: PNG, JPEG 2000 or TIFF; into an array where the codec can.

    Raises
    ------
    ValueError
        If a JPEG 2000 image has no end: decoders make something up for what is missing.
    """
    if not data.startswith((PNG_SIGNATURE, JP2_SIGNATURE, J2K_START)):
        return _decode_tiff(data, out_HW)
    # Memory that is used again is faster than new memory, by more than some files take.
    fitting = out_HW if out_HW is not None and _fits(data, out_HW) else None
    if data.startswith(PNG_SIGNATURE):
        found = imagecodecs.png_decode(data, out=fitting)
    elif data.rstrip(b"\0").endswith(J2K_END):
        found = imagecodecs.jpeg2k_decode(data, out=fitting)
    else:
        raise ValueError("truncated: no end of its codestream")
    return np.asarray(found) if fitting is None else fitting


def _decode_tiff(data: bytes, out_HW: NDArray[np.integer] | None) -> NDArray[np.integer]:
    """Decode by libtiff, in half the time, where that reads one plane like the array."""
    if out_HW is not None:
        try:
            imagecodecs.tiff_decode(data, index=None, out=out_HW)
        except Exception:  # tifffile reads more kinds, and tells what is wrong
            pass
        else:
            return out_HW
    return np.asarray(tifffile.imread(io.BytesIO(data)))


def _fits(data: bytes, out_HW: NDArray[np.integer]) -> bool:
    """Whether the header of a PNG or JPEG 2000 image tells of one plane like this one."""
    height, width = out_HW.shape
    return look_at_bytes(data[:HEAD]) == Found(height, width, 1, out_HW.dtype.name)


def _look_tiff(file: Path | io.BytesIO) -> Found:
    with tifffile.TiffFile(file) as tiff:
        series = tiff.series[0]
        size = dict(zip(series.axes, series.shape, strict=True))
        height, width = size["Y"], size["X"]
        planes = len(tiff.series) * int(np.prod(series.shape)) // max(height * width, 1)
        return Found(height, width, planes, str(series.dtype))


def _checked(found: Found) -> Found:
    if found.fault is None and found.dtype not in PIXEL_TYPES:
        wanted = " or ".join(PIXEL_TYPES)
        return found._replace(fault=f"pixels of {found.dtype}, wanted {wanted}")
    return found


def _number(reference: str) -> int:
    return int(reference.rsplit("=", 1)[1])


def _indices(reference: str) -> tuple[int, ...]:
    listed = reference.rsplit("=", 1)[1]
    return tuple(int(one) for one in listed.split(",") if one)


def _open_array(path: Path) -> Any:  # noqa: ANN401 - a zarr array
    if not path.exists():
        raise FileNotFoundError(path)
    return zarr.open_array(str(path), mode="r")


def _fault(error: Exception) -> str:
    return "no such file" if isinstance(error, FileNotFoundError) else reason(error)
