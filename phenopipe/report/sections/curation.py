"""Sections undersample and phenoprints: what each step of the curation kept (paper A.1)."""

from typing import Any

import altair as alt
import polars as pl

from phenopipe.report.charts import data_of, specification
from phenopipe.report.pieces import (
    Facts,
    Figure,
    Fold,
    Heading,
    Pictures,
    Piece,
    Prose,
    Section,
    Table,
    table_of,
    tell,
)

COUNTED = ("images", "wells", "conditions", "genes", "compounds")
STEPS_BEFORE_JUDGES = 4
CONDITIONS_SHOWN = 40
THRESHOLD = 0.01


def undersample_section(funnels: dict[str, dict[str, Any]]) -> Section:
    """Tell what steps 1 to 4 of the curation left over, for each manifest."""
    pieces: list[Piece] = []
    answers = []
    for manifest, funnel in funnels.items():
        steps = [row for row in funnel["steps"] if row["step"] <= STEPS_BEFORE_JUDGES]
        if not steps:
            continue
        pieces.append(_steps_table(steps, f"Manifest `{manifest}`."))
        answers.append(f"{tell(steps[-1]['wells'])} wells stay for {manifest}")
        roles = _roles_table(steps)
        if roles.rows:
            pieces.append(Fold(f"Wells of {manifest} by role", [roles]))
    if pieces:
        pieces.insert(
            0,
            Prose(
                "Only training sets are thinned out. Embedding, alignment, the consistency "
                "test and every benchmark use all wells that pass quality control."
            ),
        )
    return Section(
        "undersample",
        "Undersampling",
        "Which conditions have enough replicates, and how many controls do we keep?",
        pieces,
        "results/undersample",
        answer="; ".join(answers),
    )


def phenoprints_section(
    funnels: dict[str, dict[str, Any]],
    combined: dict[str, pl.DataFrame],
    strongest: list[tuple[str, str]],
    diversity: pl.DataFrame,
) -> Section:
    """Tell which conditions have a phenoprint, what that keeps, and what else could be kept.

    Parameters
    ----------
    funnels : mapping of str to mapping
        The whole funnel of each manifest.
    combined : mapping of str to DataFrame
        Combined p-values of each manifest's judges.
    strongest : list of (uri, label)
        Small pictures of the conditions with the smallest p-values.
    diversity : DataFrame
        Tidy results of what variety each manifest keeps.
    """
    pieces: list[Piece] = []
    answers = []
    for manifest, funnel in funnels.items():
        judged = bool(funnel.get("judged", manifest in combined and combined[manifest].height))
        last = funnel["steps"][-1]
        pieces += [Heading(f"Manifest {manifest}"), Facts(_facts(funnel))]
        if not judged:
            text = "No judges: this is the uncurated set, thinned out as said above."
            pieces.append(Prose(text))
            continue
        pieces.append(_funnel_chart(funnel["steps"], manifest))
        pieces += _choices(funnel, manifest)
        if manifest in combined and combined[manifest].height:
            pieces += _judges(combined[manifest])
        pieces += _variety(diversity.filter(source=manifest))
        first = funnel["steps"][0]
        answers.append(
            f"{manifest}: {tell(last['wells'])} wells, {tell(last['conditions'])} of "
            f"{tell(first['conditions'])} conditions"
        )
    if strongest:
        caption = "Conditions with the smallest combined p-values; controls for comparison."
        pieces.append(Pictures(strongest, caption))
    return Section(
        "phenoprints",
        "Phenoprints",
        "Which wells make the training set?",
        pieces,
        "results/phenoprints",
        "No manifest was part of this run.",
        "; ".join(answers),
    )


def _facts(funnel: dict[str, Any]) -> list[tuple[str, str]]:
    first, last = funnel["steps"][0], funnel["steps"][-1]
    facts = [
        (tell(last["wells"]), f"wells, of {tell(first['wells'])}"),
        *(
            (tell(last[counted]), f"{counted}, of {tell(first[counted])}")
            for counted in ("images", "conditions")
            if first[counted]
        ),
    ]
    if funnel.get("untestable") is not None:
        facts.append((tell(funnel["untestable"]), "of the wells are untested controls"))
    if funnel.get("noise_admitted") is not None:
        share = f"≤ {100 * funnel['noise_admitted']:.1f} %"
        facts.append((share, "of inactive conditions admitted by chance"))
    return facts


def _steps_table(steps: list[dict[str, Any]], caption: str) -> Table:
    shown = [c for c in COUNTED if steps[0][c]]
    rows = [[f"{r['step']}  {r['name']}", *(tell(r[c]) for c in shown)] for r in steps]
    return Table(["after step", *shown], rows, caption, frozenset(range(1, len(shown) + 1)))


def _roles_table(steps: list[dict[str, Any]]) -> Table:
    roles = sorted({role for row in steps for role in row.get("roles", {})})
    rows = [
        [
            f"{row['step']}  {row['name']}",
            *(tell(row.get("roles", {}).get(r, 0)) for r in roles),
        ]
        for row in steps
        if roles
    ]
    header = ["after step", *(role.replace("_", " ") for role in roles)]
    return Table(header, rows, "", frozenset(range(1, len(header))))


def _funnel_chart(steps: list[dict[str, Any]], manifest: str) -> Figure:
    """Draw what is left of images, wells, conditions and genes after each step."""
    first = steps[0]
    rows = [
        {
            "step": f"{row['step']}  {row['name']}",
            "counted": counted,
            "number": row[counted],
            "share": row[counted] / first[counted],
        }
        for row in steps
        for counted in COUNTED
        if first[counted]
    ]
    order = [f"{row['step']}  {row['name']}" for row in steps]
    shown = [c for c in COUNTED if first[c]]
    base = alt.Chart(data_of(pl.DataFrame(rows))).encode(
        y=alt.Y("step:N", sort=order, title=None, axis=alt.Axis(labelLimit=200)),
        x=alt.X("share:Q", title=None, axis=None, scale=alt.Scale(domain=[0, 1.45])),
    )
    bars = base.mark_bar(cornerRadiusEnd=2, height={"band": 0.62}).encode(
        tooltip=["counted:N", "step:N", "number:Q", alt.Tooltip("share:Q", format=".1%")]
    )
    numbers = base.mark_text(align="left", dx=5).encode(text=alt.Text("number:Q", format=","))
    chart = (
        alt.layer(bars, numbers)
        .properties(width=max(110, 560 // len(shown)), height=alt.Step(24))
        .facet(column=alt.Column("counted:N", sort=shown, title=None), spacing=12)
    )
    return Figure(
        specification(chart),
        f"What each step of the curation left over on the way to manifest `{manifest}`.",
    )


def _choices(funnel: dict[str, Any], manifest: str) -> list[Piece]:
    """Tabulate what each choice of evidence, rescue and levels would keep."""
    alternatives, choice = funnel.get("alternatives") or [], funnel.get("choice") or {}
    if not alternatives:
        return []
    rows, best = [], set()
    for at, row in enumerate(alternatives):
        in_force = all(
            row[key] == choice.get(key) or list(row[key]) == list(choice.get(key) or [])
            for key in ("evidence", "rescue", "levels")
        )
        best |= {(at, column) for column in range(8)} if in_force else set()
        rows.append(
            [
                str(row["evidence"]).replace("_", " "),
                str(row["rescue"]),
                " + ".join(row["levels"]),
                *(tell(row[c]) for c in ("wells", "conditions", "genes", "compounds")),
                f"{100 * row['noise_admitted']:.1f} %",
            ]
        )
    header = [
        "evidence",
        "rescues",
        "levels",
        "wells",
        "conditions",
        "genes",
        "compounds",
        "noise admitted",
    ]
    caption = (
        f"What each choice would keep at p < {choice.get('threshold', THRESHOLD)}; the choice "
        "in force is bold. Untested controls are not counted. Noise admitted: share of "
        "inactive conditions that pass by chance if all their tests were independent, an "
        "upper bound."
    )
    untested = funnel.get("untested")
    note = (
        [
            Prose(
                f"{tell(untested)} treated wells had no condition that a judge could test.",
                is_quiet=True,
            )
        ]
        if untested
        else []
    )
    table = Table(header, rows, caption, frozenset({3, 4, 5, 6, 7}), frozenset(best))
    return [Fold(f"What other choices would keep ({manifest})", [table, *note])]


def _variety(of_manifest: pl.DataFrame) -> list[Piece]:
    """Tabulate effective rank and share of unlike wells, before and after the choice."""
    if of_manifest.is_empty():
        return []
    wide = of_manifest.pivot(on="metric", index="encoder", values="value")
    header = {
        "encoder": "judge",
        "effective_rank_before": "effective rank before",
        "effective_rank_after": "after",
        "share_different_before": "share unlike controls before",
        "share_different_after": "after ",
    }
    caption = (
        "Variety of the wells that undersampling left, and of those that phenoprints keep. "
        "Effective rank: number of directions in which aligned embeddings vary. Unlike "
        "controls: treated wells farther out than 95 % of the negative controls."
    )
    shown = {name: title for name, title in header.items() if name in wide.columns}
    return [table_of(wide, shown, caption)]


def _judges(combined: pl.DataFrame) -> list[Piece]:
    """Tabulate each judge's verdicts, and the conditions that differ most from chance."""
    table = (
        combined.group_by("encoder", "level", "map_type")
        .agg(
            tests=pl.len(),
            called=(pl.col("p_value") < THRESHOLD).sum(),
            share=100 * (pl.col("p_value") < THRESHOLD).mean(),
            fdr=(pl.col("q_value") < 0.05).sum(),
        )
        .sort("encoder", "level", "map_type")
        .with_columns(share=pl.format("{} %", pl.col("share").round(1)))
    )
    header = {
        "encoder": "judge", "level": "level", "map_type": "map type", "tests": "tested",
        "called": "p < 0.01", "share": "share", "fdr": "q < 0.05",
    }  # fmt: skip
    top = (
        combined.sort("p_value", "statistic", descending=[False, True])
        .head(CONDITIONS_SHOWN)
        .with_columns(
            what=pl.when(pl.col("level") == "gene")
            .then(pl.format("gene {}", "gene"))
            .otherwise("perturbation")
        )
    )
    named = {
        "what": "condition", "concentration_um": "µM", "encoder": "judge",
        "n_replicates": "wells", "n_experiments": "experiments",
        "statistic": "consistency", "p_value": "p",
    }  # fmt: skip
    return [
        table_of(table, header, "Verdicts of the judges, combined over experiments."),
        Fold(f"The {top.height} strongest conditions", [table_of(top, named)]),
    ]
