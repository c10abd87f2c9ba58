"""Step ``fit``: learn from the controls of all experiments what varies among them."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from phenopipe.align.config import FitKnobs
from phenopipe.align.controls import Floats
from phenopipe.align.embedded import fitted_wells, read_embedded, require_controls
from phenopipe.align.moments import moments
from phenopipe.align.pca import fit_components
from phenopipe.align.tvn import fit_typical_variation
from phenopipe.errors import UserError
from phenopipe.formats.qc import QC_WELLS
from phenopipe.formats.tables import read_table
from phenopipe.formats.transforms import Transform, write_transform
from phenopipe.knobs import parse_step, run_step

# Knobs that the steps after this one have to follow.
SETTINGS = (
    "control_role",
    "center_by_experiment",
    "center_on",
    "regularization",
    "holdout",
    "seed",
)


def fit_transform(controls: Iterable[tuple[str, Floats]], knobs: FitKnobs) -> Transform:
    """Fit the part of the alignment that all experiments share.

    Parameters
    ----------
    controls : iterable of (str, float array of shape (n_controls, n_features))
        Each experiment's name and controls, taken one experiment at a time.
    knobs : FitKnobs
        Settings.

    Returns
    -------
    Transform
        What ``apply`` needs beside an experiment's own controls.

    Raises
    ------
    UserError
        If experiments differ in their number of features, or the controls do not vary.
    """
    shapes: dict[str, tuple[int, int]] = {}
    rows = _watched(controls, shapes)
    try:
        if knobs.method == "tvn":
            center_D, projection_DR = fit_typical_variation(
                map(moments, rows),
                center_by_experiment=knobs.center_by_experiment,
                n_components=knobs.n_components,
            )
        elif knobs.method == "pca":
            projection_DR = fit_components(map(moments, rows), knobs.n_components)
            center_D = np.zeros(len(projection_DR))
        else:
            deque(rows, maxlen=0)
            n_features = max(width for _, width in shapes.values())
            center_D, projection_DR = np.zeros(n_features), np.empty((n_features, 0))
    except ValueError as error:
        raise UserError(f"alignment cannot be fitted: {error}") from None
    settings = {name: getattr(knobs, name) for name in SETTINGS}
    counts = {name: count for name, (count, _) in shapes.items()}
    return Transform(knobs.method, center_D, projection_DR, settings, counts)


def _watched(
    controls: Iterable[tuple[str, Floats]], shapes: dict[str, tuple[int, int]]
) -> Iterator[Floats]:
    """Pass controls on, note their shapes, and raise if their widths differ."""
    for name, x_ND in controls:
        shapes[name] = (len(x_ND), x_ND.shape[1])
        first, (_, width) = next(iter(shapes.items()))
        if x_ND.shape[1] != width:
            raise UserError(
                f"experiment {name}: {x_ND.shape[1]} features, wanted {width} as in {first}"
            )
        yield x_ND


def experiment_files(
    embeddings: Sequence[Path], wells: Sequence[Path], experiments: Sequence[str] | None
) -> dict[str, tuple[Path, Path]]:
    """Files of each experiment to fit on, sorted by name so that no other order counts.

    Raises
    ------
    UserError
        If the lists do not pair up, or a named experiment is not among them.
    """
    if len(embeddings) != len(wells) or not wells:
        raise UserError(f"{len(embeddings)} embeddings and {len(wells)} wells, wanted pairs")
    found: dict[str, tuple[Path, Path]] = {}
    for pair in zip(embeddings, wells, strict=True):
        names = read_table(pair[1], QC_WELLS, columns=["experiment"])["experiment"].unique()
        if len(names) != 1 or names[0] in found:
            raise UserError(f"{pair[1]}: experiments {names.to_list()}, wanted one, once")
        found[names[0]] = pair
    for name in experiments or ():
        if name not in found:
            raise UserError(f"experiments: {name!r} has no embeddings, found {sorted(found)}")
    return {name: found[name] for name in sorted(experiments or found)}


def read_controls(
    files: dict[str, tuple[Path, Path]], knobs: FitKnobs
) -> Iterator[tuple[str, Floats]]:
    """Read one experiment after the other, and of each the controls that fits may see.

    Raises
    ------
    UserError
        If an experiment has none, unless nothing is fitted.
    """
    for name, (embeddings, wells) in files.items():
        embedded = read_embedded(embeddings, wells)
        fitted = fitted_wells(embedded.wells, knobs.control_role, knobs.holdout, knobs.seed)
        if knobs.method != "none":
            require_controls(fitted.controls, wells, name, knobs.control_role)
        yield name, embedded.x[fitted.controls]


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``align_fit``."""
    files, knobs = parse_step(
        FitKnobs,
        inputs=["embeddings*", "wells*"],
        outputs=["transform"],
        names=["screen", "encoder"],
        doc=__doc__,
        argv=argv,
    )
    pairs = experiment_files(files.embeddings, files.wells, knobs.experiments)
    transform = fit_transform(read_controls(pairs, knobs), knobs)
    write_transform(files.transform, transform, files.stamp)
    n_features, n_aligned = transform.projection.shape
    print(
        f"{knobs.method} of {sum(transform.experiments.values())} controls in"
        f" {len(transform.experiments)} experiments: {n_features} features to {n_aligned}"
    )


if __name__ == "__main__":
    run_step(main)
