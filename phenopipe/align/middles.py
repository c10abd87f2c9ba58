"""Step ``middles``: where one experiment's middle well lies as seen from its controls.

Only run where centres come from all wells (``center_on: wells``), after the fit on controls.

Time and memory: 20,000 wells of 384 features in 2 s and 0.36 GB.
"""

from collections.abc import Sequence

import numpy as np

from phenopipe.align.config import MiddlesKnobs
from phenopipe.align.embedded import (
    cell_type_of,
    encoder_behind,
    fitted_wells,
    read_embedded,
    require_controls,
)
from phenopipe.align.methods import restore_normalizer
from phenopipe.errors import UserError
from phenopipe.formats.fingerprint import fingerprint
from phenopipe.formats.moments import write_middles
from phenopipe.formats.transforms import read_transform
from phenopipe.knobs import parse_step, run_step


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``align_middles``."""
    files, _ = parse_step(
        MiddlesKnobs,
        inputs=["embeddings", "wells", "axes"],
        outputs=["middles"],
        names=["screen", "encoder", "experiment"],
        doc=__doc__,
        argv=argv,
    )
    axes = read_transform(files.axes)
    normalizer = restore_normalizer(axes)
    if normalizer is None:
        raise UserError(f"{files.axes}: method none has no axes, wanted tvn or pca")
    encoder_behind([files.embeddings], axes.settings.get("encoder"))
    wells, x_WD = read_embedded(files.embeddings, files.wells)
    role, holdout, seed = (axes.settings[k] for k in ("control_role", "holdout", "seed"))
    fitted = fitted_wells(wells, role, holdout, seed)
    middle_R = np.empty(0)
    if wells.height:
        require_controls(fitted.controls, files.wells, files.experiment, role)
        middle_R = normalizer.middle_of(x_WD[fitted.controls], x_WD[fitted.wells])
    axes_mark, cell_type = fingerprint(files.axes), cell_type_of(wells)
    write_middles(files.middles, files.experiment, cell_type, middle_R, axes_mark, files.stamp)
    print(f"{files.experiment}: middles of {fitted.wells.sum()} wells in {len(middle_R)} axes")


if __name__ == "__main__":
    run_step(main)
