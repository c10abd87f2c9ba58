"""Tables in the paper's shape: our encoders, baselines and controls, and the paper's numbers.

A board is a frame: ``group, benchmark, encoder, data, b, trimmed`` and one column a score.
Groups are ``baseline``, ``encoder`` and ``control`` (what shuffled names make) of this run, and
``paper baseline`` and ``paper`` for reference.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

ABOUT = ("group", "benchmark", "encoder", "data", "b", "trimmed")
RECALL = ("recall_sampled_0.05_0.95", "recall_all_pairs_0.05_0.95")
ANY_RECALL = re.compile(r"recall_(?:sampled|all_pairs)_([^_]+)_([^_]+)")
KS, CVM, OVER = "KS", "CVM", "KS over position"
PRECISION, ENERGY = "avg. precision", "energy distance"
Z_PRECISION, Z_ENERGY = "z of precision", "z of energy"
SPREADS = ("± sd", "± MAD")
COMPOUNDS = (PRECISION, SPREADS[0], Z_PRECISION, ENERGY, SPREADS[1], Z_ENERGY)


def recall_metric(part: pl.DataFrame) -> str:
    """Name of the recall that the paper reports, else of the exact one, else of the first.

    Examples
    --------
    >>> recall_metric(pl.DataFrame({"metric": ["recall_left_all_pairs_0.1_0.9", "ks"]}))
    'recall_all_pairs_0.05_0.95'
    >>> recall_metric(pl.DataFrame({"metric": ["recall_sampled_0.1_0.9"]}))
    'recall_sampled_0.1_0.9'
    """
    found = [name for name in part["metric"].to_list() if ANY_RECALL.fullmatch(name)]
    return next((name for name in (*RECALL, *found) if name in found), RECALL[-1])


def tails_of(metric: str) -> tuple[str, float]:
    """Thresholds of a recall in per cent, and the recall of chance.

    Examples
    --------
    >>> tails_of("recall_sampled_0.1_0.9")
    ('10/90', 0.2)
    """
    found = ANY_RECALL.fullmatch(metric)
    assert found, metric
    low, high = map(float, found.groups())
    return f"{100 * low:g}/{100 * high:g}", round(low + 1 - high, 6)


def other_tails(metric: str) -> str:
    """What to add to the name of a recall; the paper's thresholds go without saying.

    Examples
    --------
    >>> other_tails("recall_sampled_0.1_0.9"), other_tails("recall_all_pairs_0.05_0.95")
    (' at 10/90', '')
    """
    return "" if metric in RECALL else f" at {tails_of(metric)[0]}"


def z_of_precision(mean: float, sd: float, random: float, random_sd: float) -> float:
    """Distance from random embeddings in standard deviations of both, as in Tables 3 and 6.

    Examples
    --------
    >>> round(z_of_precision(0.309, 0.015, 0.222, 0.007), 1)
    5.3
    """
    return (mean - random) / float(np.hypot(sd, random_sd))


def z_of_energy(mean: float, mad: float, random: float) -> float:
    """Distance from random embeddings in the model's own median absolute deviations.

    Examples
    --------
    >>> round(z_of_energy(6.586, 1.52, 0.728), 2)
    3.85
    """
    return (mean - random) / mad


def on_common_pairs(pairs: pl.DataFrame) -> pl.DataFrame:
    """Medians over the technical pairs that all encoders of a benchmark have alike.

    Parameters
    ----------
    pairs : DataFrame
        ``encoder, benchmark`` and the columns of the replicate pairs format.

    Returns
    -------
    DataFrame
        ``benchmark, encoder, n_pairs, n_left_out`` and the medians, of ``n`` too: CVM grows
        with the number of matched wells, so that only pairs of equal experiments and N compare.
    """
    keys = ["benchmark", "experiment_a", "experiment_b", "n"]
    encoders = pairs.group_by("benchmark").agg(wanted=pl.col("encoder").n_unique())
    common = (
        pairs.group_by(keys)
        .agg(found=pl.col("encoder").n_unique())
        .join(encoders, on="benchmark")
        .filter(pl.col("found") == pl.col("wanted"))
    )
    kept = pairs.join(common.select(keys), on=keys, how="semi")
    every = pairs.group_by("benchmark", "encoder").agg(every=pl.len())
    medians = [pl.col(c).median() for c in ("ks", "cvm", "ks_over_position")]
    medians.append(pl.col("n").median().cast(pl.Int64))
    found = kept.group_by("benchmark", "encoder").agg(pl.len().alias("n_pairs"), *medians)
    left_out = pl.col("every") - pl.col("n_pairs").fill_null(0)
    return (
        every.join(found, on=["benchmark", "encoder"], how="left")
        .with_columns(n_left_out=left_out)
        .drop("every")
        .sort("benchmark", "encoder")
    )


def comparable(results: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """Results whose KS and CVM are those of the technical pairs that all encoders have.

    Where that leaves pairs of an encoder out, its rows have no interval; without any common
    pair it has no row.
    """
    if pairs.is_empty():
        return results
    common = on_common_pairs(pairs)
    if not common["n_left_out"].sum():
        return results
    keys = ["benchmark", "encoder"]
    medians = common.unpivot(
        ["ks", "cvm", "ks_over_position"],
        index=[*keys, "n_left_out"],
        variable_name="metric",
        value_name="common",
    ).join(common.select(*keys, n_common="n"), on=keys)
    other = pl.col("n_left_out").fill_null(0) > 0
    return (
        results.join(medians, on=[*keys, "metric"], how="left", maintain_order="left")
        .filter(~other | pl.col("common").is_not_null())
        .with_columns(
            value=pl.when(other).then("common").otherwise("value"),
            n=pl.when(other).then("n_common").otherwise("n"),
            low=pl.when(~other).then("low"),
            high=pl.when(~other).then("high"),
        )
        .select(results.columns)
    )


def map_board(
    results: pl.DataFrame, pairs: pl.DataFrame, baselines: Sequence[str], paper: pl.DataFrame
) -> pl.DataFrame:
    """Lay out recall by source and replicate consistency as the paper's Tables 1 and 2.

    Parameters
    ----------
    results : DataFrame
        Tidy results of recall and replicates.
    pairs : DataFrame
        ``encoder, benchmark`` and the replicate pairs format; may be empty.
    baselines : list of str
        Encoders that count as baselines.
    paper : DataFrame
        The paper's numbers; may be empty.
    """
    rows: list[dict[str, Any]] = []
    medians: dict[tuple[str, str], dict[str, Any]] = {}
    if not pairs.is_empty():
        for row in on_common_pairs(pairs).iter_rows(named=True):
            medians[row["benchmark"], row["encoder"]] = row
    for (benchmark,), part in results.group_by("benchmark", maintain_order=True):
        metric = recall_metric(part)
        controls: dict[str, list[float]] = {}
        for row in _encoders(part, str(benchmark), baselines):
            mine = part.filter(pl.col("encoder") == row["encoder"])
            named = pl.format("{}{}", "source", pl.lit(other_tails(metric)))
            row |= dict(mine.filter(metric=metric).select(named, "value").rows())
            found = medians.get((str(benchmark), row["encoder"]), {})
            columns = {KS: "ks", CVM: "cvm", OVER: "ks_over_position"}
            row |= {name: found[key] for name, key in columns.items() if found}
            rows.append(row)
            permuted = metric.replace("recall_", "recall_permuted_")
            for source, value in mine.filter(metric=permuted).select(named, "value").rows():
                controls.setdefault(source, []).append(value)
            for name, key in ((KS, "ks_permuted"), (CVM, "cvm_permuted")):
                controls.setdefault(name, []).extend(mine.filter(metric=key)["value"])
        told = {name: float(np.mean(values)) for name, values in controls.items() if values}
        if told:
            rows.append(_control(str(benchmark), "names shuffled") | told)
    scores = [c for row in rows for c in row if c not in ABOUT]
    return _board(rows + _of_paper(paper, ("1", "2")), scores) if rows else pl.DataFrame()


def compound_board(
    results: pl.DataFrame, baselines: Sequence[str], random: Sequence[str], paper: pl.DataFrame
) -> pl.DataFrame:
    """Lay out compound-gene precision and magnitude as the paper's Tables 3 and 6.

    Parameters
    ----------
    results : DataFrame
        Tidy results of compounds and magnitude.
    baselines : list of str
        Encoders that count as baselines.
    random : list of str
        Encoders of random embeddings: z-scores are over the first of them that a benchmark
        has, or else over random scores and the controls' own distance.
    paper : DataFrame
        The paper's numbers; may be empty.
    """
    rows: list[dict[str, Any]] = []
    for (benchmark,), part in results.group_by("benchmark", maintain_order=True):
        values = {
            (row["encoder"], row["metric"]): row["value"] for row in part.iter_rows(named=True)
        }
        known = part["encoder"].unique()
        reference = next((name for name in random if name in known), None)
        shuffled: dict[str, list[float]] = {}
        for row in _encoders(part, str(benchmark), baselines):
            own = {m: v for (name, m), v in values.items() if name == row["encoder"]}
            rows.append(row | _compound_scores(own, reference, values))
            for name, metric in (
                (PRECISION, "average_precision_permuted"),
                (SPREADS[0], "average_precision_permuted_sd"),
                (ENERGY, "energy_distance_null"),
            ):
                shuffled.setdefault(name, []).extend([own[metric]] if metric in own else [])
        told = {name: float(np.mean(some)) for name, some in shuffled.items() if some}
        if told:
            rows.append(_control(str(benchmark), "names shuffled, controls") | told)
    rows = [row for row in rows if any(name in row for name in COMPOUNDS)]
    return _board(rows + _of_paper(paper, ("3", "6")), COMPOUNDS) if rows else pl.DataFrame()


def _compound_scores(
    own: Mapping[str, float], reference: str | None, values: Mapping[tuple[str, str], float]
) -> dict[str, float]:
    """Scores of one encoder, with z over the reference encoder or over its own controls."""
    found: dict[str, float] = {}
    precision, energy = "average_precision_max", "energy_distance"
    if precision in own:
        found[PRECISION], sd = own[precision], own.get(f"{precision}_sd")
        base, base_sd = (
            own.get("average_precision_random"),
            own.get("average_precision_random_sd"),
        )
        if reference is not None:
            base = values.get((reference, precision), base)
            base_sd = values.get((reference, f"{precision}_sd"), base_sd)
        if sd is not None and base is not None and base_sd is not None:
            found[SPREADS[0]] = sd
            # One draw alone has no spread, and no z.
            if sd or base_sd:
                found[Z_PRECISION] = z_of_precision(own[precision], sd, base, base_sd)
    if energy in own:
        found[ENERGY], mad = own[energy], own.get("energy_distance_mad")
        far = own.get("energy_distance_null")
        if reference is not None:
            far = values.get((reference, energy), far)
        if mad:
            found[SPREADS[1]] = mad
            if far is not None:
                found[Z_ENERGY] = z_of_energy(own[energy], mad, far)
    return found


def _encoders(
    part: pl.DataFrame, benchmark: str, baselines: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows of one benchmark's encoders, baselines first, as far as they are about them."""
    about = part.group_by("encoder").agg(
        b=pl.col("block").max(),
        trimmed=pl.col("trimmed").first(),
        data=pl.col("screen").first(),
    )
    rows = []
    for row in about.sort("encoder").iter_rows(named=True):
        group = "baseline" if row["encoder"] in baselines else "encoder"
        rows.append({"group": group, "benchmark": benchmark, **row, "b": row["b"] or None})
    return sorted(rows, key=lambda row: row["group"])


def _control(benchmark: str, name: str) -> dict[str, Any]:
    return {"group": "control", "benchmark": benchmark, "encoder": name, "trimmed": False}


def _of_paper(paper: pl.DataFrame, tables: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the paper's tables, in their order."""
    names = {
        "average_precision": PRECISION,
        "z_average_precision": Z_PRECISION,
        "energy_distance": ENERGY,
        "z_energy_distance": Z_ENERGY,
    }
    spread = {"average_precision": SPREADS[0], "energy_distance": SPREADS[1]}
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for one in (
        paper.filter(pl.col("table").is_in(tables)).iter_rows(named=True) if len(paper) else ()
    ):
        key = tuple(one[k] for k in ("table", "model", "data", "block", "trimmed"))
        row = rows.setdefault(
            key,
            {
                "group": "paper baseline" if one["baseline"] else "paper",
                "benchmark": f"paper Table {one['table']}",
                "encoder": one["model"],
                "data": one["data"],
                "b": one["block"],
                "trimmed": bool(one["trimmed"]),
            },
        )
        row[names.get(one["metric"], one["metric"])] = one["value"]
        if one["spread"] is not None:
            row[spread[one["metric"]]] = one["spread"]
    return list(rows.values())


def _board(rows: Sequence[Mapping[str, Any]], first: Sequence[str]) -> pl.DataFrame:
    """Make the frame; scores of this run go first, the paper's other ones after them."""
    found = dict.fromkeys([*first, *(c for row in rows for c in row if c not in ABOUT)])
    told = [name for name in found if any(name in row for row in rows)]
    last = [name for name in (KS, CVM, OVER) if name in told]
    scores = [name for name in told if name not in last] + last
    schema: dict[str, Any] = dict.fromkeys(ABOUT, pl.String) | dict.fromkeys(scores, pl.Float64)
    schema |= {"b": pl.Int64, "trimmed": pl.Boolean}
    return pl.DataFrame([{k: row.get(k) for k in schema} for row in rows], schema=schema)


Marks = frozenset[tuple[int, str]]


def marks(board: pl.DataFrame) -> tuple[Marks, Marks]:
    """Cells with the best score of all, and of the baselines, in each benchmark.

    Returns
    -------
    best, best_baseline : set of (row, column)
        Controls never count; a benchmark of the paper has marks of its own.
    """
    best: set[tuple[int, str]] = set()
    italic: set[tuple[int, str]] = set()
    scores = [name for name in board.columns if name not in (*ABOUT, *SPREADS)]
    numbered = board.with_row_index("row")
    for (_,), part in numbered.group_by("benchmark", maintain_order=True):
        for name in scores:
            rivals = part.filter(pl.col("group") != "control").drop_nulls(name)
            low = rivals.filter(pl.col("group").str.contains("baseline"))
            for some, cells in ((rivals, best), (low, italic)):
                if some.height:
                    top = some[name].max()
                    cells.update((row, name) for row in some.filter(pl.col(name) == top)["row"])
    return frozenset(best), frozenset(italic)
