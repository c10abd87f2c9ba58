"""The map as a clustered heatmap: who is like whom, groups beside one another."""

import altair as alt
import numpy as np
import polars as pl
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from phenopipe.report.charts import data_of, specification
from phenopipe.report.pieces import Figure, Piece

ROWS = 48
# A gene's knockout goes by the gene's name alone.
NAMED_BY_KIND = {"sirna": " siRNA", "overexpression": " overexpressed"}


def name_of(entity: str, kind: str) -> pl.Expr:
    """Name of a row of the map, from the columns of its entity and kind."""
    return pl.concat_str(entity, pl.col(kind).replace_strict(NAMED_BY_KIND, default=""))


def clustered(table: pl.DataFrame, rows: int = ROWS) -> pl.DataFrame:
    """Cosines among the rows whose wells agree best, in the order of a clustering.

    Parameters
    ----------
    table : DataFrame
        The map format. The length of a spherical mean tells how far its wells agree.
    rows : int
        Rows shown at most; of a compound only the dose whose wells agree best.

    Returns
    -------
    DataFrame
        ``first, second, cosine``; names in the order of an average linkage of cosine
        distances, like next to like.
    """
    x_GD = table["embedding"].to_numpy().astype(np.float64)
    named = table.select("entity", "kind").with_columns(
        length=pl.Series(np.linalg.norm(x_GD, axis=1)), at=pl.int_range(pl.len())
    )
    best = named.sort("length", "entity", descending=[True, False]).unique(
        ["entity", "kind"], keep="first", maintain_order=True
    )
    best = best.filter(pl.col("length") > 0).head(rows)
    if best.height < 3:
        return pl.DataFrame()
    unit_GD = x_GD[best["at"].to_numpy()] / best["length"].to_numpy()[:, None]
    cosine_GG = np.clip(unit_GD @ unit_GD.T.copy(), -1, 1)
    distance_GG = 1 - cosine_GG
    np.fill_diagonal(distance_GG, 0)
    tree = linkage(squareform(distance_GG, checks=False), "average", optimal_ordering=True)
    order = leaves_list(tree)
    names = best.select(name=name_of("entity", "kind"))["name"].to_list()
    ordered = [names[at] for at in order]
    return pl.DataFrame(
        {
            "first": np.repeat(ordered, len(ordered)),
            "second": np.tile(ordered, len(ordered)),
            "cosine": cosine_GG[np.ix_(order, order)].ravel(),
        }
    )


def heatmap(cosines: pl.DataFrame, title: str) -> list[Piece]:
    """Draw clustered cosines, blue where alike and red where opposed."""
    if cosines.is_empty():
        return []
    names = cosines["first"].unique(maintain_order=True).to_list()
    axis = alt.Axis(labelFontSize=8, ticks=False)
    chart = (
        alt.Chart(data_of(cosines))
        .mark_rect()
        .encode(
            x=alt.X("second:N", sort=names, title=None, axis=axis),
            y=alt.Y("first:N", sort=names, title=None, axis=axis),
            color=alt.Color(
                "cosine:Q", scale=alt.Scale(scheme="redblue", domain=[-1, 1]), title="cosine"
            ),
            tooltip=["first:N", "second:N", alt.Tooltip("cosine:Q", format=".2f")],
        )
        .properties(width=520, height=520)
    )
    return [
        Figure(
            specification(chart),
            f"Map of {title}: the {len(names)} genes and compounds whose wells agree best, "
            "clustered by cosine similarity (average linkage).",
        )
    ]
