"""Step ``apply``: align the wells of one experiment on its own controls."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from phenopipe.align import pca, tvn
from phenopipe.align.config import ApplyKnobs
from phenopipe.align.controls import Floats
from phenopipe.align.embedded import fitted_controls, read_embedded, require_controls
from phenopipe.errors import UserError
from phenopipe.formats.aligned import write_aligned
from phenopipe.formats.embeddings import read_attributes
from phenopipe.formats.transforms import Transform, read_transform
from phenopipe.knobs import parse_step, run_step


def align_experiment(
    x_WD: Floats, is_fitted_W: NDArray[np.bool_], transform: Transform
) -> NDArray[np.float64]:
    """Align the wells of one experiment, whether or not the transform was fitted on it.

    Parameters
    ----------
    x_WD : float array of shape (n_wells, n_features)
        Embeddings of the experiment's wells.
    is_fitted_W : bool array of shape (n_wells,)
        Controls that give the experiment its centre and spread.
    transform : Transform
        What was learned from all experiments.

    Returns
    -------
    float array of shape (n_wells, n_aligned_features)
        The same as the normalizer of the method would return, fitted on all experiments.

    Raises
    ------
    UserError
        If the embeddings have another number of features than the transform.
    """
    if x_WD.shape[1] != len(transform.center):
        raise UserError(
            f"embeddings of {x_WD.shape[1]} features, wanted {len(transform.center)}"
            " as in the transform"
        )
    if transform.method == "none":
        return x_WD.astype(np.float64)
    if transform.method == "pca":
        return pca.experiment_map(x_WD[is_fitted_W], transform.projection)(x_WD)
    return tvn.experiment_map(
        x_WD[is_fitted_W],
        transform.center,
        transform.projection,
        regularization=transform.settings["regularization"],
        center_by_experiment=transform.settings["center_by_experiment"],
    )(x_WD)


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``align_apply``."""
    files, knobs = parse_step(
        ApplyKnobs,
        inputs=["embeddings", "wells", "transform"],
        outputs=["aligned"],
        names=["screen", "encoder", "experiment"],
        doc=__doc__,
        argv=argv,
    )
    transform = read_transform(files.transform)
    wells, x_WD = read_embedded(files.embeddings, files.wells)
    role, holdout, seed = (transform.settings[k] for k in ("control_role", "holdout", "seed"))
    is_fitted_W = fitted_controls(wells, role, holdout, seed)
    if transform.method != "none":
        require_controls(is_fitted_W, files.wells, files.experiment, role, knobs.min_controls)
    aligned_WR = align_experiment(x_WD, is_fitted_W, transform)
    attributes = read_attributes(files.embeddings)
    facts = {"block": attributes["blocks"][-1], "trimmed": attributes.get("trimmed", False)}
    with_fitted = wells.with_columns(fitted=is_fitted_W)
    write_aligned(files.aligned, with_fitted, aligned_WR, {**files.stamp, **facts})
    print(f"{files.experiment}: {wells.height} wells aligned on {is_fitted_W.sum()} controls")


if __name__ == "__main__":
    run_step(main)
