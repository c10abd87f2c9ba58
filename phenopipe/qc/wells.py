"""Step ``wells``: which tests each well fails, by what score."""

import sys
from collections.abc import Sequence

import polars as pl

from phenopipe.formats.images import read_images
from phenopipe.formats.qc import FAILS, NO_GO, read_metrics, write_qc_wells
from phenopipe.formats.wells import N_IMAGES, read_wells
from phenopipe.knobs import parse_step, run_step
from phenopipe.qc.checks import (
    MISSING_FEATURES,
    check_features,
    check_images,
    check_labels,
    check_pixels,
    with_limits,
)
from phenopipe.qc.config import WellsKnobs
from phenopipe.qc.gate import gate, tell_gate

# A well that fails one of these has no embedding.
ESSENTIAL = tuple(f"{FAILS}{test}" for test in ("pixels", "size", "channels", "features"))


def flag_wells(
    wells: pl.DataFrame, images: pl.DataFrame, metrics: pl.DataFrame, knobs: WellsKnobs
) -> pl.DataFrame:
    """Test every well of an experiment.

    Parameters
    ----------
    wells, images : DataFrame
        Wells and images of the experiment; no images where it came as profiles.
    metrics : DataFrame
        Metrics of its sites or profiles.
    knobs : WellsKnobs
        Limits.

    Returns
    -------
    DataFrame
        The wells with ``n_images``, ``fails_<test>``, ``score_<test>`` (null where a test had
        nothing to look at), ``limit_<test>``, ``passes`` and ``reason``. Where the gate is
        shut, all wells fail with the reason ``experiment``.

    Notes
    -----
    Paper A.1 steps 1 and 2. The metrics of one experiment are held at once: 588 wells
    take 2 s, most of them for starting, and 0.18 GB.
    """
    checks = [check_labels(wells, knobs)]
    if MISSING_FEATURES in metrics.columns:
        checks.append(check_features(metrics, knobs))
    else:
        checks += [check_pixels(wells, images, knobs), check_images(wells, metrics, knobs)]
    counts = images.group_by("well_id").agg(pl.len().cast(pl.Int32).alias(N_IMAGES))
    flags = wells.join(counts, on="well_id", how="left", maintain_order="left")
    flags = flags.with_columns(pl.col(N_IMAGES).fill_null(0))
    for check in checks:
        flags = flags.join(check, on="well_id", how="left", maintain_order="left")
    tests = [name for name in flags.columns if name.startswith(FAILS)]
    flags = flags.with_columns(
        pl.col(name).fill_null(value=False) & (knobs.enabled or name in ESSENTIAL)
        for name in tests
    )
    flags = gate(with_limits(flags, knobs), knobs)
    tests.append(NO_GO)
    failed = [pl.when(name).then(pl.lit(name.removeprefix(FAILS))) for name in tests]
    return flags.with_columns(
        passes=~pl.any_horizontal(tests),
        reason=pl.concat_str(failed, separator=", ", ignore_nulls=True),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``qc_wells``."""
    files, knobs = parse_step(
        WellsKnobs,
        inputs=["wells", "images", "metrics"],
        outputs=["flags"],
        names=["screen", "experiment"],
        doc=__doc__,
        argv=argv,
    )
    wells, images = read_wells(files.wells), read_images(files.images)
    flags = flag_wells(wells, images, read_metrics(files.metrics), knobs)
    for line in tell_gate(flags, files.experiment):
        print(line, file=sys.stderr)
    write_qc_wells(files.flags, flags, files.stamp)


if __name__ == "__main__":
    run_step(main)
