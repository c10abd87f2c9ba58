"""From many files to small frames: what the page shows of each stage, summed file by file.

A screen may have hundreds of experiments and millions of wells, so every file is reduced
before the next is opened; what is drawn point by point is a sample.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import polars as pl

from phenopipe.formats.embeddings import read_attributes
from phenopipe.formats.names import names_of
from phenopipe.formats.qc import (
    CONTROLS,
    FAILING,
    FAILS,
    LIMIT,
    MAX_FAILING,
    MIN_CONTROLS,
    NO_GO,
    SCORE,
    read_qc_wells,
)
from phenopipe.formats.results import RESULTS
from phenopipe.formats.tables import Schema, read_table
from phenopipe.formats.wells import CONDITION, conditions


def read_named(path: Path, schema: Schema) -> pl.DataFrame:
    """Read a table, with whose it is as further columns where it has none of that name."""
    frame = read_table(path, schema)
    new = {k: pl.lit(v) for k, v in names_of(path).items() if k not in frame.columns}
    return frame.with_columns(**new)


def stack(frames: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Put frames under one another; none at all makes an empty frame."""
    given = [frame for frame in frames if frame.width]
    return pl.concat(given, how="diagonal_relaxed") if given else pl.DataFrame()


def read_results(paths: Sequence[Path]) -> pl.DataFrame:
    """Read tidy results of many files into one frame of that format."""
    return stack([RESULTS.empty(), *(read_named(path, RESULTS) for path in paths)])


def each_experiment(
    paths: Sequence[Path], *reduce: Callable[[pl.DataFrame], pl.DataFrame]
) -> list[pl.DataFrame]:
    """Read the flagged wells of one experiment after another, and keep what each reduces to."""
    kept: list[list[pl.DataFrame]] = [[] for _ in reduce]
    for path in paths:
        wells = read_qc_wells(path)
        for one, frames in zip(reduce, kept, strict=True):
            frames.append(one(wells))
    return [stack(frames) for frames in kept]


def tests_of(wells: pl.DataFrame) -> list[str]:
    """Names of the qc tests that flagged wells carry, without their prefix."""
    return [c.removeprefix(FAILS) for c in wells.columns if c.startswith(FAILS)]


def count_wells(wells: pl.DataFrame) -> pl.DataFrame:
    """Count one experiment's wells by cell type and role, and those that pass."""
    return wells.group_by("screen", "experiment", "cell_type", "role", maintain_order=True).agg(
        n_wells=pl.len(),
        n_passing=pl.col("passes").sum(),
        plates=pl.col("plate").unique().sort(),
    )


def count_flags(wells: pl.DataFrame) -> pl.DataFrame:
    """Count one experiment's wells that fail each qc test."""
    rows = [
        {
            "screen": wells["screen"][0],
            "experiment": wells["experiment"][0],
            "test": test,
            "n_failed": int(wells[FAILS + test].sum() or 0),
            "n_wells": wells.height,
        }
        for test in (tests_of(wells) if wells.height else [])
    ]
    return pl.DataFrame(rows)


def gate_of(wells: pl.DataFrame) -> pl.DataFrame:
    """Tell how one experiment was judged as a whole, in one row."""
    columns = {
        "no_go": NO_GO,
        "failing": FAILING,
        "max_failing": MAX_FAILING,
        "controls": CONTROLS,
        "min_controls": MIN_CONTROLS,
    }
    if not wells.height or not set(columns.values()) <= set(wells.columns):
        return pl.DataFrame()
    return wells.head(1).select("screen", "experiment", **columns)


def count_positions(wells: pl.DataFrame) -> pl.DataFrame:
    """Count one experiment's wells, and those that fail, at each address of its plates."""
    return wells.group_by("screen", "row", "column").agg(
        n_failed=(~pl.col("passes")).sum(), n_wells=pl.len()
    )


def list_conditions(wells: pl.DataFrame) -> pl.DataFrame:
    """List one experiment's conditions with the role of the wells that have them."""
    return (
        conditions(wells)
        .join(wells.select("well_id", "screen", "role"), on="well_id")
        .group_by("screen", "role", *CONDITION, "gene")
        .agg(n_wells=pl.len())
    )


def list_flagged(wells: pl.DataFrame, *, a_test: int = 3) -> pl.DataFrame:
    """List one experiment's worst wells of each qc test, the worst first."""
    frames = []
    for test in tests_of(wells):
        failed = wells.filter(pl.col(FAILS + test))
        if SCORE + test in failed.columns:
            score = pl.col(SCORE + test)
            # Some tests set a largest score, others a least: how far beyond it is the well?
            beyond = score - pl.col(LIMIT + test) if LIMIT + test in failed.columns else score
            failed = failed.sort(beyond.abs(), descending=True, nulls_last=True)
        chosen = failed.head(a_test).select("screen", "experiment", "well_id", "role")
        frames.append(chosen.with_columns(test=pl.lit(test)))
    return stack(frames)


def list_examples(wells: pl.DataFrame, *, a_role: int = 4) -> pl.DataFrame:
    """List a few of one experiment's passing wells of each role, spread over its rows."""
    passing = wells.filter("passes")
    # Where the gate is shut, no well passes.
    frames = [passing.clear()]
    for (role,), part in passing.group_by("role", maintain_order=True):
        chosen = part.gather_every(max(1, part.height // a_role)).head(a_role)
        frames.append(chosen.with_columns(role=pl.lit(role)))
    return stack(frames).select("screen", "experiment", "well_id", "role", "treatments")


def describe_encoders(paths: Sequence[Path]) -> pl.DataFrame:
    """List what each encoder made of each screen: blocks, width, pooling, crops a well."""
    rows = []
    for path in paths:
        facts = read_attributes(path)
        names = facts.get("stamp", {}).get("names", {})
        rows.append(
            {
                "screen": names.get("screen", "–"),
                "encoder": names.get("encoder", "–"),
                "blocks": len(facts["blocks"]),
                "last": max(facts["blocks"]),
                "dim": max(facts["block_dims"]),
                "pooling": str(facts.get("pooling") or "–"),
                "crops": str(facts.get("crops_a_well") or "–"),
            }
        )
    if not rows:
        return pl.DataFrame()
    keys = [name for name in rows[0] if name != "blocks"]
    return (
        pl.DataFrame(rows)
        .group_by(keys, maintain_order=True)
        .agg(blocks=pl.col("blocks").max(), experiments=pl.len())
    )
