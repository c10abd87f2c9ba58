"""Step ``arms``: are knockouts on one chromosome arm alike, before and after correction?

Shape suffixes: G genes, D features, S sampled pairs, A arms, B bootstraps.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.benchmark.aggregate import aggregate_wells
from phenopipe.benchmark.config import ArmBiasKnobs
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
        the p-value of its being larger, when arms are dealt anew among genes. Arms with fewer
        genes than ``min_genes`` are left out.

    Raises
    ------
    UserError
        If no arm, or only one, has enough genes.

    Notes
    -----
    Pairs are drawn without replacement, within the arm and between it and the others. They
    share genes, so a rank test, which takes them for independent, would call arms without
    any bias: the p-value is that of random sets of as many genes instead.

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
    exact_GD = unit_rows(genes["embedding"].to_numpy(), genes["entity"].to_list())
    # Many draws take half the time, or less, in single precision.
    unit_GD = exact_GD.astype(np.float32)
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
        # The arm's genes first.
        order_G = np.argsort(arm_G != arm, kind="stable")
        n_genes = int((arm_G == arm).sum())
        found = alike_within(unit_GD, order_G, n_genes, knobs.pairs, rng)
        null_K = np.array(
            [
                alike_within(unit_GD, rng.permutation(order_G), n_genes, knobs.pairs, rng)
                for _ in range(knobs.permutations)
            ]
        )
        p_value = max(int((null_K >= found).sum()), 1) / len(null_K)
        rows.append((arm, n_genes, found, p_value))
    schema = ["arm", "n_genes", "probability", "p_value"]
    return pl.DataFrame(rows, schema=schema, orient="row")


def alike_within(
    unit_GD: NDArray[np.float32],
    order_G: NDArray[np.int64],
    n_inside: int,
    n_pairs: int,
    rng: np.random.Generator,
) -> float:
    """P(within > between) of the first genes in an order, each pair drawn at most once."""
    inside, outside = order_G[:n_inside], order_G[n_inside:]
    n_within, n_between = n_inside * (n_inside - 1) // 2, n_inside * len(outside)
    # Around a circle: each gene with the next one, then with the next but one, and so on.
    pair_S = rng.choice(n_within, min(n_pairs, n_within), replace=False, shuffle=False)
    step_S, at_S = pair_S // n_inside + 1, pair_S % n_inside
    first_SD, second_SD = unit_GD[inside[at_S]], unit_GD[inside[(at_S + step_S) % n_inside]]
    within_S = np.einsum("sd,sd->s", first_SD, second_SD)
    pair_S = rng.choice(n_between, min(n_pairs, n_between), replace=False, shuffle=False)
    at_S, other_S = np.divmod(pair_S, len(outside))
    between_S = np.einsum("sd,sd->s", unit_GD[inside[at_S]], unit_GD[outside[other_S]])
    return more_alike(within_S, between_S)


def more_alike(within_S: NDArray[np.floating], between_S: NDArray[np.floating]) -> float:
    """P(within > between), equals by half.

    Examples
    --------
    >>> more_alike(np.array([3.0, 4.0, 5.0, 1.0]), np.array([1.0, 2.0, 2.5, 0.5]))
    0.84375
    """
    sorted_S = np.sort(between_S)
    below = np.searchsorted(sorted_S, within_S, "left").mean()
    upto = np.searchsorted(sorted_S, within_S, "right").mean()
    return float((below + upto) / 2 / len(between_S))


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
