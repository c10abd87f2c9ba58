"""Step ``fit``: from the moments of every experiment's controls, what varies among them all.

Time and memory: one file of moments is held at a time, beside their sum; 50 experiments of
384 features take 1 s and 0.13 GB, nearly all of it imports. Wells are not read.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.align.config import FitKnobs
from phenopipe.align.methods import make_normalizer
from phenopipe.align.statistics import Moments, n_constant, pooled, spectrum
from phenopipe.errors import UserError
from phenopipe.formats.controls import CONTROLS
from phenopipe.formats.moments import ControlMoments, experiment_of, read_moments
from phenopipe.formats.tables import write_table
from phenopipe.formats.transforms import Transform, write_transform
from phenopipe.knobs import parse_step, run_step

# Knobs that the steps after this one have to follow, beside those of the moments.
SETTINGS = (
    "center_by_experiment",
    "center_on",
    "trim",
    "regularization",
    "n_components",
)


def fit_transform(
    parts: Iterable[ControlMoments], knobs: FitKnobs
) -> tuple[Transform, pl.DataFrame]:
    """Fit the part of the alignment that all experiments share.

    Parameters
    ----------
    parts : iterable of ControlMoments
        Moments of each experiment's controls; taken one at a time, in the order in which
        they are summed.
    knobs : FitKnobs
        Settings.

    Returns
    -------
    transform : Transform
        What ``apply`` needs beside an experiment's own wells; the middle is zero.
    controls : DataFrame
        The controls format: what each experiment's controls can tell.

    Raises
    ------
    UserError
        If experiments differ in features, encoders or choice of wells, one has wells and no
        control (unless nothing is fitted), or the controls do not vary.

    Notes
    -----
    An experiment without a single well that passes qc, as the gate leaves it, is passed over.
    """
    seen: list[dict[str, Any]] = []
    # Deviations from each experiment's own mean, where its centre goes first.
    within = knobs.method == "tvn" and knobs.center_by_experiment
    with_wells = (part for part in parts if not part.set_aside)
    counted = _counted(with_wells, knobs, seen)
    first = next(counted, None)
    if first is None:
        raise UserError("alignment cannot be fitted: no well of any experiment passes qc")
    total = pooled(chain([first], counted), within=within)
    settings = {**seen[0]["settings"], **{name: getattr(knobs, name) for name in SETTINGS}}
    normalizer = make_normalizer(knobs.method, settings)
    arrays = (np.zeros_like(total.mean), np.empty((len(total.mean), 0)), np.zeros((1, 0)))
    if normalizer is not None:
        try:
            normalizer.fit_shared([total])
        except ValueError as error:
            raise UserError(f"alignment cannot be fitted: {error}") from None
        arrays = (normalizer.center_, normalizer.projection_, normalizer.middle_[None])
    counts = {one["experiment"]: one["n_controls"] for one in seen}
    settings["encoder"] = next((one["encoder"] for one in seen if one["encoder"]), None)
    transform = Transform(knobs.method, *arrays, settings, counts)
    n_kept = len(total.mean) if normalizer is None else transform.projection.shape[1]
    return transform, _table([*seen, _told(None, total, spectrum(total))], n_kept)


def _counted(
    parts: Iterable[ControlMoments], knobs: FitKnobs, seen: list[dict[str, Any]]
) -> Iterator[Moments]:
    """Pass moments on, note what each experiment tells, and raise where they do not match."""
    for part in parts:
        if seen:
            _require_alike(part, seen)
        if knobs.method != "none" and not part.count:
            role = part.settings["control_role"]
            raise UserError(
                f"experiment {part.experiment} has 0 wells of role {role} that pass qc and are"
                " not held out, wanted at least 1"
            )
        own = Moments(part.count, part.mean, part.scatter)
        told = _told(part.experiment, own, part.spectrum)
        seen.append({**told, "settings": dict(part.settings), "encoder": part.encoder})
        yield own


def _require_alike(part: ControlMoments, seen: Sequence[Mapping[str, Any]]) -> None:
    first = seen[0]
    if len(part.mean) != first["n_features"]:
        raise UserError(
            f"experiment {part.experiment}: {len(part.mean)} features, wanted"
            f" {first['n_features']} as in {first['experiment']}"
        )
    known = next((one for one in seen if one["encoder"]), None)
    if known and part.encoder and part.encoder != known["encoder"]:
        raise UserError(
            f"experiment {part.experiment}: embeddings of encoder or features {part.encoder},"
            f" wanted {known['encoder']} as in {known['experiment']}"
        )
    if dict(part.settings) != first["settings"]:
        raise UserError(
            f"experiment {part.experiment}: controls chosen by {dict(part.settings)}, wanted"
            f" {first['settings']} as in {first['experiment']}"
        )


def _told(
    experiment: str | None, own: Moments, spectrum_K: NDArray[np.float64]
) -> dict[str, Any]:
    varies = len(spectrum_K) > 0
    return {
        "experiment": experiment,
        "n_controls": own.count,
        "n_features": len(own.mean),
        "n_constant": n_constant(own),
        "rank": len(spectrum_K),
        "largest": float(spectrum_K[0]) if varies else None,
        "smallest": float(spectrum_K[-1]) if varies else None,
        "condition": float(spectrum_K[0] / spectrum_K[-1]) if varies else None,
    }


def _table(rows: Sequence[Mapping[str, Any]], n_kept: int) -> pl.DataFrame:
    full = [
        {
            **row,
            "n_kept": n_kept,
            "n_dropped": row["n_features"] - n_kept,
            "n_unscaled": max(n_kept - row["rank"], 0),
        }
        for row in rows
    ]
    columns = {name: [row[name] for row in full] for name in CONTROLS.columns}
    return pl.DataFrame(columns, schema=CONTROLS.empty().schema)


def read_parts(
    paths: Sequence[Path], experiments: Sequence[str] | None
) -> Iterator[ControlMoments]:
    """Read the moments of the experiments to fit on, by name so that no other order counts.

    Raises
    ------
    UserError
        If an experiment has two files, or a named one has none.
    """
    found: dict[str, Path] = {}
    for path in paths:
        name = experiment_of(path)
        if name in found:
            raise UserError(f"{path}: experiment {name} as in {found[name]}, wanted one, once")
        found[name] = path
    for name in experiments or ():
        if name not in found:
            raise UserError(f"experiments: {name!r} has no moments, found {sorted(found)}")
    if not found:
        raise UserError("moments: no file, wanted those of at least one experiment")
    for name in sorted(experiments or found):
        yield read_moments(found[name])


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``align_fit``."""
    files, knobs = parse_step(
        FitKnobs,
        inputs=["moments*"],
        outputs=["axes", "controls"],
        names=["screen", "encoder"],
        doc=__doc__,
        argv=argv,
    )
    transform, controls = fit_transform(read_parts(files.moments, knobs.experiments), knobs)
    write_transform(files.axes, transform, files.stamp)
    write_table(files.controls, controls, CONTROLS, files.stamp)
    n_features, n_aligned = transform.projection.shape
    print(
        f"{knobs.method} of {sum(transform.experiments.values())} controls in"
        f" {len(transform.experiments)} experiments: {n_features} features to {n_aligned}"
    )


if __name__ == "__main__":
    run_step(main)
