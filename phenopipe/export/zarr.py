"""Step ``zarr``: aligned wells of a screen as one AnnData store.

Peak memory: one experiment, and a few hundred bytes a well.
"""

from collections.abc import Sequence

import zarr

from phenopipe.export.config import ZarrKnobs
from phenopipe.export.wells import annotate_wells
from phenopipe.formats.atomic import atomic
from phenopipe.knobs import parse_step, run_step


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``export_zarr``."""
    files, knobs = parse_step(
        ZarrKnobs,
        inputs=["aligned*"],
        outputs=["exported"],
        names=["screen", "encoder"],
        doc=__doc__,
        argv=argv,
    )
    with atomic(files.exported) as temporary:
        root = zarr.open_group(temporary, mode="w", zarr_format=3)
        annotate_wells(root, files, knobs.rows_a_chunk)


if __name__ == "__main__":
    run_step(main)
