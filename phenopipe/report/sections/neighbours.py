"""Section map: the nearest and the most opposed genes and compounds, to be searched."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from phenopipe.report.pieces import Fold, Piece, Search, Section, tell
from phenopipe.report.sections.heatmap import heatmap, name_of


def near_of_map(neighbours: pl.DataFrame, *, a_row: int, max_rows: int) -> dict[str, Any]:
    """Lay out neighbours for the page's search: names once, then pairs (number, cosine).

    Parameters
    ----------
    neighbours : DataFrame
        The neighbours format.
    a_row : int
        Nearest, and most opposed, names kept for each row.
    max_rows : int
        Rows kept; further ones, in the order of their names, are left out.

    Returns
    -------
    dict
        ``names``, ``near`` (for each name its nearest and its most opposed; null for names
        that only occur as neighbours) and ``left_out``, the number of rows not kept.
    """
    labelled = neighbours.filter(pl.col("rank").abs() <= a_row).with_columns(
        row=_label("entity", "concentration_um", "kind"),
        other=_label("neighbour", "neighbour_concentration_um", "neighbour_kind"),
    )
    rows = sorted(labelled["row"].unique())
    kept = labelled.filter(pl.col("row").is_in(rows[:max_rows]))
    names = rows[:max_rows] + sorted(set(kept["other"]) - set(rows[:max_rows]))
    number = {name: at for at, name in enumerate(names)}
    near: list[list[list[list[float]]] | None] = [None] * len(names)
    ordered = kept.sort("row", pl.col("rank").abs())
    for (row,), part in ordered.group_by("row", maintain_order=True):
        near[number[str(row)]] = [
            [[number[other], round(cosine, 3)] for other, cosine in side.iter_rows()]
            for side in (
                part.filter(pl.col("rank") > 0).select("other", "cosine"),
                part.filter(pl.col("rank") < 0).select("other", "cosine"),
            )
        ]
    return {"names": names, "near": near, "left_out": max(0, len(rows) - max_rows)}


def map_section(
    maps: dict[str, dict[str, Any]], cosines: Mapping[str, pl.DataFrame] | None = None
) -> Section:
    """Let the reader search each encoder's map, and show it as a clustered heatmap."""
    pieces: list[Piece] = []
    answer = ""
    if maps:
        first = next(iter(maps.values()))
        left_out = max(one["left_out"] for one in maps.values())
        caption = (
            "Cosine similarity of aggregated embeddings, the mean of the negative controls as "
            "the origin. A compound is listed with its concentration."
        )
        if left_out:
            caption += f" {tell(left_out)} rows of the map are not listed here."
        for title, one in (cosines or {}).items():
            pieces += [Fold(f"Heatmap, {title}", heatmap(one, title))]
        n_rows = sum(one is not None for one in first["near"])
        pieces = [Search(maps, caption, _most_alike(first))]
        answer = f"{tell(n_rows)} genes and compounds on the map, each with its neighbours"
    return Section(
        "map",
        "Neighbours on the map",
        "Which genes and compounds act alike, and which act opposed?",
        pieces,
        "results/benchmark",
        answer=answer,
    )


def _most_alike(found: dict[str, Any]) -> str:
    """Name whose nearest neighbour is nearest: an example that shows something."""
    cosine = [near[0][0][1] if near and near[0] else -1.0 for near in found["near"]]
    return str(found["names"][cosine.index(max(cosine))])


def _label(entity: str, concentration: str, kind: str) -> pl.Expr:
    # A whole number of micromolar is written without its decimal point.
    amount = pl.col(concentration).cast(pl.String).str.replace(r"\.0$", "")
    dose = pl.format("{} {} µM", entity, amount)
    of_compound = pl.coalesce(dose, entity)
    return (
        pl.when(pl.col(kind) == "compound").then(of_compound).otherwise(name_of(entity, kind))
    )
