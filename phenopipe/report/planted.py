"""What qc, the consistency test and the curation found of what the simulator planted."""

from collections.abc import Sequence

import polars as pl

from phenopipe.formats.wells import CONDITION, conditions
from phenopipe.report.intervals import Row, share_row

THRESHOLD = 0.01
PERTURBATION = ("kind", "perturbation")


def planted_wells(truth: pl.DataFrame) -> pl.DataFrame:
    """One row a well: its defect, and its status and group where it has one treatment.

    Parameters
    ----------
    truth : DataFrame
        The truth format, of all experiments.

    Returns
    -------
    DataFrame
        ``well_id, defect, status, group``; the status of a well with several treatments is
        null, for no label is right for it.
    """
    single = pl.len() == 1
    return truth.group_by("well_id", maintain_order=True).agg(
        defect=pl.col("defect").fill_null("").max(),
        status=pl.when(single).then(pl.col("status").first()),
        group=pl.when(single).then(pl.col("group").first()),
    )


def planted_statuses(truth: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Status of everything that was applied, named by some columns: active where any is.

    Returns
    -------
    DataFrame
        The keys and ``status``: active, arm or inactive. Genes on biased arms are neither
        active nor noise; weak doses, controls and lost labels have no row.
    """
    known = truth.filter(pl.col("status").is_in(["active", "arm", "inactive"]))
    known = known.filter(pl.col(keys[1]).is_not_null())
    return known.group_by(keys).agg(
        status=pl.when((pl.col("status") == "active").any())
        .then(pl.lit("active"))
        .when((pl.col("status") == "arm").any())
        .then(pl.lit("arm"))
        .otherwise(pl.lit("inactive"))
    )


def qc_rows(flags: pl.DataFrame, truth: pl.DataFrame) -> list[Row]:
    """Share of planted defects that qc flags, of each kind too, and its false alarms.

    Parameters
    ----------
    flags : DataFrame
        ``well_id, passes`` of all experiments.
    truth : DataFrame
        The truth format.
    """
    wells = planted_wells(truth).join(flags.select("well_id", "passes"), on="well_id")
    defective = wells.filter(pl.col("defect") != "")
    sound = wells.filter(pl.col("defect") == "")
    rows = [
        share_row("qc_recall", _count(~defective["passes"]), defective.height, source="all")
    ]
    for (defect,), part in sorted(defective.group_by("defect"), key=lambda pair: pair[0]):
        hits = _count(~part["passes"])
        rows.append(share_row("qc_recall_defect", hits, part.height, source=str(defect)))
    alarms = _count(~sound["passes"])
    return [*rows, share_row("qc_false_alarms", alarms, sound.height, source="sound wells")]


def phenoprint_rows(
    name: str, kept: pl.DataFrame, candidates: pl.DataFrame, truth: pl.DataFrame
) -> list[Row]:
    """Precision and recall of a manifest's conditions.

    Parameters
    ----------
    name : str
        The manifest.
    kept : DataFrame
        Wells of the manifest.
    candidates : DataFrame
        ``kind, perturbation, concentration_um``: conditions that could have been kept.
    truth : DataFrame
        The truth format.

    Notes
    -----
    Only wells that a judge saved count, and of those only wells with one perturbation. A
    condition counts as active if its perturbation is at any concentration, as a phenoprint
    rescues all concentrations.
    """
    status = planted_statuses(truth, PERTURBATION)
    saved = conditions(kept.filter(pl.col("judge").is_not_null()))
    found = saved.filter(pl.col("n_perturbations") == 1).select(CONDITION).unique()
    judged = found.join(status, on=PERTURBATION).filter(pl.col("status") != "arm")
    active = candidates.unique().join(status, on=PERTURBATION).filter(status="active")
    recalled = active.join(found, on=CONDITION, how="semi", nulls_equal=True)
    n_right = _count(judged["status"] == "active")
    return [
        share_row("phenoprint_precision", n_right, judged.height, source=name),
        share_row("phenoprint_recall", recalled.height, active.height, source=name),
    ]


def tested_conditions(combined: pl.DataFrame) -> pl.DataFrame:
    """Conditions that some judge tested."""
    return combined.filter(level="condition").select(CONDITION).unique()


def listed_conditions(wells: pl.DataFrame) -> pl.DataFrame:
    """Conditions of wells with one perturbation."""
    return conditions(wells).filter(pl.col("n_perturbations") == 1).select(CONDITION).unique()


def called_rows(name: str, combined: pl.DataFrame, truth: pl.DataFrame) -> list[Row]:
    """Precision and recall of single tests, before any rescue.

    Notes
    -----
    A condition is called if its own combined p-value is under 0.01 for some judge.
    """
    status = planted_statuses(truth, CONDITION)
    best = combined.filter(level="condition").group_by(CONDITION).agg(pl.col("p_value").min())
    judged = best.join(status, on=CONDITION, nulls_equal=True).filter(pl.col("status") != "arm")
    called, active = judged["p_value"] < THRESHOLD, judged["status"] == "active"
    n_both = _count(called & active)
    return [
        share_row("called_precision", n_both, _count(called), source=name),
        share_row("called_recall", n_both, _count(active), source=name),
    ]


def power_rows(name: str, combined: pl.DataFrame, truth: pl.DataFrame) -> list[Row]:
    """Share of conditions found against the length of the planted effect: the power curve.

    Returns
    -------
    list of mapping
        ``power`` for each bin of effects, one unit of the simulator wide, that holds a tested
        condition; ``source`` tells the bin, and the manifest whose judges were asked. A
        condition is found if its own combined p-value is under 0.01 for some judge. Genes on
        biased arms, controls and lost labels are left out.
    """
    known = truth.filter(pl.col("status").is_in(["active", "weak", "inactive"]))
    known = known.filter(pl.col("perturbation").is_not_null())
    effects = known.group_by(CONDITION).agg(pl.col("effect").max())
    best = combined.filter(level="condition").group_by(CONDITION).agg(pl.col("p_value").min())
    judged = best.join(effects, on=CONDITION, nulls_equal=True)
    # The bin above its lower edge; what does nothing has a bin of its own.
    judged = judged.with_columns(upper=pl.col("effect").ceil().cast(pl.Int64))
    rows = []
    for (upper,), part in sorted(judged.group_by("upper"), key=lambda pair: pair[0]):
        reach = f"{upper - 1} to {upper}" if upper else "0"
        hits = _count(part["p_value"] < THRESHOLD)
        rows.append(share_row("power", hits, part.height, source=f"effect {reach}, {name}"))
    return rows


def noise_rows(
    combined: pl.DataFrame, truth: pl.DataFrame, levels: Sequence[float]
) -> list[Row]:
    """How often planted noise is called, over the level of the test.

    Parameters
    ----------
    combined : DataFrame
        Combined p-values.
    truth : DataFrame
        The truth format.
    levels : list of float
        Levels of the test.

    Returns
    -------
    list of mapping
        ``noise_called`` of all tests, and ``noise_called_by`` for each judge and level of
        tests: these are few, and one call more or less changes them much.
    """
    by_condition = combined.filter(level="condition").join(
        planted_statuses(truth, CONDITION), on=CONDITION, nulls_equal=True
    )
    by_gene = combined.filter(level="gene").join(
        planted_statuses(truth, ("kind", "gene")), on=("kind", "gene")
    )
    noise = pl.concat(
        tests.filter(status="inactive").select("encoder", "level", "p_value")
        for tests in (by_condition, by_gene)
    )
    rows = []
    for level in levels:
        if noise.height:
            source = f"all tests at {level:g}"
            rows.append(_noise_row(noise, level, metric="noise_called", source=source))
        parts = noise.group_by("encoder", "level")
        for (judge, tested), part in sorted(parts, key=lambda pair: pair[0]):
            names = {"encoder": str(judge), "source": f"{tested}s at {level:g}"}
            rows.append(_noise_row(part, level, metric="noise_called_by", **names))
    return rows


def _noise_row(noise: pl.DataFrame, level: float, *, metric: str, **names: str) -> Row:
    row = share_row(metric, _count(noise["p_value"] < level), noise.height, **names)
    return row | {key: row[key] / level for key in ("value", "low", "high")}


def _count(mask: pl.Series) -> int:
    return int(mask.sum() or 0)
