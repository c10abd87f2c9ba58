"""Step ``blocks``: a probe on every block of an encoder, and the best block b* (Eq. 1).

Shape suffixes: N test wells, D features, K blocks, B bootstraps.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from phenopipe.classifier import bootstrap_accuracies
from phenopipe.errors import UserError
from phenopipe.formats.embeddings import read_attributes, read_block, read_well_ids
from phenopipe.formats.probes import PREDICTIONS
from phenopipe.formats.qc import passing_wells
from phenopipe.formats.results import RESULTS, tidy
from phenopipe.formats.tables import read_any, write_json, write_table
from phenopipe.knobs import parse_step, run_step
from phenopipe.probe.config import BlocksKnobs
from phenopipe.probe.labels import Labelled, label_wells, reassign_genes
from phenopipe.probe.logistic import (
    Labels,
    balanced_accuracy,
    choose_block,
    fit_probe,
    iterations,
    predict,
)
from phenopipe.seeds import generator

# Features of all labelled wells at one block, rows in the order of the wells.
Reader = Callable[[int], NDArray[np.floating]]


@dataclass(frozen=True)
class Sweep:
    """Probes on all blocks: predictions, their bootstraps, and what the solver did."""

    blocks: Sequence[int]
    accuracy_K: NDArray[np.float64]
    accuracy_BK: NDArray[np.float64]
    predicted_KN: Labels
    iterations_K: Sequence[int]

    @property
    def best(self) -> int:
        """Position of b*."""
        return choose_block(self.accuracy_K)

    def interval(self) -> NDArray[np.float64]:
        """Ends of each block's interval, of shape (2, n_blocks)."""
        return np.quantile(self.accuracy_BK, [0.025, 0.975], axis=0)


def sweep_blocks(
    wells: pl.DataFrame, read: Reader, blocks: Sequence[int], knobs: BlocksKnobs
) -> Sweep:
    """Fit and judge a probe on every block.

    Parameters
    ----------
    wells : DataFrame
        ``label, is_train``.
    read : callable
        Gives the features of a block, one row a well.
    blocks : list of int
        Blocks, from the first to the last.
    knobs : BlocksKnobs
        The step's settings.

    Returns
    -------
    Sweep
        All blocks share their resamples of test wells.
    """
    train_W = wells["is_train"].to_numpy()
    y_W = wells["label"].to_numpy().astype(np.str_)
    predicted, accuracy, steps = [], [], []
    for block in blocks:
        x_WD = read(block)
        with warnings.catch_warnings():
            # Told once for each block, in the log and in best_block.json.
            warnings.simplefilter("ignore", ConvergenceWarning)
            probe = fit_probe(x_WD[train_W], y_W[train_W], max_iter=knobs.max_iter)
        accuracy.append(balanced_accuracy(probe, x_WD[~train_W], y_W[~train_W]))
        predicted.append(predict(probe, x_WD[~train_W]))
        steps.append(iterations(probe))
        state = "converged" if steps[-1] < knobs.max_iter else "DID NOT CONVERGE"
        print(f"block {block}: balanced accuracy {accuracy[-1]:.4f}, {state} in {steps[-1]}")
    predicted_KN = np.stack(predicted)
    rng = generator(knobs.seed, "probe", "bootstrap")
    accuracy_BK = bootstrap_accuracies(
        y_W[~train_W], predicted_KN, bootstraps=knobs.bootstraps, rng=rng
    )
    return Sweep(list(blocks), np.array(accuracy), accuracy_BK, predicted_KN, steps)


def permuted_rows(
    wells: pl.DataFrame, read: Reader, blocks: Sequence[int], knobs: BlocksKnobs
) -> list[dict[str, Any]]:
    """Rows of results with genes reassigned at random to groups of equal sizes.

    Parameters
    ----------
    wells : DataFrame
        ``gene, label, is_train``.
    read : callable
        Gives the features of a block.
    blocks : list of int
        Blocks that are judged: the best and the last, since a control on every block would
        double the cost.
    knobs : BlocksKnobs
        The step's settings.

    Returns
    -------
    list of mapping
        Metric ``balanced_accuracy_permuted``: what knowing guides and genes alone gives.
    """
    rng = generator(knobs.seed, "probe", "permuted")
    dealt = wells.with_columns(label=reassign_genes(wells, rng))
    print("genes reassigned at random to groups of equal sizes:")
    sweep = sweep_blocks(dealt, read, blocks, knobs)
    return _rows(sweep, "balanced_accuracy_permuted")


def _rows(sweep: Sweep, metric: str) -> list[dict[str, Any]]:
    ends = sweep.interval()
    return [
        {"block": block, "metric": metric, "value": sweep.accuracy_K[at]}
        | {"low": ends[0, at], "high": ends[1, at], "n": sweep.predicted_KN.shape[1]}
        for at, block in enumerate(sweep.blocks)
    ]


def describe_best(sweep: Sweep, labelled: Labelled, knobs: BlocksKnobs) -> dict[str, Any]:
    """Content of best_block.json: b*, how sure the choice is, and every block.

    Notes
    -----
    ``share_other_block`` is the share of resamples of the test wells that would choose
    another block. ``gain`` compares b* with the last block on the wells that chose b*,
    which flatters it.
    """
    best, last = sweep.best, len(sweep.blocks) - 1
    ends = sweep.interval()
    gain_B = sweep.accuracy_BK[:, best] - sweep.accuracy_BK[:, last]
    wells = labelled.wells
    n_classes = wells["label"].n_unique()
    return {
        "block": sweep.blocks[best],
        "accuracy": sweep.accuracy_K[best],
        "low": ends[0, best],
        "high": ends[1, best],
        "share_other_block": float((sweep.accuracy_BK.argmax(axis=1) != best).mean()),
        "last_block": sweep.blocks[last],
        "gain": {
            "value": sweep.accuracy_K[best] - sweep.accuracy_K[last],
            "low": np.quantile(gain_B, 0.025),
            "high": np.quantile(gain_B, 0.975),
        },
        "label": knobs.label,
        "chance": 1 / n_classes,
        "n_classes": n_classes,
        "n_train": int(wells["is_train"].sum()),
        "n_test": int((~wells["is_train"]).sum()),
        "train": sorted(knobs.train),
        "test": sorted(knobs.test),
        "technical_pairs": pairs_across(wells),
        "left_out": labelled.left_out,
        "blocks": [
            {
                "block": block,
                "accuracy": sweep.accuracy_K[at],
                "low": ends[0, at],
                "high": ends[1, at],
                "iterations": sweep.iterations_K[at],
                "converged": sweep.iterations_K[at] < knobs.max_iter,
            }
            for at, block in enumerate(sweep.blocks)
        ],
    }


def pairs_across(wells: pl.DataFrame) -> list[list[str]]:
    """Technical pairs with one experiment on either side: shared layouts may be learned."""
    seen = wells.select("experiment", "layout", "is_train").unique()
    both = seen.filter("is_train").join(seen.filter(~pl.col("is_train")), on="layout")
    pairs = both.select("experiment", "experiment_right").unique().sort(pl.all())
    return [list(pair) for pair in pairs.rows()]


def open_features(
    paths: Sequence[Path], wells: pl.DataFrame
) -> tuple[pl.DataFrame, Reader, list[int], dict[str, Any]]:
    """Find the wells in the embedding stores.

    Parameters
    ----------
    paths : list of Path
        Embeddings, one store an experiment, in any order.
    wells : DataFrame
        Labelled wells.

    Returns
    -------
    wells : DataFrame
        Those with an embedding (wells without usable sites have none).
    read : callable
        Gives their features at a block.
    blocks : list of int
        Blocks that the stores hold.
    facts : mapping
        Attributes of the first store.

    Raises
    ------
    UserError
        If the stores hold different blocks, or none holds a well of some experiment.
    """
    rows = [
        (well, s, at) for s, p in enumerate(paths) for at, well in enumerate(read_well_ids(p))
    ]
    places = pl.DataFrame(
        rows, schema={"well_id": pl.String, "store": pl.Int64, "at": pl.Int64}, orient="row"
    )
    found = wells.join(places, on="well_id", how="inner", maintain_order="left")
    absent = sorted(set(wells["experiment"]) - set(found["experiment"]))
    if absent:
        raise UserError(f"no embeddings of experiments {absent} among {len(paths)} stores")
    facts = [read_attributes(path) for path in paths]
    for path, one in zip(paths, facts, strict=True):
        if one["blocks"] != facts[0]["blocks"]:
            raise UserError(f"{path}: blocks {one['blocks']}, wanted {facts[0]['blocks']}")
    blocks = [int(block) for block in facts[0]["blocks"]]
    finite = np.isfinite(_gather(paths, found, blocks[-1])).all(axis=1)
    if not finite.all():
        print(f"{(~finite).sum()} wells without an embedding are left out")
        found = found.filter(pl.Series(finite))
    return found, lambda block: _gather(paths, found, block), blocks, facts[0]


def _gather(paths: Sequence[Path], wells: pl.DataFrame, block: int) -> NDArray[np.floating]:
    store_W, at_W = wells["store"].to_numpy(), wells["at"].to_numpy()
    parts = [(np.flatnonzero(store_W == s), read_block(p, block)) for s, p in enumerate(paths)]
    x_WD = np.empty((wells.height, parts[0][1].shape[1]), dtype=np.float32)
    for mine, x_SD in parts:
        x_WD[mine] = x_SD[at_W[mine]]
    return x_WD


def predictions_of(sweep: Sweep, wells: pl.DataFrame) -> pl.DataFrame:
    """What the probes of b* and of the last block said of each test well."""
    test = wells.filter(~pl.col("is_train")).select("well_id", "experiment", "label")
    return pl.concat(
        test.with_columns(
            block=pl.lit(sweep.blocks[at], dtype=pl.Int32),
            predicted=pl.Series(sweep.predicted_KN[at].tolist(), dtype=pl.String),
        )
        for at in sorted({sweep.best, len(sweep.blocks) - 1})
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``probe_blocks``."""
    files, knobs = parse_step(
        BlocksKnobs,
        inputs=["embeddings*", "wells*", "groups?"],
        outputs=["blocks", "best", "predictions"],
        names=["encoder", "task"],
        doc=__doc__,
        argv=argv,
    )
    wells = passing_wells(files.wells)
    groups = read_any(files.groups) if files.groups else None
    labelled = label_wells(wells, groups, knobs)
    found, read, blocks, facts = open_features(files.embeddings, labelled.wells)
    labelled = Labelled(found, labelled.left_out)
    sweep = sweep_blocks(found, read, blocks, knobs)
    best = describe_best(sweep, labelled, knobs)
    rows = _rows(sweep, "balanced_accuracy")
    if knobs.label == "group":
        both = sorted({best["block"], best["last_block"]})
        rows += permuted_rows(found, read, both, knobs)
    names = {"encoder": files.encoder, "task": files.task}
    results = tidy(
        rows,
        encoder=files.encoder,
        trimmed=bool(facts.get("trimmed")),
        screen="+".join(wells["screen"].unique().sort()),
        benchmark="probe",
        source=files.task,
        seed=knobs.seed,
    )
    write_table(files.blocks, results, RESULTS, files.stamp)
    write_json(files.best, {**names, **best}, files.stamp)
    predictions = predictions_of(sweep, found)
    predictions = predictions.with_columns(**{k: pl.lit(v) for k, v in names.items()})
    write_table(files.predictions, predictions, PREDICTIONS, files.stamp)


if __name__ == "__main__":
    run_step(main)
