"""Step ``profiles``: aligned wells of an experiment as a wide table of profiles.

Peak memory: the experiment, twice.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.export.config import ProfilesKnobs
from phenopipe.export.metadata import feature_names, metadata_of
from phenopipe.export.wells import provenance
from phenopipe.formats.aligned import read_aligned
from phenopipe.formats.atomic import atomic
from phenopipe.formats.tables import STAMP_KEY
from phenopipe.knobs import parse_step, run_step


def as_profiles(metadata: pl.DataFrame, x_WD: NDArray[np.float32]) -> pl.DataFrame:
    """Put embeddings beside their metadata, one column a feature."""
    features = pl.from_numpy(x_WD, schema=feature_names(x_WD.shape[1]))
    return metadata.hstack(features)


def read_profiles(aligned: Path) -> pl.DataFrame:
    """Read the aligned wells of an experiment as profiles."""
    wells, x_WD = read_aligned(aligned)
    return as_profiles(metadata_of(wells), x_WD)


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``export_profiles``."""
    files, _ = parse_step(
        ProfilesKnobs,
        inputs=["aligned"],
        outputs=["exported"],
        names=["screen", "encoder", "experiment"],
        doc=__doc__,
        argv=argv,
    )
    with atomic(files.exported) as temporary:
        told = {STAMP_KEY: provenance(files.stamp, [files.aligned])}
        read_profiles(files.aligned).write_parquet(temporary, metadata=told)


if __name__ == "__main__":
    run_step(main)
