"""Step ``h5ad``: aligned wells of a screen as one AnnData file.

Peak memory: one experiment, and a few hundred bytes a well.
"""

from collections.abc import Sequence

import h5py

from phenopipe.export.config import H5adKnobs
from phenopipe.export.wells import annotate_wells
from phenopipe.formats.atomic import atomic
from phenopipe.knobs import parse_step, run_step


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``export_h5ad``."""
    files, knobs = parse_step(
        H5adKnobs,
        inputs=["aligned*"],
        outputs=["exported"],
        names=["screen", "encoder"],
        doc=__doc__,
        argv=argv,
    )
    with atomic(files.exported) as temporary, h5py.File(temporary, "w") as root:
        annotate_wells(root, files, knobs.rows_a_chunk)


if __name__ == "__main__":
    run_step(main)
