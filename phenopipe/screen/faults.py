"""What can go wrong with a simulated site: each fault changes cells, light or recording."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from phenopipe.screen.cells import AXES, Array
from phenopipe.screen.optics import Microscope

Z = NDArray[np.float64]
Bytes = NDArray[np.uint8]


class Fault:
    """A fault that changes nothing; each kind overrides the part where it acts."""

    def cells(self, z_A: Z, n_cells: int) -> tuple[Z, int]:
        """Return the phenotype and the number of cells."""
        return z_A, n_cells

    def microscope(self, microscope: Microscope) -> Microscope:
        """Return the microscope's settings."""
        return microscope

    def light(self, light_CHW: Array, rng: np.random.Generator) -> Array:
        """Return the light before the microscope."""
        return light_CHW

    def record(self, site_CHW: Bytes, rng: np.random.Generator) -> Bytes:
        """Return the recorded image."""
        return site_CHW


class Dead(Fault):
    """Few, shrunken cells with small bright nuclei."""

    def cells(self, z_A: Z, n_cells: int) -> tuple[Z, int]:
        """Shrink nuclei and bodies, brighten DNA, dim everything else."""
        change = {"nucleus_size": -5.0, "cell_size": -6.0, "dna_brightness": 5.0}
        change |= {
            f"{name}_brightness": -5.0
            for name in ("er", "actin", "rna", "mitochondria", "golgi")
        }
        z_A = z_A.copy()
        for name, value in change.items():
            z_A[AXES.index(name)] = value
        return z_A, max(n_cells // 3, 2)


class OutOfFocus(Fault):
    """A site far from the focal plane."""

    def microscope(self, microscope: Microscope) -> Microscope:
        """Widen the point spread of all channels."""
        return microscope._replace(blur_C=microscope.blur_C + 4.5)


class Saturated(Fault):
    """A site exposed far too long."""

    def microscope(self, microscope: Microscope) -> Microscope:
        """Multiply the gain of all channels."""
        return microscope._replace(gain_C=microscope.gain_C * 6.0)


class Debris(Fault):
    """A clump and a fibre that shine in every channel."""

    def light(self, light_CHW: Array, rng: np.random.Generator) -> Array:
        """Add the same bright object to all channels."""
        size = light_CHW.shape[-1]
        field_HW = np.zeros((size, size), dtype=np.float32)
        start_2, step_2 = rng.uniform(0.2, 0.8, 2) * size, rng.normal(0, 1, 2)
        for t in np.linspace(0, size * 0.5, 4 * size):
            step_2 = step_2 + 0.1 * rng.normal(0, 1, 2)
            y, x = np.clip(start_2 + t * step_2 / np.linalg.norm(step_2), 0, size - 1).astype(
                int
            )
            field_HW[y, x] = 1.0
        clump_2 = (rng.uniform(0.2, 0.8, 2) * size).astype(int)
        field_HW[clump_2[0] - 3 : clump_2[0] + 4, clump_2[1] - 5 : clump_2[1] + 6] = 1.0
        blurred_HW = gaussian_filter(field_HW, 1.5)
        return np.asarray(light_CHW + 3.0 * blurred_HW, dtype=np.float32)


class MissingChannel(Fault):
    """A site of which one channel was not recorded."""

    def record(self, site_CHW: Bytes, rng: np.random.Generator) -> Bytes:
        """Set one channel to zero."""
        site_CHW = site_CHW.copy()
        site_CHW[int(rng.integers(len(site_CHW)))] = 0
        return site_CHW


FAULTS: dict[str, Fault] = {
    "dead": Dead(),
    "out_of_focus": OutOfFocus(),
    "saturated": Saturated(),
    "debris": Debris(),
    "missing_channel": MissingChannel(),
}
