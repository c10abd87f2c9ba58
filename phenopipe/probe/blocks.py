"""Step ``blocks``: a probe on every block of an encoder, and the best block b* (Eq. 1)."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import polars as pl

from phenopipe.formats.probes import PREDICTIONS
from phenopipe.formats.qc import passing_wells
from phenopipe.formats.results import RESULTS, tidy
from phenopipe.formats.tables import read_any, write_json, write_table
from phenopipe.knobs import parse_step, run_step
from phenopipe.probe.config import GROUP, BlocksKnobs
from phenopipe.probe.features import Reader, find_rows, read_rows
from phenopipe.probe.labels import Labelled, label_wells, reassign_genes
from phenopipe.probe.sweep import (
    Sweep,
    choose_on_other_half,
    ends_of,
    share_of_other,
    sweep_blocks,
)
from phenopipe.seeds import generator

ACCURACY = "balanced_accuracy"
PERMUTED = "balanced_accuracy_permuted"
# The same accuracies; the interval resamples experiments, whose number is ``n``.
OVER_EXPERIMENTS = "balanced_accuracy_over_experiments"
# What the block that one half of the test wells chose gains over the last, on the other.
GAIN = "gain_on_other_half"


def permuted_rows(
    labelled: Labelled, read: Reader, blocks: Sequence[int], knobs: BlocksKnobs
) -> list[dict[str, Any]]:
    """Rows of results with genes reassigned at random to groups of equal sizes.

    Parameters
    ----------
    labelled : Labelled
        Wells with ``gene, label, experiment, is_train``.
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
    label = reassign_genes(labelled.wells, rng, labelled.held_out)
    print("genes reassigned at random to groups of equal sizes:")
    sweep = sweep_blocks(labelled.wells.with_columns(label=label), read, blocks, knobs)
    return accuracy_rows(sweep, PERMUTED)


def accuracy_rows(sweep: Sweep, metric: str) -> list[dict[str, Any]]:
    """Rows of results: accuracy of each block, its interval over resampled wells."""
    return [
        {
            "block": block,
            "metric": metric,
            "value": sweep.accuracy_K[at],
            **ends_of(sweep.accuracy_BK[:, at]),
            "n": sweep.predicted_KN.shape[1],
        }
        for at, block in enumerate(sweep.blocks)
    ]


def experiment_rows(sweep: Sweep, n_experiments: int) -> list[dict[str, Any]]:
    """Rows of results: the same accuracies, their intervals over resampled experiments."""
    if sweep.by_experiment_BK is None:
        return []
    return [
        {**row, **ends_of(sweep.by_experiment_BK[:, at]), "n": n_experiments}
        for at, row in enumerate(accuracy_rows(sweep, OVER_EXPERIMENTS))
    ]


def describe_best(sweep: Sweep, labelled: Labelled, knobs: BlocksKnobs) -> dict[str, Any]:
    """Content of best_block.json: b*, how sure the choice is, and every block.

    Notes
    -----
    Of equal blocks the earliest is best: it costs least. ``share_other_block`` is the share
    of resamples of the test wells that would choose another block,
    ``share_other_block_over_experiments`` that of resamples of whole experiments. ``gain``
    compares b* with the last block on the wells that chose b*, which flatters it;
    ``other_half`` does so on wells that did not.
    """
    best, last = sweep.best, len(sweep.blocks) - 1
    wells = labelled.wells
    n_classes = wells["label"].n_unique()
    test = wells.filter(~pl.col("is_train"))
    return {
        "block": sweep.blocks[best],
        "accuracy": sweep.accuracy_K[best],
        **ends_of(sweep.accuracy_BK[:, best]),
        "tie_rule": "the earliest of equal blocks",
        "share_other_block": share_of_other(sweep.accuracy_BK, best),
        "share_other_block_over_experiments": share_of_other(sweep.by_experiment_BK, best),
        "last_block": sweep.blocks[last],
        "gain": {
            "value": sweep.accuracy_K[best] - sweep.accuracy_K[last],
            **ends_of(sweep.accuracy_BK[:, best] - sweep.accuracy_BK[:, last]),
        },
        "other_half": choose_on_other_half(sweep, test, knobs),
        "label": knobs.label,
        "level": knobs.level,
        "chance": 1 / n_classes,
        "n_classes": n_classes,
        "n_train": wells.height - test.height,
        "n_test": test.height,
        "train": sorted(knobs.train),
        "test": sorted(knobs.test),
        "technical_pairs": pairs_across(wells),
        "held_out_genes": list(labelled.held_out),
        "left_out": labelled.left_out,
        "solver": knobs.solver,
        "converged": all(probe.converged for probe in sweep.probes),
        "blocks": describe_blocks(sweep),
    }


def describe_blocks(sweep: Sweep) -> list[dict[str, Any]]:
    """Accuracy of every block and what the solver says of its probe."""
    over = sweep.by_experiment_BK
    return [
        {
            "block": block,
            "accuracy": sweep.accuracy_K[at],
            **ends_of(sweep.accuracy_BK[:, at]),
            "over_experiments": ends_of(None if over is None else over[:, at]),
            "iterations": sweep.probes[at].iterations,
            "converged": sweep.probes[at].converged,
            "gap": sweep.probes[at].gap,
        }
        for at, block in enumerate(sweep.blocks)
    ]


def pairs_across(wells: pl.DataFrame) -> list[list[str]]:
    """Technical pairs with one experiment on either side: shared layouts may be learned."""
    seen = wells.select("experiment", "layout", "is_train").unique()
    both = seen.filter("is_train").join(seen.filter(~pl.col("is_train")), on="layout")
    pairs = both.select("experiment", "experiment_right").unique().sort(pl.all())
    return [list(pair) for pair in pairs.rows()]


def predictions_of(sweep: Sweep, wells: pl.DataFrame) -> pl.DataFrame:
    """What the probes of b* and of the last block said of each test well."""
    test = wells.filter(~pl.col("is_train")).select("well_id", "site", "experiment", "label")
    return pl.concat(
        test.with_columns(
            block=pl.lit(sweep.blocks[at], dtype=pl.Int32),
            predicted=pl.Series(sweep.predicted_KN[at].tolist(), dtype=pl.String),
        )
        for at in sorted({sweep.best, len(sweep.blocks) - 1})
    )


def results_of(
    sweep: Sweep, best: dict[str, Any], labelled: Labelled, read: Reader, knobs: BlocksKnobs
) -> list[dict[str, Any]]:
    """All rows of blocks.parquet."""
    half = best["other_half"]
    rows = accuracy_rows(sweep, ACCURACY)
    rows += experiment_rows(sweep, len(set(knobs.test)))
    rows.append({"block": 0, "metric": GAIN, **half["gain"], "n": best["n_test"]})
    if knobs.label == GROUP:
        both = sorted({best["block"], best["last_block"]})
        rows += permuted_rows(labelled, read, both, knobs)
    return rows


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
    sites = knobs.level == "sites"
    rows, blocks, facts = find_rows(files.embeddings, wells, sites=sites)
    # Classes are counted by wells that have an embedding.
    labelled = label_wells(wells.join(rows, on="well_id", how="semi"), groups, knobs)
    found = labelled.wells.join(rows, on="well_id", maintain_order="left")
    labelled = replace(labelled, wells=found)
    read = partial(read_rows, files.embeddings, found, sites=sites)
    sweep = sweep_blocks(found, read, blocks, knobs)
    best = describe_best(sweep, labelled, knobs)
    names = {"encoder": files.encoder, "task": files.task}
    results = tidy(
        results_of(sweep, best, labelled, read, knobs),
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
