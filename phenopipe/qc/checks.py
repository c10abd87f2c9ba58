"""The tests that a well must pass: each a table of ``score_<test>`` and ``fails_<test>``.

A test with a score has a limit, which is a knob; :func:`with_limits` writes it beside.
"""

from collections.abc import Callable

import numpy as np
import polars as pl

from phenopipe.errors import UserError, reason
from phenopipe.formats.qc import FAILS, LIMIT, SCORE
from phenopipe.formats.wells import conditions
from phenopipe.qc import scores
from phenopipe.qc.config import WellsKnobs

MISSING_FEATURES = "missing_features"
Score = Callable[[scores.Plates], scores.Float]
# Tests of images whose score must not be above, or below, the knob beside it.
ABOVE: dict[str, tuple[Score, str]] = {
    "focus": (scores.blur_score, "max_blur"),
    "dead_cells": (scores.dead_cells_score, "max_dead_cells"),
    "saturation": (scores.saturation_score, "max_saturation"),
    "background": (scores.background_score, "max_background"),
    "illumination": (scores.shading_score, "max_shading"),
    "artefact": (scores.artefact_score, "max_artefact"),
    "outlier": (scores.outlier_score, "max_outlier"),
}
BELOW: dict[str, tuple[Score, str]] = {
    "foreground": (scores.foreground_score, "min_foreground"),
    "objects": (scores.objects_score, "min_objects"),
    "dark_channel": (scores.contrast_score, "min_contrast"),
}

# The knob that each score is held against.
LIMITS = {test: knob for test, (_, knob) in (ABOVE | BELOW).items()} | {
    "size": "odd_sites",
    "channels": "odd_sites",
    "perturbations": "max_perturbations",
    "features": "max_missing_features",
}


def with_limits(flags: pl.DataFrame, knobs: WellsKnobs) -> pl.DataFrame:
    """Add ``limit_<test>``, what the score of each test was held against."""
    return flags.with_columns(
        pl.lit(getattr(knobs, knob), pl.Float64).alias(f"{LIMIT}{test}")
        for test, knob in LIMITS.items()
        if f"{SCORE}{test}" in flags.columns
    )


def check_images(wells: pl.DataFrame, metrics: pl.DataFrame, knobs: WellsKnobs) -> pl.DataFrame:
    """Test what the images of each well show.

    Parameters
    ----------
    wells : DataFrame
        Wells of the experiment.
    metrics : DataFrame
        Metrics of its sites.
    knobs : WellsKnobs
        Limits.

    Returns
    -------
    DataFrame
        ``well_id`` of every well with a measured site, and score and flag of each test. A
        well's score is the median of its sites: one bad field of many does not lose it.
    """
    sites = metrics.join(wells.select("well_id", "plate", "role"), on="well_id").filter(
        pl.col("objects").is_not_null()
    )
    if sites.is_empty():
        return sites.select("well_id")
    plates = scores.Plates(sites, knobs.min_reference)
    columns = {
        f"{SCORE}{test}": np.asarray(score(plates), dtype=np.float64)
        for test, (score, _) in (ABOVE | BELOW).items()
    }
    by_well = (
        pl.DataFrame({"well_id": sites["well_id"], **columns}, nan_to_null=True)
        .group_by("well_id")
        .agg(pl.all().median())
    )
    limit = {test: getattr(knobs, LIMITS[test]) for test in LIMITS}
    # A limit that is not set is never passed.
    most = {test: float("inf") if limit[test] is None else limit[test] for test in ABOVE}
    too_high = [pl.col(f"{SCORE}{t}").gt(most[t]).alias(f"{FAILS}{t}") for t in ABOVE]
    too_low = [pl.col(f"{SCORE}{t}").lt(limit[t]).alias(f"{FAILS}{t}") for t in BELOW]
    return by_well.with_columns(*too_high, *too_low)


def check_pixels(wells: pl.DataFrame, images: pl.DataFrame, knobs: WellsKnobs) -> pl.DataFrame:
    """Test whether each well's sites were stored and are like those of the other wells.

    Returns
    -------
    DataFrame
        ``well_id`` of every well; ``score_size`` and ``score_channels``, the share of its
        sites that are unlike most of the experiment, and their flags; ``fails_pixels``
        where there are none, or none that can be read. With ``enabled`` off a well must
        also have lost all sites to fail.
    """
    readable = pl.col("height") > 0
    usual = images.filter(readable)
    sites = images.with_columns(
        odd_size=_unlike_most(usual, ("height", "width")) & readable,
        odd_channels=_unlike_most(usual, ("channels",)) & readable,
    )
    lost = pl.col("index").is_null().all()
    counted = lost | pl.lit(knobs.enabled)
    by_well = sites.group_by("well_id").agg(
        score_size=pl.col("odd_size").mean(),
        score_channels=pl.col("odd_channels").mean(),
        fails_size=counted & (pl.col("odd_size").mean() >= knobs.odd_sites),
        fails_channels=counted & (pl.col("odd_channels").mean() >= knobs.odd_sites),
        fails_pixels=lost & ~pl.any_horizontal("odd_size", "odd_channels").any(),
    )
    return (
        wells.select("well_id")
        .join(by_well, on="well_id", how="left", maintain_order="left")
        .with_columns(
            pl.col("fails_pixels").fill_null(value=True),
            pl.col("fails_size", "fails_channels").fill_null(value=False),
        )
    )


def check_features(metrics: pl.DataFrame, knobs: WellsKnobs) -> pl.DataFrame:
    """Test whether each well's profile is complete."""
    missing = pl.col(MISSING_FEATURES)
    return metrics.select(
        "well_id",
        missing.alias(f"{SCORE}features"),
        (missing > knobs.max_missing_features).alias(f"{FAILS}features"),
    )


def check_labels(wells: pl.DataFrame, knobs: WellsKnobs) -> pl.DataFrame:
    """Test what is known about each well: its perturbations and its assay conditions.

    Returns
    -------
    DataFrame
        ``well_id`` of every well; ``fails_perturbation_missing`` where a perturbation or
        positive control is unknown, ``score_perturbations``, how many there are, and
        ``fails_perturbations``, ``fails_assay`` where the assay conditions are not met.

    Raises
    ------
    UserError
        If the expression of the assay conditions cannot be used.
    """
    applied = conditions(wells)
    counts = applied.group_by("well_id").agg(
        score_perturbations=pl.col("n_perturbations").max().cast(pl.Float64)
    )
    return (
        wells.select(
            "well_id",
            fails_perturbation_missing=unlabelled(wells),
            fails_assay=_unmet(wells, knobs.assay),
        )
        .join(counts, on="well_id", how="left", maintain_order="left")
        .with_columns(pl.col("score_perturbations").fill_null(0.0))
        .with_columns(
            fails_perturbations=pl.col("score_perturbations") > knobs.max_perturbations
        )
    )


def unlabelled(wells: pl.DataFrame) -> pl.Series:
    """Whether each well should have a perturbation and has none, or one without a name."""
    applied = conditions(wells)
    nameless = applied.filter(pl.col("perturbation").fill_null("") == "")["well_id"]
    treated = pl.col("role").is_in(("perturbation", "positive_control"))
    unknown = treated & ~pl.col("well_id").is_in(applied["well_id"].implode())
    return wells.select(unknown | pl.col("well_id").is_in(nameless.implode())).to_series()


def _unlike_most(images: pl.DataFrame, columns: tuple[str, ...]) -> pl.Expr:
    """Whether a site differs from the most frequent values of some columns."""
    if images.is_empty():
        return pl.lit(value=False)
    counts = images.group_by(columns).len().sort("len", *columns, descending=True)
    usual = zip(columns, counts.row(0), strict=False)
    return pl.any_horizontal([pl.col(name) != value for name, value in usual])


def _unmet(wells: pl.DataFrame, expression: str) -> pl.Series:
    """Wells for which an SQL expression is not true; what is unknown is not true."""
    if not expression.strip():
        return pl.zeros(wells.height, pl.Boolean, eager=True)
    try:
        met = wells.select(met=pl.sql_expr(expression)).to_series()
    except pl.exceptions.PolarsError as error:
        raise UserError(
            f"qc.wells.assay: {expression!r} cannot be used ({reason(error)})"
        ) from None
    if met.dtype != pl.Boolean or len(met) != wells.height:
        raise UserError(f"qc.wells.assay: {expression!r} is not true or false for each well")
    return ~met.fill_null(value=False)
