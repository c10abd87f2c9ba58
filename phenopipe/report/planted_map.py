"""How recall and replicate consistency follow the planted effects, and probes the map.

Shape suffixes: N matched pairs of wells, P perturbations, B bootstraps.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import cramervonmises, ks_1samp, rankdata, uniform

from phenopipe.report.config import TruthKnobs
from phenopipe.report.intervals import Row
from phenopipe.report.sections.across import About, probed_maps, rank_correlation
from phenopipe.seeds import generator

FEWEST = 3


def effects(truth: pl.DataFrame, key: str) -> pl.DataFrame:
    """Length of the planted effect of each perturbation or gene; biased arms are left out."""
    known = truth.filter(pl.col("status").is_in(["active", "weak", "inactive"]))
    return known.drop_nulls(key).group_by(key).agg(pl.col("effect").max())


def _bins(frame: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """Parts of a frame by its effect, one unit wide; what does nothing is a part of its own."""
    binned = frame.with_columns(upper=pl.col("effect").ceil().cast(pl.Int64))
    parts = sorted(binned.group_by("upper"), key=lambda pair: pair[0])
    return [
        (f"effect {upper - 1} to {upper}" if upper else "effect 0", part)
        for (upper,), part in parts
    ]


def recall_by_effect(
    encoder: str, pairs: pl.DataFrame, truth: pl.DataFrame, knobs: TruthKnobs
) -> list[Row]:
    """Recall of planted pairs over chance, by the weaker effect of the two genes.

    Parameters
    ----------
    encoder : str
        Whose map.
    pairs : DataFrame
        ``entity1, entity2, rank``: known pairs and their rank in the null.
    truth : DataFrame
        The truth format.
    knobs : TruthKnobs
        Settings.

    Returns
    -------
    list of mapping
        ``recall_by_effect`` for each unit of effect that holds a pair of one planted group.
    """
    low, high = knobs.tails
    known = truth.drop_nulls(["gene", "group"])
    group_of = dict(known.select("gene", "group").unique("gene").iter_rows())
    effect_of = dict(effects(truth, "gene").iter_rows())
    named = pairs.unique(["entity1", "entity2"])
    for name in ("entity1", "entity2"):
        named = named.with_columns(
            pl.col(name)
            .replace_strict(effect_of, default=None, return_dtype=pl.Float64)
            .alias(f"{name}_effect"),
            pl.col(name)
            .replace_strict(group_of, default=None, return_dtype=pl.String)
            .alias(f"{name}_group"),
        )
    planted = named.filter(pl.col("entity1_group") == pl.col("entity2_group")).with_columns(
        effect=pl.min_horizontal("entity1_effect", "entity2_effect")
    )
    chance = low + 1 - high
    rows: list[Row] = []
    for source, part in _bins(planted.drop_nulls("effect")):
        found = ((part["rank"] <= low) | (part["rank"] >= high)).mean()
        value = float(found) / chance  # type: ignore[arg-type]
        rows.append(_row("recall_by_effect", encoder, source, value, part.height))
    return rows


def consistency_by_effect(
    encoder: str, matches: pl.DataFrame, truth: pl.DataFrame, knobs: TruthKnobs
) -> list[Row]:
    """Replicate consistency of matched wells by the planted effect of what is in them.

    Parameters
    ----------
    encoder : str
        Whose wells.
    matches : DataFrame
        The replicate matches format.
    truth : DataFrame
        The truth format.
    knobs : TruthKnobs
        Settings.

    Returns
    -------
    list of mapping
        ``ks_by_effect`` and ``cvm_by_effect`` for each unit of effect, ``ks_inactive`` of
        planted noise, and ``consistency_rises``: Spearman's correlation of effect and mean
        rank over perturbations, with its interval by resampling them.

    Notes
    -----
    A matched pair's rank in the null is uniform where wells of one perturbation are no more
    alike than any others, so that KS and CVM are those of ranks against the uniform law.
    """
    keys = ["perturbation", "concentration_um"]
    known = truth.filter(pl.col("status").is_in(["active", "weak", "inactive"]))
    known = known.drop_nulls("perturbation").group_by(keys).agg(pl.col("effect").max())
    judged = matches.join(known, on=keys, nulls_equal=True)
    if judged.is_empty():
        return []
    rows: list[Row] = []
    for source, part in _bins(judged):
        rank_N = part["rank"].to_numpy()
        ks = float(ks_1samp(rank_N, uniform.cdf).statistic)
        rows.append(_row("ks_by_effect", encoder, source, ks, part.height))
        cvm = float(cramervonmises(rank_N, uniform.cdf).statistic) / len(rank_N)
        rows.append(_row("cvm_by_effect", encoder, source, cvm, part.height))
        if source == "effect 0":
            rows.append(_row("ks_inactive", encoder, "planted noise", ks, part.height))
    each = judged.group_by(keys).agg(pl.col("effect").first(), pl.col("rank").mean()).sort(keys)
    effect_P, rank_P = each["effect"].to_numpy(), each["rank"].to_numpy()
    value = _spearman(effect_P, rank_P)
    rng = generator(knobs.seed, "consistency_rises", encoder)
    drawn_BP = rng.integers(len(effect_P), size=(knobs.bootstraps, len(effect_P)))
    resampled_B = [_spearman(effect_P[at], rank_P[at]) for at in drawn_BP]
    ends = np.nanquantile(resampled_B, [0.025, 0.975])
    row = _row("consistency_rises", encoder, "effect and rank", value, len(effect_P))
    return [*rows, row | {"low": float(ends[0]), "high": float(ends[1])}]


def permuted_rows(results: pl.DataFrame, knobs: TruthKnobs) -> list[Row]:
    """What is left of recall, over chance, and of KS when names are shuffled."""
    low, high = knobs.tails
    metric = f"recall_permuted_all_pairs_{low:g}_{high:g}"
    rows: list[Row] = []
    for row in results.iter_rows(named=True):
        if row["metric"] == metric:
            value = row["value"] / (low + 1 - high)
            rows.append(_row("recall_permuted", row["encoder"], row["source"], value, row["n"]))
        elif row["metric"] == "ks_permuted":
            name, n = row["encoder"], row["n"]
            rows.append(_row("ks_permuted", name, "technical pairs", row["value"], n))
    return rows


def order_rows(results: pl.DataFrame, blocks: pl.DataFrame, about: About) -> list[Row]:
    """Rank correlation, across encoders, of each probe with recall and KS."""
    rows: list[Row] = []
    points = probed_maps(results, blocks, about)
    for (task, what), part in points.group_by("task", "what", maintain_order=True):
        if part.height >= FEWEST:
            rho, _ = rank_correlation(part["accuracy"].to_numpy(), part["value"].to_numpy())
            source = f"{task} and {what}, encoders"
            rows.append(_row("encoder_order", "", source, rho, part.height))
    return rows


def _spearman(x_P: NDArray[np.floating], y_P: NDArray[np.floating]) -> float:
    x_P, y_P = rankdata(x_P), rankdata(y_P)
    x_P, y_P = x_P - x_P.mean(), y_P - y_P.mean()
    scale = float(np.sqrt((x_P @ x_P) * (y_P @ y_P)))
    return float(x_P @ y_P) / scale if scale else float("nan")


def _row(metric: str, encoder: str, source: str, value: float, n: int) -> Row:
    named = {"metric": metric, "encoder": encoder, "source": source}
    return {**named, "value": None if np.isnan(value) else value, "n": n}
