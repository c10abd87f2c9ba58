"""Step ``replicates``: whether perturbations look alike in both technical replicates (A.7).

Shape suffixes: N matched pairs of wells, D features.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import cramervonmises_2samp, ks_2samp

from phenopipe.benchmark.config import ReplicatesKnobs
from phenopipe.benchmark.matches import matched_wells, same_address, technical_pairs
from phenopipe.benchmark.treated import Floats, Treated, TreatedFiles, unit_rows
from phenopipe.errors import UserError
from phenopipe.formats.arms import ARMS
from phenopipe.formats.benchmarks import REPLICATE_MATCHES, REPLICATE_PAIRS
from phenopipe.formats.genes import GENES
from phenopipe.formats.parts import table_writer
from phenopipe.formats.results import RESULTS, tidy
from phenopipe.formats.tables import read_table, write_table
from phenopipe.knobs import parse_step, run_step
from phenopipe.seeds import generator

# Columns of the pairs whose medians are results.
SUMMARIZED = (
    "ks",
    "cvm",
    "ks_permuted",
    "cvm_permuted",
    "ks_over_position",
    "cvm_over_position",
    "ks_unexpressed",
    "matched",
)
Load = Callable[[tuple[str, str]], Treated]


class ReplicateConsistency(NamedTuple):
    """Distance of matched similarities from null similarities.

    Attributes
    ----------
    ks : float
        Kolmogorov-Smirnov statistic (Eq. 4), from 0 to 1.
    cvm : float
        Cramér-von Mises statistic (Eq. 5); grows with ``n``.
    n : int
        Matched pairs, and as many null pairs.
    """

    ks: float
    cvm: float
    n: int


def replicate_consistency_test(
    x_a_ND: Floats,
    x_b_ND: Floats,
    labels_a_N: Sequence[str],
    labels_b_N: Sequence[str],
    *,
    seed: int,
) -> ReplicateConsistency:
    """Compare cosines of matched wells with cosines of wells of different labels.

    Parameters
    ----------
    x_a_ND, x_b_ND : float arrays of shape (n_wells, n_features)
        Well embeddings of the two experiments of a technical pair.
    labels_a_N, labels_b_N : list of str
        Perturbation of each well. The k-th well of a label in one experiment is matched
        with its k-th in the other; wells without a counterpart are left out.
    seed : int
        Seed of the null pairs.

    Returns
    -------
    ReplicateConsistency
        ``ks``, ``cvm`` and ``n``.

    Raises
    ------
    UserError
        If no label occurs on both sides, or only one does; if a well has no label.

    Notes
    -----
    Paper Eq. 4 and 5. The null has as many pairs as are matched, each of one well from
    either experiment and never of one label; Eq. 5 grows with the number of pairs, so only
    equal numbers compare.
    """
    for x_ND, labels_N in ((x_a_ND, labels_a_N), (x_b_ND, labels_b_N)):
        n_labels = sum(label is not None for label in labels_N)
        if not len(x_ND) == len(labels_N) == n_labels:
            raise UserError(f"{len(x_ND)} wells and {n_labels} labels, wanted one each")
    first_N, second_N = match_labels(labels_a_N, labels_b_N)
    matched_N, null_N = _similarities(
        unit_rows(x_a_ND)[first_N],
        unit_rows(x_b_ND)[second_N],
        np.asarray(labels_a_N, dtype=np.str_)[first_N],
        np.random.default_rng(seed),
    )
    return _statistics(matched_N, null_N)


def match_labels(
    labels_a_N: Sequence[str], labels_b_N: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the k-th well of each label on both sides.

    Examples
    --------
    >>> match_labels(["x", "y", "x"], ["z", "x", "y"])
    (array([0, 1]), array([1, 2]))
    """
    sides = [
        pl.DataFrame({"label": np.asarray(labels, dtype=np.str_)})
        .with_row_index()
        .with_columns(nth=pl.int_range(pl.len()).over("label"))
        for labels in (labels_a_N, labels_b_N)
    ]
    both = sides[0].join(sides[1], on=["label", "nth"], suffix="_b").sort("index")
    return (
        both["index"].cast(pl.Int64).to_numpy(),
        both["index_b"].cast(pl.Int64).to_numpy(),
    )


def _similarities(
    unit_a_ND: NDArray[np.float64],
    unit_b_ND: NDArray[np.float64],
    label_N: NDArray[np.str_],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cosines of the matched rows, and of as many random rows of different labels."""
    n_pairs = len(label_N)
    code_N = np.unique(label_N, return_inverse=True)[1]
    if n_pairs == 0 or code_N.max() == 0:
        raise UserError(
            f"{len(set(label_N))} labels occur in both experiments, wanted at least two"
        )
    a_N = rng.integers(n_pairs, size=n_pairs)
    b_N = rng.integers(n_pairs, size=n_pairs)
    while (same_N := code_N[a_N] == code_N[b_N]).any():
        # Both wells are drawn again: keeping one would favour rare labels beside it.
        a_N[same_N] = rng.integers(n_pairs, size=int(same_N.sum()))
        b_N[same_N] = rng.integers(n_pairs, size=int(same_N.sum()))
    matched_N = np.einsum("nd,nd->n", unit_a_ND, unit_b_ND)
    null_N = np.einsum("nd,nd->n", unit_a_ND[a_N], unit_b_ND[b_N])
    return matched_N, null_N


def _statistics(
    matched_N: NDArray[np.float64], null_N: NDArray[np.float64]
) -> ReplicateConsistency:
    # Only the statistics are used; exact p-values would cost far more.
    ks = ks_2samp(matched_N, null_N, method="asymp").statistic
    cvm = cramervonmises_2samp(matched_N, null_N, method="asymptotic").statistic
    return ReplicateConsistency(float(ks), float(cvm), len(matched_N))


def score_technical_pairs(
    treated: Treated, knobs: ReplicatesKnobs, unexpressed: Collection[str] = ()
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Replicate consistency of every technical pair of experiments, all wells at hand.

    Parameters and errors are those of :func:`score_pairs`; returns the pairs and the matches.
    """
    layouts = known_wells(treated.wells).select("experiment", "layout", "cell_type").unique()

    def load(pair: tuple[str, str]) -> Treated:
        return treated.take(treated.wells["experiment"].is_in(list(pair)))

    matches: list[pl.DataFrame] = []
    pairs = score_pairs(layouts, load, knobs, unexpressed, matches.append)
    return pairs, pl.concat(matches)


def score_pairs(
    layouts: pl.DataFrame,
    load: Load,
    knobs: ReplicatesKnobs,
    unexpressed: Collection[str] = (),
    take: Callable[[pl.DataFrame], None] | None = None,
) -> pl.DataFrame:
    """Replicate consistency of every technical pair of experiments.

    Parameters
    ----------
    layouts : DataFrame
        ``experiment, layout, cell_type`` of wells with a known perturbation.
    load : callable
        Wells of a pair of experiments; no more than these are held.
    knobs : ReplicatesKnobs
        The step's settings.
    unexpressed : collection of str
        Genes that the cells do not express: what their knockouts share is no biology.
    take : callable, optional
        Is given the matched wells of one technical pair after another, in the replicate
        matches format; they are not held.

    Returns
    -------
    DataFrame
        The replicate pairs format. Controls and wells without a known treatment are left
        out.

    Raises
    ------
    UserError
        If no two experiments share a layout, or none has enough matched wells.
    """
    pairs = technical_pairs(layouts)
    if not pairs:
        found = layouts.select("experiment", "layout").unique().sort("experiment").rows()
        raise UserError(f"no two experiments share a layout, found {found[:6]}")
    rows = []
    for pair in pairs:
        treated = load(pair)
        wells = known_wells(treated.wells.with_row_index("at"))
        both = matched_wells(wells, pair, knobs.match, knobs.seed)
        if both.height < knobs.min_wells or both["perturbation"].n_unique() < 2:
            print(f"technical pair {pair}: {both.height} matched wells, left out")
            continue
        row, cosines = _score_pair(treated, both, pair, knobs, unexpressed)
        rows.append(row)
        if take is not None:
            take(cosines)
    if not rows:
        raise UserError(
            f"none of {len(pairs)} technical pairs has {knobs.min_wells} matched wells"
            f" (match: {knobs.match})"
        )
    schema = {name: dtype for name, (dtype, _) in REPLICATE_PAIRS.columns.items()}
    return pl.DataFrame(rows, schema=schema)


def known_wells(wells: pl.DataFrame) -> pl.DataFrame:
    """Wells of a known perturbation, controls apart."""
    return wells.filter(
        (pl.col("role") == "perturbation") & pl.col("perturbation").is_not_null()
    )


def _score_pair(
    treated: Treated,
    both: pl.DataFrame,
    pair: tuple[str, str],
    knobs: ReplicatesKnobs,
    unexpressed: Collection[str],
) -> tuple[dict[str, Any], pl.DataFrame]:
    """Columns of one technical pair, and its matched wells with cosine and rank."""
    rng = generator(knobs.seed, "replicates", *pair)
    unit_a_ND = unit_rows(treated.x_WD[both["at"].to_numpy()], both["well_id"].to_list())
    unit_b_ND = unit_rows(treated.x_WD[both["at_b"].to_numpy()])
    label = pl.coalesce("gene", "perturbation") if knobs.label == "gene" else "perturbation"
    label_N = both.select(label).to_series().to_numpy().astype(np.str_)
    matched_N, null_N = _similarities(unit_a_ND, unit_b_ND, label_N, rng)
    shuffled_N = np.einsum("nd,nd->n", unit_a_ND, unit_b_ND[rng.permutation(len(label_N))])
    permuted, found = _statistics(shuffled_N, null_N), _statistics(matched_N, null_N)
    row: dict[str, Any] = dict(zip(("experiment_a", "experiment_b"), pair, strict=True))
    row |= found._asdict() | {"ks_permuted": permuted.ks, "cvm_permuted": permuted.cvm}
    row |= {"matched": float(matched_N.mean()), "null": float(null_N.mean())}
    first_M, second_M = same_address(both, label_N, len(label_N), knobs.seed, pair)
    if len(first_M) >= knobs.min_wells:
        position_M = np.einsum("nd,nd->n", unit_a_ND[first_M], unit_b_ND[second_M])
        over = _statistics(matched_N, position_M)
        row |= {"ks_over_position": over.ks, "cvm_over_position": over.cvm}
        row |= {"position": float(position_M.mean())}
    silent_N = both["gene"].is_in(list(unexpressed)).fill_null(value=False).to_numpy()
    if silent_N.sum() >= knobs.min_wells:
        row["ks_unexpressed"] = _statistics(matched_N[silent_N], null_N).ks
    sorted_N = np.sort(null_N)
    sides = [np.searchsorted(sorted_N, matched_N, side) for side in ("left", "right")]
    matches = both.select(
        "perturbation", "kind", "gene", "concentration_um", "well_id", "well_id_b",
        experiment_a=pl.lit(pair[0]), experiment_b=pl.lit(pair[1]),
        cosine=pl.Series(matched_N), rank=pl.Series((sides[0] + sides[1]) / (2 * len(null_N))),
    )  # fmt: skip
    return row, matches.select(list(REPLICATE_MATCHES.columns))


def summarize_pairs(pairs: pl.DataFrame, knobs: ReplicatesKnobs) -> list[dict[str, Any]]:
    """Rows of results: the median of each statistic over technical pairs.

    Returns
    -------
    list of mapping
        Metrics ``ks``, ``cvm``, ``ks_permuted``, ``cvm_permuted`` (the second experiment's
        wells shuffled), ``ks_over_position``, ``cvm_over_position`` (against null pairs at
        one address), ``ks_unexpressed`` (knockouts of genes that are not expressed) and
        ``matched_cosine``; intervals by resampling technical pairs, where there are at least
        two; ``n`` is the median number of matched wells, on which CVM depends.
    """
    rows = []
    for column in SUMMARIZED:
        given = pairs.drop_nulls(column)
        if not given.height:
            continue
        rng = generator(knobs.seed, "replicates", "bootstrap")
        drawn = rng.integers(given.height, size=(knobs.bootstraps, given.height))
        metric = "matched_cosine" if column == "matched" else column
        values = given[column].to_numpy()
        row = {"source": "technical_pairs", "metric": metric, "value": np.median(values)}
        if given.height > 1:
            ends = np.quantile(np.median(values[drawn], axis=1), [0.025, 0.975])
            row |= {"low": ends[0], "high": ends[1]}
        rows.append({**row, "n": int(np.median(given["n"])), "seed": knobs.seed})
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``benchmark_replicates``."""
    files, knobs = parse_step(
        ReplicatesKnobs,
        inputs=["aligned*", "arms?", "genes?"],
        outputs=["replicates", "replicates_pairs", "replicates_matches"],
        names=["benchmark", "encoder"],
        doc=__doc__,
        argv=argv,
    )
    arms = read_table(files.arms, ARMS) if files.arms else None
    treated = TreatedFiles(files.aligned, arms, knobs)
    unexpressed: list[str] = []
    if files.genes:
        silent = pl.col("expression") < knobs.max_expression
        unexpressed = read_table(files.genes, GENES).filter(silent)["gene"].to_list()
    columns = dict(REPLICATE_MATCHES.empty().schema)
    writer = table_writer(files.replicates_matches, REPLICATE_MATCHES, columns, files.stamp)
    with writer as write:
        pairs = score_pairs(treated.layouts, treated.of, knobs, unexpressed, write)
    results = tidy(
        summarize_pairs(pairs, knobs),
        encoder=files.encoder,
        benchmark=files.benchmark,
        **treated.facts,
    )
    write_table(files.replicates, results, RESULTS, files.stamp)
    write_table(files.replicates_pairs, pairs, REPLICATE_PAIRS, files.stamp)


if __name__ == "__main__":
    run_step(main)
