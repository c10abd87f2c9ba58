"""Sections embed and align: what the encoders saw, and what of that was batch effect."""

from dataclasses import dataclass

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.report.charts import ROLES, data_of, specification
from phenopipe.report.pieces import Figure, Fold, Piece, Prose, Section, Table, table_of, tell

EXPERIMENTS_COLOURED = 20
OPEN_ENCODERS = 1
RIM = 0.005


@dataclass(frozen=True)
class Alignment:
    """What the page shows of one encoder on one screen.

    ``plane`` has one row a sampled well: coordinates before (bx, by) and after (ax, ay),
    experiment and role; ``shares`` are the four axes' shares of variance; ``apart`` is how
    well experiments are told apart (see :func:`phenopipe.report.scatter`).
    """

    screen: str
    encoder: str
    plane: pl.DataFrame
    shares: tuple[float, float, float, float]
    apart: pl.DataFrame


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
        table = _apart_table(alignments)
        if table.rows:
            pieces.append(table)
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


def _apart_table(alignments: list[Alignment]) -> Table:
    rows = []
    for one in alignments:
        for (cell_type,), part in one.apart.group_by("cell_type", maintain_order=True):
            cells = {row["phase"]: row for row in part.iter_rows(named=True)}
            if {"before", "after"} <= cells.keys():
                after = cells["after"]
                rows.append(
                    [
                        one.screen, one.encoder, str(cell_type), _ranged(cells["before"]),
                        _ranged(after), tell(after["chance"]), tell(after["n"]),
                    ]
                )  # fmt: skip
    header = ["screen", "encoder", "cell type", "before", "after", "chance", "wells"]
    caption = (
        "How well a linear classifier tells experiments apart: cross-validated balanced "
        "accuracy with its 95 % interval, on negative controls that the transform was not "
        "fitted on."
    )
    return Table(header, rows, caption, frozenset({3, 4, 5, 6}))


def _ranged(row: dict[str, float]) -> str:
    return f"{row['accuracy']:.2f} ({row['low']:.2f}–{row['high']:.2f})"


def _answer(alignments: list[Alignment]) -> str:
    one = next(a for a in alignments if a.apart.height)
    rows = {row["phase"]: row for row in one.apart.iter_rows(named=True)}
    return (
        f"experiments told apart with {rows['before']['accuracy']:.2f} before, "
        f"{rows['after']['accuracy']:.2f} after "
        f"(chance {rows['after']['chance']:.2f}; {one.encoder})"
    )


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
