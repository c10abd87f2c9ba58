"""Step ``manifests``: a training set with one flat row a well, as parquet and as CSV.

Peak memory: a part of the manifest at a time, a few hundred megabytes.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from phenopipe.export.config import ManifestsKnobs
from phenopipe.export.metadata import metadata_of
from phenopipe.export.wells import provenance
from phenopipe.formats.atomic import atomic
from phenopipe.formats.manifests import MANIFEST
from phenopipe.formats.parts import Part, parts_of_file, prepared
from phenopipe.formats.tables import STAMP_KEY, Stamp
from phenopipe.knobs import parse_step, run_step

WHY = ("saved_by", "judge", "p_value")


def flat_part(part: Part) -> pl.DataFrame:
    """Describe some wells of a manifest in flat columns, and what saved each."""
    wells = part.read(lambda _: True)
    return metadata_of(wells.drop(WHY)).hstack(wells.select(WHY))


def write_flat(manifest: Path, parquet: Path, csv: Path, stamp: Stamp) -> None:
    """Write a manifest's wells in their order, a part at a time."""
    parts, _ = parts_of_file(manifest, MANIFEST)
    empty = flat_part(Part((manifest,), 0, 0, tuple(pl.read_parquet_schema(manifest))))
    told = {STAMP_KEY: provenance(stamp, [manifest])}
    form = empty.to_arrow().schema.with_metadata(told)
    with (
        atomic(parquet) as whole,
        atomic(csv) as text,
        pq.ParquetWriter(whole, form, compression="zstd") as writer,
        text.open("wb") as lines,
    ):
        empty.write_csv(lines)
        for frame in prepared(flat_part, parts):
            rows = frame.cast(empty.schema)
            writer.write_table(rows.to_arrow().cast(form))
            rows.write_csv(lines, include_header=False)


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``export_manifests``."""
    files, _ = parse_step(
        ManifestsKnobs,
        inputs=["wells"],
        outputs=["parquet", "csv"],
        names=["manifest"],
        doc=__doc__,
        argv=argv,
    )
    write_flat(files.wells, files.parquet, files.csv, files.stamp)


if __name__ == "__main__":
    run_step(main)
