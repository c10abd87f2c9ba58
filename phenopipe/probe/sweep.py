"""A probe on every block: accuracies, their resamples, and what choosing by them is worth.

Shape suffixes: N test wells, W all wells, D features, K blocks, B bootstraps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.classifier import bootstrap_accuracies, bootstrap_accuracies_of_units
from phenopipe.probe.config import BlocksKnobs
from phenopipe.probe.features import Reader
from phenopipe.probe.logistic import (
    Labels,
    LinearProbe,
    balanced_accuracy,
    choose_block,
    fit_probe,
    predict,
)
from phenopipe.seeds import generator

ENDS = (0.025, 0.975)


@dataclass(frozen=True)
class Sweep:
    """Probes on all blocks: predictions, their bootstraps, and what the solver did.

    Attributes
    ----------
    accuracy_BK, by_experiment_BK : float arrays of shape (n_bootstraps, n_blocks)
        Resamples of test wells, and of whole test experiments; blocks share them. The latter
        is None where there is one test experiment.
    """

    blocks: Sequence[int]
    probes: Sequence[LinearProbe]
    accuracy_K: NDArray[np.float64]
    accuracy_BK: NDArray[np.float64]
    by_experiment_BK: NDArray[np.float64] | None
    predicted_KN: Labels

    @property
    def best(self) -> int:
        """Position of b*."""
        return choose_block(self.accuracy_K)


def sweep_blocks(
    wells: pl.DataFrame, read: Reader, blocks: Sequence[int], knobs: BlocksKnobs
) -> Sweep:
    """Fit and judge a probe on every block.

    Parameters
    ----------
    wells : DataFrame
        ``experiment, label, is_train``.
    read : callable
        Gives the features of a block, one row a well.
    blocks : list of int
        Blocks, from the first to the last.
    knobs : BlocksKnobs
        The step's settings.
    """
    train_W = wells["is_train"].to_numpy()
    y_W = wells["label"].to_numpy().astype(np.str_)
    probes: list[LinearProbe] = []
    predicted, accuracy = [], []
    for block in blocks:
        x_WD = read(block)
        probe = fit_probe(
            x_WD[train_W],
            y_W[train_W],
            solver=knobs.solver,
            max_iter=knobs.max_iter,
            tolerance=knobs.tolerance,
            start=probes[-1] if probes and knobs.warm_start else None,
        )
        probes.append(probe)
        accuracy.append(balanced_accuracy(probe, x_WD[~train_W], y_W[~train_W]))
        predicted.append(predict(probe, x_WD[~train_W]))
        state = "converged" if probe.converged else "DID NOT CONVERGE"
        steps = f"{state} in {probe.iterations}"
        print(f"block {block}: balanced accuracy {accuracy[-1]:.4f}, {steps}")
    predicted_KN = np.stack(predicted)
    test = wells.filter(~pl.col("is_train"))
    accuracy_BK, by_experiment_BK = resample(test, predicted_KN, knobs)
    return Sweep(
        list(blocks), probes, np.array(accuracy), accuracy_BK, by_experiment_BK, predicted_KN
    )


def resample(
    test: pl.DataFrame, predicted_KN: Labels, knobs: BlocksKnobs
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Balanced accuracies over resampled test wells, and over resampled experiments."""
    y_N = test["label"].to_numpy().astype(np.str_)
    rng = generator(knobs.seed, "probe", "bootstrap")
    if knobs.level == "sites":
        # Sites of one well say nearly the same: they are drawn together.
        well_N = test["well_id"].to_numpy().astype(np.str_)
        wells_BK = bootstrap_accuracies_of_units(
            y_N, predicted_KN, well_N, bootstraps=knobs.bootstraps, rng=rng
        )
    else:
        wells_BK = bootstrap_accuracies(y_N, predicted_KN, bootstraps=knobs.bootstraps, rng=rng)
    experiment_N = test["experiment"].to_numpy().astype(np.str_)
    if len(set(experiment_N)) < 2:
        return wells_BK, None
    rng = generator(knobs.seed, "probe", "bootstrap experiments")
    return wells_BK, bootstrap_accuracies_of_units(
        y_N, predicted_KN, experiment_N, bootstraps=knobs.bootstraps, rng=rng
    )


def ends_of(values_B: NDArray[np.float64] | None) -> dict[str, float | None]:
    """Ends of a bootstrap interval; None where nothing was resampled."""
    if values_B is None:
        return {"low": None, "high": None}
    low, high = np.quantile(values_B, ENDS)
    return {"low": float(low), "high": float(high)}


def share_of_other(accuracy_BK: NDArray[np.float64] | None, best: int) -> float | None:
    """Share of resamples that would choose another block, by the same tie rule."""
    return None if accuracy_BK is None else float((accuracy_BK.argmax(axis=1) != best).mean())


def halve(
    test: pl.DataFrame, rng: np.random.Generator, *, sites: bool = False
) -> tuple[NDArray[np.bool_], str]:
    """Part the test wells in two halves, and tell by what.

    Parameters
    ----------
    test : DataFrame
        ``experiment, layout, label`` of the test wells.
    rng : Generator
        Source of randomness.
    sites : bool
        Whether rows are sites, of the wells ``well_id``.

    Returns
    -------
    is_first_N : bool array of shape (n_wells,)
        Wells of the first half.
    unit : {"layout", "experiment", "well"}
        What stays together: technical pairs where there are two layouts or more, else
        experiments, else (one test experiment) each well for itself: of every class as
        many on either side, give or take one, and so of all wells.
    """
    for unit in ("layout", "experiment"):
        counts = test[unit].value_counts().drop_nulls().sort(unit)
        if counts.height < 2 or counts["count"].sum() < test.height:
            continue
        names, sizes = counts[unit].to_numpy(), counts["count"].to_numpy()
        shuffled = rng.permutation(len(names))
        first, size = [], [0, 0]
        for at in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
            side = int(size[1] < size[0])
            size[side] += sizes[at]
            first += [names[at]] if side == 0 else []
        return test[unit].is_in(first).to_numpy(), unit
    keys = ["well_id"] if sites else ["index"]
    wells = test.with_row_index().select(*keys, "label")
    once = wells.unique(maintain_order=True)
    once = once.with_columns(draw=pl.Series(rng.permutation(once.height)))
    ranked = once.sort("label", "draw").select(*keys, rank=pl.int_range(pl.len()))
    both = wells.join(ranked, on=keys, maintain_order="left")
    return (both["rank"] % 2 == 0).to_numpy(), "well"


def choose_on_other_half(
    sweep: Sweep, test: pl.DataFrame, knobs: BlocksKnobs
) -> dict[str, Any]:
    """What choosing a block gains over the last one, on wells that did not choose it.

    Returns
    -------
    mapping
        ``gain`` with its paired interval over wells and over experiments, the block that
        each half chose, and the accuracies compared.

    Notes
    -----
    Each half of the test wells is predicted by the block that is best on the other half;
    together they are held against the last block on the same wells. Intervals hold the two
    choices fixed.
    """
    is_first_N, unit = halve(
        test, generator(knobs.seed, "probe", "halves"), sites=knobs.level == "sites"
    )
    y_N = test["label"].to_numpy().astype(np.str_)
    chosen_N, halves = sweep.predicted_KN[-1].copy(), []
    for is_mine_N in (is_first_N, ~is_first_N):
        accuracy_K = mean_of_classes(y_N[is_mine_N], sweep.predicted_KN[:, is_mine_N])
        at = choose_block(accuracy_K)
        chosen_N[~is_mine_N] = sweep.predicted_KN[at][~is_mine_N]
        mine = test.filter(pl.Series(is_mine_N))
        names = mine["experiment"].unique().sort().to_list()
        halves.append({"experiments": names, "n": mine.height, "block": sweep.blocks[at]})
    pair_2N = np.stack([chosen_N, sweep.predicted_KN[-1]])
    wells_B2, experiments_B2 = resample(test, pair_2N, knobs)
    accuracy, last = mean_of_classes(y_N, pair_2N)
    by_experiment = (
        None if experiments_B2 is None else experiments_B2[:, 0] - experiments_B2[:, 1]
    )
    return {
        "unit": unit,
        "halves": halves,
        "accuracy": float(accuracy),
        "last_accuracy": float(last),
        "gain": {"value": float(accuracy - last), **ends_of(wells_B2[:, 0] - wells_B2[:, 1])},
        "gain_over_experiments": ends_of(by_experiment),
    }


def mean_of_classes(y_N: Labels, predicted_KN: Labels) -> NDArray[np.float64]:
    """Balanced accuracy of each row of predictions."""
    class_N = np.unique(y_N, return_inverse=True)[1]
    wells_C = np.bincount(class_N)
    hits_KC = np.stack([np.bincount(class_N, weights=hit) for hit in predicted_KN == y_N])
    return np.asarray((hits_KC / wells_C).mean(axis=1))
