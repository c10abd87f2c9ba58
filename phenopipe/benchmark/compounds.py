"""Step ``compounds``: whether a compound's cells look like those of its targets (paper 6).

Shape suffixes: C compounds, G genes, D features, K concentrations and their maximum,
N questioned genes, P active genes, S seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.benchmark.affinity import (
    ACTIVE_NM,
    Similarities,
    compound_gene_similarities,
    shuffle_compounds,
)
from phenopipe.benchmark.aggregate import aggregate_wells
from phenopipe.benchmark.config import CompoundsKnobs
from phenopipe.benchmark.treated import Floats, TreatedFiles
from phenopipe.errors import UserError
from phenopipe.formats.arms import ARMS
from phenopipe.formats.genes import INTERACTIONS
from phenopipe.formats.results import RESULTS, tidy
from phenopipe.formats.tables import read_table, write_table
from phenopipe.knobs import parse_step, run_step
from phenopipe.seeds import generator

# Nanomolar: affinities between active and this say neither yes nor no.
INACTIVE_NM = 10_000.0
MIN_NEGATIVES = 20


@dataclass(frozen=True)
class Question:
    """One compound, the genes that it acts on, and the genes to tell them from."""

    compound: str
    row: int
    active_P: NDArray[np.int64]
    pool: NDArray[np.int64]
    n_missing: int

    def draw(self, seed: int) -> NDArray[np.int64]:
        """Active genes, then as many others as the benchmark wants, drawn by the seed."""
        n_drawn = max(2 * len(self.active_P), MIN_NEGATIVES)
        rng = np.random.default_rng(seed)
        return np.concatenate([self.active_P, rng.choice(self.pool, n_drawn, replace=False)])


def compound_gene_average_precision(
    similarity_CG: Floats,
    compounds_C: Sequence[str],
    genes_G: Sequence[str],
    truth: pl.DataFrame,
    *,
    seed: int,
) -> pl.DataFrame:
    """Average precision with which similarity ranks each compound's genes above others.

    Parameters
    ----------
    similarity_CG : float array of shape (n_compounds, n_genes)
        Larger is more alike; not finite where a pair cannot be judged.
    compounds_C, genes_G : list of str
        Names of rows and columns, each once.
    truth : DataFrame
        ``treatment, gene_symbol, nM_value``: affinities, the strongest one counts.
    seed : int
        Seed of the draw of other genes.

    Returns
    -------
    DataFrame
        ``compound, n_active, n_missing, n_drawn, average_precision``, one row a compound
        that has an active gene and enough others. ``n_missing`` counts active genes that
        are not among the columns or cannot be judged.

    Raises
    ------
    UserError
        If a compound or gene is doubled, or an affinity is not above 0.

    Notes
    -----
    Genes up to 1 µM are active; those up to 10 µM are left out; of all other genes named
    in the truth, max(2 x active, 20) are drawn without replacement by
    ``numpy.random.default_rng(seed)`` from their sorted names (a set's order would change
    from process to process). Ties share one threshold, as in scikit-learn.
    """
    rows = []
    for question in ask(similarity_CG, compounds_C, genes_G, truth):
        at_N = question.draw(seed)
        score_1N = similarity_CG[question.row, at_N][None, :]
        precision = average_precision(score_1N, len(question.active_P))[0]
        n_active = len(question.active_P)
        counts = (n_active, question.n_missing, len(at_N) - n_active)
        rows.append((question.compound, *counts, precision))
    schema = {
        "compound": pl.String,
        "n_active": pl.Int64,
        "n_missing": pl.Int64,
        "n_drawn": pl.Int64,
        "average_precision": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def ask(
    similarity_CG: Floats,
    compounds_C: Sequence[str],
    genes_G: Sequence[str],
    truth: pl.DataFrame,
) -> list[Question]:
    """Questions that can be asked: compounds with an active gene and enough others."""
    for what, names in (("compound", compounds_C), ("gene", genes_G)):
        if len(set(names)) < len(names):
            doubled = next(n for n in names if list(names).count(n) > 1)
            raise UserError(f"{what} {doubled} occurs twice, wanted distinct names")
    measured = truth.with_columns(pl.col("nM_value").fill_nan(None))
    columns = ("treatment", "gene_symbol", "nM_value")
    for compound, gene, affinity in (
        measured.filter(pl.col("nM_value") <= 0).select(columns).rows()
    ):
        raise UserError(f"{compound} and {gene}: {affinity:g} nM, wanted more than 0")
    strongest = measured.group_by("treatment", "gene_symbol").agg(pl.col("nM_value").min())
    # Without a measured affinity a known interaction counts as active.
    strongest = strongest.with_columns(pl.col("nM_value").fill_null(0.0))
    asked = set(truth["gene_symbol"].drop_nulls())
    column = {gene: at for at, gene in enumerate(genes_G) if gene in asked}
    by_compound: dict[str, dict[str, float]] = {}
    for compound, gene, affinity in strongest.rows():
        by_compound.setdefault(compound, {})[gene] = affinity
    questions = []
    for row, compound in enumerate(compounds_C):
        known = by_compound.get(compound, {})
        finite_G = np.isfinite(similarity_CG[row])
        judged = {g for g, at in column.items() if finite_G[at]}
        active = sorted(g for g, nM in known.items() if nM <= ACTIVE_NM)
        found = [g for g in active if g in judged]
        spared = {g for g, nM in known.items() if nM <= INACTIVE_NM}
        pool = sorted(judged - spared)
        if not found or len(pool) < max(2 * len(found), MIN_NEGATIVES):
            continue
        at_P, pool_at = (np.array([column[g] for g in some]) for some in (found, pool))
        questions.append(Question(compound, row, at_P, pool_at, len(active) - len(found)))
    return questions


def average_precision(score_KN: Floats, n_active: int) -> NDArray[np.float64]:
    """Average precision of each ranking; the first ``n_active`` items are active.

    Parameters
    ----------
    score_KN : float array of shape (..., n_items)
        Larger ranks higher; items whose score is not a number are not ranked.
    n_active : int
        Items that ought to rank high.

    Returns
    -------
    float array of the shape without its last axis
        NaN where no active item is ranked.

    Notes
    -----
    The mean over active items of the precision at their own score: of all items that
    score at least as high, the share that is active. No sort is needed.

    Examples
    --------
    >>> average_precision(np.array([[0.9, 0.2, 0.5, 0.1]]), 2).round(3)
    array([0.833])
    """
    total_K = np.zeros(score_KN.shape[:-1])
    n_ranked_K = np.zeros(score_KN.shape[:-1], dtype=np.int64)
    for at in range(n_active):
        own_K1 = score_KN[..., at, None]
        above_KN = score_KN >= own_K1
        hits_K, all_K = above_KN[..., :n_active].sum(axis=-1), above_KN.sum(axis=-1)
        # An item that is not a number is not even above itself.
        total_K += hits_K / np.maximum(all_K, 1)
        n_ranked_K += all_K > 0
    return np.where(n_ranked_K > 0, total_K / np.maximum(n_ranked_K, 1), np.nan)


def score_compounds(
    table: pl.DataFrame, truth: pl.DataFrame, knobs: CompoundsKnobs
) -> list[dict[str, Any]]:
    """Rows of results: mean average precision at each concentration and at their maximum.

    Parameters
    ----------
    table : DataFrame
        The map format: compound doses, and knockouts if they stand for genes.
    truth : DataFrame
        The interactions format.
    knobs : CompoundsKnobs
        The step's settings.

    Returns
    -------
    list of mapping
        Metrics ``average_precision_max``, ``average_precision_<dose>um``,
        ``average_precision_random`` (uniform scores on the same genes) and
        ``average_precision_permuted`` (compounds' names shuffled, at the maximum): the mean
        over seeds of the mean over compounds, with the seeds' 95 % interval; each with
        ``..._sd`` over seeds, which z-scores want. ``genes_missing`` counts genes of the
        truth that cannot be judged.

    Raises
    ------
    UserError
        If no compound can be asked about.
    """
    found = compound_gene_similarities(table, truth, knobs)
    questions = ask(found.maximum(), found.compounds, found.genes, truth)
    if not questions:
        raise UserError(
            f"none of {len(found.compounds)} compounds has an active gene and"
            f" {MIN_NEGATIVES} others among {len(found.genes)} genes"
        )
    mean_SK, counts_K = _mean_precisions(found, questions, knobs)
    doses = ["unknown" if np.isnan(d) else f"{d:g}um" for d in found.concentrations]
    rows = []
    for at, name in enumerate(["max", *doses, "random"]):
        if counts_K[at] >= (knobs.min_compounds if name in doses else 1):
            rows += _rows_of_metric(name, mean_SK[:, at], counts_K[at])
    rows += _rows_of_metric("permuted", _permuted(table, truth, knobs), len(questions))
    missing = sorted(set(truth["gene_symbol"].drop_nulls()) - found.judged_genes())
    print(f"genes of the truth that cannot be judged ({len(missing)}): {', '.join(missing)}")
    rows.append({"metric": "genes_missing", "value": len(missing), "n": len(found.genes)})
    return [{"source": "interactions", "seed": knobs.seed, **row} for row in rows]


def _mean_precisions(
    found: Similarities, questions: list[Question], knobs: CompoundsKnobs
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Mean over compounds for each seed: maximum, each concentration, random scores."""
    similarity_KCG = np.concatenate([found.maximum()[None], found.similarity_KCG])
    total_SK = np.zeros((knobs.seeds, len(similarity_KCG) + 1))
    counts_SK = np.zeros(total_SK.shape, dtype=np.int64)
    random = [generator(knobs.seed, "compounds", "random", s) for s in range(knobs.seeds)]
    for question in questions:
        # All seeds at once: only the draws go one by one.
        at_SN = np.stack([question.draw(seed) for seed in range(knobs.seeds)])
        score_KSN = similarity_KCG[:, question.row][:, at_SN]
        random_SN = np.stack([rng.random(at_SN.shape[1]) for rng in random])
        score_KSN = np.concatenate([score_KSN, random_SN[None]])
        precision_SK = average_precision(score_KSN, len(question.active_P)).T
        asked_SK = np.isfinite(precision_SK)
        total_SK += np.where(asked_SK, precision_SK, 0.0)
        counts_SK += asked_SK
    return total_SK / np.maximum(counts_SK, 1), counts_SK[-1]


def _permuted(
    table: pl.DataFrame, truth: pl.DataFrame, knobs: CompoundsKnobs
) -> NDArray[np.float64]:
    """Mean average precision at the maximum, once for each shuffle of the compounds."""
    means = []
    for seed in range(knobs.permutations):
        rng = generator(knobs.seed, "compounds", "permuted", seed)
        found = compound_gene_similarities(shuffle_compounds(table, rng), truth, knobs)
        scored = compound_gene_average_precision(
            found.maximum(), found.compounds, found.genes, truth, seed=seed
        )
        means.append(scored["average_precision"].mean())
    return np.array(means, dtype=np.float64)


def _rows_of_metric(name: str, mean_S: NDArray[np.float64], n: int) -> list[dict[str, Any]]:
    name = f"average_precision_{name}"
    low, high = np.quantile(mean_S, [0.025, 0.975])
    row = {"metric": name, "value": mean_S.mean(), "low": low, "high": high, "n": int(n)}
    if len(mean_S) < 2:
        return [row]
    return [row, {"metric": f"{name}_sd", "value": mean_S.std(ddof=1), "n": int(n)}]


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``benchmark_compounds``."""
    files, knobs = parse_step(
        CompoundsKnobs,
        inputs=["aligned*", "arms?", "interactions"],
        outputs=["compounds"],
        names=["benchmark", "encoder"],
        doc=__doc__,
        argv=argv,
    )
    arms = read_table(files.arms, ARMS) if files.arms else None
    treated = TreatedFiles(files.aligned, arms, knobs)
    truth = read_table(files.interactions, INTERACTIONS)
    table = aggregate_wells(treated, aggregation=knobs.aggregation)
    results = tidy(
        score_compounds(table, truth, knobs),
        encoder=files.encoder,
        benchmark=files.benchmark,
        **treated.facts,
    )
    write_table(files.compounds, results, RESULTS, files.stamp)


if __name__ == "__main__":
    run_step(main)
