"""Planted defects: what each does to the cells of a well, or to their image."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from phenopipe.screen.cells import AXES
from phenopipe.screen.config import CHANNELS, SimulateKnobs
from phenopipe.screen.plates import Well
from phenopipe.seeds import generator

# Legend of the shape suffixes: A axes of the phenotype, C channels, H rows, W columns.

Array = NDArray[np.float32]

IMAGE_DEFECTS = ("dead", "out_of_focus", "saturated", "debris", "missing_channel")
# Blur of an image out of focus, as a part of its width, at least so many pixels.
_DEFOCUS, _LEAST_DEFOCUS = 0.04, 2.5
_OVEREXPOSED = 12.0
_SATURATED_CHANNELS = 3


def draw_defects(wells: list[Well], knobs: SimulateKnobs, experiment: str) -> list[str]:
    """Return the defect of each well, an empty word for most.

    Notes
    -----
    Drawn by experiment and plate: technical pairs share what is in a well, not what goes
    wrong with it.
    """
    defects = ["" for _ in wells]
    for number, well in enumerate(wells):
        if not well.labelled:
            defects[number] = "missing_label"
        elif len(well.conditions) == 4:
            defects[number] = "four_perturbations"
    for plate in range(1, knobs.plates + 1):
        sound = [
            number
            for number, well in enumerate(wells)
            if well.plate == plate and not defects[number] and len(well.conditions) == 1
        ]
        rng = generator(knobs.seed, "defects", experiment, plate)
        wanted = [defect for defect in IMAGE_DEFECTS for _ in range(knobs.defects)]
        chosen = rng.permutation(sound)[: len(wanted)].tolist()
        for number, defect in zip(chosen, wanted, strict=False):
            defects[number] = defect
    return defects


def dying(z_A: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the phenotype of dead cells: shrunken, round, with small bright nuclei."""
    dead_A = z_A.copy()
    changes = {
        "nucleus_size": -6.0,
        "nucleus_shape": -1.0,
        "cell_size": -5.0,
        "cell_shape": -1.5,
        "dna_brightness": 6.0,
        "mitochondria_brightness": -6.0,
        "er_brightness": -3.0,
    }
    for name, value in changes.items():
        dead_A[AXES.index(name)] = value
    return dead_A


def spoil(image_CHW: Array, defect: str, rng: np.random.Generator) -> Array:
    """Return an image, in units of a byte, with the defect of its well."""
    if defect == "out_of_focus":
        # The grain of stains and the noise of light are one field here, and blur as one.
        sigma = max(_DEFOCUS * image_CHW.shape[-1], _LEAST_DEFOCUS) * rng.uniform(1.0, 1.4)
        return np.asarray(gaussian_filter(image_CHW, (0.0, sigma, sigma)), dtype=np.float32)
    if defect == "saturated":
        gain_C = np.ones(len(CHANNELS), dtype=np.float32)
        gain_C[rng.permutation(len(CHANNELS))[:_SATURATED_CHANNELS]] = _OVEREXPOSED
        return image_CHW * gain_C[:, None, None]
    if defect == "debris":
        return image_CHW + _debris(image_CHW.shape[-1], rng)
    if defect == "missing_channel":
        image_CHW = image_CHW.copy()
        image_CHW[int(rng.integers(len(CHANNELS)))] = 0.0
    return image_CHW


def _debris(size: int, rng: np.random.Generator) -> Array:
    """Return the light of a speck of dust: a bright smear in all channels."""
    centre = rng.uniform(0.25, 0.75, 2) * size
    angle = rng.uniform(0.0, np.pi)
    long, short = size * rng.uniform(0.12, 0.2), size * rng.uniform(0.05, 0.08)
    y_HW, x_HW = np.mgrid[:size, :size].astype(np.float32)
    y_HW, x_HW = y_HW - np.float32(centre[0]), x_HW - np.float32(centre[1])
    u_HW = np.cos(angle) * x_HW + np.sin(angle) * y_HW
    v_HW = np.cos(angle) * y_HW - np.sin(angle) * x_HW
    smear_HW = np.exp(-((u_HW / long) ** 2) - (v_HW / short) ** 2)
    light_C = rng.uniform(150.0, 230.0, len(CHANNELS))
    return np.asarray(light_C[:, None, None] * smear_HW, dtype=np.float32)
