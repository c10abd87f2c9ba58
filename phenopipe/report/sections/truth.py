"""Section truth: what the chain found of what the simulator planted."""

from typing import Any

import altair as alt
import polars as pl

from phenopipe.report.charts import data_of, specification
from phenopipe.report.pieces import Facts, Figure, Fold, Piece, Prose, Section, Table, tell
from phenopipe.report.questions import QUESTIONS, Question

# Level of the test that the rows of ``power`` were counted at.
THRESHOLD = 0.01


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
            *_power(found.filter(pl.col("metric") == "power", pl.col("value").is_not_null())),
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


def _power(rows: pl.DataFrame) -> list[Piece]:
    """Draw the power curve: conditions found against the length of the planted effect."""
    bins = rows.with_columns(
        pl.col("source")
        .str.extract(r"^effect (?:\d+ to )?(\d+), ")
        .cast(pl.Int64)
        .alias("upper"),
        pl.col("source").str.extract(r", (.*)$").alias("manifest"),
    ).drop_nulls("upper")
    if bins.is_empty():
        return []
    # What does nothing stands at zero, a bin in its middle.
    at = pl.when(pl.col("upper") > 0).then(pl.col("upper") - 0.5).otherwise(0.0)
    chart = alt.Chart(data_of(bins.select("manifest", "value", "low", "high", "n", effect=at)))
    base = chart.encode(
        x=alt.X("effect:Q", title="length of the planted effect"),
        color=alt.Color("manifest:N", title=None),
    )
    bars = base.mark_rule(opacity=0.5).encode(y="low:Q", y2="high:Q")
    curve = base.mark_line(point=True).encode(
        y=alt.Y("value:Q", title="conditions found", axis=alt.Axis(format="%")),
        tooltip=["manifest:N", "effect:Q", alt.Tooltip("value:Q", format=".1%"), "n:Q"],
    )
    level = chart.mark_rule(strokeDash=[4, 3]).encode(y=alt.datum(THRESHOLD))
    drawn = alt.layer(curve, bars, level).properties(width=420, height=200)
    caption = (
        "Power: share of conditions with a combined p-value under 0.01 for some judge, by the "
        "length of their planted effect, with 95 % intervals. At 0 stands what does nothing; "
        "the dashed line is the level of one test."
    )
    return [Figure(specification(drawn), caption)]


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
