"""Step ``measure``: what alignment did to experiments, and to replicates, on unseen wells.

Time and memory: one experiment's wells are held at a time, beside samples of 1,500 wells;
two experiments of 20,000 wells and 384 features take 6 s and 0.5 GB.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from phenopipe.align.config import MeasureKnobs
from phenopipe.align.replicates import replicate_similarity
from phenopipe.errors import UserError
from phenopipe.formats.aligned import ALIGNED
from phenopipe.formats.results import RESULTS, tidy
from phenopipe.formats.tables import read_stamp, read_table, write_table
from phenopipe.formats.wells import conditions
from phenopipe.knobs import parse_step, run_step
from phenopipe.samples import Sample, files_by_encoder, held_out_controls, sample_encoder
from phenopipe.seeds import generator, hash_uniform

Row = dict[str, Any]
TREATED = ("perturbation", "positive_control")
PHASES = ("before", "after")
# No condition fills more than one part in so many of the sample: controls have many wells.
LEAST_CONDITIONS = 10


def with_condition(wells: pl.DataFrame) -> pl.DataFrame:
    """Treated wells with one perturbation, and their ``condition`` as one word.

    Returns
    -------
    DataFrame
        The columns of ``wells`` and ``condition``: cell type, background, kind,
        perturbation and concentration.
    """
    named = ("background", "kind", "perturbation", "concentration_um")
    single = conditions(wells).filter(n_perturbations=1)
    words = [pl.col(name).cast(pl.String).fill_null("") for name in named]
    single = single.select("well_id", condition=pl.concat_str(words, separator="\x1f"))
    treated = wells.filter(pl.col("role").is_in(TREATED)).join(single, on="well_id")
    return treated.with_columns(
        condition=pl.concat_str("cell_type", "condition", separator="\x1f")
    )


def negative_controls(wells: pl.DataFrame) -> pl.DataFrame:
    """Keep negative controls."""
    return wells.filter(role="negative_control")


def chosen_conditions(paths: Sequence[Path], knobs: MeasureKnobs) -> set[str]:
    """Choose conditions, with all their wells, until the sample is full.

    Only conditions of several experiments; the smallest hashes of (seed, condition) first,
    so that neither the order of files nor further conditions change who comes before whom.
    """
    columns = ["well_id", "experiment", "cell_type", "role", "treatments"]
    counts = pl.concat(
        with_condition(read_table(path, ALIGNED, columns=columns))
        .group_by("condition", "experiment")
        .agg(n=pl.len())
        for path in paths
    )
    shared = counts.group_by("condition").agg(
        n=pl.col("n").sum(), experiments=pl.col("experiment").n_unique()
    )
    few = pl.col("n") <= knobs.max_wells // LEAST_CONDITIONS
    shared = shared.filter(pl.col("experiments") > 1, few)
    order = shared.with_columns(hash=pl.Series(hash_uniform(knobs.seed, shared["condition"])))
    order = order.sort("hash", "condition")
    return set(order.filter(pl.col("n").cum_sum() <= knobs.max_wells)["condition"])


def apart_rows(held: Sample, knobs: MeasureKnobs) -> list[Row]:
    """How well experiments are told apart on held-out controls, and what chance gives."""
    rows: list[Row] = []
    for one in held.apart(folds=knobs.folds, seed=knobs.seed).iter_rows(named=True):
        shared = {"source": one["cell_type"], "n": one["n"]}
        told = {"value": one["accuracy"], "low": one["low"], "high": one["high"]}
        rows.append({**shared, "metric": f"experiments_apart_{one['phase']}", **told})
        if one["phase"] == PHASES[0]:
            rows.append(
                {**shared, "metric": "experiments_apart_chance", "value": one["chance"]}
            )
    return rows


def alike_rows(treated: Sample, controls: Sample, knobs: MeasureKnobs) -> list[Row]:
    """How alike replicates of different experiments are, by cell type."""
    rows: list[Row] = []
    condition_N = with_condition(treated.wells)["condition"].to_numpy().astype(np.str_)
    for cell_type in sorted(treated.wells["cell_type"].unique()):
        mine_N = (treated.wells["cell_type"] == cell_type).to_numpy()
        control_N = (controls.wells["cell_type"] == cell_type).to_numpy()
        if not control_N.any():
            continue
        experiment_N = treated.wells["experiment"].to_numpy().astype(np.str_)[mine_N]
        for phase in PHASES:
            # One origin for all experiments: shifts between them must stay visible.
            origin_D = getattr(controls, phase)[control_N].mean(axis=0, dtype=np.float64)
            x_ND = getattr(treated, phase)[mine_N] - origin_D
            away_N = np.linalg.norm(x_ND, axis=1) > 0
            found = replicate_similarity(
                x_ND[away_N],
                condition_N[mine_N][away_N],
                experiment_N[away_N],
                bootstraps=knobs.bootstraps,
                rng=generator(knobs.seed, "alike", cell_type),
            )
            rows += [
                {"source": cell_type, "metric": f"replicates_{name}_{phase}", **one._asdict()}
                for name, one in found.items()
            ]
    return rows


def measure(
    aligned: Mapping[str, Path], embeddings: Mapping[str, Path], knobs: MeasureKnobs
) -> list[Row]:
    """Measure one encoder's alignment of one screen.

    Parameters
    ----------
    aligned, embeddings : mapping of str to Path
        Files of each experiment.
    knobs : MeasureKnobs
        Settings.

    Returns
    -------
    list of mapping
        ``source`` (cell type), ``metric``, ``value, low, high, n``.
    """
    wanted = chosen_conditions(list(aligned.values()), knobs)

    def of_conditions(wells: pl.DataFrame) -> pl.DataFrame:
        kept = with_condition(wells).filter(pl.col("condition").is_in(list(wanted)))
        return kept.drop("condition")

    choose = {
        "held": (knobs.max_wells, held_out_controls),
        "controls": (knobs.max_wells, negative_controls),
        # All wells of the chosen conditions: their number is bounded already.
        "treated": (knobs.max_wells * max(len(aligned), 1), of_conditions),
    }
    samples = sample_encoder(aligned, embeddings, choose, seed=knobs.seed)
    rows: list[Row] = []
    if "held" in samples:
        rows += apart_rows(samples["held"], knobs)
    if {"controls", "treated"} <= set(samples):
        rows += alike_rows(samples["treated"], samples["controls"], knobs)
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``align_measure``."""
    files, knobs = parse_step(
        MeasureKnobs,
        inputs=["embeddings*", "aligned*"],
        outputs=["measures"],
        names=["screen", "encoder"],
        doc=__doc__,
        argv=argv,
    )
    key = (files.screen, files.encoder)
    aligned, embeddings = files_by_encoder(files.aligned), files_by_encoder(files.embeddings)
    if set(aligned) != {key} or set(embeddings) != {key}:
        raise UserError(f"aligned files of {sorted(aligned)}, wanted {key} alone")
    rows = measure(aligned[key], embeddings[key], knobs)
    stamp = read_stamp(files.aligned[0])
    table = tidy(
        rows,
        encoder=files.encoder,
        screen=files.screen,
        benchmark="alignment",
        block=stamp.get("block", 0),
        trimmed=stamp.get("trimmed", False),
        seed=knobs.seed,
    )
    write_table(files.measures, table, RESULTS, files.stamp)
    for row in table.iter_rows(named=True):
        print(f"{row['metric']} {row['source']}: {row['value']:.3f}, n = {row['n']}")


if __name__ == "__main__":
    run_step(main)
