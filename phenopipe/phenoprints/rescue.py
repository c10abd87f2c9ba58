"""Which conditions have a phenoprint, and which wells that keeps.

A test is a row of the combined p-values: one judge, map type, level and condition. A
target is something that a well can be kept for: a condition that was applied to it.
"""

from collections.abc import Collection

import polars as pl

from phenopipe.formats.wells import CONDITION

# How a test reaches the conditions that it keeps, by level and rescue.
_REACH = {
    ("condition", "condition"): CONDITION,
    ("condition", "perturbation"): ("kind", "perturbation"),
    ("gene", "condition"): ("kind", "gene"),
    ("gene", "perturbation"): ("kind", "gene"),
}
P_OF = {"combined": "p_value", "any_experiment": "p_any"}


def reached(
    targets: pl.DataFrame, tests: pl.DataFrame, *, levels: Collection[str], rescue: str
) -> pl.DataFrame:
    """Pair every condition with the tests that could keep it.

    Parameters
    ----------
    targets : DataFrame
        ``kind, perturbation, concentration_um, gene``, one row a condition.
    tests : DataFrame
        Combined p-values with a column ``test``, their number.
    levels : collection of str
        Levels that count.
    rescue : str
        ``perturbation``: a test of one concentration speaks for all of them;
        ``condition``: for its own alone.

    Returns
    -------
    DataFrame
        ``kind, perturbation, concentration_um, test, level``. Any map type counts.
    """
    pairs = [
        targets.join(
            tests.filter(pl.col("level") == level).select(*_REACH[level, rescue], "test"),
            on=_REACH[level, rescue],
            # A condition without a concentration meets its test; a gene must be known.
            nulls_equal=level == "condition",
        ).select(*CONDITION, "test", level=pl.lit(level))
        for level in sorted(levels)
    ]
    return pl.concat(pairs)


def saving_tests(
    applied: pl.DataFrame,
    tests: pl.DataFrame,
    *,
    evidence: str,
    rescue: str,
    levels: Collection[str],
    threshold: float,
) -> pl.DataFrame:
    """Find the wells that a phenoprint keeps, and the test with the smallest p-value.

    Parameters
    ----------
    applied : DataFrame
        ``well_id`` and condition, one row a well and condition; a well with several stays
        for any of them.
    tests : DataFrame
        Combined p-values.
    evidence : str
        ``combined`` or ``any_experiment``.
    rescue, levels
        As in :func:`reached`.
    threshold : float
        P-values under it are phenoprints.

    Returns
    -------
    DataFrame
        ``well_id`` and the columns of the test that saved it, with ``saving_p``.
    """
    ranked = (
        tests.with_columns(saving_p=P_OF[evidence])
        .filter(pl.col("saving_p") < threshold)
        .sort("saving_p", "level", "encoder", "map_type", *CONDITION, "gene")
        .with_row_index("test")
    )
    targets = applied.select(*CONDITION, "gene").unique()
    best = (
        reached(targets, ranked, levels=levels, rescue=rescue)
        .group_by(CONDITION)
        .agg(pl.col("test").min())
    )
    return (
        applied.join(best, on=CONDITION, nulls_equal=True)
        .group_by("well_id")
        .agg(pl.col("test").min())
        .join(ranked, on="test")
        .drop("test")
        .sort("well_id")
    )


def noise_admitted(
    applied: pl.DataFrame,
    tests: pl.DataFrame,
    *,
    evidence: str,
    rescue: str,
    levels: Collection[str],
    threshold: float,
) -> float:
    """Share of conditions that would be kept if none of them did anything.

    Notes
    -----
    A condition that m tests can save is kept by chance with 1 - (1 - threshold)^m, where m
    counts judges, map types, levels, with rescue ``perturbation`` concentrations too, and
    with evidence ``any_experiment`` experiments. The mean is over the conditions with a
    test. Judges see the same wells, so that their tests agree in part: the true share lies
    between the threshold and this number.
    """
    numbered = tests.with_row_index("test")
    weight = pl.col("n_experiments") if evidence == "any_experiment" else pl.lit(1)
    targets = applied.select(*CONDITION, "gene").unique()
    chances = (
        reached(targets, numbered, levels=levels, rescue=rescue)
        .join(numbered.select("test", tries=weight.cast(pl.Int64)), on="test")
        .group_by(CONDITION)
        .agg(chance=1 - (1 - threshold) ** pl.col("tries").sum())
    )
    return float(chances["chance"].mean() or 0.0)  # type: ignore[arg-type]
