"""profiles.parquet: features that came with a screen, one row a well."""

from pathlib import Path

import polars as pl

from phenopipe.errors import UserError
from phenopipe.formats.tables import Schema, Stamp, read_table, write_table

PROFILES = Schema(
    "profiles",
    {"well_id": (pl.String, "unique over the screen")},
    unique=("well_id",),
    # Any name may be a feature's name.
    extra=("",),
)


def read_profiles(path: Path) -> pl.DataFrame:
    """Read wells with their features as float32, NaN where a well lacks one."""
    profiles = read_table(path, PROFILES)
    _check_features(profiles, path)
    return profiles


def write_profiles(path: Path, profiles: pl.DataFrame, stamp: Stamp) -> None:
    """Check and write wells with their features."""
    _check_features(profiles, path)
    write_table(path, profiles, PROFILES, stamp)


def feature_names(profiles: pl.DataFrame) -> list[str]:
    """Names of the features, in order."""
    return [name for name in profiles.columns if name != "well_id"]


def _check_features(profiles: pl.DataFrame, where: Path) -> None:
    names = feature_names(profiles)
    if not names:
        raise UserError(f"{where}: no feature column, wanted at least one beside well_id")
    schema = profiles.schema
    for name in names:
        if schema[name] != pl.Float32:
            raise UserError(f"{where}: feature {name!r} is {schema[name]}, wanted Float32")
