"""Section truth: what the chain found of what the simulator planted."""

from typing import Any

import polars as pl

from phenopipe.report.pieces import Facts, Fold, Piece, Prose, Section, Table, tell
from phenopipe.report.questions import QUESTIONS, Question


def truth_section(found: pl.DataFrame) -> Section:
    """Hold each figure of the planted truth against what is wanted of it.

    Parameters
    ----------
    found : DataFrame
        Tidy results of step ``truth``; empty where nothing was planted.
    """
    pieces: list[Piece] = []
    answer = ""
    if not found.is_empty():
        judged = [
            (question, row)
            for question in QUESTIONS
            for row in found.filter(pl.col("metric") == question.metric).iter_rows(named=True)
        ]
        met = [q.is_met(row["value"]) for q, row in judged]
        counted = [m for m in met if m is not None]
        pieces = [
            Prose(
                "The screen is simulated, so what is true is known. No stage reads that truth; "
                "only this page and the tests do."
            ),
            Facts([(f"{sum(counted)} of {len(counted)}", "figures reach what is wanted")]),
            _table([pair for pair, m in zip(judged, met, strict=True) if m is not None]),
            Fold("Every figure, with those that have no bound", [_table(judged)]),
        ]
        answer = f"{sum(counted)} of {len(counted)} figures reach what is wanted"
    return Section(
        "truth",
        "Planted truth",
        "Does the chain find what was planted, and nothing else?",
        pieces,
        "results/report",
        "No simulated screen was part of this run: there is no planted truth to compare with.",
        answer,
    )


def _table(judged: list[tuple[Question, dict[str, Any]]]) -> Table:
    """Tabulate figures under their topics, with what is wanted of them."""
    rows, groups, best = [], {}, set()
    title = ""
    for at, (question, row) in enumerate(judged):
        is_met = question.is_met(row["value"], row["low"])
        if question.topic != title:
            title = question.topic
            groups[at] = title
        interval = "–"
        if row["low"] is not None and row["high"] is not None:
            interval = f"{tell(row['low'])} to {tell(row['high'])}"
        what = ", ".join(row[key] for key in ("encoder", "source") if row[key])
        verdict = {True: "met", False: "not met", None: ""}[is_met]
        rows.append(
            [
                question.text,
                what.replace("_", " "),
                tell(row["value"]),
                interval,
                tell(row["n"]),
                question.wanted(),
                verdict,
            ]
        )
        if is_met is False:
            best.add((at, 6))
    header = ["figure", "of", "value", "95 %", "n", "wanted", ""]
    return Table(header, rows, "", frozenset({2, 3, 4}), frozenset(best), groups)
