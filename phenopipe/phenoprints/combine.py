"""Step ``combine``: one p-value a judge, map type, level and condition over experiments.

Experiments are read one after another and summed up: memory grows with the number of
conditions, not with that of experiments.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import polars as pl
from scipy.stats import false_discovery_control

from phenopipe.combination import cauchy_tail
from phenopipe.errors import UserError
from phenopipe.formats.names import names_of
from phenopipe.formats.pvalues import COMBINED, PVALUES
from phenopipe.formats.tables import read_stamp, read_table, write_table
from phenopipe.knobs import parse_step, run_step
from phenopipe.phenoprints.config import CombineKnobs
from phenopipe.phenoprints.sums import UNIT, Sums


def combine_pvalues(pvalues: pl.DataFrame, knobs: CombineKnobs) -> pl.DataFrame:
    """Combine each condition's p-values over experiments, each judge for itself.

    Parameters
    ----------
    pvalues : DataFrame
        Columns of the pvalues format and ``encoder``, the judge.
    knobs : CombineKnobs
        Settings.

    Returns
    -------
    DataFrame
        Columns of the combined format, sorted; ``p_any`` is the smallest p-value of one
        experiment.

    Raises
    ------
    UserError
        If a judge has two p-values for one condition in one experiment.

    Notes
    -----
    Paper 3.1, Cauchy combination. Each p-value is kept between 1/n_null of its own null
    and ``knobs.ceiling``. The result does not depend on the order of rows.
    """
    return combine_experiments(pvalues.sort("experiment").partition_by("experiment"), knobs)


def combine_experiments(
    experiments: Iterable[pl.DataFrame], knobs: CombineKnobs
) -> pl.DataFrame:
    """Combine as :func:`combine_pvalues`, one table after another.

    Parameters
    ----------
    experiments : iterable of DataFrame
        Tables of one experiment each, sorted by experiment; taken one at a time. Each
        holds what one judge or several say.
    knobs : CombineKnobs
        Settings.
    """
    sums = Sums(knobs.ceiling, by_replicates=knobs.weights == "replicates")
    name = None
    for tests in experiments:
        if tests.is_empty():
            continue
        if name is not None and tests["experiment"][0] != name:
            sums.close_experiment()
        name = tests["experiment"][0]
        sums.add(tests)
    combined = sums.table().sort(*UNIT)
    p_value = pl.Series("p_value", cauchy_tail(combined["score"].to_numpy()))
    return _with_q_values(combined.with_columns(p_value)).select(*COMBINED.columns)


def _with_q_values(combined: pl.DataFrame) -> pl.DataFrame:
    """Add Benjamini-Hochberg q-values within encoder, level and map type."""
    return combined.with_columns(
        q_value=pl.col("p_value")
        .map_batches(lambda p: pl.Series(false_discovery_control(p)), return_dtype=pl.Float64)
        .over("encoder", "level", "map_type")
    )


def read_judged(path: Path) -> pl.DataFrame:
    """Read one judge's p-values of one experiment; the file's stamp names the judge."""
    judge = read_stamp(path).get("names", {}).get("encoder")
    if not judge:
        raise UserError(f"{path}: its stamp names no encoder, wanted p-values of one judge")
    return read_table(path, PVALUES).with_columns(encoder=pl.lit(judge))


def in_order(paths: Sequence[Path]) -> Iterator[pl.DataFrame]:
    """Read the p-values of all judges, experiment by experiment."""
    keys = ("experiment", "screen", "encoder")

    def place(path: Path) -> list[str]:
        names = names_of(path)
        return [*(names.get(key, "") for key in keys), str(path)]

    for path in sorted(paths, key=place):
        tests = read_judged(path)
        yield from tests.sort("experiment").partition_by("experiment")


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``phenoprints_combine``."""
    files, knobs = parse_step(
        CombineKnobs,
        inputs=["pvalues*"],
        outputs=["combined"],
        names=["manifest"],
        doc=__doc__,
        argv=argv,
    )
    combined = combine_experiments(in_order(files.pvalues), knobs)
    write_table(files.combined, combined, COMBINED, files.stamp)


if __name__ == "__main__":
    run_step(main)
