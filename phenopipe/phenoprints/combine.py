"""Step ``combine``: one p-value a judge, map type, level and condition over experiments.

Peak memory: about 400 bytes a p-value of one experiment, all of which are held at once.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
from scipy.stats import false_discovery_control

from phenopipe.combination import cauchy_score, cauchy_tail
from phenopipe.errors import UserError
from phenopipe.formats.pvalues import COMBINED, PVALUES
from phenopipe.formats.tables import read_stamp, read_table, write_table
from phenopipe.knobs import parse_step, run_step
from phenopipe.phenoprints.config import CombineKnobs

UNIT = ("encoder", "map_type", "level", "kind", "perturbation", "gene", "concentration_um")


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
    _refuse_doubles(pvalues)
    weight = pl.col("n_replicates") if knobs.weights == "replicates" else pl.lit(1)
    combined = (
        _with_scores(pvalues, knobs.ceiling)
        .with_columns(weight=weight.cast(pl.Float64))
        .sort(*UNIT, "experiment")
        .group_by(UNIT, maintain_order=True)
        .agg(
            (pl.col("score") * pl.col("weight")).sum() / pl.col("weight").sum(),
            pl.col("n_replicates").sum().cast(pl.Int32),
            pl.len().cast(pl.Int32).alias("n_experiments"),
            pl.col("statistic").mean(),
            pl.col("p_value").min().alias("p_any"),
            pl.col("n_null").min(),
        )
    )
    p_value = pl.Series("p_value", cauchy_tail(combined["score"].to_numpy()))
    return _with_q_values(combined.with_columns(p_value)).select(*COMBINED.columns)


def _refuse_doubles(pvalues: pl.DataFrame) -> None:
    doubled = pvalues.filter(pvalues.select(*UNIT, "experiment").is_duplicated())
    if doubled.height:
        row = doubled.select(*UNIT, "experiment").row(0)
        raise UserError(f"two p-values for {row}, wanted one a judge, condition, experiment")


def _with_scores(pvalues: pl.DataFrame, ceiling: float) -> pl.DataFrame:
    """Add the Cauchy variable of each p-value; the floor is that of its own null."""
    parts = [
        part.with_columns(
            score=pl.Series(cauchy_score(part["p_value"], floor=1 / n_null, ceiling=ceiling))
        )
        for (n_null,), part in pvalues.group_by("n_null")
    ]
    return pl.concat([pvalues.clear().with_columns(score=pl.lit(0.0)), *parts])


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
    pvalues = PVALUES.empty().with_columns(encoder=pl.lit(""))
    frames = [read_judged(path) for path in files.pvalues]
    combined = combine_pvalues(pl.concat([pvalues, *frames]), knobs)
    write_table(files.combined, combined, COMBINED, files.stamp)


if __name__ == "__main__":
    run_step(main)
