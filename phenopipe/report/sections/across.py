"""Figures across encoders: what probes say of maps, what training costs, what each step gains.

Shapes of paper Figures 4, 9 and 1.
"""

from collections.abc import Mapping
from itertools import combinations, permutations
from math import factorial
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import rankdata

from phenopipe.report.charts import data_of, specification
from phenopipe.report.pieces import Figure, Piece, Table, tell
from phenopipe.report.scoreboard import RECALL, other_tails, recall_metric, tails_of
from phenopipe.seeds import generator

FEWEST = 3
EXACT, DRAWS = 7, 10_000
ACCURACY = "balanced_accuracy"
# What makes two encoders a pair: all but this is the same.
MODEL = ("kind", "architecture", "model_args", "crop", "pooling", "normalization")
GAINED = {RECALL[0]: "recall", RECALL[1]: "recall (all pairs)", "ks": "KS", "cvm": "CVM"}

About = Mapping[str, Mapping[str, Any]]


def rank_correlation(
    x_N: NDArray[np.floating], y_N: NDArray[np.floating]
) -> tuple[float, float]:
    """Spearman's rank correlation, and a two-sided p-value by permutation.

    Returns
    -------
    rho, p_value : float
        NaN for both if either side is constant. The p-value is never 0; up to seven items
        all permutations are counted, above that 10,000 drawn ones.

    Examples
    --------
    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 5.0, 9.0]))
    (1.0, 0.3333333333333333)
    """
    first_N, second_N = rankdata(x_N), rankdata(y_N)
    first_N, second_N = first_N - first_N.mean(), second_N - second_N.mean()
    scale = float(np.sqrt((first_N @ first_N) * (second_N @ second_N)))
    if not scale:
        return float("nan"), float("nan")
    rho = float(first_N @ second_N) / scale
    n = len(first_N)
    if n <= EXACT:
        orders = np.array(list(permutations(range(n))))
        assert len(orders) == factorial(n)
    else:
        rng = generator(0, "rank_correlation", n)
        orders = np.array([rng.permutation(n) for _ in range(DRAWS)])
    drawn_K = second_N[orders] @ first_N / scale
    extreme = int((np.abs(drawn_K) >= abs(rho) - 1e-12).sum())
    return round(rho, 12), max(extreme, 1) / len(drawn_K)


def probed_maps(results: pl.DataFrame, blocks: pl.DataFrame, about: About) -> pl.DataFrame:
    """Scores of maps beside the probe's accuracy at the block that embeds.

    Returns
    -------
    DataFrame
        ``benchmark, encoder, block, trimmed, what, value, task, accuracy``; a trimmed encoder
        is looked up at its block of the encoder that it was cut from, so that best and last
        blocks are points of their own. Recall is that of StringDB, as in paper Figure 4, or
        of each source where a benchmark has several and none of that name.
    """
    origin = {name: one.get("trimmed_from") or name for name, one in about.items()}
    named = [results.head(0).with_columns(what=pl.lit("", pl.String))]
    for _, part in results.group_by("benchmark", maintain_order=True):
        named += [recall_points(part), part.filter(metric="ks").with_columns(what=pl.lit("KS"))]
    maps = pl.concat(named).with_columns(probed=pl.col("encoder").replace(origin))
    probes = blocks.filter(metric=ACCURACY).select(
        "block", probed="encoder", task="source", accuracy="value"
    )
    keys = ["benchmark", "encoder", "block", "trimmed", "what", "value", "task", "accuracy"]
    return maps.join(probes, on=["probed", "block"]).select(keys).sort(keys)


def recall_points(part: pl.DataFrame) -> pl.DataFrame:
    """Rows of one benchmark's recall that stand beside probes, ``what`` naming them."""
    metric = recall_metric(part)
    rows = part.filter(metric=metric)
    name = f"recall at {tails_of(metric)[0]}"
    if rows["source"].n_unique() < 2:
        return rows.with_columns(what=pl.lit(name))
    letters = pl.col("source").str.replace_all("[^A-Za-z0-9]", "").str.to_lowercase()
    of_paper = rows.filter(letters == "stringdb")
    return (of_paper if of_paper.height else rows).with_columns(
        what=pl.format("{} {}", "source", pl.lit(name))
    )


def by_benchmark(points: pl.DataFrame) -> pl.DataFrame:
    """Name the benchmark in ``what``, where there are several."""
    several = points["benchmark"].drop_nulls().n_unique() > 1
    told = pl.format("{}, {}", "what", "benchmark") if several else pl.col("what")
    return points.with_columns(what=pl.coalesce(told, "what"))


def probe_pieces(points: pl.DataFrame) -> list[Piece]:
    """Draw each probe against recall and KS, with the rank correlation of each."""
    if points["encoder"].n_unique() < FEWEST:
        return []
    rows = []
    for (benchmark, task, what), part in points.group_by(
        "benchmark", "task", "what", maintain_order=True
    ):
        if part.height >= FEWEST:
            rho, p = rank_correlation(part["accuracy"].to_numpy(), part["value"].to_numpy())
            rows.append([str(benchmark), str(task), str(what), str(part.height)])
            rows[-1] += [tell(rho, 2), tell(p, 3)]
    base = alt.Chart(data_of(by_benchmark(points))).encode(
        x=alt.X("accuracy:Q", title="balanced accuracy", scale=alt.Scale(zero=False)),
        y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
    )
    chart = (
        base.mark_point(size=70)
        .encode(
            color=alt.Color("encoder:N", title=None),
            strokeWidth=alt.condition("datum.trimmed", alt.value(3), alt.value(1)),
            stroke=alt.condition("datum.trimmed", alt.value("#333"), alt.value("#999")),
            tooltip=["encoder:N", "block:Q", "accuracy:Q", "value:Q"],
        )
        .properties(width=230, height=180)
        .facet(row=alt.Row("task:N", title="probe"), column=alt.Column("what:N", title=None))
        .resolve_scale(y="independent", x="independent")
    )
    header = ["benchmark", "probe", "score", "encoders", "rank correlation", "p"]
    told = "Spearman's rank correlation across encoders, two-sided p by permutation."
    return [
        Figure(
            specification(chart),
            "What a probe of the block that embeds says of the map: one point an encoder, best "
            "blocks (trimmed encoders) with a bold rim. Recall is that of StringDB where it is "
            "among several sources. Shape: paper Figure 4.",
        ),
        Table(header, rows, told, frozenset({3, 4, 5})),
    ]


def named_scores(results: pl.DataFrame) -> pl.DataFrame:
    """Rows of recall, KS and CVM, ``what`` naming each score and its source of pairs."""
    chosen = [recall_metric(part) for _, part in results.group_by("benchmark")]
    names = GAINED | {one: f"recall{other_tails(one)}" for one in chosen if one not in RECALL}
    source = pl.when(pl.col("metric").str.starts_with("recall")).then(" " + pl.col("source"))
    return results.filter(pl.col("metric").is_in(list(names))).with_columns(
        what=pl.col("metric").replace_strict(names, return_dtype=pl.String)
        + source.fill_null("")
    )


def flops_pieces(results: pl.DataFrame, blocks: pl.DataFrame, about: About) -> list[Piece]:
    """Draw every benchmark and probe against the operations of training."""
    cost = {
        name: one.get("training_flops")
        or about.get(str(one.get("trimmed_from")), {}).get("training_flops")
        for name, one in about.items()
    }
    best = (
        blocks.filter(metric=ACCURACY).group_by("encoder", "source").agg(pl.col("value").max())
    )
    shown = pl.concat(
        [
            by_benchmark(named_scores(results)).select("encoder", "what", "value"),
            best.select("encoder", pl.format("probe {}", "source").alias("what"), "value"),
        ]
    ).with_columns(
        flops=pl.col("encoder").replace_strict(cost, default=None, return_dtype=pl.Float64)
    )
    shown = shown.filter(pl.col("flops") > 0)
    if shown["flops"].n_unique() < 2:
        return []
    base = alt.Chart(data_of(shown.sort("what", "flops", "encoder"))).encode(
        x=alt.X("flops:Q", title="training FLOPs", scale=alt.Scale(type="log")),
        y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
    )
    points = base.mark_point(size=60).encode(
        color=alt.Color("encoder:N", title=None),
        tooltip=["encoder:N", "flops:Q", "value:Q"],
    )
    chart = (
        points.properties(width=180, height=130)
        .facet(facet=alt.Facet("what:N", title=None), columns=3)
        .resolve_scale(y="independent")
    )
    return [
        Figure(
            specification(chart),
            "Benchmarks and best blocks of probes against the operations of training. Shape: "
            "paper Figure 9.",
        )
    ]


def paired_encoders(about: About) -> list[tuple[str, str, str]]:
    """Pairs of encoders that differ in one thing: what it is, the first and the second.

    Examples
    --------
    >>> about = {"a": {"trimmed_from": None}, "b": {"trimmed_from": "a"}}
    >>> paired_encoders(about)
    [('trimming', 'a', 'b')]
    """
    pairs = [
        ("trimming", str(one["trimmed_from"]), name)
        for name, one in about.items()
        if one.get("trimmed_from") in about
    ]
    whole = {n: one for n, one in about.items() if not one.get("trimmed_from")}
    trained = {n: one for n, one in whole.items() if one.get("trained_on")}
    for (first, one), (second, other) in combinations(trained.items(), 2):
        alike = all(one.get(key) == other.get(key) for key in MODEL)
        same_data = one["trained_on"] == other["trained_on"]
        if alike and not same_data:
            pairs.append(("data", first, second))
        elif same_data and not alike and one.get("kind") == other.get("kind"):
            cost = [trained[n].get("training_flops") or 0.0 for n in (first, second)]
            small, large = (first, second) if cost[0] <= cost[1] else (second, first)
            pairs.append(("scale", small, large))
    return pairs


def gain_pieces(results: pl.DataFrame, about: About) -> list[Piece]:
    """Tabulate and draw what other data, scale and trimming gain, in paired encoders."""
    value = {
        (row["what"], row["encoder"]): row["value"]
        for row in by_benchmark(named_scores(results)).iter_rows(named=True)
    }
    rows = []
    for what, first, second in paired_encoders(about):
        for (name, encoder), before in value.items():
            after = value.get((name, second))
            if encoder == first and after is not None and before:
                rows.append((what, first, second, name, before, after, after / before - 1))
    if not rows:
        return []
    schema = ["what", "first", "second", "score", "before", "after", "gain"]
    shown = pl.DataFrame(rows, schema=schema, orient="row").with_columns(
        pair=pl.format("{} → {}", "first", "second")
    )
    chart = (
        alt.Chart(data_of(shown))
        .mark_bar(height={"band": 0.6})
        .encode(
            x=alt.X("gain:Q", title="gain", axis=alt.Axis(format="%")),
            y=alt.Y("score:N", title=None),
            color=alt.Color("what:N", title=None),
            tooltip=["pair:N", "score:N", "before:Q", "after:Q"],
        )
        .properties(width=220, height=alt.Step(18))
        .facet(facet=alt.Facet("pair:N", title=None), columns=2)
    )
    text = [[*row[:4], tell(row[4]), tell(row[5]), f"{100 * row[6]:+.1f} %"] for row in rows]
    header = ["by", "from", "to", "score", "before", "after", "gain"]
    return [
        Figure(
            specification(chart),
            "Gain by data, scale and trimming: pairs of encoders that differ in that alone. "
            "Shape: paper Figure 1.",
        ),
        Table(header, text, "The same, in numbers.", frozenset({4, 5, 6})),
    ]
