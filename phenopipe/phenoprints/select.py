"""Step ``select``: the wells that a phenoprint keeps, with the funnel that led to them.

Two passes over the undersampled wells: the first codes what was applied to each, the
second writes those that stay. Peak memory: about twenty bytes a well, a few hundred bytes
a test, and a gigabyte.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.formats.applied import Applied, Coded, Mask, Vocabulary
from phenopipe.formats.funnels import Census, funnel_rows, read_funnel, write_funnel
from phenopipe.formats.manifests import MANIFEST
from phenopipe.formats.parts import (
    Part,
    chosen_rows,
    parts_of_file,
    prepared,
    scanned,
    write_rows,
)
from phenopipe.formats.pvalues import COMBINED
from phenopipe.formats.tables import Stamp, read_stamp, read_table
from phenopipe.formats.wells import CONDITIONS, COUNTED, COUNTED_WELLS
from phenopipe.knobs import parse_step, run_step
from phenopipe.phenoprints.config import Evidence, Rescue, SelectKnobs
from phenopipe.phenoprints.rescue import Judgement, saved_wells
from phenopipe.threads import side_by_side

# Wells with nothing that could have a phenoprint.
UNTESTABLE_ROLES = ("negative_control", "empty")
LEVEL_CHOICES = (("condition",), ("gene",), ("condition", "gene"))
_LOOKED_AT = ("role", *COUNTED)


@dataclass(frozen=True)
class Selection:
    """Which wells stay, and why.

    Attributes
    ----------
    kept_W : bool array of shape (n_wells,)
        The wells that stay.
    rank_W : int32 array of shape (n_wells,)
        Row of ``labels`` that saves each well, the last where none does.
    labels : DataFrame
        ``saved_by, judge, p_value`` of every test, the smallest p-value first, then a row of
        nulls.
    facts : dict
        ``choice``, the knobs in force; ``noise_admitted``, the share of conditions kept if
        none of them did anything; ``untested``, treated wells lost because no judge could
        test any of their conditions; ``alternatives``.
    """

    kept_W: Mask
    rank_W: NDArray[np.int32]
    labels: pl.DataFrame
    facts: dict[str, Any]

    def of(self, wells: pl.LazyFrame) -> pl.LazyFrame:
        """Those of all wells that stay, with their labels; null where one is kept untested."""
        labels = self.labels.to_struct()
        told = pl.col("told").map_batches(
            labels.gather, return_dtype=labels.dtype, is_elementwise=True
        )
        kept = chosen_rows(wells, self.kept_W, told=self.rank_W)
        return kept.with_columns(told).unnest("told")


def alternatives(
    applied: Applied, judgement: Judgement, testable_W: Mask, threshold: float
) -> list[dict[str, Any]]:
    """Count what every combination of evidence, rescue and levels would keep.

    Returns
    -------
    list of dict
        The choice, the counts of a funnel row without untestable wells, and
        ``noise_admitted``, the share of conditions kept if none of them did anything.
    """
    # Wells with one target and the same have the same fate.
    small, wells_W = applied.gathered(testable_W)
    census = Census(applied)
    ranks = {one: judgement.ranked(one, threshold) for one in get_args(Evidence)}

    def counted(chosen: tuple[Evidence, Rescue, tuple[str, ...]]) -> dict[str, Any]:
        evidence, rescue, levels = chosen
        choice: dict[str, Any] = {"rescue": rescue, "levels": levels}
        best_T = judgement.best(ranks[evidence], **choice)
        kept_W = small.wells_with(best_T < ranks[evidence].height) & (wells_W > 0)
        noise = judgement.noise_admitted(evidence, **choice, threshold=threshold)
        return {
            "evidence": evidence,
            **choice,
            "threshold": threshold,
            "images": int(small.images_W.sum(where=kept_W)),
            "wells": int(wells_W.sum(where=kept_W)),
            **census.count(small.targets_in(kept_W)),
            "noise_admitted": noise,
        }

    choices = product(get_args(Evidence), get_args(Rescue), LEVEL_CHOICES)
    return list(side_by_side(counted, choices))


def select_wells(applied: Applied, combined: pl.DataFrame, knobs: SelectKnobs) -> Selection:
    """Keep the wells of which any condition has a phenoprint by any judge.

    Parameters
    ----------
    applied : Applied
        Wells that the undersample stage left.
    combined : DataFrame
        Combined p-values of all judges.
    knobs : SelectKnobs
        What counts as a phenoprint.

    Returns
    -------
    Selection

    Notes
    -----
    Paper 3.1 and A.1 step 5.
    """
    testable_W = ~applied.has_role(*UNTESTABLE_ROLES)
    judgement = Judgement(applied.targets, combined, applied.targets_in(testable_W))
    choice: dict[str, Any] = {"rescue": knobs.rescue, "levels": knobs.levels}
    ranked = judgement.ranked(knobs.evidence, knobs.threshold)
    best_T = judgement.best(ranked, **choice)
    rank_W = saved_wells(applied, best_T, testable_W, ranked.height)
    kept_W = rank_W < ranked.height
    if knobs.keep_untestable:
        kept_W |= ~testable_W
    tried_W = applied.wells_with(judgement.tries(knobs.evidence, **choice) > 0)
    facts = {
        "choice": knobs.model_dump(mode="json"),
        "noise_admitted": judgement.noise_admitted(
            knobs.evidence, **choice, threshold=knobs.threshold
        ),
        "untested": int(np.count_nonzero(testable_W & ~tried_W)),
        "alternatives": alternatives(applied, judgement, testable_W, knobs.threshold),
    }
    return Selection(kept_W, rank_W, _told(ranked), facts)


def uncurated(applied: Applied) -> Selection:
    """All wells, as a manifest without judges: nothing was tested."""
    n = len(applied.role_W)
    return Selection(np.ones(n, bool), np.zeros(n, np.int32), _told(None), {})


def _told(ranked: pl.DataFrame | None) -> pl.DataFrame:
    """Write what a test says: its gene, or its perturbation and concentration."""
    tests = COMBINED.empty().with_columns(saving_p="p_value") if ranked is None else ranked
    dose = pl.format("{} at {} µM", "perturbation", "concentration_um")
    by_gene = pl.when(pl.col("level") == "gene").then(pl.format("gene {}", "gene"))
    labels = tests.select(
        saved_by=by_gene.otherwise(pl.coalesce(dose, "perturbation")),
        judge="encoder",
        p_value="saving_p",
    )
    return pl.concat([labels, labels.clear(1)])


def select_file(
    wells: Path,
    combined: pl.DataFrame | None,
    undersampled: dict[str, Any],
    manifest: Path,
    knobs: SelectKnobs,
    stamp: Stamp,
) -> dict[str, Any]:
    """Select among the undersampled wells, and write the manifest.

    Parameters
    ----------
    wells : Path
        What the undersample stage left.
    combined : DataFrame or None
        Combined p-values of all judges; None if nobody judged.
    undersampled : dict
        The funnel of the undersample stage.
    manifest : Path
        Where the manifest goes; its wells stay in their order.
    knobs : SelectKnobs
        What counts as a phenoprint.
    stamp : mapping
        The step's stamp.

    Returns
    -------
    dict
        The funnel with the row of this step, ``untestable``, ``judged``, and the facts of
        the selection.
    """
    parts, columns = parts_of_file(wells, COUNTED_WELLS)
    vocabulary = Vocabulary()

    def look(part: Part) -> Coded:
        return vocabulary.code(part.read(lambda name: name in _LOOKED_AT))

    applied = Applied.of(vocabulary, list(prepared(look, parts)))
    chosen = uncurated(applied) if combined is None else select_wells(applied, combined, knobs)
    rows = funnel_rows(5, ["phenoprints"], applied, chosen.kept_W.view(np.uint8))
    untestable = applied.has_role(*UNTESTABLE_ROLES) & chosen.kept_W
    funnel = undersampled | {
        "steps": [*undersampled["steps"], *rows],
        "untestable": int(np.count_nonzero(untestable)),
        "judged": combined is not None,
    }
    del applied, untestable

    # A manifest is read one well at a time: nobody counts its conditions by the million.
    came = scanned([wells], columns).drop(CONDITIONS)
    write_rows(manifest, chosen.of(came), MANIFEST, stamp)
    return funnel | chosen.facts


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``phenoprints_select``."""
    files, knobs = parse_step(
        SelectKnobs,
        inputs=["wells", "combined", "undersampled"],
        outputs=["manifest", "funnel"],
        doc=__doc__,
        argv=argv,
    )
    combined = read_table(files.combined, COMBINED)
    # A manifest without judges is the uncurated set; judges who found nothing keep nothing.
    judged = bool(read_stamp(files.combined).get("inputs", {}).get("pvalues"))
    before = read_funnel(files.undersampled)
    tests = combined if judged else None
    funnel = select_file(files.wells, tests, before, files.manifest, knobs, files.stamp)
    write_funnel(files.funnel, funnel, files.stamp)


if __name__ == "__main__":
    run_step(main)
