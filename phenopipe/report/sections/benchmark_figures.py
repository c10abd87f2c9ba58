"""Figures of benchmarks: recall, replicate consistency, magnitude, compound-gene precision."""

import re

import altair as alt
import numpy as np
import polars as pl

from phenopipe.report.charts import CATEGORIES, data_of, specification
from phenopipe.report.pieces import Figure, Piece
from phenopipe.report.scoreboard import recall_metric, tails_of

BINS = 30
COMPOUNDS_NAMED = 12
TICKS = 10
DOSE = re.compile(r"average_precision_([0-9.e+-]+)um")


def recall_figure(part: pl.DataFrame) -> list[Piece]:
    """Draw recall by source with its interval, and the control with shuffled names."""
    metric = recall_metric(part)
    tails, chance = tails_of(metric)
    permuted = metric.replace("recall_", "recall_permuted_")
    shown = part.filter(pl.col("metric").is_in([metric, permuted])).select(
        "encoder", "source", "value", "low", "high", "n",
        what=pl.when(pl.col("metric") == metric)
        .then(pl.lit("known pairs"))
        .otherwise(pl.lit("gene names shuffled")),
    )  # fmt: skip
    if shown.is_empty():
        return []
    base = alt.Chart(data_of(shown)).encode(
        y=alt.Y("encoder:N", title=None),
        color=alt.Color("what:N", title=None, sort=["known pairs", "gene names shuffled"]),
    )
    bars = base.mark_rule(strokeWidth=2, opacity=0.6).encode(x="low:Q", x2="high:Q")
    points = base.mark_point().encode(
        x=alt.X("value:Q", title=f"recall at {tails}", scale=alt.Scale(zero=False)),
        tooltip=[
            "encoder:N",
            "source:N",
            "what:N",
            alt.Tooltip("value:Q", format=".3f"),
            "n:Q",
        ],
    )
    by_chance = base.mark_rule(strokeDash=[4, 3]).encode(
        x=alt.datum(chance), y=alt.value(0), y2=alt.value("height"), color=alt.value("#9aa4b0")
    )
    n_sources = shown["source"].n_unique()
    chart = (
        alt.layer(by_chance, bars, points)
        .properties(width=420 if n_sources == 1 else 260, height=alt.Step(26))
        .facet(facet=alt.Facet("source:N", title=None), columns=2)
    )
    return [
        Figure(
            specification(chart),
            "Recall of known relationships by source, 95 % intervals by resampling genes; the "
            "control shuffles the map's gene names. Dashed: chance.",
        )
    ]


def replicates_figure(part: pl.DataFrame) -> list[Piece]:
    """Draw replicate consistency with its interval, one bar an encoder."""
    shown = part.filter(pl.col("metric").is_in(["ks", "cvm"])).select(
        "encoder", "value", "low", "high", "n", what=pl.col("metric").str.to_uppercase()
    )
    if shown.is_empty():
        return []
    base = alt.Chart(data_of(shown)).encode(y=alt.Y("encoder:N", title=None))
    bars = base.mark_bar(cornerRadiusEnd=2, height={"band": 0.55}, opacity=0.85).encode(
        x=alt.X("value:Q", title=None, axis=alt.Axis(tickCount=4)),
        tooltip=["encoder:N", "what:N", alt.Tooltip("value:Q", format=".3f"), "n:Q"],
    )
    rules = base.mark_rule(strokeWidth=1.5).encode(x="low:Q", x2="high:Q")
    chart = (
        alt.layer(bars, rules)
        .properties(width=260, height=alt.Step(24))
        .facet(facet=alt.Facet("what:N", title=None, sort=["KS", "CVM"]), columns=2)
        .resolve_scale(x="independent")
    )
    return [
        Figure(
            specification(chart),
            "Replicate consistency: how far cosines of matched wells of technical pairs exceed "
            "those of unmatched wells. Medians and 95 % intervals over the technical pairs "
            "that all encoders have alike; no interval where an encoder has others besides.",
        )
    ]


def magnitude_figures(magnitudes: pl.DataFrame) -> list[Piece]:
    """Draw how far conditions lie from the controls, and how that grows with dose."""
    if magnitudes.is_empty():
        return []
    figures: list[Piece] = [_magnitude_distribution(magnitudes)]
    dosed = magnitudes.filter(pl.col("concentration_um") > 0)
    per_compound = dosed.group_by("perturbation").agg(
        doses=pl.col("concentration_um").n_unique()
    )
    several = per_compound.filter(pl.col("doses") > 1)["perturbation"].to_list()
    dosed = dosed.filter(pl.col("perturbation").is_in(several))
    if dosed.height:
        figures.append(_magnitude_by_dose(dosed))
    return figures


def _magnitude_distribution(magnitudes: pl.DataFrame) -> Figure:
    """Draw the energy distances of all conditions on a logarithmic axis, by encoder."""
    frames = []
    for (encoder,), part in magnitudes.group_by("encoder", maintain_order=True):
        value = part["energy_distance"].to_numpy()
        least = max(float(np.quantile(value, 0.01)), 1e-3 * float(value.max()), 1e-9)
        edges = np.geomspace(least, max(float(value.max()), 1.01 * least), BINS + 1)
        count = np.histogram(np.clip(value, edges[0], edges[-1]), edges)[0]
        frames.append(
            pl.DataFrame({"low": edges[:-1], "high": edges[1:], "n": count}).with_columns(
                encoder=pl.lit(encoder), null=pl.lit(part["null"].mean())
            )
        )
    base = alt.Chart(data_of(pl.concat(frames, how="diagonal_relaxed")))
    bars = base.mark_rect().encode(
        x=alt.X(
            "low:Q",
            title="energy distance",
            scale=alt.Scale(type="log", nice=False),
            axis=alt.Axis(tickCount=4, format="~g"),
        ),
        x2="high:Q",
        y=alt.Y("n:Q", title="conditions", axis=alt.Axis(tickCount=3)),
        y2=alt.datum(0),
        tooltip=[alt.Tooltip("low:Q", format=".2f"), "n:Q"],
    )
    rule = base.mark_rule(strokeDash=[4, 3], strokeWidth=2, color=CATEGORIES[1]).encode(
        x="mean(null):Q"
    )
    chart = (
        alt.layer(bars, rule)
        .properties(width=200, height=90)
        .facet(facet=alt.Facet("encoder:N", title=None), columns=3)
        .resolve_scale(x="independent", y="independent")
    )
    return Figure(
        specification(chart),
        "Magnitude: energy distance of each condition's wells from the negative controls. "
        "Dashed: the same for as many control wells. Scales differ between encoders.",
    )


def _magnitude_by_dose(dosed: pl.DataFrame) -> Figure:
    """Draw magnitude against dose: each compound where they are few, else the median."""
    few = dosed["perturbation"].n_unique() <= COMPOUNDS_NAMED
    keys = ["encoder", "concentration_um"] + (["perturbation"] if few else [])
    shown = dosed.group_by(keys).agg(
        value=pl.col("energy_distance").median(),
        low=pl.col("energy_distance").quantile(0.25),
        high=pl.col("energy_distance").quantile(0.75),
        null=pl.col("null").mean(),
    )
    base = alt.Chart(data_of(shown.sort(keys))).encode(
        x=_dose_axis("concentration_um:Q", shown["concentration_um"])
    )
    line = base.mark_line(point={"size": 30}).encode(
        y=alt.Y("value:Q", title="energy distance", axis=alt.Axis(tickCount=4)),
        tooltip=[*(f"{key}:N" for key in keys), alt.Tooltip("value:Q", format=".2f")],
    )
    null = base.mark_line(strokeDash=[4, 3], color="#9aa4b0", strokeWidth=1.2).encode(
        y="mean(null):Q"
    )
    if few:
        line = line.encode(color=alt.Color("perturbation:N", title="compound"))
        layers = [null, line]
    else:
        layers = [base.mark_area(opacity=0.2).encode(y="low:Q", y2="high:Q"), null, line]
    chart = (
        alt.layer(*layers)
        .properties(width=240, height=150)
        .facet(facet=alt.Facet("encoder:N", title=None), columns=2)
        .resolve_scale(y="independent")
    )
    told = "One line a compound." if few else "Median and quartiles over compounds."
    return Figure(
        specification(chart),
        f"Magnitude against dose. {told} Dashed: the controls' own distance.",
    )


def _dose_axis(field: str, doses: pl.Series) -> alt.X:
    """Logarithmic axis of concentrations, a tick at each unless they are many."""
    ticks = doses.unique().sort().to_list()
    axis = alt.Axis(values=ticks, format="~g") if len(ticks) <= TICKS else alt.Axis(tickCount=5)
    return alt.X(field, title="concentration (µM)", scale=alt.Scale(type="log"), axis=axis)


def dose_figure(part: pl.DataFrame) -> list[Piece]:
    """Draw compound-gene precision at each concentration, with the random baseline."""
    rows = []
    for row in part.iter_rows(named=True):
        found = DOSE.fullmatch(row["metric"])
        if found:
            rows.append(
                {k: row[k] for k in ("encoder", "value", "low", "high", "n")}
                | {"dose": float(found[1])}
            )
    random = part.filter(pl.col("metric") == "average_precision_random")
    if not rows:
        return []
    shown = pl.DataFrame(rows).sort("encoder", "dose")
    base = alt.Chart(data_of(shown))
    line = base.mark_line(point={"size": 34}).encode(
        x=_dose_axis("dose:Q", shown["dose"]),
        y=alt.Y("value:Q", title="mean average precision", scale=alt.Scale(zero=False)),
        color=alt.Color("encoder:N", title=None, legend=alt.Legend(symbolOpacity=1)),
        tooltip=["encoder:N", "dose:Q", alt.Tooltip("value:Q", format=".3f"), "n:Q"],
    )
    band = base.mark_rule(opacity=0.5).encode(
        x="dose:Q", y="low:Q", y2="high:Q", color="encoder:N"
    )
    layers: list[alt.Chart] = [band, line]
    if random.height:
        level = float(np.mean(random["value"].to_numpy()))
        layers.append(base.mark_rule(strokeDash=[4, 3]).encode(y=alt.datum(level)))
    chart = alt.layer(*layers).properties(width=520, height=230)
    return [
        Figure(
            specification(chart),
            "Compound-gene retrieval by concentration: how high a compound's known targets "
            "rank among other genes. Bars: 95 % over seeds. Dashed: random scores.",
        )
    ]
