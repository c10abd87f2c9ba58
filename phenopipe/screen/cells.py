"""Draws one field of cells whose look follows a latent phenotype."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from phenopipe.screen.config import CHANNELS

# Legend of the shape suffixes: A axes, K cells, C channels, H rows, W columns, U and V the
# rows and columns of the window that one cell is drawn in.

Array = NDArray[np.float32]


# What a phenotype can change about a cell. One unit is a clear change to a trained eye.
SHAPE_AXES = (
    "nucleus_size",
    "nucleus_shape",
    "two_nuclei",
    "cell_size",
    "cell_shape",
    "clustering",
    "er_place",
    "actin_place",
    "rna_place",
    "mito_place",
    "golgi_place",
    "golgi_spread",
    "mito_side",
    "er_side",
)
# Brightness of each channel: seen by pixel statistics, not by encoders that
# self-standardize their input.
AXES = SHAPE_AXES + tuple(f"{channel}_brightness" for channel in CHANNELS)
_AXIS = {name: number for number, name in enumerate(AXES)}

NUCLEUS_RADIUS = 6.0
CELL_RADIUS = 12.5
_WINDOW = 44


def render_cells(
    z_A: NDArray[np.floating],
    n_cells: int,
    size: int,
    rng: np.random.Generator,
    *,
    cell_spread: float = 0.5,
) -> Array:
    """Return the light that a field of cells sends out, before any microscope.

    Parameters
    ----------
    z_A : float array of shape (n_axes,)
        Phenotype of the well, in the order of ``AXES``; zero is an untreated cell.
    n_cells : int
        Cells in the field; some lie across its border.
    size : int
        Height and width, pixels.
    rng : numpy.random.Generator
        Source of everything in which two fields of one well differ.
    cell_spread : float
        Standard deviation of a cell's phenotype around that of its well.

    Returns
    -------
    float32 array of shape (n_channels, size, size)
        Mostly within 0 to 1.
    """
    z_KA = (z_A + cell_spread * rng.standard_normal((n_cells, len(AXES)))).astype(np.float32)
    place_K2 = _places(n_cells, size, float(z_A[_AXIS["clustering"]]), rng)
    angle_K = rng.uniform(0.0, 2.0 * np.pi, n_cells).astype(np.float32)
    parts = _paint(_windows(z_KA, place_K2, angle_K, rng), place_K2, size)
    nucleoli_HW = _nucleoli(place_K2, size, rng)
    return _mix(z_A, parts, nucleoli_HW, size, rng)


def _mix(
    z_A: NDArray[np.floating],
    parts: dict[str, Array],
    nucleoli_HW: Array,
    size: int,
    rng: np.random.Generator,
) -> Array:
    """Put textures into the parts of the cells and sum them up by channel."""
    nucleus_HW, body_HW = parts["nucleus"], parts["body"]
    outside_HW = np.clip(body_HW - nucleus_HW, 0.0, None)
    grain_HW = [_grain(length, size, rng) for length in (5.0, 9.0, 6.0)]
    image_CHW = np.stack(
        [
            nucleus_HW * (0.7 + 0.12 * grain_HW[0]),
            outside_HW * (0.1 + 0.8 * parts["er"]) * (0.85 + 0.12 * grain_HW[1]),
            body_HW * (0.1 + parts["actin"]),
            body_HW * (0.1 + 0.7 * parts["rna"]) + 0.3 * nucleoli_HW * nucleus_HW,
            outside_HW * (0.08 + parts["mito"]) * (0.8 + 0.25 * grain_HW[2]),
            body_HW * (0.1 + 0.9 * parts["golgi"]),
        ]
    )
    bright = z_A[[_AXIS[f"{channel}_brightness"] for channel in CHANNELS]]
    return np.asarray(image_CHW * 1.15 ** bright[:, None, None], dtype=np.float32)


def _share(score: Array) -> Array:
    """Return a share between 0 and 1, one half at a score of 0."""
    return np.asarray(1.0 / (1.0 + np.exp(-score)), dtype=np.float32)


def _places(
    n_cells: int, size: int, clustering: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the centres of the cells: apart from each other, or in clusters."""
    margin = CELL_RADIUS / 2
    draws = rng.uniform(-margin, size + margin, (n_cells, 6, 2))
    near = rng.standard_normal((n_cells, 2)) * CELL_RADIUS * 1.1
    alone = rng.random(n_cells) > 1.0 / (1.0 + np.exp(-(clustering * 1.2 - 1.2)))
    mother = rng.random(n_cells)
    place_K2 = draws[:, 0].copy()
    for k in range(1, n_cells):
        if alone[k]:
            gap = ((draws[k, :, None] - place_K2[None, :k]) ** 2).sum(-1).min(1)
            place_K2[k] = draws[k, gap.argmax()]
        else:
            beside_2 = place_K2[int(mother[k] * k)] + near[k]
            # Who leaves the field enters it on the other side, so that none runs empty.
            place_K2[k] = (beside_2 + margin) % (size + 2 * margin) - margin
    return place_K2


def _windows(
    z_KA: Array, place_K2: NDArray[np.float64], angle_K: Array, rng: np.random.Generator
) -> dict[str, Array]:
    """Return the parts of every cell, each drawn in its own small window."""
    z = {name: z_KA[:, number, None, None] for name, number in _AXIS.items()}
    step = np.arange(_WINDOW, dtype=np.float32) - _WINDOW // 2
    rest_K2 = (place_K2 - np.floor(place_K2)).astype(np.float32)
    y_KUV = step[None, :, None] - rest_K2[:, 0, None, None]
    x_KUV = step[None, None, :] - rest_K2[:, 1, None, None]
    cos, sin = np.cos(angle_K)[:, None, None], np.sin(angle_K)[:, None, None]
    u_KUV, v_KUV = cos * x_KUV + sin * y_KUV, cos * y_KUV - sin * x_KUV
    radius = CELL_RADIUS * 1.12 ** z["cell_size"]
    d_KUV = _body_distance(u_KUV, v_KUV, radius, z["cell_shape"], rng)
    n_KUV = _nucleus_distance(u_KUV, v_KUV, z, rng)
    away = radius * np.clip(0.55 + 0.15 * z["golgi_place"], 0.1, 1.0)
    width = 0.28 * radius * 1.3 ** z["golgi_spread"]
    golgi_KUV = np.exp(-((u_KUV - away) ** 2 + v_KUV**2) / width**2)
    east_KUV = u_KUV / radius
    return {
        "body": np.clip((1.0 - d_KUV) * 4.0 + 0.5, 0.0, 1.0),
        "nucleus": np.clip((1.0 - n_KUV) * 3.0 + 0.5, 0.0, 1.0),
        "er": _side(east_KUV, z["er_side"]) * _ring(d_KUV, 0.6, z["er_place"]),
        "actin": _ring(d_KUV, 0.7, z["actin_place"]),
        "rna": _ring(d_KUV, 0.35, z["rna_place"]),
        "mito": _side(east_KUV, z["mito_side"]) * _ring(d_KUV, 0.65, z["mito_place"]),
        "golgi": golgi_KUV,
    }


def _body_distance(
    u_KUV: Array, v_KUV: Array, radius: Array, shape: Array, rng: np.random.Generator
) -> Array:
    """Return the distance from a cell's centre, 1 at its border, which is a bit uneven."""
    aspect = 1.2 * 1.28**shape
    d_KUV = np.sqrt((u_KUV / aspect) ** 2 + (v_KUV * aspect) ** 2) / radius
    wobble = rng.normal(0.0, 0.12, (2, len(u_KUV), 1, 1)).astype(np.float32)
    uneven_KUV = (wobble[0] * u_KUV + wobble[1] * v_KUV) / (d_KUV * radius + 1.0)
    return np.asarray(d_KUV * (1.0 + uneven_KUV), dtype=np.float32)


def _nucleus_distance(
    u_KUV: Array, v_KUV: Array, z: dict[str, Array], rng: np.random.Generator
) -> Array:
    """Return the distance from the nearer nucleus' centre, 1 at its border."""
    inner = NUCLEUS_RADIUS * 1.13 ** z["nucleus_size"]
    narrow = 1.1 * 1.3 ** z["nucleus_shape"]
    split = rng.random((len(u_KUV), 1, 1)) < _share(1.3 * z["two_nuclei"] - 1.8)
    shift = np.where(split, 0.85 * inner, 0.0)
    inner = np.where(split, 0.8 * inner, inner)
    across_KUV = (np.abs(u_KUV) - shift) / narrow
    across_KUV = np.where(split, across_KUV, u_KUV / narrow)
    return np.asarray(np.hypot(across_KUV, v_KUV * narrow) / inner, dtype=np.float32)


def _ring(d_KUV: Array, place: float, z: Array) -> Array:
    """Return light that is strongest at one distance from a cell's centre, in radii."""
    place_K11 = np.clip(place + 0.15 * z, 0.0, 1.0)
    return np.asarray(np.exp(-(((d_KUV - place_K11) / 0.28) ** 2)), dtype=np.float32)


def _side(east_KUV: Array, z: Array) -> Array:
    """Return how much more light there is on the side of the Golgi, or away from it."""
    return 2.0 * _share(2.0 * z * east_KUV)


def _paint(
    windows: dict[str, Array], place_K2: NDArray[np.float64], size: int
) -> dict[str, Array]:
    """Lay the windows of all cells onto one field; where cells meet, the brighter wins."""
    names = list(windows)
    stack_KPUV = np.stack([windows[name] for name in names], axis=1)
    wide = size + 4 * _WINDOW
    field_PHW = np.zeros((len(names), wide, wide), dtype=np.float32)
    corner_K2 = np.floor(place_K2).astype(int) + 2 * _WINDOW - _WINDOW // 2
    for (y, x), part_PUV in zip(corner_K2.tolist(), stack_KPUV, strict=True):
        if not (0 <= y < wide - _WINDOW and 0 <= x < wide - _WINDOW):
            continue
        here = field_PHW[:, y : y + _WINDOW, x : x + _WINDOW]
        np.maximum(here, part_PUV, out=here)
    cut = slice(2 * _WINDOW, 2 * _WINDOW + size)
    return dict(zip(names, field_PHW[:, cut, cut], strict=True))


def _nucleoli(place_K2: NDArray[np.float64], size: int, rng: np.random.Generator) -> Array:
    """Return the field of nucleoli, one or two a nucleus."""
    spot_N2 = np.repeat(place_K2, 2, axis=0)
    spot_N2 = np.rint(spot_N2 + 0.3 * NUCLEUS_RADIUS * rng.standard_normal(spot_N2.shape))
    inside_N = ((spot_N2 >= 0) & (spot_N2 < size)).all(axis=1)
    field_HW = np.zeros((size, size), dtype=np.float32)
    np.add.at(field_HW, tuple(spot_N2[inside_N].astype(int).T), np.float32(6.0))
    return np.asarray(np.clip(gaussian_filter(field_HW, 1.0), 0.0, 1.2), dtype=np.float32)


def _grain(wavelength: float, size: int, rng: np.random.Generator) -> Array:
    """Return noise of unit variance whose grains are about one wavelength apart."""
    white_HW = rng.standard_normal((size, size), dtype=np.float32)
    band_HW = np.exp(-((_log_frequency(size) + np.log(wavelength)) ** 2) / (2 * 0.3**2))
    field_HW = np.fft.irfft2(np.fft.rfft2(white_HW) * band_HW, s=(size, size))
    return np.asarray(field_HW / (field_HW.std() + 1e-6), dtype=np.float32)


@lru_cache(maxsize=8)
def _log_frequency(size: int) -> NDArray[np.float64]:
    """Return the logarithm of every spatial frequency of a real transform, cycles a pixel."""
    frequency_HW = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency_HW[0, 0] = 1e-6
    return np.asarray(np.log(frequency_HW))
