"""moments.npz and middles.npz: what one experiment tells the fit of an alignment.

Shape suffixes: D features, R aligned features, K directions that vary.
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

MOMENTS = {"format": "moments", "format_version": 1}
MIDDLES = {"format": "middles", "format_version": 1}


@dataclass(frozen=True)
class ControlMoments:
    """Count, mean and scatter of one experiment's controls.

    Attributes
    ----------
    experiment : str
        The experiment.
    count : int
        Controls that are not held out; 0 where there are none.
    mean : float array of shape (n_features,)
        Their mean.
    scatter : float array of shape (n_features, n_features)
        Sum of products of deviations from the mean.
    spectrum : float array of shape (n_directions,)
        Variances along the principal axes of the controls, features scaled to variance 1,
        largest first; directions without variance are left out.
    settings : mapping
        How wells were chosen: ``control_role, holdout, seed``.
    encoder : str or None
        Fingerprint of the encoder; None where the store names none.
    set_aside : bool
        No well of the experiment passes qc, controls or not: no fit sees it.
    """

    experiment: str
    count: int
    mean: NDArray[np.float64]
    scatter: NDArray[np.float64]
    spectrum: NDArray[np.float64]
    settings: Mapping[str, Any]
    encoder: str | None
    set_aside: bool = False


def write_moments(path: Path, moments: ControlMoments, stamp: Stamp) -> None:
    """Write the moments of one experiment; of the scatter the upper triangle.

    Raises
    ------
    UserError
        If the shapes do not fit together or a value is not finite.
    """
    n_features = len(moments.mean)
    if moments.scatter.shape != (n_features, n_features):
        raise UserError(
            f"{path}: scatter of shape {moments.scatter.shape}, wanted {n_features} squared"
        )
    arrays = {
        "mean": moments.mean,
        "triangle": moments.scatter[np.triu_indices(n_features)],
        "spectrum": moments.spectrum,
    }
    facts = {
        **MOMENTS,
        "experiment": moments.experiment,
        "count": moments.count,
        "settings": dict(moments.settings),
        "encoder": moments.encoder,
        **({"set_aside": True} if moments.set_aside else {}),
        "stamp": dict(stamp),
    }
    write_arrays(path, arrays, facts)


def read_moments(path: Path) -> ControlMoments:
    """Read and check the moments of one experiment.

    Raises
    ------
    UserError
        If the file is none of this format or its arrays do not fit together.
    """
    arrays, facts = read_arrays(path, ("mean", "triangle", "spectrum"), MOMENTS, "moments file")
    n_features = len(arrays["mean"])
    wanted = n_features * (n_features + 1) // 2
    if arrays["triangle"].shape != (wanted,) or len(arrays["spectrum"]) > n_features:
        raise UserError(
            f"{path}: triangle of {arrays['triangle'].size} and spectrum of"
            f" {arrays['spectrum'].size} numbers, wanted {wanted} and at most {n_features}"
        )
    scatter_DD = np.zeros((n_features, n_features))
    scatter_DD[np.triu_indices(n_features)] = arrays["triangle"]
    scatter_DD.T[np.triu_indices(n_features)] = arrays["triangle"]
    return ControlMoments(
        facts["experiment"], int(facts["count"]), arrays["mean"], scatter_DD,
        arrays["spectrum"], facts["settings"], facts["encoder"], facts.get("set_aside", False),
    )  # fmt: skip


def experiment_of(path: Path) -> str:
    """Read whose moments a file holds, without the arrays."""
    return str(read_arrays(path, (), MOMENTS, "moments file")[1]["experiment"])


def write_middles(
    path: Path,
    experiment: str,
    cell_type: str,
    middle_R: NDArray[np.float64],
    axes: str,
    stamp: Stamp,
) -> None:
    """Write where the middle well of one experiment lies as seen from its controls.

    Parameters
    ----------
    path : Path
        The file.
    experiment : str
        The experiment.
    cell_type : str
        Its cell type, or types.
    middle_R : float array of shape (n_aligned_features,)
        Middles of the projected wells; without numbers where no well passes qc.
    axes : str
        Fingerprint of the axes that they were projected on.
    stamp : mapping
        The step's stamp.
    """
    facts = {
        **MIDDLES,
        "experiment": experiment,
        "cell_type": cell_type,
        "axes": axes,
        "stamp": dict(stamp),
    }
    write_arrays(path, {"middle": middle_R}, facts)


def read_middles(path: Path) -> tuple[str, str, str, NDArray[np.float64]]:
    """Read the experiment, its cell type, the fingerprint of the axes, and the middles."""
    arrays, facts = read_arrays(path, ("middle",), MIDDLES, "middles file")
    names = (str(facts[key]) for key in ("experiment", "cell_type", "axes"))
    return (*names, arrays["middle"])  # type: ignore[return-value]
