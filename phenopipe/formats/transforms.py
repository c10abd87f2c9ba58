"""transform.npz: what an alignment learned from the controls of all experiments.

Shape suffixes: D features, R aligned features.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phenopipe.errors import UserError
from phenopipe.formats.atomic import atomic
from phenopipe.formats.tables import Stamp

METHODS = ("tvn", "pca", "none")
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
    median : float array of shape (n_aligned_features,)
        Where the median well lies as seen from the controls; zero if centres come from
        controls.
    settings : mapping
        The knobs of the fit that aligning has to follow: ``control_role,
        center_by_experiment, center_on, regularization, n_components, holdout, seed``.
    experiments : mapping of str to int
        Controls of each experiment that the transform was fitted on.
    """

    method: str
    center: NDArray[np.float64]
    projection: NDArray[np.float64]
    median: NDArray[np.float64]
    settings: Mapping[str, Any]
    experiments: Mapping[str, int]


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
        "stamp": dict(stamp),
    }
    text = json.dumps(facts, sort_keys=True, default=str).encode()
    with atomic(path) as temporary, temporary.open("wb") as handle:
        np.savez(
            handle,
            center=transform.center.astype(np.float64),
            projection=transform.projection.astype(np.float64),
            median=transform.median.astype(np.float64),
            # As bytes, so that reading needs no pickle.
            facts=np.frombuffer(text, dtype=np.uint8),
        )


def read_transform(path: Path) -> Transform:
    """Read and check a transform.

    Raises
    ------
    UserError
        If the file is no transform of this format.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            fitted = [arrays[name] for name in ("center", "projection", "median")]
            facts = json.loads(arrays["facts"].tobytes())
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UserError(f"{path}: not a readable transform ({error})") from None
    if {key: facts.get(key) for key in FORMAT} != FORMAT:
        raise UserError(f"{path}: another format than {FORMAT}")
    center, projection, median = fitted
    transform = Transform(
        facts["method"], center, projection, median, facts["settings"], facts["experiments"]
    )
    _check(transform, path)
    return transform


def _check(transform: Transform, path: Path) -> None:
    if transform.method not in METHODS:
        raise UserError(f"{path}: method {transform.method!r}, wanted {', '.join(METHODS)}")
    wanted = (*transform.center.shape, *transform.median.shape)
    if transform.projection.shape != wanted:
        raise UserError(
            f"{path}: projection of shape {transform.projection.shape}, wanted {wanted}"
        )
    for array in (transform.center, transform.projection, transform.median):
        if not np.isfinite(array).all():
            raise UserError(f"{path}: a value is not finite")
