"""Step ``recall``: known relationships among the most extreme cosines of the map (A.6).

Shape suffixes: G genes, D features, P pairs.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.benchmark.config import PUBLISHED_SEEDS, RecallKnobs
from phenopipe.benchmark.large import LargeNull, genome_null
from phenopipe.benchmark.nulls import Null, pair_cosines, sampled_null
from phenopipe.benchmark.pairs import pairs_on_map, read_pairs
from phenopipe.benchmark.published import describe_sources
from phenopipe.benchmark.sources import check_map, score_sources
from phenopipe.benchmark.treated import Floats
from phenopipe.errors import UserError
from phenopipe.formats.benchmarks import RECALL_PAIRS
from phenopipe.formats.genes import GENES
from phenopipe.formats.maps import MAP
from phenopipe.formats.pvalues import COMBINED
from phenopipe.formats.results import RESULTS, tidy
from phenopipe.formats.tables import read_stamp, read_table, write_table
from phenopipe.knobs import parse_step, run_step

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
        If a gene is doubled, there are too few genes or not as many as rows, no pair is on
        the map, or the bounds are out of order.

    Notes
    -----
    Paper A.6. Chance is ``low + 1 - high``. Cosines are compared in single precision.
    """
    if not 0 <= low <= high <= 1:
        raise UserError(f"low {low:g}, high {high:g}, wanted 0 <= low <= high <= 1")
    unit_GD, names_G = check_map(x_GD, genes_G, min_genes)
    _, first_P, second_P = pairs_on_map(pairs, names_G)
    rows = []
    cosine_P = pair_cosines(unit_GD, first_P, second_P)
    for one in _nulls(unit_GD, null, seeds, (low, high)):
        left, right = one.cuts(low, high)
        recall = float(((cosine_P < left) | (cosine_P > right)).mean())
        rows.append((len(cosine_P), one.size, one.seed, recall))
    schema = {"n_pairs": pl.Int64, "n_null": pl.Int64, "seed": pl.String, "recall": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _nulls(
    unit_GD: NDArray[np.float64],
    kind: str,
    seeds: Sequence[tuple[int, int]],
    threshold: tuple[float, float],
) -> Iterator[Null | LargeNull]:
    """Each null of one kind."""
    if kind == "all_pairs":
        nothing = np.empty(0, dtype=np.int64)
        yield genome_null(unit_GD, nothing, nothing, [threshold])[0]
        return
    if kind != "sampled":
        raise UserError(f"null {kind!r}, wanted 'all_pairs' or 'sampled'")
    for pair in seeds:
        yield sampled_null(unit_GD, pair)


def name_sources(paths: Sequence[Path], names: Sequence[str]) -> list[str]:
    """Names of the pair files: as given, else the files' own without their endings.

    Examples
    --------
    >>> name_sources([Path("StringDB.txt.gz")], [])
    ['StringDB']
    """
    if names and len(names) != len(paths):
        raise UserError(f"{len(names)} sources named for {len(paths)} pair files")
    told = list(names) or [path.name.split(".")[0] for path in paths]
    for name, path in zip(told, paths, strict=True):
        if told.count(name) > 1:
            raise UserError(f"{path}: another pair file is named {name!r}, too (sources)")
    return told


def chosen_genes(
    knobs: RecallKnobs, genes: pl.DataFrame | None, combined: pl.DataFrame | None
) -> list[str] | None:
    """Names of the genes that may enter; None for all.

    Parameters
    ----------
    knobs : RecallKnobs
        The step's settings.
    genes : DataFrame or None
        The genes format.
    combined : DataFrame or None
        Combined p-values of a manifest.

    Raises
    ------
    UserError
        If the table that the choice needs is not given, or no gene is left.
    """
    if knobs.keep == "all":
        return None
    if knobs.keep == "expressed":
        if genes is None:
            raise UserError("keep: expressed, but the screen has no table of genes")
        found = genes.filter(pl.col("expression") >= knobs.min_expression)["gene"]
    else:
        if combined is None:
            raise UserError("keep: phenoprint, but there are no p-values of a manifest")
        found = combined.filter(pl.col("level") == "gene", pl.col("p_value") <= knobs.max_p)[
            "gene"
        ]
    if not len(found):
        raise UserError(f"no gene is {knobs.keep}, wanted at least {knobs.min_genes}")
    return sorted(set(found))


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``benchmark_recall``."""
    files, knobs = parse_step(
        RecallKnobs,
        inputs=["map", "pairs*", "genes?", "combined?"],
        outputs=["recall", "recall_pairs"],
        names=["benchmark", "encoder"],
        doc=__doc__,
        argv=argv,
    )
    facts = read_stamp(files.map)
    sources = name_sources(files.pairs, knobs.sources)
    about = describe_sources(sources, files.pairs, knobs.checksums)
    for name, one in about.items():
        print(f"{name}: {one['copy']} copy, SHA-256 {one['sha256']}, licence {one['licence']}")
    genes = read_table(files.genes, GENES) if files.genes else None
    chosen = chosen_genes(
        knobs, genes, read_table(files.combined, COMBINED) if files.combined else None
    )
    pairs = {s: read_pairs(p) for s, p in zip(sources, files.pairs, strict=True)}
    table = read_table(files.map, MAP)
    if chosen is not None:
        table = table.filter(pl.col("entity").is_in(chosen))
    arms = (
        dict(genes.drop_nulls("arm").select("gene", "arm").iter_rows())
        if genes is not None
        else {}
    )
    rows, ranked = score_sources(table, pairs, knobs, arms)
    shared = {name: facts[name] for name in ("screen", "block", "trimmed")}
    results = tidy(rows, encoder=files.encoder, benchmark=files.benchmark, **shared)
    stamp = {**files.stamp, "sources": about}
    write_table(files.recall, results, RESULTS, stamp)
    write_table(files.recall_pairs, ranked, RECALL_PAIRS, stamp)


if __name__ == "__main__":
    run_step(main)
