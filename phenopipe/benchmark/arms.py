"""Step ``arms``: are knockouts on one chromosome arm alike, before and after correction?

Shape suffixes: G genes, D features, S sampled pairs, A arms, B bootstraps.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import brunnermunzel, mannwhitneyu

from phenopipe.benchmark.aggregate import aggregate_wells
from phenopipe.benchmark.config import ArmBiasKnobs
from phenopipe.benchmark.nulls import pair_cosines
from phenopipe.benchmark.treated import TreatedFiles, unit_rows
from phenopipe.errors import UserError
from phenopipe.formats.arms import ARMS
from phenopipe.formats.results import RESULTS, tidy
from phenopipe.formats.tables import read_table, write_table
from phenopipe.knobs import parse_step, run_step
from phenopipe.seeds import generator


def arm_bias(table: pl.DataFrame, arms: pl.DataFrame, knobs: ArmBiasKnobs) -> pl.DataFrame:
    """Chance that two genes of one arm are more alike than two of different arms.

    Parameters
    ----------
    table : DataFrame
        The map format; only knockouts are looked at.
    arms : DataFrame
        ``gene, arm``.
    knobs : ArmBiasKnobs
        The step's settings.

    Returns
    -------
    DataFrame
        ``arm, n_genes, probability, p_value``: P(within > between), 0.5 without any bias, and
        the p-value of its being larger. Arms with fewer genes than ``min_genes`` are left out.

    Raises
    ------
    UserError
        If no arm, or only one, has enough genes.

    Notes
    -----
    Pairs are drawn with replacement, as many within the arm as between it and the others.

    References
    ----------
    Brunner and Munzel (2000), The nonparametric Behrens-Fisher problem, Biometrical Journal
    42, 17-25.
    """
    genes = (
        table.filter(pl.col("kind") == "knockout")
        .join(arms.select("gene", "arm").drop_nulls(), left_on="entity", right_on="gene")
        .sort("entity")
    )
    if not genes.height:
        raise UserError("no knockout whose chromosome arm is known, wanted some")
    unit_GD = unit_rows(genes["embedding"].to_numpy(), genes["entity"].to_list())
    arm_G = genes["arm"].to_numpy().astype(np.str_)
    names, counts = np.unique(arm_G, return_counts=True)
    enough = names[(counts >= knobs.min_genes) & (counts < len(arm_G))]
    if len(enough) < 2:
        raise UserError(
            f"{len(enough)} chromosome arms have {knobs.min_genes} genes, wanted at least two"
        )
    rows = []
    for arm in enough.tolist():
        rng = generator(knobs.seed, "arms", arm)
        inside, outside = np.flatnonzero(arm_G == arm), np.flatnonzero(arm_G != arm)
        first_S = rng.choice(inside, knobs.pairs)
        # Another gene of the arm: a step of at least one along it.
        step_S = rng.integers(1, len(inside), size=knobs.pairs)
        second_S = inside[(np.searchsorted(inside, first_S) + step_S) % len(inside)]
        within_S = pair_cosines(unit_GD, first_S, second_S)
        between_S = pair_cosines(unit_GD, first_S, rng.choice(outside, knobs.pairs))
        rows.append((arm, len(inside), *more_alike(within_S, between_S)))
    schema = ["arm", "n_genes", "probability", "p_value"]
    return pl.DataFrame(rows, schema=schema, orient="row")


def more_alike(
    within_S: NDArray[np.floating], between_S: NDArray[np.floating]
) -> tuple[float, float]:
    """P(within > between), equals by half, and the p-value of Brunner and Munzel.

    Examples
    --------
    >>> more_alike(np.array([3.0, 4.0, 5.0, 1.0]), np.array([1.0, 2.0, 2.5, 0.5]))[0]
    0.84375
    """
    sorted_S = np.sort(between_S)
    below = np.searchsorted(sorted_S, within_S, "left").mean()
    upto = np.searchsorted(sorted_S, within_S, "right").mean()
    probability = float((below + upto) / 2 / len(between_S))
    if probability in (0.0, 1.0):
        # Samples that do not overlap have no variance of ranks; the rank test still has a p.
        return probability, float(
            mannwhitneyu(within_S, between_S, alternative="greater").pvalue
        )
    return probability, float(brunnermunzel(between_S, within_S, alternative="less").pvalue)


def summarize_arms(bias: pl.DataFrame, when: str, knobs: ArmBiasKnobs) -> list[dict[str, Any]]:
    """Rows of results: the mean over arms with its interval, and each arm.

    Returns
    -------
    list of mapping
        Metrics ``within_arm_<when>`` (P(within > between); interval by resampling arms) and
        ``within_arm_<when>_below_0.01``, the share of arms whose p-value is below 0.01.
    """
    value_A = bias["probability"].to_numpy()
    rng = generator(knobs.seed, "arms", "bootstrap")
    drawn_BA = rng.integers(len(value_A), size=(knobs.bootstraps, len(value_A)))
    low, high = np.quantile(value_A[drawn_BA].mean(axis=1), [0.025, 0.975])
    metric = f"within_arm_{when}"
    every = {"source": "all arms", "n": bias.height, "seed": knobs.seed}
    small = float((bias["p_value"].to_numpy() < 0.01).mean())
    rows: list[dict[str, Any]] = [
        every | {"metric": metric, "value": value_A.mean(), "low": low, "high": high},
        every | {"metric": f"{metric}_below_0.01", "value": small},
    ]
    for arm, n_genes, probability, _ in bias.iter_rows():
        one = {"source": arm, "metric": metric, "value": probability, "n": n_genes}
        rows.append(one | {"seed": knobs.seed})
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``benchmark_arms``."""
    files, knobs = parse_step(
        ArmBiasKnobs,
        inputs=["aligned*", "arms?"],
        outputs=["bias"],
        names=["benchmark", "encoder"],
        doc=__doc__,
        argv=argv,
    )
    if not files.arms:
        raise UserError("no table of chromosome arms, wanted a screen with a table of genes")
    arms = read_table(files.arms, ARMS)
    corrected = arms.filter("corrected")
    rows: list[dict[str, Any]] = []
    for when, offsets in (("before", None), ("after", arms)):
        treated = TreatedFiles(files.aligned, offsets, knobs)
        table = aggregate_wells(treated, aggregation=knobs.aggregation)
        rows += summarize_arms(arm_bias(table, arms, knobs), when, knobs)
    counted = {
        "arms_corrected": (corrected["arm"].n_unique(), arms["arm"].drop_nulls().n_unique()),
        "genes_corrected": (corrected.height, arms.height),
    }
    for metric, (value, n) in counted.items():
        rows.append({"source": "all arms", "metric": metric, "value": value, "n": n})
    results = tidy(rows, encoder=files.encoder, benchmark=files.benchmark, **treated.facts)
    write_table(files.bias, results, RESULTS, files.stamp)


if __name__ == "__main__":
    run_step(main)
