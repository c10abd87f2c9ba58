"""A made-up screen as large as one likes, in the files that the workflow passes on.

Every experiment is a qc table, written by the format itself. How often a condition is
repeated follows Zipf's law; each experiment has the same share of controls, empty wells,
wells with several perturbations, and failed tests. An experiment's rows depend on its number
alone.
"""

from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import polars as pl

from phenopipe.formats.qc import QC_WELLS, write_qc_wells
from phenopipe.formats.wells import TREATMENT, well_name

ROWS_AN_EXPERIMENT = 42_273  # 93 million in 2,200 experiments
N_CONDITIONS = 1_000_000
SHAPE = (24, 48)
# Share of each role; the rest are perturbations.
ROLES = ("negative_control", "positive_control", "empty", "perturbation")
ROLE_SHARES = (0.08, 0.03, 0.05, 0.84)
# Share of treated wells with one, two, three and four perturbations (four are too many).
NUMBER_SHARES = (0.93, 0.05, 0.01, 0.01)
BACKGROUND_SHARE = 0.1
FAILED = {"focus": 0.03, "dead": 0.01, "artefact": 0.02, "assay": 0.01, "size": 0.005}


@cache
def catalogue():
    """All that can be applied: conditions by rank, then controls, then backgrounds.

    Half of the conditions are guides (six a gene), a tenth siRNAs, the rest compounds at
    eight concentrations.
    """
    n = np.arange(N_CONDITIONS)
    # Ranks are dealt out to kinds in turn, so that every kind has frequent conditions.
    kind = np.array(["knockout"] * 5 + ["sirna"] + ["compound"] * 4)[n % 10]
    serial = n // 10 * np.where(kind == "sirna", 1, np.where(kind == "compound", 4, 5)) + n % 10
    frame = pl.DataFrame({"kind": kind, "serial": serial}).with_columns(
        gene=pl.format("GENE{}", (pl.col("serial") // 6 % 20_000).cast(pl.String)),
        dose=pl.lit(10.0) / pl.lit(3.0).pow(pl.col("serial") % 8),
    )
    genetic = pl.col("kind") != "compound"
    frame = frame.select(
        perturbation=pl.when(pl.col("kind") == "knockout")
        .then(pl.format("{}_guide_{}", "gene", "serial"))
        .when(genetic)
        .then(pl.format("{}_sirna_{}", "gene", "serial"))
        .otherwise(pl.format("CPD-{}", pl.col("serial") // 8)),
        kind="kind",
        gene=pl.when(genetic).then("gene"),
        guide=pl.when(pl.col("kind") == "knockout").then(pl.format("guide_{}", "serial")),
        concentration_um=pl.when(~genetic).then(pl.col("dose").round_sig_figs(4)),
    )
    controls = pl.DataFrame(
        {
            "perturbation": ["NTC_guide_1", "NTC_guide_2", "POS_guide_1", "POS_guide_2", "TNF"],
            "kind": ["knockout"] * 4 + ["soluble_factor"],
            "gene": [None, None, "POS", "POS", None],
            "guide": ["NTC_guide_1", "NTC_guide_2", "POS_guide_1", "POS_guide_2", None],
            "concentration_um": [None] * 5,
        },
        schema=TREATMENT.to_schema(),
    )
    return pl.concat([frame, controls]).rechunk()


@cache
def chances():
    """Cumulative share of each condition by Zipf's law: a replicate count is 1 / rank."""
    return np.cumsum(1 / np.arange(1, N_CONDITIONS + 1)) / np.sum(
        1 / np.arange(1, N_CONDITIONS + 1)
    )


def treatments_of(role_W, rng):
    """Treatments of wells with given numbers of roles, as a list of structs."""
    drawn_WK = np.searchsorted(chances(), rng.random((len(role_W), 4)))
    number_W = rng.choice(4, len(role_W), p=NUMBER_SHARES) + 1
    number_W[role_W == 2] = 0
    control = role_W < 2
    number_W[control] = 1
    first_of_role = N_CONDITIONS + 2 * role_W[control]
    drawn_WK[control, 0] = first_of_role + rng.integers(0, 2, control.sum())
    factor_W = (role_W == 3) & (rng.random(len(role_W)) < BACKGROUND_SHARE)
    every_WK = np.concatenate([drawn_WK, np.full((len(role_W), 1), N_CONDITIONS + 4)], axis=1)
    used_WK = np.concatenate([np.arange(4) < number_W[:, None], factor_W[:, None]], axis=1)
    flat = catalogue()[every_WK[used_WK]].to_struct("treatments")
    lengths = used_WK.sum(axis=1)
    owner = np.repeat(np.arange(len(role_W)), lengths)
    listed = (
        pl.DataFrame({"owner": owner, "treatments": flat})
        .group_by("owner", maintain_order=True)
        .agg("treatments")
    )
    return (
        pl.DataFrame({"owner": np.arange(len(role_W))})
        .join(listed, on="owner", how="left", maintain_order="left")
        .select(pl.col("treatments").fill_null(pl.lit([], pl.List(TREATMENT))))
        .to_series(),
        number_W,
    )


def qc_table(number, rows):
    """Wells of one experiment with the flags that qc sets."""
    rng = np.random.default_rng(number)
    per_plate = SHAPE[0] * SHAPE[1]
    n = np.arange(rows)
    role_W = rng.choice(4, rows, p=ROLE_SHARES)
    treatments, number_W = treatments_of(role_W, rng)
    experiment = f"exp-{number:04d}"
    names = pl.Series([well_name(r + 1, c + 1) for r in range(24) for c in range(48)])
    row_W, column_W = n % per_plate // SHAPE[1] + 1, n % per_plate % SHAPE[1] + 1
    frame = pl.DataFrame(
        {
            "screen": pl.repeat("made-up", rows, eager=True),
            "experiment": pl.repeat(experiment, rows, eager=True),
            "plate": pl.Series(n // per_plate + 1).cast(pl.String),
            "well": names[n % per_plate],
            "row": row_W.astype(np.int32),
            "column": column_W.astype(np.int32),
            "cell_type": pl.repeat(("HUVEC", "U2OS")[number % 2], rows, eager=True),
            "role": pl.Series(ROLES)[role_W],
            "treatments": treatments,
            "layout": pl.format("layout-{}", pl.lit(number // 2)).pipe(
                lambda e: pl.select(e).to_series()[0]
            ),
        }
    )
    frame = frame.with_columns(
        well_id=pl.format("{}/{}/{}", "experiment", "plate", "well"),
        n_images=pl.lit(1, pl.Int32),
    )
    # Qc asks first whether anything was recorded, then whether it is too much.
    missing = (role_W == 3) & (rng.random(rows) < 0.01)
    frame = frame.with_columns(
        treatments=pl.when(pl.Series(missing))
        .then(pl.lit([], pl.List(TREATMENT)))
        .otherwise("treatments")
    )
    flags = {f"fails_{name}": rng.random(rows) < share for name, share in FAILED.items()}
    flags["fails_perturbation_missing"] = missing
    flags["fails_perturbations"] = (number_W > 3) & ~missing
    names = [name.removeprefix("fails_") for name in flags]
    frame = frame.with_columns(pl.Series(name, flag) for name, flag in flags.items())
    failed = [pl.when(f"fails_{name}").then(pl.lit(name)) for name in names]
    return frame.with_columns(
        passes=~pl.any_horizontal(list(flags)),
        reason=pl.concat_str(failed, separator=", ", ignore_nulls=True),
    )


def write_experiment(number, *, folder, rows):
    """Write one experiment's qc table, unless it is there with the columns of today."""
    path = folder / f"{number:04d}" / "wells.parquet"
    if not path.exists() or not QC_WELLS.columns.keys() <= pl.read_parquet_schema(path).keys():
        stamp = {"names": {"screen": "made-up", "experiment": f"exp-{number:04d}"}}
        write_qc_wells(path, qc_table(number, rows), stamp)


def tables(folder: Path, rows: int):
    """Return the paths of the qc tables of a screen."""
    n = max(1, round(rows / ROWS_AN_EXPERIMENT))
    return [folder / f"{rows}" / f"{i:04d}" / "wells.parquet" for i in range(n)]


def make_up(folder: Path, rows: int, workers: int = 2):
    """Write the tables of a screen that are not there yet."""
    n = len(tables(folder, rows))
    each = [rows // n + (i < rows % n) for i in range(n)]
    # Polars has threads by now, which a forked process would wait for in vain.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [
            pool.submit(partial(write_experiment, i, folder=folder / f"{rows}", rows=each[i]))
            for i in range(n)
        ]
        for job in jobs:
            job.result()
