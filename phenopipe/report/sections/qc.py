"""Section qc: which wells were flagged, by which test, and what they look like."""

import altair as alt
import numpy as np
import polars as pl

from phenopipe.report.charts import data_of, specification
from phenopipe.report.pieces import (
    Facts,
    Figure,
    Fold,
    Pictures,
    Piece,
    Prose,
    Section,
    table_of,
    tell,
)

QUESTION = "Which images and wells can be trusted?"
SOURCE = "results/qc"
BINS = 36
METRICS_SHOWN = 20
DEFECTS_SHOWN = 40
CELLS_OF_HEATMAP = 3000
EXPERIMENTS_NAMED = 40


def qc_section(
    counts: pl.DataFrame,
    flags: pl.DataFrame,
    defects: pl.DataFrame,
    gates: pl.DataFrame,
    positions: pl.DataFrame,
    metrics: pl.DataFrame,
    worst: list[tuple[str, str]],
) -> Section:
    """Tell how many wells each test flags, where, and what the worst look like.

    Parameters
    ----------
    counts : DataFrame
        ``screen, experiment, role, n_wells, n_passing``.
    flags : DataFrame
        ``screen, experiment, test, n_failed, n_wells``.
    defects : DataFrame
        What the check of each screen found, with ``screen``; without rows in the good case.
    gates : DataFrame
        ``screen, experiment, no_go, failing, max_failing, controls, min_controls``.
    positions : DataFrame
        ``screen, row, column, n_failed, n_wells``.
    metrics : DataFrame
        A sample of sites: ``passes`` and one column a metric.
    worst : list of (uri, label)
        Small pictures of flagged sites.
    """
    if flags.is_empty():
        return Section("qc", "Quality control", QUESTION, [], SOURCE)
    total, passing = int(counts["n_wells"].sum()), int(counts["n_passing"].sum())
    share = 1 - passing / max(total, 1)
    facts = [
        (tell(passing), f"of {tell(total)} wells pass"),
        (f"{share:.1%}", "flagged"),
        (tell(flags["test"].n_unique()), "tests"),
    ]
    pieces: list[Piece] = [Facts(facts)]
    if defects.width:
        pieces.append(_defects(defects))
    if gates.width:
        pieces += _gates(gates)
    pieces += [_by_test(flags), _by_role(counts)]
    if flags["n_failed"].sum():
        pieces.append(_by_experiment(flags))
        pieces.append(Fold("Where on the plate", [_by_position(positions)]))
    if worst:
        pieces.append(Pictures(worst, "The worst wells of each test, by the test's own score."))
    shown = informative(metrics) if metrics.width else metrics
    if shown.width > 1:
        pieces.append(_distributions(shown))
    answer = f"{tell(passing)} of {tell(total)} wells pass; {share:.1%} flagged"
    return Section("qc", "Quality control", QUESTION, pieces, SOURCE, answer=answer)


def _defects(defects: pl.DataFrame) -> Piece:
    """List what the check of each screen found before any expensive step."""
    if defects.is_empty():
        return Prose("The check of the whole screen found no defect.")
    table = (
        defects.group_by("screen", "level", "defect", maintain_order=True)
        .agg(
            pl.col("n").sum(),
            pl.col("experiment").n_unique(),
            pl.col("examples", "mend").first(),
        )
        .with_columns(
            defect=pl.col("defect").str.replace_all("_", " "),
            level=pl.col("level") + "s",
        )
        .head(DEFECTS_SHOWN)
    )
    header = {
        "screen": "screen",
        "defect": "defect",
        "n": "how many",
        "level": "of what",
        "experiment": "experiments",
        "examples": "such as",
        "mend": "how to mend it",
    }
    note = "Found before any expensive step; results/qc/*/defects.parquet has every place."
    return table_of(table, header, note)


def _gates(gates: pl.DataFrame) -> list[Piece]:
    """Tell which experiments were set aside as a whole, and how close the others are."""
    shut, every = gates.filter("no_go").height, gates.height
    told = f"{tell(shut)} of {tell(every)} experiments set aside as a whole."
    table = (
        gates.sort("no_go", "failing", "experiment", descending=[True, True, False])
        .with_columns(
            no_go=pl.when("no_go").then(pl.lit("set aside")).otherwise(pl.lit("go")),
            failing=pl.format(
                "{} % of {} %",
                (100 * pl.col("failing")).round(1),
                (100 * pl.col("max_failing")).round(1),
            ),
            controls=pl.format(
                "{} of {}",
                pl.col("controls").cast(pl.Int64),
                pl.col("min_controls").cast(pl.Int64),
            ),
        )
        .head(EXPERIMENTS_NAMED)
    )
    header = {
        "screen": "screen",
        "experiment": "experiment",
        "no_go": "go",
        "failing": "wells that fail, of permitted",
        "controls": "controls that pass, of wanted",
    }
    return [Prose(told), Fold("Every experiment's gate", [table_of(table, header)])]


def _by_test(flags: pl.DataFrame) -> Piece:
    table = (
        flags.group_by("test")
        .agg(pl.col("n_failed").sum(), pl.col("n_wells").sum())
        .with_columns(
            share=pl.format("{} %", (100 * pl.col("n_failed") / pl.col("n_wells")).round(2)),
            test=pl.col("test").str.replace_all("_", " "),
        )
        .sort("n_failed", "test", descending=[True, False])
    )
    header = {
        "test": "test",
        "n_failed": "wells flagged",
        "n_wells": "wells tested",
        "share": "share",
    }
    return table_of(table, header, "A well can fail several tests.")


def _by_role(counts: pl.DataFrame) -> Piece:
    table = counts.group_by("screen", "role", maintain_order=True).agg(
        pl.col("n_wells").sum(), pl.col("n_passing").sum()
    )
    table = table.with_columns(
        share=pl.format("{} %", (100 - 100 * pl.col("n_passing") / pl.col("n_wells")).round(2)),
        role=pl.col("role").str.replace_all("_", " "),
    )
    header = {
        "screen": "screen",
        "role": "role",
        "n_wells": "wells",
        "n_passing": "pass",
        "share": "flagged",
    }
    return table_of(table, header)


def _by_experiment(flags: pl.DataFrame) -> Figure:
    """Draw the share of wells flagged by each test in each experiment."""
    named = flags.with_columns(pl.col("test").str.replace_all("_", " "))
    if named["experiment"].n_unique() < named.select("screen", "experiment").n_unique():
        named = named.with_columns(experiment=pl.format("{}/{}", "screen", "experiment"))
    shares = named.group_by("screen", "experiment", "test").agg(
        share=pl.col("n_failed").sum() / pl.col("n_wells").sum()
    )
    shown = shares.sort("screen", "experiment", "test").head(CELLS_OF_HEATMAP)
    n_columns = shown["experiment"].n_unique()
    axis = alt.Axis(labels=n_columns <= EXPERIMENTS_NAMED, labelAngle=-40)
    chart = (
        alt.Chart(data_of(shown))
        .mark_rect(cornerRadius=1)
        .encode(
            x=alt.X("experiment:N", title=None, axis=axis),
            y=alt.Y("test:N", title=None),
            color=alt.Color("share:Q", title="share flagged", legend=alt.Legend(format="%")),
            tooltip=[*("experiment:N", "test:N"), alt.Tooltip("share:Q", format=".1%")],
        )
        .properties(width=min(660, max(220, 46 * n_columns)), height=alt.Step(20))
    )  # fmt: skip
    return Figure(specification(chart), "Share of each experiment's wells that a test flags.")


def _by_position(positions: pl.DataFrame) -> Figure:
    """Draw the share of wells flagged at each address, over all plates of a screen."""
    shares = (
        positions.group_by("screen", "row", "column")
        .agg(share=pl.col("n_failed").sum() / pl.col("n_wells").sum())
        .sort("screen", "row", "column")
    )
    shown = shares.head(4500)
    chart = (
        alt.Chart(data_of(shown))
        .mark_rect(cornerRadius=1)
        .encode(
            x=alt.X("column:O", title=None, axis=alt.Axis(labelAngle=0)),
            y=alt.Y("row:O", title=None),
            color=alt.Color("share:Q", title="share flagged", legend=alt.Legend(format="%")),
            facet=alt.Facet("screen:N", columns=2, title=None),
            tooltip=["row:O", "column:O", alt.Tooltip("share:Q", format=".1%")],
        )
        .properties(width=300, height=200)
    )  # fmt: skip
    return Figure(specification(chart), "Share of wells flagged at each address of the plate.")


def _distributions(metrics: pl.DataFrame) -> Figure:
    """Draw the histogram of each metric, for sites of wells that pass and that do not."""
    bins = pl.concat(
        [_histogram(metrics, name) for name in metrics.columns if name != "passes"]
    )
    base = alt.Chart(data_of(bins)).transform_calculate(mid="(datum.low + datum.high) / 2")
    chart = (
        base.mark_area(interpolate="step", opacity=0.45, line=True)
        .encode(
            x=alt.X(
                "mid:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=4)
            ),
            y=alt.Y("share:Q", title=None, stack=None, axis=None),
            color=alt.Color(
                "wells:N",
                title=None,
                sort=["pass", "flagged"],
                legend=alt.Legend(symbolOpacity=1),
            ),
        )
        .properties(width=178, height=74)
        .facet(facet=alt.Facet("metric:N", title=None), columns=4)
        .resolve_scale(x="independent", y="independent")
    )
    return Figure(
        specification(chart),
        "Distribution of each metric, averaged over channels, over a sample of sites, between "
        "its 0.5 and 99.5 percentile; each curve has the same area.",
    )


def informative(metrics: pl.DataFrame) -> pl.DataFrame:
    """Average metrics over channels, and keep those that vary, as many as are shown.

    A metric of one channel is named ``<metric>.<channel>``.
    """
    families: dict[str, list[str]] = {}
    for name, dtype in metrics.schema.items():
        if dtype.is_numeric():
            families.setdefault(name.partition(".")[0], []).append(name)
    averaged = metrics.select(
        "passes", **{family: pl.mean_horizontal(names) for family, names in families.items()}
    )
    varying = [name for name in families if averaged[name].drop_nulls().n_unique() > 1]
    return averaged.select("passes", *varying[:METRICS_SHOWN])


def _histogram(metrics: pl.DataFrame, name: str) -> pl.DataFrame:
    value = metrics[name].cast(pl.Float64)
    finite = value.is_finite().fill_null(value=False)
    x, passes = value.filter(finite).to_numpy(), metrics["passes"].filter(finite).to_numpy()
    low, high = np.quantile(x, [0.005, 0.995])
    if high <= low:
        low, high = x.min(), x.max() + 1e-9
    edges = np.linspace(low, high, BINS + 1)
    frames = []
    for wells, part in (("pass", x[passes]), ("flagged", x[~passes])):
        if len(part):
            count = np.histogram(np.clip(part, low, high), edges)[0] / len(part)
            frames.append(
                pl.DataFrame(
                    {"metric": name.replace("_", " "), "wells": wells,
                     "low": edges[:-1], "high": edges[1:], "share": count}
                )
            )  # fmt: skip
    return pl.concat(frames)
