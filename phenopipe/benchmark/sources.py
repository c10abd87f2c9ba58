"""Recall of every source of known pairs, with intervals and a permuted baseline.

Shape suffixes: G genes, D features, P pairs, Q pairs of all sources' shuffles,
S shuffles, B bootstraps, T thresholds.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.benchmark.config import RecallKnobs
from phenopipe.benchmark.large import LargeNull, genome_null
from phenopipe.benchmark.nulls import Null, pair_cosines, sampled_null
from phenopipe.benchmark.pairs import pairs_on_map
from phenopipe.benchmark.treated import Floats, unit_rows
from phenopipe.errors import UserError
from phenopipe.seeds import generator


@dataclass(frozen=True)
class Known:
    """The pairs of one source on one map, as drawn and among shuffled genes.

    Attributes
    ----------
    source : str
        Name of the source.
    names : DataFrame
        ``entity1, entity2``.
    first_P, second_P : int arrays of shape (n_pairs,)
        Rows of the map.
    row_SG : int array of shape (n_shuffles, n_genes)
        The row that each gene gets when names are dealt anew.
    same_arm_P : bool array of shape (n_pairs,)
        Whether both genes are known to lie on one chromosome arm.
    """

    source: str
    names: pl.DataFrame
    first_P: NDArray[np.int64]
    second_P: NDArray[np.int64]
    row_SG: NDArray[np.int32]
    same_arm_P: NDArray[np.bool_]

    def shuffled_rows(self) -> NDArray[np.int32]:
        """Rows of the pairs of each shuffle, one after another: (2, S x n_pairs)."""
        ends_2P = np.stack([self.first_P, self.second_P])
        return np.concatenate([row_G[ends_2P] for row_G in self.row_SG], axis=1)


@dataclass(frozen=True)
class Scored:
    """A source's pairs with their cosines, and those of each shuffle."""

    known: Known
    cosine_P: NDArray[np.float32]
    shuffled_SP: NDArray[np.float32]


def check_map(
    x_GD: Floats, genes_G: Sequence[str], min_genes: int
) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """Make unit rows of a map whose genes are distinct and numerous enough."""
    if len(x_GD) != len(genes_G):
        raise UserError(f"{len(x_GD)} embeddings and {len(genes_G)} genes, wanted one each")
    names_G = np.asarray(genes_G, dtype=np.str_)
    names, counts = np.unique(names_G, return_counts=True)
    if (counts > 1).any():
        doubled = names[counts > 1][0]
        raise UserError(f"gene {doubled} has {counts.max()} rows on the map, wanted one")
    if len(names) < min_genes:
        raise UserError(f"{len(names)} genes on the map, wanted at least {min_genes}")
    return unit_rows(x_GD, list(names_G)), names_G


def score_sources(
    table: pl.DataFrame,
    pairs: Mapping[str, pl.DataFrame],
    knobs: RecallKnobs,
    arms: Mapping[str, str] | None = None,
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
    arms : mapping of str to str, optional
        Chromosome arm of each gene, where it is known.

    Returns
    -------
    rows : list of mapping
        Rows of results. Metrics are ``recall_<null>_<low>_<high>`` with an interval by
        resampling genes (the null held fixed), ``recall_left_...`` and
        ``recall_right_...`` for each tail, ``recall_other_arms_...`` without pairs on one
        chromosome arm, and ``recall_permuted_...`` with the map's gene names shuffled. A
        sampled null's rows are means over its seeds, and ``recall_sampled_..._sd`` is their
        standard deviation.
    pairs : DataFrame
        Cosine and rank of every known pair, in the first null.
    """
    table = table.filter(pl.col("kind").is_in(knobs.kinds)).sort("entity")
    unit_GD, names_G = check_map(
        table["embedding"].to_numpy(), table["entity"].to_list(), knobs.min_genes
    )
    del table
    known = [find_known(n, len(unit_GD), names_G, one, knobs, arms) for n, one in pairs.items()]
    scored: list[Scored] = []
    rows: list[dict[str, Any]] = []
    listed = []
    # Exact nulls first: cosines of known pairs are found on the way.
    for kind in sorted(knobs.nulls):
        found: dict[str, list[Tails]] = {one.source: [] for one in known}
        sizes = []
        for null in each_null(unit_GD, kind, knobs, known, scored):
            sizes.append(null.size)
            for one in scored:
                found[one.known.source].append(tails_of(one, null, knobs.thresholds))
            if kind == knobs.nulls[0] and len(sizes) == 1:
                listed = [_list_pairs(one, null) for one in scored]
            # The loop's name would keep it while the next one is made.
            del null
        for one in scored:
            each = found[one.known.source]
            rows += _rows_of_source(one.known, each, kind, len(unit_GD), knobs)
    return rows, pl.concat(listed)


def each_null(
    unit_GD: NDArray[np.float64],
    kind: str,
    knobs: RecallKnobs,
    known: Sequence[Known],
    scored: list[Scored],
) -> Iterator[Null | LargeNull]:
    """One null after another, so that only one is held; fills ``scored`` before the first."""
    if kind == "all_pairs":
        rows_2Q = np.concatenate([one.shuffled_rows() for one in known], axis=1)
        null, shuffled_Q = genome_null(unit_GD, rows_2Q[0], rows_2Q[1], knobs.thresholds)
        scored[:] = _scored(unit_GD, known, shuffled_Q)
        yield null
        return
    assert kind == "sampled", kind
    if not scored:
        rows_2Q = np.concatenate([one.shuffled_rows() for one in known], axis=1)
        scored[:] = _scored(unit_GD, known, pair_cosines(unit_GD, *rows_2Q))
    for pair in knobs.null_seeds:
        yield sampled_null(unit_GD, pair)


def _scored(
    unit_GD: NDArray[np.float64], known: Sequence[Known], shuffled_Q: NDArray[np.float32]
) -> Iterator[Scored]:
    """Give each source the cosines of its pairs and of its shuffles."""
    start = 0
    for one in known:
        shape = (len(one.row_SG), len(one.first_P))
        stop = start + shape[0] * shape[1]
        cosine_P = pair_cosines(unit_GD, one.first_P, one.second_P)
        yield Scored(one, cosine_P, shuffled_Q[start:stop].reshape(shape))
        start = stop


def find_known(
    source: str,
    n_genes: int,
    names_G: NDArray[np.str_],
    pairs: pl.DataFrame,
    knobs: RecallKnobs,
    arms: Mapping[str, str] | None = None,
) -> Known:
    """Find a source's pairs on the map, and deal the map's gene names anew."""
    try:
        names, first_P, second_P = pairs_on_map(pairs, names_G)
    except UserError as error:
        raise UserError(f"source {source}: {error}") from None
    rng = generator(knobs.seed, "recall", "permuted", source)
    row_SG = np.stack([rng.permutation(n_genes) for _ in range(knobs.permutations)])
    arm_G = np.array([(arms or {}).get(gene, "") for gene in names_G], dtype=np.str_)
    same_arm_P = (arm_G[first_P] == arm_G[second_P]) & (arm_G[first_P] != "")
    return Known(source, names, first_P, second_P, row_SG.astype(np.int32), same_arm_P)


class Tails(NamedTuple):
    """Pairs in the left and right tails of one null, and the recall of each shuffle."""

    left_PT: NDArray[np.bool_]
    right_PT: NDArray[np.bool_]
    shuffled_ST: NDArray[np.float64]


def tails_of(
    one: Scored, null: Null | LargeNull, thresholds: Sequence[tuple[float, float]]
) -> Tails:
    """Find which pairs lie in the tails of a null, at each pair of thresholds."""
    cuts = [null.cuts(low, high) for low, high in thresholds]
    left_PT = np.stack([one.cosine_P < left for left, _ in cuts], axis=1)
    right_PT = np.stack([one.cosine_P > right for _, right in cuts], axis=1)
    shuffled = [
        ((one.shuffled_SP < left) | (one.shuffled_SP > right)).mean(axis=1)
        for left, right in cuts
    ]
    return Tails(left_PT, right_PT, np.stack(shuffled, axis=1))


def _rows_of_source(
    one: Known, each: Sequence[Tails], kind: str, n_genes: int, knobs: RecallKnobs
) -> list[dict[str, Any]]:
    """Rows of results of one source under one kind of null."""
    left_PT = np.mean([tails.left_PT for tails in each], axis=0)
    right_PT = np.mean([tails.right_PT for tails in each], axis=0)
    either_PT = np.mean([tails.left_PT | tails.right_PT for tails in each], axis=0)
    ends_2T = resample_genes(one, either_PT, n_genes, knobs)
    shared = {"source": one.source, "n": len(one.first_P), "seed": knobs.seed}
    apart_P = ~one.same_arm_P
    rows: list[dict[str, Any]] = []
    for at, threshold in enumerate(knobs.thresholds):
        name = f"{kind}_{threshold[0]:g}_{threshold[1]:g}"
        shuffled_S = np.mean([tails.shuffled_ST[:, at] for tails in each], axis=0)
        low, high = np.quantile(shuffled_S, [0.025, 0.975])
        rows += [
            {"metric": f"recall_{name}", "value": either_PT[:, at].mean()}
            | {"low": ends_2T[0, at], "high": ends_2T[1, at]},
            {"metric": f"recall_left_{name}", "value": left_PT[:, at].mean()},
            {"metric": f"recall_right_{name}", "value": right_PT[:, at].mean()},
            {"metric": f"recall_permuted_{name}", "value": shuffled_S.mean()}
            | {"low": low, "high": high},
        ]
        if one.same_arm_P.any() and apart_P.any():
            metric, value = f"recall_other_arms_{name}", either_PT[apart_P, at].mean()
            rows.append({"metric": metric, "value": value, "n": int(apart_P.sum())})
        if len(each) > 1:
            by_seed = [(t.left_PT[:, at] | t.right_PT[:, at]).mean() for t in each]
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


def _list_pairs(one: Scored, null: Null | LargeNull) -> pl.DataFrame:
    below_P, upto_P = null.ranks(one.cosine_P)
    return one.known.names.with_columns(
        source=pl.lit(one.known.source),
        cosine=pl.Series(one.cosine_P.astype(np.float64)),
        rank=pl.Series((below_P + upto_P) / 2),
    )
