"""Section consistency: the p-values of every judge, and whether controls behave."""

import altair as alt
import polars as pl

from phenopipe.report.charts import data_of, specification
from phenopipe.report.pieces import Figure, Piece, Prose, Section, table_of, tell

BINS = 20
ROLES = ("positive_control", "perturbation", "negative_control", "empty")


def bin_pvalues(pvalues: pl.DataFrame, role_of: pl.DataFrame) -> pl.DataFrame:
    """Count one judge's p-values of one experiment by level, role and bin.

    Parameters
    ----------
    pvalues : DataFrame
        The pvalues format.
    role_of : DataFrame
        ``kind, perturbation, concentration_um, role`` of each condition, and rows with null
        perturbation and a ``gene`` for genes.

    Returns
    -------
    DataFrame
        ``level, role, bin, n, n_small, n_all``: bins of equal width from 0 to 1.
    """
    keys = ["level", "kind", "perturbation", "concentration_um", "gene"]
    joined = pvalues.join(role_of, on=keys, how="left", nulls_equal=True)
    return (
        joined.with_columns(
            role=pl.col("role").fill_null("perturbation"),
            bin=(pl.col("p_value") * BINS).ceil().clip(1, BINS).cast(pl.Int32) - 1,
            small=pl.col("p_value") < 0.01,
        )
        .group_by("level", "role", "bin")
        .agg(n=pl.len(), n_small=pl.col("small").sum())
    )


def roles_of_conditions(applied: pl.DataFrame) -> pl.DataFrame:
    """Tell the role of every condition and gene, the most frequent where wells disagree.

    Parameters
    ----------
    applied : DataFrame
        ``role, kind, perturbation, concentration_um, gene, n_wells``.
    """
    by_condition = applied.with_columns(level=pl.lit("condition"))
    by_gene = applied.filter(pl.col("gene").is_not_null()).with_columns(
        level=pl.lit("gene"),
        perturbation=pl.lit(None, pl.String),
        concentration_um=pl.lit(None, pl.Float64),
    )
    keys = ["level", "kind", "perturbation", "concentration_um", "gene"]
    return (
        pl.concat([by_condition, by_gene], how="diagonal_relaxed")
        .group_by(*keys, "role")
        .agg(pl.col("n_wells").sum())
        .sort("n_wells", "role", descending=True)
        .unique(keys, keep="first", maintain_order=True)
        .select(*keys, "role")
    )


def consistency_section(bins: pl.DataFrame) -> Section:
    """Show the p-values of every judge by role of condition.

    Parameters
    ----------
    bins : DataFrame
        ``encoder, level, role, bin, n, n_small`` summed over experiments.
    """
    pieces: list[Piece] = []
    answer = ""
    if not bins.is_empty():
        total = bins.group_by("encoder", "level", "role").agg(
            n=pl.col("n").sum(), n_small=pl.col("n_small").sum()
        )
        pieces = [
            Prose(
                "Each condition's replicates in one experiment are compared with random sets "
                "of equally many wells of unlike conditions (Eq. 2 and 3). Where nothing "
                "happens, p-values are uniform: the dashed line. What acts piles up at the "
                "left."
            ),
            _histograms(bins),
            _shares(total),
        ]
        conditions = total.filter(pl.col("level") == "condition")
        n, n_small = int(conditions["n"].sum()), int(conditions["n_small"].sum())
        answer = f"{tell(n)} tests of conditions, {n_small / max(n, 1):.1%} with p < 0.01"
    return Section(
        "consistency",
        "Consistency",
        "Which conditions change the cells the same way every time?",
        pieces,
        "results/consistency",
        "No encoder judged conditions in this run.",
        answer,
    )


def _histograms(bins: pl.DataFrame) -> Figure:
    """Draw histograms of p-values: judges down, level and role across."""
    shares = bins.with_columns(
        share=pl.col("n") / pl.col("n").sum().over("encoder", "level", "role"),
        low=pl.col("bin") / BINS,
        high=(pl.col("bin") + 1) / BINS,
        what=pl.format("{}s, {}", "level", pl.col("role").str.replace_all("_", " ")),
    ).sort("encoder", "what", "bin")
    n_columns = shares["what"].n_unique()
    base = alt.Chart(data_of(shares.select("encoder", "what", "low", "high", "share", "n")))
    bars = base.mark_bar(binSpacing=0.5).encode(
        x=alt.X("low:Q", bin="binned", title="p-value", axis=alt.Axis(values=[0, 0.5, 1])),
        x2="high:Q",
        y=alt.Y("share:Q", title="share of tests", axis=alt.Axis(format="%", tickCount=4)),
        tooltip=["encoder:N", "what:N", alt.Tooltip("share:Q", format=".1%"), "n:Q"],
    )
    line = base.mark_rule(strokeDash=[4, 3]).encode(y=alt.datum(1 / BINS))
    chart = (
        alt.layer(bars, line)
        .properties(width=max(90, min(150, 640 // n_columns)), height=92)
        .facet(
            row=alt.Row(
                "encoder:N", title=None, header=alt.Header(labelAngle=0, labelAlign="left")
            ),
            column=alt.Column("what:N", title=None),
            spacing=14,
        )
        .resolve_scale(y="independent")
    )
    return Figure(
        specification(chart),
        "P-values of all experiments, by judge, level and role of condition.",
    )


def _shares(total: pl.DataFrame) -> Piece:
    table = total.sort("encoder", "level", "role").with_columns(
        share=pl.format("{} %", (100 * pl.col("n_small") / pl.col("n")).round(1)),
        role=pl.col("role").str.replace_all("_", " "),
    )
    header = {
        "encoder": "judge", "level": "level", "role": "role", "n": "tests",
        "n_small": "p < 0.01", "share": "share",
    }  # fmt: skip
    return table_of(table, header, "One test a condition and experiment, not yet combined.")
