"""Step ``wells``: keep well-replicated conditions, and only some of the controls.

Two passes over the experiments: the first codes what was applied to every well, the second
writes the wells that stay. Peak memory: about twenty bytes a well, and a gigabyte.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phenopipe.formats.applied import Applied, Mask, Vocabulary
from phenopipe.formats.funnels import funnel_rows, write_funnel
from phenopipe.formats.parts import (
    Part,
    chosen_rows,
    parts_of_files,
    prepared,
    scanned,
    write_rows,
)
from phenopipe.formats.qc import QC_WELLS, is_flag
from phenopipe.formats.tables import Stamp
from phenopipe.formats.wells import COUNTED, COUNTED_WELLS
from phenopipe.knobs import parse_step, run_step
from phenopipe.undersample.config import WellsKnobs
from phenopipe.undersample.replication import replicated_targets
from phenopipe.undersample.survey import Survey, is_looked_at, survey

STEPS = ("screened", "data quality", "metadata", "replication", "undersampling")
# Wells to which nothing was done that could be replicated or not.
UNTREATED_ROLES = ("negative_control", "empty")


def undersample_wells(
    surveys: Iterable[Survey], vocabulary: Vocabulary, knobs: WellsKnobs
) -> tuple[Mask, dict[str, Any]]:
    """Apply steps 1 to 4 of the paper's curation, and count what each left over.

    Parameters
    ----------
    surveys : iterable of Survey
        All wells of a manifest's experiments.
    vocabulary : Vocabulary
        The one that coded them.
    knobs : WellsKnobs
        Settings.

    Returns
    -------
    kept_W : bool array of shape (n_wells,)
        The wells that are left.
    funnel : dict
        ``steps``: counts before and after each step; ``flagged``: wells that failed each
        qc test.
    """
    every = list(surveys)
    applied = Applied.of(vocabulary, [one.coded for one in every])
    nothing = [np.zeros(0, dtype=bool)]
    good_W = np.concatenate([one.good_W for one in every] or nothing)
    known_W = np.concatenate([one.known_W for one in every] or nothing)
    drawn_W = np.concatenate([one.drawn_W for one in every] or nothing)
    enough_T = replicated_targets(
        applied,
        known_W,
        [run for one in every for run in one.runs],
        min_experiments=knobs.min_experiments,
        min_wells=knobs.min_wells,
    )
    replicated_W = applied.wells_with(enough_T) | applied.has_role(*UNTREATED_ROLES)
    # Each step sees what the one before left over, so that their number says which.
    passed_W = np.ones(len(known_W), dtype=np.uint8)
    left_W = np.ones_like(known_W)
    for passes_W in (good_W, known_W, replicated_W, drawn_W):
        left_W &= passes_W
        passed_W += left_W
    rows = funnel_rows(0, STEPS, applied, passed_W)
    flagged: Counter[str] = Counter()
    for one in every:
        flagged.update(one.flagged)
    return left_W, {"steps": rows, "flagged": dict(sorted(flagged.items()))}


def undersample_files(
    wells: Sequence[Path], kept: Path, knobs: WellsKnobs, stamp: Stamp
) -> dict[str, Any]:
    """Undersample the experiments of many files, and write the wells that are left.

    Parameters
    ----------
    wells : list of Path
        The qc table of every experiment.
    kept : Path
        Where the wells go, without flags, in their order.
    knobs : WellsKnobs
        Settings.
    stamp : mapping
        The step's stamp.

    Returns
    -------
    dict
        The funnel, as :func:`undersample_wells` returns it.

    Raises
    ------
    UserError
        If a file is not of its format.
    """
    parts, columns = parts_of_files(wells, QC_WELLS)
    vocabulary = Vocabulary()

    def look(part: Part) -> Survey:
        return survey(part.read(is_looked_at), vocabulary, knobs)

    kept_W, funnel = undersample_wells(prepared(look, parts), vocabulary, knobs)
    names = [name for name in columns if name in COUNTED or not is_flag(name)]
    rows = chosen_rows(scanned(wells, columns).select(names), kept_W)
    write_rows(kept, rows, COUNTED_WELLS, stamp)
    return funnel


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``undersample_wells``."""
    files, knobs = parse_step(
        WellsKnobs,
        inputs=["wells*"],
        outputs=["kept", "funnel"],
        names=["manifest"],
        doc=__doc__,
        argv=argv,
    )
    funnel = undersample_files(files.wells, files.kept, knobs, files.stamp)
    write_funnel(files.funnel, funnel, files.stamp)


if __name__ == "__main__":
    run_step(main)
