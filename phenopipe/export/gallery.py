"""Step ``gallery``: aligned wells as a project of the Cell Painting Gallery.

Peak memory: one experiment, and 8 bytes a condition and feature for the consensus.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from phenopipe.errors import UserError
from phenopipe.export.config import GalleryKnobs
from phenopipe.export.metadata import (
    BACKGROUND,
    CONCENTRATION,
    NAMES,
    TREATED,
    feature_names,
    stacked,
)
from phenopipe.export.profiles import read_profiles
from phenopipe.export.wells import provenance, read_metadata, width_of
from phenopipe.formats.atomic import atomic
from phenopipe.formats.fingerprint import fingerprint
from phenopipe.formats.tables import STAMP_KEY
from phenopipe.knobs import parse_step, run_step

# What wells of one row of the consensus share.
CONSENSUS = (NAMES["screen"], NAMES["cell_type"], *TREATED.values(), BACKGROUND, CONCENTRATION)


class Consensus:
    """Mean profile of each condition, added up experiment by experiment."""

    def __init__(self, n_features: int) -> None:
        self.n_features = n_features
        self.row_of: dict[tuple[object, ...], int] = {}
        self.sum_CD = np.zeros((0, n_features))
        self.wells_C = np.zeros(0, dtype=np.int64)

    def add(self, profiles: pl.DataFrame) -> None:
        """Add the profiles of an experiment; wells without a perturbation are left out."""
        treated = profiles.filter(pl.col(TREATED["perturbation"]).is_not_null())
        keys = treated.select(CONSENSUS)
        distinct = keys.unique(maintain_order=True)
        new = [key for key in distinct.iter_rows() if key not in self.row_of]
        self.row_of |= {key: len(self.row_of) + i for i, key in enumerate(new)}
        grow = len(self.row_of) - len(self.sum_CD)
        self.sum_CD = np.concatenate([self.sum_CD, np.zeros((grow, self.n_features))])
        self.wells_C = np.concatenate([self.wells_C, np.zeros(grow, dtype=np.int64)])
        rows = np.array([self.row_of[key] for key in keys.iter_rows()], dtype=np.intp)
        np.add.at(self.sum_CD, rows, treated.select(feature_names(self.n_features)).to_numpy())
        np.add.at(self.wells_C, rows, 1)

    def table(self) -> pl.DataFrame:
        """One row a condition, sorted: what it is, its wells, its mean profile."""
        schema = dict.fromkeys(CONSENSUS, pl.String) | {CONCENTRATION: pl.Float64}
        about = pl.DataFrame(list(self.row_of), schema=schema, orient="row")
        mean_CD = (self.sum_CD / np.maximum(self.wells_C, 1)[:, None]).astype(np.float32)
        features = pl.from_numpy(mean_CD, schema=feature_names(self.n_features))
        counted = about.with_columns(Metadata_Wells=pl.Series(self.wells_C))
        return counted.hstack(features).sort(CONSENSUS, nulls_last=True)


def plates_of(profiles: pl.DataFrame) -> Iterator[tuple[Path, pl.DataFrame]]:
    """Yield the place of each plate, ``batch/plate/plate.parquet``, and its profiles.

    Raises
    ------
    UserError
        If the name of an experiment or plate is no name of a folder.
    """
    names = (NAMES["experiment"], NAMES["plate"])
    for key, rows in profiles.group_by(names, maintain_order=True):
        batch, plate = map(str, key)
        for name in (batch, plate):
            if not name or "/" in name or "\\" in name or name in (".", ".."):
                raise UserError(f"experiment or plate {name!r}, wanted a name of a folder")
        yield Path(batch, plate, f"{plate}.parquet"), rows


def write_gallery(
    place: Path, network: str, aligned: Sequence[Path], told: Mapping[str, str]
) -> None:
    """Write profiles of each plate, all of them collated, and the consensus of conditions.

    Parameters
    ----------
    place : Path
        The folder ``workspace_dl``.
    network : str
        Name of the encoder with a digest, as the gallery wants it.
    aligned : list of Path
        Aligned experiments of a screen.
    told : mapping of str to str
        What the metadata of every file say.
    """
    features = dict.fromkeys(feature_names(width_of(aligned)), pl.Float32)
    consensus = Consensus(len(features))
    none = read_metadata(aligned, n_rows=0).hstack(pl.DataFrame(schema=features))
    collated = place / "collated" / network / "collated.parquet"
    collated.parent.mkdir(parents=True)
    form = none.to_arrow().schema.with_metadata(dict(told))
    with pq.ParquetWriter(collated, form, compression="zstd") as writer:
        for path in aligned:
            profiles = stacked([none, read_profiles(path)]).select(none.columns)
            writer.write_table(profiles.cast(none.schema).to_arrow().cast(form))
            consensus.add(profiles)
            for where, rows in plates_of(profiles):
                target = place / "profiles" / network / where
                target.parent.mkdir(parents=True, exist_ok=True)
                rows.write_parquet(target, metadata=dict(told))
    (place / "consensus" / network).mkdir(parents=True)
    together = place / "consensus" / network / "consensus.parquet"
    consensus.table().write_parquet(together, metadata=dict(told))


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``export_gallery``."""
    files, knobs = parse_step(
        GalleryKnobs,
        inputs=["aligned*", "transform"],
        outputs=["exported"],
        names=["screen", "encoder"],
        doc=__doc__,
        argv=argv,
    )
    # The transform's digest stands for the encoder and for what was done to its embeddings.
    network = f"{files.encoder}_{fingerprint(files.transform)[:8]}"
    with atomic(files.exported) as temporary:
        place = temporary / knobs.project / knobs.source / "workspace_dl"
        told = {STAMP_KEY: provenance(files.stamp, files.aligned)}
        write_gallery(place, network, files.aligned, told)


if __name__ == "__main__":
    run_step(main)
