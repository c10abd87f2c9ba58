"""Go or no-go: whether an experiment as a whole is sound enough to be used."""

import polars as pl

from phenopipe.formats.qc import (
    CONTROLS,
    FAILING,
    FAILS,
    MAX_FAILING,
    MIN_CONTROLS,
    NO_GO,
)
from phenopipe.qc.config import WellsKnobs


def gate(flags: pl.DataFrame, knobs: WellsKnobs) -> pl.DataFrame:
    """Fail all wells of an experiment of which too many fail, or too few controls pass.

    Parameters
    ----------
    flags : DataFrame
        Wells of one experiment with ``role`` and the flag of each test.
    knobs : WellsKnobs
        Limits; with ``enabled`` off the gate stays open.

    Returns
    -------
    DataFrame
        The flags with ``fails_experiment``, the same for all wells; ``score_experiment``
        and ``limit_experiment``, the share of wells that fail a test of their own and the
        largest permitted; ``score_controls`` and ``limit_controls``, the negative controls
        that pass and the fewest permitted.

    Notes
    -----
    The limit of controls is 0 where an experiment has no negative control at all: that is
    a property of its design, not of its quality, and told by the step ``check``.
    """
    tests = [name for name in flags.columns if name.startswith(FAILS)]
    fails = flags.select(fails=pl.any_horizontal(pl.lit(value=False), *tests)).to_series()
    is_control = flags["role"] == "negative_control"
    failing = float(fails.cast(pl.Float64).mean() or 0.0)  # type: ignore[arg-type]
    passing = int((is_control & ~fails).sum())
    fewest = knobs.min_controls if is_control.any() else 0
    shut = knobs.enabled and (failing > knobs.max_failing or passing < fewest)
    return flags.with_columns(
        pl.lit(shut).alias(NO_GO),
        pl.lit(failing).alias(FAILING),
        pl.lit(knobs.max_failing).alias(MAX_FAILING),
        pl.lit(float(passing)).alias(CONTROLS),
        pl.lit(float(fewest)).alias(MIN_CONTROLS),
    )


def tell_gate(flags: pl.DataFrame, experiment: str) -> list[str]:
    """One line for the log of an experiment that is set aside; none if it is sound."""
    if not flags.height or not flags[NO_GO][0]:
        return []
    row = flags.row(0, named=True)
    return [
        f"warning: {experiment} is set aside: {row[FAILING]:.1%} of its wells fail, wanted at "
        f"most {row[MAX_FAILING]:.1%} (max_failing); {row[CONTROLS]:.0f} negative controls "
        f"pass, wanted {row[MIN_CONTROLS]:.0f} (min_controls)"
    ]
