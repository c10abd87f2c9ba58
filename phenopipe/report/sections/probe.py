"""Section probe: balanced accuracy of a linear probe on every block of every encoder."""

from typing import Any

import altair as alt
import polars as pl

from phenopipe.report.charts import data_of, specification
from phenopipe.report.pieces import Figure, Piece, Section, Table, tell

ACCURACY = "balanced_accuracy"
BLOCKS_NAMED = 12
PERMUTED = "balanced_accuracy_permuted"


def probe_section(blocks: pl.DataFrame, best: pl.DataFrame) -> Section:
    """Show accuracy by block, and the best block b* of each encoder.

    Parameters
    ----------
    blocks : DataFrame
        Tidy results of every task: one row an encoder, block and metric.
    best : DataFrame
        ``encoder, task, block, share_other_block``: the block that each probe chose, and
        the share of resamples that choose another.
    """
    pieces: list[Piece] = []
    answers = []
    for (task,), part in blocks.group_by("source", maintain_order=True):
        true, control = split_control(part)
        if true.is_empty():
            continue
        of_task = best.filter(task=task)
        chosen = dict(of_task.select("encoder", "block").iter_rows())
        unsure = dict(of_task.select("encoder", "share_other_block").iter_rows())
        pieces.append(_curves(true, control, chosen, str(task)))
        pieces.append(_table(true, control, chosen, unsure, str(task)))
        top = true.sort("value", descending=True).row(0, named=True)
        where = f"block {top['block']} of {top['encoder']}" if top["block"] else top["encoder"]
        answers.append(f"{task}: {where} is best, balanced accuracy {top['value']:.2f}")
    return Section(
        "probe",
        "Probes of every block",
        "Which block separates biology best?",
        pieces,
        "results/probe",
        answer="; ".join(answers),
    )


def split_control(part: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Part the accuracies of true labels from those of permuted ones."""
    return part.filter(metric=ACCURACY), part.filter(metric=PERMUTED)


def _curves(
    true: pl.DataFrame, control: pl.DataFrame, chosen: dict[str, int], task: str
) -> Figure:
    """Draw accuracy against block, one line an encoder, b* ringed."""
    star = pl.Series(
        "star",
        [chosen.get(e) == b for e, b in zip(true["encoder"], true["block"], strict=True)],
    )
    shown = true.select("encoder", "block", "value", "low", "high", "n").with_columns(star)
    numbers = shown["block"].unique().sort().to_list()
    axis = alt.Axis(values=numbers[:: max(1, len(numbers) // BLOCKS_NAMED)], format="d")
    base = alt.Chart(data_of(shown.sort("encoder", "block"))).encode(
        x=alt.X("block:Q", title="block", axis=axis),
        color=alt.Color("encoder:N", title=None, legend=alt.Legend(symbolOpacity=1)),
    )
    band = base.mark_area(opacity=0.13).encode(y="low:Q", y2="high:Q")
    line = base.mark_line(point={"size": 30}).encode(
        y=alt.Y("value:Q", title="balanced accuracy", scale=alt.Scale(zero=False)),
        tooltip=[
            "encoder:N",
            "block:Q",
            *(alt.Tooltip(f"{c}:Q", format=".3f") for c in ("value", "low", "high")),
            "n:Q",
        ],
    )
    ring = (
        base.transform_filter("datum.star")
        .mark_point(filled=False, size=210, strokeWidth=2)
        .encode(y="value:Q")
    )
    layers: list[alt.Chart] = [band, line, ring]
    if control.height:
        chance = alt.Chart(data_of(pl.DataFrame({"value": [float(control["value"].mean())]})))  # type: ignore[arg-type]
        layers.append(chance.mark_rule(strokeDash=[4, 3]).encode(y="value:Q"))
    chart = alt.layer(*layers).properties(width=560, height=280)
    caption = (
        f"Probe `{task}`: balanced accuracy on held-out experiments by block, bands are 95 % "
        "intervals, rings mark the best block b* (Eq. 1)."
    )
    if control.height:
        caption += " Dashed: genes reassigned to groups at random."
    return Figure(specification(chart), caption)


def _table(
    true: pl.DataFrame,
    control: pl.DataFrame,
    chosen: dict[str, int],
    unsure: dict[str, float | None],
    task: str,
) -> Table:
    """Tabulate the best and the last block of each encoder."""
    rows: list[list[str]] = []
    values = []
    for (name,), part in true.sort("encoder", "block").group_by("encoder", maintain_order=True):
        encoder, last = str(name), part.row(-1, named=True)
        wanted = part.filter(block=chosen.get(encoder, -1))
        top = (wanted if wanted.height else part.sort("value")).row(-1, named=True)
        permuted = control.filter(encoder=encoder, block=top["block"])
        values.append(top["value"])
        rows.append(
            [
                encoder,
                f"{top['block']} of {part.height}",
                tell(unsure.get(encoder), 2),
                tell(top["value"]),
                _interval(top),
                tell(last["value"]),
                f"{top['value'] - last['value']:+.3f}",
                tell(permuted["value"][0] if permuted.height else None),
                tell(top["n"]),
            ]
        )
    best = frozenset({(values.index(max(values)), 3)}) if values else frozenset()
    header = [
        *("encoder", "b*", "unsure", "accuracy", "95 %", "last block"),
        *("gain", "permuted", "wells"),
    ]
    caption = (
        f"Probe `{task}`. Unsure: share of resamples of test wells in which another block is "
        "best. Gain: b* over the last block."
    )
    if control.height:
        caption += " Permuted: genes reassigned to groups at random."
    return Table(header, rows, caption, frozenset(range(1, 9)), best)


def _interval(row: dict[str, Any]) -> str:
    if row["low"] is None or row["high"] is None:
        return "–"
    return f"{row['low']:.3f}–{row['high']:.3f}"
