"""Section probe: balanced accuracy of a linear probe on every block of every encoder."""

from typing import Any

import altair as alt
import polars as pl

from phenopipe.report.charts import data_of, specification
from phenopipe.report.pieces import Figure, Piece, Section, Table, tell

ACCURACY = "balanced_accuracy"
BLOCKS_NAMED = 12
PERMUTED = "balanced_accuracy_permuted"
OVER_EXPERIMENTS = "balanced_accuracy_over_experiments"
GAIN = "gain_on_other_half"
OTHER = "share_other_block"


def probe_section(blocks: pl.DataFrame, best: pl.DataFrame) -> Section:
    """Show accuracy by block, and the best block b* of each encoder.

    Parameters
    ----------
    blocks : DataFrame
        Tidy results of every task: one row an encoder, block and metric.
    best : DataFrame
        ``encoder, task, block, share_other_block, share_other_block_over_experiments,
        converged``: the block that each probe chose, the shares of resamples that choose
        another, and whether the solver converged on every block.
    """
    pieces: list[Piece] = []
    answers = []
    for (task,), part in blocks.group_by("source", maintain_order=True):
        true, control = split_control(part)
        if true.is_empty():
            continue
        of_task = best.filter(task=task)
        chosen = dict(of_task.select("encoder", "block").iter_rows())
        pieces.append(_curves(true, control, chosen, str(task)))
        pieces.append(_table(part, of_task, str(task)))
        top = true.sort("value", descending=True).row(0, named=True)
        where = f"block {top['block']} of {top['encoder']}" if top["block"] else top["encoder"]
        answers.append(f"{task}: {where} is best, balanced accuracy {top['value']:.2f}")
    if best["task"].n_unique() > 1:
        pieces.append(_choices(best))
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


def _table(part: pl.DataFrame, of_task: pl.DataFrame, task: str) -> Table:
    """Tabulate the best and the last block of each encoder."""
    true, control = split_control(part)
    over, gains = part.filter(metric=OVER_EXPERIMENTS), part.filter(metric=GAIN)
    said = {row["encoder"]: row for row in of_task.iter_rows(named=True)}
    rows: list[list[str]] = []
    values = []
    for (name,), blocks in true.sort("encoder", "block").group_by(
        "encoder", maintain_order=True
    ):
        encoder, last = str(name), blocks.row(-1, named=True)
        best = said.get(encoder, {})
        wanted = blocks.filter(block=best.get("block", -1))
        top = (wanted if wanted.height else blocks.sort("value")).row(-1, named=True)
        permuted = control.filter(encoder=encoder, block=top["block"])
        values.append(top["value"])
        unsure = [best.get(OTHER), best.get(OTHER + "_over_experiments")]
        rows.append(
            [
                encoder,
                f"{top['block']} of {blocks.height}",
                " / ".join(tell(share, 2) for share in unsure),
                tell(top["value"]),
                _interval(top),
                _interval(_only(over.filter(encoder=encoder, block=top["block"]))),
                tell(last["value"]),
                f"{top['value'] - last['value']:+.3f}",
                _gain(_only(gains.filter(encoder=encoder))),
                tell(permuted["value"][0] if permuted.height else None),
                tell(top["n"]),
            ]
        )
    best_cells = frozenset({(values.index(max(values)), 3)}) if values else frozenset()
    header = [
        *("encoder", "b*", "unsure", "accuracy", "95 %", "95 % (experiments)"),
        *("last block", "gain", "gain on the other half", "permuted", "wells"),
    ]
    return Table(
        header,
        rows,
        _caption(task, control, of_task),
        frozenset(range(1, len(header))),
        best_cells,
    )


def _caption(task: str, control: pl.DataFrame, of_task: pl.DataFrame) -> str:
    caption = (
        f"Probe `{task}`. Of equal blocks the earliest is b*. Unsure: share of resamples of "
        "test wells, and of test experiments, in which another block is best. Gain: b* over "
        "the last block, on the wells that chose it; on the other half: each half of the "
        "test wells judged by the block that the other half chose, which does not flatter."
    )
    if control.height:
        caption += " Permuted: genes reassigned to groups at random."
    if "converged" in of_task.columns:
        short = of_task.filter(~pl.col("converged").fill_null(True))["encoder"].to_list()
        if short:
            caption += f" The solver did not converge on every block of {', '.join(short)}."
    return caption


def _choices(best: pl.DataFrame) -> Table:
    """Tabulate the block that each task chooses of each encoder, and who disagrees."""
    tasks = best["task"].unique(maintain_order=True).to_list()
    rows = []
    for (name,), part in best.sort("encoder").group_by("encoder", maintain_order=True):
        chosen = dict(part.select("task", "block").iter_rows())
        agree = "yes" if len(set(chosen.values())) == 1 else "no"
        rows.append([str(name), *(tell(chosen.get(task)) for task in tasks), agree])
    caption = (
        "The best block b* by each task. A trimmed encoder names the task that decides where "
        "it ends; the others may disagree."
    )
    header = ["encoder", *map(str, tasks), "agree"]
    return Table(header, rows, caption, frozenset(range(1, len(header))))


def _only(frame: pl.DataFrame) -> dict[str, Any] | None:
    return frame.row(0, named=True) if frame.height else None


def _gain(row: dict[str, Any] | None) -> str:
    if row is None or row["value"] is None:
        return "–"
    return f"{row['value']:+.3f} ({_interval(row, '+.3f')})"


def _interval(row: dict[str, Any] | None, form: str = ".3f") -> str:
    if row is None or row["low"] is None or row["high"] is None:
        return "–"
    between = "–" if form == ".3f" else " to "
    return f"{row['low']:{form}}{between}{row['high']:{form}}"
