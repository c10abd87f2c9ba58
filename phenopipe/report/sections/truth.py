"""Section truth: what the chain found of what the simulator planted."""

import polars as pl

from phenopipe.report.pieces import Facts, Piece, Prose, Section, Table, tell
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
            _table(judged, met),
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


def _table(judged: list[tuple[Question, dict[str, object]]], met: list[bool | None]) -> Table:
    rows, groups, best = [], {}, set()
    title = ""
    for at, ((question, row), is_met) in enumerate(zip(judged, met, strict=True)):
        if question.topic != title:
            title = question.topic
            groups[at] = title
        interval = "–"
        if row["low"] is not None and row["high"] is not None:
            interval = f"{tell(row['low'])} to {tell(row['high'])}"
        what = ", ".join(str(row[key]) for key in ("encoder", "source") if row[key])
        verdict = {True: "met", False: "not met", None: ""}[is_met]
        rows.append(
            [
                question.text,
                what,
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
