"""Step ``fit``: learn from the controls of all experiments what varies among them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from phenopipe.align.config import FitKnobs
from phenopipe.align.controls import Floats
from phenopipe.align.embedded import (
    encoder_behind,
    fitted_wells,
    read_embedded,
    require_controls,
)
from phenopipe.align.methods import make_normalizer
from phenopipe.align.moments import moments
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
    "n_components",
    "holdout",
    "seed",
)


class Part(NamedTuple):
    """What a fit sees of one experiment.

    Attributes
    ----------
    name : str
        Name of the experiment.
    controls, wells : float array of shape (n_wells, n_features)
        Its controls, and its wells of any role, without those held out.
    """

    name: str
    controls: Floats
    wells: Floats


def fit_transform(parts: Callable[[], Iterable[Part]], knobs: FitKnobs) -> Transform:
    """Fit the part of the alignment that all experiments share.

    Parameters
    ----------
    parts : function without arguments
        Returns an iterable of the experiments, which are taken one at a time; called a
        second time where centres come from all wells.
    knobs : FitKnobs
        Settings.

    Returns
    -------
    Transform
        What ``apply`` needs beside an experiment's own wells.

    Raises
    ------
    UserError
        If experiments differ in their number of features, or the controls do not vary.
    """
    shapes: dict[str, tuple[int, int]] = {}
    rows = _watched(parts(), shapes)
    settings = {name: getattr(knobs, name) for name in SETTINGS}
    normalizer = make_normalizer(knobs.method, settings)
    if normalizer is None:
        deque(rows, maxlen=0)
        n_features = next(iter(shapes.values()))[1]
        arrays = (np.zeros(n_features), np.empty((n_features, 0)), np.empty(0))
    else:
        try:
            normalizer.fit_shared(map(moments, rows))
        except ValueError as error:
            raise UserError(f"alignment cannot be fitted: {error}") from None
        if knobs.center_on == "wells" and normalizer.centers_each:
            normalizer.fit_median((part.controls, part.wells) for part in parts())
        arrays = (normalizer.center_, normalizer.projection_, normalizer.median_)
    counts = {name: count for name, (count, _) in shapes.items()}
    return Transform(knobs.method, *arrays, settings, counts)


def _watched(parts: Iterable[Part], shapes: dict[str, tuple[int, int]]) -> Iterator[Floats]:
    """Pass controls on, note their shapes, and raise if their widths differ."""
    for name, control_ND, _ in parts:
        shapes[name] = (len(control_ND), control_ND.shape[1])
        first, (_, width) = next(iter(shapes.items()))
        if control_ND.shape[1] != width:
            raise UserError(
                f"experiment {name}: {control_ND.shape[1]} features, wanted {width} as in"
                f" {first}"
            )
        yield control_ND


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


def read_parts(files: dict[str, tuple[Path, Path]], knobs: FitKnobs) -> Iterator[Part]:
    """Read one experiment after the other, and of each the wells that fits may see.

    Raises
    ------
    UserError
        If an experiment has no control, unless nothing is fitted.
    """
    for name, (embeddings, wells) in files.items():
        embedded = read_embedded(embeddings, wells)
        fitted = fitted_wells(embedded.wells, knobs.control_role, knobs.holdout, knobs.seed)
        if knobs.method != "none":
            require_controls(fitted.controls, wells, name, knobs.control_role)
        yield Part(name, embedded.x[fitted.controls], embedded.x[fitted.wells])


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
    encoder = encoder_behind([store for store, _ in pairs.values()])
    transform = fit_transform(partial(read_parts, pairs, knobs), knobs)
    transform = replace(transform, settings={**transform.settings, "encoder": encoder})
    write_transform(files.transform, transform, files.stamp)
    n_features, n_aligned = transform.projection.shape
    print(
        f"{knobs.method} of {sum(transform.experiments.values())} controls in"
        f" {len(transform.experiments)} experiments: {n_features} features to {n_aligned}"
    )


if __name__ == "__main__":
    run_step(main)
