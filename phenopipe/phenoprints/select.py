"""Step ``select``: the wells that a phenoprint keeps, with the funnel that led to them."""

from collections.abc import Sequence
from itertools import product
from typing import Any, get_args

import polars as pl

from phenopipe.formats.funnels import COUNTED, funnel_row, read_funnel, write_funnel
from phenopipe.formats.images import IMAGES
from phenopipe.formats.manifests import MANIFEST
from phenopipe.formats.pvalues import COMBINED
from phenopipe.formats.tables import read_stamp, read_table, write_table
from phenopipe.formats.wells import CONDITION, conditions, read_wells
from phenopipe.knobs import parse_step, run_step
from phenopipe.phenoprints.config import Evidence, Rescue, SelectKnobs
from phenopipe.phenoprints.rescue import noise_admitted, reached, saving_tests

# Wells with nothing that could have a phenoprint.
UNTESTABLE_ROLES = ("negative_control", "empty")
LEVEL_CHOICES = (("condition",), ("gene",), ("condition", "gene"))


def select_wells(
    wells: pl.DataFrame, combined: pl.DataFrame, knobs: SelectKnobs
) -> pl.DataFrame:
    """Keep the wells of which any condition has a phenoprint by any judge.

    Parameters
    ----------
    wells : DataFrame
        Wells that the undersample stage left.
    combined : DataFrame
        Combined p-values of all judges.
    knobs : SelectKnobs
        What counts as a phenoprint.

    Returns
    -------
    DataFrame
        The wells that stay, in their order, with ``saved_by``, ``judge`` and ``p_value``;
        these are null where a well is kept untested.

    Notes
    -----
    Paper 3.1 and A.1 step 5.
    """
    saved = saving_tests(_testable(wells), combined, **_choice(knobs)).select(
        "well_id", saved_by=_label(), judge="encoder", p_value="saving_p"
    )
    untestable = pl.col("role").is_in(UNTESTABLE_ROLES) & pl.lit(knobs.keep_untestable)
    marked = wells.join(saved, on="well_id", how="left", maintain_order="left")
    return marked.filter(pl.col("judge").is_not_null() | untestable)


def uncurated(wells: pl.DataFrame) -> pl.DataFrame:
    """All wells as a manifest without judges: nothing was tested."""
    return wells.with_columns(
        saved_by=pl.lit(None, pl.String),
        judge=pl.lit(None, pl.String),
        p_value=pl.lit(None, pl.Float64),
    )


def alternatives(
    wells: pl.DataFrame, images: pl.DataFrame, combined: pl.DataFrame, threshold: float
) -> list[dict[str, Any]]:
    """Count what every combination of evidence, rescue and levels would keep.

    Returns
    -------
    list of dict
        The choice, the counts of a funnel row without untestable wells, and
        ``noise_admitted``, the share of conditions kept if none of them did anything.
    """
    applied = _testable(wells)
    rows = []
    for evidence, rescue, levels in product(
        get_args(Evidence), get_args(Rescue), LEVEL_CHOICES
    ):
        choice: dict[str, Any] = {
            "evidence": evidence,
            "rescue": rescue,
            "levels": levels,
            "threshold": threshold,
        }
        saved = saving_tests(applied, combined, **choice)
        counts = funnel_row(5, "", wells.join(saved, on="well_id", how="semi"), images)
        noise = noise_admitted(applied, combined, **choice)
        rows.append(
            {**choice, **{name: counts[name] for name in COUNTED}, "noise_admitted": noise}
        )
    return rows


def curation(
    wells: pl.DataFrame, images: pl.DataFrame, combined: pl.DataFrame, knobs: SelectKnobs
) -> dict[str, Any]:
    """Count what the choice in force means, and what each other choice would keep.

    Returns
    -------
    dict
        ``choice``, the knobs in force; ``noise_admitted``, the share of conditions kept if
        none of them did anything; ``untested``, treated wells lost because no judge could
        test any of their conditions; ``alternatives``.
    """
    applied = _testable(wells)
    tested = reached(
        applied.select(*CONDITION, "gene").unique(),
        combined.with_row_index("test"),
        levels=knobs.levels,
        rescue=knobs.rescue,
    )
    met = applied.join(tested, on=CONDITION, how="semi", nulls_equal=True)
    treated = wells.filter(~pl.col("role").is_in(UNTESTABLE_ROLES))
    return {
        "choice": knobs.model_dump(mode="json"),
        "noise_admitted": noise_admitted(applied, combined, **_choice(knobs)),
        "untested": treated.join(met, on="well_id", how="anti").height,
        "alternatives": alternatives(wells, images, combined, knobs.threshold),
    }


def _choice(knobs: SelectKnobs) -> dict[str, Any]:
    return knobs.model_dump(include={"evidence", "rescue", "levels", "threshold"})


def _testable(wells: pl.DataFrame) -> pl.DataFrame:
    """List the conditions of the wells that were treated, one row a well and condition."""
    return conditions(wells.filter(~pl.col("role").is_in(UNTESTABLE_ROLES)))


def _label() -> pl.Expr:
    """Write a test's condition: its gene, or its perturbation and concentration."""
    dose = pl.format("{} at {} µM", "perturbation", "concentration_um")
    by_gene = pl.when(pl.col("level") == "gene").then(pl.format("gene {}", "gene"))
    return by_gene.otherwise(pl.coalesce(dose, "perturbation"))


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``phenoprints_select``."""
    files, knobs = parse_step(
        SelectKnobs,
        inputs=["wells", "combined", "images*", "undersampled"],
        outputs=["manifest", "funnel"],
        doc=__doc__,
        argv=argv,
    )
    wells, funnel = read_wells(files.wells), read_funnel(files.undersampled)
    combined = read_table(files.combined, COMBINED)
    images = pl.concat([read_table(path, IMAGES, columns=["well_id"]) for path in files.images])
    # A manifest without judges is the uncurated set; judges who found nothing keep nothing.
    judged = bool(read_stamp(files.combined).get("inputs", {}).get("pvalues"))
    kept = select_wells(wells, combined, knobs) if judged else uncurated(wells)
    row = funnel_row(5, "phenoprints", kept, images)
    untestable = kept.filter(pl.col("role").is_in(UNTESTABLE_ROLES)).height
    funnel |= {"steps": [*funnel["steps"], row], "untestable": untestable, "judged": judged}
    if judged:
        funnel |= curation(wells, images, combined, knobs)
    write_table(files.manifest, kept, MANIFEST, files.stamp)
    write_funnel(files.funnel, funnel, files.stamp)


if __name__ == "__main__":
    run_step(main)
