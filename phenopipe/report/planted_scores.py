"""Planted pairs on the map, and what training adds to the probe's accuracy.

Shape suffixes: N wells, P pairs, B bootstraps, G groups.
"""

import numpy as np
import polars as pl

from phenopipe.classifier import bootstrap_accuracies
from phenopipe.report.config import TruthKnobs
from phenopipe.report.intervals import Row, difference
from phenopipe.seeds import generator

ACCURACY, PERMUTED = "balanced_accuracy", "balanced_accuracy_permuted"


def planted_pair_rows(
    encoder: str, pairs: pl.DataFrame, truth: pl.DataFrame, knobs: TruthKnobs
) -> list[Row]:
    """Recall of pairs within active gene groups in the tails, over what chance gives.

    Parameters
    ----------
    encoder : str
        Whose map.
    pairs : DataFrame
        ``entity1, entity2, rank``: known pairs and their rank in the null.
    truth : DataFrame
        The truth format.
    knobs : TruthKnobs
        Settings.

    Notes
    -----
    The interval resamples groups, not pairs: pairs of one group share its genes.
    """
    low, high = knobs.tails
    active = truth.filter(status="active").drop_nulls(["gene", "group"])
    group_of = dict(active.select("gene", "group").unique().iter_rows())
    named = pairs.unique(["entity1", "entity2"]).with_columns(
        first=pl.col("entity1").replace_strict(group_of, default=None, return_dtype=pl.String),
        second=pl.col("entity2").replace_strict(group_of, default=None, return_dtype=pl.String),
    )
    planted = named.filter(pl.col("first") == pl.col("second"))
    if planted.is_empty():
        return []
    is_found = (pl.col("rank") <= low) | (pl.col("rank") >= high)
    by_group = planted.group_by("first").agg(found=is_found.sum(), n=pl.len()).sort("first")
    found_G, n_G = by_group["found"].to_numpy(), by_group["n"].to_numpy()
    chance = low + 1 - high
    rng = generator(knobs.seed, "planted_pairs")
    drawn_BG = rng.multinomial(len(n_G), np.full(len(n_G), 1 / len(n_G)), knobs.bootstraps)
    ratio_B = (drawn_BG @ found_G) / (drawn_BG @ n_G) / chance
    ends = np.quantile(ratio_B, [0.025, 0.975])
    return [
        {
            "metric": "planted_recall",
            "encoder": encoder,
            "source": f"pairs of {len(n_G)} groups",
            "value": found_G.sum() / n_G.sum() / chance,
            "low": ends[0],
            "high": ends[1],
            "n": int(n_G.sum()),
        }
    ]


def probe_rows(blocks: pl.DataFrame, predictions: pl.DataFrame, knobs: TruthKnobs) -> list[Row]:
    """Accuracy of the named encoders at their best blocks, and differences between them.

    Parameters
    ----------
    blocks : DataFrame
        Tidy results of the probes; ``source`` is the task.
    predictions : DataFrame
        The predictions format, of all encoders and tasks.
    knobs : TruthKnobs
        Who is trained, untrained, and made of pixel statistics.
    """
    rows: list[Row] = []
    for task in sorted(blocks["source"].unique()):
        of_task = blocks.filter(source=task)
        trained = best_row(of_task, knobs.trained)
        untrained = best_row(of_task, knobs.untrained)
        pixels = best_row(of_task, knobs.pixels)
        rows += _named("accuracy", trained, task) + _named(
            "accuracy_untrained", untrained, task
        )
        rows += _named("accuracy_pixels", pixels, task)
        if trained is not None:
            rows += _control_rows(of_task, trained, task)
        if trained is not None and untrained is not None:
            both = predictions.filter(task=task)
            rows += _paired_rows(both, trained, untrained, task, knobs)
    return rows


def best_row(blocks: pl.DataFrame, encoder: str | None) -> Row | None:
    """Row of an encoder's best block, the earliest of equals; None where it was not probed."""
    of_encoder = blocks.filter(pl.col("metric") == ACCURACY, pl.col("encoder") == encoder)
    ordered = of_encoder.sort(["value", "block"], descending=[True, False])
    return ordered.row(0, named=True) if ordered.height else None


def _named(metric: str, row: Row | None, task: str) -> list[Row]:
    if row is None:
        return []
    kept = {key: row[key] for key in ("encoder", "block", "value", "low", "high", "n")}
    return [{**kept, "metric": metric, "source": task}]


def _control_rows(blocks: pl.DataFrame, trained: Row, task: str) -> list[Row]:
    """Hold the trained encoder against its own control, genes reassigned to groups."""
    control = blocks.filter(
        pl.col("metric") == PERMUTED,
        pl.col("encoder") == trained["encoder"],
        pl.col("block") == trained["block"],
    )
    if control.is_empty():
        return []
    row = control.row(0, named=True)
    value, low, high = difference(trained, row)
    less = {"value": value, "low": low, "high": high}
    return [
        *_named("accuracy_control", row, task),
        *_named("trained_minus_control", trained | less, task),
    ]


def _paired_rows(
    predictions: pl.DataFrame, trained: Row, untrained: Row, task: str, knobs: TruthKnobs
) -> list[Row]:
    """Paired bootstrap of the difference: both encoders see the same resampled wells."""
    sides = [
        predictions.filter(
            pl.col("encoder") == row["encoder"], pl.col("block") == row["block"]
        ).select("well_id", "site", "label", "predicted")
        for row in (trained, untrained)
    ]
    keys = ["well_id", "site", "label"]
    both = sides[0].join(sides[1], on=keys, suffix="_untrained", nulls_equal=True).sort(keys)
    if both.is_empty():
        return []
    rng = generator(knobs.seed, "paired", task)
    accuracy_B2 = bootstrap_accuracies(
        both["label"].to_numpy().astype(np.str_),
        both.select("predicted", "predicted_untrained").to_numpy().T.astype(np.str_),
        bootstraps=knobs.bootstraps,
        rng=rng,
    )
    low, high = np.quantile(accuracy_B2[:, 0] - accuracy_B2[:, 1], [0.025, 0.975])
    less = {"value": trained["value"] - untrained["value"], "low": low, "high": high}
    return _named("trained_minus_untrained", trained | less | {"n": both.height}, task)
