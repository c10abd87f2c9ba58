"""Step ``wells``: keep well-replicated conditions, and only some of the controls."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from phenopipe.formats.funnels import funnel_row, write_funnel
from phenopipe.formats.images import IMAGES
from phenopipe.formats.qc import FAILS, METADATA_TESTS, read_qc_wells, without_flags
from phenopipe.formats.tables import read_table
from phenopipe.formats.wells import CONDITION, conditions, write_wells
from phenopipe.knobs import parse_step, run_step
from phenopipe.seeds import hash_uniform
from phenopipe.undersample.config import WellsKnobs

# Wells to which nothing was done that could be replicated or not.
UNTREATED_ROLES = ("negative_control", "empty")


def replicated_conditions(
    wells: pl.DataFrame, *, min_experiments: int, min_wells: int
) -> pl.DataFrame:
    """Conditions that enough distinct experiments and wells have seen.

    Parameters
    ----------
    wells : DataFrame
        Wells of all experiments that passed qc.
    min_experiments, min_wells : int
        Least number of distinct experiments, and of distinct wells.

    Returns
    -------
    DataFrame
        ``kind, perturbation, concentration_um``, one row a condition. A well with several
        perturbations counts for each of its conditions.

    Notes
    -----
    Paper A.1 step 3.
    """
    return (
        conditions(wells)
        .join(wells.select("well_id", "screen", "experiment"), on="well_id")
        .group_by(CONDITION)
        .agg(
            pl.struct("screen", "experiment").n_unique().alias("experiments"),
            pl.col("well_id").n_unique().alias("wells"),
        )
        .filter(pl.col("experiments") >= min_experiments, pl.col("wells") >= min_wells)
        .select(CONDITION)
        .sort(CONDITION)
    )


def keep_replicated(wells: pl.DataFrame, kept: pl.DataFrame) -> pl.DataFrame:
    """Wells with at least one of the given conditions, and all untreated wells."""
    chosen = conditions(wells).join(kept, on=CONDITION, how="semi", nulls_equal=True)
    in_chosen = pl.col("well_id").is_in(chosen["well_id"].implode())
    return wells.filter(in_chosen | pl.col("role").is_in(UNTREATED_ROLES))


def undersample_roles(
    wells: pl.DataFrame, share_by_role: Mapping[str, float], seed: int
) -> pl.DataFrame:
    """Keep a random share of the wells of each named role, and all others.

    Notes
    -----
    Paper A.1 step 4. A well stays if the hash of (seed, ``well_id``) is below its share:
    wells that are added later change no earlier choice, nor does their order.
    """
    share_W = wells["role"].replace_strict(
        dict(share_by_role), default=1.0, return_dtype=pl.Float64
    )
    return wells.filter(pl.Series(hash_uniform(seed, wells["well_id"])) < share_W)


def undersample_wells(
    wells: pl.DataFrame, images: pl.DataFrame, knobs: WellsKnobs
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Apply steps 1 to 4 of the paper's curation, and count what each left over.

    Parameters
    ----------
    wells : DataFrame
        All wells of a manifest's experiments with their qc flags.
    images : DataFrame
        ``well_id`` of every image of these experiments.
    knobs : WellsKnobs
        Settings.

    Returns
    -------
    kept : DataFrame
        The wells that are left, without flags.
    funnel : dict
        ``steps``: counts before and after each step; ``flagged``: wells that failed each
        qc test.
    """
    tests = sorted(name for name in wells.columns if name.startswith(FAILS))
    # A test that an experiment did not need (of features, say) is null there.
    wells = wells.with_columns(pl.col(tests).fill_null(value=False))
    quality = [name for name in tests if name.removeprefix(FAILS) not in METADATA_TESTS]
    good = wells.filter(~pl.any_horizontal(pl.lit(False), *quality))
    known = without_flags(good.filter("passes"))
    enough = replicated_conditions(
        known, min_experiments=knobs.min_experiments, min_wells=knobs.min_wells
    )
    replicated = keep_replicated(known, enough)
    shares = {
        "positive_control": knobs.keep_positive_controls,
        "empty": knobs.keep_empty,
        "negative_control": knobs.keep_negative_controls,
    }
    kept = undersample_roles(replicated, shares, knobs.seed)
    left = {
        "screened": wells,
        "data quality": good,
        "metadata": known,
        "replication": replicated,
        "undersampling": kept,
    }
    rows = [funnel_row(n, name, frame, images) for n, (name, frame) in enumerate(left.items())]
    flagged = {name.removeprefix(FAILS): int(wells[name].sum()) for name in tests}
    return kept, {"steps": rows, "flagged": flagged}


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``undersample_wells``."""
    files, knobs = parse_step(
        WellsKnobs,
        inputs=["wells*", "images*"],
        outputs=["kept", "funnel"],
        names=["manifest"],
        doc=__doc__,
        argv=argv,
    )
    wells = pl.concat([read_qc_wells(path) for path in files.wells], how="diagonal")
    images = [read_table(path, IMAGES, columns=["well_id"]) for path in files.images]
    kept, funnel = undersample_wells(wells, pl.concat(images), knobs)
    write_wells(files.kept, kept, files.stamp)
    write_funnel(files.funnel, funnel, files.stamp)


if __name__ == "__main__":
    run_step(main)
