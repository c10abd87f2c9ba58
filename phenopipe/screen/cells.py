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
    "chromatin_grain",
    "nucleoli",
    "cell_size",
    "cell_shape",
    "actin_fibres",
    "fibre_period",
    "mito_grain",
    "mito_spread",
    "golgi_spread",
    "golgi_side",
    "er_grain",
    "er_mito_overlap",
    "clustering",
    "vesicles",
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
    spots = _spots(z_KA, place_K2, angle_K, size, rng)
    return _mix(z_A, parts, spots, size, rng)


def _mix(
    z_A: NDArray[np.floating],
    parts: dict[str, Array],
    spots: dict[str, Array],
    size: int,
    rng: np.random.Generator,
) -> Array:
    """Put textures into the parts of the cells and sum them up by channel."""
    z = {name: float(z_A[number]) for name, number in _AXIS.items()}
    chromatin_HW = _grain(5.0 * 1.4 ** z["chromatin_grain"], size, rng)
    mito_HW = _grain(5.5 * 1.35 ** z["mito_grain"], size, rng)
    own_HW = _grain(8.0 * 1.35 ** z["er_grain"], size, rng)
    overlap = 1.0 / (1.0 + np.exp(-(z["er_mito_overlap"] * 1.2)))
    er_HW = overlap * mito_HW + (1.0 - overlap) * own_HW
    nucleus_HW, body_HW = parts["nucleus"], parts["body"]
    cytoplasm_HW = np.clip(body_HW - nucleus_HW, 0.0, None)
    image_CHW = np.stack(
        [
            nucleus_HW * (0.62 + 0.2 * chromatin_HW) * (1.0 - 0.5 * spots["nucleoli"]),
            (0.25 * body_HW + 0.75 * parts["near"] * cytoplasm_HW) * (0.75 + 0.3 * er_HW),
            0.22 * body_HW + parts["actin"],
            (0.42 * cytoplasm_HW + 0.3 * nucleus_HW) + 0.6 * spots["nucleoli"] * nucleus_HW,
            parts["mito"] * cytoplasm_HW * np.clip(0.45 + 0.45 * mito_HW, 0.0, None),
            0.16 * body_HW + 0.8 * spots["golgi"] + 0.4 * spots["vesicles"] * body_HW,
        ]
    )
    bright_C = [1.15 ** z[f"{channel}_brightness"] for channel in CHANNELS]
    return np.asarray(image_CHW * np.array(bright_C)[:, None, None], dtype=np.float32)


def _places(
    n_cells: int, size: int, clustering: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the centres of the cells: apart from each other, or in clusters."""
    margin = CELL_RADIUS / 2
    draws = rng.uniform(-margin, size + margin, (n_cells, 6, 2))
    near = rng.standard_normal((n_cells, 2)) * CELL_RADIUS * 1.1
    alone = rng.random(n_cells) > 1.0 / (1.0 + np.exp(-(clustering * 1.3 - 1.6)))
    mother = rng.random(n_cells)
    place_K2 = draws[:, 0].copy()
    for k in range(1, n_cells):
        if alone[k]:
            gap = ((draws[k, :, None] - place_K2[None, :k]) ** 2).sum(-1).min(1)
            place_K2[k] = draws[k, gap.argmax()]
        else:
            place_K2[k] = place_K2[int(mother[k] * k)] + near[k]
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
    aspect = 1.25 * 1.22 ** z["cell_shape"]
    radius = CELL_RADIUS * 1.1 ** z["cell_size"]
    wobble = rng.normal(0.0, 0.12, (2, len(z_KA), 1, 1)).astype(np.float32)
    d_KUV = np.sqrt((u_KUV / aspect) ** 2 + (v_KUV * aspect) ** 2) / radius
    d_KUV = d_KUV * (1.0 + (wobble[0] * u_KUV + wobble[1] * v_KUV) / (d_KUV * radius + 1.0))
    body_KUV = np.clip((1.0 - d_KUV) * 4.0 + 0.5, 0.0, 1.0)
    narrow = 1.12 * 1.2 ** z["nucleus_shape"]
    inner = NUCLEUS_RADIUS * 1.1 ** z["nucleus_size"]
    n_KUV = np.sqrt((u_KUV / narrow) ** 2 + (v_KUV * narrow) ** 2) / inner
    period = 4.5 * 1.25 ** z["fibre_period"]
    phase = rng.uniform(0.0, 2 * np.pi, (len(z_KA), 1, 1)).astype(np.float32)
    stripes_KUV = 0.5 + 0.5 * np.cos(v_KUV * (2.0 * np.pi / period) + phase)
    share = 1.0 / (1.0 + np.exp(-z["actin_fibres"]))
    edge_KUV = np.exp(-(((d_KUV - 0.92) / 0.14) ** 2))
    reach = 0.55 * 1.25 ** z["mito_spread"]
    return {
        "body": body_KUV,
        "nucleus": np.clip((1.0 - n_KUV) * 3.0 + 0.5, 0.0, 1.0),
        "near": np.exp(-((d_KUV / 0.7) ** 2)),
        "actin": body_KUV * (0.9 * share * stripes_KUV + 0.8 * (1.0 - share) * edge_KUV),
        "mito": np.exp(-(((d_KUV - reach) / 0.33) ** 2)),
    }


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


def _spots(
    z_KA: Array,
    place_K2: NDArray[np.float64],
    angle_K: Array,
    size: int,
    rng: np.random.Generator,
) -> dict[str, Array]:
    """Return the fields of small bodies: nucleoli, Golgi stacks and vesicles."""
    n_cells = len(z_KA)
    z = {name: z_KA[:, number] for name, number in _AXIS.items()}
    normal = rng.standard_normal((3, n_cells, 8, 2))
    use = rng.random((3, n_cells, 8))
    side_K = angle_K + np.pi * 0.5 / (1.0 + np.exp(-1.5 * z["golgi_side"]))
    cap_K2 = 6.0 * np.stack([np.sin(side_K), np.cos(side_K)], axis=1)
    spread_K = (1.6 * 1.5 ** z["golgi_spread"])[:, None, None]
    centre_K12 = place_K2[:, None]
    sites = {
        "nucleoli": (centre_K12 + 1.9 * normal[0], 0.25 * 1.5 ** z["nucleoli"], 1.0, 6.0),
        "golgi": (
            centre_K12 + cap_K2[:, None] + spread_K * normal[1],
            0.8 + 0 * side_K,
            1.0,
            4.0,
        ),
        "vesicles": (centre_K12 + 5.5 * normal[2], 0.22 * 1.6 ** z["vesicles"], 0.7, 3.0),
    }
    fields = {}
    for number, (name, (spot_KS2, share_K, sigma, light)) in enumerate(sites.items()):
        kept_N2 = np.rint(spot_KS2[use[number] < share_K[:, None]]).astype(int)
        inside_N = ((kept_N2 >= 0) & (kept_N2 < size)).all(axis=1)
        field_HW = np.zeros((size, size), dtype=np.float32)
        np.add.at(field_HW, tuple(kept_N2[inside_N].T), np.float32(light))
        fields[name] = np.clip(gaussian_filter(field_HW, sigma), 0.0, 1.2)
    return fields


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
