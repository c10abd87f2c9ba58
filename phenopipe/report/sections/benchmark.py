"""Section benchmark: tables in the paper's shape, and the figures behind them."""

import polars as pl

from phenopipe.report.pieces import Heading, Piece, Prose, Section, Table, tell
from phenopipe.report.scoreboard import other_tails, recall_metric
from phenopipe.report.sections.across import (
    About,
    flops_pieces,
    gain_pieces,
    probe_pieces,
    probed_maps,
)
from phenopipe.report.sections.benchmark_figures import (
    dose_figure,
    magnitude_figures,
    recall_figure,
    replicates_figure,
)
from phenopipe.report.sections.benchmark_tables import (
    compound_table,
    recall_table,
)


def benchmark_section(
    results: pl.DataFrame, magnitudes: pl.DataFrame, blocks: pl.DataFrame, about: About
) -> Section:
    """Show every benchmark: a table like the paper's Table 1 or 3, then its figures.

    Parameters
    ----------
    results : DataFrame
        Tidy results of recall, replicates, magnitude, compounds, classes and arms.
    magnitudes : DataFrame
        ``encoder, benchmark`` and the columns of the magnitudes format.
    blocks : DataFrame
        Tidy results of the probes, ``source`` being the task.
    about : mapping of str to mapping
        What each encoder's folder says of it.
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
        pieces += magnitude_figures(of_name) + dose_figure(part)
        pieces += classes_pieces(part) + arms_pieces(part)
        answers.append(_best_sentence(part))
    pieces += probe_pieces(probed_maps(results, blocks, about))
    pieces += flops_pieces(results, blocks, about) + gain_pieces(results, about)
    if pieces:
        pieces.append(Prose("Tables with the paper's numbers beside these: `tables.md`.", True))
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
    recall = recall_metric(part)
    for metric, what in (
        (recall, f"recall{other_tails(recall)}"),
        ("ks", "KS"),
        ("average_precision_max", "average precision"),
        ("same_class", "class of the nearest other compound"),
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


def classes_pieces(part: pl.DataFrame) -> list[Piece]:
    """Tell how often what acts most alike, of another compound, has the same class."""
    rows = []
    for (encoder,), mine in part.group_by("encoder", maintain_order=True):
        row = {one["metric"]: one for one in mine.iter_rows(named=True)}
        for metric, name in (("same_class", "NSC"), ("same_class_apart", "NSCB")):
            if metric in row:
                one, dealt = row[metric], row[f"{metric}_permuted"]
                ends = f"{tell(one['low'])}–{tell(one['high'])}"
                cells = [tell(one["value"]), ends, tell(dealt["value"]), tell(one["n"])]
                rows.append([str(encoder), name, *cells])
    if not rows:
        return []
    header = ["encoder", "nearest", "same class", "95 %", "classes dealt anew", "treatments"]
    told = (
        "Share of treatments whose nearest other one has their class: not of the same compound "
        "(NSC), nor of an experiment in common (NSCB). Intervals resample compounds."
    )
    return [Table(header, rows, told, frozenset(range(2, 6)))]


def arms_pieces(part: pl.DataFrame) -> list[Piece]:
    """Tell whether knockouts on one chromosome arm are alike, before and after correction."""
    every = part.filter(pl.col("source") == "all arms")
    rows = []
    for (encoder,), mine in every.group_by("encoder", maintain_order=True):
        row = {one["metric"]: one for one in mine.iter_rows(named=True)}
        cells = [str(encoder)]
        for when in ("before", "after"):
            one = row[f"within_arm_{when}"]
            low, high = tell(one["low"]), tell(one["high"])
            cells += [tell(one["value"]), f"{low}–{high}"]
        arms, genes = row["arms_corrected"], row["genes_corrected"]
        cells += [f"{tell(int(c['value']))} of {tell(c['n'])}" for c in (arms, genes)]
        rows.append(cells)
    if not rows:
        return []
    header = ["encoder", "before", "95 %", "after", "95 %", "arms corrected", "genes corrected"]
    told = (
        "Chance that two knockouts of one chromosome arm are more alike than two of different "
        "arms (Brunner and Munzel), mean over arms; 0.5 is no bias."
    )
    return [Table(header, rows, told, frozenset(range(1, 7)))]
