"""Step ``profiles``: missing features of every well of a screen without images."""

from collections.abc import Sequence

import polars as pl

from phenopipe.errors import UserError
from phenopipe.formats.profiles import feature_names, read_profiles
from phenopipe.formats.qc import write_metrics
from phenopipe.formats.wells import read_wells
from phenopipe.knobs import parse_step, run_step
from phenopipe.qc.config import ProfilesKnobs


def measure_profiles(wells: pl.DataFrame, profiles: pl.DataFrame) -> pl.DataFrame:
    """Share of features that each well lacks.

    Parameters
    ----------
    wells : DataFrame
        Wells of the experiment.
    profiles : DataFrame
        ``well_id`` and one column a feature.

    Returns
    -------
    DataFrame
        ``image_id`` (the well's id), ``well_id``, ``missing_features``; a well without a
        profile lacks all of them.

    Raises
    ------
    UserError
        If a profile belongs to no well.
    """
    strange = profiles.join(wells, on="well_id", how="anti")
    if strange.height:
        raise UserError(
            f"profile of well {strange['well_id'][0]!r}, which is not among the wells"
        )
    features = [
        (~pl.col(name).is_finite()).fill_null(value=True) for name in feature_names(profiles)
    ]
    missing = profiles.select("well_id", missing_features=pl.mean_horizontal(features))
    return (
        wells.select(image_id="well_id", well_id="well_id")
        .join(missing, on="well_id", how="left", maintain_order="left")
        .with_columns(pl.col("missing_features").fill_null(1.0))
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``qc_profiles``."""
    files, _ = parse_step(
        ProfilesKnobs,
        inputs=["wells", "profiles"],
        outputs=["metrics"],
        names=["screen", "experiment"],
        doc=__doc__,
        argv=argv,
    )
    metrics = measure_profiles(read_wells(files.wells), read_profiles(files.profiles))
    write_metrics(files.metrics, metrics, files.stamp)


if __name__ == "__main__":
    run_step(main)
