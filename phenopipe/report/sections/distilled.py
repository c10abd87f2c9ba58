"""Figures of trainings by a teacher: over-fitting, collapse, and what blocks learn."""

from collections.abc import Mapping

import altair as alt
import polars as pl

from phenopipe.report.charts import data_of, specification
from phenopipe.report.pieces import Figure, Piece

POINTS = 120
TRAINING, HELD_OUT = "training", "held out"
MEASURES = {
    "held_out_rank": "effective rank",
    "held_out_told": "told by outputs",
    "held_out_entropy": "entropy of targets",
}
HELD_COLUMN = "held_out_loss"
PROBE = "probe_"


def distilled(histories: Mapping[str, pl.DataFrame]) -> list[Piece]:
    """Draw what was measured in trainings by a teacher, if there are any.

    Parameters
    ----------
    histories : mapping of str to DataFrame
        History of each encoder, of whatever kind.
    """
    mine = {name: history for name, history in histories.items() if "dino" in history.columns}
    if not mine:
        return []
    drawn = (_losses(mine), _measures(mine), _probes(mine))
    return [figure for figure in drawn if figure is not None]


def loss_curves(history: pl.DataFrame) -> pl.DataFrame:
    """Lay out a history as ``update, images, value``: losses of training and held-out images.

    Between two looks at held-out images the training's loss is averaged, so that both have
    as many points.
    """
    history = history.sort("update")
    if HELD_COLUMN not in history.columns:
        history = history.with_columns(pl.lit(None, pl.Float64).alias(HELD_COLUMN))
    held, step = pl.col(HELD_COLUMN), max(1, history.height // POINTS)
    looks = held.is_not_null() if history[HELD_COLUMN].count() else pl.col("update") % step == 0
    # Rows up to and including a look make one stretch.
    stretch = looks.cum_sum() - looks.cast(pl.Int64)
    curves = (
        history.group_by(stretch.alias("stretch"), maintain_order=True)
        .agg(pl.col("update", HELD_COLUMN).last(), pl.col("loss").mean())
        .rename({"loss": TRAINING, HELD_COLUMN: HELD_OUT})
    )
    long = curves.unpivot([TRAINING, HELD_OUT], index="update", variable_name="images")
    return long.drop_nulls()


def _losses(histories: Mapping[str, pl.DataFrame]) -> Figure:
    """Draw the loss as the paper's Figure 8 does, with that of held-out images beside it."""
    rows = pl.concat(
        [
            loss_curves(history).with_columns(encoder=pl.lit(name))
            for name, history in histories.items()
        ]
    )
    chart = (
        alt.Chart(data_of(rows))
        .mark_line(strokeWidth=1.6)
        .encode(
            x=alt.X("update:Q", axis=alt.Axis(tickCount=4)),
            y=alt.Y("value:Q", title="loss", scale=alt.Scale(zero=False)),
            color=alt.Color("images:N", title=None, sort=[TRAINING, HELD_OUT]),
            tooltip=["encoder:N", "images:N", "update:Q", alt.Tooltip("value:Q", format=".4f")],
        )
        .properties(width=300, height=190)
        .facet(facet=alt.Facet("encoder:N", title=None), columns=2)
        .resolve_scale(y="independent")
    )
    caption = (
        "Loss of students (the paper's Figure 8): while the two curves fall together, what is "
        "learned holds for images that were never trained on; where that of held-out images "
        "rises, it over-fits."
    )
    return Figure(specification(chart), caption)


def _long(
    histories: Mapping[str, pl.DataFrame], names: Mapping[str, str]
) -> pl.DataFrame | None:
    """Lay out columns that are filled now and then as ``encoder, update, what, value``."""
    frames = []
    for encoder, history in histories.items():
        there = [name for name in names if name in history.columns]
        long = history.unpivot(there, index="update", variable_name="what").drop_nulls()
        if there and long.height:
            frames.append(
                long.select(
                    "update",
                    pl.col("value").cast(pl.Float64),
                    what=pl.col("what").replace_strict(dict(names)),
                    encoder=pl.lit(encoder),
                )
            )
    return pl.concat(frames) if frames else None


def _measures(histories: Mapping[str, pl.DataFrame]) -> Figure | None:
    rows = _long(histories, MEASURES)
    if rows is None:
        return None
    chart = (
        alt.Chart(data_of(rows))
        .mark_line(strokeWidth=1.6, point=alt.OverlayMarkDef(size=14))
        .encode(
            x=alt.X("update:Q", axis=alt.Axis(tickCount=4)),
            y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=True)),
            color=alt.Color("encoder:N", title=None),
            tooltip=["encoder:N", "update:Q", alt.Tooltip("value:Q", format=".3f")],
        )
        .properties(width=230, height=150)
        .facet(
            facet=alt.Facet("what:N", title=None, sort=list(MEASURES.values())),
            columns=3,
        )
        .resolve_scale(y="independent")
    )
    caption = (
        "Held-out images: directions in which embeddings differ; share of what the teacher's "
        "outputs could tell of a crop that they do tell; entropy of its targets, 1 if all "
        "prototypes are alike. A collapse is a fall of the first two to nothing."
    )
    return Figure(specification(chart), caption)


def _probes(histories: Mapping[str, pl.DataFrame]) -> Figure | None:
    columns = {name for history in histories.values() for name in history.columns}
    blocks = sorted(int(name.removeprefix(PROBE)) for name in columns if name.startswith(PROBE))
    rows = _long(histories, {f"{PROBE}{block}": str(block) for block in blocks})
    if rows is None:
        return None
    chart = (
        alt.Chart(data_of(rows.with_columns(block=pl.col("what").cast(pl.Int64))))
        .mark_line(strokeWidth=1.6, point=alt.OverlayMarkDef(size=14))
        .encode(
            x=alt.X("update:Q", axis=alt.Axis(tickCount=4)),
            y=alt.Y("value:Q", title="balanced accuracy", scale=alt.Scale(zero=False)),
            color=alt.Color("block:O", title="block"),
            tooltip=["encoder:N", "block:O", "update:Q", alt.Tooltip("value:Q", format=".3f")],
        )
        .properties(width=300, height=190)
        .facet(facet=alt.Facet("encoder:N", title=None), columns=2)
    )
    return Figure(specification(chart), "Probes of every block of the teacher, as it learned.")
