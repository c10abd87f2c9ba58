"""Step ``replicates``: whether perturbations look alike in both technical replicates (A.7).

Shape suffixes: N matched pairs of wells, D features.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import cramervonmises_2samp, ks_2samp

from phenopipe.benchmark.config import ReplicatesKnobs
from phenopipe.benchmark.treated import Floats, Treated, read_treated, unit_rows
from phenopipe.errors import UserError
from phenopipe.formats.arms import ARMS
from phenopipe.formats.benchmarks import REPLICATE_PAIRS
from phenopipe.formats.results import RESULTS, tidy
from phenopipe.formats.tables import read_table, write_table
from phenopipe.knobs import parse_step, run_step
from phenopipe.seeds import generator, hash_uniform

CONDITION = ("cell_type", "background", "kind", "perturbation", "concentration_um")
ADDRESS = ("layout", "well")


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
        If no label occurs on both sides, or only one does.

    Notes
    -----
    Paper Eq. 4 and 5. The null has as many pairs as are matched, each of one well from
    either experiment and never of one label; Eq. 5 grows with the number of pairs, so only
    equal numbers compare.
    """
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


def technical_pairs(wells: pl.DataFrame) -> list[tuple[str, str]]:
    """Pairs of experiments that share a layout in one cell type.

    Examples
    --------
    >>> wells = pl.DataFrame(
    ...     {"experiment": ["e2", "e1", "e3"], "layout": ["l", "l", "m"], "cell_type": "u"}
    ... )
    >>> technical_pairs(wells)
    [('e1', 'e2')]
    """
    layouts: dict[str, set[tuple[str, ...]]] = {}
    for name, *layout in wells.select("experiment", "layout", "cell_type").unique().rows():
        layouts.setdefault(name, set()).add(tuple(layout))
    return [(a, b) for a, b in combinations(sorted(layouts), 2) if layouts[a] & layouts[b]]


def matched_wells(
    wells: pl.DataFrame, pair: tuple[str, str], match: str, seed: int
) -> pl.DataFrame:
    """Wells of one condition, one from each experiment, that match.

    Parameters
    ----------
    wells : DataFrame
        Treated wells with ``row`` numbers (``at``).
    pair : (str, str)
        The two experiments.
    match : {"address", "condition"}
        Whether wells must share layout and address besides their condition. Where either
        has several wells under one key, they are matched in the order of their plates
        (address) or of a hash of their names (condition), so that positions mix.
    seed : int
        Seed of that hash.

    Returns
    -------
    DataFrame
        ``at``, ``at_b`` and the columns of the first well.
    """
    keys = [*CONDITION, *(ADDRESS if match == "address" else ())]
    by = "plate" if match == "address" else "_hash"
    if match == "condition":
        wells = wells.with_columns(_hash=pl.Series(hash_uniform(seed, wells["well_id"])))
    sides = [
        wells.filter(pl.col("experiment") == experiment)
        .sort(by, "well_id")
        .with_columns(_nth=pl.int_range(pl.len()).over(keys))
        for experiment in pair
    ]
    right = sides[1].select(*keys, "_nth", at_b="at")
    both = sides[0].join(right, on=[*keys, "_nth"], nulls_equal=True)
    return both.sort("at")


def score_technical_pairs(treated: Treated, knobs: ReplicatesKnobs) -> pl.DataFrame:
    """Replicate consistency of every technical pair of experiments.

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
    wells = treated.wells.with_row_index("at").filter(
        (pl.col("role") == "perturbation") & pl.col("perturbation").is_not_null()
    )
    pairs = technical_pairs(wells)
    if not pairs:
        found = wells.select("experiment", "layout").unique().sort("experiment").rows()
        raise UserError(f"no two experiments share a layout, found {found[:6]}")
    rows = []
    for pair in pairs:
        both = matched_wells(wells, pair, knobs.match, knobs.seed)
        if both.height < knobs.min_wells or both["perturbation"].n_unique() < 2:
            print(f"technical pair {pair}: {both.height} matched wells, left out")
            continue
        label = pl.coalesce("gene", "perturbation") if knobs.label == "gene" else "perturbation"
        statistics = _score_pair(
            treated, both, label, generator(knobs.seed, "replicates", *pair)
        )
        rows.append((*pair, *statistics))
    if not rows:
        raise UserError(
            f"none of {len(pairs)} technical pairs has {knobs.min_wells} matched wells"
            f" (match: {knobs.match})"
        )
    schema = {name: dtype for name, (dtype, _) in REPLICATE_PAIRS.columns.items()}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _score_pair(
    treated: Treated, both: pl.DataFrame, label: str | pl.Expr, rng: np.random.Generator
) -> tuple[float, ...]:
    """Columns of one technical pair: its statistics, and those of shuffled wells."""
    unit_a_ND = unit_rows(treated.x_WD[both["at"].to_numpy()], both["well_id"].to_list())
    unit_b_ND = unit_rows(treated.x_WD[both["at_b"].to_numpy()])
    label_N = both.select(label).to_series().to_numpy().astype(np.str_)
    matched_N, null_N = _similarities(unit_a_ND, unit_b_ND, label_N, rng)
    shuffled_N = np.einsum("nd,nd->n", unit_a_ND, unit_b_ND[rng.permutation(len(label_N))])
    permuted = _statistics(shuffled_N, null_N)
    means = float(matched_N.mean()), float(null_N.mean())
    return (*_statistics(matched_N, null_N), permuted.ks, permuted.cvm, *means)


def summarize_pairs(pairs: pl.DataFrame, knobs: ReplicatesKnobs) -> list[dict[str, Any]]:
    """Rows of results: the median of each statistic over technical pairs.

    Returns
    -------
    list of mapping
        Metrics ``ks``, ``cvm``, ``ks_permuted``, ``cvm_permuted`` (the second experiment's
        wells shuffled) and ``matched_cosine``; intervals by resampling technical pairs, where
        there are at least two; ``n`` is the median number of matched wells, on which CVM
        depends.
    """
    rng = generator(knobs.seed, "replicates", "bootstrap")
    drawn = rng.integers(pairs.height, size=(knobs.bootstraps, pairs.height))
    rows = []
    for column in ("ks", "cvm", "ks_permuted", "cvm_permuted", "matched"):
        metric = "matched_cosine" if column == "matched" else column
        values = pairs[column].to_numpy()
        row = {"source": "technical_pairs", "metric": metric, "value": np.median(values)}
        if pairs.height > 1:
            ends = np.quantile(np.median(values[drawn], axis=1), [0.025, 0.975])
            row |= {"low": ends[0], "high": ends[1]}
        rows.append({**row, "n": int(np.median(pairs["n"])), "seed": knobs.seed})
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``benchmark_replicates``."""
    files, knobs = parse_step(
        ReplicatesKnobs,
        inputs=["aligned*", "arms?"],
        outputs=["replicates", "replicates_pairs"],
        names=["benchmark", "encoder"],
        doc=__doc__,
        argv=argv,
    )
    arms = read_table(files.arms, ARMS) if files.arms else None
    treated = read_treated(files.aligned, arms, knobs)
    pairs = score_technical_pairs(treated, knobs)
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
