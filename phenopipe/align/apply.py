"""Step ``apply``: align the wells of one experiment on its own controls."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from phenopipe.align import pca, tvn
from phenopipe.align.config import ApplyKnobs
from phenopipe.align.controls import Floats, control_mean, well_median
from phenopipe.align.embedded import Fitted, fitted_wells, read_embedded, require_controls
from phenopipe.errors import UserError
from phenopipe.formats.aligned import write_aligned
from phenopipe.formats.embeddings import read_attributes
from phenopipe.formats.transforms import Transform, read_transform
from phenopipe.knobs import parse_step, run_step


def align_experiment(x_WD: Floats, fitted: Fitted, transform: Transform) -> NDArray[np.float64]:
    """Align the wells of one experiment, whether or not the transform was fitted on it.

    Parameters
    ----------
    x_WD : float array of shape (n_wells, n_features)
        Embeddings of the experiment's wells.
    fitted : Fitted
        Wells that give the experiment its centre and spread.
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
    own_center_D = experiment_center(x_WD, fitted, transform.settings["center_on"])
    control_ND, projection_DR = x_WD[fitted.controls], transform.projection
    if transform.method == "pca":
        return pca.experiment_map(control_ND, own_center_D, projection_DR)(x_WD)
    own = transform.settings["center_by_experiment"]
    center_D = own_center_D if own else transform.center
    ridge = transform.settings["regularization"]
    return tvn.experiment_map(control_ND, center_D, projection_DR, ridge)(x_WD)


def experiment_center(x_WD: Floats, fitted: Fitted, center_on: str) -> NDArray[np.float64]:
    """Mean of an experiment's controls, or median of its wells; none that is held out."""
    if center_on == "controls":
        return control_mean(x_WD[fitted.controls])
    return well_median(x_WD[fitted.wells])


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
    fitted = fitted_wells(wells, role, holdout, seed)
    if transform.method != "none":
        require_controls(
            fitted.controls, files.wells, files.experiment, role, knobs.min_controls
        )
    aligned_WR = align_experiment(x_WD, fitted, transform)
    attributes = read_attributes(files.embeddings)
    facts = {"block": attributes["blocks"][-1], "trimmed": attributes.get("trimmed", False)}
    on_wells = transform.settings["center_on"] == "wells"
    with_fitted = wells.with_columns(fitted=fitted.wells if on_wells else fitted.controls)
    write_aligned(files.aligned, with_fitted, aligned_WR, {**files.stamp, **facts})
    print(f"{files.experiment}: {wells.height} wells aligned, {fitted.controls.sum()} controls")


if __name__ == "__main__":
    run_step(main)
