"""Step ``recall``: known relationships among the most extreme cosines of the map (A.6).

Shape suffixes: G genes, D features, P pairs, B bootstraps, T thresholds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.benchmark.config import PUBLISHED_SEEDS, RecallKnobs
from phenopipe.benchmark.nulls import Null, make_nulls, pair_cosines
from phenopipe.benchmark.pairs import pairs_on_map, read_pairs
from phenopipe.benchmark.treated import Floats, unit_rows
from phenopipe.errors import UserError
from phenopipe.formats.benchmarks import RECALL_PAIRS
from phenopipe.formats.maps import MAP
from phenopipe.formats.results import RESULTS, tidy
from phenopipe.formats.tables import read_stamp, read_table, write_table
from phenopipe.knobs import parse_step, run_step
from phenopipe.seeds import generator

MIN_GENES = 20


def relationship_recall(
    x_GD: Floats,
    genes_G: Sequence[str],
    pairs: pl.DataFrame,
    *,
    low: float = 0.05,
    high: float = 0.95,
    null: str = "all_pairs",
    seeds: Sequence[tuple[int, int]] = PUBLISHED_SEEDS,
    min_genes: int = MIN_GENES,
) -> pl.DataFrame:
    """Share of known pairs whose cosine is extreme among the cosines of a null.

    Parameters
    ----------
    x_GD : float array of shape (n_genes, n_features)
        The map, seen from the origin.
    genes_G : list of str
        Name of each row, each once.
    pairs : DataFrame
        ``entity1, entity2``: order, repeats and self pairs do not matter; pairs off the
        map are left out.
    low, high : float
        A pair is recalled if at most ``low`` of the null is at or below its cosine, or at
        least ``high`` strictly below.
    null : {"all_pairs", "sampled"}
        Every pair of the map, or 5,000 x 5,000 pairs drawn for each seed pair.
    seeds : list of (int, int)
        Seed pairs of the sampled null; the default reproduces the published draws.
    min_genes : int
        Fewer genes are refused.

    Returns
    -------
    DataFrame
        ``n_pairs, n_null, seed, recall``, one row a null; ``seed`` is null where nothing
        is drawn, else both seeds joined by an underscore.

    Raises
    ------
    UserError
        If a gene is doubled, there are too few genes, or no pair is on the map.

    Notes
    -----
    Paper A.6. Chance is ``low + 1 - high``. Cosines are compared in single precision.
    """
    unit_GD, names_G = check_map(x_GD, genes_G, min_genes)
    _, first_P, second_P = pairs_on_map(pairs, names_G)
    cosine_P = pair_cosines(unit_GD, first_P, second_P)
    rows = []
    for one in make_nulls(unit_GD, null, seeds):
        left_P, right_P = tails(one, cosine_P, low, high)
        recall = float((left_P | right_P).mean())
        rows.append((len(cosine_P), one.size, one.seed, recall))
    schema = {"n_pairs": pl.Int64, "n_null": pl.Int64, "seed": pl.String, "recall": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


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


def tails(
    null: Null, cosine_P: NDArray[np.float32], low: float, high: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each pair lies in the left tail of the null, and whether in the right."""
    below_P, upto_P = null.ranks(cosine_P)
    return upto_P <= low, below_P >= high


@dataclass(frozen=True)
class Known:
    """The pairs of one source on one map."""

    source: str
    names: pl.DataFrame
    first_P: NDArray[np.int64]
    second_P: NDArray[np.int64]


def recall_of_sources(
    table: pl.DataFrame, pairs: dict[str, pl.DataFrame], knobs: RecallKnobs
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
    known = []
    for source, frame in pairs.items():
        try:
            known.append(Known(source, *pairs_on_map(frame, names_G)))
        except UserError as error:
            raise UserError(f"source {source}: {error}") from None
    rows: list[dict[str, Any]] = []
    ranked = []
    for kind in knobs.nulls:
        nulls = make_nulls(unit_GD, kind, knobs.null_seeds)
        for one in known:
            rows += _rows_of_source(unit_GD, one, nulls, kind, knobs)
            if kind == knobs.nulls[0]:
                ranked.append(_ranked_pairs(unit_GD, one, nulls[0]))
    return rows, pl.concat(ranked)


def _rows_of_source(
    unit_GD: NDArray[np.float64], one: Known, nulls: list[Null], kind: str, knobs: RecallKnobs
) -> list[dict[str, Any]]:
    """Rows of results of one source under one kind of null."""
    n_genes = len(unit_GD)
    cosine_P = pair_cosines(unit_GD, one.first_P, one.second_P)
    weight_BP = _gene_weights(one, n_genes, knobs)
    rows = []
    for low, high in knobs.thresholds:
        each = [tails(null, cosine_P, low, high) for null in nulls]
        left_P = np.mean([left for left, _ in each], axis=0)
        right_P = np.mean([right for _, right in each], axis=0)
        found_P = left_P + right_P
        ends = np.nanquantile(weight_BP @ found_P, [0.025, 0.975])
        shuffled = _permuted(unit_GD, one, nulls, (low, high), knobs)
        name = f"{kind}_{low:g}_{high:g}"
        shared = {"source": one.source, "n": len(cosine_P), "seed": knobs.seed}
        rows += [
            {**shared, "metric": f"recall_{name}", "value": found_P.mean()}
            | {"low": ends[0], "high": ends[1]},
            {**shared, "metric": f"recall_left_{name}", "value": left_P.mean()},
            {**shared, "metric": f"recall_right_{name}", "value": right_P.mean()},
            {**shared, "metric": f"recall_permuted_{name}", "value": shuffled.mean()}
            | dict(zip(("low", "high"), np.quantile(shuffled, [0.025, 0.975]), strict=True)),
        ]
        if len(nulls) > 1:
            by_seed = [(left | right).mean() for left, right in each]
            sd = np.std(by_seed, ddof=1)
            rows.append({**shared, "metric": f"recall_{name}_sd", "value": sd})
    return rows


def _gene_weights(one: Known, n_genes: int, knobs: RecallKnobs) -> NDArray[np.float64]:
    """Weight of each pair in each bootstrap over genes; weights of a bootstrap sum to 1.

    A gene drawn k times counts k times, so a pair counts by the product. Resampling pairs
    instead would pretend that pairs which share a gene are independent.
    """
    rng = generator(knobs.seed, "recall", one.source)
    drawn_BG = rng.multinomial(n_genes, np.full(n_genes, 1 / n_genes), knobs.bootstraps)
    weight_BP = (drawn_BG[:, one.first_P] * drawn_BG[:, one.second_P]).astype(np.float64)
    total_B1 = weight_BP.sum(axis=1, keepdims=True)
    # A bootstrap that drew no known pair says nothing.
    total_B1[total_B1 == 0] = np.nan
    share_BP: NDArray[np.float64] = weight_BP / total_B1
    return share_BP


def _permuted(
    unit_GD: NDArray[np.float64],
    one: Known,
    nulls: list[Null],
    threshold: tuple[float, float],
    knobs: RecallKnobs,
) -> NDArray[np.float64]:
    """Recall with the map's gene names shuffled, once for each permutation."""
    rng = generator(knobs.seed, "permuted", one.source)
    recalls = []
    for _ in range(knobs.permutations):
        row_G = rng.permutation(len(unit_GD))
        cosine_P = pair_cosines(unit_GD, row_G[one.first_P], row_G[one.second_P])
        each = [np.logical_or(*tails(null, cosine_P, *threshold)).mean() for null in nulls]
        recalls.append(np.mean(each))
    return np.array(recalls)


def _ranked_pairs(unit_GD: NDArray[np.float64], one: Known, null: Null) -> pl.DataFrame:
    cosine_P = pair_cosines(unit_GD, one.first_P, one.second_P)
    below_P, upto_P = null.ranks(cosine_P)
    return one.names.with_columns(
        source=pl.lit(one.source),
        cosine=pl.Series(cosine_P.astype(np.float64)),
        rank=pl.Series((below_P + upto_P) / 2),
    )


def name_sources(paths: Sequence[Path], names: Sequence[str]) -> list[str]:
    """Names of the pair files: as given, else the files' own without their endings.

    Examples
    --------
    >>> name_sources([Path("StringDB.txt.gz")], [])
    ['StringDB']
    """
    if names and len(names) != len(paths):
        raise UserError(f"{len(names)} sources named for {len(paths)} pair files")
    return list(names) or [path.name.split(".")[0] for path in paths]


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``benchmark_recall``."""
    files, knobs = parse_step(
        RecallKnobs,
        inputs=["map", "pairs*"],
        outputs=["recall", "recall_pairs"],
        names=["benchmark", "encoder"],
        doc=__doc__,
        argv=argv,
    )
    facts = read_stamp(files.map)
    sources = name_sources(files.pairs, knobs.sources)
    pairs = {s: read_pairs(p) for s, p in zip(sources, files.pairs, strict=True)}
    rows, ranked = recall_of_sources(read_table(files.map, MAP), pairs, knobs)
    shared = {name: facts[name] for name in ("screen", "block", "trimmed")}
    results = tidy(rows, encoder=files.encoder, benchmark=files.benchmark, **shared)
    write_table(files.recall, results, RESULTS, files.stamp)
    write_table(files.recall_pairs, ranked, RECALL_PAIRS, files.stamp)


if __name__ == "__main__":
    run_step(main)
