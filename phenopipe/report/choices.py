"""Which wells are pictured: examples of every role, the worst of every test, the strongest."""

import polars as pl

from phenopipe.formats.wells import CONDITION, conditions

STRONGEST = 9
CONTROLS_BESIDE = 3


def pick_examples(listed: pl.DataFrame, wanted: int) -> tuple[pl.DataFrame, list[str]]:
    """Pick wells of every screen and role in turn, from different experiments.

    Parameters
    ----------
    listed : DataFrame
        ``screen, experiment, well_id, role, treatments``.
    wanted : int
        Wells of each screen.
    """
    if listed.is_empty():
        return listed, []
    turns = ["screen", "role"]
    # Experiments share layouts: the first wells of each would show the same perturbation.
    what = pl.when(pl.col("role") == "perturbation").then(
        pl.col("treatments").list.first().struct.field("perturbation")
    )
    new = pl.coalesce(what, "well_id")
    ordered = (
        listed.unique(["screen", new], keep="first", maintain_order=True)
        .with_columns(round=pl.int_range(pl.len()).over("screen", "role", "experiment"))
        .sort("screen", "round", "experiment", "role", maintain_order=True)
        .with_columns(turn=pl.int_range(pl.len()).over(turns))
        .sort("screen", "turn", "role", maintain_order=True)
    )
    picked = ordered.group_by("screen", maintain_order=True).head(wanted).sort("screen", "role")
    return picked, [label_well(row) for row in picked.iter_rows(named=True)]


def label_well(row: dict[str, object]) -> str:
    """Write what was done to a well, or else its role.

    Examples
    --------
    >>> label_well({"role": "negative_control", "treatments": []})
    'negative control'
    """
    treatments = row.get("treatments") or []
    role = str(row["role"]).replace("_", " ")
    if not isinstance(treatments, list) or not treatments:
        return role
    told = []
    for one in treatments:
        dose = one.get("concentration_um")
        told.append(one["perturbation"] + (f" {dose:g} µM" if dose is not None else ""))
    return " + ".join(told) + (f" ({role})" if role != "perturbation" else "")


def pick_flagged(listed: pl.DataFrame, wanted: int) -> tuple[pl.DataFrame, list[str]]:
    """Pick flagged wells of every test in turn.

    Parameters
    ----------
    listed : DataFrame
        ``screen, experiment, well_id, test``, the worst of each experiment and test first.
    wanted : int
        Wells altogether.
    """
    if listed.is_empty():
        return listed, []
    ordered = (
        listed.unique(["well_id"], keep="first", maintain_order=True)
        .with_columns(turn=pl.int_range(pl.len()).over("test"))
        .sort("turn", "test", maintain_order=True)
        .head(wanted)
        .sort("test", "turn")
    )
    return ordered, [str(test).replace("_", " ") for test in ordered["test"]]


def strongest_conditions(combined: pl.DataFrame) -> pl.DataFrame:
    """Conditions with the smallest combined p-values, one a perturbation."""
    if combined.is_empty():
        return combined
    return (
        combined.filter(pl.col("level") == "condition")
        .sort("p_value", "statistic", descending=[False, True])
        .unique(["kind", "perturbation"], keep="first", maintain_order=True)
        .unique(
            ["kind", pl.coalesce("gene", "perturbation")], keep="first", maintain_order=True
        )
        .head(STRONGEST)
        .with_columns(screen=pl.col("map_type").str.split("|").list.first())
        .select("screen", *CONDITION, "p_value")
    )


def wells_of_conditions(wells: pl.DataFrame, wanted: pl.DataFrame) -> pl.DataFrame:
    """List one passing well of each wanted condition in one experiment, and its controls."""
    passing = wells.filter("passes")
    if wanted.is_empty() or passing.is_empty():
        return pl.DataFrame()
    keys = ["screen", *CONDITION]
    facts = passing.select("screen", "experiment", "well_id", "role", "treatments")
    applied = conditions(passing).filter(pl.col("n_perturbations") == 1)
    treated = (
        applied.select("well_id", *CONDITION)
        .join(facts, on="well_id")
        .join(wanted, on=keys, nulls_equal=True)
        .unique(keys, keep="first", maintain_order=True)
    )
    if treated.is_empty():
        return pl.DataFrame()
    controls = facts.filter(pl.col("role") == "negative_control").head(CONTROLS_BESIDE)
    return pl.concat([controls, treated], how="diagonal")


def pick_strongest(listed: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Pick one well of each condition, the smallest p-value first, after a few controls."""
    if listed.is_empty():
        return listed, []
    treated = (
        listed.filter(pl.col("p_value").is_not_null())
        .sort("p_value", "perturbation", "experiment")
        .unique(["screen", *CONDITION], keep="first", maintain_order=True)
    )
    beside = listed.filter(
        pl.col("p_value").is_null(), pl.col("screen").is_in(treated["screen"].implode())
    ).head(CONTROLS_BESIDE)
    picked = pl.concat([beside, treated], how="diagonal")
    return picked, [label_well(row) for row in picked.iter_rows(named=True)]
