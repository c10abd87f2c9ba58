"""Step ``recall``: known relationships among the most extreme cosines of the map (A.6).

Shape suffixes: G genes, D features, P pairs.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from phenopipe.benchmark.config import PUBLISHED_SEEDS, RecallKnobs
from phenopipe.benchmark.nulls import make_nulls, pair_cosines
from phenopipe.benchmark.pairs import pairs_on_map, read_pairs
from phenopipe.benchmark.sources import check_map, score_sources
from phenopipe.benchmark.treated import Floats
from phenopipe.errors import UserError
from phenopipe.formats.benchmarks import RECALL_PAIRS
from phenopipe.formats.maps import MAP
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
        below_P, upto_P = one.ranks(cosine_P)
        recall = float(((upto_P <= low) | (below_P >= high)).mean())
        rows.append((len(cosine_P), one.size, one.seed, recall))
    schema = {"n_pairs": pl.Int64, "n_null": pl.Int64, "seed": pl.String, "recall": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


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
    rows, ranked = score_sources(read_table(files.map, MAP), pairs, knobs)
    shared = {name: facts[name] for name in ("screen", "block", "trimmed")}
    results = tidy(rows, encoder=files.encoder, benchmark=files.benchmark, **shared)
    write_table(files.recall, results, RESULTS, files.stamp)
    write_table(files.recall_pairs, ranked, RECALL_PAIRS, files.stamp)


if __name__ == "__main__":
    run_step(main)
