"""Recall of every source of known pairs, with intervals and a permuted baseline.

Shape suffixes: G genes, D features, P pairs, S shuffles, B bootstraps, T thresholds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.benchmark.config import RecallKnobs
from phenopipe.benchmark.nulls import Null, make_nulls, pair_cosines
from phenopipe.benchmark.pairs import pairs_on_map
from phenopipe.benchmark.treated import Floats, unit_rows
from phenopipe.errors import UserError
from phenopipe.seeds import generator

Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Known:
    """The pairs of one source on one map, and the same pairs among shuffled genes."""

    source: str
    names: pl.DataFrame
    first_P: NDArray[np.int64]
    second_P: NDArray[np.int64]
    cosine_P: NDArray[np.float32]
    shuffled_SP: NDArray[np.float32]


@dataclass(frozen=True)
class Ranked:
    """Ranks of a source's pairs, and of the shuffled ones, in one null."""

    below_P: Shares
    upto_P: Shares
    shuffled_below_SP: Shares
    shuffled_upto_SP: Shares

    def tails(self, low: float, high: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Whether each pair lies in the left tail of the null, and whether in the right."""
        return self.upto_P <= low, self.below_P >= high

    def shuffled(self, low: float, high: float) -> Shares:
        """Recall of each shuffle."""
        extreme_SP = (self.shuffled_upto_SP <= low) | (self.shuffled_below_SP >= high)
        return np.asarray(extreme_SP.mean(axis=1))


def check_map(
    x_GD: Floats, genes_G: Sequence[str], min_genes: int
) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """Make unit rows of a map whose genes are distinct and numerous enough."""
    names_G = np.asarray(genes_G, dtype=np.str_)
    names, counts = np.unique(names_G, return_counts=True)
    if (counts > 1).any():
        doubled = names[counts > 1][0]
        raise UserError(f"gene {doubled} has {counts.max()} rows on the map, wanted one")
    if len(names) < min_genes:
        raise UserError(f"{len(names)} genes on the map, wanted at least {min_genes}")
    return unit_rows(x_GD, list(names_G)), names_G


def score_sources(
    table: pl.DataFrame, pairs: Mapping[str, pl.DataFrame], knobs: RecallKnobs
) -> tuple[list[dict[str, Any]], pl.DataFrame]:
    """Recall of every source under every null and threshold, and the pairs behind it.

    Parameters
    ----------
    table : DataFrame
        The map format.
    pairs : mapping of str to DataFrame
        Known pairs of each source.
    knobs : RecallKnobs
        The step's settings.

    Returns
    -------
    rows : list of mapping
        Rows of results. Metrics are ``recall_<null>_<low>_<high>`` with an interval by
        resampling genes (the null held fixed), ``recall_left_...`` and
        ``recall_right_...`` for each tail, and ``recall_permuted_...`` with the map's gene
        names shuffled. A sampled null's rows are means over its seeds, and
        ``recall_sampled_..._sd`` is their standard deviation.
    pairs : DataFrame
        Cosine and rank of every known pair, in the first null.
    """
    table = table.filter(pl.col("kind").is_in(knobs.kinds)).sort("entity")
    unit_GD, names_G = check_map(
        table["embedding"].to_numpy(), table["entity"].to_list(), knobs.min_genes
    )
    known = [find_known(name, unit_GD, names_G, one, knobs) for name, one in pairs.items()]
    rows: list[dict[str, Any]] = []
    listed = []
    for kind in knobs.nulls:
        nulls = make_nulls(unit_GD, kind, knobs.null_seeds)
        for one in known:
            ranked = [rank(one, null) for null in nulls]
            rows += _rows_of_source(one, ranked, kind, len(unit_GD), knobs)
            if kind == knobs.nulls[0]:
                listed.append(_list_pairs(one, ranked[0]))
    return rows, pl.concat(listed)


def find_known(
    source: str,
    unit_GD: NDArray[np.float64],
    names_G: NDArray[np.str_],
    pairs: pl.DataFrame,
    knobs: RecallKnobs,
) -> Known:
    """Cosines of a source's pairs, and with the map's gene names shuffled."""
    try:
        names, first_P, second_P = pairs_on_map(pairs, names_G)
    except UserError as error:
        raise UserError(f"source {source}: {error}") from None
    rng = generator(knobs.seed, "recall", "permuted", source)
    row_SG = [rng.permutation(len(unit_GD)) for _ in range(knobs.permutations)]
    shuffled_SP = [pair_cosines(unit_GD, row_G[first_P], row_G[second_P]) for row_G in row_SG]
    cosine_P = pair_cosines(unit_GD, first_P, second_P)
    return Known(source, names, first_P, second_P, cosine_P, np.stack(shuffled_SP))


def rank(one: Known, null: Null) -> Ranked:
    """Rank a source's pairs in a null."""
    below_P, upto_P = null.ranks(one.cosine_P)
    shape = one.shuffled_SP.shape
    shuffled_below, shuffled_upto = null.ranks(one.shuffled_SP.ravel())
    return Ranked(below_P, upto_P, shuffled_below.reshape(shape), shuffled_upto.reshape(shape))


def _rows_of_source(
    one: Known, ranked: Sequence[Ranked], kind: str, n_genes: int, knobs: RecallKnobs
) -> list[dict[str, Any]]:
    """Rows of results of one source under one kind of null."""
    each_T = [[r.tails(*threshold) for r in ranked] for threshold in knobs.thresholds]
    left_PT = np.stack([np.mean([left for left, _ in each], axis=0) for each in each_T], axis=1)
    right_PT = np.stack([np.mean([r for _, r in each], axis=0) for each in each_T], axis=1)
    ends_2T = resample_genes(one, left_PT + right_PT, n_genes, knobs)
    shared = {"source": one.source, "n": len(one.cosine_P), "seed": knobs.seed}
    rows: list[dict[str, Any]] = []
    for at, threshold in enumerate(knobs.thresholds):
        name = f"{kind}_{threshold[0]:g}_{threshold[1]:g}"
        left, right = left_PT[:, at].mean(), right_PT[:, at].mean()
        shuffled_S = np.mean([r.shuffled(*threshold) for r in ranked], axis=0)
        low, high = np.quantile(shuffled_S, [0.025, 0.975])
        rows += [
            {"metric": f"recall_{name}", "value": left + right}
            | {"low": ends_2T[0, at], "high": ends_2T[1, at]},
            {"metric": f"recall_left_{name}", "value": left},
            {"metric": f"recall_right_{name}", "value": right},
            {"metric": f"recall_permuted_{name}", "value": shuffled_S.mean()}
            | {"low": low, "high": high},
        ]
        if len(ranked) > 1:
            by_seed = [(left_P | right_P).mean() for left_P, right_P in each_T[at]]
            rows.append({"metric": f"recall_{name}_sd", "value": np.std(by_seed, ddof=1)})
    return [{**shared, **row} for row in rows]


def resample_genes(
    one: Known, found_PT: NDArray[np.float64], n_genes: int, knobs: RecallKnobs
) -> NDArray[np.float64]:
    """Ends of each recall's 95 % interval, by resampling genes.

    Parameters
    ----------
    one : Known
        The source.
    found_PT : float array of shape (n_pairs, n_thresholds)
        Whether each pair was recalled, or in which share of the nulls.
    n_genes : int
        Genes on the map.
    knobs : RecallKnobs
        The step's settings.

    Returns
    -------
    float array of shape (2, n_thresholds)

    Notes
    -----
    A gene drawn k times counts k times, so a pair counts by the product. Resampling pairs
    instead would pretend that pairs which share a gene are independent.
    """
    rng = generator(knobs.seed, "recall", "bootstrap", one.source)
    recall_BT = np.full((knobs.bootstraps, found_PT.shape[1]), np.nan)
    for at in range(knobs.bootstraps):
        times_G = np.bincount(rng.integers(n_genes, size=n_genes), minlength=n_genes)
        weight_P = (times_G[one.first_P] * times_G[one.second_P]).astype(np.float64)
        # A resample without any known pair says nothing.
        if weight_P.any():
            recall_BT[at] = weight_P @ found_PT / weight_P.sum()
    return np.asarray(np.nanquantile(recall_BT, [0.025, 0.975], axis=0))


def _list_pairs(one: Known, ranked: Ranked) -> pl.DataFrame:
    return one.names.with_columns(
        source=pl.lit(one.source),
        cosine=pl.Series(one.cosine_P.astype(np.float64)),
        rank=pl.Series((ranked.below_P + ranked.upto_P) / 2),
    )
