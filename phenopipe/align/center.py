"""Step ``center``: the transform that aligns any experiment, from axes and middles.

Time and memory: a second and 0.1 GB, nearly all of it imports; reads one short vector an
experiment.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phenopipe.align.config import CenterKnobs, FitKnobs
from phenopipe.align.methods import restore_normalizer
from phenopipe.errors import UserError
from phenopipe.formats.fingerprint import fingerprint
from phenopipe.formats.moments import read_middles
from phenopipe.formats.transforms import Transform, read_transform, write_transform
from phenopipe.knobs import parse_step, run_step

# Cell type of an experiment, and where its middle well lies.
Middle = tuple[str, NDArray[np.float64]]


def centered(axes: Transform, middles: dict[str, Middle]) -> Transform:
    """Add to the axes where the middle well of each cell type lies, a mean over experiments.

    Parameters
    ----------
    axes : Transform
        What was fitted on controls.
    middles : dict of str to (str, float array of shape (n_aligned_features,))
        Cell type and middle of each experiment that the axes were fitted on; empty where
        centres come from controls.

    Raises
    ------
    UserError
        If middles are wanted and one is absent, or are not wanted and given.

    Notes
    -----
    Perturbations move the middle of one cell type elsewhere than that of another: put in
    line with each other, cell types whose controls agree would be drawn apart.
    """
    shared = {name: axes.settings[name] for name in ("center_by_experiment", "center_on")}
    wanted = FitKnobs(method=axes.method, **shared).centers_on_wells
    if set(middles) != (set(axes.experiments) if wanted else set()):
        raise UserError(
            f"middles of experiments {sorted(middles)}, wanted"
            f" {sorted(axes.experiments) if wanted else 'none'} as in the axes"
        )
    normalizer = restore_normalizer(axes)
    if normalizer is None or not wanted:
        return axes
    cell_types = tuple(sorted({cell_type for cell_type, _ in middles.values()}))
    rows = []
    for wanted_type in cell_types:
        # By name, so that the order of files does not decide the last digit.
        of_type = (m for _, (one, m) in sorted(middles.items()) if one == wanted_type)
        rows.append(normalizer.fit_middle(of_type).middle_)
    return replace(axes, middle=np.stack(rows), cell_types=cell_types)


def read_all(paths: Sequence[Path], axes: Path) -> dict[str, Middle]:
    """Read the middles of every experiment that has wells, all on the same axes.

    Raises
    ------
    UserError
        If a file belongs to other axes, or two to one experiment.
    """
    known = fingerprint(axes) if paths else ""
    middles: dict[str, Middle] = {}
    for path in paths:
        experiment, cell_type, of_axes, middle_R = read_middles(path)
        if of_axes != known:
            raise UserError(f"{path}: middles on axes {of_axes}, wanted {known} as in {axes}")
        if experiment in middles:
            raise UserError(f"{path}: experiment {experiment} a second time, wanted it once")
        if middle_R.size:
            middles[experiment] = (cell_type, middle_R)
    return middles


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``align_center``."""
    files, _ = parse_step(
        CenterKnobs,
        inputs=["axes", "middles*"],
        outputs=["transform"],
        names=["screen", "encoder"],
        doc=__doc__,
        argv=argv,
    )
    transform = centered(read_transform(files.axes), read_all(files.middles, files.axes))
    write_transform(files.transform, transform, files.stamp)
    print(
        f"transform of {len(transform.experiments)} experiments, {len(files.middles)} middles"
    )


if __name__ == "__main__":
    run_step(main)
