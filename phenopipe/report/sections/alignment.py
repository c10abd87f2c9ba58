"""Sections embed and align: what the encoders saw, and what of that was batch effect."""

from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.report.charts import ROLES, data_of, specification
from phenopipe.report.pieces import Figure, Fold, Piece, Prose, Section, Table, table_of, tell

EXPERIMENTS_COLOURED = 20
OPEN_ENCODERS = 1
RIM = 0.005
APART, RANK = "experiments_apart", "replicates_rank"
COUNTED = {APART: "wells", RANK: "conditions"}
CAPTIONS = {
    APART: (
        "How well a linear classifier tells experiments apart: cross-validated balanced "
        "accuracy with its 95 % interval, on negative controls that the transform was not "
        "fitted on."
    ),
    RANK: (
        "How alike replicates of different experiments are: share of pairs of different "
        "conditions whose cosine is below that of a pair of one condition, with its 95 % "
        "interval over conditions."
    ),
}


@dataclass(frozen=True)
class Alignment:
    """What the page shows of one encoder on one screen.

    ``plane`` has one row a sampled well: coordinates before (bx, by) and after (ax, ay),
    experiment and role; ``shares`` are the four axes' shares of variance; ``measures`` are the
    tidy results of step ``align.measure``; ``controls`` is what each experiment's controls can
    tell (see :mod:`phenopipe.formats.controls`).
    """

    screen: str
    encoder: str
    plane: pl.DataFrame
    shares: tuple[float, float, float, float]
    measures: pl.DataFrame
    controls: pl.DataFrame


def embed_section(encoders: pl.DataFrame) -> Section:
    """List which encoder embedded which screen, and how."""
    pieces: list[Piece] = []
    answer = ""
    if not encoders.is_empty():
        header = {
            "screen": "screen",
            "encoder": "encoder",
            "blocks": "blocks kept",
            "last": "last block",
            "dim": "width",
            "pooling": "pooling",
            "crops": "crops a well",
            "experiments": "experiments",
        }
        text = (
            "A well's embedding is the mean over its crops. Screens that a probe reads keep "
            "every block of an encoder; alignment reads the last."
        )
        pieces = [Prose(text), table_of(encoders.sort("screen", "encoder"), header)]
        answer = f"encoders: {', '.join(sorted(encoders['encoder'].unique()))}"
    return Section(
        "embed",
        "Embeddings",
        "What does each encoder see in every well, at every block?",
        pieces,
        "results/embed",
        answer=answer,
    )


def align_section(alignments: list[Alignment]) -> Section:
    """Show embeddings before and after alignment, and whether experiments still show."""
    pieces: list[Piece] = []
    answer = ""
    if alignments:
        pieces.append(
            Prose(
                "After alignment, wells of different experiments should lie on top of one "
                "another, while perturbations that act still lie apart from controls."
            )
        )
        tables = [_measures_table(alignments, figure) for figure in CAPTIONS]
        tables.append(_controls_table(alignments))
        pieces += [table for table in tables if table.rows]
        answer = _answer(alignments)
        for number, one in enumerate(alignments):
            figure = _planes(one)
            title = f"{one.encoder} on {one.screen}"
            pieces.append(figure if number < OPEN_ENCODERS else Fold(title, [figure]))
    return Section(
        "align", "Alignment", "What of that is batch effect?", pieces, "results/align",
        answer=answer,
    )  # fmt: skip


def plane_frame(
    wells: pl.DataFrame,
    before_N2: NDArray[np.float64],
    after_N2: NDArray[np.float64],
) -> pl.DataFrame:
    """Lay out the coordinates of a sample as :class:`Alignment` wants them.

    Wells beyond the outer half per cent of an axis are drawn on the rim, so that a few far
    ones do not press all others into a point.
    """
    plane_N4 = np.concatenate([before_N2, after_N2], axis=1)
    low_4, high_4 = np.quantile(plane_N4, [RIM, 1 - RIM], axis=0)
    columns = dict(zip(("bx", "by", "ax", "ay"), plane_N4.clip(low_4, high_4).T, strict=True))
    named = wells.select("experiment", pl.col("role").str.replace_all("_", " "))
    return named.with_columns(**{name: pl.Series(values) for name, values in columns.items()})


def _measures_table(alignments: list[Alignment], figure: str) -> Table:
    """Tabulate one figure before and after alignment, by encoder and cell type."""
    rows = []
    for one in alignments:
        cells = _cells(one, figure)
        for cell_type in dict.fromkeys(source for source, _ in cells):
            found = {part: cells.get((cell_type, part)) for part in ("before", "after")}
            if found["before"] is None or found["after"] is None:
                continue
            chance = cells.get((cell_type, "chance"), {"value": 0.5})
            rows.append(
                [
                    one.screen, one.encoder, cell_type, _ranged(found["before"]),
                    _ranged(found["after"]), tell(chance["value"]),
                    tell(found["after"]["n"]),
                ]
            )  # fmt: skip
    header = ["screen", "encoder", "cell type", "before", "after", "chance", COUNTED[figure]]
    return Table(header, rows, CAPTIONS[figure], frozenset({3, 4, 5, 6}))


def _cells(one: Alignment, figure: str) -> dict[tuple[str, str], dict[str, Any]]:
    mine = one.measures.filter(pl.col("metric").str.starts_with(figure + "_"))
    return {
        (row["source"], row["metric"].removeprefix(figure + "_")): row
        for row in mine.iter_rows(named=True)
    }


def _ranged(row: dict[str, Any]) -> str:
    return f"{row['value']:.2f} ({row['low']:.2f}–{row['high']:.2f})"


def _answer(alignments: list[Alignment]) -> str:
    for one in alignments:
        cells = _cells(one, APART)
        for cell_type in dict.fromkeys(source for source, _ in cells):
            before, after, chance = (
                cells[cell_type, part]["value"] for part in ("before", "after", "chance")
            )
            return (
                f"experiments told apart with {before:.2f} before, {after:.2f} after "
                f"(chance {chance:.2f}; {one.encoder})"
            )
    return ""


def _controls_table(alignments: list[Alignment]) -> Table:
    """Tabulate what controls can tell: all together, and the experiment that tells least."""
    rows = []
    for one in alignments:
        each = one.controls.filter(pl.col("experiment").is_not_null())
        together = one.controls.filter(pl.col("experiment").is_null())
        if each.is_empty() or together.is_empty():
            continue
        least = each.sort("rank", "n_controls", "experiment").row(0, named=True)
        total = together.row(0, named=True)
        rows.append(
            [
                one.screen, one.encoder, tell(each.height), tell(total["n_controls"]),
                tell(total["rank"]), tell(total["n_kept"]), tell(total["n_dropped"]),
                tell(total["condition"]), least["experiment"], tell(least["n_controls"]),
                tell(least["rank"]), tell(least["n_unscaled"]),
            ]
        )  # fmt: skip
    header = [
        "screen", "encoder", "experiments", "controls", "rank", "kept", "dropped", "condition",
        "least told", "its controls", "its rank", "unscaled",
    ]  # fmt: skip
    caption = (
        "Directions in which the controls vary, all together (rank; largest over smallest "
        "variance: condition) and in the experiment whose controls tell least. Along its "
        "unscaled directions, other experiments' controls or the regularization set the scale."
    )
    return Table(header, rows, caption, frozenset({2, 3, 4, 5, 6, 7, 9, 10, 11}))


def _planes(one: Alignment) -> Figure:
    """Draw the principal planes before and after, coloured by experiment and by role."""
    data = data_of(one.plane)
    many = one.plane["experiment"].n_unique() > EXPERIMENTS_COLOURED
    rows = []
    for field, title in (("experiment", "experiment"), ("role", "role")):
        legend = (
            None if field == "experiment" and many else alt.Legend(title=title, symbolLimit=24)
        )
        color = alt.Color(f"{field}:N", legend=legend)
        if field == "role":
            color = color.scale(domain=list(ROLES), range=list(ROLES.values()))
        panels = []
        for phase, x, y, shares in (
            ("before", "bx", "by", one.shares[:2]),
            ("after", "ax", "ay", one.shares[2:]),
        ):
            panels.append(
                alt.Chart(data, title=phase if field == "experiment" else "")
                .mark_circle(size=18, opacity=0.65)
                .encode(
                    x=alt.X(f"{x}:Q", title=f"PC 1 ({shares[0]:.0%})", axis=_bare()),
                    y=alt.Y(f"{y}:Q", title=f"PC 2 ({shares[1]:.0%})", axis=_bare()),
                    color=color,
                    tooltip=["experiment:N", "role:N"],
                )
                .properties(width=300, height=250)
            )
        rows.append(alt.hconcat(*panels, spacing=26))
    chart = alt.vconcat(*rows, spacing=18).resolve_scale(color="independent")
    return Figure(
        specification(chart),
        f"Principal planes of {tell(one.plane.height)} sampled wells of `{one.screen}` seen by "
        f"`{one.encoder}`: raw embeddings left, aligned ones right. The outermost 1 % of each "
        "axis stand on its rim.",
    )


def _bare() -> alt.Axis:
    return alt.Axis(labels=False, ticks=False, grid=False)
