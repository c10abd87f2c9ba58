"""Step ``profiles``: features that came with a screen, in the form of embeddings."""

import hashlib
from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.embed.config import ProfilesKnobs
from phenopipe.formats.embeddings import write_embeddings
from phenopipe.formats.profiles import feature_names, read_profiles
from phenopipe.formats.wells import read_wells
from phenopipe.knobs import parse_step, run_step


def profiles_as_embeddings(wells: pl.DataFrame, profiles: pl.DataFrame) -> NDArray[np.float32]:
    """Return the features as one block, (n_wells, 1, n_features); NaN where there are none."""
    joined = wells.select("well_id").join(
        profiles, on="well_id", how="left", maintain_order="left"
    )
    x_WD = joined.select(feature_names(profiles)).to_numpy().astype(np.float32)
    return x_WD[:, None, :]


def fingerprint_of_features(names: Sequence[str]) -> str:
    """Digest of the features' names in order: what stands for the encoder's fingerprint.

    Alignment compares it, so that experiments never mix columns of different features.
    """
    return hashlib.sha256("\x1f".join(names).encode()).hexdigest()[:16]


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``embed_profiles``."""
    files, _ = parse_step(
        ProfilesKnobs,
        inputs=["wells", "profiles"],
        outputs=["embeddings"],
        names=["screen", "encoder", "experiment"],
        doc=__doc__,
        argv=argv,
    )
    wells, profiles = read_wells(files.wells), read_profiles(files.profiles)
    x_WBD = profiles_as_embeddings(wells, profiles)
    write_embeddings(
        files.embeddings,
        x_WBD,
        wells["well_id"].to_list(),
        block_numbers=[1],
        block_dims=[x_WBD.shape[2]],
        stamp=files.stamp,
        attributes={
            "encoder": fingerprint_of_features(feature_names(profiles)),
            "trimmed": False,
        },
    )


if __name__ == "__main__":
    run_step(main)
