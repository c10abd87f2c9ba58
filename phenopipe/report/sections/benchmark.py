"""Section benchmark: tables in the paper's shape, and the figures behind them."""

import polars as pl

from phenopipe.report.pieces import Heading, Piece, Section
from phenopipe.report.sections.benchmark_figures import (
    dose_figure,
    magnitude_figures,
    probe_figure,
    recall_figure,
    replicates_figure,
)
from phenopipe.report.sections.benchmark_tables import (
    compound_table,
    recall_metric,
    recall_table,
)


def benchmark_section(
    results: pl.DataFrame, magnitudes: pl.DataFrame, blocks: pl.DataFrame
) -> Section:
    """Show every benchmark: a table like the paper's Table 1 or 3, then its figures.

    Parameters
    ----------
    results : DataFrame
        Tidy results of recall, replicates, magnitude and compounds.
    magnitudes : DataFrame
        ``encoder, benchmark`` and the columns of the magnitudes format.
    blocks : DataFrame
        Tidy results of the probes, ``source`` being the task.
    """
    pieces: list[Piece] = []
    answers = []
    for (name,), part in results.group_by("benchmark", maintain_order=True):
        of_name = magnitudes
        if not magnitudes.is_empty():
            of_name = magnitudes.filter(pl.col("benchmark") == name)
        screens = ", ".join(part["screen"].unique().sort())
        pieces.append(Heading(f"{name}, on screen {screens}"))
        pieces += [
            table for table in (recall_table(part), compound_table(part)) if table is not None
        ]
        pieces += recall_figure(part) + replicates_figure(part)
        pieces += magnitude_figures(of_name) + dose_figure(part) + probe_figure(part, blocks)
        answers.append(_best_sentence(part))
    return Section(
        "benchmark",
        "Benchmarks of the map",
        "How good is the map?",
        pieces,
        "results/benchmark",
        answer="; ".join(filter(None, answers)),
    )


def _best_sentence(part: pl.DataFrame) -> str:
    """Name the encoder with the best recall, or else the best replicate consistency."""
    for metric, what in (
        (recall_metric(part), "recall"),
        ("ks", "KS"),
        ("average_precision_max", "average precision"),
    ):
        rows = (
            part.filter(pl.col("metric") == metric)
            .group_by("encoder")
            .agg(pl.col("value").mean())
        )
        if rows.height:
            top = rows.sort("value", "encoder", descending=[True, False]).row(0, named=True)
            where, who = part["benchmark"][0], top["encoder"]
            return f"best {what} on {where}: {who} with {top['value']:.3f}"
    return ""
