"""Image files: every kind decodes to what tifffile reads, the fast way or not."""

import imagecodecs
import numpy as np
import pytest
import tifffile

from phenopipe.errors import UserError
from phenopipe.formats.files import Files

BY_LIBTIFF = {
    "plain": {},
    "big-endian": {"byteorder": ">"},
    "BigTIFF": {"bigtiff": True},
    "LZW": {"compression": "lzw"},
    "LZW of differences, big-endian": {
        "byteorder": ">",
        "compression": "lzw",
        "predictor": True,
    },
    "deflate in tiles": {"compression": "zlib", "predictor": True, "tile": (32, 32)},
    "zstd": {"compression": "zstd"},
    "PackBits in strips": {"compression": "packbits", "rowsperstrip": 7},
    "white is 0": {"photometric": "miniswhite"},
    "turned": {"extratags": [(274, "H", 1, 3, True)]},
    "ImageJ": {"imagej": True},
    "OME": {"ome": True},
}
BY_TIFFFILE = {
    "JPEG 2000 within": {"compression": "jpeg2000"},
    "JPEG XR within": {"compression": "jpegxr"},
}


def pixels(dtype):
    top = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, top, (70, 90), endpoint=True).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("kind", [*BY_LIBTIFF, *BY_TIFFFILE])
def test_tiffs_of_every_kind_decode_as_tifffile_reads_them(kind, dtype, tmp_path):
    path, wanted = tmp_path / "one.tif", pixels(dtype)
    tifffile.imwrite(path, wanted, **(BY_LIBTIFF | BY_TIFFFILE)[kind])
    found = Files(tmp_path).look("one.tif")
    assert (found.height, found.width, found.planes, found.dtype) == (70, 90, 1, dtype)
    out = np.zeros_like(wanted)
    Files(tmp_path).decode("one.tif", out)
    np.testing.assert_array_equal(out, wanted)
    np.testing.assert_array_equal(out, tifffile.imread(path))


@pytest.mark.parametrize("kind", list(BY_LIBTIFF))
def test_usual_tiffs_are_read_without_tifffile(kind, tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "one.tif", pixels("uint16"), **BY_LIBTIFF[kind])
    monkeypatch.delattr(tifffile, "imread")
    out = np.zeros((70, 90), np.uint16)
    Files(tmp_path).decode("one.tif", out)
    np.testing.assert_array_equal(out, pixels("uint16"))


@pytest.mark.parametrize(
    "kind", [{"photometric": "minisblack"}, {"photometric": "minisblack", "imagej": True}]
)
def test_two_pages_are_not_taken_for_one_plane(kind, tmp_path):
    tifffile.imwrite(tmp_path / "two.tif", np.stack([pixels("uint16")] * 2), **kind)
    assert Files(tmp_path).look("two.tif").planes == 2
    with pytest.raises(UserError, match=r"two.tif: pixels of shape \(2, 70, 90\)"):
        Files(tmp_path).decode("two.tif", np.zeros((70, 90), np.uint16))


@pytest.mark.parametrize("kind", list(BY_LIBTIFF))
@pytest.mark.parametrize("keep", [0.5, 0.95])
def test_a_truncated_tiff_is_never_read(kind, keep, tmp_path):
    path = tmp_path / "one.tif"
    tifffile.imwrite(path, pixels("uint16"), **BY_LIBTIFF[kind])
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(UserError, match=r"one.tif: cannot be decoded"):
        Files(tmp_path).decode("one.tif", np.zeros((70, 90), np.uint16))


def test_a_png_of_another_size_is_told(tmp_path):
    (tmp_path / "one.png").write_bytes(imagecodecs.png_encode(pixels("uint8")))
    with pytest.raises(UserError, match=r"pixels of shape \(70, 90\), wanted \(9, 9\)"):
        Files(tmp_path).decode("one.png", np.zeros((9, 9), np.uint8))
