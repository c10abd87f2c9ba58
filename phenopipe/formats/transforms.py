"""transform.npz (and axes.npz, before its middles): what all experiments' controls tell.

Shape suffixes: D features, R aligned features.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phenopipe.errors import UserError
from phenopipe.formats.arrays import read_arrays, write_arrays
from phenopipe.formats.tables import Stamp

METHODS = ("tvn", "pca", "none")
ARRAYS = ("center", "projection", "middle")
FORMAT = {"format": "transform", "format_version": 1}


@dataclass(frozen=True)
class Transform:
    """A fitted alignment: with an experiment's own controls it aligns that experiment.

    Attributes
    ----------
    method : str
        ``tvn``, ``pca`` or ``none``.
    center : float array of shape (n_features,)
        Mean of all controls; zero if each experiment has its own centre.
    projection : float array of shape (n_features, n_aligned_features)
        Scaling, rotation and whitening; without columns for ``none``.
    middle : float array of shape (n_cell_types, n_aligned_features)
        Where the middle well of each cell type lies as seen from the controls; one row of
        zeros if centres come from controls.
    settings : mapping
        The knobs of the fit that aligning has to follow: ``control_role,
        center_by_experiment, center_on, regularization, n_components, holdout, seed``.
    experiments : mapping of str to int
        Controls of each experiment that the transform was fitted on.
    cell_types : tuple of str
        Whose middle each row is.
    """

    method: str
    center: NDArray[np.float64]
    projection: NDArray[np.float64]
    middle: NDArray[np.float64]
    settings: Mapping[str, Any]
    experiments: Mapping[str, int]
    cell_types: tuple[str, ...] = ("",)

    def middle_of(self, cell_type: str) -> NDArray[np.float64]:
        """Middle of a cell type; of one that no fit saw, the mean of those that it did."""
        if cell_type in self.cell_types:
            middle_R: NDArray[np.float64] = self.middle[self.cell_types.index(cell_type)]
            return middle_R
        mean_R: NDArray[np.float64] = self.middle.mean(axis=0)
        return mean_R


def write_transform(path: Path, transform: Transform, stamp: Stamp) -> None:
    """Write a transform; equal transforms and stamps give equal bytes.

    Raises
    ------
    UserError
        If the method is unknown or the shapes do not fit together.
    """
    _check(transform, path)
    facts = {
        **FORMAT,
        "method": transform.method,
        "settings": dict(transform.settings),
        "experiments": dict(transform.experiments),
        "cell_types": list(transform.cell_types),
        "stamp": dict(stamp),
    }
    arrays = {name: getattr(transform, name) for name in ARRAYS}
    write_arrays(path, arrays, facts)


def read_transform(path: Path) -> Transform:
    """Read and check a transform.

    Raises
    ------
    UserError
        If the file is no transform of this format.
    """
    arrays, facts = read_arrays(path, ARRAYS, FORMAT, "transform")
    transform = Transform(
        facts["method"],
        **arrays,
        settings=facts["settings"],
        experiments=facts["experiments"],
        cell_types=tuple(facts["cell_types"]),
    )
    _check(transform, path)
    return transform


def _check(transform: Transform, path: Path) -> None:
    if transform.method not in METHODS:
        raise UserError(f"{path}: method {transform.method!r}, wanted {', '.join(METHODS)}")
    wanted = (*transform.center.shape, *transform.middle.shape[1:])
    if transform.middle.shape[0] != len(transform.cell_types):
        found = f"{transform.middle.shape[0]} middles"
        raise UserError(f"{path}: {found}, wanted one of each of {transform.cell_types}")
    if transform.projection.shape != wanted:
        raise UserError(
            f"{path}: projection of shape {transform.projection.shape}, wanted {wanted}"
        )
