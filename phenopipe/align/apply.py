"""Step ``apply``: align the wells of one experiment on its own controls.

Time and memory: 20,000 wells of 384 features in 2 s and 0.4 GB.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from phenopipe.align.config import ApplyKnobs
from phenopipe.align.controls import Floats
from phenopipe.align.embedded import (
    Fitted,
    cell_type_of,
    encoder_behind,
    fitted_wells,
    read_embedded,
    require_controls,
)
from phenopipe.align.methods import restore_normalizer
from phenopipe.errors import UserError
from phenopipe.formats.aligned import write_aligned
from phenopipe.formats.embeddings import read_attributes
from phenopipe.formats.transforms import Transform, read_transform
from phenopipe.knobs import parse_step, run_step


def align_experiment(
    x_WD: Floats, fitted: Fitted, transform: Transform, cell_type: str = ""
) -> NDArray[np.float64]:
    """Align the wells of one experiment, whether or not the transform was fitted on it.

    Parameters
    ----------
    x_WD : float array of shape (n_wells, n_features)
        Embeddings of the experiment's wells.
    fitted : Fitted
        Wells that give the experiment its centre and spread.
    transform : Transform
        What was learned from all experiments.
    cell_type : str
        Cell type of the experiment, among whose middles its own is put.

    Returns
    -------
    float array of shape (n_wells, n_aligned_features)
        The same as the normalizer of the method would return, fitted on all experiments
        (with centres on wells: if they are of one cell type).

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
    normalizer = restore_normalizer(transform, cell_type)
    if normalizer is None:
        return x_WD.astype(np.float64)
    if not len(x_WD):
        return np.empty((0, transform.projection.shape[1]))
    central_WD = x_WD[fitted.wells] if transform.settings["center_on"] == "wells" else None
    return normalizer.map_of(x_WD[fitted.controls], central_WD)(x_WD)


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
    encoder_behind([files.embeddings], transform.settings.get("encoder"))
    wells, x_WD = read_embedded(files.embeddings, files.wells)
    role, holdout, seed = (transform.settings[k] for k in ("control_role", "holdout", "seed"))
    fitted = fitted_wells(wells, role, holdout, seed)
    if transform.method != "none" and wells.height:
        require_controls(
            fitted.controls, files.wells, files.experiment, role, knobs.min_controls
        )
    aligned_WR = align_experiment(x_WD, fitted, transform, cell_type_of(wells))
    attributes = read_attributes(files.embeddings)
    facts = {"block": attributes["blocks"][-1], "trimmed": attributes.get("trimmed", False)}
    on_wells = transform.settings["center_on"] == "wells"
    with_fitted = wells.with_columns(fitted=fitted.wells if on_wells else fitted.controls)
    write_aligned(files.aligned, with_fitted, aligned_WR, {**files.stamp, **facts})
    print(f"{files.experiment}: {wells.height} wells aligned, {fitted.controls.sum()} controls")


if __name__ == "__main__":
    run_step(main)
